import {readMdev} from '../devices/mdev/mdev.js';
import type {Uuid} from '../devices/mdev/uuid.js';
import {carryOut, type Outcome} from '../engine/carry-out.js';
import type {Host} from '../host/host.js';
import {together} from '../plan/mdev/mdev-callouts.js';
import {planMdevUndefine, readDefinitionState} from '../plan/mdev/mdev-define.js';
import {planMdevStop, readMdevStop} from '../plan/mdev/mdev-stop.js';
import {isDefined} from '../state/definitions/definition.js';
import {type MdevOptions, subjectOf, calloutsOf, readDefinedCallouts} from './mdev-scripts.js';

/**
 * Stops a mediated device.
 * @throws PearasysError the refusal, which names the processes using it, or what failed.
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

/** Stops a device and removes all its definitions, both or neither. */
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
