import fs from 'node:fs';
import {posix} from 'node:path';
import type {ProcessDeclaration} from './declaration.js';
import {Errno, NeverReturns} from './errno.js';
import type {KernelEvent} from './kernel/events.js';
import type {SimulatedMachine} from './kernel/machine.js';
import {probeModule} from './modprobe.js';
import {applyRules, parseRules, type Rule, type UdevResult} from './udev-rules.js';

/** What a unit's programs do; the number is the exit code. Plug in the product's handlers here. */
export type UnitRunner = (unit: string, action: 'start' | 'stop' | 'reload') => number | Promise<number>;

/** A unit's state, as `systemctl is-active` prints it. */
export type UnitState = 'active' | 'inactive' | 'activating' | 'deactivating' | 'failed';

/** A unit file with its drop-ins, specifiers replaced. */
export interface UnitFile {
  readonly name: string;
  /** Where it is: for an instance the template's path. */
  readonly path: string;
  /** Values by `Section.Key`, in order; an empty one has cleared those before it. */
  readonly values: ReadonlyMap<string, readonly string[]>;
}

/** What a systemctl verb answers for one unit. */
export interface JobResult {
  readonly status: number;
  readonly stderr: string;
}

const unitFolders = [
  '/etc/systemd/system',
  '/run/systemd/system',
  '/run/systemd/transient',
  '/usr/lib/systemd/system',
  '/lib/systemd/system',
];
const ruleFolders = ['/etc/udev/rules.d', '/run/udev/rules.d', '/usr/lib/udev/rules.d', '/lib/udev/rules.d'];
/** Milliseconds that a user's manager outlives the user's last session. */
const userDelay = 10_000;
const done: JobResult = {status: 0, stderr: ''};
const known = new WeakMap<SimulatedMachine, Userland>();

/** systemd and udev of a simulated machine, as one object: they only work together. */
export class Userland {
  readonly machine: SimulatedMachine;
  /** What each event's rules did, in order. */
  readonly results: UdevResult[] = [];
  /** Start and stop of units, in order: `start pearasys-…`. */
  readonly jobs: string[] = [];
  /** Runs a unit's programs; the default does nothing and succeeds. */
  runUnit: UnitRunner = () => 0;
  /** What `systemctl is-system-running` answers. */
  systemState: 'starting' | 'running' | 'stopping' = 'running';
  /**
   * One event at a time, as with udev.children_max=1: the module that one device's event loads may take its twin
   * before the rules have seen that one.
   */
  oneWorker = false;
  /** Units whose start is queued behind that of others. */
  readonly waiting = new Set<string>();
  readonly #states = new Map<string, UnitState>();
  /** A job under way, by unit. */
  readonly #running = new Map<string, Promise<JobResult>>();
  /** Device units by device path, with all their names. */
  readonly #devices = new Map<string, Set<string>>();
  /** Devices whose last event had no tag: forgotten at the next daemon-reload. */
  readonly #untagged = new Set<string>();
  readonly #queue: KernelEvent[] = [];
  readonly #parsed = new Map<string, Rule[]>();
  readonly #background = new Set<Promise<unknown>>();
  readonly #errors: unknown[] = [];
  /** Processes that ended with their unit, and come back with it. */
  readonly #ended = new Map<string, ProcessDeclaration[]>();
  /** When a unit was last started, and a device first seen, in microseconds since the boot. */
  readonly #started = new Map<string, number>();
  /** The unit files as they were when systemd read them. */
  #loaded: string;
  #clock = 1_000_000;
  #paused = false;
  #busy = false;

