import assert from 'node:assert/strict';
import {PearasysError} from '../../src/host/errors.js';
import type {Callouts} from '../../src/state/definitions/callout.js';
import {
  printConfig,
  type Definition,
  type Definitions,
  type MdevConfig,
} from '../../src/state/definitions/definition.js';
import {parseParentName, parseTypeName} from '../../src/devices/mdev/mdev-name.js';
import type {Parent} from '../../src/devices/mdev/parent.js';
import {parseUuid} from '../../src/devices/mdev/uuid.js';
import {
  planMdevDefine,
  planMdevModify,
  planMdevModifyLive,
  planMdevUndefine,
  type DefinitionState,
} from '../../src/plan/mdev/mdev-define.js';
import {
  planMdevStart,
  specifyMdev,
  type MdevStartInput,
  type MdevRequest,
} from '../../src/plan/mdev/mdev-start.js';
import {planMdevStop} from '../../src/plan/mdev/mdev-stop.js';
import {together} from '../../src/plan/mdev/mdev-callouts.js';
import {plan, refuse, type Planned} from '../../src/plan/step.js';
import {linesOf, undoLines} from './values.js';

const uuid = parseUuid('83c32df7-d52e-4ec1-9668-1f3c7e4df107');
const mtty = parseParentName('mtty');
const other = parseParentName('other');
const type = parseTypeName('mtty-1');
const none: Callouts = {scripts: [], supports: undefined, notifiers: [], skipped: []};
const device = `/sys/bus/mdev/devices/${uuid}`;
const create = '/sys/class/mdev_bus/mtty/mdev_supported_types/mtty-1/create';
/** With scripts it is looked at after them whether it can be created. */
const look = `test "$(cat ${create.replace(/create$/, 'available_instances')})" -ne 0`;
const file = `/etc/mdevctl.d/mtty/${uuid}`;

const request = (more: Partial<MdevRequest> = {}): MdevRequest => ({
  uuid,
  parent: mtty,
  type,
  start: 'manual',
  attributes: [],
  ...more,
});

const parent = (more: Partial<Parent> = {}): Parent => ({
  name: mtty,
  slot: undefined,
  registered: true,
  types: [
    {name: type, available: 3, deviceApi: 'vfio-pci', title: undefined, description: undefined},
    {
      name: parseTypeName('mtty-2'),
      available: 0,
      deviceApi: 'vfio-pci',
      title: undefined,
      description: undefined,
    },
  ],
  ...more,
});

const startInput = (more: Partial<MdevStartInput> = {}): MdevStartInput => ({
  request: request(),
  existing: undefined,
  parent: parent(),
  parents: [mtty],
  mayExist: false,
  patience: 0,
  callouts: none,
  force: false,
  ...more,
});

const definition = (more: Partial<Definition> = {}): Definition => ({
  kind: 'definition',
  unknown: [],
  ...request(),
  others: {},
  path: `/etc/mdevctl.d/${more.parent ?? mtty}/${more.uuid ?? uuid}`,
  ...more,
});

const state = (definitions: readonly Definition[], more: Partial<DefinitionState> = {}): DefinitionState => ({
  definitions: {definitions, broken: []},
  files: new Map(
    definitions.map((one) => [
      `/etc/mdevctl.d/${one.parent}/${one.uuid}`,
      {content: printConfig(one), mode: 0o644},
    ]),
  ),
  callouts: none,
  force: false,
  ...more,
});

function refusal(planned: Planned) {
  if (planned.kind === 'plan') assert.fail('it was not refused');
  return planned.error;
}

const isCode = (code: string) => (error: unknown) => error instanceof PearasysError && error.code === code;

