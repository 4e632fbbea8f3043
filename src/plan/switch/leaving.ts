import {ExitCode} from '../../host/errors.js';
import {dependentsOf, type Dependents} from '../../devices/pci/dependents.js';
import {devicePath, type Device} from '../../devices/pci/device.js';
import {isStandIn} from '../../devices/pci/driver.js';
import type {Slot} from '../../devices/pci/slot.js';
import {probe, refuse, setOverride, unbind, writeAttribute, type Refusal, type Step} from '../step.js';

/** What exists only through the present driver of each device that leaves it. */
type DependentsOf = ReadonlyMap<Slot, Dependents>;

/** The devices that are not removed with the drivers of others, because nothing can be written to removed ones. */
export function withoutDependents(devices: readonly Device[], dependents: DependentsOf): Device[] {
  const going = new Set(goingSlots(dependents));
  return devices.filter(({slot}) => !going.has(slot));
}

/** The slots of all devices that are removed with the drivers. */
export function goingSlots(dependents: DependentsOf): Slot[] {
  return [...dependents.values()].flatMap(dependentsOf).map(({slot}) => slot);
}

/** Refuses to switch a device that would not exist afterwards. */
export function refuseDependents(devices: readonly Device[], dependents: DependentsOf): Refusal | undefined {
  for (const [slot, ofSlot] of dependents) {
    const lost = devices.find((device) => dependentsOf(ofSlot).some((one) => one.slot === device.slot));
    if (lost === undefined) continue;
    return refuse({
      code: 'not-switchable',
      exitCode: ExitCode.refused,
      message: `${lost.slot} (${lost.id}) goes away when ${slot} leaves its driver: they cannot be switched together`,
      details: ['nothing was changed'],
      hint: `switch ${lost.slot} without ${slot}, or only ${slot}`,
    });
  }
  return undefined;
}

/**
 * Unbinds the device from its driver. Its virtual functions are removed first, because not every driver does that
 * (nvme does not), and vfio-pci refuses a device with some. The undo restores their number and drivers.
 */
export function leaveDriver(device: Device, dependents?: Dependents): Step[] {
  const step = unbind(device);
  const below = dependents?.below ?? [];
  return [
    ...removeVirtualFunctions(device, dependents),
    {...step, undo: [...step.undo, ...below.flatMap(restore)]},
  ];
}

/**
 * Milliseconds that the kernel may need for this number of virtual functions, in addition to the limit of a write: within
 * one write it creates all of them, binds them to their default driver, or removes them. The largest is below
 * TimeoutStartSec= of pearasys-vfs@.service.
 */
export function virtualTime(count: number): number {
  return Math.min(count * 2000, 300_000);
}

/** Removes the device's virtual functions; no step if it has none. */
export function removeVirtualFunctions({slot}: Device, dependents?: Dependents): Step[] {
  if (dependents === undefined || dependents.virtual.length === 0) return [];
  const {virtual, autoprobe} = dependents;
  const count = devicePath(slot, 'sriov_numvfs');
  const extraTime = virtualTime(virtual.length);
  return [
    writeAttribute(count, '0', {
      slot,
      extraTime,
      // A driver without sriov_configure made them itself, and removes them when it is unbound.
      accept: ['ENOENT'],
      undo: [
        // Lost if the device itself was removed.
        ...(autoprobe ? [] : [writeAttribute(devicePath(slot, 'sriov_drivers_autoprobe'), '0', {slot})]),
        writeAttribute(count, String(virtual.length), {slot, extraTime}),
        ...virtual.flatMap(restore),
      ],
    }),
  ];
}

/** Returns a device that exists again to its driver, if the kernel would not do so. */
function restore({slot, driver, override}: Device): Step[] {
  if (override === undefined && !isStandIn(driver)) return [];
  const release = writeAttribute(devicePath(slot, 'driver/unbind'), slot, {
    slot,
    accept: ['ENOENT', 'ENODEV'],
  });
  return [
    setOverride(slot, driver ?? override, undefined),
    release,
    ...(driver === undefined ? [] : [probe(slot)]),
    ...(driver === undefined || override === driver ? [] : [setOverride(slot, override, driver)]),
  ];
}

/** Says what disappears with the device's driver, and how to get it back. */
export function dependentNotes(
  device: Device,
  dependents: Dependents | undefined,
  selected: readonly Device[],
): string[] {
  if (dependents === undefined) return [];
  const {slot, driver = 'its driver'} = device;
  const {virtual, below} = dependents;
  const leftOut = dependentsOf(dependents).filter((one) => selected.some((other) => other.slot === one.slot));
  const them = (many: readonly Device[]) => (many.length === 1 ? 'it' : 'them');
  return [
    ...(virtual.length === 0
      ? []
      : [
          `${slot} loses its ${virtual.length} virtual function${virtual.length === 1 ? '' : 's'} (${listSlots(virtual)}); to create ${them(virtual)} again when it is back on ${driver}: echo ${virtual.length} > ${devicePath(slot, 'sriov_numvfs')}`,
        ]),
    ...(below.length === 0
      ? []
      : [
          `${listSlots(below)} exist${below.length === 1 ? 's' : ''} only while ${slot} is on ${driver}, and go${below.length === 1 ? 'es' : ''} away with it; binding ${slot} to ${driver} again brings ${them(below)} back`,
        ]),
    ...(leftOut.length === 0 ? [] : [`therefore not switched: ${listSlots(leftOut)}`]),
  ];
}

function listSlots(devices: readonly Device[]): string {
  const slots = devices.map(({slot}) => slot);
  return slots.length <= 4 ? slots.join(', ') : `${slots[0] ?? ''} to ${slots.at(-1) ?? ''}`;
}
