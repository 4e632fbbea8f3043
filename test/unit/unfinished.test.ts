/** What a run notes in case it is killed, and what the next run does with the note. */
import assert from 'node:assert/strict';
import {parseSlot} from '../../src/devices/pci/slot.js';
import {parseUuid} from '../../src/devices/mdev/uuid.js';
import {
  loadModule,
  makeLink,
  plan,
  removeFile,
  setOverride,
  systemctl,
  udevadm,
  writeFile,
  type Step,
} from '../../src/plan/step.js';
import {
  describeUnfinished,
  isUnfinished,
  planFinish,
  readUnfinished,
  type Unfinished,
} from '../../src/plan/unfinished.js';
import {unfinishedPath} from '../../src/host/paths.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {linesOf} from './values.js';

const card = parseSlot('0000:02:00.0');
const sound = parseSlot('0000:02:00.1');
const uuid = parseUuid('11111111-1111-4111-8111-111111111111');
const device = (slot: string) => `/sys/bus/pci/devices/${slot}`;
const previous = {content: 'old', mode: 0o644, owner: {uid: 0, gid: 0}};
const nothing: Unfinished = {folders: [], made: [], reloads: false, triggers: []};

describe('what a run notes about itself', () => {
  const describe = (...steps: readonly Step[]) => describeUnfinished(plan(steps));

  it('is nothing if the state of the machine shows everything', () => {
    assert.equal(describe(), undefined);
    assert.equal(
      describe(
        loadModule('vfio-pci'),
        setOverride(card, 'vfio-pci', undefined),
        systemctl(['daemon-reload']),
      ),
      undefined,
    );
    assert.equal(describe({kind: 'expect-mdev', uuid, present: false, undo: []}), undefined);
  });

  it('are the folders of its files, and how many of them are removed when empty', () => {
    assert.deepEqual(
      describe(
        writeFile('/etc/new/x', 'x', undefined),
        writeFile('/etc/deep/er/x', 'x', undefined, {prune: 2}),
        writeFile('/etc/there/x', 'x', previous),
        makeLink('/etc/links/x', '../x'),
        removeFile('/etc/old/x', previous),
        removeFile('/etc/older/er/x', previous, {prune: 3}),
      )?.folders,
      [
        {folder: '/etc/new', prune: 1},
        {folder: '/etc/deep/er', prune: 2},
        {folder: '/etc/there', prune: 0},
        {folder: '/etc/links', prune: 1},
        {folder: '/etc/old', prune: 1},
        {folder: '/etc/older/er', prune: 3},
      ],
    );
  });

  it('names each folder once, with the largest number', () => {
    for (const prunes of [
      [1, 2],
      [2, 1],
    ])
      assert.deepEqual(
        describe(...prunes.map((prune) => removeFile(`/etc/a/${prune}`, previous, {prune})))?.folders,
        [{folder: '/etc/a', prune: 2}],
      );
  });

  it('are the mediated devices that it creates', () => {
    assert.deepEqual(describe({kind: 'expect-mdev', uuid, present: true, undo: []}), {
      ...nothing,
      made: [uuid],
    });
  });

  it('includes other requests to systemd and udev', () => {
    const file = writeFile('/etc/x/y', 'x', undefined);
    assert.deepEqual(describe(file, systemctl(['enable', 'daemon-reload']))?.reloads, false);
    assert.deepEqual(describe(file, systemctl(['daemon-reload']))?.reloads, true);
    assert.deepEqual(describe(file, udevadm(['daemon-reload']))?.reloads, false);
    assert.deepEqual(
      describe(
        file,
        udevadm(['trigger', '--action=change', device(card), device(sound)]),
        udevadm(['settle']),
      )?.triggers,
      [card, sound],
    );
    assert.deepEqual(describe(file, systemctl(['start', card]))?.triggers, []);
  });
});

describe('what a killed run has left', () => {
  let host: SimulatedHost;
  beforeEach(() => {
    host = SimulatedHost.standard();
  });
  afterEach(() => host.dispose());

  const leave = (value: unknown) =>
    host.machine.tree.file(
      unfinishedPath(card),
      typeof value === 'string' ? value : JSON.stringify(value),
      0o600,
    );

  it('is nothing if there is no file for the lock', () => {
    assert.equal(isUnfinished(host, card), false);
    assert.equal(readUnfinished(host, card), undefined);
    leave(nothing);
    assert.equal(isUnfinished(host, card), true);
    assert.equal(isUnfinished(host, sound), false);
  });

  it('is read as it was written', () => {
    const left: Unfinished = {
      folders: [{folder: '/etc/pearasys/pci', prune: 1}],
      made: [uuid],
      reloads: true,
      triggers: [card, sound],
    };
    leave(left);
    assert.deepEqual(readUnfinished(host, card), left);
  });

  it('is ignored where it is malformed', () => {
    leave({folders: 1, made: {}, reloads: 'true', triggers: 'x'});
    assert.deepEqual(readUnfinished(host, card), nothing);
    leave({
      folders: [
        ...[null, 'x', {folder: 'etc', prune: 1}, {folder: '/etc', prune: '1'}, {folder: 1, prune: 1}],
        {folder: '/etc', prune: 0},
      ],
      made: [1, uuid],
      reloads: 1,
      triggers: [card, 'x', 5],
    });
    assert.deepEqual(readUnfinished(host, card), {
      folders: [{folder: '/etc', prune: 0}],
      made: [uuid],
      reloads: false,
      triggers: [card],
    });
  });

  it('includes a reload of systemd if the file is truncated', () => {
    leave('{"folders": [{"fold');
    assert.deepEqual(readUnfinished(host, card), {...nothing, reloads: true});
  });

  it('is an error if the file cannot be read', () => {
    leave(nothing);
    host.failRead(unfinishedPath(card), 'EIO');
    assert.throws(() => readUnfinished(host, card), {code: 'file-failed'});
  });

  describe('is finished', () => {
    const one: Unfinished = {
      folders: [
        {folder: '/etc/a', prune: 1},
        {folder: '/etc/b', prune: 2},
      ],
      made: [],
      reloads: false,
      triggers: [card],
    };
    const other: Unfinished = {
      folders: [{folder: '/etc/a', prune: 1}],
      made: [],
      reloads: true,
      triggers: [parseSlot('0000:7f:00.0'), card, sound],
    };

    it('with one step for each folder, for systemd and for the devices that are present', () => {
      const planned = planFinish(host, [one, other]);
      assert.deepEqual(
        planned.steps.map((step) => (step.kind === 'tidy-folder' ? [step.folder, step.prune] : step.kind)),
        [['/etc/a', 1], ['/etc/b', 2], 'systemctl', 'udevadm'],
      );
      assert.deepEqual(linesOf(planned).slice(2), [
        'systemctl daemon-reload',
        `udevadm trigger --action=change ${device(card)} ${device(sound)}`,
      ]);
    });

    it('without steps that are not needed', () => {
      assert.deepEqual(planFinish(host, [nothing]).steps, []);
      assert.deepEqual(linesOf(planFinish(host, [{...nothing, reloads: true}])), ['systemctl daemon-reload']);
    });

    it('in an image only in its files', () => {
      host.root = host.machine.folder;
      assert.deepEqual(
        planFinish(host, [one, other]).steps.map(({kind}) => kind),
        ['tidy-folder', 'tidy-folder'],
      );
    });
  });
});
