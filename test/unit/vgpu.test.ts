import assert from 'node:assert/strict';
import {readDevices, servesVfio} from '../../src/devices/pci/device.js';
import {planLink} from '../../src/plan/switch/verbs.js';
import {leavesGroupViable, planSwitch, readSwitch, type Target} from '../../src/plan/switch/switch.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {addNvidia} from '../simulated-host/standard-machine.js';
import {aDriver} from './values.js';

const first = '0000:07:00.4';
const second = '0000:07:00.5';

describe('NVIDIA vGPUs without mediated devices', () => {
  let host: SimulatedHost;
  beforeEach(() => {
    host = SimulatedHost.standard((machine) => {
      addNvidia(machine);
      const nvidia = machine.modules.find(({name}) => name === 'nvidia');
      if (nvidia !== undefined) nvidia.loaded = true;
      for (const [slot, type] of [
        [first, '588'],
        [second, '0'],
      ] as const)
        machine.functions.push({
          slot,
          id: '10de:26b9',
          class: '030200',
          driver: 'nvidia',
          group: 40,
          attributes: {
            'nvidia/current_vgpu_type': type,
            'nvidia/creatable_vgpu_types': 'ID    : vGPU Name\n588   : NVIDIA L40-1B\n589   : NVIDIA L40-2B',
          },
        });
    });
  });
  afterEach(() => host.dispose());

  const devicesOf = (...slots: string[]) => readDevices(host).filter(({slot}) => slots.includes(slot));
  const planned = (target: Target, force: boolean, ...slots: string[]) =>
    planSwitch(readSwitch(host, devicesOf(...slots), target, {force, wholeGroup: true}));
  const vfio: Target = {kind: 'claim', driver: aDriver('vfio-pci')};

  it('are read with their type, and no other device has one', () => {
    assert.deepEqual(
      readDevices(host)
        .filter(({vgpuType}) => vgpuType !== undefined)
        .map(({slot, vgpuType}) => [slot, vgpuType]),
      [
        [first, 588],
        [second, 0],
      ],
    );
  });

  it('are viable for VFIO without a switch', () => {
    for (const device of devicesOf(first, second)) {
      assert.ok(servesVfio(device));
      assert.ok(leavesGroupViable(device));
    }
  });

  for (const target of [vfio, {kind: 'release'} as const, {kind: 'claim', driver: aDriver('none')} as const])
    it(`are not unbound from their driver without --force (${JSON.stringify(target)})`, () => {
      for (const slot of [first, second]) {
        const refused = planned(target, false, slot);
        assert.equal(refused.kind, 'refusal');
        assert.equal(refused.error.exitCode, 3);
        assert.match(refused.error.message, /NVIDIA vGPU/);
        assert.match(refused.error.hint ?? '', /managed='no'.*--force/);
        assert.equal(planned(target, true, slot).kind, 'plan');
      }
    });

  it('are not unbound or removed by a chain without --force', () => {
    for (const verb of ['unbind', 'remove'] as const) {
      assert.equal(planLink(host, {noun: 'device', verb}, devicesOf(first), false).kind, 'refusal');
      assert.equal(planLink(host, {noun: 'device', verb}, devicesOf(first), true).kind, 'plan');
    }
  });

  it('are on their default driver', () => {
    const planned_ = planned({kind: 'default'}, false, first, second);
    assert.equal(planned_.kind, 'plan');
    assert.deepEqual(planned_.steps, []);
  });
});
