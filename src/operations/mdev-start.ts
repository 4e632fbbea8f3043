import {readMdev} from '../devices/mdev/mdev.js';
import {typePath, waitForParent} from '../devices/mdev/parent.js';
import {readCalloutsOf} from '../engine/callouts.js';
import {carryOut, type Outcome} from '../engine/carry-out.js';
import {PearasysError, WriteError} from '../host/errors.js';
import type {Host} from '../host/host.js';
import {isScripted, together} from '../plan/mdev/mdev-callouts.js';
import {planMdevDefine, readDefinitionState} from '../plan/mdev/mdev-define.js';
import {
  planMdevStart,
  readMdevStart,
  specifyMdev,
  type MdevRequest,
  type MdevWords,
} from '../plan/mdev/mdev-start.js';
import type {CalloutSubject} from '../state/definitions/callout.js';
import {distrustNotes, readDefinitions} from '../state/definitions/definition.js';
import type {MdevOptions} from './mdev-scripts.js';

/** Settings of {@link startMdev}. */
export interface StartOptions extends MdevOptions {
  /** Whether an existing device of this type on this parent is accepted, as for a unit. */
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
  const request = specifyMdev(words, readDefinitions(host, {uuid: words.uuid, asTyped}));
  const {uuid, parent} = request;
  // If a file describes the device, no definition is read.
  const {definitions} = readDefinitions(host, {uuid, parent, asTyped});
  for (const note of words.config === undefined ? distrustNotes(host, definitions) : [])
    options.onNote?.(note);
  const callouts = await readCalloutsOf(host, request, options.limit);
  // With scripts, the wait comes after them.
  if (!isScripted({callouts}) && readMdev(host, request.uuid) === undefined)
    await waitForParent(host, request.parent, options.patience);
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
    // The lock does not stop other programs, such as mdevctl's rule, from creating it. The present state decides.
    if (!options.mayExist || !existsByNow(host, error, request)) throw error;
    return await start();
  }
}

/** Whether it failed because the requested device now exists. */
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
 * Defines a device and starts it, both or neither, as the first mdevctl does. It starts all of its devices when
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
  const request: MdevRequest = {...subject, start: 'auto', attributes: []};
  return await carryOut(
    host,
    [uuid],
    () =>
      together([
        planMdevDefine(request, readDefinitionState(host, uuid, rules)),
        planMdevStart(readMdevStart(host, {uuid, parent, config: request}, rules)),
      ]),
    options,
  );
}
