import {posix} from 'node:path';
import {Errno, NeverReturns} from '../errno.js';
import type {KernelEvent} from '../kernel/events.js';
import type {SimulatedMachine} from '../kernel/machine.js';
import {patternToExpression} from '../kernel/render.js';
import {comparisons, findLabel, type Rule, type Token} from './rules.js';

/** What the rules made of one event. */
export interface UdevResult {
  readonly event: KernelEvent;
  /** The event's properties with what rules set. */
  readonly properties: Record<string, string>;
  /** The tags of this event. */
  readonly tags: Set<string>;
  readonly symlinks: Set<string>;
  /** Writes that rules made, as `path=value`, with the errno when the kernel refused. */
  readonly writes: string[];
  /** `kmod load pci:…`, run after all rules. */
  readonly builtins: string[];
  /** What rules say about the device's node; users and groups that do not exist are left out. */
  readonly node: {uid?: number; gid?: number; mode?: number};
  /** What would have been started as a process of its own: each one costs a fork for each event. */
  readonly processes: string[];
  /** What the worker would have logged. */
  readonly log: string[];
  /** Set when a write of a rule never returned: the worker is killed after 180 s. */
  stuck: boolean;
}

/**
 * Applies rules to one event of a machine, with the writes they make. Loading modules is the caller's, by {@link UdevResult.builtins}.
 * @param stored the properties that udev's database has of the device, from its last event.
 */
export function applyRules(
  machine: SimulatedMachine,
  event: KernelEvent,
  rules: readonly Rule[],
  stored: Readonly<Record<string, string>> = {},
): UdevResult {
  const result: UdevResult = {
    event,
    properties: {...event.properties},
    tags: new Set(),
    symlinks: new Set(),
    writes: [],
    builtins: [],
    node: {},
    processes: [],
    log: [],
    stuck: false,
  };
  const worker = new Worker(machine, result, stored);
  for (let index = 0; index < rules.length && !result.stuck;) {
    const rule = rules[index];
    if (rule === undefined) break;
    const label = worker.apply(rule);
    index = label === undefined ? index + 1 : findLabel(rules, rule, label) + 1;
  }
  // At the end of the rules, whatever the action, unless the node is going.
  const name = event.properties['DEVNAME'];
  if (name !== undefined && event.action !== 'remove') machine.setNodeOwner(name, result.node);
  return result;
}

class Worker {
  readonly #machine: SimulatedMachine;
  readonly #result: UdevResult;
  readonly #stored: Readonly<Record<string, string>>;
  readonly #syspath: string;
  readonly #kernel: string;
  #program = '';
  /** The name of the device that the last match of KERNELS and the like was found at. */
  #matchedParent = '';

  constructor(machine: SimulatedMachine, result: UdevResult, stored: Readonly<Record<string, string>>) {
    this.#machine = machine;
    this.#result = result;
    this.#stored = stored;
    this.#syspath = `/sys${result.event.devpath}`;
    this.#kernel = posix.basename(result.event.devpath).replaceAll('!', '/');
  }

