import {
  CommandError,
  ExitCode,
  explainErrno,
  FileError,
  interrupted,
  PearasysError,
  StuckError,
  WriteError,
} from '../host/errors.js';
import type {Host} from '../host/host.js';
import {poll} from '../host/poll.js';
import {callFirst, readCalloutAttributes, type CalloutAnswer} from './callouts.js';
import {pagesInWords} from '../state/hugepages/boot-pages.js';
import {nodeInWords} from '../plan/hugepages/huge-pages.js';
import {printConfig} from '../state/definitions/definition.js';
import {pagesSet, readPool} from '../devices/memory/huge-pages.js';
import {mdevPath, readMdev} from '../devices/mdev/mdev.js';
import {waitForParent} from '../devices/mdev/parent.js';
import type {Uuid} from '../devices/mdev/uuid.js';
import {readDevice, type Device} from '../devices/pci/device.js';
import {driversFolder, noDriver} from '../devices/pci/driver.js';
import {driversOfModule, hasDevices, readDefaultDrivers} from '../devices/pci/modules.js';
import {readModuleUsers} from '../usage/module-users.js';
import {describeVfioUsers} from '../usage/processes.js';
import {adviseOnNodeUser, describeNodeUser} from '../usage/words.js';
import type {Slot} from '../devices/pci/slot.js';
import {checkCreatable} from '../plan/mdev/mdev-start.js';
import {awaitParts, checkDisks} from './expect-parts.js';
import {checkWorking, probeAfterReset} from './expect-working.js';
import {awaitUnused, endProcesses, endedProcesses, waitUntilFree} from './end-processes.js';
import {refuseLocked} from '../plan/switch/refusals.js';
import {
  laterArguments,
  shellLine,
  writeFile,
  type AskStep,
  type CalloutStep,
  type DefineActiveStep,
  type ExpectDefaultStep,
  type ExpectHugePagesStep,
  type ExpectVirtualStep,
  type Plan,
  type RebuildInitramfsStep,
  type Step,
  type WriteAttributeStep,
} from '../plan/step.js';
import type {ApplyOptions} from './apply-options.js';

/**
 * Does the steps in order. If one fails or the signal comes, the steps done are undone in reverse.
 * @throws PearasysError what failed, what was undone, and what state each device is in.
 */
export async function applyPlan(host: Host, plan: Plan, options: ApplyOptions): Promise<void> {
  const run: Run = {host, options, callouts: new Map()};
  const done: Step[] = [];
  for (const steps of batches(plan.steps)) {
    const [failure, ...others] = await applyBatch(run, steps, done);
    if (failure !== undefined) throw await undoAll(run, plan, {done, ...failure, others});
  }
  const last = plan.steps.at(-1);
  try {
    // Only whole plans are made to survive a power cut: each file is old or new at any time.
    if (last !== undefined) await host.syncFiles();
  } catch (error) {
    if (last !== undefined) throw await undoAll(run, plan, {done, failed: last, error, others: []});
  }
}

/** Steps that follow each other and may be done side by side, by lane; every other step alone. */
function batches(steps: readonly Step[]): Step[][] {
  const found: Step[][] = [];
  for (const step of steps) {
    const batch = found.at(-1);
    if (step.lane !== undefined && batch?.[0]?.lane !== undefined) batch.push(step);
    else found.push([step]);
  }
  return found;
}

/** How many lanes are used at a time. */
const mostLanes = 16;

/** Does the steps of each lane in order, the lanes side by side. After a failure no lane begins another step. */
async function applyBatch(run: Run, steps: readonly Step[], done: Step[]): Promise<StepFailure[]> {
  const {options} = run;
  const lanes = [...new Set(steps.map(({lane}) => lane))].map((name) =>
    steps.filter(({lane}) => lane === name),
  );
  const failures: StepFailure[] = [];
  const follow = async (): Promise<void> => {
    for (let lane = lanes.shift(); lane !== undefined; lane = lanes.shift())
      for (const step of lane) {
        if (failures.length > 0) return;
        try {
          if (options.signal?.aborted === true) throw interrupted();
          tell(options, step, false);
          if (await applyStep(run, step)) done.push(step);
        } catch (error) {
          failures.push({failed: step, error});
        }
      }
  };
  await Promise.all(Array.from({length: Math.min(lanes.length, mostLanes)}, follow));
  return failures;
}

