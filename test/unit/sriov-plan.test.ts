import assert from 'node:assert/strict';
import {defaultLayout} from '../../src/config/layout.js';
import {parseSlot} from '../../src/devices/pci/slot.js';
import {parseId} from '../../src/devices/pci/id.js';
import type {HostReader} from '../../src/host/host.js';
import {planSriov, planUnset} from '../../src/plan/sriov/sriov.js';
import type {SriovState} from '../../src/plan/sriov/sriov-state.js';
import type {Planned} from '../../src/plan/step.js';
import type {SriovRecord, VirtualFunctions} from '../../src/state/sriov/sriov-record.js';
import {aDevice, aDriver, linesOf, noAccess, undoLines} from './values.js';

const slot = '0000:06:00.0';
const attributes = `/sys/bus/pci/devices/${slot}`;
const path = `/etc/pearasys/sriov/${slot}-0x8086-0x10c9`;
const pf = aDevice(slot, {id: '8086:10c9', classCode: 0x020000, driver: 'igb'});

/** No planner of a number reads the machine. */
const host = {} as HostReader;

const four: VirtualFunctions = {count: 4, autoprobe: true, drivers: new Map()};

function record(rest: Partial<SriovRecord> = {}): SriovRecord {
  return {
    kind: 'sriov',
    path,
    slot: parseSlot(slot),
    id: parseId('8086:10c9'),
    identity: {},
    unknown: [],
    ...four,
    ...rest,
  };
}

function state(rest: Partial<SriovState> = {}): SriovState {
  return {
    layout: defaultLayout,
    device: pf,
    sriov: {
      total: 8,
      count: 0,
      places: {offset: 128, stride: 2},
      virtualId: parseId('8086:10ca'),
      autoprobe: true,
    },
    isVirtual: false,
    identity: {path: '0000:00/1b.0/00.0'},
    bridge: parseSlot('0000:00:1b.0'),
    lastBus: 6,
    lacksSpace: false,
    records: {records: [], problems: [], folderProblem: undefined},
    its: undefined,
    own: [],
    elsewhere: undefined,
    virtual: [],
    exempt: new Set(),
    released: new Map(),
    holders: [],
    access: noAccess,
    claimed: [],
    files: new Map(),
    sources: new Map([[aDriver('vfio-pci'), {kind: 'module', module: 'vfio-pci'}]]),
    noIommu: 'off',
    vfioCreates: false,
    interfaces: [],
    running: true,
    off: undefined,
    ...rest,
  };
}

/** The lines of a plan that are writes to the kernel or requests. */
const live = (planned: Planned) =>
  linesOf(planned).filter((line) => !line.startsWith('cat >') && !line.startsWith('rm '));

const set = (wanted: VirtualFunctions, rest: Partial<SriovState> = {}, when: 'now' | 'later' = 'now') =>
  planSriov(host, {wanted, when}, state(rest));

const virtual = [0, 2].map((number) =>
  aDevice(`0000:06:10.${number}`, {id: '8086:10ca', driver: 'vfio-pci', override: 'vfio-pci'}),
);
const sriov = state().sriov;

