/**
 * Compares our mdevctl with the real one, Debian's mdevctl 1.2, over random command lines:
 *
 *     sudo node --import tsx test/compare/mdevctl.ts [--count 2000] [--seed 1] [--mdevctl /usr/bin/mdevctl]
 *
 * It needs root (a mount namespace of its own hides the machine's /sys and /etc/mdevctl.d from mdevctl), mdevctl and a
 * C compiler. Each line is run by both from the same state; exit code, standard output, files, devices and the calls
 * of scripts are compared. What is to differ is in {@link wanted}, and in docs/mdev.md with its reason. It ends with 1
 * when anything else differs, and prints the state and the line that show it.
 */
import {execFileSync, spawnSync} from 'node:child_process';
import fs from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {parseArgs} from 'node:util';
import {mdevctl} from '../../src/entry/mdevctl/drop-in.js';
import {shellWord} from '../../src/host/shell.js';
import type {MachineDeclaration, ParentDeclaration} from '../simulated-host/declaration.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';

const {values: options} = parseArgs({
  options: {
    count: {type: 'string', default: '2000'},
    seed: {type: 'string', default: '1'},
    mdevctl: {type: 'string', default: '/usr/bin/mdevctl'},
  },
});

// ------------------------------------------------------------------ what is random

let state = Number(options.seed) >>> 0 || 1;

/** A number from 0 up to, but not including, this one (xorshift32). */
function random(below: number): number {
  state ^= state << 13;
  state >>>= 0;
  state ^= state >>> 17;
  state ^= state << 5;
  state >>>= 0;
  return state % below;
}

function pick<Item>(items: readonly [Item, ...Item[]]): Item {
  return items[random(items.length)] ?? items[0];
}

const chance = (percent: number) => random(100) < percent;

const uuids = [1, 2, 3, 4].map((digit) => `${digit}1111111-1111-4111-8a11-111111111111`);
const definedUuids = uuids.slice(0, 3);
const gpu = '0000:2b:00.0';
const typesOf: Readonly<Record<string, readonly [string, ...string[]]>> = {
  mtty: ['mtty-1', 'mtty-2'],
  [gpu]: ['vgpu-1', 'vgpu-2'],
};
const parents: readonly ParentDeclaration[] = [
  {
    name: 'mtty',
    path: '/sys/devices/virtual/mtty/mtty',
    driver: 'mtty',
    units: 4,
    types: [
      {name: 'mtty-1', units: 1, title: 'Single port serial'},
      {name: 'mtty-2', units: 2, title: 'Dual port serial'},
    ],
  },
  {
    name: gpu,
    path: `/sys/devices/virtual/gpu/${gpu}`,
    driver: 'vgpu_vfio',
    units: 2,
    types: [
      {
        name: 'vgpu-1',
        units: 1,
        title: 'Small',
        description: 'memory: 1024MB\nresolution: 1920x1200\n',
        attributes: {frame_rate: /^\d{1,3}$/, licence: /^[a-z]+$/},
      },
      {name: 'vgpu-2', units: 2, description: 'memory: 2048MB\n'},
    ],
  },
];

const someUuid = (): string =>
  chance(85)
    ? pick(uuids as [string, ...string[]])
    : pick([
        uuids[0]?.toUpperCase() ?? '',
        uuids[1]?.replaceAll('-', '') ?? '',
        `urn:uuid:${uuids[2] ?? ''}`,
        `{${uuids[0] ?? ''}}`,
        '1111',
        '',
        'x',
        `${uuids[0] ?? ''}0`,
      ]);
const someParent = (): string =>
  chance(75)
    ? pick(['mtty', gpu])
    : pick(['MTTY', gpu.toUpperCase(), '2b:00.0', 'nosuch', 'absent', '0000:00:1f.0', '', 'scripts.d']);
const someType = (): string =>
  chance(80) ? pick(['mtty-1', 'mtty-2', 'vgpu-1', 'vgpu-2']) : pick(['nosuch', '', 'MTTY-1', 'two words']);
