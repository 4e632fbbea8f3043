/** The smoke test of the test machine itself, which the other suites of this folder use. */
import assert from 'node:assert/strict';
import {createHash} from 'node:crypto';
import {setTimeout as sleep} from 'node:timers/promises';
import manifest from '../../package.json' with {type: 'json'};
import {DEVICES, EMPTY_PORTS} from './devices.js';
import {
  BOOT_LIMIT,
  CHECKOUT,
  CommandError,
  explainFailures,
  Machine,
  skipUnlessAvailable,
  type GuestProcess,
} from './machine.js';
import {closeShared} from './shared.js';

const sys = '/sys/bus/pci/devices';
const spare = DEVICES.spareNetwork.slot;

describe('the test machine', function () {
  this.timeout(120_000);
  let machine: Machine;

  before(async function () {
    this.timeout(BOOT_LIMIT);
    await skipUnlessAvailable(this);
    await closeShared();
    machine = await Machine.boot();
    process.stderr.write(`${machine.recipe.suite} booted in ${(machine.bootTime / 1000).toFixed(1)} s\n`);
  });
  after(async () => (machine as Machine | undefined)?.close());
  explainFailures(() => machine);

  describe('commands', () => {
    it('returns code, stdout and stderr separately', async () => {
      assert.deepEqual(await machine.run('echo out; echo err >&2; exit 3'), {
        code: 3,
        stdout: 'out\n',
        stderr: 'err\n',
      });
      assert.equal((await machine.run('kill -9 $$')).code, 137);
      await assert.rejects(machine.sh('echo half; exit 4'), (error: CommandError) => {
        assert.equal(error.code, 4);
        assert.equal(error.stdout, 'half\n');
        return true;
      });
    });

    it('transfers megabytes without changes, in both directions', async () => {
      const sum = await machine.sh('head -c 8000000 /dev/urandom >/tmp/noise; sha256sum </tmp/noise');
      const noise = await machine.readFile('/tmp/noise');
      assert.equal(`${createHash('sha256').update(noise).digest('hex')}  -`, sum);
      await machine.writeFile("/tmp/an 'odd' folder/copy", noise, 0o600);
      assert.equal(await machine.sh(`sha256sum <"/tmp/an 'odd' folder/copy"`), sum);
    });

    it('ends the wait for a command that hangs, and reports its output', async () => {
      const began = Date.now();
      await assert.rejects(machine.run('echo before; sleep 1000', {timeout: 1000}), (error: CommandError) => {
        assert.equal(error.stdout, 'before\n');
        assert.equal(error.code, undefined);
        return true;
      });
      assert.ok(Date.now() - began < 5000);
      await machine.waitUntil('! pgrep -x sleep');
    });

    it('does not wait for a daemon that a command leaves behind', async () => {
      const began = Date.now();
      await machine.run('(trap "" HUP; sleep 5; echo late; touch /tmp/daemon-lives) & echo now');
      assert.ok(Date.now() - began < 4000);
      await machine.waitUntil('[ -e /tmp/daemon-lives ]');
    });

    it('runs commands in the background', async () => {
      const cat = await machine.start('echo ready; exec sleep 1000');
      await cat.printed(/ready/);
      assert.equal(await machine.sh(`cat /proc/${cat.pid}/comm`), 'sleep');
      cat.kill('TERM');
      assert.equal((await cat.exited).code, 143);
    });

    it('reports the last output of a condition that is never true', async () => {
      await assert.rejects(machine.waitUntil('echo reason; false', {timeout: 1000}), /reason/);
    });

    it('has the checkout, read-only', async () => {
      assert.match(await machine.sh(`cat ${CHECKOUT}/package.json`), /"name": "pearasys"/);
      assert.notEqual((await machine.run(`touch ${CHECKOUT}/x`)).code, 0);
    });

    it('has a Node that is new enough', async () => {
      const [major = 0, minor = 0] = (await machine.sh('node -p process.versions.node'))
        .split('.')
        .map(Number);
      const [oldestMajor = 0, oldestMinor = 0] = manifest.engines.node
        .slice('>='.length)
        .split('.')
        .map(Number);
      assert.ok(major > oldestMajor || (major === oldestMajor && minor >= oldestMinor), `${major}.${minor}`);
    });
  });

  describe('devices', () => {
    it('are those of the table, in their slots, on their drivers', async () => {
      const listed = await machine.sh('lspci -Dnn');
      for (const [name, {slot, id, driver}] of Object.entries(DEVICES)) {
        assert.match(listed, new RegExp(`^${slot} .*\\[${id}\\]`, 'm'), name);
        assert.equal(await driverOf(slot), driver, name);
      }
      for (const {port, slot} of EMPTY_PORTS) {
        assert.match(listed, new RegExp(`^${port} PCI bridge`, 'm'));
        assert.doesNotMatch(listed, new RegExp(`^${slot} `, 'm'));
      }
    });

    it('are in the groups of the table', async () => {
      const members = new Map<string, string[]>();
      const links = await machine.sh(
        `cd ${sys}; for slot in *; do echo $slot $(basename $(readlink $slot/iommu_group)); done`,
      );
      for (const line of links.split('\n')) {
        const [slot = '', group = ''] = line.split(' ');
        assert.ok(group, `${slot} has no group`);
        members.set(group, [...(members.get(group) ?? []), slot]);
      }
      const shared = [...members.values()].filter(({length}) => length > 1);
      assert.deepEqual(shared, [
        [DEVICES.display.slot, DEVICES.displayAudio.slot],
        [DEVICES.legacyBridge.slot, DEVICES.legacy0.slot, DEVICES.legacy1.slot],
        ['0000:00:1f.0', '0000:00:1f.2', '0000:00:1f.3'],
      ]);
    });

    it('has disks that can be mounted', async () => {
      const disk = `/dev/disk/by-path/pci-${DEVICES.disk0.slot}-nvme-1`;
      await machine.sh(`mkfs.ext4 -q ${disk} && mount ${disk} /mnt && touch /mnt/x && umount /mnt`);
    });

    it('binds the spare network card to vfio-pci and back', async () => {
      await toVfio(spare);
      await machine.sh(`test -c /dev/vfio/$(basename $(readlink ${sys}/${spare}/iommu_group))`);
      await machine.sh(`cd ${sys}/${spare} && echo >driver_override && echo ${spare} >driver/unbind`);
      await machine.sh(`echo ${spare} >/sys/bus/pci/drivers_probe`);
      assert.equal(await driverOf(spare), 'e1000e');
    });

    it('removes a device and finds it again', async () => {
      await machine.sh(`echo 1 >${sys}/${spare}/remove`);
      assert.equal((await machine.run(`test -e ${sys}/${spare}`)).code, 1);
      await machine.sh('echo 1 >/sys/bus/pci/rescan');
      await machine.waitUntil(`[ -e ${sys}/${spare}/driver ]`);
      assert.equal(await driverOf(spare), 'e1000e');
    });

    it('plugs devices in and out', async () => {
      const port = machine.ports.take();
      await port.plug('e1000e');
      await machine.waitUntil(`[ -e ${sys}/${port.slot}/driver ]`);
      assert.equal(await driverOf(port.slot), 'e1000e');
      await port.unplug();
      await port.plug('nvme');
      await machine.waitUntil(`[ -e ${sys}/${port.slot}/nvme ]`);
      assert.equal(await driverOf(port.slot), 'nvme');
      await port.unplug();
      assert.equal((await machine.run(`test -e ${sys}/${port.slot}`)).code, 1);
      await machine.ports.giveBack();
    });

    it('has a port for each test, and returned ports again', async () => {
      const taken = EMPTY_PORTS.map(() => machine.ports.take());
      assert.deepEqual(taken.map(({slot}) => slot).sort(), EMPTY_PORTS.map(({slot}) => slot).sort());
      assert.throws(() => machine.ports.take(), /no port/);
      await taken[0]!.plug('edu');
      await machine.ports.giveBack();
      assert.equal((await machine.run(`test -e ${sys}/${taken[0]!.slot}`)).code, 1);
      assert.equal(EMPTY_PORTS.map(() => machine.ports.take()).length, EMPTY_PORTS.length);
      await machine.ports.giveBack();
    });

    it('has virtual functions', async () => {
      const {slot} = DEVICES.sriov;
      await machine.sh(`echo 0 >${sys}/${slot}/sriov_drivers_autoprobe; echo 2 >${sys}/${slot}/sriov_numvfs`);
      const virtual = slot.replace(/0$/, '1');
      await toVfio(virtual);
      assert.equal(await machine.sh(`readlink ${sys}/${virtual}/physfn`), `../${slot}`);
      await machine.sh(`echo 0 >${sys}/${slot}/sriov_numvfs`);
    });
  });

  describe('a write that never returns', () => {
    let holder: GuestProcess;
    let writer: GuestProcess;

    before(async () => {
      await toVfio(spare);
      holder = await machine.start(`exec perl ${CHECKOUT}/test/vm/stuck.pl ${spare}`);
      await holder.printed(/held/);
    });

    it('waits in the kernel and cannot be killed', async () => {
      writer = await machine.start(`echo ${spare} >/sys/bus/pci/drivers/vfio-pci/unbind`);
      await machine.waitUntil(`grep -q vfio_unregister_group_dev /proc/${writer.pid}/wchan`);
      // The writer is in state S until the first signal.
      writer.kill('KILL');
      await machine.waitUntil(`grep -q '^State:.D' /proc/${writer.pid}/status`);
      await sleep(1000);
      assert.equal(writer.ended, false);
      assert.match(await machine.sh(`cat /proc/${writer.pid}/stack`), /vfio_unregister_group_dev/);
    });

    it('does not hang the runner', async () => {
      // The writer holds the device's lock, for which this write waits.
      await assert.rejects(
        machine.run(`echo ${spare} >/sys/bus/pci/drivers/vfio-pci/bind`, {timeout: 2000}),
        CommandError,
      );
      assert.equal(await machine.sh(`cat ${sys}/${spare}/vendor`), '0x8086');
    });

    it('ends with the process that holds the device', async () => {
      holder.kill();
      assert.equal((await writer.exited).code, 137);
      // The killed bind has completed as well.
      await machine.waitUntil(`[ -e ${sys}/${spare}/driver ]`);
      assert.equal(await driverOf(spare), 'vfio-pci');
    });
  });

  describe('boots', () => {
    it('keep the disk over a reboot, and end all processes', async function () {
      this.timeout(900_000);
      const [boot, background] = [await bootId(), await machine.start('sleep 1000')];
      await machine.writeFile('/root/kept', 'kept');
      const began = Date.now();
      await machine.reboot();
      process.stderr.write(`rebooted in ${((Date.now() - began) / 1000).toFixed(1)} s\n`);
      assert.notEqual(await bootId(), boot);
      assert.equal(await machine.sh('cat /root/kept'), 'kept');
      // The agent runs long enough to report that systemd's shutdown ended the process.
      assert.equal((await background.exited).code, 143);
      assert.match(await machine.journal('-b -1 -n 50'), /reboot/i);
      assert.match(await machine.kernelLog(), /DMAR: IOMMU enabled/);
    });

    it('report a shutdown that hangs, after which the machine can be reset', async function () {
      this.timeout(900_000);
      await machine.sh(`systemd-run --unit=stubborn -p KillMode=none -p TimeoutStopSec=infinity \\
        -p ExecStop='/bin/sleep 1000' /bin/sleep 2000`);
      await assert.rejects(machine.reboot({timeout: 10_000}), /stubborn/);
      assert.equal(await machine.sh('echo well'), 'well');
      // A panic ends the wait for a running command.
      await assert.rejects(machine.sh('sync; exec echo c >/proc/sysrq-trigger'), /reset/);
      await machine.powerCycle();
      assert.equal(await machine.sh('cat /root/kept'), 'kept');
    });
  });

  async function driverOf(slot: string): Promise<string | undefined> {
    const driver = await machine.sh(`basename "$(readlink ${sys}/${slot}/driver)"`);
    return driver === '' ? undefined : driver;
  }

  async function toVfio(slot: string): Promise<void> {
    await machine.sh(`set -e
      modprobe vfio-pci
      cd ${sys}/${slot}
      echo vfio-pci >driver_override
      [ ! -e driver ] || echo ${slot} >driver/unbind
      echo ${slot} >/sys/bus/pci/drivers_probe`);
    assert.equal(await driverOf(slot), 'vfio-pci');
  }

  async function bootId(): Promise<string> {
    return machine.sh('cat /proc/sys/kernel/random/boot_id');
  }
});
