import type {Mdev} from '../devices/mdev/mdev.js';
import {readCalloutsOf} from '../engine/callouts.js';
import type {CarryOutOptions} from '../engine/carry-out.js';
import type {Host} from '../host/host.js';
import type {DefinitionState} from '../plan/mdev/mdev-define.js';
import {readCallouts, type Callouts, type CalloutSubject} from '../state/definitions/callout.js';
import {readDefinitions, type DefinitionFilter} from '../state/definitions/definition.js';

/** Settings of changes to mediated devices and their definitions. */
export interface MdevOptions extends CarryOutOptions {
  /** Whether to continue when a script fails. */
  readonly force: boolean;
  /** As in {@link DefinitionState}. */
  readonly asTyped?: boolean;
}

/** The subject of calls of scripts; undefined without a device, or before it shows its type. */
export function subjectOf(mdev: Mdev | undefined): CalloutSubject | undefined {
  return mdev?.type === undefined ? undefined : {uuid: mdev.uuid, parent: mdev.parent, type: mdev.type};
}

/** The callouts of each definition of a UUID: on each parent it may be of another type. */
export async function readDefinedCallouts(
  host: Host,
  filter: DefinitionFilter,
  limit: number,
): Promise<Pick<DefinitionState, 'callouts' | 'calloutsOf'>> {
  const calloutsOf = new Map<string, Callouts>();
  for (const definition of readDefinitions(host, filter).definitions)
    calloutsOf.set(definition.path, await readCalloutsOf(host, definition, limit));
  return {callouts: readCallouts(host), calloutsOf};
}

/** The callouts of a device; without a device, only the list of scripts. */
export function calloutsOf(
  host: Host,
  subject: CalloutSubject | undefined,
  limit: number,
): Callouts | Promise<Callouts> {
  return subject === undefined ? readCallouts(host) : readCalloutsOf(host, subject, limit);
}
