import {posix} from 'node:path';
import type {SimulatedMachine} from '../kernel/machine.js';
import {matchesPattern} from '../kernel/render.js';
import type {JobResult} from '../systemd/manager.js';
import {templateOf} from '../systemd/unit-files.js';
import {Userland} from '../userland.js';
import {complained, ok, said, unsupported, type Answer, type Program} from './program.js';

export const systemctl: Program = async (machine, userId, args) => {
  if (args.join(' ') === '--version') return said('systemd 252 (252.30-1~deb12u2)\n+PAM +AUDIT');
  const options = new Map<string, string>();
  const words: string[] = [];
  for (let index = 0; index < args.length; index++) {
    const arg = args[index] ?? '';
    if (!arg.startsWith('-') || arg === '-') {
      words.push(arg);
      continue;
    }
    const [name = '', inline] = arg.split(/=(.*)/s);
    const long = shortOptions.get(name) ?? name;
    if (!flags.has(long) && !valued.has(long)) unsupported('systemctl', arg);
    options.set(long, valued.has(long) ? (inline ?? args[++index] ?? '') : (inline ?? ''));
  }
  const [verb = 'list-units', ...units] = words;
  if (options.has('--user')) return userManager(machine, verb, options.get('--machine') ?? '', units);
  const run = verbs.get(verb);
  if (run === undefined) return unsupported('systemctl', verb);
  const call: Call = {
    machine,
    userland: Userland.of(machine),
    options,
    units: units.map(withSuffix),
    words: units,
  };
  const root = options.get('--root');
  if (root !== undefined && root !== '/' && root !== machine.folder)
    unsupported('systemctl', `--root=${root}`);
  if (userId !== 0 && changing.has(verb))
    return complained(`Failed to ${verb} ${units[0] ?? ''}: Interactive authentication required.`);
  return await run(call);
};

/** A user's service manager: units that run processes, which end and come back with them. */
function userManager(
  machine: SimulatedMachine,
  verb: string,
  where: string,
  units: readonly string[],
): Answer {
  const user = /^(\d+)@\.host$/.exec(where)?.[1];
  if (user === undefined) return unsupported('systemctl --user', where);
  const userland = Userland.of(machine);
  if (!machine.tree.has(`/run/user/${user}`))
    return complained('Failed to connect to bus: No such file or directory');
  for (const unit of units)
    if (verb === 'stop') userland.systemd.stopOfUser(user, unit);
    else if (verb === 'start') userland.systemd.startOfUser(user, unit);
    else unsupported('systemctl --user', verb);
  return ok;
}

const flags = new Set([
  '--quiet',
  '--no-block',
  '--now',
  '--runtime',
  '--no-reload',
  '--plain',
  '--no-legend',
  '--legend',
  '--no-pager',
  '--all',
  '--full',
  '--value',
  '--force',
  '--system',
  '--no-ask-password',
  '--user',
]);

const valued = new Set(['--property', '--type', '--state', '--root', '--job-mode', '--output', '--machine']);

const shortOptions = new Map([
  ['-q', '--quiet'],
  ['-a', '--all'],
  ['-l', '--full'],
  ['-p', '--property'],
  ['-P', '--property'],
  ['-t', '--type'],
  ['-f', '--force'],
]);

const changing = new Set([
  'start',
  'stop',
  'restart',
  'try-restart',
  'reload-or-restart',
  'enable',
  'disable',
  'daemon-reload',
  'reset-failed',
  'mask',
  'unmask',
  'link',
]);

interface Call {
  readonly machine: SimulatedMachine;
  readonly userland: Userland;
  readonly options: ReadonlyMap<string, string>;
  readonly units: readonly string[];
  /** The same as they were given. */
  readonly words: readonly string[];
}

