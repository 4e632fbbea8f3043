/** Records, units and events: permanent claims on a real kernel with a real udev and systemd. */
import assert from 'node:assert/strict';
import {recordCases, subject} from '../corpus/records.js';
import {corpusScript} from './corpus.js';
import {DEVICES} from './devices.js';
import type {Port} from './port.js';
import {rebootWhileHeld, withProduct} from './shared.js';

const unitOf = (slot: string, driver = 'vfio-pci'): string => `pearasys-${slot}@${driver}.service`;
const claimOf = (slot: string, driver = 'vfio-pci'): string => `pearasys-claim-${slot}@${driver}.service`;

describe('services on a real kernel', function () {
  const product = withProduct(this);
  const {disk0, disk1, display, displayAudio, edu0, legacy0, legacy1, spareNetwork} = DEVICES;
  const unit = unitOf(disk1.slot);

  /** For a suite: installs the claim of the disk before it, and removes it after it. */
  const withClaim = (...options: readonly string[]) => {
    before(() => product().sh('-s', disk1.slot, 'service', 'install', 'vfio-pci', ...options));
    after(removeClaim);
  };
  const removeClaim = async () => {
    await product().sh('-s', disk1.slot, 'service', 'uninstall');
    await product().sh('bind', 'default', disk1.slot);
  };

  const rescan = async (slot: string) => {
    const {machine} = product();
    await machine.sh(`echo 1 > /sys/bus/pci/devices/${slot}/remove`);
    await machine.sh('echo 1 > /sys/bus/pci/rescan');
    await machine.sh('udevadm settle');
  };

  describe('install', () => {
    after(removeClaim);

    it('records, enables and prints the next commands, and does not change the device', async () => {
      const printed = await product().sh('-s', disk1.slot, 'service', 'install', 'vfio-pci');
      assert.match(printed, new RegExp(`^to start: systemctl start ${unit}$`, 'm'));
      assert.match(printed, new RegExp(`^to stop: systemctl stop ${unit}$`, 'm'));
      assert.equal(await product().machine.sh(`systemctl is-enabled ${unit}`), 'enabled');
      assert.equal(await product().driverOf(disk1.slot), 'nvme');
      assert.equal(await product().stateOf(unit), 'inactive');
    });

    it('does nothing the second time', async () => {
      const {changed} = await product().json<{changed: boolean}>(
        '-s',
        disk1.slot,
        'service',
        'install',
        'vfio-pci',
      );
      assert.equal(changed, false);
    });

    it('creates units that pass systemd-analyze verify', async () => {
      // With other names, because systemd-analyze takes a colon as the separator between a file and its alias.
      const copies = ['/tmp/verified@vfio-pci.service', '/tmp/pearasys-claim-verified@vfio-pci.service'];
      await product().machine.sh(`cp /etc/systemd/system/pearasys-${disk1.slot}@.service ${copies[0]}
cp /etc/systemd/system/pearasys-claim-${disk1.slot}@.service ${copies[1]}`);
      const {stdout, stderr} = await product().machine.run(`systemd-analyze verify ${copies.join(' ')}`);
      // systemd-analyze calls man to check the documentation, which the machine does not have.
      assert.equal((stdout + stderr).replace(/^.*Command 'man .*\n/gm, ''), '');
    });
  });

  describe('a full disk', () => {
    it('leaves no partial files', async () => {
      const {machine} = product();
      const other = spareNetwork.slot;
      await machine.sh(
        'mkdir -p /etc/pearasys/pci && mount -t tmpfs -o size=64k,nr_inodes=16 full /etc/pearasys/pci && chmod 755 /etc/pearasys/pci',
      );
      await machine.run('dd if=/dev/zero of=/etc/pearasys/pci/filler bs=4k');
      const {code, stderr} = await product().run('-s', other, 'service', 'install', 'vfio-pci');
      assert.equal(code, 1);
      assert.match(stderr, /ENOSPC \(no space left\)/);
      assert.equal(await machine.sh('ls /etc/pearasys/pci'), 'filler');
      await machine.sh('umount /etc/pearasys/pci');
      assert.equal(await machine.sh(`ls -d /etc/systemd/system/pearasys-${other}* 2>/dev/null || true`), '');
    });
  });

  describe('the unit', () => {
    withClaim();

    it('switches the card at its start, and releases it at its stop', async () => {
      const {machine} = product();
      await machine.sh(`systemctl start ${unit}`);
      assert.equal(await product().driverOf(disk1.slot), 'vfio-pci');
      await machine.sh(`systemctl stop ${unit}`);
      assert.equal(await product().driverOf(disk1.slot), '');
      assert.equal(await product().overrideOf(disk1.slot), '(null)');
    });

    it('stays inactive after a stop, during reloads, triggers and a restart of udev', async () => {
      const {machine} = product();
      await machine.sh('systemctl daemon-reload');
      await machine.sh(`udevadm trigger --action=add --settle /sys/bus/pci/devices/${disk1.slot}`);
      await machine.sh(`udevadm trigger --action=change --settle /sys/bus/pci/devices/${disk1.slot}`);
      await machine.sh('systemctl restart systemd-udevd && udevadm settle');
      assert.equal(await product().driverOf(disk1.slot), '');
      assert.equal(await product().stateOf(unit), 'inactive');
    });

    it('survives daemon-reload, bind events, triggers and a restart of udev when active', async () => {
      const {machine} = product();
      await machine.sh(`systemctl start ${unit}`);
      const since = await machine.sh(
        `systemctl show --value --property=ActiveEnterTimestampMonotonic ${unit}`,
      );
      await machine.sh('systemctl daemon-reload');
      await machine.sh(`udevadm trigger --action=add --settle /sys/bus/pci/devices/${disk1.slot}`);
      await machine.sh(`udevadm trigger --action=bind --settle /sys/bus/pci/devices/${disk1.slot}`);
      await machine.sh(`udevadm trigger --action=change --settle /sys/bus/pci/devices/${disk1.slot}`);
      await machine.sh('systemctl daemon-reload && systemctl daemon-reexec');
      await machine.sh('systemctl restart systemd-udevd && udevadm settle && systemctl daemon-reload');
      assert.equal(await product().stateOf(unit), 'active');
      assert.equal(await product().driverOf(disk1.slot), 'vfio-pci');
      assert.equal(
        await machine.sh(`systemctl show --value --property=ActiveEnterTimestampMonotonic ${unit}`),
        since,
      );
    });

    it('is stopped by the start of the unit of another driver', async () => {
      const {machine} = product();
      const other = unitOf(disk1.slot, 'nvme');
      await product().sh('-s', disk1.slot, 'service', 'install', 'nvme');
      assert.equal(await product().stateOf(unit), 'active');
      await machine.sh(`systemctl start ${other}`);
      assert.equal(await product().driverOf(disk1.slot), 'nvme');
      assert.equal(await product().stateOf(unit), 'inactive');
      await product().sh('-s', disk1.slot, 'service', 'install', 'vfio-pci', '--now');
      assert.equal(await product().driverOf(disk1.slot), 'vfio-pci');
      assert.equal(await product().stateOf(other), 'inactive');
    });

    it('starts no Node if the device is already on the driver', async () => {
      const {machine} = product();
      await machine.sh(`systemctl stop ${unit}`);
      await machine.sh(`rm /run/pearasys/released/${disk1.slot}; pearasys bind vfio-pci ${disk1.slot}`);
      await machine.sh(`systemctl start ${unit}`);
      assert.equal(await product().stateOf(unit), 'active');
      const said = await machine.sh(
        `journalctl -b -o cat _SYSTEMD_INVOCATION_ID="$(systemctl show --value -p InvocationID ${unit})"`,
      );
      assert.doesNotMatch(said, /driver vfio-pci/);
    });

    it('refuses to release a device that a guest uses, and names the process', async () => {
      const {machine} = product();
      const guest = await machine.start(`exec perl /mnt/checkout/test/vm/stuck.pl ${disk1.slot}`);
      await guest.printed(/held/);
      await machine.run(`systemctl stop ${unit}`);
      assert.match(await product().journalOf(unit), new RegExp(`${guest.pid} \\(`));
      assert.equal(await product().driverOf(disk1.slot), 'vfio-pci');
      guest.kill();
      await guest.exited;
      await machine.sh(`systemctl reset-failed ${unit}; systemctl start ${unit}`);
      assert.equal(await product().stateOf(unit), 'active');
    });
  });

  describe('installed together', () => {
    const [first, second] = [unitOf(display.slot), unitOf(displayAudio.slot)];

    it('starts and stops both functions of a card with either unit', async () => {
      const {machine} = product();
      await product().sh('-s', display.slot, 'service', 'install', 'vfio-pci', '--siblings');
      await machine.sh(`systemctl start ${first}`);
      await product().untilState(second, 'active');
      assert.equal(await product().driverOf(display.slot), 'vfio-pci');
      assert.equal(await product().driverOf(displayAudio.slot), 'vfio-pci');
      await machine.sh(`systemctl stop ${second}`);
      await product().untilState(first, 'inactive');
      await product().untilDriver(display.slot, '');
      assert.equal(await product().driverOf(displayAudio.slot), '');
    });

    it('switches none of them if one is in use', async () => {
      const {machine} = product();
      await product().sh('bind', 'default', display.slot, displayAudio.slot);
      const card = await machine.sh(`ls /sys/bus/pci/devices/${display.slot}/drm | grep card`);
      const holder = await machine.start(`exec sleep infinity </dev/dri/${card}`);
      const {code} = await machine.run(`systemctl start ${first}`);
      assert.notEqual(code, 0);
      assert.match(await product().journalOf(claimOf(display.slot)), new RegExp(`${holder.pid} \\(sleep\\)`));
      assert.equal(await product().driverOf(display.slot), display.driver);
      holder.kill();
      await holder.exited;
      await machine.run(`systemctl stop ${first} ${second}; systemctl reset-failed`);
      await product().sh('-s', display.slot, '-s', displayAudio.slot, 'service', 'uninstall');
      await product().sh('bind', 'default', display.slot, displayAudio.slot);
    });
  });

  describe('events', () => {
    withClaim('--now');

    it('claims a device that is added again, by the rule alone', async () => {
      const {machine} = product();
      await rescan(disk1.slot);
      await product().untilState(unit, 'active');
      assert.equal(await product().driverOf(disk1.slot), 'vfio-pci');
      const said = await machine.sh(
        `journalctl -b -o cat _SYSTEMD_INVOCATION_ID="$(systemctl show --value -p InvocationID ${unit})"`,
      );
      assert.doesNotMatch(said, /driver vfio-pci/);
    });

    it('stops the unit of a device that is removed', async () => {
      const {machine} = product();
      await machine.sh(`echo 1 > /sys/bus/pci/devices/${disk1.slot}/remove`);
      await product().untilState(unit, 'inactive');
      await machine.sh('echo 1 > /sys/bus/pci/rescan');
      await product().untilState(unit, 'active');
      assert.equal(await product().driverOf(disk1.slot), 'vfio-pci');
    });

    describe('of a hot-plug port', () => {
      let port: Port;

      /** Installs the claim of a disk, and then removes the disk. */
      beforeEach(async () => {
        port = product().machine.ports.take();
        await port.plug('nvme');
        await product().untilDriver(port.slot, 'nvme');
        await product().sh('-s', port.slot, 'service', 'install', 'vfio-pci');
        await port.unplug();
      });
      afterEach(async () => {
        await port.unplug();
        await product().untilState(unitOf(port.slot), 'inactive');
        await product().sh('-s', port.slot, 'service', 'uninstall');
      });

      it('claim a device that is plugged into the slot of its record', async () => {
        const {slot} = port;
        await port.plug('nvme');
        await product().untilState(unitOf(slot), 'active');
        assert.equal(await product().driverOf(slot), 'vfio-pci');
        await port.unplug();
        await product().untilState(unitOf(slot), 'inactive');
      });

      it('leave another card in that slot alone, and report it', async () => {
        const {slot} = port;
        await port.plug('e1000e');
        await product().untilDriver(slot, 'e1000e');
        await product().untilState(claimOf(slot), 'failed');
        assert.equal(await product().driverOf(slot), 'e1000e');
        assert.equal(await product().overrideOf(slot), '(null)');
        assert.match(
          await product().journalOf(claimOf(slot)),
          /is not claimed: the card in the slot is 8086:10d3, the recorded one is 1b36:0010/,
        );
        const {services} = await product().json<{services: {slot: string; card: string}[]}>(
          'service',
          'list',
        );
        assert.equal(services.find((one) => one.slot === slot)?.card, 'other-card');
      });
    });

    it('claims one of two twins', async () => {
      await rescan(disk0.slot);
      await product().untilDriver(disk0.slot, 'nvme');
      assert.equal(await product().driverOf(disk1.slot), 'vfio-pci');
    });

    it('claims the device if systemctl enables the unit, and not if systemctl disables it', async () => {
      const {machine} = product();
      await machine.sh(`systemctl disable ${unit}`);
      await rescan(disk1.slot);
      await product().untilDriver(disk1.slot, 'nvme');
      await product().untilState(unit, 'inactive');
      await machine.sh(`systemctl enable ${unit}`);
      await rescan(disk1.slot);
      await product().untilState(unit, 'active');
      assert.equal(await product().driverOf(disk1.slot), 'vfio-pci');
    });

    it('records and claims a card of an id in any slot', async () => {
      const {machine} = product();
      const port = machine.ports.take();
      const {slot} = port;
      await product().sh('service', 'install', 'vfio-pci', '--any-slot', '-d', '1b36:0010');
      await port.plug('nvme');
      await product().untilState(unitOf(slot), 'active');
      assert.equal(await product().driverOf(slot), 'vfio-pci');
      await machine.sh(`test -e /etc/pearasys/pci/${slot}-0x1b36-0x0010`);
      await port.unplug();
      await product().sh('service', 'uninstall', '--any-slot', '-d', '1b36:0010');
      await product().sh('-s', slot, 'service', 'uninstall');
    });

    it('starts no process for devices without a record', async () => {
      const {machine} = product();
      const log = await machine.sh(
        `udevadm test --action=add /sys/bus/pci/devices/${spareNetwork.slot} 2>&1`,
      );
      assert.match(log, /60-pearasys\.rules/);
      assert.doesNotMatch(log, /pearasys[^\n]*(?:PROGRAM|RUN|Running)/);
      const claimed = await machine.sh(`udevadm test --action=add /sys/bus/pci/devices/${disk1.slot} 2>&1`);
      assert.doesNotMatch(claimed, /(?:Running command|run: ')[^\n]*pearasys/);
    });
  });

  describe('records that cannot be trusted', () => {
    withClaim('--now');

    it('udev uses the valid ones of the corpus after they were checked', async () => {
      const {machine} = product();
      const {slot} = edu0;
      await product().sh('-s', slot, 'service', 'install', subject.driver);
      // Only the rule is tested.
      await machine.sh(`systemctl mask --runtime ${claimOf(slot)}`);
      await machine.writeFile(
        '/root/corpus.sh',
        corpusScript({...edu0, subsystem: '1af4:1100', path: '0000:00/08.0'}),
      );
      const overrides = (await machine.sh('sh /root/corpus.sh', {timeout: 300_000})).split('\n');
      assert.deepEqual(
        recordCases.map(({name}, index) => `${name}: ${overrides[index] ?? ''}`),
        recordCases.map(({name, obeyed}) => `${name}: ${obeyed ? subject.driver : '(null)'}`),
      );
      await machine.sh(`systemctl unmask --runtime ${claimOf(slot)}`);
      await product().sh('-s', slot, 'service', 'uninstall');
      await rescan(slot);
      assert.equal(await product().overrideOf(slot), '(null)');
    });

    it('a manually written record is checked by the unit, and then used by the rule', async () => {
      const {machine} = product();
      const {slot} = disk0;
      // The name ends with the root port.
      const name = `${slot}-0x1b36-0x0010@0000:00:11.0`;
      await product().sh('-s', slot, 'service', 'install', 'vfio-pci');
      await machine.sh(`rm /run/pearasys/checked/${name}`);
      await rescan(slot);
      await product().untilState(unitOf(slot), 'active');
      assert.equal(await product().driverOf(slot), 'vfio-pci');
      assert.equal(await product().wasSkipped(claimOf(slot)), false);
      assert.equal(
        await machine.sh(`cat /run/pearasys/checked/${name}`),
        'PEARASYS_DRIVER=vfio-pci\nPEARASYS_SERIAL=nvme:disk0',
      );
      await rescan(slot);
      await product().untilState(unitOf(slot), 'active');
      assert.equal(await product().wasSkipped(claimOf(slot)), true);
      await product().sh('-s', slot, 'service', 'uninstall');
      await product().sh('bind', 'default', slot);
    });

    it('a record that others can write is ignored', async () => {
      const {machine} = product();
      const path = `/etc/pearasys/pci/${disk1.slot}-0x1b36-0x0010`;
      await machine.sh(`chmod 666 ${path}`);
      await rescan(disk1.slot);
      await product().untilState(claimOf(disk1.slot), 'failed');
      assert.equal(await product().driverOf(disk1.slot), 'nvme');
      assert.match(await product().journalOf(claimOf(disk1.slot)), /writable by others/);
      await machine.sh(`chmod 644 ${path}`);
      await rescan(disk1.slot);
      await product().untilState(unit, 'active');
      assert.equal(await product().driverOf(disk1.slot), 'vfio-pci');
    });
  });

  describe('across boots', function () {
    this.timeout(1_200_000);
    withClaim('--now');

    it('claims at boot, and does not delay a shutdown', async () => {
      const {machine} = product();
      await product().sh('-s', legacy0.slot, '-s', legacy1.slot, 'service', 'install', 'vfio-pci', '--now');
      const shutdown = await rebootWhileHeld(machine, disk1.slot);
      assert.doesNotMatch(
        shutdown,
        /(?:Stopping|Stopped|Deactivated|released).*pearasys-0000|pearasys-0000.*(?:Stopping|Deactivated)/,
      );
      for (const slot of [disk1.slot, legacy0.slot, legacy1.slot]) {
        await product().untilState(unitOf(slot), 'active');
        assert.equal(await product().driverOf(slot), 'vfio-pci', slot);
      }
      assert.equal(await product().driverOf(disk0.slot), 'nvme');
      for (const {slot, id} of [disk1, legacy0]) {
        const checked = `/run/pearasys/checked/${slot}-0x${id.replace(':', '-0x')}`;
        assert.equal(await machine.sh(`head -n 1 ${checked}@*`), 'PEARASYS_DRIVER=vfio-pci');
      }
      // The initramfs has loaded nvme, so the unit unbinds it from the disk. e1000 is loaded after the rule.
      assert.match(await product().journalOf(claimOf(disk1.slot)), /drivers\/nvme\/unbind/);
      assert.equal(await product().wasSkipped(claimOf(legacy0.slot)), true);
      await product().sh('-s', legacy0.slot, '-s', legacy1.slot, 'service', 'uninstall');
    });

    it('does not claim at boot if the unit is disabled', async () => {
      const {machine} = product();
      await machine.sh(`systemctl disable ${unit}`);
      await machine.reboot();
      await product().untilDriver(disk1.slot, 'nvme');
      assert.equal(await product().overrideOf(disk1.slot), '(null)');
      assert.equal(await product().stateOf(unit), 'inactive');
      await machine.sh(`systemctl start ${unit}`);
      assert.equal(await product().driverOf(disk1.slot), 'vfio-pci');
    });
  });
});
