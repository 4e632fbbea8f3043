/** NVIDIA vGPUs on functions of a sample driver: a boot, functions that come and go, a driver that is not ready. */
import assert from 'node:assert/strict';
import type {VgpuListResult} from '../../src/entry/cli/commands/vgpu/list.js';
import {DEVICES} from './devices.js';
import type {Machine} from './machine.js';
import {mdevRecipe} from './recipes.js';
import {withOwnMachine, type Product} from './shared.js';

const first = DEVICES.edu0.slot;
const second = DEVICES.edu1.slot;
const unitOf = (slot: string): string => `vgpu@${slot}.service`;
const pathOf = (slot: string): string => `/sys/bus/pci/devices/${slot}`;
const typePath = (slot: string): string => `${pathOf(slot)}/nvidia/current_vgpu_type`;
const recordOf = (slot: string): string => `/etc/pearasys/vgpu/${slot}-0x1234-0x11e8`;

describe('NVIDIA vGPUs on a real kernel', function () {
  this.timeout(400_000);
  let machine: Machine;
  let product: Product;

  withOwnMachine(this, mdevRecipe(), async (booted) => {
    product = booted;
    ({machine} = product);
    await machine.sh(
      'echo nvidia_sample >/etc/modules-load.d/nvidia_sample.conf && modprobe nvidia_sample && udevadm settle',
    );
  });

  const typeOf = (slot: string) => machine.sh(`cat ${typePath(slot)}`);
  const untilType = (slot: string, type: string) =>
    machine.waitUntil(`test "$(cat ${typePath(slot)})" = ${type}`);

  it('has units that pass systemd-analyze verify', async () => {
    // In the name of a slot, a colon would separate a file from its alias.
    const {stdout, stderr} = await machine.run('systemd-analyze verify vgpu@x.service vgpu_set@x.service');
    // systemd-analyze calls man to check the documentation, which the machine does not have.
    assert.equal((stdout + stderr).replaceAll(/^.*Command 'man .*\n/gm, ''), '');
  });

  it('lists the types of each function', async () => {
    assert.deepEqual(
      (await product.sh('vgpu', 'types')).split('\n'),
      [first, second].flatMap((slot) => [`${slot}\t588\tNVIDIA SAMPLE-1B`, `${slot}\t589\tNVIDIA SAMPLE-2B`]),
    );
  });

  it('sets a type by its name, with a unit that runs nothing more', async () => {
    assert.equal(await product.sh('vgpu', 'set', first, 'NVIDIA SAMPLE-1B'), `${first} has vGPU type 588`);
    assert.equal(await typeOf(first), '588');
    assert.equal(await product.stateOf(unitOf(first)), 'active');
    assert.equal(await machine.sh(`stat -c '%a %U' ${recordOf(first)}`), '644 root');
    assert.doesNotMatch(await product.journalOf(`vgpu_set@${first}.service`), /has its vGPU type/);
  });

  it('leaves a function without a type if what is left of the GPU does not suffice', async () => {
    const refused = await product.run('vgpu', 'set', second, '589');
    assert.equal(refused.code, 4, refused.stderr);
    assert.match(refused.stderr, /it can have 588/);
    await machine.sh(`test ! -e ${recordOf(second)}`);
  });

  it('restores the former type if the driver refuses the new one', async () => {
    const failed = await product.run('vgpu', 'set', first, '777');
    assert.equal(failed.code, 1, failed.stderr);
    assert.equal(await typeOf(first), '588');
    assert.match(await machine.sh(`cat ${recordOf(first)}`), /PEARASYS_VGPU_TYPE=588/);
  });

  it('survives daemon-reload, triggers and a restart of udev', async () => {
    const since = `systemctl show --value --property=ActiveEnterTimestampMonotonic ${unitOf(first)}`;
    const before = await machine.sh(since);
    for (const action of ['add', 'change', 'bind'])
      await machine.sh(
        `udevadm trigger --action=${action} --settle ${pathOf(first)} && systemctl daemon-reload`,
      );
    await machine.sh('systemctl restart systemd-udevd && udevadm settle && systemctl daemon-reload');
    assert.equal(await product.stateOf(unitOf(first)), 'active');
    assert.equal(await machine.sh(since), before);
  });

  it('sets the type again when the function, or its driver, comes back', async () => {
    await machine.sh(`echo 1 >${pathOf(first)}/remove`);
    await product.untilState(unitOf(first), 'inactive');
    await machine.sh('echo 1 >/sys/bus/pci/rescan');
    await untilType(first, '588');
    await product.untilState(unitOf(first), 'active');

    await machine.sh('modprobe -r nvidia_sample');
    await product.untilState(unitOf(first), 'inactive');
    await machine.sh('modprobe nvidia_sample');
    await untilType(first, '588');
    await product.untilState(unitOf(first), 'active');
  });

  it('clears the type when the unit is stopped, and sets it when it is started', async () => {
    await machine.sh(`systemctl stop ${unitOf(first)}`);
    assert.equal(await typeOf(first), '0');
    await machine.sh(`systemctl start ${unitOf(first)}`);
    assert.equal(await typeOf(first), '588');
  });

  it('waits until the driver offers types', async () => {
    await machine.sh(`systemctl stop ${unitOf(first)}`);
    const parameter = '/sys/module/nvidia_sample/parameters/offered';
    await machine.sh(`echo N >${parameter}; systemctl start --no-block ${unitOf(first)}`);
    await product.untilState(`vgpu_set@${first}.service`, 'activating');
    assert.equal(await typeOf(first), '0');
    await machine.sh(`echo Y >${parameter}`);
    await product.untilState(unitOf(first), 'active');
    assert.equal(await typeOf(first), '588');
  });

  it('sets all types at boot', async () => {
    await product.sh('vgpu', 'set', second, '588');
    await machine.reboot();
    for (const slot of [first, second]) {
      await product.untilState(unitOf(slot), 'active');
      assert.equal(await typeOf(slot), '588');
    }
    const {vgpus} = await product.json<VgpuListResult>('vgpu', 'list');
    assert.deepEqual(
      vgpus.map(({slot, type, recorded, unitState}) => [slot, type, recorded, unitState]),
      [first, second].map((slot) => [slot, 588, 588, 'active']),
    );
  });

  it('clears a type for good', async () => {
    for (const slot of [first, second]) {
      assert.equal(await product.sh('vgpu', 'set', slot, '0'), `${slot} has no vGPU type`);
      await machine.sh(`test ! -e ${recordOf(slot)}`);
      assert.equal(await product.stateOf(unitOf(slot)), 'inactive');
    }
    await machine.sh(`udevadm trigger --action=add --settle ${pathOf(first)}`);
    assert.equal(await typeOf(first), '0');
    assert.equal(await machine.sh("systemctl list-units --failed --no-legend 'vgpu*'"), '');
  });
});
