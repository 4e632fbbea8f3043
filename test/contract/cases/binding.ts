import assert from 'node:assert/strict';
import {DEVICES} from '../../vm/devices.js';
import type {ContractArea} from '../machine.js';
import {
  attribute,
  driverOf,
  drivers,
  edu,
  give,
  nic,
  nowhere,
  overrideOf,
  port,
  probe,
  refused,
  succeeds,
  twin,
  write,
} from './pci.js';

export const override: ContractArea = {
  title: 'driver_override',
  cases: [
    {
      title: 'neither unbinds nor loads a module',
      check: async (on) => {
        await succeeds(on, 'modprobe', '-r', 'vfio-pci');
        await write(on, [attribute(nic, 'driver_override'), 'vfio-pci']);
        assert.equal(await overrideOf(on, nic), 'vfio-pci');
        assert.equal(await driverOf(on, nic), 'e1000e');
        assert.equal(await on.exists(`${drivers}/vfio-pci`), false);
      },
    },
    {
      title: 'is cleared by a newline, but not by an empty write',
      check: async (on) => {
        assert.equal(await overrideOf(on, nic), '(null)');
        await write(on, [attribute(nic, 'driver_override'), 'vfio-pci\n']);
        await write(on, [attribute(nic, 'driver_override'), '']);
        assert.equal(await overrideOf(on, nic), 'vfio-pci');
        await write(on, [attribute(nic, 'driver_override'), '\n']);
        assert.equal(await overrideOf(on, nic), '(null)');
      },
    },
    {
      title: 'ends at the first newline, and is limited to a page',
      check: async (on) => {
        await write(on, [attribute(nic, 'driver_override'), 'none\nvfio-pci']);
        assert.equal(await overrideOf(on, nic), 'none');
        await refused(on, 'EINVAL', attribute(nic, 'driver_override'), 'x'.repeat(4096));
        assert.equal(await overrideOf(on, nic), 'none');
      },
    },
    {
      title: 'prevents all drivers from binding if it names no driver',
      check: async (on) => {
        await write(
          on,
          [attribute(nic, 'driver_override'), 'none'],
          [`${drivers}/e1000e/unbind`, nic],
          [probe, nic],
        );
        assert.equal(await driverOf(on, nic), undefined);
        await refused(on, 'ENODEV', `${drivers}/e1000e/bind`, nic);
      },
    },
    {
      title: 'prevents a driver that is loaded later from binding',
      check: async (on) => {
        const {slot} = DEVICES.legacy0;
        const other = DEVICES.legacy1.slot;
        await succeeds(on, 'modprobe', '-r', 'e1000');
        await write(on, [attribute(slot, 'driver_override'), 'none']);
        await succeeds(on, 'modprobe', 'e1000');
        assert.deepEqual([await driverOf(on, slot), await driverOf(on, other)], [undefined, 'e1000']);
      },
    },
  ],
};

export const binding: ContractArea = {
  title: 'bind, unbind and drivers_probe',
  cases: [
    {
      title: 'the safe sequence binds a device to vfio-pci, and back',
      check: async (on) => {
        await give(on, nic, 'vfio-pci');
        const group = (await on.link(attribute(nic, 'iommu_group'))) ?? '';
        assert.deepEqual(await on.list('/dev/vfio'), [group, 'vfio']);
        assert.deepEqual(await on.list(attribute(nic, 'net')), []);
        assert.match((await on.read(attribute(nic, 'uevent'))) ?? '', /^DRIVER=vfio-pci$/m);
        assert.equal(await on.link(`${drivers}/vfio-pci/${nic}`), nic);
        await write(
          on,
          [attribute(nic, 'driver_override'), '\n'],
          [attribute(nic, 'driver/unbind'), nic],
          [probe, nic],
        );
        assert.equal(await driverOf(on, nic), 'e1000e');
        assert.deepEqual(await on.list('/dev/vfio'), ['vfio']);
        assert.equal((await on.list(attribute(nic, 'net'))).length, 1);
      },
    },
    {
      title: 'announce the changes in this order',
      check: async (on) => {
        await give(on, nic, 'vfio-pci');
        assert.deepEqual(await on.events(), [
          `unbind pci ${nic}`,
          'add vfio',
          'add vfio-dev',
          `bind pci ${nic}`,
        ]);
        await write(on, [`${drivers}/vfio-pci/unbind`, nic]);
        assert.deepEqual(await on.events(), ['remove vfio-dev', 'remove vfio', `unbind pci ${nic}`]);
        await write(on, [attribute(nic, 'driver_override'), '\n'], [probe, nic]);
        assert.deepEqual(await on.events(), [`bind pci ${nic}`]);
      },
    },
    {
      title:
        'drivers_probe succeeds when nothing is bound, and for a bound device; an unknown slot is ENODEV',
      check: async (on) => {
        await write(on, [probe, edu], [probe, nic]);
        assert.deepEqual([await driverOf(on, edu), await driverOf(on, nic)], [undefined, 'e1000e']);
        await refused(on, 'ENODEV', probe, nowhere);
      },
    },
    {
      title: 'bind needs a matching device without a driver',
      check: async (on) => {
        await succeeds(on, 'modprobe', 'vfio-pci');
        await refused(on, 'ENODEV', `${drivers}/vfio-pci/bind`, nic);
        await refused(on, 'EBUSY', `${drivers}/e1000e/bind`, nic);
        await refused(on, 'ENODEV', `${drivers}/nvme/bind`, nic);
        await refused(on, 'ENODEV', `${drivers}/e1000e/bind`, nowhere);
        await refused(on, 'ENODEV', `${drivers}/e1000e/bind`, 'nonsense');
        await write(on, [attribute(nic, 'driver_override'), 'vfio-pci']);
        await refused(on, 'EBUSY', `${drivers}/vfio-pci/bind`, nic);
        await write(on, [`${drivers}/e1000e/unbind`, nic]);
        await refused(on, 'ENODEV', `${drivers}/e1000e/bind`, nic);
        await write(on, [`${drivers}/vfio-pci/bind`, nic]);
        assert.equal(await driverOf(on, nic), 'vfio-pci');
      },
    },
    {
      title: 'unbind needs a device of this driver',
      check: async (on) => {
        await refused(on, 'ENODEV', `${drivers}/nvme/unbind`, nic);
        await refused(on, 'ENODEV', `${drivers}/nvme/unbind`, nowhere);
        await refused(on, 'ENOENT', `${drivers}/no-such-driver/unbind`, nic);
      },
    },
    {
      title: 'a driver rejects unsupported hardware even with an override; each has its own errno',
      check: async (on) => {
        for (const [driver, errno] of [
          ['virtio-pci', 'ENODEV'],
          ['e1000', 'EIO'],
          ['e1000e', 'EIO'],
          ['ahci', 'EINVAL'],
        ] as const) {
          await write(on, [attribute(edu, 'driver_override'), driver]);
          await refused(on, errno, `${drivers}/${driver}/bind`, edu);
          await write(on, [probe, edu]);
          assert.equal(await driverOf(on, edu), undefined, driver);
        }
      },
    },
    {
      title: 'vfio-pci refuses bridges',
      check: async (on) => {
        await succeeds(on, 'modprobe', 'vfio-pci');
        await write(
          on,
          [attribute(port, 'driver_override'), 'vfio-pci'],
          [`${drivers}/pcieport/unbind`, port],
        );
        await refused(on, 'EINVAL', `${drivers}/vfio-pci/bind`, port);
        await write(on, [attribute(port, 'driver_override'), '\n'], [probe, port]);
        assert.equal(await driverOf(on, port), 'pcieport');
      },
    },
  ],
};

