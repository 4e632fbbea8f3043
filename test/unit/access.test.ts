import assert from 'node:assert/strict';
import {parseId} from '../../src/devices/pci/id.js';
import {parseSlot} from '../../src/devices/pci/slot.js';
import {
  accessNotes,
  grantsOf,
  planAccess,
  refuseAccess,
  refuseWithoutNodes,
  type AccessState,
  type Grant,
} from '../../src/plan/service/access.js';
import {accessPath, parseAccessRules, printAccessRules} from '../../src/state/access-rules.js';
import {parseAccount, type NodeAccess} from '../../src/state/records/node-access.js';
import {aDriver, noAccess, undoLines} from './values.js';
import type {RecordContent} from '../../src/state/records/record.js';
import {shellLine, type Step} from '../../src/plan/step.js';

const card = parseSlot('0000:02:00.0');
const sound = parseSlot('0000:02:00.1');
const disk = parseSlot('0000:04:00.0');
const id = parseId('10de:1b80');

function access(user: string | undefined, group: string | undefined, mode = 0o660): NodeAccess {
  const [own, shared] = [user, group].map((name) => (name === undefined ? undefined : parseAccount(name)));
  return {
    ...(own === undefined ? {} : {user: own}),
    ...(shared === undefined ? {} : {group: shared}),
    mode,
  };
}

const toAlice: Grant = {slot: card, id, access: access('alice', 'vfio')};
const ofVirtual: Grant = {
  slot: parseSlot('0000:06:10.0'),
  id: parseId('8086:10ca'),
  access: access('alice', undefined),
  virtual: {record: '0000:06:00.0-0x8086-0x10c9', bridge: parseSlot('0000:00:1b.0')},
};
const path = accessPath('records');
const node = '/dev/vfio/12';
const root = {owner: {uid: 0, gid: 0}, mode: 0o600};

function state(rest: Partial<AccessState> = {}): AccessState {
  return {
    ...noAccess,
    users: new Map([
      ['root', 0],
      ['alice', 1000],
    ]),
    groups: new Map([['vfio', 990]]),
    ...rest,
  };
}

/** The card on VFIO, in a group with its sound function. */
const onVfio = {
  devices: new Map([
    [card, {ids: '0x10de 0x1b80', nodes: [node], group: [card, sound]}],
    [sound, {ids: '0x10de 0x10f0', nodes: [node], group: [card, sound]}],
  ]),
  nodes: new Map([[node, root]]),
};

const file = (grants: readonly Grant[]) => ({content: printAccessRules('records', grants), mode: 0o644});
const lines = (steps: readonly Step[]) => steps.map((step) => shellLine(step).split('\n')[0]);

describe('the rules that give nodes to users', () => {
  const all: readonly Grant[] = [
    toAlice,
    {slot: sound, id: parseId('10de:10f0'), access: access(undefined, '990', 0o640)},
    {slot: disk, id: undefined, access: access('1000', undefined, 0o600)},
    {...ofVirtual, virtual: {record: '0000:06:00.0-0x8086-0x10c9', bridge: undefined}},
    ofVirtual,
  ];

  it('can be read back', () => {
    assert.deepEqual(parseAccessRules(printAccessRules('records', all)), all);
    assert.deepEqual(parseAccessRules('# anything else is no grant\nSUBSYSTEM=="vfio"\n'), []);
  });

  it('find the group by its member, and the card by its id', () => {
    const text = printAccessRules('sriov', all);
    assert.match(
      text,
      /^SUBSYSTEM=="vfio", TEST=="\/sys\/kernel\/iommu_groups\/\$kernel\/devices\/0000:02:00\.0", ENV\{PEARASYS_ACCESS\}="0000:02:00\.0"$/m,
    );
    assert.match(
      text,
      /^ENV\{PEARASYS_ACCESS\}=="0000:02:00\.0", TEST!="\/run\/pearasys\/moved\/0000:02:00\.0", ATTR\{\[pci\/0000:02:00\.0\]vendor\}=="0x10de", ATTR\{\[pci\/0000:02:00\.0\]device\}=="0x1b80", OWNER="alice"$/m,
    );
    assert.match(text, /OWNER="root"$/m);
    assert.match(text, /GROUP="990"$/m);
    assert.match(text, /MODE="0640"$/m);
    assert.doesNotMatch(text, /\[pci\/0000:04:00\.0\]/);
  });

  it('have a file for each source; that of the boot is in /run under a name of its own', () => {
    assert.deepEqual((['records', 'sriov', 'boot'] as const).map(accessPath), [
      '/etc/udev/rules.d/61-pearasys-access.rules',
      '/etc/udev/rules.d/61-pearasys-access-sriov.rules',
      '/run/udev/rules.d/62-pearasys-access-boot.rules',
    ]);
  });
});

