import type {HostReader} from '../../host/host.js';
import {runState} from '../../host/paths.js';
import {readBridge, type Device} from '../../devices/pci/device.js';
import {isVfio, noDriver, vfioPci, type Driver} from '../../devices/pci/driver.js';
import type {Slot} from '../../devices/pci/slot.js';
import {quarantinePath} from '../../state/quarantine.js';
import {settingOf, type DeviceSettings} from '../../state/records/device-settings.js';
import {checkedPath, printChecked, type DeviceRecord} from '../../state/records/record.js';
import {isVirtualClaim} from '../../state/sriov/sriov-record.js';
import {hasUnits, unitName, type UnitIdentity} from '../../systemd/unit.js';
import {withoutDependents} from './leaving.js';
import {plan, readFileState, removeFile, systemctl, writeFile, type Planned, type Step} from '../step.js';
import {applySettings, claimingDriver} from './settings.js';
import {isClaimed, planSwitch, readSwitch, type SwitchInput, type SwitchRules} from './switch.js';

/** The mark of a device that was released by hand: a synthetic add event leaves it alone until the next claim. */
export function releasedMark(slot: Slot): string {
  return `${runState}/released/${slot}`;
}

/**
 * The mark of a device whose record got other settings: its unit applies them at the next start, although the device is
 * on its driver.
 */
export function pendingMark(slot: Slot): string {
  return `${runState}/pending/${slot}`;
}

/**
 * The marks for devices that a user leaves without a driver although they have a unit, or are virtual functions with a
 * recorded driver: `udevadm trigger` and the like must not claim them again.
 */
export function markReleased(host: HostReader, devices: readonly Device[]): Step[] {
  return devices
    .filter(({slot}) => hasUnits(host, slot) || isVirtualClaim(host, slot))
    .map(({slot}) => releasedMark(slot))
    .filter((mark) => !host.exists(mark))
    .map((mark) => writeFile(mark, '', undefined));
}

/** The plan for a unit's start: the device, and those installed together with it, go to the driver. */
export function planClaim(host: HostReader, claim: Claim): Planned {
  const {devices, driver, records} = claim;
  // The group of a device becomes viable only with the last of its members' units.
  const rules: SwitchRules = {force: false, wholeGroup: false};
  const settingsOf = ({slot}: Device) => records.find((record) => record.slot === slot)?.settings ?? [];
  const drivers = new Map(
    devices.map((device) => [device, claimingDriver(host, device, driver, settingsOf(device))]),
  );
  const steps: Step[] = [];
  const notes: string[] = [];
  for (const own of new Set(drivers.values())) {
    const its = devices.filter((device) => drivers.get(device) === own);
    const settings = new Map(
      its.map((device) => [
        device.slot,
        applySettings(host, device, settingsOf(device), !isClaimed(device, own)),
      ]),
    );
    const planned = planSwitch(readSwitch(host, its, {kind: 'claim', driver: own}, rules, settings));
    if (planned.kind === 'refusal') return planned;
    steps.push(...planned.steps);
    notes.push(...planned.notes);
  }
  const marks = devices
    // A quarantine that is left is that of another card, which was in the slot before.
    .flatMap(({slot}) => [releasedMark(slot), pendingMark(slot), quarantinePath(slot)])
    .map((mark) => ({mark, file: readFileState(host, mark)}))
    .flatMap(({mark, file}) => (file === undefined ? [] : [removeFile(mark, file)]));
  steps.push(...marks);
  // The rule will do it the next time, without a process.
  const checked = records
    .filter((record) => record.driver === driver)
    .flatMap((record) => leaveChecked(host, record, claim.recorded));
  return plan(steps.length === 0 ? [] : [...steps, ...checked], {notes});
}

/** Leaves for the rule what was found of a record. */
function leaveChecked(host: HostReader, record: DeviceRecord, recorded: readonly DeviceRecord[]): Step[] {
  const path = record.slot === 'any' ? undefined : checkedPath(record, readBridge(host, record.slot));
  if (path === undefined) return [];
  const previous = readFileState(host, path);
  const content = printChecked(record, recorded);
  return previous?.content === content ? [] : [writeFile(path, content, previous)];
}

/** The plan for a switch by command. */
export function planByHand(host: HostReader, input: SwitchInput): Planned {
  const planned = planSwitch(input);
  const {target} = input;
  const empties = target.kind === 'release' || (target.kind === 'claim' && target.driver === noDriver);
  // Also for devices that already have no driver: a run may have been killed before it made the mark.
  if (planned.kind === 'refusal' || !empties) return planned;
  return {
    ...planned,
    steps: [...planned.steps, ...markReleased(host, withoutDependents(input.devices, input.dependents))],
  };
}

/** The goal of a unit's start. */
export interface Claim {
  readonly devices: readonly Device[];
  readonly driver: Driver;
  /** The records of the devices, checked. */
  readonly records: readonly DeviceRecord[];
  /** All records. */
  readonly recorded: readonly DeviceRecord[];
}

/**
 * The plan for a unit's stop: the device gets no driver and no override, for binding by hand.
 * @param settings those of the device's record.
 */
export function planRelease(
  host: HostReader,
  device: Device,
  driver: Driver,
  settings: DeviceSettings = [],
): Planned {
  const ownVariant = driver === vfioPci && isVfio(device.driver) && settingOf(settings, 'variant') === 'yes';
  // It has been switched since, so this unit must not release it.
  if (device.driver !== undefined && device.driver !== driver && !ownVariant)
    return plan([], {notes: [`${device.slot} is on ${device.driver}, not on ${driver}: not touched`]});
  const planned = planSwitch(
    readSwitch(host, [device], {kind: 'release'}, {force: false, wholeGroup: false}),
  );
  if (planned.kind === 'refusal') return planned;
  return {...planned, steps: [...planned.steps, writeFile(releasedMark(device.slot), '', undefined)]};
}

/**
 * The plan for a unit's stop when its device was removed and is already back: the device does not belong to this unit
 * and stays as it is. systemd refused to start the unit during the stop (EDEADLK), so its start is requested again.
 */
export function planRestart(unit: UnitIdentity, enabled: boolean): Planned {
  return plan(enabled ? [systemctl(['start', '--no-block', unitName(unit)])] : [], {
    notes: [`${unit.slot} went away and is back: ${enabled ? 'its unit starts again' : 'not touched'}`],
  });
}