describe('planMdevStart', () => {
  it('creates, checks, and writes the attributes in order; the undo removes the device', () => {
    const attributes = [
      {name: 'b', value: '1'},
      {name: 'a', value: "it's"},
      {name: 'b', value: '2'},
    ];
    const planned = planMdevStart(startInput({request: request({attributes})}));
    assert.deepEqual(linesOf(planned), [
      `echo '${uuid}' > ${create}`,
      `test -e ${device}`,
      `echo '1' > ${device}/b`,
      `echo 'it'\\''s' > ${device}/a`,
      `echo '2' > ${device}/b`,
    ]);
    assert.deepEqual(undoLines(planned.kind === 'plan' ? planned.steps : []), [
      `echo '1' > ${device}/remove || true`,
    ]);
  });

  it('reports before the write what the kernel would refuse', () => {
    for (const [more, code, exitCode] of [
      [{parent: undefined}, 'no-parent', 4],
      [{parent: parent({registered: false, types: []})}, 'not-registered', 3],
      [{request: request({type: parseTypeName('mtty-9')})}, 'no-type', 4],
      [{request: request({type: parseTypeName('mtty-2')})}, 'no-instances', 3],
      [{existing: {uuid, parent: mtty, type}}, 'uuid-in-use', 3],
      [{request: request({attributes: [{name: '../x', value: '1'}]})}, 'bad-attribute', 3],
    ] as const) {
      const error = refusal(planMdevStart(startInput(more)));
      assert.deepEqual([error.code, error.exitCode], [code, exitCode]);
      assert.ok(error.details?.includes('nothing was changed'), code);
      assert.ok(error.hint !== undefined, code);
    }
  });

  it('names the nearest type, and types with available instances', () => {
    const nearType = refusal(planMdevStart(startInput({request: request({type: parseTypeName('mtty-11')})})));
    assert.match(nearType.hint ?? '', /it has mtty-1, mtty-2; the nearest is mtty-1/);
    const full = refusal(planMdevStart(startInput({request: request({type: parseTypeName('mtty-2')})})));
    assert.match(full.details?.[0] ?? '', /other types with instances left: mtty-1/);
  });

  it('for a unit accepts an existing device, but only of this parent and type', () => {
    const there = (more: object) =>
      planMdevStart(startInput({mayExist: true, existing: {uuid, parent: mtty, type, ...more}}));
    assert.deepEqual(there({}), plan([]));
    assert.deepEqual(there({type: undefined}), plan([]));
    assert.equal(refusal(there({parent: other})).code, 'uuid-in-use');
    assert.equal(refusal(there({type: parseTypeName('mtty-2')})).code, 'uuid-in-use');
  });

  it('continues if the parent does not say how many are available', () => {
    const unknown = parent({
      types: [{name: type, available: undefined, deviceApi: '', title: undefined, description: undefined}],
    });
    assert.equal(planMdevStart(startInput({parent: unknown})).kind, 'plan');
  });

  describe('with scripts', () => {
    const scripts = ['/etc/mdevctl.d/scripts.d/callouts/a', '/etc/mdevctl.d/scripts.d/callouts/b'];
    const notifiers = ['/etc/mdevctl.d/scripts.d/notifiers/n'];
    const args = (event: string, stateWord: string) =>
      `-t mtty-1 -e ${event} -a start -s ${stateWord} -u ${uuid} -p mtty`;
    const input = `echo '{"mdev_type":"mtty-1","start":"manual","attrs":[]}' |`;

    it('one is asked before, and all are notified after, also of an undo', () => {
      const planned = planMdevStart(
        startInput({callouts: {...none, scripts: scripts.slice(0, 1), notifiers}}),
      );
      const [pre, ...rest] = linesOf(planned);
      assert.equal(pre, `${input} ${scripts[0] ?? ''} ${args('pre', 'none')}`);
      assert.deepEqual(rest.slice(-2), [
        `${input} ${scripts[0] ?? ''} ${args('post', 'success')}`,
        `${input} ${notifiers[0] ?? ''} ${args('notify', 'success')}`,
      ]);
      assert.deepEqual(undoLines(planned.kind === 'plan' ? planned.steps : []).slice(-2), [
        `${input} ${scripts[0] ?? ''} ${args('post', 'failure')}`,
        `${input} ${notifiers[0] ?? ''} ${args('notify', 'failure')}`,
      ]);
    });

    it('several are tried until one does not exit with 2', () => {
      const [pre] = linesOf(planMdevStart(startInput({callouts: {...none, scripts}})));
      assert.equal(
        pre,
        `for script in ${scripts.join(' ')}; do ${input} "$script" ${args('pre', 'none')}; [ $? = 2 ] || break; done`,
      );
    });

    it('one that does not support it refuses, unless it is forced', () => {
      const callouts = {
        ...none,
        scripts: scripts.slice(0, 1),
        supports: {events: ['pre', 'get'], actions: ['stop']},
      };
      assert.equal(refusal(planMdevStart(startInput({callouts}))).code, 'callout-failed');
      const forced = planMdevStart(startInput({callouts, force: true}));
      assert.deepEqual(linesOf(forced), [look, `echo '${uuid}' > ${create}`, `test -e ${device}`]);
      assert.match(
        forced.kind === 'plan' ? (forced.notes[0] ?? '') : '',
        /does not support start; continuing/,
      );
    });

    it('those that are not trusted are reported', () => {
      const callouts = {...none, skipped: [{path: '/x', reason: 'it is not executable'}]};
      const planned = planMdevStart(startInput({callouts}));
      assert.deepEqual(planned.kind === 'plan' ? planned.notes : [], [
        'the script /x is not run: it is not executable',
      ]);
    });
  });
});

