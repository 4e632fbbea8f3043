import {systemdUnits, type Layout} from '../config/layout.js';
import {readDevice, type Device} from '../devices/pci/device.js';
import type {Driver} from '../devices/pci/driver.js';
import {readNames} from '../devices/pci/names.js';
import type {Slot} from '../devices/pci/slot.js';
import {carryOut, type CarryOutOptions} from '../engine/carry-out.js';
import type {Host} from '../host/host.js';
import {claimsOf, readServices} from '../plan/service/service-state.js';
import {planInstall, servicesLock} from '../plan/service/service.js';
import {findMoves, movedMark, planMove} from '../plan/service/move.js';
import {plan, readFileState, removeFile} from '../plan/step.js';
import {isUnfinished} from '../plan/unfinished.js';
import {findCards, readIdentities} from './cards.js';
import {isNamedFor, readRecords, type Records} from '../state/records/record.js';

/** What was done for the devices of {@link recordDevices}. */
export interface Recorded {
  /** Slots that were recorded because of their ids. */
  readonly byId: ReadonlySet<Slot>;
  /** Slots to which the records of their cards were moved. */
  readonly moved: ReadonlySet<Slot>;
}

/**
 * Moves the records of cards that are in another slot than recorded, and completes those of older versions. Then
 * records the devices in these slots that match a record by id alone, and starts their units. One plan for all of a
 * driver, because each plan makes systemd read all its files again.
 * @throws PearasysError what failed.
 */
export async function recordDevices(
  host: Host,
  layout: Layout,
  slots: readonly Slot[],
  options: CarryOutOptions,
): Promise<Recorded> {
  // A killed run may have only written the record. The first plan that is carried out finishes that run, so this is read
  // before.
  const begun = isUnfinished(host, servicesLock);
  const moved = await moveRecords(host, layout, slots, options);
  const recorded = new Set<Slot>();
  const requests = readRecords(host, layout).records.filter(({slot}) => slot === 'any');
  for (const driver of new Set(requests.map((request) => request.driver))) {
    const devices: Device[] = [];
    const outcome = await carryOut(
      host,
      [servicesLock],
      () => {
        const present = slots.map((slot) => readDevice(host, slot)).filter((device) => device !== undefined);
        const state = readServices(host, layout, slots, {names: readNames(host, present)});
        const requested = present.filter((device) => isRequested(device, driver, state.records, begun));
        devices.splice(0, devices.length, ...requested);
        return requested.length === 0
          ? plan([])
          : planInstall(
              {
                claims: claimsOf(host, requested, driver).map((claim) => {
                  const {
                    settings = [],
                    access,
                    unknown = [],
                  } = requests.find(({id}) => id === claim.id) ?? {};
                  return {...claim, changes: settings, accessChange: access, unknown};
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
  return {byId: recorded, moved};
}

/**
 * Moves all records together, because the slots of cards whose buses were renumbered overlap.
 * @param slots whose marks of libexec/early are removed.
 * @returns the slots to which records were moved.
 */
async function moveRecords(
  host: Host,
  layout: Layout,
  slots: readonly Slot[],
  options: CarryOutOptions,
): Promise<ReadonlySet<Slot>> {
  const moved = new Set<Slot>();
  await carryOut(
    host,
    [servicesLock],
    () => {
      const all = [...findCards(host, readRecords(host, layout).records).where].flatMap(([record, {slot}]) =>
        record.slot === 'any' ? [] : [record.slot, ...(slot === undefined ? [] : [slot])],
      );
      const present = [...new Set(all)]
        .map((slot) => readDevice(host, slot))
        .filter((one) => one !== undefined);
      const state = readServices(host, layout, [...new Set(all)], {names: readNames(host, present)});
      const cards = findCards(host, state.records.records);
      const request = {...findMoves(cards.where, state), identities: readIdentities(host, cards)};
      const planned = planMove(request, state, false);
      if (planned.kind === 'refusal') return planned;
      moved.clear();
      for (const slot of request.moves.values()) moved.add(slot);
      const marks = slots.map(movedMark).flatMap((mark) => {
        const previous = readFileState(host, mark);
        return previous === undefined ? [] : [removeFile(mark, previous)];
      });
      return {...planned, steps: [...planned.steps, ...marks]};
    },
    options,
  );
  return moved;
}

/** Whether a record by id alone matches the device. The record of another card, or an ignored one, is not replaced. */
function isRequested(
  {slot, id}: Device,
  driver: Driver,
  {records, problems}: Records,
  begun: boolean,
): boolean {
  return (
    records.some((one) => one.slot === 'any' && one.id === id && one.driver === driver) &&
    !records.some((one) => one.slot === slot && !(begun && one.id === id && one.driver === driver)) &&
    !problems.some(({path}) => isNamedFor(slot, path))
  );
}
