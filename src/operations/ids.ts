import {readDevices} from '../devices/pci/device.js';
import {findDriver} from '../devices/pci/modules.js';
import {carryOut, type CarryOutOptions, type Outcome} from '../engine/carry-out.js';
import type {Host, HostReader} from '../host/host.js';
import {describeOther, otherDevices, planIdChange, type IdWish} from '../plan/switch/ids.js';

/** The devices that are affected besides those that are meant, one sentence each. */
export function othersOf(host: HostReader, wish: Omit<IdWish, 'accepted'>): string[] {
  return otherDevices(wish, readDevices(host)).map((other) => describeOther(wish, other));
}

/**
 * Adds ids to a driver's list, or removes them.
 * @throws PearasysError the refusal, `other-devices` if further devices are affected; what failed.
 */
export async function changeIds(host: Host, wish: IdWish, options: CarryOutOptions): Promise<Outcome> {
  const {driver, ids} = wish;
  return await carryOut(
    host,
    () => readDevices(host).flatMap(({slot, id}) => (ids.includes(id) ? [slot] : [])),
    () => planIdChange(wish, {source: findDriver(host, driver), devices: readDevices(host)}),
    options,
  );
}
