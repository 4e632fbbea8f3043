import assert from 'node:assert/strict';
import {spawnSync} from 'node:child_process';
import {copyFileSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {jsonText, typesJson} from '../../src/entry/mdevctl/format.js';
import {mdevctl} from '../../src/entry/mdevctl/drop-in.js';
import {parseParentName} from '../../src/devices/mdev/mdev-name.js';
import {asUuid} from '../../src/devices/mdev/uuid.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {addParents} from '../simulated-host/standard-machine.js';
import type {Run} from './runs.js';

const one = '11111111-1111-4111-8111-111111111111';
const two = '22222222-2222-4222-8222-222222222222';
const three = '33333333-3333-4333-8333-333333333333';

/** Runs words as mdevctl, or as the program that the first of them names. */
async function runWords(host: SimulatedHost, words: readonly string[], name = 'mdevctl'): Promise<Run> {
  let [stdout, stderr] = ['', ''];
  const output = (write: (text: string) => void) => ({isTerminal: false, columns: 80, write});
  const exitCode = await mdevctl(name, words, {
    host,
    stdout: output((text) => (stdout += text)),
    stderr: output((text) => (stderr += text)),
  });
  return {exitCode, stdout, stderr};
}

/** The standard output is that of Debian's mdevctl 1.2.0-3. */
describe('mdevctl 1.2', () => {
  let host: SimulatedHost;
  let folder: string;
  beforeEach(() => {
    host = SimulatedHost.standard((machine) => {
      addParents(machine);
      machine.mdevs = {[one]: 'mtty/mtty-1'};
    });
    folder = mkdtempSync(join(tmpdir(), 'pearasys-mdevctl-'));
  });
  afterEach(() => {
    host.dispose();
    rmSync(folder, {recursive: true});
  });

  const typed = (line: string) => runWords(host, line.split(' '));
  const said = (stdout: string): Run => ({exitCode: 0, stdout, stderr: ''});
  const failed = (...lines: string[]): Run => ({
    exitCode: 1,
    stdout: '',
    stderr: `Error: ${lines.join('\n')}\n`,
  });
  const unchanged = '  nothing was changed';
  const wrong = (message: string, usage: string): Run => ({
    exitCode: 2,
    stdout: '',
    stderr: `error: ${message}\nusage: mdevctl ${usage}\ntry: mdevctl${usage.startsWith('<') ? '' : ` ${usage.split(' ')[0] ?? ''}`} --help\n`,
  });
  const file = (parent: string, uuid: string) => host.machine.tree.read(`/etc/mdevctl.d/${parent}/${uuid}`);
  const jsonFile = (text: string) => {
    const path = join(folder, 'config.json');
    writeFileSync(path, text);
    return path;
  };

  describe('the options of mdevctl 1.3 and later', () => {
    const script = (name: string, body: string) =>
      host.machine.tree.file(`/etc/mdevctl.d/scripts.d/callouts/${name}`, `#!/bin/sh\n${body}\n`, 0o755);
    const live = `case "$*" in
*capabilities*) echo '{"supports":{"version":2,"actions":["modify","define","capabilities","attributes"],"events":["live","pre","post","get"]}}';;
*'-e live'*) cat >../../live;;
*'-e get'*) echo '[{"x":"script"}]';;
esac`;

    it('libvirt’s check for live updates gets 0 and the help', async () => {
      const {exitCode, stdout, stderr} = await typed('modify --defined --live --jsonfile b --help');
      assert.deepEqual([exitCode, stderr], [0, '']);
      assert.match(stdout, /--live/);
    });

    it('modify --jsonfile replaces type, start and attributes of a definition', async () => {
      await typed(`define -u ${two} -p mtty -t mtty-1`);
      const path = jsonFile('{"mdev_type":"mtty-2","start":"auto","attrs":[{"a":"1"}]}');
      for (const line of [
        `modify -u ${two} -p mtty --jsonfile ${path}`,
        `modify --defined -u ${two} --jsonfile ${path}`,
      ])
        assert.deepEqual(await typed(line), said(''));
      assert.match(
        file('mtty', two) ?? '',
        /"mtty-2",\n {2}"start": "auto",\n {2}"attrs": \[\n {4}\{\n {6}"a": "1"/,
      );
    });

    it('modify --live changes the device, --defined its definition too', async () => {
      script('a', live);
      await typed(`define -u ${one}`);
      const path = jsonFile('{"mdev_type":"mtty-1","start":"manual","attrs":[{"y":"2"}]}');
      const before = file('mtty', one);
      assert.deepEqual(await typed(`modify --live -u ${one} -p mtty --jsonfile ${path}`), said(''));
      assert.match(host.machine.tree.read('/etc/mdevctl.d/live') ?? '', /"y":"2"/);
      assert.equal(file('mtty', one), before);
      assert.deepEqual(await typed(`modify --live --defined -u ${one} -p mtty --jsonfile ${path}`), said(''));
      assert.match(file('mtty', one) ?? '', /"y": "2"/);
    });

    it('conflicting options are wrong usage; a live update of a missing device fails', async () => {
      const path = jsonFile('{"mdev_type":"mtty-1","start":"manual"}');
      for (const line of [
        '--live',
        `--jsonfile ${path} --auto`,
        `--jsonfile ${path} -t x`,
        `--live --jsonfile ${path} -m`,
      ])
        assert.equal((await typed(`modify -u ${one} ${line}`)).exitCode, 2, line);
      assert.equal((await typed(`modify --live -u ${two} --jsonfile ${path}`)).exitCode, 1);
    });

    it('--force continues if a script refuses', async () => {
      script('a', 'exit 1');
      for (const line of [
        `define -u ${two} -p mtty -t mtty-1`,
        `start -u ${two}`,
        `modify -u ${two} -a`,
        `stop -u ${two}`,
        `undefine -u ${two}`,
      ]) {
        assert.equal((await typed(line)).exitCode, 1, line);
        assert.equal((await typed(`${line} --force`)).exitCode, 0, line);
      }
    });

    it('list shows the attributes of a device from the script, otherwise those of its definition', async () => {
      host.machine.tree.file(
        `/etc/mdevctl.d/mtty/${one}`,
        '{"mdev_type":"mtty-1","start":"manual","attrs":[{"x":"file"}]}',
        0o644,
      );
      assert.match((await typed('list -v')).stdout, /@\{0\}: \{"x":"file"\}/);
      script('a', live);
      assert.match((await typed('list -v')).stdout, /@\{0\}: \{"x":"script"\}/);
      assert.match((await typed('list --dumpjson')).stdout, /"x": "script"/);
      assert.match((await typed('list -dv')).stdout, /@\{0\}: \{"x":"file"\}/);
    });

    it('MDEVCTL_LOG sets the level of messages', async () => {
      host.machine.tree.file('/etc/mdevctl.d/mtty/notes', 'x', 0o644);
      const told = async (setting: string | undefined, line: string) => {
        let stderr = '';
        await mdevctl('mdevctl', line.split(' '), {
          host,
          environment: {MDEVCTL_LOG: setting},
          stdout: {isTerminal: false, columns: 80, write: () => undefined},
          stderr: {isTerminal: false, columns: 80, write: (text) => (stderr += text)},
        });
        return stderr;
      };
      for (const setting of [undefined, 'warn', 'info', 'nonsense'])
        assert.match(await told(setting, 'list -d'), /^WARN: .*notes/);
      for (const setting of ['off', 'error', 'mdevctl=error'])
        assert.equal(await told(setting, 'list -d'), '');
      assert.match(await told('debug', `start -u ${two} -p mtty -t mtty-1`), /^DEBUG: echo '2222/m);
    });
  });

  describe('types', () => {
    const types = '/sys/devices/virtual/mtty/mtty/mdev_supported_types';

    it('with -1 available instances can be started', async () => {
      host.machine.tree.file(`${types}/mtty-1/available_instances`, '-1\n');
      assert.match((await typed('types -p mtty')).stdout, /Available instances: -1\n/);
      assert.match((await typed('types -p mtty --dumpjson')).stdout, /"available_instances": -1,/);
      assert.equal((await typed(`start -u ${two} -p mtty -t mtty-1`)).exitCode, 0);
    });

    it('without device_api are listed, and can be started', async () => {
      host.machine.tree.remove(`${types}/mtty-1/device_api`);
      assert.match(
        (await typed('types -p mtty')).stdout,
        / {2}mtty-1\n {4}Available instances: 21\n {4}Device API: \n/,
      );
      assert.match((await typed('types -p mtty --dumpjson')).stdout, /"device_api": null/);
      assert.equal((await typed(`start -u ${two} -p mtty -t mtty-1`)).exitCode, 0);
    });

    it('with an empty name are defined and listed, but not started', async () => {
      assert.deepEqual(await runWords(host, ['define', '-u', two, '-p', 'mtty', '-t', '']), said(''));
      assert.deepEqual(await typed(`list -d -u ${two}`), said(`${two} mtty  manual\n\n`));
      assert.equal((await typed(`start -u ${two}`)).exitCode, 1);
    });

    it('JSON has parents in the order of their bytes, also if they are numbers', () => {
      const parent = (name: string) => ({
        name: parseParentName(name),
        slot: undefined,
        registered: true,
        types: [],
      });
      assert.equal(
        jsonText(typesJson(['!', '+', '10', '9', 'a'].map(parent))),
        '[\n  {\n    "!": [],\n    "+": [],\n    "10": [],\n    "9": [],\n    "a": []\n  }\n]',
      );
      assert.equal(
        jsonText({a: [], b: {}, c: [1, {d: null}], e: 'x"'}),
        JSON.stringify({a: [], b: {}, c: [1, {d: null}], e: 'x"'}, null, 2),
      );
    });
  });

  it('a parent’s name is used as typed: a folder in another case is created and listed', async () => {
    assert.equal((await typed(`define -u ${two} -p 0000:02:00.A -t t`)).exitCode, 0);
    assert.equal((await typed(`define -u ${two} -p 0000:02:00.a -t t`)).exitCode, 0);
    assert.equal(
      (await typed(`list -d -u ${two}`)).stdout,
      `${two} 0000:02:00.A t manual\n${two} 0000:02:00.a t manual\n\n`,
    );
    assert.deepEqual(
      await typed(`start -u ${three} -p MTTY -t mtty-1`),
      failed(
        'there is no parent MTTY',
        unchanged,
        'try: `pearasys mdev types` shows the parents; the nearest is mtty',
      ),
    );
  });

  describe('its command line', () => {
    const programHelp = [
      'mdevctl 1.2.0',
      'A mediated device management utility for Linux',
      '',
      'USAGE:',
      '    mdevctl <SUBCOMMAND>',
      '',
      'OPTIONS:',
      '    -h, --help       Print help information',
      '    -V, --version    Print version information',
      '',
      'SUBCOMMANDS:',
      '    define      Define a persistent mediated device',
      '    help        Print this message or the help of the given subcommand(s)',
      '    list        List mediated devices',
      '    modify      Modify the definition of a mediated device',
      '    start       Start a mediated device',
      '    stop        Stop a mediated device',
      '    types       List available mediated device types',
      '    undefine    Undefine a persistent mediated device',
      '',
    ].join('\n');

    it('help: on standard output on request, otherwise on standard error with 2', async () => {
      for (const line of ['--help', '-h', 'help', '-hV'])
        assert.deepEqual(await typed(line), said(programHelp));
      assert.deepEqual(await runWords(host, []), {exitCode: 2, stdout: '', stderr: programHelp});
    });

    it('help on a command: -h in short, --help and `help` in full', async () => {
      assert.deepEqual(
        await typed('modify -h'),
        said(
          [
            'mdevctl-modify ',
            'Modify the definition of a mediated device',
            '',
            'USAGE:',
            '    mdevctl modify [OPTIONS] --uuid <UUID>',
            '',
            'OPTIONS:',
            '    -a, --auto                   Device will be started automatically',
            '        --addattr <attr_name>    add a new attribute',
            '    -d, --defined                Modify the stored device definition',
            '        --delattr                Delete an attribute',
            '    -f, --force                  Force command execution even if device-specific callout script fails',
            '    -h, --help                   Print help information',
            '    -i, --index <INDEX>          Index of the attribute to modify',
            '        --jsonfile <JSONFILE>    Specify device details in JSON format',
            '    -l, --live                   Modify the running device definition only unless used together with defined option',
            '    -m, --manual                 Device must be started manually',
            '    -p, --parent <PARENT>        Parent of the mdev to modify',
            '    -t, --type <type>            Modify the mdev type for this device',
            '    -u, --uuid <UUID>            UUID of the mdev to modify',
            '        --value <attr_value>     Value for the attribute specified by --addattr',
            '',
          ].join('\n'),
        ),
      );
      const full = [
        'mdevctl-types ',
        'List available mediated device types',
        '',
        "Specifying a 'parent' lists only the types provided by the given parent device. The 'dumpjson'",
        'option provides output in machine readable JSON format.',
        '',
        'USAGE:',
        '    mdevctl types [OPTIONS]',
        '',
        'OPTIONS:',
        '        --dumpjson',
        '            Output mdev types list in JSON format',
        '',
        '    -h, --help',
        '            Print help information',
        '',
        '    -p, --parent <PARENT>',
        '            Show supported types for the specified parent',
        '',
      ].join('\n');
      assert.deepEqual(await typed('types --help'), said(full));
      assert.deepEqual(await typed('help types'), said(full));
    });

    it('versions', async () => {
      assert.deepEqual(await typed('--version'), said('mdevctl 1.2.0\n'));
      assert.deepEqual(await typed('list -dV'), said('mdevctl-list 1.2.0\n'));
      assert.deepEqual(await runWords(host, ['-V'], 'lsmdev'), said('lsmdev 1.2.0\n'));
    });

    it('a wrong command line has exit code 2, and says what is wrong', async () => {
      const modify = 'modify [OPTIONS] --uuid <UUID>';
      for (const [line, message, usage] of [
        ['list x', "unexpected argument 'x'", 'list [OPTIONS]'],
        ['list --foo', "unknown option '--foo'", 'list [OPTIONS]'],
        ['list --verbos', "unknown option '--verbos'", 'list [OPTIONS]'],
        ['list -vz', "unknown option '-z'", 'list [OPTIONS]'],
        [`modify -u ${one} --zzzzzz`, "unknown option '--zzzzzz'", modify],
        ['define', '--uuid or --parent is missing', 'define [OPTIONS]'],
        ['define -a', '--uuid or --parent is missing', 'define [OPTIONS]'],
        ['undefine', '--uuid is missing', 'undefine [OPTIONS] --uuid <UUID>'],
        ['stop', '--uuid is missing', 'stop [OPTIONS] --uuid <UUID>'],
        ['start-parent-mdevs', 'PARENT is missing', 'start-parent-mdevs <PARENT>'],
        ['start-parent-mdevs a b', "unexpected argument 'b'", 'start-parent-mdevs <PARENT>'],
        [`modify -u ${one} --addattr d`, '--addattr needs --value', modify],
        [`define -u ${one} --jsonfile a -a`, '--jsonfile cannot be used with --auto', 'define [OPTIONS]'],
        [`modify -u ${one} -m -a`, '--manual cannot be used with --auto', modify],
        ['types -p', '--parent needs a value: --parent <PARENT>', 'types [OPTIONS]'],
        ['types -p --dumpjson', '--parent needs a value: --parent <PARENT>', 'types [OPTIONS]'],
        ['types --dumpjson=1', '--dumpjson takes no value', 'types [OPTIONS]'],
        ['list -d -d', '--defined is given twice', 'list [OPTIONS]'],
        ['list -u xx', "--uuid: 'xx' is not a UUID", 'list [OPTIONS]'],
        [
          'list -u 11111111-1111-4111-8111',
          "--uuid: '11111111-1111-4111-8111' is not a UUID",
          'list [OPTIONS]',
        ],
        [`modify -u ${one} -i x`, "--index: 'x' is not a whole number of 0 or more", modify],
        ['help foo', "unknown command 'foo'", '<SUBCOMMAND>'],
        ['undef', "unknown command 'undef'", '<SUBCOMMAND>'],
        ['-x', "unknown option '-x'", '<SUBCOMMAND>'],
      ] as const)
        assert.deepEqual(await typed(line), wrong(message, usage), line);
      assert.deepEqual(host.effects(), []);
    });

    it('a UUID in each form, and values in the same word as their options', async () => {
      const line = said(`${one} mtty mtty-1 manual\n\n`);
      for (const words of [
        `list -u${one}`,
        `list --uuid=${one}`,
        `list -u={${one}}`,
        `list -vu urn:uuid:${one.toUpperCase()}`,
        `list --uuid ${one.replaceAll('-', '')} --`,
      ])
        assert.deepEqual(await typed(words), line, words);
    });
  });

  it('list and lsmdev: text ends with an empty line', async () => {
    assert.deepEqual(await typed('list'), said(`${one} mtty mtty-1 manual\n\n`));
    assert.deepEqual(await runWords(host, ['-p', 'mtty'], 'lsmdev'), said(`${one} mtty mtty-1 manual\n\n`));
    assert.deepEqual(await typed('list -d'), said('\n'));
    assert.deepEqual(await typed('list -d --dumpjson'), said('[]\n'));
    assert.deepEqual(await typed('list -p nosuch'), said('\n'));
    assert.deepEqual(
      await typed(`list -u ${one} --dumpjson`),
      said('{\n  "mdev_type": "mtty-1",\n  "start": "manual",\n  "attrs": []\n}\n'),
    );
    assert.deepEqual(JSON.parse((await typed('list --dumpjson')).stdout), [
      {mtty: [{[one]: {mdev_type: 'mtty-1', start: 'manual', attrs: []}}]},
    ]);
  });

  it('list: reports scripts that are not run on standard error', async () => {
    host.machine.tree.file('/etc/mdevctl.d/scripts.d/callouts/a', '#!/bin/sh\n', 0o775);
    const {exitCode, stdout, stderr} = await typed('list -v');
    assert.deepEqual([exitCode, stdout], [0, `${one} mtty mtty-1 manual\n\n`]);
    assert.match(stderr, /callouts\/a is not run: .* is writable by others/);
  });

  it('list shows the attributes of the definition for a defined device', async () => {
    await typed(`define -u ${one} -a`);
    await typed(`modify -u ${one} --addattr b --value 2`);
    assert.deepEqual(
      await typed('list -v'),
      said(`${one} mtty mtty-1 auto (defined)\n  Attrs:\n    @{0}: {"b":"2"}\n\n`),
    );
    assert.deepEqual(
      await typed('list -dv'),
      said(`${one} mtty mtty-1 auto (active)\n  Attrs:\n    @{0}: {"b":"2"}\n\n`),
    );
  });

  it('types', async () => {
    assert.deepEqual(
      await typed('types -p mtty'),
      said(
        'mtty\n  mtty-1\n    Available instances: 21\n    Device API: vfio-pci\n    Name: Single port serial\n' +
          '  mtty-2\n    Available instances: 10\n    Device API: vfio-pci\n    Name: Dual port serial\n\n',
      ),
    );
    assert.deepEqual(await typed('types -p nosuch'), said('\n'));
    assert.deepEqual(await typed('types -p nosuch --dumpjson'), said('[]\n'));
  });

  it('define', async () => {
    assert.deepEqual(await typed(`define -u ${one}`), said(''));
    assert.equal(file('mtty', one), '{\n  "mdev_type": "mtty-1",\n  "start": "manual",\n  "attrs": []\n}');
    assert.deepEqual(
      await typed(`define -u ${one} -p mtty`),
      failed(
        `${one} is already defined on mtty`,
        unchanged,
        `try: pearasys mdev modify -u ${one} -p mtty changes it, undefine removes it`,
      ),
    );
    assert.deepEqual(await typed(`define -u ${one} -p absent`), said(''));
    const noParent = failed('no parent was named', 'try: --parent NAME; `pearasys mdev types` shows them');
    assert.deepEqual(await typed(`define -u ${one} -t mtty-2`), noParent);
    assert.deepEqual(await typed(`define -u ${two}`), noParent);
    assert.deepEqual(
      await typed(`define -u ${two} -p mtty`),
      failed('no type was named', 'try: --type NAME; `pearasys mdev types` shows them'),
    );
    const {stdout, exitCode} = await typed('define -p nosuch -t anything -a');
    assert.deepEqual([exitCode, asUuid(stdout.trimEnd())], [0, stdout.trimEnd()]);
    const path = jsonFile(
      '{"start": "auto", "mdev_type": "mtty-1", "x": 1, "attrs": [{"b": "1"}, {"a": "2"}]}',
    );
    assert.deepEqual(await typed(`define -u ${three} -p mtty --jsonfile ${path}`), said(''));
    assert.deepEqual(JSON.parse(file('mtty', three) ?? ''), {
      mdev_type: 'mtty-1',
      start: 'auto',
      attrs: [{b: '1'}, {a: '2'}],
    });
    assert.deepEqual(
      await typed(`define -u ${three} -p mtty --jsonfile ${path}`),
      failed(
        `${three} is already defined on mtty`,
        unchanged,
        `try: pearasys mdev modify -u ${three} -p mtty changes it, undefine removes it`,
      ),
    );
    assert.deepEqual(
      await typed(`define -p mtty --jsonfile ${folder}/missing`),
      failed(
        `reading ${folder}/missing failed: ENOENT (no such file: the attribute, the driver or the device does not exist)`,
      ),
    );
    assert.deepEqual(
      await typed(`define -u ${two} --jsonfile ${path}`),
      failed('no parent was named', 'try: --parent NAME together with --jsonfile'),
    );
    assert.equal((await typed(`define -u ${two} -p ../x -t y`)).exitCode, 1);
  });

  it('modify', async () => {
    await typed(`define -u ${two} -p mtty -t mtty-1`);
    for (const [line, attrs] of [
      ['--addattr a --value 1', ['a']],
      ['--addattr=b --value=2 -i 0', ['b', 'a']],
      ['--addattr c --value 3', ['b', 'a', 'c']],
      ['--delattr -i 1', ['b', 'c']],
      ['--delattr', ['b']],
      ['--addattr ../../x --value 1', ['b', '../../x']],
    ] as const) {
      assert.deepEqual(await typed(`modify -u ${two} ${line}`), said(''), line);
      const config = JSON.parse(file('mtty', two) ?? '') as {attrs: object[]};
      assert.deepEqual(
        config.attrs.map((each) => Object.keys(each)[0]),
        attrs,
      );
    }
    assert.deepEqual(
      await typed(`modify -u ${two} --delattr -i 7`),
      failed('there is no attribute 7', 'try: 0: b=2, 1: ../../x=1'),
    );
    assert.deepEqual(await typed(`modify -u ${two} -t other -a`), said(''));
    assert.match(file('mtty', two) ?? '', /"mdev_type": "other",\n {2}"start": "auto"/);
    const list = 'try: `pearasys mdev list --defined` lists the definitions';
    assert.deepEqual(
      await typed(`modify -u ${three} -a`),
      failed(`${three} is not defined`, unchanged, list),
    );
    assert.deepEqual(
      await typed(`modify -u ${three} -p mtty -a`),
      failed(`${three} is not defined on mtty`, unchanged, list),
    );
    await typed(`define -u ${two} -p absent -t x`);
    assert.deepEqual(
      await typed(`modify -u ${two} -a`),
      failed(`${two} is defined on several parents: absent, mtty`, 'try: --parent absent, or --parent mtty'),
    );
  });

  it('undefine removes all, or that of one parent', async () => {
    await typed(`define -u ${two} -p mtty -t mtty-1`);
    await typed(`define -u ${two} -p absent -t mtty-1`);
    await typed(`define -u ${two} -p third -t mtty-1`);
    assert.deepEqual(await typed(`undefine -u ${two} -p absent`), said(''));
    assert.deepEqual(
      ['mtty', 'absent', 'third'].map((parent) => file(parent, two) !== undefined),
      [true, false, true],
    );
    assert.deepEqual(await typed(`undefine -u ${two}`), said(''));
    assert.deepEqual(
      await typed(`undefine -u ${two}`),
      failed(`${two} is not defined`, unchanged, 'try: `pearasys mdev list --defined` lists the definitions'),
    );
    // Its folder stays, as mdevctl leaves it.
    assert.equal(host.exists('/etc/mdevctl.d/absent'), true);
  });

  it('start', async () => {
    for (const [line, message] of [
      [`-u ${one} -p mtty -t mtty-1`, `device ${one} already exists, of type mtty-1 on mtty`],
      [`-u ${one} -p mtty -t mtty-2`, `device ${one} already exists, of type mtty-1 on mtty`],
      [`-u ${one} -p 0000:02:00.0 -t vgpu-1`, `device ${one} already exists, of type mtty-1 on mtty`],
      [`-u ${two}`, `${two} is not defined, and neither its parent nor its type was named`],
      [`-u ${two} -p mtty`, `${two} is not defined on mtty, and its type was not named`],
      [`-u ${two} -t mtty-1`, `${two} is not defined, and its parent was not named`],
      [`-u ${two} -p mtty -t nosuch`, 'the parent mtty has no type nosuch'],
      [`-u ${two} -p nosuch -t mtty-1`, 'there is no parent nosuch'],
      [`-u ${two} -p MTTY -t mtty-1`, 'there is no parent MTTY'],
    ] as const) {
      const {exitCode, stdout, stderr} = await typed(`start ${line}`);
      assert.deepEqual([exitCode, stdout, stderr.split('\n')[0]], [1, '', `Error: ${message}`], line);
    }
    assert.deepEqual(await typed(`start -u ${two} -p 0000:02:00.0 -t vgpu-2`), said(''));
    assert.deepEqual(
      await typed(`start -u ${three} -p 0000:02:00.0 -t vgpu-1`),
      failed(
        'the parent 0000:02:00.0 has no instances of vgpu-1 left',
        '  no instances of any other type either',
        unchanged,
        'try: stop a device that is not needed: `pearasys mdev list` lists them',
      ),
    );
    const {stdout} = await typed('start -p mtty -t mtty-2');
    assert.deepEqual(
      host.machine.mdevs.list(),
      [`${one} mtty mtty-1`, `${two} 0000:02:00.0 vgpu-2`, `${stdout.trimEnd()} mtty mtty-2`].sort(),
    );
  });

  it('start of definitions', async () => {
    await typed(`define -u ${two} -p mtty -t mtty-2`);
    assert.deepEqual(
      await typed(`start -u ${two} -t mtty-1`),
      failed(
        `${two} is defined on mtty as mtty-2, not as mtty-1`,
        unchanged,
        `try: pearasys mdev start -u ${two} -p mtty starts it as it is defined`,
      ),
    );
    await typed(`define -u ${two} -p absent -t x`);
    assert.deepEqual(
      await typed(`start -u ${two}`),
      failed(`${two} is defined on several parents: absent, mtty`, 'try: --parent absent, or --parent mtty'),
    );
    assert.deepEqual(await typed(`start -u ${two} -p mtty`), said(''));
  });

  it('start with attributes: a failing one undoes the creation', async () => {
    for (const [attribute, message] of [
      [
        '"frame_rate": "fast"',
        `writing 'fast' to /sys/bus/mdev/devices/${two}/frame_rate failed: EINVAL (the kernel does not accept this value)`,
      ],
      [
        '"nosuch": "1"',
        `writing '1' to /sys/bus/mdev/devices/${two}/nosuch failed: ENOENT (no such file: the attribute, the driver or the device does not exist)`,
      ],
      ['"../../../x": "1"', `${two} was not started: '../../../x' is not the name of an attribute`],
    ] as const) {
      const path = jsonFile(`{"mdev_type": "vgpu-1", "start": "manual", "attrs": [{${attribute}}]}`);
      const {exitCode, stdout, stderr} = await typed(`start -u ${two} -p 0000:02:00.0 --jsonfile ${path}`);
      assert.deepEqual([exitCode, stdout, stderr.split('\n')[0]], [1, '', `Error: ${message}`]);
      assert.deepEqual(host.machine.mdevs.list(), [`${one} mtty mtty-1`]);
    }
    host.failWrite('*/mtty-1/create', 'ENOSPC');
    const {exitCode, stdout, stderr} = await typed(`start -u ${two} -p mtty -t mtty-1`);
    assert.deepEqual([exitCode, stdout], [1, '']);
    assert.match(stderr, new RegExp(`^Error: writing '${two}' to \\S+/mtty-1/create failed: ENOSPC`));
  });

  it('stop: names the process using the device, and does not hang', async () => {
    host.machine.addProcess({pid: 812, comm: 'qemu', holds: ['/dev/vfio/100']});
    assert.deepEqual(
      await typed(`stop -u ${one}`),
      failed(
        `${one} on mtty is in use`,
        '  process 812 (qemu) has /dev/vfio/100 open',
        unchanged,
        'try: kill 812',
      ),
    );
    host.machine.endProcess(812);
    assert.deepEqual(await typed(`stop -u ${one}`), said(''));
    assert.deepEqual(
      await typed(`stop -u ${one}`),
      failed(
        `there is no mediated device ${one}`,
        unchanged,
        'try: `pearasys mdev list` lists the existing devices',
      ),
    );
  });

  it('start-parent-mdevs, which its own udev rule calls: if one fails, the others are started', async () => {
    await typed(`define -u ${two} -p mtty -t mtty-1 -a`);
    await typed(`define -u ${three} -p mtty -t mtty-2`);
    await typed(`define -u ${one} -a`);
    assert.deepEqual(await typed('start-parent-mdevs mtty'), {
      exitCode: 0,
      stdout: '',
      stderr: `WARN: device ${one} already exists, of type mtty-1 on mtty\n${unchanged}\ntry: use the existing device, or first run pearasys mdev stop -u ${one}; a UUID can be used only once per machine\n`,
    });
    assert.deepEqual(host.machine.mdevs.list(), [`${one} mtty mtty-1`, `${two} mtty mtty-1`]);
    assert.deepEqual(await typed('start-parent-mdevs nosuch'), said(''));
  });

  it('a broken definition is an error, is named, and is not changed', async () => {
    host.machine.tree.file(`/etc/mdevctl.d/mtty/${two}`, 'broken', 0o644);
    for (const line of ['list -d', `undefine -u ${two}`, `modify -u ${two} -a`, 'start-parent-mdevs mtty']) {
      const {exitCode, stdout, stderr} = await typed(line);
      assert.deepEqual([exitCode, stdout], [1, ''], line);
      assert.ok(
        stderr.startsWith(`Error: the definition /etc/mdevctl.d/mtty/${two} is broken: it is not JSON`),
        stderr,
      );
    }
    assert.equal(file('mtty', two), 'broken');
    assert.deepEqual(await typed('list'), said(`${one} mtty mtty-1 manual\n\n`));
    assert.deepEqual(await typed(`list -d -u ${one}`), said('\n'));
  });

  it('without root changes nothing, and says so', async () => {
    host.userId = 1000;
    assert.deepEqual(
      await typed(`start -u ${two} -p mtty -t mtty-1`),
      failed('changing a device needs root', unchanged),
    );
    assert.deepEqual(
      await typed(`define -u ${two} -p mtty -t mtty-1`),
      failed('changing a device needs root', unchanged),
    );
  });
});

describe('mdevctl, built', () => {
  const repository = join(import.meta.dirname, '../..');

  it('is called by its own names through the launcher, and loads no oclif', () => {
    for (const name of ['mdevctl', 'lsmdev']) {
      const {stdout, status} = spawnSync(join(repository, 'sbin', name), ['--version'], {encoding: 'utf8'});
      assert.deepEqual([status, stdout], [0, `${name} 1.2.0\n`]);
    }
    assert.doesNotMatch(readFileSync(join(repository, 'dist/mdevctl.cjs'), 'latin1'), /@oclif|oclif\/core/);
  });

  describe('make install-mdevctl', () => {
    let folder: string;
    beforeEach(() => {
      folder = mkdtempSync(join(tmpdir(), 'pearasys-install-'));
      const sbin = join(folder, 'usr/local/sbin');
      spawnSync('mkdir', ['-p', sbin]);
      copyFileSync(join(repository, 'sbin/pearasys'), join(sbin, 'pearasys'));
    });
    afterEach(() => rmSync(folder, {recursive: true}));

    const make = (...goals: string[]) =>
      spawnSync('make', ['-C', repository, '--no-print-directory', `DESTDIR=${folder}`, ...goals], {
        encoding: 'utf8',
        // The outer make's settings are none of this one's.
        env: {PATH: process.env['PATH']},
      });
    const installed = (name: string) =>
      spawnSync('readlink', [join(folder, 'usr/local/sbin', name)], {encoding: 'utf8'}).stdout.trimEnd();

    it('puts both names next to pearasys, also a second time, and uninstall removes them', () => {
      for (let time = 0; time < 2; time++) assert.equal(make('install-mdevctl').status, 0);
      assert.deepEqual([installed('mdevctl'), installed('lsmdev')], ['pearasys', 'pearasys']);
      assert.equal(make('uninstall').status, 0);
      assert.deepEqual([installed('mdevctl'), installed('lsmdev')], ['', '']);
    });

    it('does not touch files of others', () => {
      symlinkSync('/usr/bin/true', join(folder, 'usr/local/sbin/lsmdev'));
      const {status, stderr} = make('install-mdevctl');
      assert.notEqual(status, 0);
      assert.match(stderr, /sbin\/lsmdev already exists and was not installed by pearasys/);
      assert.deepEqual([installed('mdevctl'), installed('lsmdev')], ['', '/usr/bin/true']);
      make('uninstall');
      assert.equal(installed('lsmdev'), '/usr/bin/true');
    });
  });
});
