import {desiredNotes} from '../../state/desired.js';
import {readDefinitions} from '../../state/definitions/definition.js';
import {parseParentName} from '../../devices/mdev/mdev-name.js';
import {asUuid} from '../../devices/mdev/uuid.js';
import {startParentUnits} from '../../operations/mdev-units.js';
import {selectTrusted} from './mdev-trust.js';
import {handlerOptions, logOutcome, takeArguments, type Handler} from './handler.js';

/**
 * `mdev_parent@<parent>.service`, for definitions in a form that its fast path does not know:
 * starts the units of the `auto` definitions among these UUIDs.
 */
export const mdevParent: Handler = async (context, args) => {
  const {host, log} = context;
  const [parentText] = takeArguments(args.slice(0, 1), ['PARENT']);
  const parent = parseParentName(parentText);
  const uuids = new Set(
    args
      .slice(1)
      .map(asUuid)
      .filter((uuid) => uuid !== undefined),
  );
  const all = [...uuids].map((uuid) => readDefinitions(host, {parent, uuid}));
  const definitions = selectTrusted(
    context,
    all.flatMap((each) => each.definitions),
  );
  const broken = all.flatMap((each) => each.broken);
  for (const note of desiredNotes(broken)) log(4, note);
  const outcome = await startParentUnits(host, definitions, handlerOptions(context));
  logOutcome(log, outcome, `started the units of ${parent}`, `no auto definitions on ${parent}`);
};
