/**
 * Suspend and hibernation on a real kernel. In S3, QEMU resets all devices, as hardware without power loses its state.
 */
import assert from 'node:assert/strict';
import {DEVICES} from './devices.js';
import {CHECKOUT, type Machine} from './machine.js';
import {mdevRecipe} from './recipes.js';
import {withOwnMachine, type Product} from './shared.js';

const uuid = '11111111-1111-4111-8111-111111111111';
const definition = `{"mdev_type": "mtty-1", "start": "auto", "attrs": []}`;
const {display, displayAudio, spareNetwork, disk0, disk1, edu0} = DEVICES;
const claimed = [display.slot, displayAudio.slot, spareNetwork.slot, disk0.slot];
const guest = 'pearasys-guest@g.service';
const awake = 'pearasys-awake@g.service';

describe('sleep on a real kernel', function () {
  this.timeout(200_000);
  let machine: Machine;
  let product: Product;

  withOwnMachine(this, mdevRecipe(), async (booted) => {
    product = booted;
    ({machine} = product);
    await machine.sh('ln -s /dev/null /etc/udev/rules.d/60-mdevctl.rules && udevadm control --reload');
    for (const slot of [display.slot, spareNetwork.slot, disk0.slot])
      await product.sh('-s', slot, 'service', 'install', 'vfio-pci', '--siblings', '--now');
    await machine.writeFile(`/etc/mdevctl.d/mtty/${uuid}`, definition);
    await machine.sh('modprobe mtty && udevadm settle');
    await product.untilState(`mdev@${uuid}.service`, 'active');
    // The share of the checkout does not survive a suspend: the transport of 9p does not restore its queue.
    await machine.sh(
      `cp ${CHECKOUT}/test/vm/stuck.pl ${CHECKOUT}/test/vm/register.pl /root && mkfifo /run/lines`,
    );
  });

  /** Suspends the machine, and wakes it up. Once for each machine: the second time, QEMU does not suspend. */
  const suspend = async () => {
    const suspended = machine.event(({event}) => event === 'SUSPEND', 60_000);
    const process = await machine.start('systemctl start suspend.target');
    await suspended;
    await machine.monitor('system_wakeup');
    const {code, stderr} = await process.wait(60_000);
    assert.equal(code, 0, stderr);
    await machine.waitUntil(
      'test "$(systemctl show --value --property=ActiveState sleep.target)" = inactive',
    );
  };
  const units = [...claimed.map((slot) => `pearasys-${slot}@vfio-pci.service`), `mdev@${uuid}.service`];
  /** What must be the same before and after. */
  const state = () =>
    machine.sh(`for slot in ${[...claimed, disk1.slot].join(' ')}; do
  cd /sys/bus/pci/devices/$slot
  echo "$slot $(basename "$(readlink driver)") $(cat driver_override) $(setpci -s $slot 0.l)"
done
readlink -f /sys/bus/mdev/devices/${uuid}/driver
systemctl show --property=Id,ActiveState,ActiveEnterTimestampMonotonic ${units.join(' ')}
journalctl --quiet --no-pager -b -o cat -p warning -u 'pearasys-*' -u 'mdev*'`);
  const hold = async (command: string, said: RegExp) => {
    const process = await machine.start(`exec perl /root/${command}`);
    await process.printed(said);
    return process;
  };
  /** Each claimed device works: a process can open it. The functions of the display card share a group. */
  const assertUsable = async () => {
    for (const name of [display.slot, spareNetwork.slot, disk0.slot, uuid]) {
      const process = await hold(`stuck.pl ${name}`, /held/);
      if (name !== uuid)
        assert.match(await machine.sh(`setpci -s ${name} 10.l`), /[1-9a-f][0-9a-f]{4}/, name);
      process.kill();
      await process.exited;
    }
  };

  describe('claimed and mediated devices', () => {
    it('are where their records say after a suspend, with their units active; open ones stay open, but are reset', async () => {
      const before = await state();
      assert.equal(before.match(/ vfio-pci vfio-pci /g)?.length, claimed.length, before);
      assert.equal(before.match(/ActiveState=active/g)?.length, units.length, before);
      const register = await hold(
        `register.pl ${spareNetwork.slot} 170 1234 <>/run/lines`,
        /register 1234\n/,
      );
      const mdev = await hold(`stuck.pl ${uuid}`, /held/);
      await suspend();
      assert.equal(await state(), before);
      await machine.sh('echo >/run/lines');
      await register.printed(/register 0\n/);
      assert.equal(mdev.ended, false);
      for (const process of [register, mdev]) {
        process.kill();
        await process.exited;
      }
      await assertUsable();
    });

    it('are so after the kernel has prepared a hibernation and given it up', async () => {
      const before = await state();
      // Devices are frozen and thawed as for a hibernation. Linux 6.1 cannot read an image back in a running system
      // (test_resume is EBUSY), and the initramfs of this machine does not look for one.
      await machine.sh(
        `echo core >/sys/power/pm_test
echo disk >/sys/power/state
echo none >/sys/power/pm_test`,
        {timeout: 150_000},
      );
      assert.match(await machine.kernelLog(), /PM: hibernation: hibernation exit/);
      assert.equal(await state(), before);
      await assertUsable();
    });
  });

  describe('a guest with a device', () => {
    const locks = () => machine.sh('systemd-inhibit --list --no-legend --no-pager');

    before(async () => {
      await product.sh('guest', 'setup', 'g', '--device', edu0.slot, '--yes');
    });
    afterEach(() => machine.sh(`systemctl stop ${guest}`));

    it('keeps the host awake, and the reason is shown', async () => {
      await machine.sh(`systemctl start ${guest}`);
      assert.equal(await product.driverOf(edu0.slot), 'vfio-pci');
      assert.equal(await product.stateOf(awake), 'active');
      assert.match(
        await locks(),
        /^pearasys +0 +root +\d+ systemd-inhibit +sleep:handle-lid-switch +guest g has devices of the host/,
      );
      const {code, stderr} = await machine.run('systemctl suspend --check-inhibitors=yes');
      assert.equal(code, 1);
      assert.match(stderr, /guest g has devices of the host/);
      await machine.sh(`systemctl stop ${guest}`);
      await product.untilState(awake, 'inactive');
      assert.equal(await locks(), '');
      assert.equal(await product.driverOf(edu0.slot), '');
    });

    it('does not with Sleep=allow, which a reload applies', async () => {
      await machine.sh(`systemctl start ${guest}`);
      assert.equal(await product.stateOf(awake), 'active');
      await machine.sh(`echo Sleep=allow >>/etc/pearasys/guests/g.settings; systemctl reload ${guest}`);
      assert.equal(await product.stateOf(awake), 'inactive');
      assert.equal(await locks(), '');
      assert.equal(await product.driverOf(edu0.slot), 'vfio-pci');
      assert.equal(await product.stateOf(guest), 'active');
      await machine.sh("sed -i '/^Sleep=/d' /etc/pearasys/guests/g.settings");
    });

    it('starts on a host without logind, and says what is missing', async () => {
      await machine.sh('systemctl mask --quiet --now systemd-logind');
      try {
        await machine.sh(`systemctl start ${guest}`);
        assert.equal(await product.driverOf(edu0.slot), 'vfio-pci');
        assert.match(await product.journalOf(guest), /the host may sleep while guest g has its devices/);
        assert.match(await product.journalOf(awake), /Failed to inhibit/);
      } finally {
        await machine.sh(`systemctl unmask --quiet systemd-logind; systemctl start systemd-logind`);
      }
    });

    it('has a unit that passes systemd-analyze verify', async () => {
      const {stdout, stderr} = await machine.run(`systemd-analyze verify ${awake}`);
      assert.equal((stdout + stderr).replaceAll(/^.*Command 'man .*\n/gm, ''), '');
    });
  });
});