/** What udev is asked for after each change of the rules. */
const asked = [
  'udevadm control --reload',
  'udevadm trigger --action=change --subsystem-match=vfio --subsystem-match=vfio-dev --subsystem-match=uio',
];

describe('planAccess', () => {
  it('leaves the nodes of a virtual function of another card alone', () => {
    const {slot} = ofVirtual;
    const there = {
      devices: new Map([[slot, {ids: '0x8086 0x10ca', nodes: [node], group: [slot]}]]),
      nodes: onVfio.nodes,
      file: file([ofVirtual]),
    };
    const strangers = new Set([slot]);
    assert.deepEqual(lines(planAccess([ofVirtual], state(there))), [
      `chown 1000:0 ${node} && chmod 0660 ${node}`,
    ]);
    assert.deepEqual(lines(planAccess([ofVirtual], state({...there, strangers}))), []);
    assert.deepEqual(lines(planAccess([], state({...there, strangers})))[0], `rm ${path}`);
  });

  it('writes the rules and has udev read them; nodes that exist get their owner at once', () => {
    const steps = planAccess([toAlice], state(onVfio));
    assert.deepEqual(lines(steps), [
      `cat > ${path} <<'EOF'`,
      ...asked,
      `chown 1000:990 ${node} && chmod 0660 ${node}`,
    ]);
    assert.deepEqual(undoLines(steps), [`chown 0:0 ${node} && chmod 0600 ${node}`, `rm ${path}`]);
  });

  it('does nothing if all is so already', () => {
    const nodes = new Map([[node, {owner: {uid: 1000, gid: 990}, mode: 0o660}]]);
    assert.deepEqual(planAccess([toAlice], state({...onVfio, nodes, file: file([toAlice])})), []);
    assert.deepEqual(planAccess([], state(onVfio)), []);
  });

  it('sets the nodes that a killed run has left, without writing the rules again', () => {
    assert.deepEqual(lines(planAccess([toAlice], state({...onVfio, file: file([toAlice])}))), [
      `chown 1000:990 ${node} && chmod 0660 ${node}`,
    ]);
  });

  it('takes a node away before its rule goes', () => {
    const nodes = new Map([[node, {owner: {uid: 1000, gid: 990}, mode: 0o660}]]);
    const steps = planAccess([], state({...onVfio, nodes, file: file([toAlice])}));
    assert.deepEqual(lines(steps), [`chown 0:0 ${node} && chmod 0600 ${node}`, `rm ${path}`, ...asked]);
    assert.equal(undoLines(steps)[0], `cat > ${path} <<'EOF'\n${file([toAlice]).content}EOF`);
  });

  it('leaves a node that another member of its group still gives to its user', () => {
    const nodes = new Map([[node, {owner: {uid: 1000, gid: 990}, mode: 0o660}]]);
    const other = {slot: sound, id: parseId('10de:10f0'), access: toAlice.access};
    const steps = planAccess([other], state({...onVfio, nodes, file: file([toAlice, other])}));
    assert.deepEqual(lines(steps), [`cat > ${path} <<'EOF'`, ...asked]);
  });

  it('leaves the nodes of another card in the slot alone', () => {
    const devices = new Map([[card, {ids: '0x10de 0x1b81', nodes: [node], group: [card]}]]);
    assert.deepEqual(lines(planAccess([toAlice], state({...onVfio, devices}))), [
      `cat > ${path} <<'EOF'`,
      ...asked,
    ]);
  });

  it('leaves users that no longer exist out, as udev does', () => {
    assert.equal(
      lines(planAccess([{...toAlice, access: access('gone', '7')}], state(onVfio))).at(-1),
      `chown 0:7 ${node} && chmod 0660 ${node}`,
    );
  });

  it('has the rules in the order of slots, whatever the order it gets', () => {
    const other = {slot: disk, access: access('alice', undefined)};
    const [step] = planAccess([other, toAlice], state({running: false}));
    assert.equal(step?.kind, 'write-file');
    assert.deepEqual(
      parseAccessRules(step.content).map(({slot}) => slot),
      [card, disk],
    );
  });

  it('only writes the rules into an image', () => {
    assert.deepEqual(lines(planAccess([toAlice], state({running: false}))), [`cat > ${path} <<'EOF'`]);
  });
});