/** One run of a plan. */
interface Run {
  readonly host: Host;
  readonly options: ApplyOptions;
  /**
   * The script that accepted the first call for a device gets the later ones too. By parent, UUID and action, because
   * definitions on two parents may have types of two scripts, and a script need not support all actions.
   */
  readonly callouts: Map<string, string>;
}

/** A step that failed. */
interface StepFailure {
  readonly failed: Step;
  /** A {@link PearasysError}, unless it is an internal error. */
  readonly error: unknown;
}

/** Where a plan stopped. */
interface Failure extends StepFailure {
  readonly done: readonly Step[];
  /** Failures of steps that were done at the same time. */
  readonly others: readonly StepFailure[];
}

async function undoAll(run: Run, plan: Plan, failure: Failure): Promise<unknown> {
  const {done, failed, error, others} = failure;
  const {host, options} = run;
  // The kernel holds the device's lock while a write to it is stuck: any other write would block as well.
  const stuck = new Set<Slot | Uuid>();
  const stuckWrites: StuckError[] = [];
  const noteStuck = (problem: unknown, step: Step) => {
    if (!(problem instanceof StuckError)) return;
    stuckWrites.push(problem);
    const device = step.slot ?? step.uuid;
    if (device !== undefined) stuck.add(device);
  };
  for (const each of [failure, ...others]) noteStuck(each.error, each.failed);
  const internal = [failure, ...others].find((each) => !(each.error instanceof PearasysError))?.error;
  const details = error instanceof PearasysError ? [...error.details] : [];
  for (const other of others) if (other.error instanceof Error) details.push(other.error.message);
  let undone = 0;
  // Its driver would fail, or give it to a guest again.
  const quarantined =
    error instanceof PearasysError && error.code === 'quarantined' ? failed.slot : undefined;
  // A failed request to systemd may have had some effect; a failed write had none.
  const partial = failed.kind === 'systemctl' ? [failed] : [];
  // A step whose write is stuck is not among those done, and the kernel may do it yet.
  let whole = stuckWrites.length === 0;
  const undo = async (step: Step) => {
    const device = step.slot ?? step.uuid;
    if (device !== undefined && device === quarantined) return;
    // Its result is reported nevertheless.
    if (device !== undefined && stuck.has(device) && step.kind !== 'callout') {
      whole = false;
      return;
    }
    try {
      tell(options, step, true);
      if (await applyStep(run, step)) undone += 1;
    } catch (problem) {
      noteStuck(problem, step);
      whole = false;
      const reason = problem instanceof Error ? problem.message : String(problem);
      details.push(`could not be undone: ${shellLine(step)}: ${reason}`);
    }
  };
  for (const step of [...partial, ...[...done].reverse()]) {
    if (step.kind === 'write-file' && step.recalls === true && !whole) {
      details.push(`keeping ${step.path}: it lists what still has to be restored`);
      continue;
    }
    for (const each of step.undo) await undo(each);
  }
  if (done.length > 0) for (const step of plan.afterUndo) await undo(step);
  try {
    await host.syncFiles();
  } catch (problem) {
    if (!(problem instanceof FileError)) throw problem;
    details.push(problem.message);
  }
  if (internal !== undefined || !(error instanceof PearasysError)) return internal ?? error;
  for (const step of done) if (step.kind === 'end-processes') details.push(...endedProcesses(step.processes));
  if (undone > 0) details.push(`undone: ${count(undone, 'earlier step')}`);
  const anyStuck = stuckWrites.length > 0;
  if (anyStuck) details.push(...describeVfioUsers(host));
  // Reading a locked device would block as long as that write, or one of a unit that was started or stopped.
  await host.findLocked(options.limit);
  details.push(...describeState(host, plan, stuck));
  const hint = anyStuck
    ? 'end the process or guest that uses the device, then run the same command again'
    : (error.hint ?? (failed.kind === 'systemctl' ? failed.hint : undefined));
  return new PearasysError({
    code: error.code,
    exitCode: anyStuck ? ExitCode.stuck : error.exitCode,
    message: error.message,
    details,
    ...(hint === undefined ? {} : {hint}),
    cause: error,
  });
}

/** A closed terminal must stop neither steps nor an undo. */
function tell(options: ApplyOptions, step: Step, undoing: boolean): void {
  try {
    options.onStep?.(shellLine(step), undoing);
  } catch {
    // There is nowhere to report it.
  }
}