  private constructor(machine: SimulatedMachine) {
    this.machine = machine;
    this.#loaded = this.#readUnits();
    machine.subscribe((event) => this.#queue.push(event));
    const {displayManager} = machine.declaration;
    if (displayManager !== undefined) this.#states.set(displayManager, 'active');
    // What is in the machine at the start went through udev when it booted.
    for (const {path, slot} of machine.functions.values()) {
      this.#devices.set(path, new Set([deviceUnit(path), deviceUnit(`/sys/bus/pci/devices/${slot}`)]));
      this.#initialize(slot);
    }
  }

  static of(machine: SimulatedMachine): Userland {
    const found = known.get(machine) ?? new Userland(machine);
    known.set(machine, found);
    return found;
  }

  // ---------------------------------------------------------------- udev

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

  /** Waits until nothing is under way: events, and the jobs they started. Throws what a job threw. */
  async idle(): Promise<void> {
    this.handleEvents();
    while (this.#background.size > 0) {
      await Promise.all(this.#background);
      this.handleEvents();
    }
    const [error] = this.#errors.splice(0);
    if (error !== undefined) throw error instanceof Error ? error : new Error(JSON.stringify(error));
  }

  /**
   * What the boot does for devices that the kernel found before udev ran: synthetic `add` events, after which
   * systemd starts what wants them.
   */
  coldplug(): void {
    this.#devices.clear();
    this.machine.tree.remove('/run/udev/data');
    for (const {path} of [...this.machine.functions.values()])
      this.machine.events.trigger(path, 'add', '11111111-1111-1111-1111-111111111111');
    this.handleEvents();
  }

  /** Runs the rules of an event; the function returned runs what comes after them. */
  #handle(event: KernelEvent): () => void {
    const files = this.#ruleFiles();
    const rules = files.flatMap(([path, text]) => this.#parse(path, text));
    const result = applyRules(this.machine, event, rules);
    this.results.push(result);
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
        probeModule(this.machine, alias.replace(/^'(.*)'$/, '$1'), {blacklist: true});
      } catch (error) {
        if (error instanceof NeverReturns) result.stuck = true;
        else if (!(error instanceof Errno)) throw error;
        result.log.push(`kmod: ${alias}: ${error.message}`);
      }
  }

  #ruleFiles(): [string, string][] {
    const found = new Map<string, string>();
    for (const folder of ruleFolders)
      for (const name of this.machine.tree.list(folder))
        if (name.endsWith('.rules') && !found.has(name)) found.set(name, posix.join(folder, name));
    return [...found.entries()]
      .sort(([one], [other]) => (one < other ? -1 : 1))
      .map(([, path]) => [path, this.machine.tree.read(path) ?? '']);
  }

  // ---------------------------------------------------------------- device units

  /** systemd's part of an event: device units come and go, and with them what they want and what is bound to them. */
  #follow(event: KernelEvent, result: UdevResult, onlyStock: boolean): void {
    const path = `/sys${event.devpath}`;
    const slot = posix.basename(path);
    if (event.action === 'remove') {
      if (event.subsystem === 'pci') this.machine.tree.remove(`/run/udev/data/+pci:${slot}`);
      this.#forget(path);
      return;
    }
    if (event.subsystem === 'pci') this.#initialize(slot);
    const names = new Set([deviceUnit(path)]);
    for (const alias of (result.properties['SYSTEMD_ALIAS'] ?? '').split(' ').filter(Boolean))
      names.add(deviceUnit(alias));
    // Without the product's rules in the tree, its device units are there all the same: most tests need no more.
    if (onlyStock && event.subsystem === 'pci') names.add(deviceUnit(`/sys/bus/pci/devices/${slot}`));
    const ready = (result.tags.has('systemd') || onlyStock) && result.properties['SYSTEMD_READY'] !== '0';
    if (!ready) {
      if (this.#devices.has(path)) this.#untagged.add(path);
      return;
    }
    this.#untagged.delete(path);
    const before = this.#devices.get(path);
    this.#devices.set(path, names);
    const wanted = (result.properties['SYSTEMD_WANTS'] ?? '').split(' ').filter(Boolean);
    for (const name of names) if (before?.has(name) !== true) wanted.push(...this.#wantedBy(name));
    for (const unit of wanted) this.queue(this.start(unit));
  }

  /** udev's record of a device keeps when it was first seen. */
  #initialize(slot: string): void {
    const path = `/run/udev/data/+pci:${slot}`;
    if (!this.machine.tree.has(path)) this.machine.tree.file(path, `I:${++this.#clock}\n`, 0o644);
  }