describe('the device to start', () => {
  const of = (definitions: readonly Definition[], broken: Definitions['broken'] = []) => ({
    definitions,
    broken,
  });

  it('is the one definition of the UUID, or of its parent', () => {
    const twins = [definition(), definition({parent: other, start: 'auto'})];
    assert.deepEqual(specifyMdev({uuid}, of(twins.slice(0, 1))), twins[0]);
    assert.deepEqual(specifyMdev({uuid, type}, of(twins.slice(0, 1))), twins[0]);
    assert.deepEqual(specifyMdev({uuid, parent: other}, of(twins)), twins[1]);
    assert.throws(() => specifyMdev({uuid}, of(twins)), isCode('ambiguous-definition'));
  });

  it('has the type of its definition', () => {
    assert.throws(
      () => specifyMdev({uuid, type: parseTypeName('mtty-2')}, of([definition()])),
      isCode('type-mismatch'),
    );
  });

  it('or a new device of a parent and a type', () => {
    assert.deepEqual(specifyMdev({uuid, parent: mtty, type}, of([definition({parent: other})])), request());
    assert.throws(() => specifyMdev({uuid}, of([])), isCode('not-defined'));
    assert.throws(() => specifyMdev({uuid, parent: mtty}, of([])), isCode('not-defined'));
    assert.throws(() => specifyMdev({uuid, type}, of([])), isCode('not-defined'));
  });

  it('or the content of a file', () => {
    const config: MdevConfig = {type, start: 'auto', attributes: [{name: 'a', value: '1'}]};
    assert.deepEqual(specifyMdev({uuid, parent: mtty, config}, of([])), request(config));
    assert.throws(() => specifyMdev({uuid, config}, of([])), isCode('usage'));
    assert.throws(() => specifyMdev({uuid, parent: mtty, type, config}, of([])), isCode('usage'));
  });

  it('is never guessed from a broken definition', () => {
    const broken = [{kind: 'definition', path: file, parent: mtty, uuid, reason: 'it is not JSON'}] as const;
    assert.throws(() => specifyMdev({uuid}, of([], broken)), isCode('bad-definition'));
    assert.deepEqual(specifyMdev({uuid, parent: mtty, type}, of([], broken)), request());
  });
});

describe('planMdevStop', () => {
  const input = {
    uuid,
    mdev: {uuid, parent: mtty, type},
    holders: [],
    mayBeGone: false,
    callouts: none,
    force: false,
  };

  it('removes the device, and checks', () => {
    assert.deepEqual(linesOf(planMdevStop(input)), [
      `echo '1' > ${device}/remove || true`,
      `test ! -e ${device}`,
    ]);
  });

  it('refuses a device in use, with or without force, because the write would block', () => {
    const holders = [
      {pid: 812, command: 'qemu', unit: 'x.service', nodes: ['/dev/vfio/9'], displayManager: false},
    ];
    for (const force of [false, true]) {
      const error = refusal(planMdevStop({...input, holders, force}));
      assert.deepEqual([error.code, error.exitCode], ['in-use', 3]);
      assert.deepEqual(error.details, [
        'process 812 (qemu) of x.service has /dev/vfio/9 open',
        'nothing was changed',
      ]);
      assert.equal(error.hint, 'systemctl stop x.service');
    }
  });

  it('refuses a missing device, except for a unit', () => {
    assert.equal(refusal(planMdevStop({...input, mdev: undefined})).exitCode, 4);
    assert.deepEqual(planMdevStop({...input, mdev: undefined, mayBeGone: true}), plan([]));
  });
});

