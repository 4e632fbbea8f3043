import {PearasysError, usageError, WriteError} from '../host/errors.js';
import type {Host} from '../host/host.js';
import {
  readCalloutAttributes,
  readCallouts,
  readCalloutsOf,
  skippedNotes,
  type Callouts,
  type CalloutSubject,
} from '../state/definitions/callout.js';
import {
  distrustNotes,
  isDefined,
  readDefinitions,
  type Attribute,
  type DefinitionFilter,
  type MdevConfig,
  type StartMode,
} from '../state/definitions/definition.js';
import {readMdev, waitForType, type Mdev} from '../devices/mdev/mdev.js';
import type {ParentName} from '../devices/mdev/name.js';
import {typePath, waitForParent} from '../devices/mdev/parent.js';
import type {Uuid} from '../devices/mdev/uuid.js';
import {carryOut, type CarryOutOptions, type Outcome} from '../engine/carry-out.js';
import {isScripted, together} from '../plan/mdev/mdev-callouts.js';
import {
  findDefinition,
  planMdevDefine,
  planMdevModify,
  planMdevModifyLive,
  planMdevRecord,
  planMdevUndefine,
  readDefinitionState,
  type DefinitionChange,
  type DefinitionState,
} from '../plan/mdev/mdev-define.js';
import {
  planMdevStart,
  readMdevStart,
  specifyMdev,
  type MdevWish,
  type MdevWords,
} from '../plan/mdev/mdev-start.js';
import {planMdevStop, readMdevStop} from '../plan/mdev/mdev-stop.js';
import {plan} from '../plan/step.js';

/** Settings of what changes mediated devices and their definitions. */
export interface MdevOptions extends CarryOutOptions {
  /** Whether a script that fails keeps nothing from being done. */
  readonly force: boolean;
  /** As in {@link DefinitionState}. */
  readonly asTyped?: boolean;
}

/** Settings of {@link startMdev}. */
export interface StartOptions extends MdevOptions {
  /** Whether a device that is there already, of this type on this parent, is what is wanted: for a unit it is. */
  readonly mayExist: boolean;
  /** Milliseconds to wait for a parent that is still registering. */
  readonly patience: number;
}

/**
 * Starts a mediated device: a defined one, or a new one.
 * @throws PearasysError what {@link specifyMdev} throws, the refusal, or what failed.
 */
export async function startMdev(host: Host, words: MdevWords, options: StartOptions): Promise<Outcome> {
  const {asTyped} = options;
  const wish = specifyMdev(words, readDefinitions(host, {uuid: words.uuid, asTyped}));
  const {uuid, parent} = wish;
  // Where a file says what is to be started, none of them is read.
  const {definitions} = readDefinitions(host, {uuid, parent, asTyped});
  for (const note of words.config === undefined ? distrustNotes(host, definitions) : [])
    options.onNote?.(note);
  const callouts = await readCalloutsOf(host, wish, options.limit);
  // Where there are scripts, it is waited for after them.
  if (!isScripted({callouts}) && readMdev(host, wish.uuid) === undefined)
    await waitForParent(host, wish.parent, options.patience);
  const start = () =>
    carryOut(
      host,
      [words.uuid],
      () => planMdevStart(readMdevStart(host, words, {...options, callouts})),
      options,
    );
  try {
    return await start();
  } catch (error) {
    // Our lock keeps no other program from creating it, mdevctl's own rule for one. What is there now decides.
    if (!options.mayExist || !existsByNow(host, error, wish)) throw error;
    return await start();
  }
}

/** Whether it failed because the wanted device is there by now. */
function existsByNow(host: Host, error: unknown, {uuid, parent, type}: CalloutSubject): boolean {
  if (error instanceof PearasysError && error.code === 'uuid-in-use') {
    const mdev = readMdev(host, uuid);
    return mdev?.parent === parent && mdev.type === type;
  }
  const reason = error instanceof PearasysError ? error.cause : undefined;
  return (
    reason instanceof WriteError &&
    reason.errno === 'EEXIST' &&
    reason.path === typePath(parent, type, 'create')
  );
}

/**
 * Stops a mediated device.
 * @throws PearasysError the refusal, which names who uses it, or what failed.
 */
export async function stopMdev(
  host: Host,
  uuid: Uuid,
  options: MdevOptions & {readonly mayBeGone: boolean},
): Promise<Outcome> {
  const callouts = await calloutsOf(host, subjectOf(readMdev(host, uuid)), options.limit);
  return await carryOut(
    host,
    [uuid],
    () => planMdevStop(readMdevStop(host, uuid, {...options, callouts})),
    options,
  );
}

/** What is to be defined: in full, or by a device that is there. */
export interface DefineWords extends MdevWords {
  readonly start: StartMode;
}

/**
 * What a definition is made of: the words, and for what they leave out the device that is there.
 * @throws PearasysError `usage`.
 */
