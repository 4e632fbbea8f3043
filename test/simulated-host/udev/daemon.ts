import {posix} from 'node:path';
import {Errno, NeverReturns} from '../errno.js';
import type {KernelEvent} from '../kernel/events.js';
import type {SimulatedMachine} from '../kernel/machine.js';
import {probeModule} from '../programs/kmod.js';
import {parseRules, type Rule} from './rules.js';
import {applyRules, type UdevResult} from './worker.js';

const ruleFolders = ['/etc/udev/rules.d', '/run/udev/rules.d', '/usr/lib/udev/rules.d', '/lib/udev/rules.d'];
/** Rules that are no product's. */
const stockRules = new Set(['/usr/lib/udev/rules.d/80-drivers.rules']);

/** What systemd makes of an event that udev is done with. */
export type Follower = (event: KernelEvent, result: UdevResult, onlyStock: boolean) => void;

/** udevd: takes the kernel's events, runs the rules, and tells systemd. */
export class UdevDaemon {
  /** What each event's rules did, in order. */
  readonly results: UdevResult[] = [];
  /**
   * One event at a time, as with udev.children_max=1: the module that one device's event loads may take its twin
   * before the rules have seen that one.
   */
  oneWorker = false;
  readonly #machine: SimulatedMachine;
  readonly #follow: Follower;
  readonly #queue: KernelEvent[] = [];
  readonly #parsed = new Map<string, Rule[]>();
  /** The properties of each device at its last event, by path. */
  readonly #database = new Map<string, Readonly<Record<string, string>>>();
  #paused = false;
  #busy = false;

  constructor(machine: SimulatedMachine, follow: Follower) {
    this.#machine = machine;
    this.#follow = follow;
    machine.subscribe((event) => this.#queue.push(event));
  }

  /** Processes that the rules would have started until now. */
  get processes(): string[] {
    return this.results.flatMap((each) => each.processes);
  }

  /** Holds events back (`udevadm control --stop-exec-queue`), or lets them go. */
  pauseEvents(paused: boolean): void {
    this.#paused = paused;
    this.handleEvents();
  }

  /**
   * Lets udev work through the events that came. Writes and module loads of rules make more of them.
   *
   * Its workers run side by side, and a module takes much longer to load than rules take: so the rules of all
   * events that wait are run before the first module is loaded, unless {@link oneWorker}.
   */
  handleEvents(): void {
    if (this.#busy || this.#paused) return;
    this.#busy = true;
    try {
      while (this.#queue.length > 0) {
        const batch = this.#queue.splice(0, this.oneWorker ? 1 : this.#queue.length);
        const loads = batch.map((event) => this.#handle(event));
        for (const load of loads) load();
      }
    } finally {
      this.#busy = false;
    }
  }

  /** Whether no rules of a product are on the machine. */
  hasOnlyStockRules(): boolean {
    return this.#ruleFiles().every(([path]) => stockRules.has(path));
  }

  /** Runs the rules of an event; the function returned runs what comes after them. */
  #handle(event: KernelEvent): () => void {
    const files = this.#ruleFiles();
    const rules = files.flatMap(([path, text]) => this.#parse(path, text));
    const result = applyRules(this.#machine, event, rules, this.#database.get(event.devpath));
    this.results.push(result);
    if (event.action === 'remove') this.#database.delete(event.devpath);
    else this.#database.set(event.devpath, result.properties);
    return () => {
      for (const builtin of result.builtins) this.#builtin(builtin, result);
      this.#follow(
        event,
        result,
        files.every(([path]) => stockRules.has(path)),
      );
    };
  }

  #parse(path: string, text: string): Rule[] {
    const key = `${path}\0${text}`;
    const found = this.#parsed.get(key) ?? parseRules(text, path);
    this.#parsed.set(key, found);
    return found;
  }

  #builtin(text: string, result: UdevResult): void {
    const [name, verb, ...aliases] = text.trim().split(/\s+/);
    if (name !== 'kmod' || verb !== 'load')
      throw new Error(`udev: the builtin ${text} is not in this subset`);
    // Without a name it is the device's own alias.
    const wanted = aliases.length > 0 ? aliases : [result.properties['MODALIAS'] ?? ''];
    for (const alias of wanted.filter((each) => each !== ''))
      try {
        // As modprobe -b: what an administrator has put on the blacklist stays away.
        probeModule(this.#machine, alias.replace(/^'(.*)'$/, '$1'), {blacklist: true});
      } catch (error) {
        if (error instanceof NeverReturns) result.stuck = true;
        else if (!(error instanceof Errno)) throw error;
        result.log.push(`kmod: ${alias}: ${error.message}`);
      }
  }

  #ruleFiles(): [string, string][] {
    const found = new Map<string, string>();
    for (const folder of ruleFolders)
      for (const name of this.#machine.tree.list(folder))
        if (name.endsWith('.rules') && !found.has(name)) found.set(name, posix.join(folder, name));
    return [...found.entries()]
      .sort(([one], [other]) => (one < other ? -1 : 1))
      .map(([, path]) => [path, this.#machine.tree.read(path) ?? '']);
  }
}