function describeState(host: Host, plan: Plan, stuck: ReadonlySet<Slot | Uuid>): string[] {
  const slots = new Set(plan.steps.map((step) => step.slot).filter((slot) => slot !== undefined));
  const uuids = new Set(plan.steps.map((step) => step.uuid).filter((uuid) => uuid !== undefined));
  const unknown = 'unknown until that write returns, when the processes using the device close it';
  const mdevs = [...uuids].map((uuid) => {
    if (stuck.has(uuid)) return `state of ${uuid}: ${unknown}`;
    const mdev = readMdev(host, uuid);
    if (mdev === undefined) return `state of ${uuid}: there is no such device`;
    return `state of ${uuid}: it exists, of type ${mdev.type ?? '?'} on ${mdev.parent}`;
  });
  const devices = [...slots].map((slot) => {
    const device = stuck.has(slot) ? 'stuck' : readDevice(host, slot);
    if (device === 'stuck' || device?.locked === true) return `state of ${slot}: ${unknown}`;
    if (device === undefined) return `state of ${slot}: the device no longer exists`;
    const override = device.override === undefined ? '' : `, override ${device.override}`;
    return `state of ${slot}: ${device.driver === undefined ? 'no driver' : `on driver ${device.driver}`}${override}`;
  });
  return [...devices, ...mdevs];
}

/**
 * Unloads a module, alone or with the modules that only it needs.
 * @throws PearasysError `in-use`, with the processes that keep it loaded; CommandError when none is visible.
 */
async function unloadModule(host: Host, module: string, alone: boolean): Promise<void> {
  try {
    if (alone) await host.run('rmmod', [module]);
    else await host.run('modprobe', ['-r', '--', module]);
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    const users = readModuleUsers(host, [module.replaceAll('-', '_')]);
    if (users.length === 0) throw error;
    throw new PearasysError({
      code: 'in-use',
      exitCode: ExitCode.refused,
      message: `module ${module} is in use and cannot be unloaded`,
      details: [...users.map(describeNodeUser), ...error.details],
      hint: [...new Set(users.map(adviseOnNodeUser))].join('; '),
      cause: error,
    });
  }
}

/** @returns whether there is anything to undo: false when the kernel said that the state was already reached. */
async function applyStep(run: Run, step: Step): Promise<boolean> {
  const {host, options} = run;
  switch (step.kind) {
    case 'write-attribute':
      return await write(run, step);
    case 'load-module':
      await host.run('modprobe', ['--', step.module]);
      return true;
    case 'unload-module':
      // Another run may have bound a device to it since, which would lose its driver.
      if (hasDevices(host, step.module)) return false;
      await unloadModule(host, step.module, step.alone === true);
      return true;
    case 'write-file':
      await host.writeFile(step.path, step.content, {mode: step.mode, owner: step.owner});
      return true;
    case 'make-link':
      await host.makeLink(step.path, step.target);
      return true;
    case 'tidy-folder':
      await host.tidyFolder(step.folder, {prune: step.prune});
      return true;
    case 'remove-file':
      await host.removeFile(step.path, {prune: step.prune ?? 1});
      return true;
    case 'set-owner':
      // A node that has gone gets its owner from the rule when it is there again.
      return await host.setOwner(step.path, step.owner, step.mode);
    case 'systemctl':
    case 'udevadm':
      return await ask(run, step);
    case 'run-later':
      await host.run('systemd-run', laterArguments(step));
      return true;
    case 'rebuild-initramfs':
      return await rebuildInitramfs(run, step);
    case 'end-processes':
      await endProcesses(host, step, run.options.signal);
      return true;
    case 'expect-free':
      await waitUntilFree(host, step, run.options.signal);
      return true;
    case 'expect-driver':
      await reviveUnless(run, step, () => checkDriver(host, step.slot, step.driver));
      return true;
    case 'expect-default':
      await reviveUnless(run, step, () => checkDefault(host, step));
      return true;
    case 'expect-disks':
      await checkDisks(host, step);
      return true;
    case 'expect-parts':
      await awaitParts(host, step, options);
      return true;
    case 'expect-working':
      await checkWorking(host, step, run.options.limit);
      return true;
    case 'expect-unlocked':
      await host.findLocked(run.options.limit);
      checkUnlocked(host, step.slots);
      return true;
    case 'expect-virtual':
      await awaitVirtual(run, step);
      return true;
    case 'expect-registered':
      if (!host.exists(`${driversFolder}/${step.driver}`))
        throw new PearasysError({
          code: 'no-driver',
          exitCode: ExitCode.failed,
          message: `the module ${step.module} was loaded, but it did not register PCI driver ${step.driver}`,
          hint: hintOnDrivers(driversOfModule(host, step.module)),
        });
      return true;
    case 'expect-mdev':
      await awaitMdev(run, step.uuid, step.present);
      return true;
    case 'expect-creatable':
      await waitForParent(host, step.parent, step.patience);
      checkCreatable(host, step);
      return true;
    case 'expect-huge-pages':
      checkHugePages(run, step);
      // Also a check of an undo, where it is not one of the steps that were undone.
      return false;
    case 'expect-unused':
      await awaitUnused(host, step.uuid);
      return true;
    case 'define-active':
      return await defineActive(run, step);
    case 'callout':
      return await callOut(run, step);
  }
}

