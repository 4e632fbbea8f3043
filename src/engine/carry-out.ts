import {ExitCode, PearasysError} from '../host/errors.js';
import type {Host, Lock} from '../host/host.js';
import {applyPlan} from './apply.js';
import type {ApplyOptions} from './apply-options.js';
import {plan, shellLine, type Plan, type Planned, type Step} from '../plan/step.js';
import {describeUnfinished, isUnfinished, planFinish, readUnfinished} from '../plan/unfinished.js';

/** Settings of {@link carryOut}. */
export interface CarryOutOptions extends ApplyOptions {
  /** Plan and show, but do nothing. */
  readonly dryRun: boolean;
  /** Milliseconds to wait for another run that holds a lock; default as for one write. */
  readonly lockLimit?: number;
  /** Whether any user may do it, for example in a home folder; default only root. */
  readonly anyUser?: boolean;
}

/** Steps that need the running kernel, udev or a process. */
const liveSteps: ReadonlySet<Step['kind']> = new Set([
  'write-attribute',
  'load-module',
  'unload-module',
  'end-processes',
  'set-owner',
  'udevadm',
  'run-later',
  'rebuild-initramfs',
]);

/** The names of locks, or the function that computes them. */
export type Names = readonly string[] | (() => readonly string[]);

/** The outcome of a run. */
export interface Outcome {
  readonly plan: Plan;
  /** The plan as shell lines. */
  readonly lines: readonly string[];
  /** Whether anything was done; false for a dry run and when there was nothing to do. */
  readonly changed: boolean;
}

/**
 * Takes the locks, reads, plans, and applies the plan. Reading happens under the locks, so two concurrent runs end in
 * the state of one of them.
 * @param names what to lock: slots, UUIDs; a function if that depends on files that others may change. Then it is
 *   called again under the locks, until all names are locked.
 * @param readAndPlan reads the machine and plans; it must have no effect. The first call has `early`: then data that
 *   the caller has just read may be used. Under the locks everything is read again.
 * @throws PearasysError the refusal; `not-root`; `busy`; or what {@link applyPlan} throws.
 */
export async function carryOut(
  host: Host,
  names: Names,
  readAndPlan: (when: 'early' | 'again') => Planned,
  options: CarryOutOptions,
): Promise<Outcome> {
  const early = readAndPlan('early');
  // A plan without steps needs neither root nor a lock, nor does a dry run.
  const already =
    early.kind === 'plan' && early.steps.length === 0 && !mayFinish(host, listed(names), options);
  if (options.dryRun || already) {
    const planned = accept(early, options);
    return {plan: planned, lines: planned.steps.map(shellLine), changed: false};
  }
  if (options.anyUser !== true) requireRoot(host, early);
  let locks: Locks;
  try {
    locks = await lockAll(host, names, options);
  } catch (error) {
    if (!(error instanceof PearasysError) || error.code !== 'busy') throw error;
    // The run that holds the lock may have made the same change.
    const now = readAndPlan('again');
    if (now.kind === 'refusal' || now.steps.length > 0) throw error;
    return {plan: accept(now, options), lines: [], changed: false};
  }
  try {
    const held = [...locks.keys()];
    // A run that had the lock before may have left a write that does not return.
    await host.findLocked(options.limit);
    await finish(host, held, options);
    const answer = readAndPlan('again');
    if (answer.kind === 'refusal') await applyPlan(host, plan(answer.tell ?? []), options);
    const planned = accept(answer, options);
    refuseOnImage(host, planned);
    const unfinished = describeUnfinished(planned);
    if (unfinished !== undefined)
      for (const name of held) host.noteUnfinished(name, JSON.stringify(unfinished));
    try {
      await applyPlan(host, planned, options);
    } finally {
      // A refusal keeps it, because what a killed run left must still be finished.
      for (const name of held) if (isUnfinished(host, name)) host.noteUnfinished(name, undefined);
    }
    // A unit that was started or stopped may have left one too: the caller reads the devices, and must not block.
    await host.findLocked(options.limit);
    return {plan: planned, lines: planned.steps.map(shellLine), changed: planned.steps.length > 0};
  } finally {
    await releaseAll(locks);
  }
}

/** The held locks, by name. */
type Locks = ReadonlyMap<string, Lock>;

function listed(names: Names): readonly string[] {
  return typeof names === 'function' ? names() : names;
}

/**
 * Locks all names in the same order in each run, because otherwise two runs could deadlock. The names may change during
 * the wait: then all locks are released and taken again.
 * @throws PearasysError `busy` when another run still holds one of them, or they change each time; `interrupted`.
 */
async function lockAll(host: Host, names: Names, options: CarryOutOptions): Promise<Locks> {
  for (let tries = 1; ; tries++) {
    const wanted = [...new Set(listed(names))].sort();
    const locks = new Map<string, Lock>();
    try {
      for (const name of wanted)
        locks.set(name, await host.lock(name, options.lockLimit ?? options.limit, options.signal));
      const missing = listed(names).filter((name) => !locks.has(name));
      if (missing.length === 0) return locks;
      if (tries === maximumTries)
        throw new PearasysError({
          code: 'busy',
          exitCode: ExitCode.refused,
          message: `could not lock ${missing.join(', ')}: the devices to lock keep changing`,
          details: ['nothing was changed'],
          hint: 'find the program that keeps changing the file that names the devices, then run the same command again',
        });
    } catch (error) {
      await releaseAll(locks);
      throw error;
    }
    await releaseAll(locks);
  }
}

/** How often the names may change before {@link lockAll} refuses. */
const maximumTries = 5;

async function releaseAll(locks: Locks): Promise<void> {
  for (const lock of locks.values()) await lock.release();
}

/** Whether a killed run may have left something that this one can finish. */
function mayFinish(host: Host, names: readonly string[], {anyUser}: CarryOutOptions): boolean {
  if (anyUser !== true && host.userId !== 0 && host.root === '/') return false;
  return names.some((name) => isUnfinished(host, name));
}

/** Finishes what killed runs that held these locks have begun. */
async function finish(host: Host, names: readonly string[], options: CarryOutOptions): Promise<void> {
  const left = names.map((name) => readUnfinished(host, name)).filter((one) => one !== undefined);
  if (left.length === 0) return;
  await applyPlan(host, planFinish(host, left), options);
}

function accept(planned: Planned, options: CarryOutOptions): Plan {
  if (planned.kind === 'refusal') throw new PearasysError(planned.error);
  for (const note of planned.notes) options.onNote?.(note);
  return planned;
}

/** An image has only files: a write to the kernel would go to that of this machine. */
function refuseOnImage(host: Host, {steps}: Plan): void {
  const live = host.root === '/' ? undefined : steps.find(({kind}) => liveSteps.has(kind));
  if (live === undefined) return;
  throw new PearasysError({
    code: 'not-switchable',
    exitCode: ExitCode.refused,
    message: `this needs the running kernel, and ${host.root} is not the running machine: ${shellLine(live)}`,
    details: ['nothing was changed'],
    hint: 'omit --root to change this machine; for the next boot of an image, use: service install, mdev define',
  });
}

function requireRoot(host: Host, planned: Planned): void {
  if (host.userId === 0 || host.root !== '/') return;
  // If it would be refused anyway, that is the better message.
  if (planned.kind === 'refusal') throw new PearasysError(planned.error);
  throw new PearasysError({
    code: 'not-root',
    exitCode: ExitCode.failed,
    message: 'changing a device needs root',
    details: ['nothing was changed'],
    hint: 'run the same command with sudo, or with --dry-run to see what it would do',
  });
}
