import type {Layout} from '../config/layout.js';
import {readDependents} from '../devices/pci/dependents.js';
import type {Device} from '../devices/pci/device.js';
import type {Driver} from '../devices/pci/driver.js';
import {findDriver} from '../devices/pci/modules.js';
import {readNames} from '../devices/pci/names.js';
import {carryOut, type CarryOutOptions, type Outcome} from '../engine/carry-out.js';
import type {Host} from '../host/host.js';
import {claimsOf, readServices, type RequestedClaim} from '../plan/service/service-state.js';
import {planInstall, planInstallAnySlot, servicesLock} from '../plan/service/service.js';
import {refuseSettings} from '../plan/service/device-settings.js';
import {plan, refuse, type Planned, type Refusal} from '../plan/step.js';
import {withoutDependents} from '../plan/switch/leaving.js';
import {
  bringDriver,
  refuseBridges,
  refuseHeld,
  refuseOverride,
  refuseRisks,
} from '../plan/switch/refusals.js';
import {isClaimed, planSwitch, readSwitch} from '../plan/switch/switch.js';
import type {SettingChange} from '../state/records/device-settings.js';
import type {NodeAccessChange} from '../state/records/node-access.js';
import {offWord, readRescue, switchedOffBy, switchedOffError} from '../state/rescue.js';
import {readActiveUnits, unitName} from '../systemd/unit.js';
import {isSystemDisk} from '../usage/holder.js';
import {readHolders} from '../usage/holders.js';
import {readRisks} from '../usage/risks.js';
import {refreshed} from './devices.js';
import {withRebuild} from './initramfs.js';

/** A device as it was read; for an image, which has no devices, the given slot and id. */
export type NamedDevice = Device | Pick<Device, 'slot' | 'id'>;

/** Permanent claims. */
interface InstallRequest {
  readonly devices: readonly NamedDevice[];
  readonly driver: Driver;
  /** The folder for the templates; `systemdUnits` unless the user chose another. */
  readonly folder: string;
  /** Whether all members of an IOMMU group are claimed together. */
  readonly group: boolean;
  /** Changes of the devices' settings; default none. */
  readonly changes?: readonly SettingChange[];
  /** A change of who may open the devices' nodes; default none. */
  readonly accessChange?: NodeAccessChange | undefined;
  /** Whether the units are started immediately. */
  readonly now: boolean;
  /** Whether a group may be left with members on host drivers. */
  readonly force: boolean;
  /** Whether the user has accepted the risks of `risksOf`. */
  readonly accepted: boolean;
  /** Whether the initramfs is rebuilt if its claims change. */
  readonly rebuild: boolean;
}

/**
 * Without those that are included only for their group and disappear with a device that leaves its driver: they will
 * not exist to be claimed.
 */
export function withoutLeaving(host: Host, devices: readonly Device[], driver: Driver): readonly Device[] {
  const leaving = devices.filter((device) => device.driver !== driver);
  return withoutDependents(devices, new Map(leaving.map(({slot}) => [slot, readDependents(host, slot)])));
}

/**
 * Makes claims permanent: the record and the unit of each device, and the links that enable the units.
 * @throws PearasysError the refusal, or what failed.
 */
export async function installServices(
  host: Host,
  layout: Layout,
  request: InstallRequest,
  options: CarryOutOptions,
): Promise<Outcome> {
  const {devices, driver, folder, group, changes = [], accessChange} = request;
  const present = devices.filter((device) => 'classCode' in device);
  const active = new Set((await readActiveUnits(host)).map(unitName));
  const outcome = await carryOut(
    host,
    [servicesLock],
    (when) => {
      const now = refreshed(host, present, when);
      const early = refuseEarly(host, now, request);
      if (early.kind === 'refusal') return early;
      // An image has no devices: then there is one claim, of one slot.
      const plain: readonly RequestedClaim[] =
        now.length > 0
          ? claimsOf(host, now, driver, group)
          : devices.map(({slot, id}) => ({slot, id, driver, together: [slot]}));
      const claims = plain.map((claim) => ({...claim, changes, accessChange}));
      const names = readNames(
        host,
        devices.map((device) => ({classCode: 0, ...device})),
      );
      const planned = planInstall(
        {claims, folder, start: request.now ? 'now' : 'later'},
        readServices(
          host,
          layout,
          devices.map(({slot}) => slot),
          {names, active, folder},
        ),
      );
      return planned.kind === 'refusal' ? planned : {...planned, notes: [...early.notes, ...planned.notes]};
    },
    options,
  );
  return await withRebuild(host, layout, outcome, request.rebuild, options);
}

