import {ExitCode, interrupted, PearasysError} from '../host/errors.js';
import type {Host, ProcessIdentity} from '../host/host.js';
import {poll} from '../host/poll.js';
import {printableLine} from '../host/printable.js';
import {startOf} from '../host/process.js';
import {readDevice} from '../devices/pci/device.js';
import {readHolders} from '../usage/holders.js';
import type {ProcessHolder} from '../usage/holder.js';
import {readModuleUsers, type ModuleUser} from '../usage/module-users.js';
import {adviseOnHolder, adviseOnNodeUser, describeHolder, describeNodeUser} from '../usage/words.js';
import {readMdev} from '../devices/mdev/mdev.js';
import type {Uuid} from '../devices/mdev/uuid.js';
import {refuseInUse} from '../plan/mdev/mdev-stop.js';
import {readMdevHolders} from '../usage/mdev-users.js';
import {afterScripts} from '../plan/mdev/mdev-start.js';
import type {EndProcessesStep, ExpectFreeStep} from '../plan/step.js';

/** Milliseconds between two checks of the open files of all processes. */
const scanInterval = 500;

/** Milliseconds for a killed process to end: the kernel closes its files, which may wait for its devices. */
const killLimit = 5000;

/**
 * Asks the processes to end, waits for all of them together, then kills the rest.
 * @throws PearasysError `in-use` when one still exists, blocked in the kernel; `interrupted` by the signal.
 */
export async function endProcesses(
  host: Host,
  {processes, limit}: EndProcessesStep,
  signal?: AbortSignal,
): Promise<void> {
  const isThere = ({pid, started}: ProcessIdentity) => startOf(host, pid) === started;
  const asked = processes.filter((process) => host.signal(process, 'SIGTERM'));
  const allGone = () => !asked.some(isThere);
  if (await poll(host, allGone, {limit: limit * 1000, signal})) return;
  const details = () => endedProcesses(asked.filter((process) => !isThere(process)));
  if (isAborted(signal)) throw interrupted(details());
  for (const process of asked) host.signal(process, 'SIGKILL');
  if (await poll(host, allGone, {limit: killLimit, signal})) return;
  if (isAborted(signal)) throw interrupted(details());
  const left = asked.filter(isThere).map(({pid}) => pid);
  throw new PearasysError({
    code: 'in-use',
    exitCode: ExitCode.refused,
    message: `${left.length === 1 ? 'process' : 'processes'} ${left.join(', ')} did not end within ${limit} s, and could not be killed`,
    details: details(),
    hint: `it is waiting in the kernel: ps -o pid,stat,wchan:32,args ${left.join(' ')}`,
  });
}

/** The note about ended processes when everything else is undone. */
export function endedProcesses(processes: readonly ProcessIdentity[]): string[] {
  return processes.map(({pid}) => `process ${pid} was ended; pearasys cannot start it again`);
}

/**
 * Waits until no process has a node of the devices open that must be closed, or one that keeps the modules loaded.
 * @throws PearasysError `in-use` with the processes; `interrupted` by the signal.
 */
export async function waitUntilFree(
  host: Host,
  {slots, modules = [], limit, hint}: ExpectFreeStep,
  signal?: AbortSignal,
): Promise<void> {
  let left: ProcessHolder[] = [];
  let keepers: ModuleUser[] = [];
  const free = () => {
    const devices = slots
      .map((slot) => readDevice(host, slot))
      .filter((device) => device?.driver !== undefined);
    left = readHolders(
      host,
      devices.filter((device) => device !== undefined),
    )
      .filter((holder) => holder.kind === 'process')
      .filter(({harm}) => harm !== 'none');
    const known = new Set(left.map(({pid}) => pid));
    keepers = readModuleUsers(host, modules).filter(({pid}) => !known.has(pid));
    return left.length === 0 && keepers.length === 0;
  };
  if (await poll(host, free, {limit: limit * 1000, signal, interval: scanInterval})) return;
  if (isAborted(signal)) throw interrupted();
  const kept = keepers.flatMap((user) => user.modules.map((module) => `module ${module}`));
  throw new PearasysError({
    code: 'in-use',
    exitCode: ExitCode.refused,
    message: `${[...new Set([...left.map(({slot}) => slot), ...kept])].join(', ')} still in use after ${limit} s`,
    details: [
      ...left.map((holder) => `${holder.slot}: ${describeHolder(holder)}`),
      ...keepers.map((user) => `module ${user.modules.join(', ')}: ${printableLine(describeNodeUser(user))}`),
    ],
    hint: [
      ...new Set([...left.map(adviseOnHolder), ...keepers.map(adviseOnNodeUser)]),
      ...(hint === undefined ? [] : [hint]),
    ].join('; '),
  });
}

/** Milliseconds for a process to end that a script has asked to. */
const scriptPatience = 3000;

/** Waits a short time until no process uses the device. @throws PearasysError `in-use`. */
export async function awaitUnused(host: Host, uuid: Uuid): Promise<void> {
  const refusal = () => {
    const mdev = readMdev(host, uuid);
    const holders = mdev === undefined ? [] : readMdevHolders(host, uuid);
    return mdev === undefined || holders.length === 0 ? undefined : refuseInUse(mdev, holders);
  };
  if (await poll(host, () => refusal() === undefined, {limit: scriptPatience})) return;
  const left = refusal();
  if (left !== undefined) throw afterScripts(left);
}

function isAborted(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true;
}