const someAttribute = (): string =>
  pick(['frame_rate', 'licence', 'frame_rate', 'x', 'é', '__proto__', '10', 'two words', 'a"b']);
const someValue = (): string => pick(['60', 'abc', '', '9999', 'A', '1 2', '"', '\\', 'é']);
const someIndex = (): string =>
  pick(['0', '1', '2', '9', '0', '1', '-1', 'x', '+1', '4294967295', '4294967296', '']);

const jsonFiles: Readonly<Record<string, string>> = {
  'good.json': '{"mdev_type":"mtty-1","start":"manual"}',
  'auto.json': '{"start":"auto","mdev_type":"mtty-2","attrs":[]}',
  'attrs.json': '{"mdev_type":"vgpu-1","start":"manual","attrs":[{"frame_rate":"60"},{"licence":"abc"}]}',
  'wrong-attr.json': '{"mdev_type":"vgpu-1","start":"auto","attrs":[{"frame_rate":"x"}]}',
  'no-type.json': '{"start":"auto"}',
  'no-start.json': '{"mdev_type":"mtty-1"}',
  'attrs-object.json': '{"mdev_type":"mtty-1","start":"auto","attrs":{"a":"b"}}',
  'attrs-two.json': '{"mdev_type":"mtty-1","start":"auto","attrs":[{"a":"b","c":"d"}]}',
  'attrs-number.json': '{"mdev_type":"mtty-1","start":"auto","attrs":[{"a":1}]}',
  'attrs-null.json': '{"mdev_type":"mtty-1","start":7,"attrs":null,"more":[1]}',
  'twice.json': '{"mdev_type":"a","start":"auto","mdev_type":"mtty-2"}',
  'array.json': '[]',
  'broken.json': '{"mdev_type": ',
  'empty.json': '',
};
const someFile = (folder: string): string =>
  chance(94)
    ? join(folder, pick(Object.keys(jsonFiles) as [string, ...string[]]))
    : join(folder, 'missing.json');

/** An option in one of the ways that it can be written. */
function written(name: string, char: string | undefined, value?: string): string[] {
  if (value === undefined) return [char !== undefined && chance(50) ? `-${char}` : `--${name}`];
  const ways = [[`--${name}`, value], [`--${name}=${value}`]];
  if (char !== undefined)
    ways.push([`-${char}`, value], [`-${char}`, value], [`-${char}${value}`], [`-${char}=${value}`]);
  return pick(ways as [string[], ...string[][]]);
}

function shuffled<Item>(items: Item[]): Item[] {
  for (let at = items.length - 1; at > 0; at--) {
    const other = random(at + 1);
    [items[at], items[other]] = [items[other] as Item, items[at] as Item];
  }
  return items;
}