export const ids: ContractArea = {
  title: 'new_id and remove_id',
  cases: [
    {
      title:
        'new_id also binds unbound twins; a second write is EEXIST and leaves the device without a driver',
      check: async (on) => {
        await succeeds(on, 'modprobe', 'vfio-pci');
        await write(on, [`${drivers}/vfio-pci/new_id`, '1234 11e8']);
        assert.deepEqual([await driverOf(on, edu), await driverOf(on, twin)], ['vfio-pci', 'vfio-pci']);
        await write(on, [`${drivers}/vfio-pci/unbind`, edu]);
        await refused(on, 'EEXIST', `${drivers}/vfio-pci/new_id`, '1234 11e8');
        assert.equal(await driverOf(on, edu), undefined);
        await write(on, [`${drivers}/vfio-pci/bind`, edu], [`${drivers}/vfio-pci/remove_id`, '1234 11e8']);
        assert.equal(await driverOf(on, edu), 'vfio-pci');
      },
    },
    {
      title: 'new_id binds neither bound devices nor those with another override',
      check: async (on) => {
        await succeeds(on, 'modprobe', 'pci-stub');
        await write(on, [attribute(edu, 'driver_override'), 'none']);
        await write(
          on,
          [`${drivers}/pci-stub/new_id`, '1234 11e8'],
          [`${drivers}/pci-stub/new_id`, '8086 10d3'],
        );
        assert.deepEqual(
          [await driverOf(on, edu), await driverOf(on, twin), await driverOf(on, nic)],
          [undefined, 'pci-stub', 'e1000e'],
        );
        await write(
          on,
          [`${drivers}/pci-stub/remove_id`, '1234 11e8'],
          [`${drivers}/pci-stub/remove_id`, '8086 10d3'],
        );
      },
    },
    {
      title: "an id in the driver's table is EEXIST unless all fields are given; half an id is EINVAL",
      check: async (on) => {
        await refused(on, 'EEXIST', `${drivers}/e1000e/new_id`, '8086 10d3');
        await refused(on, 'EEXIST', `${drivers}/e1000e/new_id`, '8086 10d3 ffffffff ffffffff 020000 ffffff');
        await write(
          on,
          [`${drivers}/e1000e/new_id`, '8086 10d3 ffffffff ffffffff 020000 ffffff 0'],
          [`${drivers}/e1000e/remove_id`, '8086 10d3'],
        );
        await refused(on, 'EINVAL', `${drivers}/e1000e/new_id`, '8086');
        await refused(on, 'EINVAL', `${drivers}/e1000e/new_id`, 'nonsense');
        await refused(on, 'EINVAL', `${drivers}/e1000e/remove_id`, '8086');
      },
    },
    {
      title: "the data must be in the driver's table",
      check: async (on) => {
        await refused(on, 'EINVAL', `${drivers}/snd_hda_intel/new_id`, '1234 5678');
        await refused(on, 'ENODEV', `${drivers}/snd_hda_intel/remove_id`, '1234 5678');
      },
    },
    {
      title: 'remove_id removes an id once, and unbinds no device',
      check: async (on) => {
        await succeeds(on, 'modprobe', 'pci-stub');
        await refused(on, 'ENODEV', `${drivers}/pci-stub/remove_id`, '1234 11e8');
        await write(
          on,
          [`${drivers}/pci-stub/new_id`, '1234 11e8'],
          [`${drivers}/pci-stub/remove_id`, '1234 11e8'],
        );
        await refused(on, 'ENODEV', `${drivers}/pci-stub/remove_id`, '1234 11e8');
        assert.equal(await driverOf(on, edu), 'pci-stub');
      },
    },
  ],
};
