import {carryOut, type CarryOutOptions, type Outcome} from '../engine/carry-out.js';
import type {Host} from '../host/host.js';
import {planParentStart} from '../plan/mdev/mdev-units.js';
import type {Definition} from '../state/definitions/definition.js';

/**
 * Starts the units of a parent's definitions that are `auto`, without waiting for them.
 * @throws PearasysError what failed.
 */
export async function startParentUnits(
  host: Host,
  definitions: readonly Definition[],
  options: CarryOutOptions,
): Promise<Outcome> {
  return await carryOut(host, [], () => planParentStart(definitions), options);
}