  #forget(path: string): void {
    const names = this.#devices.get(path);
    this.#devices.delete(path);
    this.#untagged.delete(path);
    for (const [unit, state] of this.#states) {
      if (state !== 'active' && state !== 'activating') continue;
      const bound = this.unitFile(unit)?.values.get('Unit.BindsTo') ?? [];
      if (bound.some((name) => names?.has(name) === true)) this.queue(this.stop(unit));
    }
  }

  /** Whether a device unit of this name is there. */
  hasDevice(name: string): boolean {
    if ([...this.#devices.values()].some((names) => names.has(name))) return true;
    if (!this.#ruleFiles().every(([path]) => stockRules.has(path))) return false;
    return [...this.machine.functions.keys()].some(
      (slot) => deviceUnit(`/sys/bus/pci/devices/${slot}`) === name,
    );
  }

  #wantedBy(name: string): string[] {
    return unitFolders.flatMap((folder) =>
      ['wants', 'requires'].flatMap((kind) => this.machine.tree.list(`${folder}/${name}.${kind}`)),
    );
  }

  /** Leaves work to the background; {@link idle} waits for it. */
  queue(work: Promise<unknown>): void {
    const guarded = work
      .catch((error: unknown) => this.#errors.push(error))
      .finally(() => {
        this.#background.delete(guarded);
        this.handleEvents();
      });
    this.#background.add(guarded);
  }

  // ---------------------------------------------------------------- units

  /** Every unit that systemd holds in memory because something happened to it. */
  get units(): ReadonlyMap<string, UnitState> {
    return this.#states;
  }

  state(unit: string): UnitState {
    return this.#states.get(unit) ?? 'inactive';
  }

  /** When the unit was last started, in microseconds since the boot; 0 for never. */
  startedAt(unit: string): number {
    return this.#started.get(unit) ?? 0;
  }

  setState(unit: string, state: UnitState): void {
    this.#states.set(unit, state);
  }

  /** The unit's file with its drop-ins; undefined when there is none. */
  unitFile(name: string): UnitFile | undefined {
    const path = this.#findUnit(name);
    if (path === undefined) return undefined;
    const values = new Map<string, string[]>();
    const texts = [this.machine.tree.read(path) ?? ''];
    const dropIns = new Map<string, string>();
    for (const folder of unitFolders)
      for (const dropIn of dropInFolders(name))
        for (const file of this.machine.tree.list(`${folder}/${dropIn}`))
          if (file.endsWith('.conf') && !dropIns.has(file)) dropIns.set(file, `${folder}/${dropIn}/${file}`);
    for (const file of [...dropIns.keys()].sort())
      texts.push(this.machine.tree.read(dropIns.get(file) ?? '') ?? '');
    for (const text of texts) readUnit(text, name, values);
    return {name, path, values};
  }

  #findUnit(name: string): string | undefined {
    for (const each of [name, templateOf(name)])
      for (const folder of unitFolders)
        if (each !== undefined && this.machine.tree.has(`${folder}/${each}`)) return `${folder}/${each}`;
    return undefined;
  }

  /** A unit's own name: a link in a folder of units is another name of the unit it leads to. */
  nameOf(unit: string): string {
    const path = this.#findUnit(unit);
    const real = path === undefined ? undefined : this.machine.tree.resolve(path);
    if (real === undefined || real === '/dev/null' || templateOf(unit) !== undefined) return unit;
    return posix.basename(real);
  }

  /** Other names of a unit. */
  aliasesOf(unit: string): string[] {
    const names = unitFolders.flatMap((folder) => this.machine.tree.list(folder));
    return [...new Set(names)].filter((name) => name !== unit && this.nameOf(name) === unit);
  }

  /** Whether a job for the unit is queued or under way. */
  hasJob(unit: string): boolean {
    return this.waiting.has(unit) || this.#running.has(unit);
  }

  async start(alias: string): Promise<JobResult> {
    const unit = this.nameOf(alias);
    this.waiting.delete(unit);
    const running = this.#running.get(unit);
    if (running !== undefined) {
      // A start while the stop is under way does not wait for it.
      if (this.state(unit) === 'deactivating')
        return {status: 1, stderr: `Failed to start ${unit}: Resource deadlock avoided`};
      return await running;
    }
    if (unit.endsWith('.device')) return await this.#awaitDevice(unit);
    const file = this.unitFile(unit);
    if (file === undefined) return {status: 5, stderr: `Failed to start ${unit}: Unit ${unit} not found.`};
    if (this.#isMasked(unit)) return {status: 1, stderr: `Failed to start ${unit}: Unit ${unit} is masked.`};
    if (this.state(unit) === 'active') return done;
    this.#states.set(unit, 'activating');
    this.#started.set(unit, ++this.#clock);
    return await this.#job(unit, () => this.#start(unit, file));
  }

  /** The start of a device unit is the wait for it, see systemd.device(5). */
  async #awaitDevice(unit: string): Promise<JobResult> {
    if (!this.hasDevice(unit)) await this.idle();
    if (this.hasDevice(unit)) return done;
    this.machine.elapsed += 90_000;
    return {status: 1, stderr: `Job for ${unit} timed out.`};
  }

  async stop(alias: string): Promise<JobResult> {
    const unit = this.nameOf(alias);
    const running = this.#running.get(unit);
    if (running !== undefined) await running;
    // The stop takes the place of a start that has not begun.
    if (this.waiting.delete(unit)) {
      this.jobs.push(`stop ${unit}`);
      return done;
    }
    if (this.unitFile(unit) === undefined && !this.#states.has(unit))
      return {status: 5, stderr: `Failed to stop ${unit}: Unit ${unit} not loaded.`};
    if (this.state(unit) !== 'active') return done;
    this.#states.set(unit, 'deactivating');
    return await this.#job(unit, () => this.#stop(unit));
  }

  /** Runs ExecReload=, which leaves the unit active whatever comes of it. */
  async reloadUnit(unit: string): Promise<JobResult> {
    if (this.unitFile(unit)?.values.get('Service.ExecReload') === undefined)
      return {
        status: 1,
        stderr: `Failed to reload ${unit}: Job type reload is not applicable for unit ${unit}.`,
      };
    return await this.#job(unit, async () => {
      this.jobs.push(`reload ${unit}`);
      if ((await this.runUnit(unit, 'reload')) === 0) return done;
      return {status: 1, stderr: `Job for ${unit} failed.`};
    });
  }

  async #job(unit: string, work: () => Promise<JobResult>): Promise<JobResult> {
    // Known as running before it begins: units may want each other.
    const job = Promise.resolve().then(work);
    this.#running.set(unit, job);
    try {
      return await job;
    } finally {
      this.#running.delete(unit);
    }
  }

  async #start(unit: string, file: UnitFile): Promise<JobResult> {
    for (const device of file.values.get('Unit.BindsTo') ?? [])
      if (device.endsWith('.device') && !this.hasDevice(device)) {
        this.machine.elapsed += 90_000;
        this.#states.set(unit, 'inactive');
        return {
          status: 1,
          stderr: `A dependency job for ${unit} failed. See 'journalctl -xe' for details.`,
        };
      }
    for (const other of this.#conflictsOf(unit, file)) await this.stop(other);
    const pulled = [
      ...(file.values.get('Unit.Wants') ?? []),
      ...(file.values.get('Unit.Requires') ?? []),
      ...this.#wantedBy(unit),
    ].filter((other) => this.unitFile(other) !== undefined);
    for (const other of new Set(pulled))
      if (file.values.get('Unit.After')?.includes(other) !== true) this.queue(this.start(other));
      else if (
        (await this.start(other)).status !== 0 &&
        file.values.get('Unit.Requires')?.includes(other) === true
      ) {
        this.#states.set(unit, 'inactive');
        return {
          status: 1,
          stderr: `A dependency job for ${unit} failed. See 'journalctl -xe' for details.`,
        };
      }
    if (!this.#conditionsHold(file)) {
      this.#states.set(unit, 'inactive');
      return done;
    }
    this.jobs.push(`start ${unit}`);
    let status: number;
    try {
      status = await this.runUnit(unit, 'start');
    } catch (error) {
      this.#states.set(unit, 'failed');
      throw error;
    }
    if (status !== 0) {
      this.#states.set(unit, 'failed');
      // ExecStop= is for what has started, ExecStopPost= for all, see systemd.service(5).
      if (file.values.get('Service.ExecStopPost') !== undefined) await this.runUnit(unit, 'stop');
      return {
        status: 1,
        stderr:
          `Job for ${unit} failed because the control process exited with error code.\n` +
          `See "systemctl status ${unit}" and "journalctl -xeu ${unit}" for details.`,
      };
    }
    for (const process of this.#ended.get(unit) ?? [])
      if (!this.machine.tree.has(`/proc/${process.pid}`)) this.machine.addProcess(process);
    this.#ended.delete(unit);
    const oneshot = file.values.get('Service.Type')?.at(-1) === 'oneshot';
    const remains = ['yes', 'true', '1', 'on'].includes(
      file.values.get('Service.RemainAfterExit')?.at(-1) ?? 'no',
    );
    this.#states.set(unit, oneshot && !remains ? 'inactive' : 'active');
    return done;
  }

  async #stop(unit: string): Promise<JobResult> {
    this.jobs.push(`stop ${unit}`);
    let state: UnitState = 'inactive';
    try {
      // A failing ExecStop= leaves the unit failed, and systemctl stop content all the same.
      if ((await this.runUnit(unit, 'stop')) !== 0) state = 'failed';
    } finally {
      this.#states.set(unit, state);
    }
    const ended = this.machine.processes.processesOf(unit);
    const users = new Set(ended.map(({cgroup = ''}) => /\/user-(\d+)\.slice\/session-/.exec(cgroup)?.[1]));
    for (const {pid} of ended) this.machine.endProcess(pid);
    // A user's manager ends with all it runs some time after the user's last session (logind.conf(5), UserStopDelaySec=).
    const lingering = this.machine.processes.processesIn(
      [...users]
        .filter((user) => user !== undefined)
        .filter((user) => !this.#staysFor(user, ended))
        .map((user) => `/user.slice/user-${user}.slice/`),
    );
    for (const {pid} of lingering)
      this.machine.after(userDelay, () => {
        if (this.machine.tree.has(`/proc/${pid}`)) this.machine.endProcess(pid);
      });
    if (ended.length > 0) this.#ended.set(unit, [...ended, ...lingering]);
    return done;
  }

  /** Ends what a unit of a user's service manager runs. */
  stopOfUser(user: string, unit: string): void {
    this.jobs.push(`stop ${unit} of ${user}`);
    const ended = this.machine.processes
      .processesIn([`/user.slice/user-${user}.slice/user@${user}.service/`])
      .filter(({cgroup = ''}) => cgroup.split('/').includes(unit));
    for (const {pid} of ended) this.machine.endProcess(pid);
    this.#ended.set(`${user}:${unit}`, ended);
  }

  startOfUser(user: string, unit: string): void {
    this.jobs.push(`start ${unit} of ${user}`);
    for (const process of this.#ended.get(`${user}:${unit}`) ?? []) this.machine.addProcess(process);
    this.#ended.delete(`${user}:${unit}`);
  }

  /** Whether logind keeps a user's service manager: the user lingers, or has a session that does not end with this unit. */
  #staysFor(user: string, ended: readonly ProcessDeclaration[]): boolean {
    const name = new RegExp(`^([^:]+):[^:]*:${user}:`, 'm').exec(
      this.machine.tree.read('/etc/passwd') ?? '',
    )?.[1];
    if (name !== undefined && this.machine.tree.has(`/var/lib/systemd/linger/${name}`)) return true;
    return this.machine.processes
      .processesIn([`/user.slice/user-${user}.slice/session-`])
      .some(({cgroup}) => !ended.some((process) => process.cgroup === cgroup));
  }

  /** Conflicts= works both ways. */
  #conflictsOf(unit: string, file: UnitFile): string[] {
    const own = file.values.get('Unit.Conflicts') ?? [];
    return [...this.#states]
      .filter(([, state]) => state === 'active')
      .map(([other]) => other)
      .filter(
        (other) =>
          other !== unit &&
          (own.includes(other) ||
            this.unitFile(other)?.values.get('Unit.Conflicts')?.includes(unit) === true),
      );
  }

  /** All conditions, and at least one of those that begin with `|`, see systemd.unit(5). */
  #conditionsHold(file: UnitFile): boolean {
    const alternatives: boolean[] = [];
    for (const [key, values] of file.values) {
      const name = /^Unit\.(?:Condition|Assert)(.+)$/.exec(key)?.[1];
      if (name === undefined) continue;
      for (const value of values) {
        const [, alternative = '', negation = '', path = ''] = /^(\|?)(!?)(.*)$/.exec(value) ?? [];
        const real = this.machine.tree.resolve(path);
        let holds: boolean;
        if (name === 'PathExists') holds = real !== undefined;
        else if (name === 'PathIsDirectory')
          holds = real !== undefined && this.machine.tree.stat(real)?.isDirectory() === true;
        else if (name === 'KernelCommandLine')
          holds = (this.machine.tree.read('/proc/cmdline') ?? '').trim().split(/\s+/).includes(path);
        else throw new Error(`systemd: ${key}= is not in this subset`);
        if (negation !== '') holds = !holds;
        if (alternative !== '') alternatives.push(holds);
        else if (!holds) return false;
      }
    }
    return alternatives.length === 0 || alternatives.includes(true);
  }

  #isMasked(unit: string): boolean {
    return unitFolders.some((folder) => {
      const stat = this.machine.tree.stat(`${folder}/${unit}`);
      return (
        stat?.isSymbolicLink() === true && this.machine.tree.resolve(`${folder}/${unit}`) === '/dev/null'
      );
    });
  }

  /** `enabled`, `disabled`, `static`, `masked`; undefined when there is no such file. */
  enablement(unit: string): string | undefined {
    if (this.#isMasked(unit)) return 'masked';
    const file = this.unitFile(unit);
    if (file === undefined) return undefined;
    const links = this.linksOf(unit);
    if (links.some((link) => link.startsWith('/etc/'))) return 'enabled';
    if (links.length > 0) return 'enabled-runtime';
    const sections = ['WantedBy', 'RequiredBy', 'Alias', 'Also'];
    return sections.some((key) => (file.values.get(`Install.${key}`) ?? []).length > 0)
      ? 'disabled'
      : 'static';
  }

  /** The links that `systemctl enable` has made for a unit. */
  linksOf(unit: string): string[] {
    return ['/etc/systemd/system', '/run/systemd/system'].flatMap((folder) =>
      this.machine.tree
        .list(folder)
        .filter((name) => /\.(?:wants|requires)$/.test(name))
        .map((name) => `${folder}/${name}/${unit}`)
        .filter((link) => this.machine.tree.stat(link)?.isSymbolicLink() === true),
    );
  }

  /** Whether unit files, drop-ins or links are not as systemd has last read them. */
  get needsReload(): boolean {
    return this.#readUnits() !== this.#loaded;
  }

  #readUnits(): string {
    const {tree} = this.machine;
    const read = (path: string): string[] => {
      const stat = tree.stat(path);
      if (stat?.isDirectory() === true)
        return tree
          .list(path)
          .filter((name) => !name.startsWith('.'))
          .flatMap((name) => read(`${path}/${name}`));
      const text = stat?.isSymbolicLink() === true ? fs.readlinkSync(tree.onDisk(path)) : tree.read(path);
      return stat === undefined ? [] : [`${path}\n${text ?? ''}`];
    };
    return unitFolders.slice(0, 2).flatMap(read).join('\n');
  }

  /** `systemctl daemon-reload`: devices that lost their tag lose their unit, and what is bound to it stops. */
  reload(): void {
    this.#loaded = this.#readUnits();
    for (const path of this.#untagged) this.#forget(path);
  }
}

