import {ExitCode} from '../host/errors.js';
import type {HostReader} from '../host/host.js';
import {isBridge, modaliasOf, readGroupMembers, type Device} from '../pci/device.js';
import {isVfio, noDriver, type Driver} from '../pci/driver.js';
import {readHolders} from '../pci/holders.js';
import type {Holder} from '../pci/holders/holder.js';
import {findDriver, modulesFor, type DriverSource} from '../pci/modules.js';
import {bringDriver, harmlessNotes, refuseBridges, refuseHeld, refuseLocked} from './refusals.js';
import {
  expectDriver,
  plan,
  probe,
  refuse,
  setOverride,
  unbind,
  type Planned,
  type Refusal,
  type Step,
} from './step.js';

/**
 * What a device is to become: claimed by a driver (`none` keeps every driver off), given back to the driver the
 * kernel would choose, or released for binding by hand.
 */
export type Target =
  {readonly kind: 'claim'; readonly driver: Driver} | {readonly kind: 'default'} | {readonly kind: 'release'};

/** How strict a switch is. */
export interface SwitchRules {
  /** Goes on in spite of holders whose loss is not certain to harm, and of a group that is not viable. */
  readonly force: boolean;
  /**
   * Whether a group that would not be viable is refused. A unit claims one function, its siblings' units the
   * others, so that the group becomes viable only with the last of them.
   */
  readonly wholeGroup: boolean;
}

/** Everything {@link planSwitch} decides on. */
export interface SwitchInput {
  readonly devices: readonly Device[];
  readonly target: Target;
  readonly rules: SwitchRules;
  /** The holders of these devices. */
  readonly holders: readonly Holder[];
  /** The members of the devices' groups, these devices included. */
  readonly members: readonly Device[];
  /** Where the claiming driver comes from. */
  readonly source: DriverSource;
  /** For a return to the default: the modules of each device, by slot. */
  readonly modules: ReadonlyMap<string, readonly string[]>;
}

/** Reads what {@link planSwitch} needs to know. */
export function readSwitch(
  host: HostReader,
  devices: readonly Device[],
  target: Target,
  rules: SwitchRules,
): SwitchInput {
  const changing = devices.filter((device) => !isRight(device, target));
  const groups = new Map(devices.map((device) => [device.group ?? device.slot, device]));
  return {
    devices,
    target,
    rules,
    holders:
      changing.length === 0
        ? []
        : readHolders(
            host,
            // The firmware's framebuffer shows on a boot display that has no driver yet.
            changing.filter((device) => device.driver !== undefined || device.bootDisplay),
          ),
    members: [...groups.values()].flatMap((device) => readGroupMembers(host, device)),
    source: target.kind === 'claim' ? findDriver(host, target.driver) : {kind: 'present'},
    modules: new Map(
      target.kind === 'default' ? changing.map((device) => [device.slot, modulesFor(host, device)]) : [],
    ),
  };
}

/**
 * The plan that brings all devices to the target, or the refusal. Devices that are there already are left alone.
 * The sequence for each one is the kernel's safe one (Documentation/ABI/testing/sysfs-bus-pci, driver_override):
 * override, unbind, probe, and a look at the driver link.
 */
export function planSwitch(input: SwitchInput): Planned {
  const changing = input.devices.filter((device) => device.locked || !isRight(device, input.target));
  if (changing.length === 0) return plan([]);
  const {target, source, holders, rules} = input;
  const bringing = target.kind === 'claim' ? bringDriver(target.driver, source) : [];
  const refusal =
    refuseLocked(input.devices) ??
    refuseBridges(changing) ??
    ('kind' in bringing ? bringing : undefined) ??
    refuseWithoutIommu(changing, input) ??
    refuseHeld(changing, holders, rules.force) ??
    refuseGroup(input);
  if (refusal !== undefined || 'kind' in bringing) return refusal ?? plan([]);
  const switching = changing.flatMap((device) => stepsFor(device, input));
  return plan([...bringing, ...switching], {notes: [...harmlessNotes(holders), ...groupNotes(input)]});
}