describe('the plan for virtual functions', () => {
  it('writes the files before the number, and is undone in reverse', () => {
    const planned = set({...four, autoprobe: false, driver: aDriver('vfio-pci')});
    assert.equal(planned.kind, 'plan');
    assert.deepEqual(
      planned.steps.map(({kind}) => kind),
      [
        ...Array<string>(6).fill('write-file'),
        'load-module',
        'expect-registered',
        'write-attribute',
        'write-attribute',
        'expect-virtual',
      ],
    );
    assert.deepEqual(live(planned).slice(2, 4), [
      `echo '0' > ${attributes}/sriov_drivers_autoprobe`,
      `echo '4' > ${attributes}/sriov_numvfs`,
    ]);
    assert.deepEqual(undoLines(planned.steps).slice(0, 3), [
      `echo '0' > ${attributes}/sriov_numvfs || true`,
      `echo '1' > ${attributes}/sriov_drivers_autoprobe`,
      'modprobe -r vfio-pci',
    ]);
  });

  const extra: readonly [count: number, milliseconds: number][] = [
    [1, 2000],
    [64, 128_000],
    [150, 300_000],
    [2000, 300_000],
  ];
  for (const [count, milliseconds] of extra)
    it(`gives ${count} functions ${milliseconds / 1000} s more than another write`, () => {
      const planned = set({...four, count}, {sriov: {...sriov!, total: 4000}, lastBus: 255});
      assert.equal(planned.kind, 'plan');
      const times = planned.steps.flatMap((step) =>
        step.kind === 'expect-virtual' || (step.kind === 'write-attribute' && step.path.endsWith('numvfs'))
          ? [step, ...step.undo].map((one) => ('extraTime' in one ? one.extraTime : undefined))
          : [],
      );
      assert.deepEqual(times, [milliseconds, milliseconds, milliseconds]);
    });

  it('goes through 0, and its undo restores the functions with their drivers', () => {
    const planned = set(four, {
      sriov: {...sriov!, count: 2, autoprobe: false},
      virtual,
      its: record(),
      own: [record()],
    });
    assert.equal(planned.kind, 'plan');
    assert.deepEqual(live(planned).slice(0, 3), [
      `echo '0' > ${attributes}/sriov_numvfs || true`,
      `echo '1' > ${attributes}/sriov_drivers_autoprobe`,
      `echo '4' > ${attributes}/sriov_numvfs`,
    ]);
    assert.deepEqual(undoLines(planned.steps).slice(0, 5), [
      `echo '0' > ${attributes}/sriov_numvfs || true`,
      `echo '0' > ${attributes}/sriov_drivers_autoprobe`,
      `echo '0' > ${attributes}/sriov_drivers_autoprobe`,
      `echo '2' > ${attributes}/sriov_numvfs`,
      `echo 'vfio-pci' > /sys/bus/pci/devices/0000:06:10.0/driver_override`,
    ]);
  });

  it('has udev apply .link files for functions after they were created', () => {
    const planned = set(four, {interfaces: [`${attributes}/net/eth2`]});
    assert.deepEqual(live(planned).slice(0, 2), [
      `echo '4' > ${attributes}/sriov_numvfs`,
      `udevadm trigger --action=add --settle ${attributes}/net/eth2`,
    ]);
  });

  it('writes only files for the next boot, in an image, and while it is switched off', () => {
    const image = {device: {slot: pf.slot, id: pf.id}, running: false, sriov: undefined};
    assert.deepEqual(live(set(four, image)), []);
    assert.equal(linesOf(set(four, image)).length, 1);
    assert.deepEqual(live(set(four, {}, 'later')), []);
    assert.deepEqual(live(set(four, {off: 'pearasys=off'})), []);
  });

  it('replaces the record of the card for another slot, and that of another card', () => {
    const elsewhere = path.replace('06:00', '05:00');
    const old = record({
      slot: parseSlot('0000:05:00.0'),
      path: elsewhere,
      unknown: [{key: 'PEARASYS_X', value: '1'}],
    });
    const planned = set(four, {
      its: old,
      own: [old],
      files: new Map([[elsewhere, {content: 'old', mode: 0o644}]]),
    });
    assert.equal(planned.kind, 'plan');
    const [first, second] = planned.steps;
    assert.ok(first?.kind === 'write-file' && first.path === path);
    assert.match(first.content, /^PEARASYS_X=1$/m);
    assert.ok(second?.kind === 'remove-file' && second.path === elsewhere);
    assert.deepEqual(planned.notes, ['replacing the record of 0000:05:00.0 (8086:10c9)']);
  });

  it('refuses to write a record that would be ignored', () => {
    const folderProblem = {kind: 'sriov', path: '/etc/pearasys/sriov', reason: 'writable'} as const;
    const planned = set(four, {records: {records: [], problems: [folderProblem], folderProblem}});
    assert.equal(planned.kind === 'refusal' && planned.error.code, 'bad-record');
  });

  it('refuses a device on a driver that creates none, unless vfio-pci was told to', () => {
    const device = {...pf, driver: 'vfio-pci'};
    const refused = set(four, {device});
    assert.match(
      refused.kind === 'refusal' ? refused.error.message : '',
      /is on vfio-pci, which creates no virtual functions/,
    );
    assert.equal(set(four, {device, vfioCreates: true}).kind, 'plan');
    assert.equal(set(four, {device: {...pf, driver: 'pci-stub'}, vfioCreates: true}).kind, 'refusal');
  });

  const buses: readonly [
    what: string,
    offset: number,
    count: number,
    lastBus: number | undefined,
    fits: boolean,
  ][] = [
    ['on the bus of the device', 128, 8, 6, true],
    ['on the next bus, which the bridge passes on', 254, 4, 7, true],
    ['on the next bus, which it does not pass on', 254, 4, 6, false],
    ['on the next bus, without a bridge', 254, 4, undefined, true],
    ['after the last bus', 0xf9ff, 2, undefined, false],
  ];
  for (const [what, offset, count, lastBus, fits] of buses)
    it(`${fits ? 'creates' : 'refuses'} functions ${what}`, () => {
      const planned = set({...four, count}, {sriov: {...sriov!, places: {offset, stride: 2}}, lastBus});
      assert.equal(planned.kind, fits ? 'plan' : 'refusal');
      if (planned.kind === 'refusal') assert.match(planned.error.message, /not enough bus numbers/);
    });

  it('of an unset removes functions, unit and files in this order', () => {
    const files = new Map([
      [path, {content: 'x', mode: 0o644}],
      ['/run/pearasys/sriov/x', {content: 'x', mode: 0o644}],
    ]);
    const with2 = {
      its: record(),
      own: [record()],
      sriov: {...sriov!, count: 2, autoprobe: false},
      virtual,
      files,
    };
    assert.deepEqual(linesOf(planUnset(state(with2), false)), [
      `echo '0' > ${attributes}/sriov_numvfs || true`,
      `echo '1' > ${attributes}/sriov_drivers_autoprobe`,
      `systemctl stop pearasys-sriov@${slot}.target`,
      'rm /run/pearasys/sriov/x',
      `rm ${path}`,
    ]);
    assert.deepEqual(live(planUnset(state(with2), true)), [`systemctl stop pearasys-sriov@${slot}.target`]);
    assert.deepEqual(linesOf(planUnset(state({...with2, running: false}), false)).length, 2);
    assert.deepEqual(linesOf(planUnset(state({sriov: sriov!}), false)), ['refused: no-device']);
  });
});
