import {readDevice} from '../pci/device.js';
import {parseDriver} from '../pci/driver.js';
import {parseSlot} from '../pci/slot.js';
import {carryOut} from '../plan/carry-out.js';
import {planRelease} from '../plan/service.js';
import {plan} from '../plan/step.js';
import {readRecordOf} from '../record/record.js';
import {handlerOptions, logOutcome, takeArguments, type Handler} from './handler.js';

/** The stop of `pearasys-<slot>@<driver>.service`: the device is let go of, for binding by hand. */
export const release: Handler = async (context, args) => {
  const {host, layout} = context;
  const [slotText, driverText] = takeArguments(args, ['SLOT', 'DRIVER']);
  const slot = parseSlot(slotText);
  const driver = parseDriver(driverText);
  const outcome = await carryOut(
    host,
    [slot],
    () => {
      const device = readDevice(host, slot);
      if (device === undefined) return plan([]);
      // Another card by now: it was never claimed by this unit.
      if (readRecordOf(host, layout, device) === undefined)
        return plan([], {notes: [`${slot} (${device.id}) is left alone: it is not the recorded card`]});
      return planRelease(host, device, driver);
    },
    handlerOptions(context),
  );
  logOutcome(
    context,
    outcome,
    `${slot} is released from ${driver}`,
    `${slot} had nothing to be released from`,
  );
};
