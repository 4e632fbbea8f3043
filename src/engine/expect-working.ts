import {ExitCode, PearasysError, WriteError} from '../host/errors.js';
import type {Host} from '../host/host.js';
import {readAttribute, readResetMethods} from '../devices/pci/attributes.js';
import {devicePath, readResponds} from '../devices/pci/device.js';
import {noDriver} from '../devices/pci/driver.js';
import type {Slot} from '../devices/pci/slot.js';
import type {ExpectWorkingStep} from '../plan/step.js';
import {printQuarantine, quarantinePath, wayOut} from '../state/quarantine.js';

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
  const before = whyNotWorking(host, slot);
  if (before === undefined) return;
  const tried: string[] = [];
  const offered = readResetMethods(host, slot);
  const methods = reset === 'none' ? [] : reset === undefined ? (offered ?? []) : [reset];
  const write = (name: string, value: string) => host.writeAttribute(devicePath(slot, name), value, limit);
  for (const method of methods) {
    try {
      // The kernel would stop at the first method that it believes to work.
      await write('reset_method', method);
      await write('reset', '1');
      if (whyNotWorking(host, slot) === undefined) break;
      tried.push(`reset by ${method} did not help`);
    } catch (error) {
      if (!(error instanceof WriteError)) throw error;
      tried.push(`reset by ${method} failed (${error.errno})`);
    }
  }
  if (methods.length > 0 && offered !== undefined) await write('reset_method', offered.join(' ') || '\n');
  const why = whyNotWorking(host, slot);
  if (why === undefined) return;
  if (methods.length === 0)
    tried.push(reset === 'none' ? 'a reset is not allowed (reset=none)' : 'the kernel cannot reset it');
  const reason = [why, ...tried].join('; ');
  await write('driver_override', noDriver);
  await host.writeFile(quarantinePath(slot), printQuarantine({slot, id, reason}));
  throw new PearasysError({
    code: 'quarantined',
    exitCode: ExitCode.failed,
    message: `${slot} (${id}) does not work without its driver and is not given back: ${why}`,
    details: [...tried, 'it is quarantined: it has no driver, and gets none until the next boot'],
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
