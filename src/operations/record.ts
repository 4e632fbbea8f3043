import {systemdUnits, type Layout} from '../config/layout.js';
import {readDevice, type Device} from '../devices/pci/device.js';
import type {Driver} from '../devices/pci/driver.js';
import {readNames} from '../devices/pci/names.js';
import type {Slot} from '../devices/pci/slot.js';
import {carryOut, type CarryOutOptions} from '../engine/carry-out.js';
import type {Host} from '../host/host.js';
import {claimsOf, readServices} from '../plan/service/service-state.js';
import {planInstall, servicesLock} from '../plan/service/service.js';
import {plan} from '../plan/step.js';
import {isUnfinished} from '../plan/unfinished.js';
import {isNamedFor, readRecords, type Records} from '../state/records/record.js';

/**
 * Records the devices in these slots that match a record by id alone, and starts their units. One plan for all of a
 * driver, because each plan makes systemd read all its files again.
 * @returns the slots that were recorded.
 * @throws PearasysError what failed.
 */
export async function recordDevices(
  host: Host,
  layout: Layout,
  slots: readonly Slot[],
  options: CarryOutOptions,
): Promise<ReadonlySet<Slot>> {
  const recorded = new Set<Slot>();
  const wishes = readRecords(host, layout).records.filter(({slot}) => slot === 'any');
  for (const driver of new Set(wishes.map((wish) => wish.driver))) {
    const devices: Device[] = [];
    const outcome = await carryOut(
      host,
      [servicesLock],
      () => {
        const present = slots.map((slot) => readDevice(host, slot)).filter((device) => device !== undefined);
        const state = readServices(host, layout, slots, {names: readNames(host, present)});
        // A killed run may have only written the record.
        const begun = isUnfinished(host, servicesLock);
        const wished = present.filter((device) => isWished(device, driver, state.records, begun));
        devices.splice(0, devices.length, ...wished);
        return wished.length === 0
          ? plan([])
          : planInstall(
              {
                claims: claimsOf(host, wished, driver).map((claim) => {
                  const {settings = [], unknown = []} = wishes.find(({id}) => id === claim.id) ?? {};
                  return {...claim, changes: settings, unknown};
                }),
                folder: systemdUnits,
                start: 'queue',
              },
              state,
            );
      },
      options,
    );
    if (outcome.changed) for (const {slot} of devices) recorded.add(slot);
  }
  return recorded;
}

/** Whether a record by id alone matches the device. The record of another card, or an ignored one, is not replaced. */
function isWished({slot, id}: Device, driver: Driver, {records, problems}: Records, begun: boolean): boolean {
  return (
    records.some((one) => one.slot === 'any' && one.id === id && one.driver === driver) &&
    !records.some((one) => one.slot === slot && !(begun && one.id === id && one.driver === driver)) &&
    !problems.some(({path}) => isNamedFor(slot, path))
  );
}
