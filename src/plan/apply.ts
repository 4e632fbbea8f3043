import {ExitCode, PearasysError, StuckError, WriteError} from '../host/errors.js';
import type {Host} from '../host/host.js';
import {readDevice} from '../pci/device.js';
import {driversFolder} from '../pci/driver.js';
import {hasDevices} from '../pci/modules.js';
import {describeVfioUsers} from '../pci/holders/processes.js';
import type {Slot} from '../pci/slot.js';
import {endProcess, waitUntilFree} from './processes.js';
import {shellLine, type Plan, type Step} from './step.js';

/** Settings of {@link applyPlan}. */
export interface ApplyOptions {
  /** Milliseconds that one write to an attribute may take. */
  readonly limit: number;
  /** Told each step before it is done, and each undoing step. */
  readonly onStep?: (line: string, undoing: boolean) => void;
  /** An interrupt: the step under way ends, then all is undone. */
  readonly signal?: AbortSignal;
}

/**
 * Does the steps in order. When one fails or the signal comes, those done are undone in reverse.
 * @throws PearasysError what failed, what was undone, and what state each device is in.
 */
export async function applyPlan(host: Host, plan: Plan, options: ApplyOptions): Promise<void> {
  const done: Step[] = [];
  for (const step of plan.steps) {
    try {
      if (options.signal?.aborted === true) throw interrupted();
      tell(options, step, false);
      if (await applyStep(host, step, options.limit)) done.push(step);
    } catch (error) {
      throw await undoAll(host, plan, {done, failed: step, error}, options);
    }
  }
}

/** Where a plan stopped. */
interface Failure {
  readonly done: readonly Step[];
  readonly failed: Step;
  /** A {@link PearasysError}, unless it is a fault of this program. */
  readonly error: unknown;
}

async function undoAll(
  host: Host,
  plan: Plan,
  {done, failed, error}: Failure,
  options: ApplyOptions,
): Promise<unknown> {
  // The kernel holds the device's lock while a write to it is stuck: any other write would be stuck as well.
  const stuck = new Set<Slot>();
  const stuckWrites: StuckError[] = [];
  const noteStuck = (problem: unknown, step: Step) => {
    if (!(problem instanceof StuckError)) return;
    stuckWrites.push(problem);
    if (step.slot !== undefined) stuck.add(step.slot);
  };
  noteStuck(error, failed);
  const details = error instanceof PearasysError ? [...error.details] : [];
  let undone = 0;
  // A failed request to systemd may have been granted in part; a failed write has had no effect.
  const partial = failed.kind === 'systemctl' ? [failed] : [];
  const undoing = [...partial, ...[...done].reverse()].flatMap((step) => step.undo);
  for (const step of done.length > 0 ? [...undoing, ...plan.afterUndo] : undoing) {
    if (step.slot !== undefined && stuck.has(step.slot)) continue;
    try {
      tell(options, step, true);
      if (await applyStep(host, step, options.limit)) undone += 1;
    } catch (problem) {
      noteStuck(problem, step);
      const reason = problem instanceof Error ? problem.message : String(problem);
      details.push(`could not be undone: ${shellLine(step)}: ${reason}`);
    }
  }
  if (!(error instanceof PearasysError)) return error;
  for (const step of done)
    if (step.kind === 'end-process')
      details.push(`process ${step.process.pid} was ended, and cannot be started again from here`);
  if (undone > 0) details.push(`undone: ${count(undone, 'step')} of what had been done before`);
  const anyStuck = stuckWrites.length > 0;
  if (anyStuck) {
    details.push(...describeVfioUsers(host));
    // Reading a device that is locked would wait as long as that write.
    await host.findLocked(options.limit);
  }
  details.push(...describeState(host, plan, stuck));
  const hint = anyStuck
    ? 'end the process or guest that uses the device, then run the same command again'
    : error.hint;
  return new PearasysError({
    code: error.code,
    exitCode: anyStuck ? ExitCode.stuck : error.exitCode,
    message: error.message,
    details,
    ...(hint === undefined ? {} : {hint}),
    cause: error,
  });
}

