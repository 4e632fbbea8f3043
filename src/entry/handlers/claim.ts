import {parseDriver} from '../../devices/pci/driver.js';
import {parseSlot} from '../../devices/pci/slot.js';
import {claimDevice, claimedTogether, readDueClaims} from '../../operations/claim.js';
import {jobName, parseJobName, takeTurns} from '../../operations/turns.js';
import {handlerOptions, logOutcome, report, takeArguments, unitPatience, type Handler} from './handler.js';

/**
 * The start of `pearasys-claim-<slot>@<driver>.service`, and of all such units that wait: the device is put on the
 * driver, together with those that were installed with it, if it is the recorded card.
 */
export const claim: Handler = async (context, args) => {
  const {host, layout} = context;
  const [slotText, driverText] = takeArguments(args, ['SLOT', 'DRIVER']);
  const own = {slot: parseSlot(slotText), driver: parseDriver(driverText)};
  await takeTurns(
    {...context, report},
    {
      what: 'claim',
      own: jobName(own),
      together: (name) => {
        const unit = parseJobName(name);
        return claimedTogether(host, layout, unit).map((slot) => jobName({...unit, slot}));
      },
      work: async (log, name) => {
        const unit = parseJobName(name);
        const outcome = await claimDevice(host, layout, unit, {
          ...handlerOptions({...context, log}),
          lockLimit: unitPatience,
        });
        for (const note of outcome.unknown) log(5, note);
        logOutcome(
          log,
          outcome,
          `${outcome.slots.join(', ')} on driver ${unit.driver}`,
          `${unit.slot} is already on driver ${unit.driver}`,
        );
      },
      due: async () => (await readDueClaims(host, own)).map(jobName),
    },
  );
};
