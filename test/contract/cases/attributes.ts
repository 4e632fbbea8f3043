import assert from 'node:assert/strict';
import type {ContractArea} from '../machine.js';
import {
  attribute,
  driverOf,
  drivers,
  edu,
  give,
  nic,
  probe,
  refused,
  sriov,
  succeeds,
  virtual,
  write,
} from './pci.js';

export const attributes: ContractArea = {
  title: 'attributes of a device',
  cases: [
    {
      title: 'a missing one is ENOENT, a read-only one EACCES even for root, a folder EISDIR',
      check: async (on) => {
        await refused(on, 'ENOENT', attribute(edu, 'nothing'), '1');
        await refused(on, 'EACCES', attribute(edu, 'vendor'), '1');
        await refused(on, 'EISDIR', attribute(edu, 'power'), '1');
        await assert.rejects(on.read(attribute(edu, 'remove')), /EACCES/);
      },
    },
    {
      title: 'describe the device',
      check: async (on) => {
        const read = (name: string) => on.read(attribute(nic, name));
        assert.deepEqual(
          [await read('vendor'), await read('device'), await read('class'), await read('numa_node')],
          ['0x8086', '0x10d3', '0x020000', '-1'],
        );
        const uevent = (await read('uevent')) ?? '';
        assert.deepEqual(uevent.split('\n').slice(0, 3), [
          'DRIVER=e1000e',
          'PCI_CLASS=20000',
          'PCI_ID=8086:10D3',
        ]);
        assert.match(uevent, /^PCI_SLOT_NAME=0000:01:00\.0\nMODALIAS=pci:v00008086d000010D3sv/m);
        assert.match((await on.read(attribute('0000:00:01.0', 'uevent'))) ?? '', /^PCI_CLASS=30000$/m);
        assert.equal(await on.read(attribute('0000:00:01.0', 'boot_vga')), '1');
        assert.deepEqual(
          await on.list(
            `/sys/kernel/iommu_groups/${(await on.link(attribute('0000:00:0a.0', 'iommu_group'))) ?? ''}/devices`,
          ),
          ['0000:00:0a.0', '0000:00:0a.1'],
        );
      },
    },
    {
      title: 'reset_method lists, selects, restores and disables methods; an unsupported one is EINVAL',
      check: async (on) => {
        const path = attribute(nic, 'reset_method');
        assert.equal(await on.read(path), 'pm bus');
        await write(on, [path, 'bus']);
        assert.equal(await on.read(path), 'bus');
        await refused(on, 'EINVAL', path, 'flr');
        await refused(on, 'EINVAL', path, 'nonsense');
        assert.equal(await on.read(path), 'bus');
        await write(on, [path, '\n']);
        assert.equal(await on.read(path), '');
        await refused(on, 'ENOTTY', attribute(nic, 'reset'), '1');
        await write(on, [path, 'default']);
        assert.equal(await on.read(path), 'pm bus');
        await refused(on, 'EINVAL', attribute(nic, 'reset'), '2');
        await refused(on, 'ENOENT', attribute(edu, 'reset'), '1');
      },
    },
    {
      title: 'set the power policy',
      check: async (on) => {
        await write(on, [attribute(edu, 'd3cold_allowed'), '0']);
        assert.equal(await on.read(attribute(edu, 'd3cold_allowed')), '0');
        await refused(on, 'EINVAL', attribute(edu, 'd3cold_allowed'), 'no');
        await write(on, [attribute(edu, 'd3cold_allowed'), '1'], [attribute(edu, 'power/control'), 'auto']);
        assert.equal(await on.read(attribute(edu, 'power/control')), 'auto');
        await refused(on, 'EINVAL', attribute(edu, 'power/control'), 'off');
        await write(on, [attribute(edu, 'power/control'), 'on']);
      },
    },
    {
      title: 'vfio-pci sets power/control to auto when it gets a device, and to on when it loses it',
      check: async (on) => {
        const control = attribute(edu, 'power/control');
        assert.equal(await on.read(control), 'on');
        await give(on, edu, 'vfio-pci');
        assert.equal(await on.read(control), 'auto');
        await write(on, [control, 'on']);
        assert.equal(await on.read(control), 'on');
        await write(on, [control, 'auto'], [attribute(edu, 'driver/unbind'), edu]);
        assert.equal(await on.read(control), 'on');
        await write(on, [attribute(edu, 'driver_override'), '\n']);
      },
    },
    {
      title: 'reset_method is emptied by a blank, and keeps its methods if another one is refused',
      check: async (on) => {
        const path = attribute(nic, 'reset_method');
        await write(on, [path, ' ']);
        assert.equal(await on.read(path), '');
        await refused(on, 'EINVAL', path, 'pm flr');
        assert.equal(await on.read(path), '');
        await write(on, [path, 'bus pm']);
        assert.equal(await on.read(path), 'bus pm');
        await write(on, [path, 'default']);
        await refused(on, 'EINVAL', path, 'none');
        assert.equal(await on.read(path), 'pm bus');
      },
    },
    {
      title: 'enable is EBUSY while the device has a driver',
      check: async (on) => {
        await refused(on, 'EBUSY', attribute(nic, 'enable'), '1');
        await refused(on, 'EINVAL', attribute(edu, 'enable'), 'x');
        await write(on, [attribute(edu, 'enable'), '1']);
        assert.equal(await on.read(attribute(edu, 'enable')), '1');
        await write(on, [attribute(edu, 'enable'), '0']);
      },
    },
  ],
};