function randomLine(folder: string): string[] {
  const command = pick([
    'define',
    'define',
    'define',
    'undefine',
    'undefine',
    'modify',
    'modify',
    'modify',
    'modify',
    'start',
    'start',
    'start',
    'stop',
    'stop',
    'list',
    'list',
    'list',
    'list',
    'types',
    'start-parent-mdevs',
    'other',
    'other',
  ]);
  const words: string[][] = [];
  const add = (percent: number, name: string, char?: string, value?: () => string) => {
    if (chance(percent)) words.push(written(name, char, value?.()));
  };
  switch (command) {
    case 'define':
      add(75, 'uuid', 'u', someUuid);
      add(75, 'parent', 'p', someParent);
      add(65, 'type', 't', someType);
      add(30, 'auto', 'a');
      add(25, 'jsonfile', undefined, () => someFile(folder));
      break;
    case 'undefine':
      add(95, 'uuid', 'u', someUuid);
      add(30, 'parent', 'p', someParent);
      break;
    case 'modify':
      add(97, 'uuid', 'u', someUuid);
      add(40, 'parent', 'p', someParent);
      add(15, 'type', 't', someType);
      add(35, 'addattr', undefined, someAttribute);
      add(40, 'value', undefined, someValue);
      add(20, 'delattr');
      add(30, 'index', 'i', someIndex);
      add(20, 'auto', 'a');
      add(15, 'manual', 'm');
      break;
    case 'start':
      add(80, 'uuid', 'u', someUuid);
      add(55, 'parent', 'p', someParent);
      add(45, 'type', 't', someType);
      add(15, 'jsonfile', undefined, () => someFile(folder));
      break;
    case 'stop':
      add(95, 'uuid', 'u', someUuid);
      break;
    case 'list':
      add(50, 'defined', 'd');
      add(45, 'verbose', 'v');
      add(40, 'dumpjson');
      add(30, 'uuid', 'u', someUuid);
      add(30, 'parent', 'p', someParent);
      break;
    case 'types':
      add(50, 'parent', 'p', someParent);
      add(50, 'dumpjson');
      break;
    case 'start-parent-mdevs':
      return [command, ...(chance(95) ? [someParent()] : [])];
    default:
      return pick([
        [],
        ['help'],
        ['--version'],
        ['-V'],
        ['-h'],
        ['nosuch'],
        ['lst'],
        ['help', 'list'],
        ['list', '--help'],
        ['types', '-h'],
        ['list', '-V'],
        ['help', 'nosuch'],
        ['--nosuch'],
        ['list', '-dv'],
        ['list', '-vd', '--dumpjson'],
        ['list', '--def'],
        ['-hV'],
        ['-Vh'],
        ['-hx'],
        ['--help=1'],
        ['-'],
        ['--'],
        ['--', 'list'],
        ['help', 'help'],
        ['help', 'list', 'types'],
        ['list', '-u'],
        ['list', '-u', '-d'],
        ['list', '-u', '-x'],
        ['list', '-u', '--', uuids[0] ?? ''],
        ['list', '-dvu', uuids[0] ?? ''],
        ['list', `-dvu${uuids[0] ?? ''}`],
        ['list', `-dvu=${uuids[0] ?? ''}`],
        ['list', `-u==${uuids[0] ?? ''}`],
        ['list', '--dumpjson=1'],
        ['list', '-d=1'],
        ['list', '-d', '-v', '-d'],
        ['list', '-d', '--'],
        ['list', '--', '-d'],
        ['list', '--help', '--nosuch'],
        ['list', '--nosuch', '--help'],
        ['list', '-u', 'x', '--help'],
        ['list', '-d', '-d', '--help'],
        ['list', '-hd'],
        ['list', '-dh'],
        ['types', '-p', '-'],
        ['types', '-p', ''],
        ['types', '--parent='],
        ['types', '--no-dumpjson'],
        ['types', '--__proto__'],
        ['stop', '-f', '-u'],
        ['start-parent-mdevs', '--', '-x'],
        ['start-parent-mdevs', '-'],
        ['start-parent-mdevs', 'a', 'b'],
        ['start-parent-mdevs', '--help'],
      ]);
  }
  if (chance(3)) words.push([pick(['extra', '--', '-x', '--nosuch', '-', '--uuid', '-vv'])]);
  return [command, ...shuffled(words).flat()];
}

// ------------------------------------------------------------------ states

function randomDefinition(): string {
  const parent = pick(['mtty', gpu]);
  const type = chance(90) ? pick(typesOf[parent] ?? ['x']) : someType();
  const attrs = Array.from({length: chance(40) ? 1 + random(3) : 0}, () => ({
    [someAttribute()]: someValue(),
  }));
  return JSON.stringify(
    {mdev_type: type, start: pick(['auto', 'manual', 'manual', 'else']), attrs},
    null,
    chance(80) ? 2 : 0,
  );
}