/** A terminal that has gone must keep nothing from being done or undone. */
function tell(options: ApplyOptions, step: Step, undoing: boolean): void {
  try {
    options.onStep?.(shellLine(step), undoing);
  } catch {
    // Nobody is there to be told.
  }
}

function describeState(host: Host, plan: Plan, stuck: ReadonlySet<Slot>): string[] {
  const slots = new Set(plan.steps.map((step) => step.slot).filter((slot) => slot !== undefined));
  return [...slots].map((slot) => {
    const device = stuck.has(slot) ? 'stuck' : readDevice(host, slot);
    if (device === 'stuck' || device?.locked === true)
      return `state of ${slot}: unknown until that write returns, which it does when whoever uses the device lets go of it`;
    if (device === undefined) return `state of ${slot}: the device is gone`;
    const override = device.override === undefined ? '' : `, override ${device.override}`;
    return `state of ${slot}: ${device.driver === undefined ? 'no driver' : `on driver ${device.driver}`}${override}`;
  });
}

/** @returns whether there is anything to undo: false when the kernel answered that it is so already. */
async function applyStep(host: Host, step: Step, limit: number): Promise<boolean> {
  switch (step.kind) {
    case 'write-attribute':
      try {
        await host.writeAttribute(step.path, step.value, limit);
      } catch (error) {
        if (error instanceof WriteError && step.accept.includes(error.errno)) return false;
        throw error;
      }
      return true;
    case 'load-module':
      await host.run('modprobe', ['--', step.module]);
      return true;
    case 'unload-module':
      // Another run may have given a device to it meanwhile, which would lose its driver.
      if (hasDevices(host, step.module)) return false;
      if (step.alone === true) await host.run('rmmod', [step.module]);
      else await host.run('modprobe', ['-r', '--', step.module]);
      return true;
    case 'write-file':
      await host.writeFile(step.path, step.content, {mode: step.mode});
      return true;
    case 'remove-file':
      await host.removeFile(step.path, {prune: step.prune ?? 1});
      return true;
    case 'systemctl':
    case 'udevadm':
      await host.run(
        step.kind,
        host.root === '/' || step.kind === 'udevadm' ? step.args : [`--root=${host.root}`, ...step.args],
        {
          accept: step.accept,
        },
      );
      return true;
    case 'end-process':
      await endProcess(host, step);
      return true;
    case 'expect-free':
      await waitUntilFree(host, step);
      return true;
    case 'expect-driver':
      checkDriver(host, step.slot, step.driver);
      return true;
    case 'expect-registered':
      if (!host.exists(`${driversFolder}/${step.driver}`))
        throw new PearasysError({
          code: 'no-driver',
          exitCode: ExitCode.failed,
          message: `the module was loaded, but it brought no PCI driver called ${step.driver}`,
          hint: `\`ls ${driversFolder}\` shows what the drivers call themselves`,
        });
      return true;
  }
}

function checkDriver(host: Host, slot: Slot, wanted: string | undefined): void {
  const device = readDevice(host, slot);
  if (device === undefined)
    throw new PearasysError({
      code: 'no-device',
      exitCode: ExitCode.noDevice,
      message: `${slot} went away while its driver was changed`,
    });
  const right = wanted === 'any' ? device.driver !== undefined : device.driver === wanted;
  if (right) return;
  const found = device.driver === undefined ? 'it has no driver' : `it is on ${device.driver}`;
  throw new PearasysError({
    code: 'not-bound',
    exitCode: ExitCode.failed,
    message:
      wanted === undefined
        ? `${slot} should have no driver now, but ${found}`
        : `${wanted === 'any' ? 'no driver took' : `driver ${wanted} did not take`} ${slot} (${device.id}): ${found}`,
    hint: `the kernel's reason is in its log: journalctl -k --grep '${slot}'`,
  });
}

function interrupted(): PearasysError {
  return new PearasysError({code: 'interrupted', exitCode: ExitCode.failed, message: 'interrupted'});
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? '' : 's'}`;
}
