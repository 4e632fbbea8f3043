import assert from 'node:assert/strict';
import {CommandError, PearasysError} from '../../src/host/errors.js';
import {readCalloutAttributes, readCalloutsOf} from '../../src/engine/callouts.js';
import {readMdevAttributes} from '../../src/operations/mdev-attributes.js';
import {readCallouts} from '../../src/state/definitions/callout.js';
import {parseParentName, parseTypeName} from '../../src/devices/mdev/mdev-name.js';
import {parseUuid} from '../../src/devices/mdev/uuid.js';
import {defineMdev, modifyMdevLive, undefineMdev} from '../../src/operations/mdev-define.js';
import {recordMdev} from '../../src/operations/mdev-record.js';
import {startMdev, type StartOptions} from '../../src/operations/mdev-start.js';
import {discardMdev, stopMdev} from '../../src/operations/mdev-stop.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {addParents} from '../simulated-host/standard-machine.js';

const uuid = parseUuid('83c32df7-d52e-4ec1-9668-1f3c7e4df107');
const subject = {uuid, parent: parseParentName('mtty'), type: parseTypeName('mtty-1')};
const own = '/etc/mdevctl.d/scripts.d';
const packaged = '/usr/lib/mdevctl/scripts.d';
const definitionFile = `/etc/mdevctl.d/mtty/${uuid}`;

/** Writes its arguments and its standard input into a file beside it. */
const logging = `echo "\${0##*/}: $*" >>../../log; cat >>../../log; echo >>../../log`;