const script = (body: string): string => `#!/bin/sh
echo "\${0##*/} $* $(cat)" >>"\${0%/*}/../../log"
${body}
`;
const callouts = [
  script('exit 0'),
  script('exit 2'),
  script('case "$*" in *"-e pre"*) exit 1;; esac'),
  script('case "$*" in *"-e get"*) echo \'[{"x":"1"},{"y":"2"}]\';; esac'),
  script('case "$*" in *"-e get"*) echo \'[{}]\';; *) exit 2;; esac'),
  script('case "$*" in *"-e get"*) echo nonsense;; esac'),
  script('case "$*" in *"-e post"*) exit 3;; esac'),
] as [string, ...string[]];

function newState(): SimulatedHost {
  const files: Record<string, string> = {};
  const scripts: Record<string, string> = {};
  for (const uuid of definedUuids)
    for (const parent of ['mtty', gpu, 'absent'])
      if (chance(30)) files[`/etc/mdevctl.d/${parent}/${uuid}`] = randomDefinition();
  if (chance(10))
    files[`/etc/mdevctl.d/${gpu.toUpperCase()}/${pick(uuids as [string])}`] = randomDefinition();
  if (chance(5)) files['/etc/mdevctl.d/mtty/notes'] = 'no definition\n';
  if (chance(4)) files[`/etc/mdevctl.d/mtty/${uuids[3] ?? ''}`] = '{';
  if (chance(3)) files[`/etc/mdevctl.d/mtty/${uuids[3]?.toUpperCase() ?? ''}`] = randomDefinition();
  if (chance(30)) {
    scripts['/etc/mdevctl.d/scripts.d/callouts/a'] = pick(callouts);
    if (chance(40)) scripts['/etc/mdevctl.d/scripts.d/callouts/b'] = pick(callouts);
    if (chance(50)) scripts['/etc/mdevctl.d/scripts.d/notifiers/n'] = script('exit 0');
  }
  const mdevs: Record<string, string> = {};
  if (chance(40)) mdevs[uuids[0] ?? ''] = pick(['mtty/mtty-1', 'mtty/mtty-2', `${gpu}/vgpu-1`]);
  if (chance(25)) mdevs[uuids[3] ?? ''] = pick(['mtty/mtty-1', 'mtty/mtty-2', `${gpu}/vgpu-1`]);
  const host = SimulatedHost.standard((machine: MachineDeclaration) => {
    machine.mdevParents = [...parents];
    machine.mdevs = mdevs;
    machine.files = {...machine.files, ...files};
  });
  host.machine.tree.directory('/etc/mdevctl.d/scripts.d/callouts');
  host.machine.tree.directory('/etc/mdevctl.d/scripts.d/notifiers');
  host.machine.tree.directory('/sys/bus/mdev/devices');
  for (const [path, text] of Object.entries(scripts)) host.machine.tree.file(path, text, 0o755);
  return host;
}

// ------------------------------------------------------------------ running and comparing

interface Result {
  readonly exitCode: number;
  readonly stdout: string;
  /** By path below /etc/mdevctl.d. */
  readonly files: Readonly<Record<string, string>>;
  readonly devices: readonly string[];
  readonly calls: readonly string[];
  readonly stderr: string;
}

function readFolder(folder: string, below = ''): Record<string, string> {
  const found: Record<string, string> = {};
  for (const entry of fs.readdirSync(join(folder, below), {withFileTypes: true})) {
    const path = join(below, entry.name);
    if (entry.isDirectory()) Object.assign(found, readFolder(folder, path));
    else if (path !== 'log') found[path] = fs.readFileSync(join(folder, path), 'utf8');
  }
  return found;
}

/** A UUID that was made is not the same twice. */
function withoutNew(text: string): string {
  return text.replace(/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, (uuid) =>
    uuids.includes(uuid) ? uuid : 'NEW',
  );
}

