import {readMdev, waitForType} from '../devices/mdev/mdev.js';
import type {Uuid} from '../devices/mdev/uuid.js';
import {readCalloutAttributes, readCalloutsOf} from '../engine/callouts.js';
import {carryOut, type CarryOutOptions, type Outcome} from '../engine/carry-out.js';
import {PearasysError} from '../host/errors.js';
import type {Host} from '../host/host.js';
import {planMdevRecord} from '../plan/mdev/mdev-define.js';
import {plan} from '../plan/step.js';
import {skippedNotes, type CalloutSubject} from '../state/definitions/callout.js';
import type {Attribute} from '../state/definitions/definition.js';
import {subjectOf} from './mdev-scripts.js';

/**
 * Records a new mediated device, unless it is defined or has disappeared since.
 * @returns the outcome, without a change if there was nothing to record.
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

/** The attributes of a device from its script; a failure of the script is reported, and does not stop the recording. */
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
    onNote?.(`the attributes of ${subject.uuid} were not recorded: ${error.message}`);
    return [];
  }
}