export function specifyDefinition(words: DefineWords, mdev: Mdev | undefined): MdevWish {
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

/** Defines a mediated device. Of one that is there the attributes are recorded that its script tells. */
export async function defineMdev(host: Host, words: DefineWords, options: MdevOptions): Promise<Outcome> {
  const {uuid} = words;
  const mdev = readMdev(host, uuid);
  const wish = specifyDefinition(words, mdev);
  const callouts = await readCalloutsOf(host, wish, options.limit);
  // A file says all of it.
  const isMeant = words.config === undefined && mdev?.parent === wish.parent && mdev.type === wish.type;
  // Otherwise the script is asked after `pre`, which a dry run does not call.
  const told =
    isMeant && options.dryRun ? await readCalloutAttributes(host, callouts, wish, options.limit) : [];
  const full = {...wish, attributes: [...wish.attributes, ...told]};
  const asks = isMeant && !options.dryRun;
  return await carryOut(
    host,
    [uuid],
    () => planMdevDefine(full, readDefinitionState(host, uuid, {...options, callouts}), asks),
    options,
  );
}

/** Takes definitions of a UUID away: of one parent, or of all. */
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

/** Changes a mediated device that is there, and with `defined` its definition too. */
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

/**
 * Defines a device and starts it, both or neither: as the first mdevctl does, all of whose devices are started as
 * their parent registers.
 */
export async function createMdev(
  host: Host,
  subject: CalloutSubject,
  options: StartOptions,
): Promise<Outcome> {
  const {uuid, parent} = subject;
  const callouts = await readCalloutsOf(host, subject, options.limit);
  if (!isScripted({callouts})) await waitForParent(host, parent, options.patience);
  const rules = {...options, callouts};
  const wish: MdevWish = {...subject, start: 'auto', attributes: []};
  return await carryOut(
    host,
    [uuid],
    () =>
      together([
        planMdevDefine(wish, readDefinitionState(host, uuid, rules)),
        planMdevStart(readMdevStart(host, {uuid, parent, config: wish}, rules)),
      ]),
    options,
  );
}

/** Stops a device and takes all its definitions away, both or neither. */
export async function discardMdev(host: Host, uuid: Uuid, options: MdevOptions): Promise<Outcome> {
  const callouts = await calloutsOf(host, subjectOf(readMdev(host, uuid)), options.limit);
  const defined = {...options, ...(await readDefinedCallouts(host, {uuid}, options.limit))};
  return await carryOut(
    host,
    [uuid],
    () => {
      const stop = planMdevStop(readMdevStop(host, uuid, {...options, callouts, mayBeGone: true}));
      const isOnlyThere = readMdev(host, uuid) !== undefined && !isDefined(host, uuid);
      return isOnlyThere
        ? stop
        : together([stop, planMdevUndefine(uuid, undefined, readDefinitionState(host, uuid, defined))]);
    },
    options,
  );
}

/**
 * Records a mediated device that has appeared, unless it is defined. One that goes away meanwhile is left out.
 * @returns the outcome, which has changed nothing when there was nothing to record.
 */
export async function recordMdev(host: Host, uuid: Uuid, options: CarryOutOptions): Promise<Outcome> {
  await waitForType(host, uuid, options.limit);
  const subject = subjectOf(readMdev(host, uuid));
  const attributes = subject === undefined ? [] : await tellAttributes(host, subject, options);
  return await carryOut(
    host,
    [uuid],
    () => {
      const mdev = readMdev(host, uuid);
      return mdev === undefined ? plan([]) : planMdevRecord(host, mdev, attributes);
    },
    options,
  );
}

/** What the script tells of a device's attributes; a script that fails is told, and keeps nothing from being recorded. */
async function tellAttributes(
  host: Host,
  subject: CalloutSubject,
  {limit, onNote}: CarryOutOptions,
): Promise<readonly Attribute[]> {
  try {
    const callouts = await readCalloutsOf(host, subject, limit);
    for (const note of skippedNotes(callouts)) onNote?.(note);
    return await readCalloutAttributes(host, callouts, subject, limit);
  } catch (error) {
    if (!(error instanceof PearasysError)) throw error;
    onNote?.(`the attributes of ${subject.uuid} are not recorded: ${error.message}`);
    return [];
  }
}

function subjectOf(mdev: Mdev | undefined): CalloutSubject | undefined {
  return mdev?.type === undefined ? undefined : {uuid: mdev.uuid, parent: mdev.parent, type: mdev.type};
}

/** The callouts of each definition of a UUID: on each parent it may be of another type. */
async function readDefinedCallouts(
  host: Host,
  filter: DefinitionFilter,
  limit: number,
): Promise<Pick<DefinitionState, 'callouts' | 'calloutsOf'>> {
  const calloutsOf = new Map<string, Callouts>();
  for (const definition of readDefinitions(host, filter).definitions)
    calloutsOf.set(definition.path, await readCalloutsOf(host, definition, limit));
  return {callouts: readCallouts(host), calloutsOf};
}

/** The callouts of a device; where there is none to ask for, only which scripts there are. */
function calloutsOf(
  host: Host,
  subject: CalloutSubject | undefined,
  limit: number,
): Callouts | Promise<Callouts> {
  return subject === undefined ? readCallouts(host) : readCalloutsOf(host, subject, limit);
}
