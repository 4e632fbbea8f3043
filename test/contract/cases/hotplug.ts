import assert from 'node:assert/strict';
import {DEVICES} from '../../vm/devices.js';
import type {ContractArea} from '../machine.js';
import {attribute, driverOf, edu, nic, overrideOf, port, refused, write} from './pci.js';

const rescan = '/sys/bus/pci/rescan';
const bridge = DEVICES.legacyBridge.slot;
const legacy = [DEVICES.legacy0.slot, DEVICES.legacy1.slot] as const;

/** The events without `change`: some hardware has one for its wakeup source. */
const coming = (events: readonly string[]) => events.filter((event) => !event.startsWith('change'));

export const hotplug: ContractArea = {
  title: 'remove and rescan',
  cases: [
    {
      title: 'a removed device is unbound first; it is added again with its driver and without its override',
      check: async (on) => {
        await write(on, [attribute(nic, 'driver_override'), 'vfio-pci']);
        await write(on, [attribute(nic, 'remove'), '1']);
        assert.equal(await on.exists(attribute(nic, 'vendor')), false);
        assert.deepEqual(await on.events(), [`unbind pci ${nic}`, `remove pci ${nic}`]);
        await write(on, [rescan, '1']);
        assert.deepEqual([await driverOf(on, nic), await overrideOf(on, nic)], ['e1000e', '(null)']);
        assert.deepEqual(await on.events(), [`add pci ${nic}`, `bind pci ${nic}`]);
      },
    },
    {
      title: 'a device without a driver has no bind event',
      check: async (on) => {
        await write(on, [attribute(edu, 'remove'), '1'], [rescan, '1']);
        assert.deepEqual(await on.events(), [`remove pci ${edu}`, `add pci ${edu}`]);
      },
    },
    {
      title: 'all devices below a bridge are unbound before the first is removed',
      check: async (on) => {
        await write(on, [attribute(bridge, 'remove'), '1']);
        for (const slot of [bridge, ...legacy])
          assert.equal(await on.exists(attribute(slot, 'vendor')), false);
        assert.deepEqual(await on.events(), [
          `unbind pci ${legacy[1]}`,
          `unbind pci ${legacy[0]}`,
          `remove pci ${legacy[0]}`,
          `remove pci ${legacy[1]}`,
          `remove pci ${bridge}`,
        ]);
        await write(on, [rescan, '1']);
        assert.deepEqual([await driverOf(on, legacy[0]), await driverOf(on, legacy[1])], ['e1000', 'e1000']);
        assert.deepEqual(coming(await on.events()), [
          `add pci ${bridge}`,
          `add pci ${legacy[0]}`,
          `add pci ${legacy[1]}`,
          `bind pci ${legacy[0]}`,
          `bind pci ${legacy[1]}`,
        ]);
      },
    },
    {
      title: 'a group is removed with its last device',
      check: async (on) => {
        const group = (await on.link(attribute(nic, 'iommu_group'))) ?? '';
        await write(on, [attribute(nic, 'remove'), '1']);
        assert.equal(await on.exists(`/sys/kernel/iommu_groups/${group}`), false);
        await write(on, [rescan, '1']);
        assert.notEqual(await on.link(attribute(nic, 'iommu_group')), undefined);
      },
    },
    {
      title: 'a bus can be scanned alone; 0 does nothing, and invalid text is EINVAL',
      check: async (on) => {
        await write(on, [attribute(nic, 'remove'), '0']);
        assert.equal(await on.exists(attribute(nic, 'vendor')), true);
        await refused(on, 'EINVAL', attribute(nic, 'remove'), 'yes');
        await write(
          on,
          [attribute(nic, 'remove'), '1'],
          ['/sys/class/pci_bus/0000:02/rescan', '1'],
          [rescan, '0'],
        );
        assert.equal(await on.exists(attribute(nic, 'vendor')), false);
        await refused(on, 'EINVAL', rescan, 'x');
        await write(on, [attribute(port, 'pci_bus/0000:01/rescan'), '1']);
        assert.equal(await driverOf(on, nic), 'e1000e');
        await write(on, [attribute(nic, 'remove'), '1'], [attribute(port, 'rescan'), '1']);
        assert.equal(await driverOf(on, nic), 'e1000e');
      },
    },
  ],
};