/** What the kernel could not allocate, with what it could. */
function checkHugePages({host, options}: Run, {wanted, partial}: ExpectHugePagesStep): void {
  const results = wanted.map(({node, pageSize, pages}) => {
    const pool = readPool(host, node, pageSize);
    const found = pool === undefined ? 0 : pagesSet(pool);
    return {
      missing: found < pages,
      text: `${nodeInWords({node})}: ${found} of ${pagesInWords(pages, pageSize)}`,
    };
  });
  const missing = results.filter((one) => one.missing).map(({text}) => text);
  if (missing.length === 0) return;
  const message = `the kernel could not allocate all huge pages, because its free memory is fragmented or too small: ${missing.join('; ')}`;
  if (partial) {
    options.onNote?.(message);
    return;
  }
  const others = results.filter((one) => !one.missing).map(({text}) => text);
  throw new PearasysError({
    code: 'no-memory',
    exitCode: ExitCode.failed,
    message,
    details: others,
    hint: '--partial keeps what can be allocated, and allocates all of them early in the next boot; `echo 1 > /proc/sys/vm/compact_memory` may help before another attempt',
  });
}

/** Milliseconds and bytes that a rebuild may take: dracut prints a line for each file if its user has set it so. */
const rebuildLimits = {limit: 30 * 60_000, outputLimit: 64 * 1024 * 1024};

/** @returns whether the images were rebuilt. */
async function rebuildInitramfs({host, options}: Run, {command}: RebuildInitramfsStep): Promise<boolean> {
  const [program, ...args] = command;
  const line = command.join(' ');
  // The list, and all else that earlier plans wrote, must survive a power cut while this runs.
  await host.syncFiles();
  const end = options.onLong?.(`rebuilding the initramfs: ${line}`);
  try {
    await host.run(program, args, rebuildLimits);
    return true;
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    options.onNote?.(
      [
        `the initramfs was not rebuilt: ${[error.message, ...error.details.slice(-3)].join(': ')}`,
        'changed claims take effect after the root file system is mounted',
        `when this is fixed, run: ${line}`,
      ].join('; '),
    );
    return false;
  } finally {
    end?.();
  }
}

async function ask({host, options}: Run, step: AskStep): Promise<boolean> {
  const {kind, args, accept, otherwise} = step;
  try {
    await host.run(kind, host.root === '/' || kind === 'udevadm' ? args : [`--root=${host.root}`, ...args], {
      accept,
    });
  } catch (error) {
    if (otherwise === undefined || !(error instanceof CommandError)) throw error;
    options.onNote?.([otherwise, error.message, ...error.details].join(': '));
    return false;
  }
  return true;
}

async function defineActive(run: Run, {subject, path, config, callouts}: DefineActiveStep): Promise<boolean> {
  const told = await readCalloutAttributes(run.host, callouts, subject, run.options.limit);
  const attributes = [...config.attributes, ...told];
  return await applyStep(run, writeFile(path, printConfig({...config, attributes}), undefined));
}

/** Milliseconds between two checks of work in the kernel. */
const interval = 50;