function result(root: string, run: {exitCode: number; stdout: string; stderr: string}): Result {
  const etc = join(root, 'etc/mdevctl.d');
  const log = join(etc, 'log');
  const calls = fs.existsSync(log) ? withoutNew(fs.readFileSync(log, 'utf8')).trim().split('\n') : [];
  return {
    exitCode: run.exitCode,
    stdout: withoutNew(run.stdout),
    stderr: run.stderr,
    files: Object.fromEntries(
      Object.entries(readFolder(etc))
        .map(([path, text]) => [withoutNew(path), withoutNew(text)] as const)
        .sort(([one], [other]) => (one < other ? -1 : 1)),
    ),
    devices: fs
      .readdirSync(join(root, 'sys/bus/mdev/devices'))
      .map((uuid) => {
        const type =
          fs
            .readlinkSync(join(root, `sys/bus/mdev/devices/${uuid}`))
            .split('/')
            .at(-2) ?? '';
        return withoutNew(`${uuid} ${type}`);
      })
      .sort(),
    calls: calls.filter((line) => line !== '' && !line.includes('-a capabilities')),
  };
}

async function runOurs(host: SimulatedHost, words: readonly string[]): Promise<Result> {
  const {folder} = host.machine;
  let [stdout, stderr] = ['', ''];
  const output = (write: (text: string) => void) => ({isTerminal: false, columns: 80, write});
  const exitCode = await mdevctl('mdevctl', words, {
    host,
    environment: {},
    stdout: output((text) => (stdout += text)),
    stderr: output((text) => (stderr += text)),
  });
  return result(folder, {exitCode, stdout, stderr});
}

const mounting = `mount --bind "$1/sys" /sys && mount --bind "$1/etc/mdevctl.d" /etc/mdevctl.d || exit 99
kernel=$2 program=$3
shift 3
LD_PRELOAD=$kernel exec "$program" "$@"`;

function runTheirs(root: string, kernel: string, words: readonly string[]): Result {
  const {status, stdout, stderr} = spawnSync(
    'unshare',
    ['--mount', 'sh', '-c', mounting, 'sh', root, kernel, options.mdevctl, ...words],
    {encoding: 'utf8', env: {PATH: '/usr/sbin:/usr/bin:/sbin:/bin'}},
  );
  if (status === null || status === 99) throw new Error(`mdevctl could not be run: ${stderr}`);
  return result(root, {exitCode: status, stdout, stderr});
}

/** The part of the machine that mdevctl looks at. */
function copyState(from: string, to: string): void {
  fs.rmSync(to, {recursive: true, force: true});
  for (const path of [
    'sys/bus/mdev',
    'sys/class/mdev_bus',
    'sys/devices/virtual/mtty',
    'sys/devices/virtual/gpu',
    'etc/mdevctl.d',
  ]) {
    fs.mkdirSync(join(to, path, '..'), {recursive: true});
    execFileSync('cp', ['-a', join(from, path), join(to, path)]);
  }
}

/** One line that both have run. */
interface Case {
  readonly words: readonly string[];
  readonly before: Readonly<Record<string, string>>;
  readonly devices: readonly string[];
  readonly ours: Result;
  readonly theirs: Result;
}

/** What is to differ; each is in docs/mdev.md with its reason. */
const wanted: Readonly<Record<string, (one: Case) => boolean>> = {
  'a panic is exit code 1': ({ours, theirs}) => theirs.exitCode === 101 && ours.exitCode === 1,
  'a parent name that is no file name is refused': ({words, ours}) =>
    ours.exitCode !== 2 && words.some((word) => /^(?:-p=?|--parent=)?(?:scripts\.d)?$/.test(word)),
  'the options of later versions are known': ({words}) =>
    words.some((word) => /^(?:-[adv]*[fl]|--force|--live|--def(?:ined)?)$/.test(word)) && words[0] !== 'list',
  'list asks scripts for what it shows, also of devices that are defined': ({words, before}) =>
    words[0] === 'list' && Object.keys(before).some((path) => path.startsWith('scripts.d/callouts/')),
  'define asks for attributes after pre, and of the device that is defined only': ({words, ours, theirs}) =>
    words[0] === 'define' && [...ours.calls, ...theirs.calls].some((call) => call.includes('-e get')),
  'undefine that a script refuses fails': ({words, ours}) =>
    words[0] === 'undefine' && ours.exitCode === 1 && ours.calls.some((call) => call.includes('-e pre')),
  'modify that changes nothing calls no script': ({words, ours, before}) =>
    words[0] === 'modify' && ours.calls.length === 0 && JSON.stringify(ours.files) === JSON.stringify(before),
  'several callout scripts are called in the order of their names': ({before}) =>
    ['a', 'b'].every((name) => before[`scripts.d/callouts/${name}`] !== undefined),
  'list tells the type of the device, not of its definition': ({words, theirs}) =>
    words[0] === 'list' && theirs.stderr.includes('Overwriting mdev type'),
  'a file name that is another spelling of the UUID is a definition': ({before}) =>
    Object.keys(before).some((path) => /\/[0-9]1111111-1111-4111-8A11/.test(path)),
};

