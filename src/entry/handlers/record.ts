import {parseSlot} from '../../devices/pci/slot.js';
import {recordDevices} from '../../operations/record.js';
import {takeTurns} from '../../operations/turns.js';
import {handlerOptions, report, takeArguments, unitPatience, type Handler} from './handler.js';

/**
 * `pearasys-record@<slot>.service`, and all such units that wait: the record of a
 * card in another slot is moved here, and a record by id alone becomes the slot's own record and unit.
 */
export const record: Handler = async (context, args) => {
  const [slotText] = takeArguments(args, ['SLOT']);
  await takeTurns(
    {...context, report},
    {
      what: 'record',
      own: parseSlot(slotText),
      together: (_name, waiting) => waiting,
      work: async (log, _name, {names}) => {
        const slots = names.map(parseSlot);
        const options = {...handlerOptions({...context, log}), lockLimit: unitPatience};
        const {byId, moved} = await recordDevices(context.host, context.layout, slots, options);
        for (const slot of slots)
          log(
            6,
            byId.has(slot)
              ? `${slot} was recorded: there is a record for its id`
              : moved.has(slot)
                ? `the record of the card was moved to ${slot}`
                : `${slot}: nothing to record`,
          );
      },
    },
  );
};
