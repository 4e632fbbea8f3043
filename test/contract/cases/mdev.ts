import assert from 'node:assert/strict';
import type {ContractArea, ContractMachine} from '../machine.js';
import {refused, succeeds, write} from './pci.js';

const uuid = '83c32df7-d52e-4ec1-9668-1f3c7e4df107';
const other = '93c32df7-d52e-4ec1-9668-1f3c7e4df107';
const parent = '/sys/class/mdev_bus/mtty';
const types = `${parent}/mdev_supported_types`;
const create = (type: string) => `${types}/${type}/create`;
const device = `/sys/bus/mdev/devices/${uuid}`;

/** Loads the sample parent's module, which is always present on the simulated machine. */
async function begin(on: ContractMachine): Promise<void> {
  await succeeds(on, 'modprobe', 'mtty');
  await on.settle();
  await on.events();
}

const left = async (on: ContractMachine) =>
  Promise.all(['mtty-1', 'mtty-2'].map((type) => on.read(`${types}/${type}/available_instances`)));

export const mdev: ContractArea = {
  title: 'mediated devices',
  cases: [
    {
      title: 'are created once, in upper or lower case, and share the instances of their parent',
      check: async (on) => {
        await begin(on);
        assert.deepEqual(await left(on), ['24', '12']);
        await refused(on, 'EINVAL', create('mtty-1'), 'nonsense');
        await refused(on, 'EINVAL', create('mtty-1'), uuid.replaceAll('-', ''));
        await write(on, [create('mtty-1'), `${uuid.toUpperCase()}\n`]);
        assert.deepEqual(await on.list('/sys/bus/mdev/devices'), [uuid]);
        await refused(on, 'EEXIST', create('mtty-2'), uuid);
        assert.deepEqual(await left(on), ['23', '11']);
        await refused(on, 'ENOENT', `${types}/mtty-3/create`, other);
        await write(on, [`${device}/remove`, '0']);
        assert.equal(await on.exists(device), true);
        await write(on, [`${device}/remove`, '1']);
        assert.equal(await on.exists(device), false);
        assert.deepEqual(await left(on), ['24', '12']);
        await refused(on, 'ENOENT', `${device}/remove`, '1');
      },
    },
    {
      title: 'are refused if no instance is left',
      check: async (on) => {
        await begin(on);
        for (let index = 0; index < 12; index++)
          await write(on, [create('mtty-2'), `${uuid.slice(0, -2)}${10 + index}`]);
        assert.deepEqual(await left(on), ['0', '0']);
        await refused(on, 'ENOSPC', create('mtty-1'), other);
      },
    },
    {
      title: 'have a driver, a type, and their own group with its node',
      check: async (on) => {
        await begin(on);
        await write(on, [create('mtty-1'), uuid]);
        const group = (await on.link(`${device}/iommu_group`)) ?? '';
        assert.deepEqual(
          [await on.link(`${device}/driver`), await on.link(`${device}/mdev_type`), await on.link(device)],
          ['mtty', 'mtty-1', uuid],
        );
        assert.equal(await on.link(`${types}/mtty-1/devices/${uuid}`), uuid);
        assert.equal(await on.exists(`/dev/vfio/${group}`), true);
        await write(on, [`${device}/remove`, '1']);
        assert.equal(await on.exists(`/dev/vfio/${group}`), false);
        assert.equal(await on.exists(`/sys/kernel/iommu_groups/${group}`), false);
      },
    },
    {
      title: 'are announced',
      check: async (on) => {
        await begin(on);
        await write(on, [create('mtty-1'), uuid]);
        assert.deepEqual(await on.events(), [
          `add mdev ${uuid}`,
          'add vfio',
          'add vfio-dev',
          `bind mdev ${uuid}`,
        ]);
        await write(on, [`${device}/remove`, '1']);
        assert.deepEqual(await on.events(), [
          'remove vfio-dev',
          'remove vfio',
          `unbind mdev ${uuid}`,
          `remove mdev ${uuid}`,
        ]);
      },
    },
    {
      title: 'are not removed before they are closed',
      check: async (on) => {
        await begin(on);
        await write(on, [create('mtty-1'), uuid]);
        const close = await on.hold(uuid);
        const removal = await on.writeForever(`${device}/remove`, '1');
        // The first write removes the attribute.
        await refused(on, 'ENOENT', `${parent}/${uuid}/remove`, '1');
        // The device is already off its bus, but still below its parent.
        assert.equal(await on.exists(device), false);
        assert.equal(await on.exists(`${parent}/${uuid}`), true);
        await close();
        assert.equal(await removal.returned(), 'ok');
        assert.equal(await on.exists(`${parent}/${uuid}`), false);
      },
    },
    {
      title: 'refuse writes to missing attributes',
      check: async (on) => {
        await begin(on);
        await write(on, [create('mtty-1'), uuid]);
        await refused(on, 'ENOENT', `${device}/nothing`, '1');
      },
    },
  ],
};