/** Whether the device is already as wanted. */
export function isRight(device: Device, target: Target): boolean {
  switch (target.kind) {
    case 'claim':
      return target.driver === noDriver
        ? device.driver === undefined && device.override === noDriver
        : device.driver === target.driver && (device.override ?? target.driver) === target.driver;
    case 'default':
      return device.driver !== undefined && device.override === undefined;
    case 'release':
      return device.driver === undefined && device.override === undefined;
  }
}

function stepsFor(device: Device, {target, modules}: SwitchInput): Step[] {
  const override = target.kind === 'claim' ? target.driver : undefined;
  const steps: Step[] = [];
  if (device.override !== override) steps.push(setOverride(device.slot, override, device.override));
  const wanted = target.kind === 'claim' && target.driver !== noDriver ? target.driver : undefined;
  if (wanted !== undefined && device.driver === wanted) return steps;
  if (device.driver !== undefined) steps.push(unbind(device));
  if (target.kind === 'default') {
    const candidates = modules.get(device.slot) ?? [];
    steps.push(...(candidates.length > 0 ? [loadDefault(device)] : []), probe(device.slot));
    // A device that no module names may stay without a driver: that is its default.
    if (candidates.length > 0) steps.push(expectDriver(device.slot, 'any'));
  } else {
    if (wanted !== undefined) steps.push(probe(device.slot));
    steps.push(expectDriver(device.slot, wanted));
  }
  return steps;
}

/** By modalias, as udev does it, so that what modprobe.d says of the device's modules counts. Not undone: it is the host's own. */
export function loadDefault(device: Device): Step {
  return {kind: 'load-module', module: modaliasOf(device), undo: []};
}

function refuseWithoutIommu(changing: readonly Device[], {target}: SwitchInput): Refusal | undefined {
  if (target.kind !== 'claim' || !isVfio(target.driver)) return undefined;
  const alone = changing.find((device) => device.group === undefined);
  if (alone === undefined) return undefined;
  return refuse({
    code: 'no-iommu',
    exitCode: ExitCode.refused,
    message: `${alone.slot} (${alone.id}) has no IOMMU group, and ${target.driver} needs one`,
    details: ['nothing was changed'],
    hint: 'turn the IOMMU on in the firmware and boot with intel_iommu=on (AMD: it is on by itself), or use uio_pci_generic',
  });
}

/**
 * The members that keep a group from VFIO when these devices are switched: a group is viable when each member
 * that is no bridge is on a vfio driver, on pci-stub, or on none (Documentation/driver-api/vfio.rst).
 */
function membersInTheWay({devices, members, target}: SwitchInput): Device[] {
  if (target.kind !== 'claim' || !isVfio(target.driver)) return [];
  const switched = new Set(devices.map((device) => device.slot));
  return members.filter((member) => !switched.has(member.slot) && !leavesGroupViable(member));
}

/** Whether this member, as it is, lets its group be used through VFIO. */
export function leavesGroupViable(member: Device): boolean {
  return (
    isBridge(member) || member.driver === undefined || member.driver === 'pci-stub' || isVfio(member.driver)
  );
}

function refuseGroup(input: SwitchInput): Refusal | undefined {
  if (input.rules.force || !input.rules.wholeGroup) return undefined;
  const inTheWay = membersInTheWay(input);
  if (inTheWay.length === 0) return undefined;
  return refuse({
    code: 'group-not-viable',
    exitCode: ExitCode.refused,
    message: `${groupsOf(inTheWay)} would not be viable for VFIO: another member is on a host driver`,
    details: [
      ...inTheWay.map((member) => `${member.slot} (${member.id}) is on ${member.driver ?? 'no driver'}`),
      'nothing was changed',
    ],
    hint: 'switch the whole group with --group (or the card with --siblings), or only this device with --force',
  });
}

function groupNotes(input: SwitchInput): string[] {
  return membersInTheWay(input).map(
    (member) =>
      `group ${member.group ?? '?'} is not viable for VFIO while ${member.slot} (${member.id}) is on ${member.driver ?? 'no driver'}`,
  );
}

function groupsOf(devices: readonly Device[]): string {
  const groups = [...new Set(devices.map((device) => device.group))].sort();
  return `IOMMU group${groups.length === 1 ? '' : 's'} ${groups.join(', ')}`;
}
