import type {Layout} from '../config/layout.js';
import {readDevice, readInitialized} from '../devices/pci/device.js';
import {carryOut, type CarryOutOptions, type Outcome} from '../engine/carry-out.js';
import type {Host} from '../host/host.js';
import {planRelease, planRestart} from '../plan/switch/claim.js';
import {plan} from '../plan/step.js';
import {isIgnored} from '../state/desired.js';
import {readRecordOf} from '../state/records/record.js';
import {isEnabled, type UnitIdentity} from '../systemd/unit.js';

/** The result of {@link releaseDevice}. */
interface ReleaseOutcome extends Outcome {
  /** Whether the device still belonged to the unit; the release may have had nothing to do. */
  readonly wasOwn: boolean;
}

/**
 * Releases the device of a unit that stops, for manual binding. A device that the unit has not claimed does not change.
 * @param started when the unit was started, in microseconds since the boot.
 * @throws PearasysError the refusal, or what failed.
 */
export async function releaseDevice(
  host: Host,
  layout: Layout,
  {unit, started}: {readonly unit: UnitIdentity; readonly started: number},
  options: CarryOutOptions,
): Promise<ReleaseOutcome> {
  let wasOwn = false;
  const outcome = await carryOut(
    host,
    [unit.slot],
    () => {
      wasOwn = false;
      const device = readDevice(host, unit.slot);
      if (device === undefined) return plan([]);
      // Another card by now, which this unit has never claimed.
      const record = readRecordOf(host, layout, device);
      if (record === undefined)
        return plan([], {
          notes: [
            `${unit.slot} (${device.id}) is not released: there is no record for this card in this slot`,
          ],
        });
      // The device was removed, which is why this unit stops, and is already back: this unit has not claimed it.
      const initialized = readInitialized(host, unit.slot);
      if (initialized === undefined || initialized > started) return planRestart(unit, isEnabled(host, unit));
      wasOwn = true;
      return planRelease(host, device, unit.driver, isIgnored(record) ? [] : record.settings);
    },
    options,
  );
  return {...outcome, wasOwn};
}