  /** Runs one line. Returns the label it goes to. */
  apply(rule: Rule): string | undefined {
    let label: string | undefined;
    for (const token of rule.tokens) {
      if (token.key === 'GOTO') label = token.value;
      else if (comparisons.has(token.operator) || ['IMPORT', 'TEST', 'PROGRAM'].includes(token.key)) {
        if (!this.#matches(token)) return undefined;
      } else this.#assign(token);
      if (this.#result.stuck) return undefined;
    }
    return label;
  }

  #matches(token: Token): boolean {
    const {key, attribute = '', operator, value} = token;
    const wanted = operator !== '!=';
    const same = (text: string | undefined) => patternToExpression(value, true).test(text ?? '') === wanted;
    const {event, properties, tags} = this.#result;
    switch (key) {
      case 'ACTION':
        return same(event.action);
      case 'DEVPATH':
        return same(event.devpath);
      case 'KERNEL':
        return same(this.#kernel);
      case 'SUBSYSTEM':
        return same(event.subsystem);
      case 'DRIVER':
        return same(this.#linkName(`${this.#syspath}/driver`));
      case 'ENV':
        return same(properties[attribute]);
      case 'TAG':
        return [...tags].some((tag) => patternToExpression(value, true).test(tag)) === wanted;
      case 'ATTR': {
        const found = this.#attribute(this.#attributePath(attribute));
        // An attribute that is not there matches nothing, not even `!=`.
        if (found === undefined) return false;
        return same(/\s$/.test(value) ? found : found.trimEnd());
      }
      case 'KERNELS':
      case 'SUBSYSTEMS':
      case 'DRIVERS':
      case 'ATTRS':
        return this.#matchesParent(token);
      case 'TEST': {
        const stat = this.#machine.tree.resolve(this.#pathOf(this.#format(value)));
        if (stat === undefined) return !wanted;
        if (attribute === '') return wanted;
        const mode = this.#machine.tree.nodes.get(stat)?.mode ?? this.#machine.tree.stat(stat)?.mode ?? 0;
        return (mode & parseInt(attribute, 8)) > 0 === wanted;
      }
      case 'PROGRAM':
        this.#result.processes.push(this.#format(value));
        this.#program = '';
        return !wanted;
      case 'RESULT':
        return same(this.#program);
      case 'IMPORT':
        return this.#import(token) === wanted;
      default:
        throw new Error(`udev: ${key} is not in this subset`);
    }
  }

  #matchesParent(token: Token): boolean {
    for (let path = this.#syspath; path.startsWith('/sys/devices/'); path = posix.dirname(path)) {
      const subsystem = this.#linkName(`${path}/subsystem`);
      if (subsystem === undefined) continue;
      const text =
        token.key === 'KERNELS'
          ? posix.basename(path)
          : token.key === 'SUBSYSTEMS'
            ? subsystem
            : token.key === 'DRIVERS'
              ? (this.#linkName(`${path}/driver`) ?? '')
              : this.#attribute(`${path}/${token.attribute ?? ''}`)?.trimEnd();
      if (
        text !== undefined &&
        patternToExpression(token.value, true).test(text) === (token.operator !== '!=')
      ) {
        this.#matchedParent = posix.basename(path);
        return true;
      }
    }
    return false;
  }

  #import({attribute, value}: Token): boolean {
    const text = this.#format(value);
    if (attribute === 'program') {
      this.#result.processes.push(text);
      return false;
    }
    if (attribute === 'cmdline') {
      const found = (this.#machine.tree.read('/proc/cmdline') ?? '')
        .trim()
        .split(/\s+/)
        .findLast((each) => each === text || each.startsWith(`${text}=`));
      if (found === undefined) return false;
      this.#result.properties[text] = found === text ? '1' : found.slice(text.length + 1);
      return true;
    }
    if (attribute === 'db') {
      const found = this.#stored[text];
      if (found !== undefined) this.#result.properties[text] = found;
      return found !== undefined;
    }
    const content = this.#machine.tree.read(text);
    if (content === undefined) return false;
    for (const line of content.split('\n')) {
      const trimmed = line.trim();
      if (trimmed === '' || trimmed.startsWith('#')) continue;
      const at = trimmed.indexOf('=');
      const key = trimmed.slice(0, Math.max(at, 0)).trim();
      let own = trimmed.slice(at + 1).trim();
      const quote = own.charAt(0);
      if (quote === '"' || quote === "'") {
        if (own.length === 1 || !own.endsWith(quote)) {
          this.#result.log.push(`${text}: inconsistent quoting: ${trimmed}`);
          continue;
        }
        own = own.slice(1, -1);
      }
      if (key === '') this.#result.log.push(`${text}: cannot parse: ${trimmed}`);
      else this.#result.properties[key] = own;
    }
    return true;
  }

  #assign(token: Token): void {
    const {key, attribute = '', operator, value} = token;
    const {properties, tags, symlinks, builtins, node, processes, log} = this.#result;
    switch (key) {
      case 'ENV': {
        if (value === '') {
          if (operator === '=') Reflect.deleteProperty(properties, attribute);
          return;
        }
        const before = operator === '+=' ? properties[attribute] : undefined;
        properties[attribute] =
          before === undefined ? this.#format(value) : `${before} ${this.#format(value)}`;
        return;
      }
      case 'TAG':
      case 'SYMLINK': {
        const set = key === 'TAG' ? tags : symlinks;
        if (operator === '=') set.clear();
        for (const each of key === 'TAG'
          ? [this.#format(value)]
          : this.#format(value).split(' ').filter(Boolean))
          if (operator === '-=') set.delete(each);
          else set.add(each);
        return;
      }
      case 'ATTR':
        this.#write(this.#attributePath(attribute), this.#format(value));
        return;
      case 'RUN': {
        if (operator !== '+=') {
          builtins.length = 0;
          processes.length = 0;
        }
        const list = attribute === 'builtin' ? builtins : processes;
        // Substituted when it is run, after all rules.
        if (value !== '') list.push(this.#format(value));
        return;
      }
      case 'OWNER':
      case 'GROUP': {
        const number = this.#account(key === 'OWNER' ? '/etc/passwd' : '/etc/group', this.#format(value));
        if (number === undefined)
          log.push(`Unknown ${key === 'OWNER' ? 'user' : 'group'} '${value}', ignoring.`);
        else node[key === 'OWNER' ? 'uid' : 'gid'] = number;
        return;
      }
      case 'MODE':
        node.mode = parseInt(this.#format(value), 8);
        return;
      case 'OPTIONS':
      case 'LABEL':
        return;
      default:
        throw new Error(`udev: ${key} is not in this subset`);
    }
  }

  /** The number of a user or group, which may be given as such. */
  #account(file: string, name: string): number | undefined {
    if (/^\d+$/.test(name)) return Number(name);
    const line = (this.#machine.tree.read(file) ?? '').split('\n').find((one) => one.startsWith(`${name}:`));
    const number = line?.split(':')[2];
    return number === undefined ? undefined : Number(number);
  }

  /** A plain write by the worker, without a newline; what the kernel refuses is logged and nothing more. */
  #write(path: string, value: string): void {
    const {writes, log} = this.#result;
    try {
      this.#machine.write(path, value);
      writes.push(`${path}=${value}`);
    } catch (error) {
      if (error instanceof NeverReturns) {
        writes.push(`${path}=${value} # never returns`);
        log.push(`worker is blocked in a write to ${path}, and is killed after 180 s`);
        this.#result.stuck = true;
        return;
      }
      if (!(error instanceof Errno)) throw error;
      writes.push(`${path}=${value} # ${error.errno}`);
      log.push(`Failed to write ATTR{${path}}="${value}": ${error.errno}`);
    }
  }

  #attributePath(attribute: string): string {
    const path = this.#pathOf(attribute);
    if (!path.includes('/*/')) return path;
    // One folder's name may be left open.
    const [above = '', below = ''] = path.split('/*/', 2);
    const name = this.#machine.tree
      .list(above)
      .find((each) => this.#machine.tree.has(`${above}/${each}/${below}`));
    return name === undefined ? path : `${above}/${name}/${below}`;
  }

  /** A path as given, one below the device, or `[subsystem/name]attribute`. */
  #pathOf(text: string): string {
    const match = /^\[([^/\]]+)\/([^\]]+)\]\/?(.*)$/.exec(text);
    if (match === null) return text.startsWith('/') ? text : `${this.#syspath}/${text}`;
    const [, subsystem = '', name = '', attribute = ''] = match;
    const [bus = '', driver = ''] = name.split(/:(.*)/s);
    const candidates =
      subsystem === 'subsystem'
        ? [`/sys/bus/${name}`, `/sys/class/${name}`]
        : subsystem === 'drivers'
          ? [`/sys/bus/${bus}/drivers/${driver}`]
          : subsystem === 'module'
            ? [`/sys/module/${name}`]
            : [`/sys/bus/${subsystem}/devices/${name}`, `/sys/class/${subsystem}/${name}`];
    const folder =
      candidates.find((each) => this.#machine.tree.resolve(each) !== undefined) ?? candidates[0] ?? '';
    return attribute === '' ? folder : `${folder}/${attribute}`;
  }

  #attribute(path: string): string | undefined {
    const link = this.#machine.tree.stat(path);
    // Of these links the name of what they lead to is the value.
    if (link?.isSymbolicLink() === true && ['driver', 'subsystem', 'module'].includes(posix.basename(path)))
      return this.#linkName(path);
    const real = this.#machine.tree.resolve(path);
    const stat = real === undefined ? undefined : this.#machine.tree.stat(real);
    if (stat?.isFile() !== true || (stat.mode & 0o444) === 0) return undefined;
    return this.#machine.tree.read(path)?.replace(/\n$/, '');
  }

  #linkName(path: string): string | undefined {
    const real = this.#machine.tree.resolve(path);
    return real === undefined ? undefined : posix.basename(real);
  }

  /** Substitutes `$kernel`, `%k`, `$attr{…}` and the others, see udev(7). */
  #format(text: string): string {
    const {event, properties} = this.#result;
    const replace = (name: string, argument: string | undefined): string => {
      switch (name) {
        case 'k':
        case 'kernel':
          return this.#kernel;
        case 'n':
        case 'number':
          return /\d+$/.exec(this.#kernel)?.[0] ?? '';
        case 'p':
        case 'devpath':
          return event.devpath;
        case 'b':
        case 'id':
          return this.#matchedParent;
        case 'd':
        case 'driver':
          return this.#linkName(`${this.#syspath}/driver`) ?? '';
        case 's':
        case 'attr':
          if (argument === undefined) throw new Error(`udev: ${name} needs a name in braces: ${text}`);
          return this.#attribute(this.#attributePath(argument))?.trimEnd() ?? '';
        case 'E':
        case 'env':
          if (argument === undefined) throw new Error(`udev: ${name} needs a name in braces: ${text}`);
          return properties[argument] ?? '';
        case 'M':
        case 'major':
          return properties['MAJOR'] ?? '0';
        case 'm':
        case 'minor':
          return properties['MINOR'] ?? '0';
        case 'S':
        case 'sys':
          return '/sys';
        case 'r':
        case 'root':
          return '/dev';
        case 'N':
        case 'devnode':
          return properties['DEVNAME'] ?? '';
        default:
          throw new Error(`udev: substitution ${name} is not in this subset: ${text}`);
      }
    };
    return text.replace(
      /\$\$|%%|\$([a-z]+)(?:\{([^}]*)\})?|%([a-zA-Z])(?:\{([^}]*)\})?/g,
      (whole, long?: string, longArgument?: string, short?: string, shortArgument?: string) => {
        if (whole === '$$' || whole === '%%') return whole.charAt(0);
        if (short !== undefined) return replace(short, shortArgument);
        // As udev: the longest name that it knows at this place; what follows is text.
        const word = long ?? '';
        const name = substitutions.find((each) => word.startsWith(each));
        if (name === undefined) throw new Error(`udev: substitution $${word} is not in this subset: ${text}`);
        const rest = word.slice(name.length);
        if (rest !== '')
          return replace(name, undefined) + rest + (longArgument === undefined ? '' : `{${longArgument}}`);
        return replace(name, longArgument);
      },
    );
  }
}

const substitutions = [
  'devnode',
  'devpath',
  'id',
  'driver',
  'kernel',
  'number',
  'major',
  'minor',
  'attr',
  'env',
  'root',
  'sys',
];