async function write({host, options}: Run, step: WriteAttributeStep): Promise<boolean> {
  const {path, value, accept, again = [], extraTime = 0, within, hint, hints} = step;
  const {onNote} = options;
  const limit = options.limit + extraTime;
  if (within !== undefined) checkWithin(host, path, within);
  const answers: WriteError[] = [];
  const attempt = async () => {
    try {
      await host.writeAttribute(path, value, limit);
    } catch (error) {
      if (!(error instanceof WriteError)) throw error;
      if (answers.length === 0 && again.includes(error.errno) && limit > 0)
        onNote?.(
          `${path}: the kernel answered ${explainErrno(error.errno)}; trying again for up to ${limit / 1000} s`,
        );
      answers.push(error);
      return !again.includes(error.errno);
    }
    answers.length = 0;
    return true;
  };
  await poll(host, attempt, {limit, interval});
  const refused = answers.at(-1);
  if (refused === undefined) return true;
  if (accept.includes(refused.errno)) return false;
  const next = hints?.[refused.errno] ?? hint;
  throw next === undefined ? refused : new WriteError(path, value, refused.errno, next);
}

/** A link below a device's folder may lead to another device. */
function checkWithin(host: Host, path: string, folder: string): void {
  const real = host.realPath(path);
  if (real === undefined || real.startsWith(`${host.realPath(folder) ?? folder}/`)) return;
  throw new PearasysError({
    code: 'bad-attribute',
    exitCode: ExitCode.failed,
    message: `refusing to write ${path}: it leads to ${real}, outside the device's folder`,
    hint: "name a file in the device's own folder",
  });
}

/** @throws PearasysError `not-bound`, with each virtual function that is missing or not on its driver. */
async function awaitVirtual(
  {host, options}: Run,
  {slot: pf, virtual, extraTime}: ExpectVirtualStep,
): Promise<void> {
  const wrong = () =>
    virtual.flatMap(({slot, driver}) => {
      const device = readDevice(host, slot);
      if (device === undefined) return [`${slot} does not exist`];
      const isRight =
        driver === undefined ||
        (driver === noDriver
          ? device.driver === undefined && device.override === noDriver
          : device.driver === driver);
      if (isRight) return [];
      return [
        `${slot} should be on ${driver}, but ${device.driver === undefined ? 'has no driver' : `is on ${device.driver}`}`,
      ];
    });
  const {signal} = options;
  const limit = options.limit + extraTime;
  if (await poll(host, () => wrong().length === 0, {limit, interval, signal})) return;
  if (signal?.aborted === true) throw interrupted();
  throw new PearasysError({
    code: 'not-bound',
    exitCode: ExitCode.failed,
    message: `not all virtual functions of ${pf} are as recorded after ${limit / 1000} s`,
    details: wrong(),
    hint: `the kernel's reason is in its log: journalctl -k --grep '${pf.slice(0, pf.lastIndexOf(':'))}'`,
  });
}

async function awaitMdev({host, options: {limit}}: Run, uuid: Uuid, present: boolean): Promise<void> {
  if (await poll(host, () => host.exists(mdevPath(uuid)) === present, {limit, interval})) return;
  throw new PearasysError({
    code: 'no-device',
    exitCode: ExitCode.failed,
    message: `the kernel accepted the write, but ${mdevPath(uuid)} ${present ? 'does not exist' : 'still exists'} after ${limit / 1000} s`,
    hint: `the kernel's reason is in its log: journalctl -k --grep ${uuid}`,
  });
}

/** @returns whether the scripts must learn the result of the plan, which the step's undo reports. */
async function callOut(run: Run, step: CalloutStep): Promise<boolean> {
  const {event} = step.call;
  if (event === 'notify') {
    for (const script of step.scripts) await callToTell(run, step, [script]);
    return false;
  }
  const {subject, action} = step.call;
  const key = `${subject.parent}/${subject.uuid}/${action}`;
  const chosen = run.callouts.get(key);
  const scripts = chosen === undefined ? step.scripts : [chosen];
  const claimed = step.claimed || chosen !== undefined;
  if (event === 'post') {
    await callToTell(run, {...step, claimed}, scripts);
    return false;
  }
  try {
    const answer = await callFirst(run.host, scripts, step.call, run.options.limit, claimed);
    if (answer === undefined) return true;
    run.callouts.set(key, answer.path);
    noteWords(run, answer);
    if (answer.result.status !== 0) throw scriptRefused(step, answer);
  } catch (error) {
    if (!(error instanceof PearasysError)) throw error;
    if (!step.force) {
      for (const each of step.onRefusal ?? []) await callOut(run, each);
      throw error;
    }
    run.options.onNote?.(`${error.message}; continuing because of --force`);
  }
  return true;
}

