import {startGuest} from '../../operations/guest-start.js';
import {guestsPatience} from '../../plan/guest/guest-start.js';
import {guestOfInstance} from '../../state/guests/guest-name.js';
import {handlerOptions, logOutcome, takeArguments, type Handler} from './handler.js';

/**
 * The start of `pearasys-guest@<guest>.service`, and its reload: all devices of the guest are on vfio-pci, or the host
 * has them as before.
 */
export const guestStart: Handler = async (context, args) => {
  const {host, layout, log} = context;
  const [instance] = takeArguments(args, ['GUEST']);
  const guest = guestOfInstance(instance);
  const options = {...handlerOptions(context), lockLimit: guestsPatience};
  const outcome = await startGuest(host, layout, guest, options);
  const slots = outcome.slots.join(', ');
  logOutcome(log, outcome, `guest ${guest} has ${slots}`, `guest ${guest} already has ${slots}`);
};