describe('planMdevDefine', () => {
  it('writes mdevctl’s file; the undo removes it', () => {
    const planned = planMdevDefine(request({start: 'auto'}), state([]));
    assert.deepEqual(linesOf(planned), [
      `printf %s '{\n  "mdev_type": "mtty-1",\n  "start": "auto",\n  "attrs": []\n}' > ${file}`,
    ]);
    assert.deepEqual(undoLines(planned.kind === 'plan' ? planned.steps : []), [`rm ${file}`]);
  });

  it('a definition of another parent does not change; one of this parent is not overwritten', () => {
    assert.equal(planMdevDefine(request(), state([definition({parent: other})])).kind, 'plan');
    assert.equal(refusal(planMdevDefine(request(), state([definition()]))).code, 'already-defined');
    const broken = [{kind: 'definition', path: file, parent: mtty, uuid, reason: 'it is not JSON'}] as const;
    const error = refusal(planMdevDefine(request(), state([], {definitions: {definitions: [], broken}})));
    assert.deepEqual([error.code, error.details?.[0]], ['bad-definition', 'it is not JSON']);
  });

  it('refuses an attribute that no device is started with, unless mdevctl would take it', () => {
    const bad = request({attributes: [{name: '../../x', value: '1'}]});
    assert.equal(refusal(planMdevDefine(bad, state([]))).code, 'bad-attribute');
    assert.equal(planMdevDefine(bad, state([], {asTyped: true})).kind, 'plan');
  });
});

describe('planMdevUndefine', () => {
  const twins = [definition(), definition({parent: other})];

  it('removes all definitions of a UUID, or that of one parent, and leaves the folders', () => {
    assert.deepEqual(linesOf(planMdevUndefine(uuid, undefined, state(twins))), [
      `rm ${file}`,
      `rm /etc/mdevctl.d/other/${uuid}`,
    ]);
    const planned = planMdevUndefine(uuid, other, state(twins));
    assert.deepEqual(linesOf(planned), [`rm /etc/mdevctl.d/other/${uuid}`]);
    const [step] = planned.kind === 'plan' ? planned.steps : [];
    assert.equal(step?.kind === 'remove-file' && step.prune, 0);
  });

  it('does not remove broken ones, and says so', () => {
    const broken = [
      {
        kind: 'definition',
        path: `/etc/mdevctl.d/third/${uuid}`,
        parent: parseParentName('third'),
        uuid,
        reason: 'why',
      },
    ] as const;
    const mixed = state(twins, {definitions: {definitions: twins, broken}});
    const planned = planMdevUndefine(uuid, undefined, mixed);
    assert.equal(linesOf(planned).length, 2);
    assert.match(
      planned.kind === 'plan' ? (planned.notes[0] ?? '') : '',
      /^the definition \S+third\S+ is ignored: why$/,
    );
    const alone = state([], {definitions: {definitions: [], broken}});
    assert.equal(refusal(planMdevUndefine(uuid, undefined, alone)).code, 'bad-definition');
  });

  it('refuses a missing definition, and one that is not owned by root', () => {
    assert.deepEqual([refusal(planMdevUndefine(uuid, undefined, state([]))).code, 4], ['not-defined', 4]);
    const foreign = state(twins, {files: new Map()});
    assert.equal(refusal(planMdevUndefine(uuid, undefined, foreign)).code, 'bad-definition');
  });
});