function differences({ours, theirs}: Case): string[] {
  return (['exitCode', 'stdout', 'files', 'devices', 'calls'] as const).filter(
    (part) => JSON.stringify(ours[part]) !== JSON.stringify(theirs[part]),
  );
}

function print(one: Case, seed: string): void {
  const {words, before, devices, ours, theirs} = one;
  console.log(`\n=== ${seed}: mdevctl ${words.map(shellWord).join(' ')}`);
  for (const part of differences(one) as (keyof Result)[]) {
    const show = (value: unknown) => (typeof value === 'string' ? value : JSON.stringify(value, null, 1));
    console.log(`${part}, mdevctl:\n${show(theirs[part])}\n${part}, ours:\n${show(ours[part])}`);
  }
  console.log(`stderr, mdevctl: ${theirs.stderr}stderr, ours: ${ours.stderr}`);
  console.log(`before: ${devices.join(', ')}`);
  for (const [path, text] of Object.entries(before)) console.log(`--- ${path}\n${text.trimEnd()}`);
}

async function main(): Promise<void> {
  const scratch = fs.mkdtempSync(join(tmpdir(), 'pearasys-compare-'));
  const kernel = join(scratch, 'kernel.so');
  execFileSync('cc', ['-shared', '-fPIC', '-w', '-o', kernel, join(import.meta.dirname, 'kernel.c')]);
  for (const [name, text] of Object.entries(jsonFiles)) fs.writeFileSync(join(scratch, name), text);
  const counts = new Map<string, number>();
  const count = Number(options.count);
  let unwanted = 0;
  let host: SimulatedHost | undefined;
  try {
    for (let line = 0; line < count; line++) {
      // Some lines follow each other on one machine.
      if (line % 10 === 0) {
        host?.dispose();
        host = newState();
      }
      if (host === undefined) continue;
      fs.rmSync(join(host.machine.folder, 'etc/mdevctl.d/log'), {force: true});
      const root = join(scratch, 'machine');
      copyState(host.machine.folder, root);
      const {files: before, devices} = result(root, {exitCode: 0, stdout: '', stderr: ''});
      const words = randomLine(scratch);
      const theirs = runTheirs(root, kernel, words);
      const ours = await runOurs(host, words);
      const one: Case = {words, before, devices, ours, theirs};
      if (differences(one).length === 0) continue;
      const reason = Object.keys(wanted).find((name) => wanted[name]?.(one) === true);
      if (reason !== undefined) counts.set(reason, (counts.get(reason) ?? 0) + 1);
      else {
        unwanted++;
        print(one, `seed ${options.seed}, line ${line}`);
      }
    }
  } finally {
    host?.dispose();
    fs.rmSync(scratch, {recursive: true, force: true});
  }
  console.log(`\n${count} command lines, seed ${options.seed}`);
  for (const [reason, times] of counts) console.log(`  ${times} × wanted: ${reason}`);
  console.log(`  ${unwanted} unwanted differences`);
  process.exitCode = unwanted === 0 ? 0 : 1;
}

await main();
