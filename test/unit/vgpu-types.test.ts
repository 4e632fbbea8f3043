import assert from 'node:assert/strict';
import {defaultLayout} from '../../src/config/layout.js';
import {asId} from '../../src/devices/pci/id.js';
import {parseSlot} from '../../src/devices/pci/slot.js';
import {parseCreatable} from '../../src/devices/pci/vgpu.js';
import {planRecordedVgpu, planVgpu, planVgpuStop, type VgpuState} from '../../src/plan/vgpu/vgpu.js';
import {shellLine, type Planned} from '../../src/plan/step.js';
import {parseVgpu, printVgpu, vgpuPath} from '../../src/state/vgpu/vgpu-record.js';
import {aDevice, aDriver} from './values.js';

const content = {
  slot: parseSlot('0000:07:00.4'),
  id: asId('10de:26b9')!,
  type: 588,
  unknown: [{key: 'PEARASYS_LATER', value: 'x'}],
};

describe('the record of a vGPU type', () => {
  it('is read as it is printed, with the keys of a newer version', () => {
    assert.deepEqual(parseVgpu('file', printVgpu(content)), content);
    assert.match(printVgpu(content), /^# To undo: pearasys vgpu set 0000:07:00\.4 0$/m);
  });

  const lines = ['PEARASYS_SLOT=0000:07:00.4', 'PEARASYS_ID=10de:26b9', 'PEARASYS_VGPU_TYPE=588'];
  for (const [reason, text] of [
    [/PEARASYS_VGPU_TYPE= is missing/, lines.slice(0, 2)],
    [/PEARASYS_VGPU_TYPE=0 is invalid/, [...lines.slice(0, 2), 'PEARASYS_VGPU_TYPE=0']],
    [/PEARASYS_VGPU_TYPE=L40 is invalid/, [...lines.slice(0, 2), 'PEARASYS_VGPU_TYPE=L40']],
    [/PEARASYS_SLOT=any is invalid/, ['PEARASYS_SLOT=any', ...lines.slice(1)]],
    [/repeats PEARASYS_VGPU_TYPE/, [...lines, 'PEARASYS_VGPU_TYPE=589']],
  ] as const)
    it(`is ignored: ${reason.source}`, () =>
      assert.throws(
        () => parseVgpu('file', `${text.join('\n')}\n`),
        (error: {code: string; details: string[]}) =>
          error.code === 'bad-record' && reason.test(error.details.join()),
      ));
});

describe('the types that a virtual function can have', () => {
  it('are the lines with a number and a name', () => {
    assert.deepEqual(
      parseCreatable('ID    : vGPU Name\n588   : NVIDIA L40-1B \n  12 : A: b\n\njunk\n13 :\n'),
      [
        {id: 588, name: 'NVIDIA L40-1B'},
        {id: 12, name: 'A: b'},
      ],
    );
  });
});

describe('the plan for a vGPU type', () => {
  const {slot, id} = content;
  const path = `/sys/bus/pci/devices/${slot}/nvidia/current_vgpu_type`;
  const device = {...aDevice(slot, {driver: aDriver('nvidia'), vgpuType: 0}), id};
  const state = (type: number, change: Partial<VgpuState> = {}): VgpuState => ({
    layout: defaultLayout,
    running: true,
    device: {...device, vgpuType: type},
    vgpu: {
      slot,
      id,
      physical: undefined,
      type,
      creatable: type === 0 ? [{id: 588, name: 'NVIDIA L40-1B'}] : [],
    },
    holders: [],
    active: false,
    record: {kind: 'vgpu', path: vgpuPath(defaultLayout, content), ...content},
    files: new Map([[vgpuPath(defaultLayout, content), {content: printVgpu(content), mode: 0o644}]]),
    foreign: [],
    ...change,
  });
  const lines = (planned: Planned) => {
    assert.equal(planned.kind, 'plan');
    return planned.steps.map(shellLine);
  };
  const start = [
    `udevadm trigger --action=change /sys/bus/pci/devices/${slot}`,
    `systemctl start sys-bus-pci-devices-${slot}.device`,
    `systemctl start vgpu@${slot}.service`,
  ];

  it('of a unit sets the recorded type, and nothing if it is right', () => {
    assert.deepEqual(lines(planRecordedVgpu(slot, state(0))), [`echo '588' > ${path}`]);
    assert.deepEqual(lines(planRecordedVgpu(slot, state(588))), []);
    assert.deepEqual(lines(planRecordedVgpu(slot, state(589))), [
      `echo '0' > ${path}`,
      `echo '588' > ${path}`,
    ]);
  });

  it('of a unit is refused without a record for this card, and while the type is not offered', () => {
    const other = {...state(0).record!, id: asId('10de:1111')!};
    for (const [change, code] of [
      [{record: undefined}, 'no-device'],
      [{record: other}, 'no-device'],
      [{device: undefined, vgpu: undefined}, 'no-device'],
      [{vgpu: undefined}, 'not-switchable'],
      [{vgpu: {...state(0).vgpu!, creatable: []}}, 'no-type'],
    ] as const) {
      const planned = planRecordedVgpu(slot, state(0, change));
      assert.equal(planned.kind === 'refusal' ? planned.error.code : '', code);
    }
  });

  it('of a stop clears the type', () => {
    assert.deepEqual(lines(planVgpuStop(state(588))), [`echo '0' > ${path}`]);
    assert.deepEqual(lines(planVgpuStop(state(0))), []);
    assert.deepEqual(lines(planVgpuStop(state(588, {device: undefined, vgpu: undefined}))), []);
  });

  it('starts a unit that is not active, although type and record are right', () => {
    assert.deepEqual(lines(planVgpu({slot, id: undefined, type: '588'}, state(588))), start);
    assert.deepEqual(lines(planVgpu({slot, id: undefined, type: '588'}, state(588, {active: true}))), []);
  });

  it('of another type keeps the keys of a newer version, and drops the record of another card', () => {
    const stale = `/etc/pearasys/vgpu/${slot}-0x10de-0x1111`;
    const files = new Map([...state(0).files, [stale, {content: '', mode: 0o644}] as const]);
    const planned = planVgpu({slot, id: undefined, type: '0'}, state(588, {files}));
    assert.deepEqual(lines(planned), [
      `echo '0' > ${path}`,
      `rm ${vgpuPath(defaultLayout, content)}`,
      `rm ${stale}`,
      `systemctl stop vgpu@${slot}.service`,
    ]);
    const changed = lines(planVgpu({slot, id: undefined, type: '12'}, state(588, {files})));
    assert.deepEqual(changed.slice(0, 3), [`echo '0' > ${path}`, `echo '12' > ${path}`, `rm ${stale}`]);
    assert.match(changed[3] ?? '', /^PEARASYS_VGPU_TYPE=12\nPEARASYS_LATER=x\n/m);
    assert.deepEqual(changed.slice(4), start);
  });
});
