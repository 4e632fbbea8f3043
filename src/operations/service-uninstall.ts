import type {Layout} from '../config/layout.js';
import type {DeviceId} from '../devices/pci/id.js';
import type {Slot} from '../devices/pci/slot.js';
import {carryOut, type CarryOutOptions, type Outcome} from '../engine/carry-out.js';
import type {Host, HostReader} from '../host/host.js';
import {readServices} from '../plan/service/service-state.js';
import {planUninstall, planUninstallAnySlot, servicesLock} from '../plan/service/service.js';
import {readRecords} from '../state/records/record.js';
import {withRebuild} from './initramfs.js';
import {readActiveUnits, unitName, type UnitIdentity} from '../systemd/unit.js';

/** The result of {@link uninstallServices}. */
interface UninstallOutcome extends Outcome {
  /** The units that were active before. */
  readonly stopped: readonly UnitIdentity[];
}

/**
 * The slots of an uninstall: those named, those recorded for a card with one of the ids, and those that were installed
 * together with them, because these belong together.
 */
export function slotsToUninstall(
  host: HostReader,
  layout: Layout,
  {slots, ids}: {readonly slots: readonly Slot[]; readonly ids: readonly DeviceId[]},
): Slot[] {
  const {records} = readRecords(host, layout);
  const named = new Set(slots);
  for (const record of records) if (record.slot !== 'any' && ids.includes(record.id)) named.add(record.slot);
  const recorded = new Set(records.map((record) => record.slot));
  const together = records.filter(
    ({slot, together: others}) =>
      slot !== 'any' &&
      // A killed run may have left only the records of the others.
      (named.has(slot) || others.some((other) => named.has(other) && !recorded.has(other))),
  );
  return [...new Set([...named, ...together.flatMap((record) => record.together)])].sort();
}

/**
 * Removes claims: stops the units, which releases the devices, and removes units and records.
 * @param options.rebuild whether the initramfs is rebuilt if its claims change.
 * @throws PearasysError `no-device` when nothing is installed for these slots; what failed.
 */
export async function uninstallServices(
  host: Host,
  layout: Layout,
  slots: readonly Slot[],
  {rebuild, ...options}: CarryOutOptions & {readonly rebuild: boolean},
): Promise<UninstallOutcome> {
  const stopped = await readActiveUnits(host);
  const active = new Set(stopped.map(unitName));
  const outcome = await carryOut(
    host,
    [servicesLock],
    () => planUninstall(slots, readServices(host, layout, slots, {active})),
    options,
  );
  return {...(await withRebuild(host, layout, outcome, rebuild, options)), stopped};
}

/**
 * Removes the record of an id in any slot. Slots that were recorded through it keep their records.
 * @throws PearasysError `no-device` when there is no such record; what failed.
 */
export async function uninstallForAnySlot(
  host: Host,
  layout: Layout,
  id: DeviceId,
  options: CarryOutOptions,
): Promise<Outcome> {
  return await carryOut(
    host,
    [servicesLock],
    () => planUninstallAnySlot(id, readServices(host, layout, [])),
    options,
  );
}
