import {stopGuest} from '../../operations/guest-stop.js';
import {guestsPatience} from '../../plan/guest/guest-start.js';
import {guestOfInstance} from '../../state/guests/guest-name.js';
import {handlerOptions, report, takeArguments, type Handler} from './handler.js';

/** The journal's text for each outcome. */
const told = {
  nothing: 'it had no devices of the host',
  returned: 'the host has its devices back',
  kept: 'its devices stay on VFIO',
} as const;

/** The stop of `pearasys-guest@<guest>.service`: the host gets its devices back, and stopped services are started again. */
export const guestStop: Handler = async (context, args) => {
  const {host, layout, log} = context;
  const [instance] = takeArguments(args, ['GUEST']);
  const guest = guestOfInstance(instance);
  const outcome = await stopGuest(host, layout, guest, {
    ...handlerOptions(context),
    lockLimit: guestsPatience,
    onProblem: (error, gravity) => report(error, gravity === 'error' ? log : (_, line) => log(4, line)),
    onInfo: (text) => log(6, text),
  });
  log(6, `guest ${guest}: ${told[outcome]}`);
};