/** Rules that are no product's. */
const stockRules = new Set(['/usr/lib/udev/rules.d/80-drivers.rules']);

/** The device unit's name of a path, escaped as systemd-escape(1) does. */
export function deviceUnit(path: string): string {
  const text = path.replace(/^\/+|\/+$/g, '');
  let name = '';
  Buffer.from(text).forEach((byte, index) => {
    const character = String.fromCharCode(byte);
    if (character === '/') name += '-';
    else if (/[A-Za-z0-9:_.]/.test(character) && !(index === 0 && character === '.')) name += character;
    else name += `\\x${byte.toString(16).padStart(2, '0')}`;
  });
  return `${name}.device`;
}

/** `pearasys-0000:01:00.0@.service` of an instance; undefined for a unit without one. */
export function templateOf(name: string): string | undefined {
  const match = /^([^@]+@)[^@]+(\.[a-z]+)$/.exec(name);
  return match === null ? undefined : `${match[1] ?? ''}${match[2] ?? ''}`;
}

/** The folders of drop-ins for a unit, from the general to its own: `pearasys-@.service.d`, …, `<name>.d`. */
function dropInFolders(name: string): string[] {
  const suffix = posix.extname(name);
  const template = templateOf(name);
  const at = template === undefined ? '' : '@';
  const prefix =
    template === undefined ? name.slice(0, -suffix.length) : template.slice(0, -suffix.length - 1);
  const folders: string[] = [`${suffix.slice(1)}.d`];
  for (let dash = prefix.indexOf('-'); dash !== -1; dash = prefix.indexOf('-', dash + 1))
    if (dash < prefix.length - 1) folders.push(`${prefix.slice(0, dash + 1)}${at}${suffix}.d`);
  if (template !== undefined) folders.push(`${template}.d`);
  return [...folders, `${name}.d`];
}