/** Calls scripts that only learn the result of a command: their exit codes change nothing. */
async function callToTell(run: Run, {call, claimed}: CalloutStep, scripts: readonly string[]): Promise<void> {
  try {
    const answer = await callFirst(run.host, scripts, call, run.options.limit, claimed);
    if (answer === undefined) return;
    noteWords(run, answer);
    if (answer.result.status !== 0)
      run.options.onNote?.(
        `the script ${answer.path} answered ${answer.result.status} to ${call.event} of ${call.action}`,
      );
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    run.options.onNote?.([error.message, ...error.details].join(': '));
  }
}

/** The user gets what a script prints on standard error, as with mdevctl. */
function noteWords({options}: Run, {path, result}: CalloutAnswer): void {
  const words = result.stderr.trimEnd();
  if (words === '') return;
  for (const line of words.split('\n')) options.onNote?.(`${path.slice(path.lastIndexOf('/') + 1)}: ${line}`);
}

function scriptRefused({call}: CalloutStep, {path, result}: CalloutAnswer): PearasysError {
  return new PearasysError({
    code: 'callout-failed',
    exitCode: ExitCode.refused,
    message: `the script ${path} refused to ${call.action} ${call.subject.uuid} (exit code ${result.status})`,
    details: result.stderr.trim() === '' ? [] : result.stderr.trim().split('\n'),
    hint: 'check what the script requires, or override with --force',
  });
}

/** Checks a driver. If none has taken the device, and the step says how it may be revived, it is reset and probed again. */
async function reviveUnless(
  {host, options}: Run,
  {slot, revival}: Pick<ExpectDefaultStep, 'slot' | 'revival'>,
  check: () => void,
): Promise<void> {
  try {
    check();
  } catch (error) {
    const hasDriver = readDevice(host, slot)?.driver !== undefined;
    if (revival === undefined || hasDriver || !(error instanceof PearasysError)) throw error;
    await probeAfterReset(host, slot, revival, options.limit, {check, failure: error});
  }
}

function checkDriver(host: Host, slot: Slot, wanted: string | undefined): void {
  const device = readChanged(host, slot);
  if (device.driver === wanted) return;
  const found = device.driver === undefined ? 'it has no driver' : `it is on ${device.driver}`;
  throw notBound(
    slot,
    wanted === undefined
      ? `${slot} should have no driver now, but ${found}`
      : `driver ${wanted} did not take ${slot} (${device.id}): ${found}`,
  );
}

/** @throws PearasysError `no-device` */
function readChanged(host: Host, slot: Slot): Device {
  const device = readDevice(host, slot);
  if (device !== undefined) return device;
  throw new PearasysError({
    code: 'no-device',
    exitCode: ExitCode.noDevice,
    message: `${slot} went away while its driver was changed`,
  });
}

function notBound(slot: Slot, message: string, hint?: string): PearasysError {
  return new PearasysError({
    code: 'not-bound',
    exitCode: ExitCode.failed,
    message,
    hint: hint ?? `the kernel's reason is in its log: journalctl -k --grep '${slot}'`,
  });
}

function checkDefault(host: Host, {slot, required}: ExpectDefaultStep): void {
  const device = readChanged(host, slot);
  const {driver, id} = device;
  if (driver === undefined) {
    if (!required) return;
    throw notBound(slot, `no driver took ${slot} (${id}): it has no driver`);
  }
  const choice = readDefaultDrivers(host, [device]).get(slot);
  if (choice?.bound !== false) return;
  const [wanted] = choice.drivers;
  throw notBound(
    slot,
    `driver ${driver} took ${slot} (${id}), but it is not the default driver of this device: ${driver} was given the id ${id}`,
    `the id is in new_id, or in ids= of the driver's module (kernel command line, /etc/modprobe.d); remove it: pearasys -s ${slot} pci driver ${driver} remove-id` +
      (wanted === undefined ? '' : `; or name the driver: pearasys bind ${wanted} ${slot}`),
  );
}

function hintOnDrivers(drivers: readonly string[]): string {
  return drivers.length === 0
    ? `\`ls ${driversFolder}\` lists the names of the drivers`
    : `its PCI driver is called ${drivers.join(' or ')}`;
}

function checkUnlocked(host: Host, slots: readonly Slot[]): void {
  const devices = slots.map((slot) => readDevice(host, slot)).filter((device) => device !== undefined);
  const locked = refuseLocked(devices);
  if (locked !== undefined) throw new PearasysError({...locked.error, details: []});
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? '' : 's'}`;
}
