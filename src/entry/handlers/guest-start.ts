import {guestOfInstance} from '../../state/guests/name.js';
import {readGuestFile} from '../../state/guests/files.js';
import {carryOut} from '../../engine/carry-out.js';
import {
  guestsLock,
  guestsPatience,
  planGuestStart,
  readGuestStart,
  servicesToAsk,
} from '../../plan/guest/guest-start.js';
import {readServiceStates} from '../../systemd/unit.js';
import {handlerOptions, logOutcome, takeArguments, type Handler} from './handler.js';

/**
 * The start of `pearasys-guest@<guest>.service`, and its reload: all devices of the guest are on vfio-pci, or the host
 * has them as before.
 */
export const guestStart: Handler = async (context, args) => {
  const {host, layout} = context;
  const [instance] = takeArguments(args, ['GUEST']);
  const guest = guestOfInstance(instance);
  const file = readGuestFile(host, layout, guest);
  const {running, unstartable} = await readServiceStates(host, servicesToAsk(host, layout, guest));
  const slots = file?.slots ?? [];
  const outcome = await carryOut(
    host,
    [guestsLock, ...slots],
    () => planGuestStart(readGuestStart(host, layout, guest, running, unstartable)),
    {...handlerOptions(context), lockLimit: guestsPatience},
  );
  logOutcome(
    context,
    outcome,
    `guest ${guest} has ${slots.join(', ')}`,
    `guest ${guest} has ${slots.join(', ')} already`,
  );
};
