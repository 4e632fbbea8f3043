import type {Host} from '../host/host.js';
import {readDevice, readInitialized} from '../pci/device.js';
import {parseDriver} from '../pci/driver.js';
import {parseSlot} from '../pci/slot.js';
import {carryOut} from '../plan/carry-out.js';
import {planRelease, planRestart} from '../plan/claim.js';
import {plan} from '../plan/step.js';
import {readRecordOf} from '../record/record.js';
import {isEnabled, unitName, type UnitIdentity} from '../unit/unit.js';
import {handlerOptions, logOutcome, takeArguments, type Handler} from './handler.js';

/** The stop of `pearasys-<slot>@<driver>.service`: the device is let go of, for binding by hand. */
export const release: Handler = async (context, args) => {
  const {host, layout} = context;
  const [slotText, driverText] = takeArguments(args, ['SLOT', 'DRIVER']);
  const unit = {slot: parseSlot(slotText), driver: parseDriver(driverText)};
  const started = await readStart(host, unit);
  const freed: string[] = [];
  const outcome = await carryOut(
    host,
    [unit.slot],
    () => {
      const device = readDevice(host, unit.slot);
      if (device === undefined) return plan([]);
      // Another card by now: it was never claimed by this unit.
      if (readRecordOf(host, layout, device) === undefined)
        return plan([], {notes: [`${unit.slot} (${device.id}) is left alone: it is not the recorded card`]});
      // The device went, which is why this unit stops, and is back already: it is not what this unit had claimed.
      const initialized = readInitialized(host, unit.slot);
      if (initialized === undefined || initialized > started) return planRestart(unit, isEnabled(host, unit));
      freed.push(unit.slot);
      return planRelease(host, device, unit.driver);
    },
    handlerOptions(context),
  );
  if (freed.length > 0)
    logOutcome(
      context,
      outcome,
      `${unit.slot} is released from ${unit.driver}`,
      `${unit.slot} had nothing to be released from`,
    );
};

/** When the unit was started, in microseconds since the boot. */
async function readStart(host: Host, unit: UnitIdentity): Promise<number> {
  const property = 'InactiveExitTimestampMonotonic';
  const {stdout} = await host.run('systemctl', ['show', '--value', `--property=${property}`, unitName(unit)]);
  return Number(stdout);
}
