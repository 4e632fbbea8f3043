import {readSettings} from '../../config/pearasys-conf.js';
import {parseUuid} from '../../devices/mdev/uuid.js';
import {recordMdev} from '../../operations/mdev-record.js';
import {handlerOptions, logOutcome, takeArguments, type Handler} from './handler.js';

/** `mdev_record@<uuid>.service`: records a new device that is not defined as `manual`. */
export const mdevRecord: Handler = async (context, args) => {
  const {host, layout, log} = context;
  const [uuidText] = takeArguments(args, ['UUID']);
  const uuid = parseUuid(uuidText);
  const {settings, problems} = readSettings(host, layout);
  for (const problem of problems) log(4, problem);
  if (!settings.autoRecord) return;
  const outcome = await recordMdev(host, uuid, handlerOptions(context));
  logOutcome(context.log, outcome, `${uuid} was recorded`, `${uuid}: nothing to record`);
};
