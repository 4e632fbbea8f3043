/** What `userspace config` and `reset` decide, on values. */
import assert from 'node:assert/strict';
import type {Device} from '../../src/devices/pci/device.js';
import type {Driver} from '../../src/devices/pci/driver.js';
import type {Slot} from '../../src/devices/pci/slot.js';
import {plan} from '../../src/plan/step.js';
import type {SwitchInput} from '../../src/plan/switch/switch.js';
import {
  decide,
  decideReset,
  describeSkip,
  devicesToSearch,
  withSkipped,
  type Decision,
  type UserspaceInput,
} from '../../src/plan/userspace/userspace.js';
import type {Contents} from '../../src/usage/contents.js';
import type {Holder} from '../../src/usage/holder.js';
import {aDevice, aDriver, aSwitch} from './values.js';

const vfio = aDriver('vfio-pci');
const uio = aDriver('uio_pci_generic');

const disk = (slot: string, rest: Parameters<typeof aDevice>[1] = {}) =>
  aDevice(slot, {
    id: '144d:a808',
    classCode: 0x01_08_02,
    driver: 'nvme',
    group: Number(slot.slice(0, 2)),
    ...rest,
  });
const net = (slot: string, rest: Parameters<typeof aDevice>[1] = {}) =>
  aDevice(slot, {
    id: '8086:10d3',
    classCode: 0x02_00_00,
    driver: 'e1000e',
    group: Number(slot.slice(0, 2)),
    ...rest,
  });

interface Said {
  readonly otherwise?: Driver;
  readonly take?: readonly Device[];
  readonly blocked?: readonly Device[];
  readonly holders?: readonly Holder[];
  readonly silent?: readonly Device[];
  readonly members?: readonly Device[];
  readonly unsearchable?: ReadonlyMap<Slot, string>;
  readonly dependents?: SwitchInput['dependents'];
}

function inputOf(devices: readonly Device[], said: Said = {}): UserspaceInput {
  const {otherwise, take = [], blocked = [], holders = [], silent = [], members = devices} = said;
  const slots = (list: readonly Device[]) => new Set(list.map(({slot}) => slot));
  const open = devices.filter((device) => !blocked.includes(device));
  const rest = {
    holders,
    members,
    silent: slots(silent),
    dependents: said.dependents ?? new Map<Slot, never>(),
  };
  return {
    devices,
    request: {
      driver: undefined,
      variant: true,
      take: slots(take),
      blocked: slots(blocked),
      claimed: new Set(),
    },
    choices: new Map(
      open.map(({slot}) => [slot, {driver: vfio, ...(otherwise === undefined ? {} : {otherwise})}]),
    ),
    switches: new Map([
      [vfio, aSwitch(vfio, open, rest)],
      [uio, aSwitch(uio, open, rest)],
    ]),
    begun: new Set(),
    risks: new Map(),
    unsearchable: said.unsearchable ?? new Map<Slot, string>(),
  };
}

const ext4: Contents = {kind: 'data', type: 'ext4', usage: 'filesystem', partitionTable: undefined};
const carries = (device: Device, contents: Contents) => ({
  slots: [device.slot],
  node: '/dev/nvme0n1',
  contents,
});

const takenBy = ({switched}: Decision) =>
  switched.map(({device, driver}) => `${device.slot} ${driver ?? 'default'}`);
const skippedBy = ({skipped}: Decision) => skipped.map(({slot, code}) => `${slot} ${code}`);

