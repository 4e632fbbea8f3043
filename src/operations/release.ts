import type {Layout} from '../config/layout.js';
import {readDevice, readInitialized} from '../devices/pci/device.js';
import {carryOut, type CarryOutOptions, type Outcome} from '../engine/carry-out.js';
import type {Host} from '../host/host.js';
import {planRelease, planRestart} from '../plan/switch/claim.js';
import {plan} from '../plan/step.js';
import {readRecordOf} from '../state/records/record.js';
import {isEnabled, type UnitIdentity} from '../systemd/unit.js';

/** What became of {@link releaseDevice}. */
export interface ReleaseOutcome extends Outcome {
  /** Whether the device was still the unit's; its release may have had nothing to do. */
  readonly wasOwn: boolean;
}

/**
 * Releases the device of a unit that stops, for binding by hand. What is not what the unit had claimed is left alone.
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
      // Another card by now: it was never claimed by this unit.
      if (readRecordOf(host, layout, device) === undefined)
        return plan([], {
          notes: [
            `${unit.slot} (${device.id}) is not released: there is no record for this card in this slot`,
          ],
        });
      // The device went, which is why this unit stops, and is back already: it is not what this unit had claimed.
      const initialized = readInitialized(host, unit.slot);
      if (initialized === undefined || initialized > started) return planRestart(unit, isEnabled(host, unit));
      wasOwn = true;
      return planRelease(host, device, unit.driver);
    },
    options,
  );
  return {...outcome, wasOwn};
}
