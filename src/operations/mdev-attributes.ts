import type {Uuid} from '../devices/mdev/uuid.js';
import {askCalloutAttributes, readCalloutsOf} from '../engine/callouts.js';
import {PearasysError} from '../host/errors.js';
import type {Host} from '../host/host.js';
import {readCallouts, skippedNotes, type CalloutSubject} from '../state/definitions/callout.js';
import type {Attribute} from '../state/definitions/definition.js';

/**
 * The attributes of several existing devices, by UUID, from their scripts; devices without such a script are omitted. A
 * script that fails reports nothing, as in mdevctl's lists.
 * @param onNote called with notes about unknown attributes.
 */
export async function readMdevAttributes(
  host: Host,
  subjects: readonly CalloutSubject[],
  limit: number,
  onNote: (note: string) => void,
): Promise<ReadonlyMap<Uuid, readonly Attribute[]>> {
  const found = new Map<Uuid, readonly Attribute[]>();
  if (subjects.length === 0) return found;
  let all = readCallouts(host);
  // Without scripts no process is started.
  for (const subject of all.scripts.length === 0 ? [] : subjects)
    try {
      const callouts = await readCalloutsOf(host, subject, limit, all);
      // A script that hangs is waited for only once, not for each device.
      const slow = new Set(callouts.skipped.map(({path}) => path));
      all = {
        ...all,
        scripts: all.scripts.filter((path) => !slow.has(path)),
        skipped: callouts.skipped,
      };
      const told = await askCalloutAttributes(host, callouts, subject, limit);
      if (told !== undefined) found.set(subject.uuid, told);
    } catch (error) {
      if (!(error instanceof PearasysError)) throw error;
      onNote(`the attributes of ${subject.uuid} are unknown: ${error.message}`);
    }
  for (const note of skippedNotes(all)) onNote(note);
  return found;
}
