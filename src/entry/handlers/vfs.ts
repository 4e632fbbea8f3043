import {parseSlot} from '../../devices/pci/slot.js';
import {repairSriov} from '../../operations/sriov-set.js';
import {handlerOptions, logOutcome, takeArguments, unitPatience, type Handler} from './handler.js';

/**
 * `pearasys-vfs@<slot>.service`, where the udev rules have not done everything: creates the recorded number of virtual
 * functions, and gives them to their drivers.
 */
export const vfs: Handler = async (context, args) => {
  const [instance] = takeArguments(args, ['INSTANCE']);
  // A suffix after the slot only says why the unit was started.
  const slot = parseSlot(instance.replace(/-.*$/s, ''));
  const {outcome, count, unknown} = await repairSriov(context.host, context.layout, slot, {
    ...handlerOptions(context),
    lockLimit: unitPatience,
  });
  for (const note of unknown) context.log(5, note);
  const words = `${slot} has ${count} virtual function${count === 1 ? '' : 's'}`;
  logOutcome(context.log, outcome, words, `${words}, as recorded`);
};
