/** The default driver, and devices that are removed with a driver, on a real kernel. */
import assert from 'node:assert/strict';
import {DEVICES} from './devices.js';
import {withProduct} from './shared.js';

interface Change {
  readonly changed: boolean;
  readonly notes: readonly string[];
  readonly devices: readonly {readonly slot: string; readonly driver: string | null}[];
}

describe('the default driver on a real kernel', function () {
  const product = withProduct(this);
  const {spareNetwork, edu0, legacy0, legacy1, disk1} = DEVICES;

  /** Binds as dpdk-devbind and SPDK do. */
  async function bindAndClear(slot: string, driver: string): Promise<void> {
    const device = `/sys/bus/pci/devices/${slot}`;
    await product().machine.sh(
      `modprobe ${driver} && echo ${driver} > ${device}/driver_override && ` +
        `{ ! test -e ${device}/driver || echo ${slot} > ${device}/driver/unbind; } && ` +
        `echo ${slot} > /sys/bus/pci/drivers_probe && echo > ${device}/driver_override`,
    );
    assert.equal(await product().driverOf(slot), driver);
    assert.equal(await product().overrideOf(slot), '(null)');
  }

  for (const driver of ['vfio-pci', 'uio_pci_generic', 'pci-stub'])
    for (const device of [spareNetwork, disk1])
      it(`replaces ${driver} on ${device.slot} without an override`, async () => {
        await bindAndClear(device.slot, driver);
        await product().sh('bind', 'default', device.slot);
        assert.equal(await product().driverOf(device.slot), device.driver);
        assert.equal((await product().json<Change>('bind', 'default', device.slot)).changed, false);
      });

  it('is none for a device that no module supports', async () => {
    await bindAndClear(edu0.slot, 'vfio-pci');
    await product().sh('bind', 'default', edu0.slot);
    assert.equal(await product().driverOf(edu0.slot), '');
    assert.equal((await product().json<Change>('bind', 'default', edu0.slot)).changed, false);
  });

  it('replaces a driver that was registered earlier and has the id by new_id', async () => {
    const {machine} = product();
    await machine.sh('modprobe -r e1000 && modprobe vfio-pci');
    await machine.sh("echo '8086 100e' > /sys/bus/pci/drivers/vfio-pci/new_id && modprobe e1000");
    for (const {slot} of [legacy0, legacy1]) assert.equal(await product().driverOf(slot), 'vfio-pci');
    await product().sh('bind', 'default', legacy0.slot, legacy1.slot);
    for (const {slot} of [legacy0, legacy1]) assert.equal(await product().driverOf(slot), 'e1000');
    await machine.sh("echo '8086 100e' > /sys/bus/pci/drivers/vfio-pci/remove_id");
  });

  it('is reported as failed while new_id makes vfio-pci bind the device again', async () => {
    const {machine} = product();
    const id = edu0.id.replace(':', ' ');
    await machine.sh(`modprobe vfio-pci && echo '${id}' > /sys/bus/pci/drivers/vfio-pci/new_id`);
    assert.equal(await product().driverOf(edu0.slot), 'vfio-pci');
    const {code, stderr} = await product().run('bind', 'default', edu0.slot);
    assert.equal(code, 1, stderr);
    assert.match(stderr, /driver vfio-pci took .*remove-id/s);
    await machine.sh(`echo '${id}' > /sys/bus/pci/drivers/vfio-pci/remove_id`);
    await product().sh('bind', 'default', edu0.id, '--all');
    assert.equal(await product().driverOf(edu0.slot), '');
  });
});

describe('devices that exist only through the driver of another device, on a real kernel', function () {
  const product = withProduct(this);
  const {slot} = DEVICES.sriov;
  const virtual = (index: number) => slot.replace(/0$/, String(index));
  const count = `/sys/bus/pci/devices/${slot}/sriov_numvfs`;

  beforeEach(async () => {
    await product().machine.sh(`echo 3 > ${count}`);
  });
  afterEach(async () => {
    await product().machine.sh(
      `echo 0 > ${count}; echo 1 > ${count.replace(/numvfs$/, 'drivers_autoprobe')}`,
    );
  });

  it('are siblings neither of their PF nor of each other', async () => {
    for (const one of [slot, virtual(1), virtual(3)]) {
      const {devices} = await product().json<{devices: {siblings: unknown[]}[]}>('show', one);
      assert.deepEqual(devices[0]?.siblings, [], one);
    }
    await product().sh('bind', 'vfio-pci', virtual(1), '--siblings');
    assert.equal(await product().driverOf(virtual(1)), 'vfio-pci');
    assert.equal(await product().driverOf(virtual(2)), '');
    assert.equal(await product().driverOf(slot), 'nvme');
    await product().sh('unbind', virtual(1));
  });

  it('are removed with it, with a note and without writes to them', async () => {
    const {notes, devices} = await product().json<Change>('bind', 'vfio-pci', virtual(2), slot, virtual(1));
    assert.match(notes.join('\n'), new RegExp(`loses its 3 virtual functions.*echo 3 > ${count}`));
    assert.deepEqual(
      devices.map((device) => [device.slot, device.driver]),
      [[slot, 'vfio-pci']],
    );
    await product().sh('bind', 'default', slot);
    assert.equal(await product().machine.sh(`cat ${count}`), '0');
  });

  it('exist again after a failure, including those on vfio-pci', async () => {
    const {machine} = product();
    await product().sh('bind', 'vfio-pci', virtual(2));
    // The driver checks the id first, and does not touch a device that is not virtio.
    const {code, stderr} = await product().run('bind', 'virtio-pci', slot, '--force');
    assert.equal(code, 1, stderr);
    assert.match(stderr, /driver virtio-pci did not take/);
    assert.equal(await product().driverOf(slot), 'nvme');
    assert.equal(await machine.sh(`cat ${count}`), '3');
    assert.equal(await product().driverOf(virtual(2)), 'vfio-pci');
    assert.equal(await product().overrideOf(virtual(2)), 'vfio-pci');
    assert.equal(await product().driverOf(virtual(1)), '');
    await product().sh('unbind', virtual(2));
  });

  it('are removed before the PF itself', async () => {
    await product().sh('-s', slot, '-s', virtual(1), 'pci', 'device', 'remove', 'rescan');
    await product().untilDriver(slot, 'nvme');
    assert.equal(await product().machine.sh(`cat ${count}`), '0');
    assert.doesNotMatch(await product().machine.sh('dmesg'), /kernel BUG|sriov_release/);
  });

  it('may be left behind by a driver: then removing the PF, which would crash the kernel, is refused', async () => {
    const {machine} = product();
    await machine.sh(`echo ${slot} > /sys/bus/pci/drivers/nvme/unbind`);
    assert.equal(await machine.sh(`ls -d /sys/bus/pci/devices/${slot}/virtfn* | wc -l`), '3');
    const {code, stderr} = await product().run('-s', slot, 'pci', 'device', 'remove');
    assert.equal(code, 3, stderr);
    await product().sh('bind', 'default', slot);
    assert.equal(await product().driverOf(slot), 'nvme');
  });

  it('have no default driver while the PF disables autoprobe', async () => {
    const {machine} = product();
    await machine.sh(
      `echo 0 > ${count}; echo 0 > ${count.replace(/numvfs$/, 'drivers_autoprobe')}; echo 2 > ${count}`,
    );
    await product().sh('bind', 'vfio-pci', virtual(1));
    await product().sh('bind', 'default', virtual(1));
    assert.equal(await product().driverOf(virtual(1)), '');
  });
});
