import type {SimulatedMachine} from './kernel/machine.js';
import {Manager, type Execute, type JobResult, type UnitState} from './systemd/manager.js';
import type {UnitFile} from './systemd/unit-files.js';
import {UdevDaemon} from './udev/daemon.js';
import type {UdevResult} from './udev/worker.js';

const known = new WeakMap<SimulatedMachine, Userland>();

/** systemd and udev of a simulated machine, as one object: they only work together. */
export class Userland {
  readonly machine: SimulatedMachine;
  readonly udev: UdevDaemon;
  readonly systemd: Manager;
  readonly #background = new Set<Promise<unknown>>();
  readonly #errors: unknown[] = [];

  private constructor(machine: SimulatedMachine) {
    this.machine = machine;
    this.systemd = new Manager(machine, {
      hasOnlyStockRules: () => this.udev.hasOnlyStockRules(),
      idle: () => this.idle(),
      queue: (work) => this.queue(work),
    });
    this.udev = new UdevDaemon(machine, (event, result, onlyStock) =>
      this.systemd.follow(event, result, onlyStock),
    );
  }

  static of(machine: SimulatedMachine): Userland {
    const found = known.get(machine) ?? new Userland(machine);
    known.set(machine, found);
    return found;
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

  /**
   * What the boot does for devices that the kernel found before udev ran: synthetic `add` events, after which
   * systemd starts what wants them.
   */
  coldplug(): void {
    this.systemd.forgetDevices();
    for (const {path} of [...this.machine.functions.values()])
      this.machine.events.trigger(path, 'add', '11111111-1111-1111-1111-111111111111');
    this.handleEvents();
  }

  // ---------------------------------------------------------------- udev

  /** See {@link UdevDaemon.results}. */
  get results(): UdevResult[] {
    return this.udev.results;
  }

  /** See {@link UdevDaemon.processes}. */
  get processes(): string[] {
    return this.udev.processes;
  }

  /** See {@link UdevDaemon.oneWorker}. */
  set oneWorker(on: boolean) {
    this.udev.oneWorker = on;
  }

  /** See {@link UdevDaemon.pauseEvents}. */
  pauseEvents(paused: boolean): void {
    this.udev.pauseEvents(paused);
  }

  /** See {@link UdevDaemon.handleEvents}. */
  handleEvents(): void {
    this.udev.handleEvents();
  }

  // ---------------------------------------------------------------- systemd

  /** See {@link Manager.jobs}. */
  get jobs(): string[] {
    return this.systemd.jobs;
  }

  /** See {@link Manager.execute}. */
  get execute(): Execute {
    return this.systemd.execute;
  }

  set execute(execute: Execute) {
    this.systemd.execute = execute;
  }

  /** See {@link Manager.systemState}. */
  set systemState(state: Manager['systemState']) {
    this.systemd.systemState = state;
  }

  /** See {@link Manager.waiting}. */
  get waiting(): Set<string> {
    return this.systemd.waiting;
  }

  /** See {@link Manager.units}. */
  get units(): ReadonlyMap<string, UnitState> {
    return this.systemd.units;
  }

  state(unit: string): UnitState {
    return this.systemd.state(unit);
  }

  setState(unit: string, state: UnitState): void {
    this.systemd.setState(unit, state);
  }

  start(unit: string): Promise<JobResult> {
    return this.systemd.start(unit);
  }

  stop(unit: string): Promise<JobResult> {
    return this.systemd.stop(unit);
  }

  reload(): void {
    this.systemd.reload();
  }

  unitFile(name: string): UnitFile | undefined {
    return this.systemd.files.unitFile(name);
  }

  enablement(unit: string): string | undefined {
    return this.systemd.files.enablement(unit);
  }

  linksOf(unit: string): string[] {
    return this.systemd.files.linksOf(unit);
  }
}