describe('callouts', function () {
  // The scripts are real processes.
  this.timeout(20_000);
  let host: SimulatedHost;
  let notes: string[];
  let options: StartOptions & {mayBeGone: boolean; defined: boolean};

  beforeEach(() => {
    host = SimulatedHost.standard(addParents);
    notes = [];
    options = {
      limit: 5000,
      patience: 0,
      dryRun: false,
      force: false,
      mayExist: false,
      mayBeGone: false,
      defined: false,
      onNote: (note) => notes.push(note),
    };
  });
  afterEach(() => host.dispose());

  function script(path: string, body: string, mode = 0o755): void {
    host.machine.tree.file(path, `#!/bin/sh\n${body}\n`, mode);
  }

  /** What the scripts of the administrator's folder were called with; the questions for capabilities left out. */
  const calls = () =>
    (host.machine.tree.read('/etc/mdevctl.d/log') ?? '')
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('{') && !line.includes(' capabilities '))
      .map((line) => line.replace(` -u ${uuid} -p mtty`, '').replace('-t mtty-1 ', ''));

  const start = (more: Partial<StartOptions> = {}) => startMdev(host, subject, {...options, ...more});

  it('are in mdevctl’s folders, those of packages first; untrusted ones are skipped with the reason', () => {
    script(`${packaged}/callouts/50-vendor`, '');
    script(`${own}/callouts/b`, '');
    script(`${own}/callouts/a`, '');
    script(`${own}/callouts/open`, '', 0o777);
    script(`${own}/callouts/text`, '', 0o644);
    script(`${own}/notifiers/foreign`, '');
    host.machine.owners.set(`${own}/notifiers/foreign`, 1000);
    script(`${own}/notifiers/n`, '');
    host.machine.tree.textLink(`${own}/notifiers/lost`, 'nowhere');
    host.machine.tree.textLink(`${own}/notifiers/link`, '../callouts/a');
    const {scripts, notifiers, skipped, supports} = readCallouts(host);
    assert.deepEqual(scripts, [`${packaged}/callouts/50-vendor`, `${own}/callouts/a`, `${own}/callouts/b`]);
    assert.deepEqual(notifiers, [`${own}/notifiers/link`, `${own}/notifiers/n`]);
    assert.equal(supports, undefined);
    assert.deepEqual(
      skipped.map(({path, reason}) => `${path.split('/').at(-1) ?? ''}: ${reason}`),
      [
        `open: ${own}/callouts/open is writable by others: chmod go-w ${own}/callouts/open`,
        `text: ${own}/callouts/text is not executable: chmod +x ${own}/callouts/text`,
        `foreign: ${own}/notifiers/foreign is owned by user 1000, not by root: chown root ${own}/notifiers/foreign`,
        'lost: it is a broken link',
      ],
    );
  });

  it('one that the kernel cannot execute is not run by a shell', () => {
    const pretending = (name: string, text: string) =>
      host.machine.tree.file(`${own}/callouts/${name}`, text, 0o755);
    pretending('a-no-line', `echo >>../../log; exit 1\n`);
    pretending('b-empty', '');
    pretending('c-no-interpreter', '#!   \necho >>../../log\n');
    script(`${own}/callouts/d`, '');
    pretending('e-program', '\x7fELF…');
    const {scripts, skipped} = readCallouts(host);
    assert.deepEqual(scripts, [`${own}/callouts/d`, `${own}/callouts/e-program`]);
    assert.deepEqual(
      skipped.map(({reason}) => /has no interpreter line/.test(reason)),
      [true, true, true],
    );
  });

  it('none is run from a folder that others can write to', () => {
    script(`${own}/callouts/a`, '');
    host.machine.owners.set(`${own}/callouts`, 1000);
    const {scripts, skipped} = readCallouts(host);
    assert.deepEqual(scripts, []);
    assert.match(skipped[0]?.reason ?? '', /callouts is owned by user 1000/);
  });

  for (const folder of ['/etc/mdevctl.d', '/etc/mdevctl.d/scripts.d'])
    it(`none is run where others can write to ${folder}`, () => {
      script(`${own}/callouts/a`, '');
      host.machine.owners.set(folder, 1000);
      const {scripts, skipped} = readCallouts(host);
      assert.deepEqual(scripts, []);
      assert.match(skipped[0]?.reason ?? '', new RegExp(`^${folder} is owned by user 1000`));
    });

  it('none is run through a link to a folder of another user', () => {
    script('/home/somebody/script', '');
    host.machine.owners.set('/home/somebody', 1000);
    script(`${own}/callouts/a`, '');
    host.machine.tree.textLink(`${own}/callouts/b`, '/home/somebody/script');
    const {scripts, skipped} = readCallouts(host);
    assert.deepEqual(scripts, [`${own}/callouts/a`]);
    assert.match(skipped[0]?.reason ?? '', /^\/home\/somebody is owned by user 1000/);
  });

  it('none is run from an image, because they would describe this machine', async () => {
    script(`${own}/callouts/a`, `${logging}; exit 1`);
    script(`${own}/notifiers/n`, logging);
    host.root = host.machine.folder;
    await defineMdev(host, {...subject, start: 'auto'}, options);
    assert.deepEqual(calls(), []);
    assert.match(host.readText(definitionFile) ?? '', /"auto"/);
    assert.deepEqual(
      notes.map((note) => note.replace(/:.*/, '')),
      [`the script ${own}/callouts/a is not run`, `the script ${own}/notifiers/n is not run`],
    );
  });

  it('those that are not run are reported if another one refuses', async () => {
    script(`${own}/callouts/a`, '', 0o777);
    script(`${own}/callouts/b`, 'echo \'{"supports":{"version":2,"actions":["stop"],"events":["pre"]}}\'');
    await assert.rejects(start(), (error) => {
      assert.ok(error instanceof PearasysError);
      assert.match(error.message, /does not support start/);
      assert.match(error.details.join('\n'), /callouts\/a is not run: .* is writable by others/);
      return true;
    });
  });

  it('are called before and after with mdevctl’s arguments and the configuration, and the notifiers last', async () => {
    script(`${own}/callouts/a`, logging);
    script(`${own}/notifiers/n`, logging);
    await start();
    assert.deepEqual(calls(), [
      'a: -e pre -a start -s none',
      'a: -e post -a start -s success',
      'n: -e notify -a start -s success',
    ]);
    assert.match(
      host.machine.tree.read('/etc/mdevctl.d/log') ?? '',
      /-e pre .*\n\{"mdev_type":"mtty-1","start":"manual","attrs":\[\]\}\n/,
    );
    await stopMdev(host, uuid, options);
    assert.deepEqual(calls().slice(3), [
      'a: -e pre -a stop -s none',
      'a: -e post -a stop -s success',
      'n: -e notify -a stop -s success',
    ]);
  });

  it('one that exits with 2 is not called again if another accepts the call', async () => {
    script(`${own}/callouts/a`, `${logging}; exit 2`);
    script(`${own}/callouts/b`, logging);
    script(`${own}/callouts/c`, logging);
    await start();
    assert.deepEqual(calls(), [
      'a: -e pre -a start -s none',
      'b: -e pre -a start -s none',
      'b: -e post -a start -s success',
    ]);
  });

  it('one that fails before the action stops it, and the notifiers are called', async () => {
    script(`${own}/callouts/a`, `${logging}; echo 'not today' >&2; exit 1`);
    script(`${own}/notifiers/n`, logging);
    await assert.rejects(start(), (error) => {
      assert.ok(error instanceof PearasysError);
      assert.deepEqual([error.code, error.exitCode, error.details[0]], ['callout-failed', 3, 'not today']);
      return true;
    });
    assert.deepEqual(calls(), ['a: -e pre -a start -s none', 'n: -e notify -a start -s none']);
    assert.deepEqual(host.machine.mdevs.list(), []);
    assert.deepEqual(notes, ['a: not today']);
  });

  it('with --force it only says so', async () => {
    script(`${own}/callouts/a`, 'exit 1');
    await start({force: true});
    assert.equal(host.machine.mdevs.list().length, 1);
    assert.match(notes.join('\n'), /refused to start .*; continuing because of --force/);
  });

  it('are called after a failure when everything is undone', async () => {
    script(`${own}/callouts/a`, `${logging}; [ ! -e ../../../../sys/bus/mdev/devices/${uuid} ] || exit 1`);
    script(`${own}/notifiers/n`, logging);
    host.failWrite('*/mtty-1/create', 'EIO');
    await assert.rejects(start(), /EIO/);
    assert.deepEqual(calls(), [
      'a: -e pre -a start -s none',
      'a: -e post -a start -s failure',
      'n: -e notify -a start -s failure',
    ]);
    assert.deepEqual(notes, []);
  });

  it('notifiers are called also without scripts', async () => {
    script(`${own}/notifiers/n`, logging);
    host.failWrite('*/mtty-1/create', 'EIO');
    await assert.rejects(start(), /EIO/);
    assert.deepEqual(calls(), ['n: -e notify -a start -s failure']);
  });

  it('a failure after the action changes nothing, but is reported', async () => {
    script(`${own}/callouts/a`, 'case "$*" in *post*) exit 7;; esac');
    script(`${own}/notifiers/n`, 'exit 1');
    await start();
    assert.equal(host.machine.mdevs.list().length, 1);
    assert.deepEqual(notes, [
      `the script ${own}/callouts/a answered 7 to post of start`,
      `the script ${own}/notifiers/n answered 1 to notify of start`,
    ]);
  });

  it('one that hangs is killed after the limit: before the action it stops it, after it, it is reported', async () => {
    script(`${own}/callouts/a`, 'case "$*" in *capabilities*) exit 1;; esac; sleep 60');
    await assert.rejects(
      start({limit: 300}),
      (error) => error instanceof PearasysError && error.code === 'command-failed',
    );
    assert.deepEqual(host.machine.mdevs.list(), []);
    script(`${own}/callouts/a`, 'case "$*" in *post*) sleep 60;; *) exit 0;; esac');
    await start({limit: 300});
    assert.equal(host.machine.mdevs.list().length, 1);
    assert.match(notes.at(-1) ?? '', /callouts\/a .* did not end in time/);
  });

  it('one that hangs when asked for its capabilities is skipped and reported', async () => {
    script(`${own}/callouts/a`, 'case "$*" in *capabilities*) sleep 60;; esac; exit 1');
    script(`${own}/callouts/b`, logging);
    await start({limit: 300});
    assert.deepEqual(calls(), ['b: -e pre -a start -s none', 'b: -e post -a start -s success']);
    assert.match(notes[0] ?? '', /^the script \S+callouts\/a is not run: .*did not end in time/);
    await stopMdev(host, uuid, {...options, limit: 300});
    assert.deepEqual(host.machine.mdevs.list(), []);
  });

  it('a list waits only once for one that hangs', async () => {
    script(`${own}/callouts/a`, 'echo x >>../../asked; case "$*" in *capabilities*) sleep 60;; esac; exit 1');
    script(`${own}/callouts/b`, 'case "$*" in *attributes*) printf %s \'[{"a":"1"}]\';; esac');
    const second = {...subject, uuid: parseUuid('93c32df7-d52e-4ec1-9668-1f3c7e4df107')};
    const told = await readMdevAttributes(host, [subject, second], 300, (note) => notes.push(note));
    assert.match(notes.join('\n'), /^the script \S+callouts\/a is not run: .*did not end in time$/);
    assert.deepEqual([...told.values()], [[{name: 'a', value: '1'}], [{name: 'a', value: '1'}]]);
    assert.equal(host.machine.tree.read('/etc/mdevctl.d/asked'), 'x\n');
  });

  it('one that accepted a command need not accept another in the same run', async () => {
    script(`${own}/callouts/a`, `${logging}; [ "$6" = stop ] || exit 2`);
    host.machine.write('/sys/class/mdev_bus/mtty/mdev_supported_types/mtty-1/create', uuid);
    host.machine.tree.file(definitionFile, '{"mdev_type":"mtty-1","start":"auto"}', 0o644);
    await discardMdev(host, uuid, options);
    assert.deepEqual(calls(), [
      'a: -e pre -a stop -s none',
      'a: -e post -a stop -s success',
      'a: -e pre -a undefine -s none',
      'a: -e post -a undefine -s success',
    ]);
    assert.equal(host.exists(definitionFile), false);
    assert.deepEqual(notes, []);
  });

  describe('of a UUID that is defined on two parents', () => {
    const twin = `/etc/mdevctl.d/0000:02:00.0/${uuid}`;
    /** One script for each type. */
    const each = (capabilities: string) => {
      for (const [name, type] of [
        ['a', 'mtty-1'],
        ['b', 'vgpu-1'],
      ] as const)
        script(
          `${own}/callouts/${name}`,
          `[ "$2" = ${type} ] || exit 2; ${capabilities}\necho "\${0##*/}: $2 $4 \${10} \${12}" >>../../log`,
        );
      host.machine.tree.file(definitionFile, '{"mdev_type":"mtty-1","start":"auto"}', 0o644);
      host.machine.tree.file(twin, '{"mdev_type":"vgpu-1","start":"auto"}', 0o644);
    };
    const asked = () =>
      (host.machine.tree.read('/etc/mdevctl.d/log') ?? '')
        .split('\n')
        .filter((line) => / (?:pre|post) /.test(line));
    const both = [
      `b: vgpu-1 pre ${uuid} 0000:02:00.0`,
      `b: vgpu-1 post ${uuid} 0000:02:00.0`,
      `a: mtty-1 pre ${uuid} mtty`,
      `a: mtty-1 post ${uuid} mtty`,
    ];

    for (const [what, capabilities] of [
      ['that know no question for it', ''],
      [
        'that tell what they support',
        'case "$*" in *capabilities*) echo \'{"supports":{"version":2,"actions":["undefine","stop"],"events":["pre","post"]}}\'; exit 0;; esac',
      ],
    ] as const) {
      it(`are those of each type, of scripts ${what}`, async () => {
        each(capabilities);
        await undefineMdev(host, uuid, undefined, options);
        assert.deepEqual(asked(), both);
        assert.deepEqual([host.exists(definitionFile), host.exists(twin)], [false, false]);
      });

      it(`are so too where the device is stopped with it, of scripts ${what}`, async () => {
        each(capabilities);
        host.machine.write('/sys/class/mdev_bus/mtty/mdev_supported_types/mtty-1/create', uuid);
        await discardMdev(host, uuid, options);
        assert.deepEqual(asked(), [`a: mtty-1 pre ${uuid} mtty`, `a: mtty-1 post ${uuid} mtty`, ...both]);
        assert.deepEqual(host.machine.mdevs.list(), []);
      });
    }
  });

  it('are not called for a dry run, or if there is nothing to do', async () => {
    script(`${own}/callouts/a`, logging);
    const {lines} = await start({dryRun: true});
    assert.match(lines[0] ?? '', /-e pre -a start/);
    assert.deepEqual(calls(), []);
    host.machine.write('/sys/class/mdev_bus/mtty/mdev_supported_types/mtty-1/create', uuid);
    await start({mayExist: true});
    assert.deepEqual(calls(), []);
  });

  describe('that tell their version', () => {
    const answering = (events: string, actions: string) =>
      `case "$*" in *capabilities*) cat >../../asked; printf '{"supports":{"version":2,"actions":[${actions}],"events":[${events}]}}\\0'; exit 0;; esac; ${logging}`;

    it('are asked with mdevctl’s arguments, and are then the only ones that are called', async () => {
      script(`${own}/callouts/a`, logging);
      script(`${own}/callouts/b`, answering('"pre","post","live"', '"start","modify"'));
      const callouts = await readCalloutsOf(host, subject, 5000);
      assert.deepEqual(callouts.scripts, [`${own}/callouts/b`]);
      assert.deepEqual(callouts.supports, {
        actions: ['start', 'modify'],
        events: ['pre', 'post', 'live'],
      });
      const {provides} = JSON.parse(host.machine.tree.read('/etc/mdevctl.d/asked') ?? '') as {
        provides: {version: number; actions: string[]; events: string[]};
      };
      assert.equal(provides.version, 2);
      assert.ok(provides.events.includes('live') && provides.actions.includes('capabilities'));
      await start();
      assert.deepEqual(calls(), ['b: -e pre -a start -s none', 'b: -e post -a start -s success']);
      await assert.rejects(stopMdev(host, uuid, options), /does not support stop/);
      assert.equal(host.machine.mdevs.list().length, 1);
    });

    it('can change an existing device, and its definition with it', async () => {
      script(`${own}/callouts/a`, answering('"pre","post","live"', '"modify","define"'));
      host.machine.write('/sys/class/mdev_bus/mtty/mdev_supported_types/mtty-1/create', uuid);
      await defineMdev(host, {uuid, start: 'auto'}, options);
      const config = {...subject, start: 'manual' as const, attributes: [{name: 'x', value: '1'}]};
      await modifyMdevLive(host, uuid, config, options);
      assert.equal(calls().at(-1), 'a: -e live -a modify -s none');
      assert.match(host.readText(definitionFile) ?? '', /"auto"/);
      await modifyMdevLive(host, uuid, config, {...options, defined: true});
      assert.deepEqual(JSON.parse(host.readText(definitionFile) ?? ''), {
        mdev_type: 'mtty-1',
        start: 'manual',
        attrs: [{x: '1'}],
      });
    });

    it('the answer of one that does not handle the type is ignored', async () => {
      script(`${own}/callouts/a`, answering('"pre"', '"start"').replace('exit 0', 'exit 2'));
      script(`${own}/callouts/b`, logging);
      const {scripts, supports} = await readCalloutsOf(host, subject, 5000);
      assert.deepEqual([scripts.length, supports], [2, undefined]);
    });

    it('one that then does not handle the type has failed', async () => {
      script(`${own}/callouts/a`, `${answering('"pre","post","live"', '"start","modify"')}; exit 2`);
      await assert.rejects(start(), /refused to start .* \(exit code 2\)/);
      assert.deepEqual(host.machine.mdevs.list(), []);
      host.machine.write('/sys/class/mdev_bus/mtty/mdev_supported_types/mtty-1/create', uuid);
      const config = {...subject, start: 'manual' as const, attributes: []};
      await assert.rejects(
        modifyMdevLive(host, uuid, config, options),
        /refused to modify .* \(exit code 2\)/,
      );
      script(`${own}/callouts/a`, `${answering('"get","live"', '"modify","attributes"')}; kill -KILL $$`);
      await assert.rejects(modifyMdevLive(host, uuid, config, options), /callouts\/a .* could not be run/);
      const callouts = await readCalloutsOf(host, subject, 5000);
      await assert.rejects(readCalloutAttributes(host, callouts, subject, 5000), /could not be run/);
    });

    it('one that accepted the call before the action fails if it rejects the one after', async () => {
      script(`${own}/callouts/a`, 'case "$*" in *post*) exit 2;; esac');
      await start();
      assert.deepEqual(notes, [`the script ${own}/callouts/a answered 2 to post of start`]);
    });

    it('if it refuses to change the device, the definition stays as well', async () => {
      script(
        `${own}/callouts/a`,
        `${answering('"pre","post","live"', '"modify","define"')}; case "$*" in *live*) exit 1;; esac`,
      );
      host.machine.write('/sys/class/mdev_bus/mtty/mdev_supported_types/mtty-1/create', uuid);
      await defineMdev(host, {uuid, start: 'auto'}, options);
      const before = host.readText(definitionFile);
      const config = {...subject, start: 'manual' as const, attributes: []};
      await assert.rejects(
        modifyMdevLive(host, uuid, config, {...options, defined: true}),
        /refused to modify/,
      );
      assert.equal(host.readText(definitionFile), before);
    });
  });

  describe('the attributes of an existing device', () => {
    const telling = (text: string, status = 0) =>
      script(
        `${own}/callouts/a`,
        `case "$*" in *-e\\ get\\ -a\\ attributes*) printf '%s' '${text}'; exit ${status};; *capabilities*) exit 1;; esac`,
      );
    const read = async () =>
      await readCalloutAttributes(host, await readCalloutsOf(host, subject, 5000), subject, 5000);

    it('are what the script prints, in its order', async () => {
      telling('[{"b":"1"},{"a":"2"},{"b":"3"}]');
      assert.deepEqual(await read(), [
        {name: 'b', value: '1'},
        {name: 'a', value: '2'},
        {name: 'b', value: '3'},
      ]);
    });

    it('are none if it prints nothing, or an empty object', async () => {
      telling('');
      assert.deepEqual(await read(), []);
      telling('[{}]');
      assert.deepEqual(await read(), []);
      telling('', 2);
      assert.deepEqual(await read(), []);
    });

    it('a script that fails or prints nonsense is an error, but not in lists', async () => {
      for (const [text, status] of [
        ['', 1],
        ['nonsense', 0],
      ] as const) {
        telling(text, status);
        await assert.rejects(read(), (error) => error instanceof CommandError);
        const said: string[] = [];
        const told = await readMdevAttributes(host, [subject], 5000, (note) => said.push(note));
        assert.deepEqual([...told], []);
        assert.match(said.join('\n'), new RegExp(`^the attributes of ${uuid} are unknown: .*callouts/a`));
      }
    });

    it('are defined and recorded with it', async () => {
      telling('[{"a":"1"}]');
      host.machine.write('/sys/class/mdev_bus/mtty/mdev_supported_types/mtty-1/create', uuid);
      await recordMdev(host, uuid, options);
      assert.deepEqual(JSON.parse(host.readText(definitionFile) ?? ''), {
        mdev_type: 'mtty-1',
        start: 'manual',
        attrs: [{a: '1'}],
      });
    });

    it('are not asked for if a file contains the definition', async () => {
      telling('[{"a":"1"}]');
      host.machine.write('/sys/class/mdev_bus/mtty/mdev_supported_types/mtty-1/create', uuid);
      const config = {
        type: subject.type,
        start: 'manual' as const,
        attributes: [{name: 'a', value: '1'}],
      };
      await defineMdev(host, {uuid, parent: subject.parent, config, start: 'manual'}, options);
      assert.match(host.readText(definitionFile) ?? '', /"attrs": \[\s+\{\s+"a": "1"\s+\}\s+\]/);
    });

    it('a script that is not run is reported when it would have been asked', async () => {
      telling('[{"a":"1"}]');
      host.machine.owners.set(`${own}/callouts/a`, 1000);
      host.machine.write('/sys/class/mdev_bus/mtty/mdev_supported_types/mtty-1/create', uuid);
      await recordMdev(host, uuid, options);
      assert.match(host.readText(definitionFile) ?? '', /"attrs": \[\]/);
      assert.match(notes.join('\n'), /^the script \S+callouts\/a is not run: .* owned by user 1000/);
      notes = [];
      await readMdevAttributes(host, [subject], 5000, (note) => notes.push(note));
      assert.match(notes.join('\n'), /^the script \S+callouts\/a is not run: .* owned by user 1000/);
    });

    it('a failing script does not stop the recording', async () => {
      telling('', 1);
      host.machine.write('/sys/class/mdev_bus/mtty/mdev_supported_types/mtty-1/create', uuid);
      await recordMdev(host, uuid, options);
      assert.match(host.readText(definitionFile) ?? '', /"attrs": \[\]/);
      assert.match(notes[0] ?? '', /^the attributes of .* were not recorded: /);
    });
  });

  describe('recording', () => {
    it('writes a manual definition once, and changes no definition of the UUID', async () => {
      host.machine.write('/sys/class/mdev_bus/mtty/mdev_supported_types/mtty-1/create', uuid);
      assert.equal((await recordMdev(host, uuid, options)).changed, true);
      assert.match(host.readText(definitionFile) ?? '', /"start": "manual"/);
      assert.equal((await recordMdev(host, uuid, options)).changed, false);
      await host.removeFile(definitionFile);
      for (const [path, text] of [
        [`/etc/mdevctl.d/other/${uuid}`, '{"mdev_type": "x", "start": "auto"}'],
        [`/etc/mdevctl.d/other/${uuid}`, 'broken'],
      ] as const) {
        host.machine.tree.file(path, text, 0o644);
        assert.equal((await recordMdev(host, uuid, options)).changed, false);
        assert.equal(host.exists(definitionFile), false);
      }
    });

    it('of a device that no longer exists does nothing', async () => {
      assert.equal((await recordMdev(host, uuid, options)).changed, false);
      assert.deepEqual(host.effects(), []);
    });
  });
});

