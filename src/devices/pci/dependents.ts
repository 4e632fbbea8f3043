import type {HostReader} from '../../host/host.js';
import {devicePath, isBridge, readBridge, readDevice, type Device} from './device.js';
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

/** The physical function of a virtual one; undefined for all other devices. */
export function readPhysicalFunction(host: HostReader, slot: Slot): Slot | undefined {
  return slotsInPath(host.readLink(devicePath(slot, 'physfn')) ?? '').at(-1);
}

/** A device in an order in which others come after the one that they belong to. */
export interface ArrangedDevice {
  readonly device: Device;
  /** How many of the devices it is below. */
  readonly depth: number;
}

/**
 * The devices in slot order, but each virtual function after its physical function.
 * @param bridges whether also each device after the bridge above it.
 */
export function arrangeDevices(
  host: HostReader,
  devices: readonly Device[],
  bridges: boolean,
): ArrangedDevice[] {
  const slots = new Set(devices.map(({slot}) => slot));
  const below = new Map<Slot | undefined, Device[]>();
  for (const device of devices) {
    const {slot} = device;
    const above = readPhysicalFunction(host, slot) ?? (bridges ? readBridge(host, slot) : undefined);
    const parent = above !== undefined && above !== slot && slots.has(above) ? above : undefined;
    const siblings = below.get(parent);
    if (siblings === undefined) below.set(parent, [device]);
    else siblings.push(device);
  }
  const arrange = (parent: Slot | undefined, depth: number): ArrangedDevice[] =>
    (below.get(parent) ?? []).flatMap((device) => [{device, depth}, ...arrange(device.slot, depth + 1)]);
  return arrange(undefined, 0);
}

/** The devices whose drivers this one needs to exist: its PF, and those on the path to it, including bridges. */
export function carriersOf(host: HostReader, slot: Slot): Slot[] {
  const physical = readPhysicalFunction(host, slot);
  const onTheWay = slotsInPath(host.readLink(devicePath(slot)) ?? '').filter((one) => one !== slot);
  return physical === undefined ? onTheWay : [...onTheWay, physical];
}
