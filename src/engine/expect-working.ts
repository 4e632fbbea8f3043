import {ExitCode, PearasysError, WriteError, type ErrorDetails} from '../host/errors.js';
import type {Host} from '../host/host.js';
import {readAttribute, readResetMethods} from '../devices/pci/attributes.js';
import {devicePath, readResponds} from '../devices/pci/device.js';
import {noDriver} from '../devices/pci/driver.js';
import type {Slot} from '../devices/pci/slot.js';
import type {ExpectWorkingStep, Revival} from '../plan/step.js';
import {printQuarantine, quarantinePath, wayOut, type Quarantine} from '../state/quarantine.js';

/**
 * Checks whether a device without a driver works, and resets it if it does not. If nothing helps, it is quarantined: no
 * driver gets it.
 * @param limit milliseconds for one write.
 * @throws PearasysError `quarantined`; StuckError when a reset does not return.
 */
export async function checkWorking(
  host: Host,
  {slot, id, reset}: ExpectWorkingStep,
  limit: number,
): Promise<void> {
  if (whyNotWorking(host, slot) === undefined) return;
  const tried: string[] = [];
  const methods =
    reset === 'none' ? [] : reset === undefined ? (readResetMethods(host, slot) ?? []) : [reset];
  for (const method of methods) {
    // The kernel would stop at the first method that it believes to work.
    const failure = await resetBy(host, slot, method, limit);
    if (whyNotWorking(host, slot) === undefined) return;
    tried.push(failure ?? `reset by ${method} did not help`);
  }
  if (methods.length === 0)
    tried.push(
      reset === 'none' ? 'its setting reset=none does not allow a reset' : 'the kernel cannot reset it',
    );
  const why = whyNotWorking(host, slot) ?? '';
  throw await quarantine(host, {slot, id, reason: [why, ...tried].join('; ')}, limit, {
    message: `${slot} (${id}) cannot be returned to the host: ${why}`,
    details: tried,
  });
}

/**
 * Resets a device that its host driver has not taken, and probes it again.
 * @param failure why the driver is not right; `check` throws again if it still is not.
 * @throws PearasysError `quarantined`; StuckError when a write does not return.
 */
export async function probeAfterReset(
  host: Host,
  slot: Slot,
  {id, reset}: Revival,
  limit: number,
  {check, failure}: {readonly check: () => void; readonly failure: PearasysError},
): Promise<void> {
  const failed = await resetBy(host, slot, reset, limit);
  if (failed === undefined) {
    await host.writeAttribute('/sys/bus/pci/drivers_probe', slot, limit);
    try {
      check();
      return;
    } catch (error) {
      if (!(error instanceof PearasysError)) throw error;
    }
  }
  const tried = failed ?? `reset by ${reset} did not help`;
  throw await quarantine(host, {slot, id, reason: `${failure.message}; ${tried}`}, limit, {
    message: failure.message,
    details: [...failure.details, tried],
  });
}

/** @returns why the kernel did not reset the device; undefined if it did. */
async function resetBy(host: Host, slot: Slot, method: string, limit: number): Promise<string | undefined> {
  const write = (name: string, value: string) => host.writeAttribute(devicePath(slot, name), value, limit);
  const offered = readResetMethods(host, slot);
  try {
    await write('reset_method', method);
    await write('reset', '1');
    return undefined;
  } catch (error) {
    if (!(error instanceof WriteError)) throw error;
    return `reset by ${method} failed (${error.errno})`;
  } finally {
    if (offered !== undefined) await write('reset_method', offered.join(' ') || '\n');
  }
}

/** Keeps all drivers off the device until the next boot. @returns the error that says so. */
async function quarantine(
  host: Host,
  found: Quarantine,
  limit: number,
  {message, details}: Required<Pick<ErrorDetails, 'message' | 'details'>>,
): Promise<PearasysError> {
  const {slot} = found;
  await host.writeAttribute(devicePath(slot, 'driver_override'), noDriver, limit);
  await host.writeFile(quarantinePath(slot), printQuarantine(found));
  return new PearasysError({
    code: 'quarantined',
    exitCode: ExitCode.failed,
    message,
    details: [...details, 'it is quarantined: no driver gets it until the next boot'],
    hint: wayOut(slot),
  });
}

function whyNotWorking(host: Host, slot: Slot): string | undefined {
  if (readResponds(host, slot) === false) return 'its configuration space reads all ones';
  const state = readAttribute(host, slot, 'power_state');
  // An idle device may be suspended by the kernel, which then also resumes it.
  const suspended = readAttribute(host, slot, 'power/runtime_status')?.startsWith('suspend') === true;
  return state === undefined || state === 'D0' || state === 'unknown' || suspended
    ? undefined
    : `its power state is ${state}, expected D0`;
}