/** What is checked before a command must not keep a script from being called that makes it possible. */
describe('checks come after the scripts that may satisfy them', function () {
  this.timeout(20_000);
  let host: SimulatedHost;
  let options: StartOptions & {mayBeGone: boolean};
  const mtty = () => {
    const found = host.machine.declaration.mdevParents.find(({name}) => name === 'mtty');
    assert.ok(found !== undefined);
    return found;
  };

  beforeEach(() => {
    host = SimulatedHost.standard(addParents);
    options = {limit: 5000, patience: 0, dryRun: false, force: false, mayExist: false, mayBeGone: false};
    host.machine.tree.file(`${own}/callouts/a`, `#!/bin/sh\n${logging}\n`, 0o755);
    host.machine.tree.file(`${own}/notifiers/n`, `#!/bin/sh\n${logging}\n`, 0o755);
  });
  afterEach(() => host.dispose());

  /** Does this as the effect of the call of a script with these arguments. */
  const byScript = (words: string, effect: () => void) =>
    host.afterEffect((done) => {
      if (done.kind === 'run' && done.file.endsWith('/callouts/a') && done.args.join(' ').includes(words))
        effect();
    });
  const calls = () =>
    (host.machine.tree.read('/etc/mdevctl.d/log') ?? '')
      .split('\n')
      .map((line) => /^(.): .*-e (\w+) -a (\w+) -s (\w+)/.exec(line))
      .filter((match) => match !== null && match[3] !== 'capabilities')
      .map((match) => match?.slice(1).join(' '));
  const told = (action: string, outcome: string) => [
    `a pre ${action} none`,
    `a post ${action} ${outcome}`,
    `n notify ${action} ${outcome}`,
  ];
  const start = (more: Partial<StartOptions> = {}) => startMdev(host, subject, {...options, ...more});

  for (const [what, prepare, cure] of [
    ['the parent', () => host.machine.mdevs.unregister('mtty'), () => host.machine.mdevs.register(mtty())],
    [
      'the type',
      () => host.machine.tree.remove('/sys/devices/virtual/mtty/mtty/mdev_supported_types/mtty-1'),
      () => host.machine.mdevs.register(mtty()),
    ],
    [
      'a free instance',
      () => {
        for (let at = 0; at < 22; at++)
          host.machine.mdevs.create('/sys/devices/virtual/mtty/mtty', 'mtty-1', uuidOf(at));
      },
      () => host.machine.mdevs.remove(uuidOf(0)),
    ],
    [
      'a free UUID',
      () => host.machine.mdevs.create('/sys/devices/virtual/mtty/mtty', 'mtty-2', uuid),
      () => host.machine.mdevs.remove(uuid),
    ],
  ] as const)
    it(`start: a pre script makes ${what}`, async () => {
      prepare();
      byScript('-e pre -a start', cure);
      await start();
      assert.ok(host.machine.mdevs.list().includes(`${uuid} mtty mtty-1`));
      assert.deepEqual(calls(), told('start', 'success'));
    });

  for (const [what, prepare, code, exitCode] of [
    ['no parent', () => host.machine.mdevs.unregister('mtty'), 'no-parent', 4],
    [
      'a UUID in use',
      () => host.machine.mdevs.create('/sys/devices/virtual/mtty/mtty', 'mtty-2', uuid),
      'uuid-in-use',
      3,
    ],
  ] as const)
    it(`start: scripts hear of the failure where there is ${what} after them`, async () => {
      prepare();
      await assert.rejects(
        start(),
        (error) => error instanceof PearasysError && error.code === code && error.exitCode === exitCode,
      );
      assert.deepEqual(calls(), told('start', 'failure'));
    });

  it('start: without scripts it is refused before any change', async () => {
    host.machine.tree.remove(`${own}/callouts/a`);
    host.machine.tree.remove(`${own}/notifiers/n`);
    host.machine.mdevs.unregister('mtty');
    await assert.rejects(start(), (error) => {
      assert.ok(error instanceof PearasysError && error.code === 'no-parent');
      assert.ok(error.details.includes('nothing was changed'));
      return true;
    });
    assert.deepEqual(host.effects(), []);
  });

  it('start by a unit: a device that a script has created is accepted', async () => {
    byScript('-e pre -a start', () =>
      host.machine.mdevs.create('/sys/devices/virtual/mtty/mtty', 'mtty-1', uuid),
    );
    await start({mayExist: true});
    assert.deepEqual(host.machine.mdevs.list(), [`${uuid} mtty mtty-1`]);
  });

  it('stop: a pre script ends the process that uses the device', async () => {
    await start();
    const group =
      host.machine.tree.resolve(`/sys/bus/mdev/devices/${uuid}/iommu_group`)?.split('/').at(-1) ?? '';
    host.machine.addProcess({pid: 4711, comm: 'qemu', holds: [`/dev/vfio/${group}`]});
    byScript('-e pre -a stop', () => host.machine.signal(4711, 'SIGKILL'));
    await stopMdev(host, uuid, options);
    assert.deepEqual(host.machine.mdevs.list(), []);
    assert.deepEqual(calls().slice(3), told('stop', 'success'));
  });

  it('stop: a device still in use after the script is refused, and the scripts are notified', async () => {
    await start();
    const group =
      host.machine.tree.resolve(`/sys/bus/mdev/devices/${uuid}/iommu_group`)?.split('/').at(-1) ?? '';
    host.machine.addProcess({pid: 4711, comm: 'qemu', holds: [`/dev/vfio/${group}`]});
    await assert.rejects(stopMdev(host, uuid, options), (error) => {
      assert.ok(error instanceof PearasysError && error.code === 'in-use' && error.exitCode === 3);
      assert.match(error.details.join('\n'), /4711/);
      return true;
    });
    assert.deepEqual(calls().slice(3), told('stop', 'failure'));
    assert.equal(host.machine.mdevs.list().length, 1);
  });

  it('define: the attributes are asked for after pre, and a failure is reported', async () => {
    await start();
    host.machine.tree.file(
      `${own}/callouts/a`,
      `#!/bin/sh\n${logging}\ncase "$*" in *pre*) echo >../../ready;; *attributes*) [ -e ../../ready ] || exit 1; echo '[{"x":"1"}]';; esac\n`,
      0o755,
    );
    await defineMdev(host, {...subject, start: 'manual'}, options);
    assert.match(host.readText(definitionFile) ?? '', /"x": "1"/);
    assert.deepEqual(calls().slice(3), [
      'a pre define none',
      'a get attributes none',
      'a post define success',
      'n notify define success',
    ]);
    host.machine.tree.remove(definitionFile);
    host.machine.tree.file(
      `${own}/callouts/a`,
      `#!/bin/sh\n${logging}\ncase "$*" in *attributes*) exit 1;; esac\n`,
      0o755,
    );
    await assert.rejects(defineMdev(host, {...subject, start: 'manual'}, options), /exit code 1/);
    assert.deepEqual(calls().slice(7), [
      'a pre define none',
      'a get attributes none',
      'a post define failure',
      'n notify define failure',
    ]);
    assert.equal(host.readText(definitionFile), undefined);
  });

  for (const action of ['start', 'define', 'stop'] as const)
    it(`notifiers hear of ${action} where a versioned script does not support it`, async () => {
      if (action === 'stop') host.machine.mdevs.create('/sys/devices/virtual/mtty/mtty', 'mtty-1', uuid);
      host.machine.tree.file(
        `${own}/callouts/a`,
        `#!/bin/sh\ncase "$*" in *capabilities*) echo '{"supports":{"version":2,"actions":["modify"],"events":["pre","post"]}}';; esac\n`,
        0o755,
      );
      const work = () =>
        action === 'start'
          ? start()
          : action === 'define'
            ? defineMdev(host, {...subject, start: 'manual'}, options)
            : stopMdev(host, uuid, options);
      await assert.rejects(work(), /does not support/);
      assert.deepEqual(calls(), [`n notify ${action} none`]);
    });
});

function uuidOf(at: number): string {
  return `00000000-0000-4000-8000-${String(at).padStart(12, '0')}`;
}