/** Keys whose value is a list of words; an empty value clears it. */
const lists = new Set([
  'Conflicts',
  'BindsTo',
  'Wants',
  'Requires',
  'After',
  'Before',
  'WantedBy',
  'RequiredBy',
  'Alias',
  'Also',
]);

function readUnit(text: string, name: string, values: Map<string, string[]>): void {
  let section = '';
  for (const raw of text.replaceAll(/\\\n/g, ' ').split('\n')) {
    const line = raw.trim();
    if (line === '' || line.startsWith('#') || line.startsWith(';')) continue;
    const header = /^\[(.+)\]$/.exec(line)?.[1];
    if (header !== undefined) {
      section = header;
      continue;
    }
    const at = line.indexOf('=');
    if (at === -1 || section === '') throw new Error(`systemd: ${name}: cannot read the line: ${line}`);
    const key = line.slice(0, at).trim();
    const value = line.slice(at + 1).trim();
    const full = `${section}.${key}`;
    if (value === '') {
      values.set(full, []);
      continue;
    }
    // ExecStart= and its like know more specifiers than are needed here; only names are replaced in them too.
    const replaced = specify(value, name);
    values.set(full, [...(values.get(full) ?? []), ...(lists.has(key) ? replaced.split(/\s+/) : [replaced])]);
  }
}

/** Replaces specifiers, see systemd.unit(5). */
function specify(value: string, unit: string): string {
  const suffix = posix.extname(unit);
  const whole = unit.slice(0, -suffix.length);
  const at = whole.indexOf('@');
  const prefix = at === -1 ? whole : whole.slice(0, at);
  const instance = at === -1 ? '' : whole.slice(at + 1);
  const last = prefix.slice(prefix.lastIndexOf('-') + 1);
  const unescape = (text: string) =>
    text
      .replaceAll('-', '/')
      .replace(/\\x([0-9a-f]{2})/g, (_, code: string) => String.fromCharCode(parseInt(code, 16)));
  const known: Readonly<Record<string, string>> = {
    '%': '%',
    n: unit,
    N: whole,
    p: prefix,
    P: unescape(prefix),
    i: instance,
    I: unescape(instance),
    j: last,
    J: unescape(last),
    t: '/run',
    S: '/var/lib',
  };
  return value.replace(/%(.)/g, (whole, letter: string) => {
    const found = known[letter];
    if (found === undefined) throw new Error(`systemd: the specifier ${whole} is not in this subset`);
    return found;
  });
}
