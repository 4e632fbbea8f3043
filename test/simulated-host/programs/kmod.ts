import {Errno} from '../errno.js';
import type {SimulatedMachine} from '../kernel/machine.js';
import {matchesPattern} from '../kernel/render.js';

/** What /etc/modprobe.d and the kernel's command line say. */
interface Configuration {
  readonly blacklist: Set<string>;
  readonly aliases: [string, string][];
  readonly options: Map<string, Record<string, string>>;
  /** Modules with `install … /bin/false` or `/bin/true`. */
  readonly install: Map<string, string>;
  readonly before: Map<string, string[]>;
  readonly after: Map<string, string[]>;
}

/** Module names are the same with dashes and underscores; the kernel's have underscores. */
export function moduleName(text: string): string {
  return text.replaceAll('-', '_');
}

/** Reads the configuration, as modprobe.d(5). Throws for what this subset does not know. */
export function readConfiguration(machine: SimulatedMachine): Configuration {
  const result: Configuration = {
    blacklist: new Set(),
    aliases: [],
    options: new Map(),
    install: new Map(),
    before: new Map(),
    after: new Map(),
  };
  const files = new Map<string, string>();
  for (const folder of ['/etc/modprobe.d', '/run/modprobe.d', '/usr/lib/modprobe.d', '/lib/modprobe.d'])
    for (const name of machine.tree.list(folder))
      if (name.endsWith('.conf') && !files.has(name)) files.set(name, `${folder}/${name}`);
  for (const name of [...files.keys()].sort())
    for (const line of (machine.tree.read(files.get(name) ?? '') ?? '').replaceAll('\\\n', ' ').split('\n')) {
      const [verb = '', subject = '', ...rest] = line.trim().split(/\s+/);
      if (verb === '' || verb.startsWith('#')) continue;
      const module = moduleName(subject);
      if (verb === 'blacklist') result.blacklist.add(module);
      else if (verb === 'alias') result.aliases.push([subject, moduleName(rest[0] ?? '')]);
      else if (verb === 'options')
        result.options.set(module, {...result.options.get(module), ...parameters(rest)});
      else if (verb === 'install') result.install.set(module, rest.join(' '));
      else if (verb === 'softdep') {
        let list: string[] | undefined;
        for (const word of rest)
          if (word === 'pre:') list = listOf(result.before, module);
          else if (word === 'post:') list = listOf(result.after, module);
          else list?.push(moduleName(word));
      } else throw new Error(`modprobe: ${verb} in ${files.get(name) ?? ''} is not in this subset`);
    }
  for (const word of (machine.tree.read('/proc/cmdline') ?? '').trim().split(/\s+/)) {
    const [key = '', value = ''] = word.split(/=(.*)/s);
    if (key === 'modprobe.blacklist' || key === 'module_blacklist')
      for (const name of value.split(',')) result.blacklist.add(moduleName(name));
    const match = /^([^.]+)\.([^.]+)$/.exec(key);
    if (match !== null && match[1] !== 'modprobe' && value !== '') {
      const module = moduleName(match[1] ?? '');
      result.options.set(module, {...result.options.get(module), [match[2] ?? '']: value});
    }
  }
  return result;
}

function listOf(map: Map<string, string[]>, key: string): string[] {
  const list = map.get(key) ?? [];
  map.set(key, list);
  return list;
}

/** `ids=10de:1b80 disable_vga=1` */
export function parameters(words: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    words.map((word) => {
      const [key = '', value = '1'] = word.split(/=(.*)/s);
      return [key, value];
    }),
  );
}

/** The modules a name or an alias stands for; none when nothing is known of it. */
export function resolveModule(machine: SimulatedMachine, text: string): string[] {
  const name = moduleName(text);
  if (machine.declaration.modules.some((each) => each.name === name)) return [name];
  const configured = readConfiguration(machine).aliases.filter(([pattern]) => matchesPattern(pattern, text));
  if (configured.length > 0) return configured.map(([, module]) => module);
  return machine.modules.modulesFor(text);
}

/**
 * Loads what a name or an alias stands for.
 * @throws Errno ENOENT when nothing is known of it; what loading failed with.
 */
export function probeModule(
  machine: SimulatedMachine,
  text: string,
  options: {readonly blacklist: boolean; readonly parameters?: Readonly<Record<string, string>>},
): void {
  const names = resolveModule(machine, text);
  if (names.length === 0) throw new Errno('ENOENT', `no module or alias ${text}`);
  const configuration = readConfiguration(machine);
  const direct = machine.declaration.modules.some((each) => each.name === moduleName(text));
  for (const name of names) {
    // A blacklist holds for aliases; for a name only when asked to (modprobe -b).
    if (configuration.blacklist.has(name) && (options.blacklist || !direct)) continue;
    load(machine, configuration, name, options.parameters ?? {}, new Set());
  }
}

function load(
  machine: SimulatedMachine,
  configuration: Configuration,
  name: string,
  given: Readonly<Record<string, string>>,
  path: Set<string>,
): void {
  if (machine.isLoaded(name) || path.has(name)) return;
  path.add(name);
  const command = configuration.install.get(name);
  if (command !== undefined) {
    if (/^\/(?:usr\/)?bin\/true$/.test(command)) return;
    if (/^\/(?:usr\/)?bin\/false$/.test(command)) throw new Errno('EINVAL', `install ${name} ${command}`);
    throw new Error(`modprobe: the install command ${command} is not in this subset`);
  }
  const module = machine.declaration.modules.find((each) => each.name === name);
  for (const other of configuration.before.get(name) ?? [])
    if (machine.declaration.modules.some((each) => each.name === other))
      load(machine, configuration, other, {}, path);
  for (const other of module?.depends ?? []) load(machine, configuration, other, {}, path);
  machine.loadModule(name, {...configuration.options.get(name), ...given});
  for (const other of configuration.after.get(name) ?? [])
    if (machine.declaration.modules.some((each) => each.name === other))
      load(machine, configuration, other, {}, path);
}

/** Unloads a module, and those it needed and nobody else needs. */
export function removeModule(machine: SimulatedMachine, name: string): void {
  const module = machine.declaration.modules.find((each) => each.name === name);
  machine.modules.unloadModule(name);
  for (const other of module?.depends ?? []) {
    if (machine.isLoaded(other) && machine.modules.moduleUsers(other) === 0) removeModule(machine, other);
  }
}
