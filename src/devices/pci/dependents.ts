import type {HostReader} from '../../host/host.js';
import {devicePath, isBridge, readDevice, type Device} from './device.js';
import {slotsInPath} from './find.js';
import {asSlot, type Slot} from './slot.js';

/** The devices that exist only while a driver has another device: they are removed with its unbind. */
export interface Dependents {
  /** Its virtual functions, in the order of their numbers. */
  readonly virtual: readonly Device[];
  /** What the kernel lists in its folder: disks behind Intel VMD, for one. Bridges among them are left out. */
  readonly below: readonly Device[];
  /** Whether the kernel gives new virtual functions to a driver (`sriov_drivers_autoprobe`). */
  readonly autoprobe: boolean;
}

/** Reads what exists only through the driver of this device, which is no bridge. */
export function readDependents(
  host: HostReader,
  slot: Slot,
  known: ReadonlyMap<Slot, Device> = new Map(),
): Dependents {
  const names = host.list(devicePath(slot));
  const read = (one: Slot) => known.get(one) ?? readDevice(host, one);
  const virtual = names
    .filter((name) => /^virtfn\d+$/.test(name))
    .sort((a, b) => Number(a.slice('virtfn'.length)) - Number(b.slice('virtfn'.length)))
    // The links, and not sriov_numvfs: the kernel would wait there while the device's driver is being removed.
    .map((name) => slotsInPath(host.readLink(devicePath(slot, name)) ?? '').at(-1))
    .map((one) => (one === undefined ? undefined : read(one)))
    .filter((one) => one !== undefined);
  return {
    virtual,
    below: slotsBelow(host, devicePath(slot), names)
      .map(read)
      .filter((one) => one !== undefined)
      .filter((one) => !isBridge(one)),
    autoprobe: virtual.length === 0 || host.readText(devicePath(slot, 'sriov_drivers_autoprobe')) !== '0',
  };
}

/** The devices in a folder of sysfs and below: children, and the buses of a domain of its own (`pci10000:e0`). */
function slotsBelow(host: HostReader, folder: string, names: readonly string[]): Slot[] {
  return names.flatMap((name) => {
    const slot = asSlot(name);
    if (slot === undefined && !/^pci[0-9a-f]{4,8}:[0-9a-f]{2}$/.test(name)) return [];
    const path = `${folder}/${name}`;
    return [...(slot === undefined ? [] : [slot]), ...slotsBelow(host, path, host.list(path))];
  });
}

/** All of {@link readDependents} in one list. */
export function dependentsOf({virtual, below}: Dependents): Device[] {
  return [...virtual, ...below];
}

/** The devices without whose drivers this one does not exist: its PF, and those on the way to it, bridges too. */
export function carriersOf(host: HostReader, slot: Slot): Slot[] {
  const physical = slotsInPath(host.readLink(devicePath(slot, 'physfn')) ?? '').at(-1);
  const onTheWay = slotsInPath(host.readLink(devicePath(slot)) ?? '').filter((one) => one !== slot);
  return physical === undefined ? onTheWay : [...onTheWay, physical];
}
