import {ExitCode, PearasysError} from '../../host/errors.js';
import {readDefinitions} from '../../state/definitions/definition.js';
import type {ParentName} from '../../devices/mdev/mdev-name.js';
import {readParentNames} from '../../devices/mdev/parent.js';
import {parseUuid, type Uuid} from '../../devices/mdev/uuid.js';
import {startMdev} from '../../operations/mdev-start.js';
import {selectTrusted} from './mdev-trust.js';
import {handlerOptions, logOutcome, takeArguments, type Handler, type HandlerContext} from './handler.js';

/** Milliseconds to wait for a parent to register: a unit may be started before its driver is loaded. */
const patience = 30_000;

/** `mdev_create@<uuid>.service`: the start of `mdev@<uuid>.service` if the device does not exist yet. */
export const mdevCreate: Handler = async (context, args) => {
  const {host} = context;
  const [uuidText] = takeArguments(args, ['UUID']);
  const uuid = parseUuid(uuidText);
  const outcome = await startMdev(
    host,
    {uuid, parent: choose(context, uuid)},
    {...handlerOptions(context), force: false, mayExist: true, patience},
  );
  logOutcome(context.log, outcome, `${uuid} was created`, `${uuid} already exists`);
};

/**
 * The parent, if the UUID is defined under several, because a unit cannot name one. It is the one where it is `auto`,
 * or the existing one; undefined if there are several or none of these.
 * @throws PearasysError `bad-definition` when none of the definitions is trusted.
 */
function choose(context: HandlerContext, uuid: Uuid): ParentName | undefined {
  const {host} = context;
  const all = readDefinitions(host, {uuid}).definitions;
  const definitions = selectTrusted(context, all);
  if (all.length > 0 && definitions.length === 0)
    throw new PearasysError({
      code: 'bad-definition',
      exitCode: ExitCode.refused,
      message: `${uuid} was not created: its definition could have been written by another user`,
      details: ['nothing was changed'],
      hint: `check the definition; \`pearasys mdev start -u ${uuid}\` starts it anyway`,
    });
  const automatic = definitions.filter(({start}) => start === 'auto');
  const candidates = automatic.length > 0 ? automatic : definitions;
  const present = new Set(readParentNames(host));
  const [first, ...others] =
    candidates.length > 1 ? candidates.filter(({parent}) => present.has(parent)) : candidates;
  return others.length > 0 ? undefined : first?.parent;
}
