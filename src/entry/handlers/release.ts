import {parseDriver} from '../../devices/pci/driver.js';
import {parseSlot} from '../../devices/pci/slot.js';
import {releaseDevice} from '../../operations/release.js';
import {jobName, parseJobName, takeTurns} from '../../operations/turns.js';
import {readStarts, unitName} from '../../systemd/unit.js';
import {handlerOptions, logOutcome, report, takeArguments, unitPatience, type Handler} from './handler.js';

/**
 * The stop of `pearasys-<slot>@<driver>.service`, and of all such units that wait: the device is released for
 * binding by hand.
 */
export const release: Handler = async (context, args) => {
  const {host, layout} = context;
  const [slotText, driverText] = takeArguments(args, ['SLOT', 'DRIVER']);
  const starts = new Map<string, number>();
  await takeTurns(
    {...context, report},
    {
      what: 'release',
      own: jobName({slot: parseSlot(slotText), driver: parseDriver(driverText)}),
      together: (name) => [name],
      work: async (log, name, {waiting}) => {
        const unit = parseJobName(name);
        if (!starts.has(unitName(unit)))
          for (const [each, since] of await readStarts(host, waiting.map(parseJobName)))
            starts.set(each, since);
        const started = starts.get(unitName(unit)) ?? 0;
        const outcome = await releaseDevice(
          host,
          layout,
          {unit, started},
          {
            ...handlerOptions({...context, log}),
            lockLimit: unitPatience,
          },
        );
        if (outcome.wasOwn)
          logOutcome(
            log,
            outcome,
            `${unit.slot} was released from ${unit.driver}`,
            `${unit.slot}: nothing to release`,
          );
      },
    },
  );
};
