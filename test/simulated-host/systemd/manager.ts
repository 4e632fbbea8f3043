import {posix} from 'node:path';
import type {ProcessDeclaration} from '../declaration.js';
import type {KernelEvent} from '../kernel/events.js';
import type {SimulatedMachine} from '../kernel/machine.js';
import {runProgram} from '../programs/run.js';
import type {UdevResult} from '../udev/worker.js';
import {commandOf, deviceUnit, UnitFiles, type UnitFile} from './unit-files.js';

/** Runs one program of a unit, with the arguments of its line; the number is the exit code. */
export type Execute = (unit: string, argv: readonly string[]) => number | Promise<number>;

/** A unit's state, as `systemctl is-active` prints it. */
export type UnitState = 'active' | 'inactive' | 'activating' | 'deactivating' | 'failed';

/** What a systemctl verb answers for one unit. */
export interface JobResult {
  readonly status: number;
  readonly stderr: string;
}

/** Milliseconds that a user's manager outlives the user's last session. */
const userDelay = 10_000;
const done: JobResult = {status: 0, stderr: ''};

/** The service manager: units, their jobs, and the units of devices. */
export class Manager {
  readonly files: UnitFiles;
  /** Start and stop of units, in order: `start pearasys-…`. */
  readonly jobs: string[] = [];
  /** Runs the programs of units. What the machine has no program for does nothing and succeeds. */
  execute: Execute = async (_unit, [file = '', ...args]) =>
    (await runProgram(this.#machine, 0, file, args))?.status ?? 0;
  /** What `systemctl is-system-running` answers. */
  systemState: 'starting' | 'running' | 'stopping' = 'running';
  /** Units whose start is queued behind that of others. */
  readonly waiting = new Set<string>();
  readonly #machine: SimulatedMachine;
  /** Whether only rules of the distribution are on the machine. */
  readonly #hasOnlyStockRules: () => boolean;
  /** Waits until nothing is under way. */
  readonly #idle: () => Promise<void>;
  /** Leaves work to the background. */
  readonly #queue: (work: Promise<unknown>) => void;
  readonly #states = new Map<string, UnitState>();
  /** A job under way, by unit. */
  readonly #running = new Map<string, Promise<JobResult>>();
  /** Device units by device path, with all their names. */
  readonly #devices = new Map<string, Set<string>>();
  /** Devices whose last event had no tag: forgotten at the next daemon-reload. */
  readonly #untagged = new Set<string>();
  /** Processes that ended with their unit, and come back with it. */
  readonly #ended = new Map<string, ProcessDeclaration[]>();
  /** When a unit was last started, and a device first seen, in microseconds since the boot. */
  readonly #started = new Map<string, number>();
  #clock = 1_000_000;

  constructor(
    machine: SimulatedMachine,
    around: {
      readonly hasOnlyStockRules: () => boolean;
      readonly idle: () => Promise<void>;
      readonly queue: (work: Promise<unknown>) => void;
    },
  ) {
    this.#machine = machine;
    this.#hasOnlyStockRules = around.hasOnlyStockRules;
    this.#idle = around.idle;
    this.#queue = around.queue;
    this.files = new UnitFiles(machine);
    const {displayManager} = machine.declaration;
    if (displayManager !== undefined) this.#states.set(displayManager, 'active');
    // What is in the machine at the start went through udev when it booted.
    for (const {path, slot, parts} of machine.functions.values()) {
      this.#devices.set(path, new Set([deviceUnit(path), deviceUnit(`/sys/bus/pci/devices/${slot}`)]));
      this.#initialize(`+pci:${slot}`);
      for (const {subsystem, files} of parts)
        this.#initialize(databaseName(subsystem, {number: files['dev'], index: files['ifindex']}));
    }
  }

  // ---------------------------------------------------------------- device units

  /** systemd's part of an event: device units come and go, and with them what they want and what is bound to them. */
  follow(event: KernelEvent, result: UdevResult, onlyStock: boolean): void {
    const path = `/sys${event.devpath}`;
    const slot = posix.basename(path);
    const {MAJOR, MINOR, IFINDEX} = event.properties;
    const database =
      event.subsystem === 'pci'
        ? `+pci:${slot}`
        : databaseName(event.subsystem, {number: `${MAJOR ?? ''}:${MINOR ?? ''}`, index: IFINDEX});
    if (event.action === 'remove') {
      if (database !== undefined) this.#machine.tree.remove(`/run/udev/data/${database}`);
      this.#forget(path);
      return;
    }
    this.#initialize(database);
    const names = new Set([deviceUnit(path)]);
    for (const alias of (result.properties['SYSTEMD_ALIAS'] ?? '').split(' ').filter(Boolean))
      names.add(deviceUnit(alias));
    // Without the product's rules in the tree, its device units are there all the same: most tests need no more.
    if (onlyStock && event.subsystem === 'pci') names.add(deviceUnit(`/sys/bus/pci/devices/${slot}`));
    const ready = (result.tags.has('systemd') || onlyStock) && result.properties['SYSTEMD_READY'] !== '0';
    if (!ready) {
      // Without the tag systemd does not hear of the event at all.
      if (result.tags.has('systemd')) this.#forget(path);
      else if (this.#devices.has(path)) this.#untagged.add(path);
      return;
    }
    this.#untagged.delete(path);
    const before = this.#devices.get(path);
    this.#devices.set(path, names);
    const wanted = (result.properties['SYSTEMD_WANTS'] ?? '').split(' ').filter(Boolean);
    for (const name of names) if (before?.has(name) !== true) wanted.push(...this.files.wantedBy(name));
    for (const unit of wanted) this.#queue(this.start(unit, 'fail'));
  }

  /** udev's record of a device keeps when it was first seen. */
  #initialize(name: string | undefined): void {
    if (name === undefined) return;
    const path = `/run/udev/data/${name}`;
    if (!this.#machine.tree.has(path)) this.#machine.tree.file(path, `I:${++this.#clock}\n`, 0o644);
  }

  #forget(path: string): void {
    const names = this.#devices.get(path);
    this.#devices.delete(path);
    this.#untagged.delete(path);
    this.#stopBound(names ?? new Set());
  }

  /** Stops what is bound to a unit that is gone, see BindsTo= in systemd.unit(5). */
  #stopBound(names: ReadonlySet<string>): void {
    for (const [unit, state] of this.#states) {
      if (state !== 'active' && state !== 'activating') continue;
      const bound = this.files.unitFile(unit)?.values.get('Unit.BindsTo') ?? [];
      if (bound.some((name) => names.has(name))) this.#queue(this.stop(unit));
    }
  }

  /** Whether a device unit of this name is there. */
  hasDevice(name: string): boolean {
    if ([...this.#devices.values()].some((names) => names.has(name))) return true;
    if (!this.#hasOnlyStockRules()) return false;
    return [...this.#machine.functions.keys()].some(
      (slot) => deviceUnit(`/sys/bus/pci/devices/${slot}`) === name,
    );
  }

  /** The boot, before udev has handled an event. */
  forgetDevices(): void {
    this.#devices.clear();
    this.#machine.tree.remove('/run/udev/data');
  }

  // ---------------------------------------------------------------- units

  /** Every unit that systemd holds in memory because something happened to it. */
  get units(): ReadonlyMap<string, UnitState> {
    return this.#states;
  }

  state(unit: string): UnitState {
    if (unit.endsWith('.device')) return this.hasDevice(unit) ? 'active' : 'inactive';
    return this.#states.get(unit) ?? 'inactive';
  }

  /** When the unit was last started, in microseconds since the boot; 0 for never. */
  startedAt(unit: string): number {
    return this.#started.get(unit) ?? 0;
  }

  setState(unit: string, state: UnitState): void {
    this.#states.set(unit, state);
  }

  /** Whether a job for the unit is queued or under way. */
  hasJob(unit: string): boolean {
    return this.waiting.has(unit) || this.#running.has(unit);
  }

  /** @param mode `fail` when a device wants the unit: its start does not replace a stop that is under way (EDEADLK). */
  async start(alias: string, mode: 'replace' | 'fail' = 'replace'): Promise<JobResult> {
    const unit = this.files.nameOf(alias);
    this.waiting.delete(unit);
    const running = this.#running.get(unit);
    if (running !== undefined) {
      if (this.state(unit) !== 'deactivating') return await running;
      if (mode === 'fail') return {status: 1, stderr: `Failed to start ${unit}: Resource deadlock avoided`};
      await running;
    }
    if (unit.endsWith('.device')) return await this.#awaitDevice(unit);
    const file = this.files.unitFile(unit);
    if (file === undefined) return {status: 5, stderr: `Failed to start ${unit}: Unit ${unit} not found.`};
    if (this.files.isMasked(unit))
      return {status: 1, stderr: `Failed to start ${unit}: Unit ${unit} is masked.`};
    if (this.state(unit) === 'active') return done;
    this.#states.set(unit, 'activating');
    this.#started.set(unit, ++this.#clock);
    return await this.#job(unit, () => this.#start(unit, file));
  }

  /** The start of a device unit is the wait for it, see systemd.device(5). */
  async #awaitDevice(unit: string): Promise<JobResult> {
    if (!this.hasDevice(unit)) await this.#idle();
    if (this.hasDevice(unit)) return done;
    this.#machine.elapsed += 90_000;
    return {status: 1, stderr: `Job for ${unit} timed out.`};
  }

  async stop(alias: string): Promise<JobResult> {
    const unit = this.files.nameOf(alias);
    const running = this.#running.get(unit);
    if (running !== undefined) await running;
    // The stop takes the place of a start that has not begun.
    if (this.waiting.delete(unit)) {
      this.jobs.push(`stop ${unit}`);
      return done;
    }
    if (this.files.unitFile(unit) === undefined && !this.#states.has(unit))
      return {status: 5, stderr: `Failed to stop ${unit}: Unit ${unit} not loaded.`};
    if (this.state(unit) !== 'active') return done;
    this.#states.set(unit, 'deactivating');
    return await this.#job(unit, () => this.#stop(unit));
  }

  /** Runs ExecReload=, which leaves the unit active whatever comes of it. */
  async reloadUnit(unit: string): Promise<JobResult> {
    if (this.files.unitFile(unit)?.values.get('Service.ExecReload') === undefined)
      return {
        status: 1,
        stderr: `Failed to reload ${unit}: Job type reload is not applicable for unit ${unit}.`,
      };
    return await this.#job(unit, async () => {
      this.jobs.push(`reload ${unit}`);
      if ((await this.#run(unit, 'ExecReload')) === 0) return done;
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

  /** Runs the lines of a key, one after the other until one fails. */
  async #run(unit: string, key: string): Promise<number> {
    for (const line of this.files.unitFile(unit)?.values.get(`Service.${key}`) ?? []) {
      const {argv, mayFail} = commandOf(line);
      const status = await this.execute(unit, argv);
      if (status !== 0 && !mayFail) return status;
    }
    return 0;
  }

  async #start(unit: string, file: UnitFile): Promise<JobResult> {
    for (const device of file.values.get('Unit.BindsTo') ?? [])
      if (device.endsWith('.device') && !this.hasDevice(device)) {
        this.#machine.elapsed += 90_000;
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
      ...this.files.wantedBy(unit),
    ].filter((other) => this.files.unitFile(other) !== undefined);
    for (const other of new Set(pulled))
      if (file.values.get('Unit.After')?.includes(other) !== true) this.#queue(this.start(other));
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
    // Exit codes from 1 to 254 skip the unit, see ExecCondition= in systemd.service(5).
    const condition = await this.#run(unit, 'ExecCondition');
    if (condition > 0 && condition < 255) {
      this.#states.set(unit, 'inactive');
      return done;
    }
    this.jobs.push(`start ${unit}`);
    let status: number;
    try {
      status = condition > 0 ? condition : await this.#run(unit, 'ExecStart');
    } catch (error) {
      this.#states.set(unit, 'failed');
      throw error;
    }
    if (status !== 0) {
      this.#states.set(unit, 'failed');
      // ExecStop= is for what has started, ExecStopPost= for all, see systemd.service(5).
      await this.#run(unit, 'ExecStopPost');
      this.#stopBound(new Set([unit]));
      return {
        status: 1,
        stderr:
          `Job for ${unit} failed because the control process exited with error code.\n` +
          `See "systemctl status ${unit}" and "journalctl -xeu ${unit}" for details.`,
      };
    }
    for (const process of this.#ended.get(unit) ?? [])
      if (!this.#machine.tree.has(`/proc/${process.pid}`)) this.#machine.addProcess(process);
    this.#ended.delete(unit);
    if (unit.endsWith('.mount')) this.#mount(file);
    const oneshot = file.values.get('Service.Type')?.at(-1) === 'oneshot';
    const remains = ['yes', 'true', '1', 'on'].includes(
      file.values.get('Service.RemainAfterExit')?.at(-1) ?? 'no',
    );
    this.#states.set(unit, oneshot && !remains ? 'inactive' : 'active');
    return done;
  }

  #mount({values}: UnitFile): void {
    const [target, source, type, options] = ['Where', 'What', 'Type', 'Options'].map(
      (key) => values.get(`Mount.${key}`)?.at(-1) ?? '',
    ) as [string, string, string, string];
    this.#machine.tree.directory(target);
    this.#machine.mount({target, source, type, options: `rw,${options}`});
  }

  async #stop(unit: string): Promise<JobResult> {
    this.jobs.push(`stop ${unit}`);
    const mounted = unit.endsWith('.mount') ? this.files.unitFile(unit)?.values.get('Mount.Where') : [];
    for (const target of mounted ?? []) this.#machine.hostUse.unmount(target);
    let state: UnitState = 'inactive';
    try {
      // A failing ExecStop= leaves the unit failed, and systemctl stop content all the same.
      for (const key of ['ExecStop', 'ExecStopPost'])
        if ((await this.#run(unit, key)) !== 0) state = 'failed';
    } finally {
      this.#states.set(unit, state);
    }
    this.#stopBound(new Set([unit]));
    const ended = this.#machine.processes.processesOf(unit);
    const users = new Set(ended.map(({cgroup = ''}) => /\/user-(\d+)\.slice\/session-/.exec(cgroup)?.[1]));
    for (const {pid} of ended) this.#machine.endProcess(pid);
    // A user's manager ends with all it runs some time after the user's last session (logind.conf(5), UserStopDelaySec=).
    const lingering = this.#machine.processes.processesIn(
      [...users]
        .filter((user) => user !== undefined)
        .filter((user) => !this.#staysFor(user, ended))
        .map((user) => `/user.slice/user-${user}.slice/`),
    );
    for (const {pid} of lingering)
      this.#machine.after(userDelay, () => {
        if (this.#machine.tree.has(`/proc/${pid}`)) this.#machine.endProcess(pid);
      });
    if (ended.length > 0) this.#ended.set(unit, [...ended, ...lingering]);
    return done;
  }

  /** Ends what a unit of a user's service manager runs. */
  stopOfUser(user: string, unit: string): void {
    this.jobs.push(`stop ${unit} of ${user}`);
    const ended = this.#machine.processes
      .processesIn([`/user.slice/user-${user}.slice/user@${user}.service/`])
      .filter(({cgroup = ''}) => cgroup.split('/').includes(unit));
    for (const {pid} of ended) this.#machine.endProcess(pid);
    this.#ended.set(`${user}:${unit}`, ended);
  }

  startOfUser(user: string, unit: string): void {
    this.jobs.push(`start ${unit} of ${user}`);
    for (const process of this.#ended.get(`${user}:${unit}`) ?? []) this.#machine.addProcess(process);
    this.#ended.delete(`${user}:${unit}`);
  }

  /** Whether logind keeps a user's service manager: the user lingers, or has a session that does not end with this unit. */
  #staysFor(user: string, ended: readonly ProcessDeclaration[]): boolean {
    const name = new RegExp(`^([^:]+):[^:]*:${user}:`, 'm').exec(
      this.#machine.tree.read('/etc/passwd') ?? '',
    )?.[1];
    if (name !== undefined && this.#machine.tree.has(`/var/lib/systemd/linger/${name}`)) return true;
    return this.#machine.processes
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
            this.files.unitFile(other)?.values.get('Unit.Conflicts')?.includes(unit) === true),
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
        const real = this.#machine.tree.resolve(path);
        let holds: boolean;
        if (name === 'PathExists') holds = real !== undefined;
        else if (name === 'PathIsDirectory')
          holds = real !== undefined && this.#machine.tree.stat(real)?.isDirectory() === true;
        else if (name === 'KernelCommandLine')
          holds = (this.#machine.tree.read('/proc/cmdline') ?? '').trim().split(/\s+/).includes(path);
        else throw new Error(`systemd: ${key}= is not in this subset`);
        if (negation !== '') holds = !holds;
        if (alternative !== '') alternatives.push(holds);
        else if (!holds) return false;
      }
    }
    return alternatives.length === 0 || alternatives.includes(true);
  }

  /** `systemctl daemon-reload`: devices that lost their tag lose their unit, and what is bound to it stops. */
  reload(): void {
    this.files.reload();
    for (const path of this.#untagged) this.#forget(path);
  }
}

/** The name of udev's file about a disk or an interface (sd_device(3), device ID); undefined for others. */
function databaseName(
  subsystem: string,
  {number, index}: {readonly number: string | undefined; readonly index: string | undefined},
): string | undefined {
  if (subsystem === 'block') return number === undefined ? undefined : `b${number}`;
  return subsystem === 'net' && index !== undefined ? `n${index}` : undefined;
}