const count = attribute(sriov, 'sriov_numvfs');
const autoprobe = attribute(sriov, 'sriov_drivers_autoprobe');

export const virtualFunctions: ContractArea = {
  title: 'virtual functions',
  cases: [
    {
      title: 'are created and removed by number: 0 before another number, and at most the total',
      check: async (on) => {
        await write(on, [autoprobe, '0'], [count, '2']);
        assert.equal(await on.read(count), '2');
        assert.equal(await on.link(attribute(virtual(2), 'physfn')), sriov);
        assert.equal(await on.link(attribute(sriov, 'virtfn1')), virtual(2));
        assert.equal(await on.exists(attribute(virtual(3), 'vendor')), false);
        await write(on, [count, '2']);
        await refused(on, 'EBUSY', count, '3');
        await refused(on, 'ERANGE', count, '5');
        await refused(on, 'EINVAL', count, '70000');
        await refused(on, 'EINVAL', count, 'x');
        await write(on, [count, '0']);
        assert.equal(await on.exists(attribute(virtual(1), 'vendor')), false);
        await write(on, [count, '3'], [count, '0'], [autoprobe, '1']);
      },
    },
    {
      title: 'have slots and an id that the device tells before they exist',
      check: async (on) => {
        const read = (name: string) => on.read(attribute(sriov, `sriov_${name}`));
        const [offset, stride, device] = [
          await read('offset'),
          await read('stride'),
          await read('vf_device'),
        ];
        await write(on, [autoprobe, '0'], [count, '2']);
        const routing = (slot: string) => parseInt(slot.slice(-4, -2), 16) * 8 + Number(slot.slice(-1));
        assert.equal(routing(virtual(1)), routing(sriov) + Number(offset));
        assert.equal(routing(virtual(2)), routing(virtual(1)) + Number(stride));
        // Without the zeros that it has there.
        assert.equal(device, '10');
        assert.equal(await on.read(attribute(virtual(1), 'device')), '0x0010');
        await write(on, [count, '0'], [autoprobe, '1']);
      },
    },
    {
      title: 'are announced one after the other, followed by a change of their PF',
      check: async (on) => {
        await write(on, [autoprobe, '0'], [count, '2']);
        assert.deepEqual(await on.events(), [
          `add pci ${virtual(1)}`,
          `change pci ${virtual(1)}`,
          `add pci ${virtual(2)}`,
          `change pci ${virtual(2)}`,
          `change pci ${sriov}`,
        ]);
        await write(on, [count, '0'], [autoprobe, '1']);
        assert.deepEqual(await on.events(), [`remove pci ${virtual(1)}`, `remove pci ${virtual(2)}`]);
      },
    },
    {
      title: 'are bound automatically only with autoprobe or an override',
      check: async (on) => {
        await succeeds(on, 'modprobe', 'vfio-pci');
        await refused(on, 'EINVAL', autoprobe, 'x');
        await write(on, [autoprobe, '0'], [count, '1']);
        assert.equal(await on.read(autoprobe), '0');
        assert.equal(await driverOf(on, virtual(1)), undefined);
        await refused(on, 'ENODEV', `${drivers}/nvme/bind`, virtual(1));
        await refused(on, 'ENODEV', `${drivers}/nvme/unbind`, virtual(1));
        await write(on, [attribute(virtual(1), 'driver_override'), 'vfio-pci'], [probe, virtual(1)]);
        assert.equal(await driverOf(on, virtual(1)), 'vfio-pci');
        await write(on, [count, '0'], [autoprobe, '1']);
      },
    },
    {
      title: 'need a driver that can create them',
      check: async (on) => {
        await refused(on, 'ENOENT', attribute(nic, 'sriov_numvfs'), '1');
        await write(on, [`${drivers}/nvme/unbind`, sriov]);
        await refused(on, 'ENOENT', count, '1');
        await give(on, sriov, 'vfio-pci');
        await refused(on, 'ENOENT', count, '1');
        await refused(on, 'ERANGE', count, '9');
      },
    },
    {
      title: 'remain when nvme is unbound; vfio-pci then refuses the device',
      check: async (on) => {
        await succeeds(on, 'modprobe', 'vfio-pci');
        await write(on, [autoprobe, '0'], [count, '1'], [`${drivers}/nvme/unbind`, sriov]);
        assert.equal(await on.read(count), '1');
        await write(on, [attribute(sriov, 'driver_override'), 'vfio-pci']);
        await refused(on, 'EBUSY', `${drivers}/vfio-pci/bind`, sriov);
        await write(
          on,
          [attribute(sriov, 'driver_override'), '\n'],
          [probe, sriov],
          [count, '0'],
          [autoprobe, '1'],
        );
        assert.equal(await driverOf(on, sriov), 'nvme');
      },
    },
  ],
};
