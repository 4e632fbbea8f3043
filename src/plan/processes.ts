import {ExitCode, PearasysError} from '../host/errors.js';
import type {Host} from '../host/host.js';
import {startOf} from '../host/process.js';
import {readDevice} from '../pci/device.js';
import {readHolders} from '../pci/holders.js';
import type {ProcessHolder} from '../pci/holders/holder.js';
import {adviseOnHolder, describeHolder} from '../pci/holders/words.js';
import type {EndProcessStep, ExpectFreeStep} from './step.js';

/** Milliseconds between two looks at one process. */
const interval = 100;

/** Milliseconds between two looks at what all processes have open. */
const scanInterval = 500;

/** Seconds for a killed process to go: the kernel closes its files, which waits for its devices. */
const killLimit = 5;

/**
 * Asks the process to end, waits, then kills it.
 * @throws PearasysError `in-use` when it is there even so: it waits in the kernel.
 */
export async function endProcess(host: Host, {process, limit}: EndProcessStep): Promise<void> {
  const gone = () => startOf(host, process.pid) !== process.started;
  if (!host.signal(process, 'SIGTERM') || (await until(host, gone, limit))) return;
  if (!host.signal(process, 'SIGKILL') || (await until(host, gone, killLimit))) return;
  throw new PearasysError({
    code: 'in-use',
    exitCode: ExitCode.refused,
    message: `process ${process.pid} did not end, neither within ${limit} s nor when it was killed`,
    hint: `it waits in the kernel: ps -o pid,stat,wchan:32,args ${process.pid}`,
  });
}

/** Waits until no process has a node of the devices open. @throws PearasysError `in-use`: who has. */
export async function waitUntilFree(host: Host, {slots, limit}: ExpectFreeStep): Promise<void> {
  let left: ProcessHolder[] = [];
  const free = () => {
    const devices = slots
      .map((slot) => readDevice(host, slot))
      .filter((device) => device?.driver !== undefined);
    left = readHolders(
      host,
      devices.filter((device) => device !== undefined),
    ).filter((holder) => holder.kind === 'process');
    return left.length === 0;
  };
  if (await until(host, free, limit, scanInterval)) return;
  throw new PearasysError({
    code: 'in-use',
    exitCode: ExitCode.refused,
    message: `${[...new Set(left.map(({slot}) => slot))].join(', ')} still in use after ${limit} s`,
    details: left.map((holder) => `${holder.slot}: ${describeHolder(holder)}`),
    hint: [...new Set(left.map(adviseOnHolder))].join('; '),
  });
}

/** @returns whether it became so within the limit, in seconds. */
async function until(
  host: Host,
  holds: () => boolean,
  limit: number,
  step: number = interval,
): Promise<boolean> {
  for (let left = limit * 1000; !holds(); left -= step) {
    if (left <= 0) return false;
    await host.pause(step);
  }
  return true;
}