describe('one IOMMU group', () => {
  const other: Grant = {slot: sound, id: parseId('10de:10f0'), access: access('bob', undefined)};

  it('is not given to two users', () => {
    const refusal = refuseAccess([toAlice, other], [sound], state(onVfio));
    assert.equal(refusal?.error.code, 'bad-access');
    assert.equal(refusal.error.exitCode, 3);
    assert.match(refusal.error.message, /0000:02:00\.1 and 0000:02:00\.0 are in one IOMMU group/);
    assert.match(
      (refusal.error.details ?? []).join('\n'),
      /user bob, mode 0660[\s\S]*user alice, group vfio/,
    );
  });

  it('is not given to two users by two sources', () => {
    const refusal = refuseAccess([toAlice], [card], state({...onVfio, others: [other]}));
    assert.match(refusal?.error.message ?? '', /0000:02:00\.0 and 0000:02:00\.1 are in one IOMMU group/);
    const again = {...other, access: toAlice.access};
    assert.equal(refuseAccess([toAlice, again], [card], state({...onVfio, others: [other]})), undefined);
  });

  it('does not stop changes of other devices', () => {
    assert.equal(refuseAccess([toAlice, other], [disk], state(onVfio)), undefined);
    assert.equal(
      refuseAccess([toAlice, {...other, access: toAlice.access}], [sound], state(onVfio)),
      undefined,
    );
    assert.equal(refuseAccess([toAlice, other], [sound], state()), undefined);
  });

  it('is opened as a whole, which is said with the other members', () => {
    assert.deepEqual(accessNotes([toAlice], [disk], state(onVfio)), []);
    const [note = ''] = accessNotes([toAlice], [card], state(onVfio));
    assert.match(
      note,
      /^users of 0000:02:00\.0 \(user alice.*\) can also use the other devices .*: 0000:02:00\.1$/,
    );
    assert.deepEqual(accessNotes([toAlice, other], [card], state(onVfio)), []);
  });
});

describe('what records grant', () => {
  const plain = {
    slot: card,
    id,
    driver: aDriver('vfio-pci'),
    together: [card],
    identity: {},
    unknown: [],
  };
  const record: RecordContent = {...plain, access: toAlice.access};

  it('is what those of the administrator say for a slot', () => {
    assert.deepEqual(grantsOf([record]), [toAlice]);
    assert.deepEqual(grantsOf([{...record, source: 'credential'}]), []);
    assert.deepEqual(grantsOf([{...record, slot: 'any'}]), []);
    assert.deepEqual(grantsOf([plain]), []);
  });

  it('needs a driver with nodes for users', () => {
    const change = {user: parseAccount('alice')};
    for (const driver of ['vfio-pci', 'mlx5_vfio_pci', 'uio_pci_generic', 'igb_uio'])
      assert.equal(refuseWithoutNodes(driver, toAlice.access, change), undefined);
    for (const driver of ['nvme', 'none', 'pci-stub'])
      assert.equal(refuseWithoutNodes(driver, toAlice.access, change)?.error.code, 'bad-access');
    assert.equal(refuseWithoutNodes('nvme', toAlice.access, undefined), undefined);
    assert.equal(refuseWithoutNodes('nvme', undefined, change), undefined);
  });
});
