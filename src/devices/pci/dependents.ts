import type {HostReader} from '../../host/host.js';
import {devicePath, isBridge, readDevice, type Device} from './device.js';
import {slotsInPath} from './find.js';
import {asSlot, type Slot} from './slot.js';

/** The devices that exist only while another device has its driver: its unbind removes them. */
export interface Dependents {
  /** Its virtual functions, in the order of their numbers. */
  readonly virtual: readonly Device[];
  /** Devices in its folder in sysfs, such as disks behind Intel VMD, without bridges. */
  readonly below: readonly Device[];
  /** Whether the kernel binds new virtual functions to a driver (`sriov_drivers_autoprobe`). */
  readonly autoprobe: boolean;
}

/** Reads what exists only through the driver of this device. The device is not a bridge. */
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
    // The links instead of sriov_numvfs, which blocks while the device's driver is being removed.
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

/** The devices in a folder of sysfs and below: children, and the buses of a separate domain (`pci10000:e0`). */
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

/** The devices whose drivers this one needs to exist: its PF, and those on the path to it, including bridges. */
export function carriersOf(host: HostReader, slot: Slot): Slot[] {
  const physical = slotsInPath(host.readLink(devicePath(slot, 'physfn')) ?? '').at(-1);
  const onTheWay = slotsInPath(host.readLink(devicePath(slot)) ?? '').filter((one) => one !== slot);
  return physical === undefined ? onTheWay : [...onTheWay, physical];
}
