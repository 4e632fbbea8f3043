import {readDefinitions} from '../mdev/definition.js';
import {parseParentName} from '../mdev/name.js';
import {carryOut} from '../plan/carry-out.js';
import {planParentStart} from '../plan/mdev-units.js';
import {handlerOptions, logOutcome, takeArguments, type Handler} from './handler.js';

/**
 * `pearasys-mdev-parent@<parent>.service`, where definitions are not in the form that its fast path knows: starts the
 * units of all that are `auto`.
 */
export const mdevParent: Handler = async (context, args) => {
  const {host, log} = context;
  const [parentText] = takeArguments(args, ['PARENT']);
  const parent = parseParentName(parentText);
  const {definitions, broken} = readDefinitions(host, {parent});
  for (const {path, reason} of broken) log(4, `the definition ${path} is broken, and left alone: ${reason}`);
  const outcome = await carryOut(host, [], () => planParentStart(definitions), handlerOptions(context));
  logOutcome(
    context,
    outcome,
    `the units of ${parent} are started`,
    `nothing on ${parent} is to be started by itself`,
  );
};