describe('planMdevModify', () => {
  const attributes = [
    {name: 'a', value: '1'},
    {name: 'b', value: '2'},
  ];
  const modified = (change: Parameters<typeof planMdevModify>[2], from = definition({attributes})) => {
    const planned = planMdevModify(uuid, undefined, change, state([from]));
    const [step] = planned.kind === 'plan' ? planned.steps : [];
    return step?.kind === 'write-file' ? (JSON.parse(step.content) as Record<string, unknown>) : planned;
  };

  it('adds at the end or at an index, removes the last one or that at an index', () => {
    const add = {name: 'c', value: '3'};
    for (const [change, expected] of [
      [{add}, ['a', 'b', 'c']],
      [{add: {...add, index: 0}}, ['c', 'a', 'b']],
      [{add: {...add, index: 2}}, ['a', 'b', 'c']],
      [{remove: {}}, ['a']],
      [{remove: {index: 0}}, ['b']],
    ] as const) {
      const {attrs} = modified(change) as {attrs: object[]};
      assert.deepEqual(
        attrs.map((one) => Object.keys(one)[0]),
        expected,
      );
    }
    for (const change of [{add: {...add, index: 3}}, {remove: {index: 2}}])
      assert.throws(() => modified(change), isCode('usage'));
  });

  it('keeps everything else, including unknown keys', () => {
    const from = definition({attributes, others: {newer: {x: 1}}});
    assert.deepEqual(modified({start: 'auto'}, from), {
      mdev_type: 'mtty-1',
      start: 'auto',
      attrs: [{a: '1'}, {b: '2'}],
      newer: {x: 1},
    });
    assert.deepEqual(modified({type: parseTypeName('mtty-2')}, from), {
      mdev_type: 'mtty-2',
      start: 'manual',
      attrs: [{a: '1'}, {b: '2'}],
      newer: {x: 1},
    });
    assert.deepEqual(modified({config: {type, start: 'auto', attributes: []}}, from), {
      mdev_type: 'mtty-1',
      start: 'auto',
      attrs: [],
      newer: {x: 1},
    });
  });

  it('does nothing without a difference; the undo restores the file', () => {
    assert.deepEqual(planMdevModify(uuid, undefined, {start: 'manual'}, state([definition()])), plan([]));
    const planned = planMdevModify(uuid, undefined, {start: 'auto'}, state([definition()]));
    assert.deepEqual(undoLines(planned.kind === 'plan' ? planned.steps : []), [
      `printf %s '${printConfig(definition())}' > ${file}`,
    ]);
  });

  it('needs one definition', () => {
    const twins = state([definition(), definition({parent: other})]);
    assert.throws(
      () => planMdevModify(uuid, undefined, {start: 'auto'}, twins),
      isCode('ambiguous-definition'),
    );
    assert.throws(() => planMdevModify(uuid, mtty, {}, state([])), isCode('not-defined'));
  });
});

describe('planMdevModifyLive', () => {
  const config: MdevConfig = {type, start: 'manual', attributes: [{name: 'a', value: '1'}]};
  const script = '/etc/mdevctl.d/scripts.d/callouts/a';
  const callouts: Callouts = {
    ...none,
    scripts: [script],
    supports: {events: ['live', 'pre', 'post'], actions: ['modify']},
  };
  const live = (
    more: Partial<DefinitionState> & {defined?: boolean} = {},
    mdev = {uuid, parent: mtty, type},
  ) =>
    planMdevModifyLive(mdev, uuid, config, {...state([definition()], {callouts}), defined: false, ...more});

  it('only calls the script, and with --defined changes the definition too', () => {
    const call = (event: string, stateWord: string) =>
      `echo '{"mdev_type":"mtty-1","start":"manual","attrs":[{"a":"1"}]}' | ${script} -t mtty-1 -e ${event} -a modify -s ${stateWord} -u ${uuid} -p mtty`;
    assert.deepEqual(linesOf(live()), [call('live', 'none')]);
    assert.deepEqual(linesOf(live({defined: true})), [
      call('live', 'none'),
      call('pre', 'none'),
      `printf %s '${printConfig({...definition(), ...config})}' > ${file}`,
      call('post', 'success'),
    ]);
  });

  it('refuses if no script supports it, for another type, and without a device', () => {
    assert.equal(refusal(live({callouts: none})).code, 'callout-failed');
    assert.equal(refusal(live({callouts: {...callouts, supports: undefined}})).code, 'callout-failed');
    assert.equal(
      refusal(live({callouts: {...callouts, supports: {events: ['pre'], actions: ['modify']}}})).code,
      'callout-failed',
    );
    assert.equal(
      refusal(live({}, {uuid, parent: mtty, type: parseTypeName('mtty-2')})).code,
      'type-mismatch',
    );
    assert.equal(
      refusal(planMdevModifyLive(undefined, uuid, config, {...state([]), defined: false})).code,
      'no-device',
    );
  });
});

describe('plans together', () => {
  it('are all plans, or the first refusal', () => {
    const refused = refuse({code: 'busy', exitCode: 3, message: 'no'});
    const one = plan([], {notes: ['a', 'b']});
    assert.equal(together([one, refused, one]), refused);
    assert.deepEqual(together([one, plan([], {notes: ['b', 'c']})]), plan([], {notes: ['a', 'b', 'c']}));
  });
});
