import {parseUuid} from '../../devices/mdev/uuid.js';
import {stopMdev} from '../../operations/mdev-stop.js';
import {handlerOptions, logOutcome, takeArguments, type Handler} from './handler.js';

/** The stop of `mdev@<uuid>.service`: removes the device, unless it is in use. */
export const mdevStop: Handler = async (context, args) => {
  const [uuidText] = takeArguments(args, ['UUID']);
  const uuid = parseUuid(uuidText);
  const outcome = await stopMdev(context.host, uuid, {
    ...handlerOptions(context),
    force: false,
    mayBeGone: true,
  });
  logOutcome(context.log, outcome, `${uuid} was removed`, `${uuid} no longer exists`);
};