function withSuffix(unit: string): string {
  return /\.(?:service|target|device|socket|mount|path|timer|slice|scope)$/.test(unit) || /[*?[]/.test(unit)
    ? unit
    : `${unit}.service`;
}

async function each(call: Call, work: (unit: string) => Promise<JobResult>): Promise<Answer> {
  if (call.options.has('--no-block')) {
    // The job is queued; what becomes of it is seen in the unit's state.
    for (const unit of call.units) call.userland.queue(work(unit));
    return ok;
  }
  const results: JobResult[] = [];
  for (const unit of call.units) results.push(await work(unit));
  const failed = results.filter(({status}) => status !== 0);
  return {
    status: failed.at(-1)?.status ?? 0,
    stdout: '',
    stderr: failed.map(({stderr}) => stderr).join('\n'),
  };
}

function expand({userland, units}: Call): string[] {
  return units.flatMap((unit) =>
    /[*?[]/.test(unit) ? [...userland.units.keys()].filter((name) => matchesPattern(unit, name)) : [unit],
  );
}

const verbs = new Map<string, (call: Call) => Answer | Promise<Answer>>([
  [
    'daemon-reload',
    ({userland}) => {
      userland.reload();
      return ok;
    },
  ],
  ['start', (call) => each(call, (unit) => call.userland.start(unit))],
  ['stop', (call) => each({...call, units: expand(call)}, (unit) => call.userland.stop(unit))],
  [
    'restart',
    (call) =>
      each(call, async (unit) => {
        if (call.userland.state(unit) === 'active') await call.userland.stop(unit);
        return await call.userland.start(unit);
      }),
  ],
  [
    'try-restart',
    (call) =>
      each(call, async (unit) => {
        if (call.userland.state(unit) !== 'active') return {status: 0, stderr: ''};
        await call.userland.stop(unit);
        return await call.userland.start(unit);
      }),
  ],
  [
    'reload-or-restart',
    (call) =>
      each(call, (unit) =>
        call.userland.state(unit) === 'active'
          ? call.userland.systemd.reloadUnit(unit)
          : call.userland.start(unit),
      ),
  ],
  [
    'is-system-running',
    ({userland}) => said(userland.systemd.systemState, userland.systemd.systemState === 'running' ? 0 : 1),
  ],
  [
    'reset-failed',
    (call) => {
      for (const unit of call.units.length === 0 ? [...call.userland.units.keys()] : expand(call))
        if (call.userland.state(unit) === 'failed') call.userland.setState(unit, 'inactive');
      return ok;
    },
  ],
  [
    'is-active',
    (call) => {
      const states = expand(call).map((unit) => call.userland.state(unit));
      const status = states.includes('active') ? 0 : 3;
      return said(call.options.has('--quiet') ? '' : states.join('\n'), status);
    },
  ],
  [
    'is-failed',
    (call) => {
      const states = expand(call).map((unit) => call.userland.state(unit));
      return said(call.options.has('--quiet') ? '' : states.join('\n'), states.includes('failed') ? 0 : 1);
    },
  ],
  [
    'is-enabled',
    ({userland, units, options}) => {
      const states: string[] = [];
      for (const unit of units) {
        const state = userland.enablement(unit);
        if (state === undefined)
          return complained(`Failed to get unit file state for ${unit}: No such file or directory`);
        states.push(state);
      }
      const yes = states.some((state) => ['enabled', 'enabled-runtime', 'static', 'alias'].includes(state));
      return said(options.has('--quiet') ? '' : states.join('\n'), yes ? 0 : 1);
    },
  ],
  [
    'link',
    ({machine, words}) => {
      for (const path of words) {
        if (machine.tree.resolve(path) === undefined)
          return complained(`Failed to link unit: File ${path}: No such file or directory`);
        machine.tree.textLink(`/etc/systemd/system/${posix.basename(path)}`, path);
      }
      return ok;
    },
  ],
  ['enable', enable],
  ['disable', disable],
  [
    'mask',
    ({machine, units}) => {
      for (const unit of units) {
        const path = `/etc/systemd/system/${unit}`;
        if (machine.tree.has(path)) return complained(`Failed to mask unit: File ${path} already exists.`);
        machine.tree.textLink(path, '/dev/null');
      }
      return ok;
    },
  ],
  [
    'unmask',
    ({machine, units}) => {
      for (const unit of units)
        if (machine.tree.resolve(`/etc/systemd/system/${unit}`) === '/dev/null')
          machine.tree.remove(`/etc/systemd/system/${unit}`);
      return ok;
    },
  ],
  ['show', show],
  [
    'list-units',
    (call) => {
      const all = call.options.has('--all');
      const states = call.options.get('--state')?.split(',');
      const lines = [...call.userland.units]
        .filter(
          ([unit]) => call.units.length === 0 || call.units.some((pattern) => matchesPattern(pattern, unit)),
        )
        .filter(([, state]) => (states === undefined ? all || state !== 'inactive' : states.includes(state)))
        .sort(([one], [other]) => (one < other ? -1 : 1))
        .map(([unit, state]) => {
          const description = call.userland.unitFile(unit)?.values.get('Unit.Description')?.at(-1) ?? unit;
          const loaded = call.userland.unitFile(unit) === undefined ? 'not-found' : 'loaded';
          return `${unit} ${loaded} ${state} ${subState(call.userland, unit)} ${description}`;
        });
      return said(lines.join('\n'));
    },
  ],
  [
    'list-unit-files',
    (call) => {
      const names = new Set<string>();
      for (const folder of ['/etc/systemd/system', '/run/systemd/system', '/usr/lib/systemd/system']) {
        for (const name of call.machine.tree.list(folder)) {
          if (/\.(?:service|target|socket|path)$/.test(name)) names.add(name);
          if (/\.(?:wants|requires)$/.test(name))
            for (const unit of call.machine.tree.list(`${folder}/${name}`)) names.add(unit);
        }
      }
      const states = call.options.get('--state')?.split(',');
      const lines = [...names]
        .filter(
          (unit) => call.units.length === 0 || call.units.some((pattern) => matchesPattern(pattern, unit)),
        )
        .map((unit) => [unit, call.userland.enablement(unit) ?? 'bad'] as const)
        .filter(([, state]) => states?.includes(state) ?? true)
        .sort(([one], [other]) => (one < other ? -1 : 1))
        .map(([unit, state]) => `${unit} ${state} ${state === 'static' ? '-' : 'enabled'}`);
      return said(lines.join('\n'));
    },
  ],
]);

async function enable(call: Call): Promise<Answer> {
  const {machine, userland, units, options} = call;
  const folder = options.has('--runtime') ? '/run/systemd/system' : '/etc/systemd/system';
  const lines: string[] = [];
  for (const unit of units) {
    const file = userland.unitFile(unit);
    if (file === undefined) return complained(`Failed to enable unit: Unit file ${unit} does not exist.`);
    if (userland.enablement(unit) === 'masked')
      return complained(`Failed to enable unit: Unit file ${folder}/${unit} is masked.`);
    const install = (key: string) => file.values.get(`Install.${key}`) ?? [];
    const made = [
      ...install('WantedBy').map((target) => `${folder}/${target}.wants/${unit}`),
      ...install('RequiredBy').map((target) => `${folder}/${target}.requires/${unit}`),
      ...install('Alias').map((alias) => `${folder}/${alias}`),
    ];
    if (made.length === 0 && install('Also').length === 0)
      lines.push(
        'The unit files have no installation config (WantedBy=, RequiredBy=, Also=,\n' +
          'Alias= settings in the [Install] section, and DefaultInstance= for template\n' +
          'units). This means they are not meant to be enabled using systemctl.',
      );
    for (const link of made) {
      if (machine.tree.has(link)) continue;
      machine.tree.textLink(link, file.path);
      lines.push(`Created symlink ${link} → ${file.path}.`);
    }
    for (const other of install('Also')) lines.push((await enable({...call, units: [other]})).stderr);
  }
  userland.reload();
  const stderr = options.has('--quiet') ? '' : lines.filter((line) => line !== '').join('\n');
  if (!options.has('--now')) return {status: 0, stdout: '', stderr};
  const started = await each(call, (unit) => userland.start(unit));
  return {...started, stderr: [stderr, started.stderr].filter((text) => text !== '').join('\n')};
}

async function disable(call: Call): Promise<Answer> {
  const {machine, userland, units, options} = call;
  const lines: string[] = [];
  for (const unit of units) {
    const links = userland.linksOf(unit);
    const template = templateOf(unit);
    if (links.length === 0 && userland.unitFile(unit) === undefined && template !== undefined)
      return complained(`Failed to disable unit: Unit file ${unit} does not exist.`);
    for (const link of links) {
      machine.tree.remove(link);
      machine.tree.removeEmpty(posix.dirname(link));
      lines.push(`Removed "${link}".`);
    }
    for (const alias of userland.unitFile(unit)?.values.get('Install.Alias') ?? []) {
      const link = `/etc/systemd/system/${alias}`;
      if (machine.tree.stat(link)?.isSymbolicLink() !== true) continue;
      machine.tree.remove(link);
      lines.push(`Removed "${link}".`);
    }
  }
  userland.reload();
  const stderr = options.has('--quiet') ? '' : lines.join('\n');
  if (!options.has('--now')) return {status: 0, stdout: '', stderr};
  const stopped = await each(call, (unit) => userland.stop(unit));
  return {...stopped, stderr: [stderr, stopped.stderr].filter((text) => text !== '').join('\n')};
}

function subState(userland: Userland, unit: string): string {
  const state = userland.state(unit);
  if (state === 'active')
    return userland.unitFile(unit)?.values.get('Service.Type')?.at(-1) === 'oneshot' ? 'exited' : 'running';
  return {inactive: 'dead', failed: 'failed', activating: 'start', deactivating: 'stop'}[state];
}

function show({machine, userland, units, options}: Call): Answer {
  const wanted = options.get('--property')?.split(',');
  if (wanted === undefined) return unsupported('systemctl show', 'without --property');
  if (units.length === 0) return showManager(machine, wanted, options.has('--value'));
  const blocks = units.map((named) => {
    const unit = userland.systemd.files.nameOf(named);
    const file = userland.unitFile(unit);
    const state = userland.state(unit);
    const all: Readonly<Record<string, string>> = {
      Id: unit,
      Names: [unit, ...userland.systemd.files.aliasesOf(unit)].join(' '),
      Job: userland.systemd.hasJob(unit) ? '12' : '',
      CanStart: file?.values.get('Unit.RefuseManualStart')?.at(-1) === 'yes' ? 'no' : 'yes',
      Transient: file?.path.startsWith('/run/systemd/transient/') === true ? 'yes' : 'no',
      WantedBy: [
        ...new Set(userland.linksOf(unit).map((link) => /\/([^/]+)\.wants\//.exec(link)?.[1] ?? '')),
      ].join(' '),
      RequiredBy: '',
      LoadState: file === undefined ? (userland.systemd.hasDevice(unit) ? 'loaded' : 'not-found') : 'loaded',
      ActiveState: unit.endsWith('.device')
        ? userland.systemd.hasDevice(unit)
          ? 'active'
          : 'inactive'
        : state,
      SubState: subState(userland, unit),
      UnitFileState: userland.enablement(unit) ?? '',
      FragmentPath: file?.path ?? '',
      Description: file?.values.get('Unit.Description')?.at(-1) ?? unit,
      Conflicts: (file?.values.get('Unit.Conflicts') ?? []).join(' '),
      BindsTo: (file?.values.get('Unit.BindsTo') ?? []).join(' '),
      InactiveExitTimestampMonotonic: String(userland.systemd.startedAt(unit)),
      Result: state === 'failed' ? 'exit-code' : 'success',
      ExecMainStatus: state === 'failed' ? '1' : '0',
    };
    return wanted
      .map((name) => {
        const value = all[name];
        if (value === undefined) return unsupported('systemctl show', name);
        return options.has('--value') ? value : `${name}=${value}`;
      })
      .join('\n');
  });
  return said(blocks.join('\n\n'));
}

/** Properties of systemd itself, some of which are set in system.conf. */
function showManager(machine: SimulatedMachine, wanted: readonly string[], bare: boolean): Answer {
  const settings = machine.tree.read('/etc/systemd/system.conf') ?? '';
  const all: Readonly<Record<string, string>> = {
    DefaultLimitMEMLOCK: /^DefaultLimitMEMLOCK=(.*)$/m.exec(settings)?.[1] ?? '8388608',
  };
  const lines = wanted.map((name) => {
    const value = all[name];
    if (value === undefined) return unsupported('systemctl show', name);
    return bare ? value : `${name}=${value}`;
  });
  return said(`${lines.join('\n')}\n`);
}
