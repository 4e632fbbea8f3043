/** Settings of devices on a real kernel, and devices that do not work when they return to the host. */
import assert from 'node:assert/strict';
import {DEVICES} from './devices.js';
import {withProduct} from './shared.js';

const unitOf = (slot: string): string => `pearasys-${slot}@vfio-pci.service`;
const claimOf = (slot: string): string => `pearasys-claim-${slot}@vfio-pci.service`;

describe('settings on a real kernel', function () {
  const product = withProduct(this);
  const {disk1, spareNetwork, edu0} = DEVICES;
  const plain = ['--set', 'd3cold_allowed=0', '--set', 'power/control=on'];

  const attribute = (slot: string, name: string) =>
    product().machine.sh(`cat /sys/bus/pci/devices/${slot}/${name}`);
  const attributesOf = async (slot: string) => [
    await attribute(slot, 'reset_method'),
    await attribute(slot, 'd3cold_allowed'),
    await attribute(slot, 'power/control'),
  ];
  const install = (slot: string, ...options: readonly string[]) =>
    product().sh('-s', slot, 'service', 'install', 'vfio-pci', ...options);
  const remove = async (slot: string) => {
    await product().sh('-s', slot, 'service', 'uninstall');
    await product().sh('bind', 'default', slot);
  };

  it('are set at a hot-add without a process, and what was before is restored', async () => {
    const {machine} = product();
    const port = machine.ports.take();
    const {slot} = port;
    await port.plug('nvme');
    await product().untilDriver(slot, 'nvme');
    const before = await attributesOf(slot);
    const method = before[0]?.split(' ').at(-1) ?? '';
    await install(slot, ...plain, '--set', `reset_method=${method}`);
    await port.unplug();
    await port.plug('nvme');
    await product().untilState(unitOf(slot), 'active');
    await machine.sh('udevadm settle');
    assert.equal(await product().driverOf(slot), 'vfio-pci');
    assert.deepEqual(await attributesOf(slot), [method, '0', 'on']);
    assert.ok(await product().wasSkipped(claimOf(slot)));
    await product().sh('bind', 'default', slot);
    assert.equal(await product().driverOf(slot), 'nvme');
    assert.deepEqual(await attributesOf(slot), before);
    await product().sh('-s', slot, 'service', 'uninstall');
  });

  it('that the kernel refuses at a hot-add fail the claim with the reason, and nothing is left', async () => {
    const {machine} = product();
    const port = machine.ports.take();
    const {slot} = port;
    await port.plug('nvme');
    await product().untilDriver(slot, 'nvme');
    const before = await attributesOf(slot);
    assert.doesNotMatch(before[0] ?? '', /acpi/);
    await install(slot, ...plain);
    const {code, stderr} = await product().run('service', 'set', slot, 'reset_method=acpi');
    assert.equal(code, 3);
    assert.match(stderr, /does not offer the reset method acpi/);
    await port.unplug();
    await product().sh('service', 'set', slot, 'reset_method=acpi');
    await port.plug('nvme');
    await product().untilState(claimOf(slot), 'failed');
    assert.match(await product().journalOf(claimOf(slot)), /reset_method.*EINVAL/);
    await product().untilDriver(slot, 'nvme');
    assert.deepEqual(await attributesOf(slot), before);
    await product().sh('-s', slot, 'service', 'uninstall');
  });

  it('are set at boot: by the rule, by the unit where a driver of the initramfs was first, and before the driver', async () => {
    const {machine} = product();
    await install(spareNetwork.slot, ...plain, '--set', 'reset_method=bus');
    await install(disk1.slot, ...plain);
    await install(edu0.slot, '--set', 'reset=none', '--set', 'variant=yes', '--set', 'd3cold_allowed=0');
    await machine.reboot();
    await machine.sh('udevadm settle');
    for (const {slot} of [spareNetwork, disk1, edu0]) {
      assert.equal(await product().driverOf(slot), 'vfio-pci', slot);
      assert.equal(await attribute(slot, 'd3cold_allowed'), '0', slot);
    }
    assert.deepEqual(await attributesOf(spareNetwork.slot), ['bus', '0', 'on']);
    assert.equal(await attribute(disk1.slot, 'power/control'), 'on');
    assert.ok(await product().wasSkipped(claimOf(spareNetwork.slot)));
    assert.match(await product().journalOf(claimOf(disk1.slot)), /d3cold_allowed/);
    // Without power management, its d3cold_allowed is 0 from the start.
    assert.match(await product().journalOf(claimOf(edu0.slot)), /drivers_probe/);
    for (const {slot} of [spareNetwork, disk1, edu0]) await remove(slot);
    assert.deepEqual(await attributesOf(spareNetwork.slot), ['pm bus', '1', 'on']);
    assert.equal(await attribute(disk1.slot, 'd3cold_allowed'), '1');
    assert.equal(await machine.sh('ls /run/pearasys/set 2>/dev/null || true'), '');
  });

  it('include a reset before the driver gets the device', async () => {
    const {machine} = product();
    const {slot} = spareNetwork;
    await install(slot, '--now', '--set', 'reset=pm', '--set', 'reset_method=bus');
    assert.equal(await product().driverOf(slot), 'vfio-pci');
    assert.equal(await attribute(slot, 'reset_method'), 'bus');
    assert.match(
      await product().journalOf(claimOf(slot)),
      /echo 'pm' > \S+\/reset_method\n[^]*echo '1' > \S+\/reset\n[^]*echo 'bus' > \S+\/reset_method\n/,
    );
    await machine.sh(`systemctl restart ${unitOf(slot)}`);
    assert.equal(await product().driverOf(slot), 'vfio-pci');
    await remove(slot);
    assert.equal(await attribute(slot, 'reset_method'), 'pm bus');
  });

  describe('a device that does not respond when its guest has ended', () => {
    const {slot, id} = spareNetwork;
    const config = `$(readlink -f /sys/bus/pci/devices/${slot})/config`;
    const die = () =>
      product().machine.sh(
        `head -c 256 /dev/zero | tr '\\0' '\\377' >/tmp/dead && mount --bind /tmp/dead ${config}`,
      );
    const revive = () => product().machine.run(`umount ${config}`);
    afterEach(revive);

    it('and whose reset fails is quarantined, until it works again', async () => {
      const {machine} = product();
      await install(slot, '--now', '--set', 'reset=pm');
      await machine.sh(
        `sed -i 's/^PEARASYS_SET_RESET=pm/PEARASYS_SET_RESET=flr/' /run/pearasys/checked/${slot}-*`,
      );
      await die();
      await machine.run(`systemctl stop ${unitOf(slot)}`);
      const journal = await product().journalOf(unitOf(slot));
      assert.match(journal, /configuration space reads all ones[^]*reset by flr failed \(EINVAL\)/);
      assert.equal(await product().driverOf(slot), '');
      assert.equal(await product().overrideOf(slot), 'none');

      await machine.run(`systemctl start ${unitOf(slot)}`);
      assert.match(
        await product().journalOf(claimOf(slot)),
        new RegExp(`${slot} \\(${id}\\) is quarantined`),
      );
      await machine.sh(`udevadm trigger --action=add --settle /sys/bus/pci/devices/${slot}`);
      assert.equal(await product().driverOf(slot), '');
      assert.equal(await product().overrideOf(slot), 'none');
      const {code} = await product().run('bind', 'default', slot);
      assert.equal(code, 3);

      await revive();
      await product().sh('bind', 'default', slot, '--force');
      assert.equal(await product().driverOf(slot), 'e1000e');
      assert.equal(await machine.sh('ls /run/pearasys/quarantined 2>/dev/null || true'), '');
      await product().sh('-s', slot, 'service', 'uninstall');
    });
  });
});