/**
 * Records a driver for each card with this id, in any slot.
 * @throws PearasysError the refusal, or what failed.
 */
export async function installForAnySlot(
  host: Host,
  layout: Layout,
  {
    id,
    driver,
    changes = [],
    accessChange,
  }: Pick<RequestedClaim, 'id' | 'driver' | 'changes' | 'accessChange'>,
  options: CarryOutOptions,
): Promise<Outcome> {
  return await carryOut(
    host,
    [servicesLock],
    () => {
      const bringing = bringDriver(driver, findDriver(host, driver));
      if ('kind' in bringing) return bringing;
      return (
        refuseSettings(host, undefined, driver, changes) ??
        planInstallAnySlot(id, driver, readServices(host, layout, []), {changes, accessChange})
      );
    },
    options,
  );
}

/**
 * What is refused before anything is written: an unknown driver, a disk of the system, risks that the user has not
 * accepted, and with `now` a device that cannot be switched. Otherwise a plan without steps, with notes.
 */
export function refuseEarly(
  host: Host,
  devices: readonly Device[],
  {
    driver,
    now,
    force,
    accepted,
    changes = [],
  }: Pick<InstallRequest, 'driver' | 'now' | 'force' | 'accepted' | 'changes'>,
): Planned {
  const bringing = bringDriver(driver, findDriver(host, driver));
  if ('kind' in bringing) return bringing;
  const taken = devices.filter((device) => !isClaimed(device, driver));
  // The unit itself never uses force: what blocks it now would block it when it starts.
  const rules = {force: false, accepted: force || accepted, wholeGroup: !force};
  const switching = now ? readSwitch(host, devices, {kind: 'claim', driver}, rules) : undefined;
  const holders = switching?.holders ?? readHolders(host, taken);
  const risks = readRisks(host, taken, holders);
  const way = `if this machine cannot be used after the next boot, add ${rescueWords(taken)} to the kernel command line in the boot menu`;
  const refusal =
    refuseBridges(devices) ??
    refuseOverride(devices, true) ??
    // The system would not boot any more.
    refuseHeld(taken, holders.filter(isSystemDisk), force) ??
    (force || accepted ? undefined : refuseRisks(risks, way)) ??
    refuseForAny(host, devices, driver, changes);
  if (refusal !== undefined) return refusal;
  const notes = risks.length === 0 ? [] : [...risks, way];
  if (switching === undefined) return plan([], {notes});
  const rescue = readRescue(host);
  for (const {slot} of devices) {
    const word = switchedOffBy(rescue, slot);
    if (word !== undefined)
      return refuse({
        ...switchedOffError(`the unit of ${slot} cannot be started`, word),
        hint: `omit --now: the claim then takes effect at the next boot without ${word}`,
      });
  }
  const planned = planSwitch(switching);
  return planned.kind === 'refusal' ? planned : plan([], {notes});
}

function refuseForAny(
  host: Host,
  devices: readonly Device[],
  driver: Driver,
  changes: readonly SettingChange[],
): Refusal | undefined {
  // Without a device (an image), only what does not depend on it is checked.
  for (const device of devices.length === 0 ? [undefined] : devices) {
    const refusal = refuseSettings(host, device, driver, changes);
    if (refusal !== undefined) return refusal;
  }
  return undefined;
}

/** How to skip the claims of these devices for one boot. */
function rescueWords(devices: readonly Device[]): string {
  return `pearasys.skip=${devices.map(({slot}) => slot).join(',')} or ${offWord}`;
}