describe('userspace config', () => {
  it('takes what nothing stops, and skips each of the others with its reason', () => {
    const [blank, full, dead, held] = [disk('01:00.0'), disk('02:00.0'), net('03:00.0'), net('04:00.0')];
    const holder: Holder = {
      kind: 'interface',
      slot: held.slot,
      class: 'yields',
      harm: 'overridable',
      name: 'eth4',
      addresses: ['192.0.2.4/24'],
      routes: [],
      through: undefined,
      last: false,
    };
    const decision = decide(inputOf([blank, full, dead, held], {silent: [dead], holders: [holder]}), [
      carries(blank, {kind: 'blank'}),
      carries(full, ext4),
    ]);
    assert.deepEqual(takenBy(decision), ['0000:01:00.0 vfio-pci']);
    assert.deepEqual(skippedBy(decision), [
      '0000:02:00.0 carries-data',
      '0000:03:00.0 no-answer',
      '0000:04:00.0 in-use',
    ]);
    assert.deepEqual(decision.skipped.map(describeSkip), [
      '0000:02:00.0 (144d:a808) is skipped: /dev/nvme0n1 carries a file system (ext4); to take it anyway, add: --take 0000:02:00.0',
      '0000:03:00.0 (8086:10d3) is skipped: does not respond: its configuration space reads all ones, like that of a device that is dead or has no power; remove it and rescan: pearasys -s 0000:03:00.0 pci device remove rescan; or power-cycle the machine',
      '0000:04:00.0 (8086:10d3) is skipped: eth4 is up with 192.0.2.4/24; ip link set eth4 down',
    ]);
  });

  it('searches the disks of what would be taken, and no others', () => {
    const [one, taken, blocked, user] = [
      disk('01:00.0'),
      disk('02:00.0'),
      disk('03:00.0'),
      disk('04:00.0', {driver: 'uio_pci_generic'}),
    ];
    const input = inputOf([one, taken, blocked, user], {take: [taken], blocked: [blocked]});
    assert.deepEqual(devicesToSearch(input), [one]);
  });

  it('--take overrides data of its disk only, and not PCI_BLOCKED', () => {
    const [one, other, blocked] = [disk('01:00.0'), disk('02:00.0'), disk('03:00.0')];
    const decision = decide(
      inputOf([one, other, blocked], {take: [one, blocked], blocked: [blocked]}),
      [one, other, blocked].map((device) => carries(device, ext4)),
    );
    assert.deepEqual(takenBy(decision), ['0000:01:00.0 vfio-pci']);
    assert.deepEqual(skippedBy(decision), ['0000:02:00.0 carries-data', '0000:03:00.0 blocked']);
  });

  it('does not take a disk that could not be searched for blank', () => {
    const one = disk('01:00.0');
    const reasons = (input: UserspaceInput, contents: Contents) =>
      decide(input, [carries(one, contents)]).skipped.flatMap((skip) => skip.reasons);
    assert.deepEqual(reasons(inputOf([one]), {kind: 'unknown', reason: 'it cannot be read'}), [
      '/dev/nvme0n1 could not be searched for data: it cannot be read',
    ]);
    assert.deepEqual(
      reasons(inputOf([one], {unsearchable: new Map([[one.slot, 'it has no driver']])}), {kind: 'blank'}),
      ['it has no driver'],
    );
  });

  it('does not take what Xen holds, even with --take', () => {
    const [one, card] = [disk('01:00.0', {driver: 'pciback'}), net('02:00.0', {driver: 'pciback'})];
    const decision = decide(inputOf([one, card], {take: [one]}), []);
    assert.deepEqual(skippedBy(decision), ['0000:01:00.0 in-use', '0000:02:00.0 in-use']);
    assert.deepEqual(decision.skipped[0]?.reasons, ['it is on pciback, so a Xen guest may have it']);
  });

  it('does not take a device with which one goes away that PCI_BLOCKED names, or that Xen holds', () => {
    const one = net('01:00.0');
    for (const [virtual, code, reason] of [
      [net('01:10.0', {driver: undefined}), 'blocked', 'PCI_BLOCKED names it'],
      [net('01:10.1', {driver: 'pciback'}), 'in-use', 'it is on pciback, so a Xen guest may have it'],
    ] as const) {
      const blocked = code === 'blocked' ? [virtual] : [];
      const dependents = new Map([[one.slot, {virtual: [virtual], below: [], autoprobe: true}]]);
      const {skipped} = decide(inputOf([one], {blocked, dependents}), []);
      assert.deepEqual(
        skipped.map((skip) => [skip.code, ...skip.reasons]),
        [[code, `${virtual.slot} goes away with it: ${reason}`]],
      );
    }
  });

  it('leaves out a group when one of its members is left out', () => {
    const [one, two, alone] = [disk('01:00.0'), disk('01:00.1', {group: 1}), net('02:00.0')];
    const decision = decide(inputOf([one, two, alone]), [carries(two, ext4)]);
    assert.deepEqual(takenBy(decision), ['0000:02:00.0 vfio-pci']);
    assert.deepEqual(skippedBy(decision), ['0000:01:00.0 group-not-viable', '0000:01:00.1 carries-data']);
    const whole = decide(inputOf([one, two, alone], {take: [two]}), [carries(two, ext4)]);
    assert.equal(whole.switched.length, 3);
  });

  it('uses the driver without a group where that works', () => {
    const [one, other] = [net('01:00.0'), net('01:00.1', {group: 1})];
    const decision = decide(inputOf([one], {otherwise: uio, members: [one, other]}), []);
    assert.deepEqual(takenBy(decision), ['0000:01:00.0 uio_pci_generic']);
    assert.deepEqual(decision.skipped, []);
  });

  it('is refused if devices were named and none of them is switched', () => {
    const one = disk('01:00.0');
    const decision = decide(inputOf([one]), [carries(one, ext4)]);
    const refused = withSkipped(plan([]), decision, true);
    assert.equal(refused.kind === 'refusal' && refused.error.code, 'carries-data');
    const selected = withSkipped(plan([]), decision, false);
    assert.deepEqual(selected.kind === 'plan' && selected.notes, decision.skipped.map(describeSkip));
    const already = withSkipped(plan([]), {...decision, already: [net('02:00.0')]}, true);
    assert.equal(already.kind, 'plan');
  });
});

describe('userspace reset', () => {
  it('returns each device that nothing stops; PCI_BLOCKED wins', () => {
    const [one, blocked] = [
      disk('01:00.0', {driver: 'vfio-pci', override: 'vfio-pci'}),
      disk('02:00.0', {driver: 'vfio-pci', override: 'vfio-pci'}),
    ];
    const input = aSwitch(vfio, [one], {target: {kind: 'default'}});
    const decision = decideReset({devices: [one, blocked], blocked: new Set([blocked.slot]), input});
    assert.deepEqual(takenBy(decision), ['0000:01:00.0 default']);
    assert.deepEqual(skippedBy(decision), ['0000:02:00.0 blocked']);
  });
});
