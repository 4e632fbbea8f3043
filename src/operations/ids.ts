import {readDevices} from '../devices/pci/device.js';
import {findDriver} from '../devices/pci/modules.js';
import {carryOut, type CarryOutOptions, type Outcome} from '../engine/carry-out.js';
import type {Host, HostReader} from '../host/host.js';
import {describeOther, otherDevices, planIdChange, type IdRequest} from '../plan/switch/ids.js';

/** The devices that are affected besides those that are meant, one sentence each. */
export function othersOf(host: HostReader, request: Omit<IdRequest, 'accepted'>): string[] {
  return otherDevices(request, readDevices(host)).map((other) => describeOther(request, other));
}

/**
 * Adds ids to a driver's list, or removes them.
 * @throws PearasysError the refusal, `other-devices` if further devices are affected; what failed.
 */
export async function changeIds(host: Host, request: IdRequest, options: CarryOutOptions): Promise<Outcome> {
  const {driver, ids} = request;
  return await carryOut(
    host,
    () => readDevices(host).flatMap(({slot, id}) => (ids.includes(id) ? [slot] : [])),
    () => planIdChange(request, {source: findDriver(host, driver), devices: readDevices(host)}),
    options,
  );
}
