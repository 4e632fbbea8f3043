import {readMdev, type Mdev} from '../devices/mdev/mdev.js';
import type {ParentName} from '../devices/mdev/mdev-name.js';
import type {Uuid} from '../devices/mdev/uuid.js';
import {readCalloutAttributes, readCalloutsOf} from '../engine/callouts.js';
import {carryOut, type Outcome} from '../engine/carry-out.js';
import {usageError} from '../host/errors.js';
import type {Host} from '../host/host.js';
import {
  findDefinition,
  planMdevDefine,
  planMdevModify,
  planMdevModifyLive,
  planMdevUndefine,
  readDefinitionState,
  type DefinitionChange,
} from '../plan/mdev/mdev-define.js';
import {specifyMdev, type MdevRequest, type MdevWords} from '../plan/mdev/mdev-start.js';
import {readDefinitions, type MdevConfig, type StartMode} from '../state/definitions/definition.js';
import {type MdevOptions, subjectOf, calloutsOf, readDefinedCallouts} from './mdev-scripts.js';

/** What to define: in full, or from an existing device. */
interface DefineWords extends MdevWords {
  readonly start: StartMode;
}

/**
 * The content of a definition: from the words, and for omitted ones from the existing device.
 * @throws PearasysError `usage`.
 */
function specifyDefinition(words: DefineWords, mdev: Mdev | undefined): MdevRequest {
  const {uuid, config, start} = words;
  if (config !== undefined) return specifyMdev(words, {definitions: [], broken: []});
  const parent = words.parent ?? (words.type === undefined ? mdev?.parent : undefined);
  const type = words.type ?? mdev?.type;
  if (parent === undefined)
    throw usageError('no parent was named', '--parent NAME; `pearasys mdev types` shows them');
  if (type === undefined)
    throw usageError('no type was named', '--type NAME; `pearasys mdev types` shows them');
  return {uuid, parent, type, start, attributes: []};
}

/** Defines a mediated device. For an existing one, the attributes that its script reports are recorded. */
export async function defineMdev(host: Host, words: DefineWords, options: MdevOptions): Promise<Outcome> {
  const {uuid} = words;
  const mdev = readMdev(host, uuid);
  const request = specifyDefinition(words, mdev);
  const callouts = await readCalloutsOf(host, request, options.limit);
  // A file contains everything.
  const isMeant = words.config === undefined && mdev?.parent === request.parent && mdev.type === request.type;
  // Otherwise the script is called after `pre`, which a dry run does not call.
  const told =
    isMeant && options.dryRun ? await readCalloutAttributes(host, callouts, request, options.limit) : [];
  const full = {...request, attributes: [...request.attributes, ...told]};
  const asks = isMeant && !options.dryRun;
  return await carryOut(
    host,
    [uuid],
    () => planMdevDefine(full, readDefinitionState(host, uuid, {...options, callouts}), asks),
    options,
  );
}

/** Removes definitions of a UUID: of one parent, or of all. */
export async function undefineMdev(
  host: Host,
  uuid: Uuid,
  parent: ParentName | undefined,
  options: MdevOptions,
): Promise<Outcome> {
  const rules = {
    ...options,
    ...(await readDefinedCallouts(host, {uuid, parent, asTyped: options.asTyped}, options.limit)),
  };
  return await carryOut(
    host,
    [uuid],
    () => planMdevUndefine(uuid, parent, readDefinitionState(host, uuid, rules)),
    options,
  );
}

/** Changes a definition. */
export async function modifyMdev(
  host: Host,
  uuid: Uuid,
  parent: ParentName | undefined,
  change: DefinitionChange,
  options: MdevOptions,
): Promise<Outcome> {
  const definition = findDefinition(uuid, parent, readDefinitions(host, {uuid, asTyped: options.asTyped}));
  const callouts = await readCalloutsOf(host, definition, options.limit);
  return await carryOut(
    host,
    [uuid],
    () => planMdevModify(uuid, parent, change, readDefinitionState(host, uuid, {...options, callouts})),
    options,
  );
}

/** Changes an existing mediated device, and with `defined` also its definition. */
export async function modifyMdevLive(
  host: Host,
  uuid: Uuid,
  config: MdevConfig,
  options: MdevOptions & {readonly defined: boolean; readonly parent?: ParentName | undefined},
): Promise<Outcome> {
  const callouts = await calloutsOf(host, subjectOf(readMdev(host, uuid)), options.limit);
  return await carryOut(
    host,
    [uuid],
    () =>
      planMdevModifyLive(readMdev(host, uuid), uuid, config, {
        ...readDefinitionState(host, uuid, {...options, callouts}),
        defined: options.defined,
        parent: options.parent,
      }),
    options,
  );
}
