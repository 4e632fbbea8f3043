import type {HostQuery, HostReader} from '../../host/host.js';
import {poll} from '../../host/poll.js';
import {asSlot, type Slot} from '../pci/slot.js';
import {devicePath} from '../pci/device.js';
import {compare} from './mdev.js';
import {asParentName, asTypeName, type ParentName, type TypeName} from './mdev-name.js';

/** A type of mediated devices that a parent offers, see Documentation/ABI/testing/sysfs-bus-vfio-mdev. */
interface MdevType {
  readonly name: TypeName;
  /**
   * How many more can be created now; undefined if the parent does not say. Any number except 0 means that it may be
   * tried: some drivers print -1.
   */
  readonly available: number | undefined;
  /** What user space gets: `vfio-pci`, `vfio-ccw`, `vfio-ap`; undefined if the driver does not say. */
  readonly deviceApi: string | undefined;
  /** The name for people; undefined without one. */
  readonly title: string | undefined;
  /** As the parent prints it, with all its newlines; undefined without one. */
  readonly description: string | undefined;
}

/** A device that provides mediated devices. It need not be a PCI function. */
export interface Parent {
  readonly name: ParentName;
  /** The PCI function that it is; undefined for any other device. */
  readonly slot: Slot | undefined;
  /** Whether its types are visible: false while it is still registering, or is being removed. */
  readonly registered: boolean;
  /** In the order of their names. */
  readonly types: readonly MdevType[];
}

/** Where the kernel lists the parents. It does not exist until the first one registers. */
const parentsFolder = '/sys/class/mdev_bus';

/** The folder of a parent's types, or a path in it. */
export function typePath(parent: ParentName, type?: TypeName, attribute?: string): string {
  const folder = `${parentsFolder}/${parent}/mdev_supported_types`;
  if (type === undefined) return folder;
  return attribute === undefined ? `${folder}/${type}` : `${folder}/${type}/${attribute}`;
}

/** The names of all parents, sorted. On a machine without parents only one folder is read. */
export function readParentNames(host: HostReader): ParentName[] {
  return host
    .list(parentsFolder)
    .map(asParentName)
    .filter((name) => name !== undefined)
    .sort(compare);
}

/** All parents with their types, in the order of their names. */
export function readParents(host: HostReader): Parent[] {
  return readParentNames(host)
    .map((name) => readParent(host, name))
    .filter((parent) => parent !== undefined);
}

/** One parent with its types; undefined if no device of this name is a parent. */
export function readParent(host: HostReader, name: ParentName): Parent | undefined {
  if (!host.exists(`${parentsFolder}/${name}`)) return undefined;
  return {
    name,
    slot: asSlot(name),
    registered: host.exists(typePath(name)),
    types: host
      .list(typePath(name))
      .map(asTypeName)
      .filter((type) => type !== undefined)
      .sort(compare)
      .map((type) => readType(host, name, type))
      .filter((type) => type !== undefined),
  };
}

/** One type; undefined if the parent has none of this name. */
function readType(host: HostReader, parent: ParentName, name: TypeName): MdevType | undefined {
  // It may disappear while it is read.
  if (host.info(typePath(parent, name))?.kind !== 'directory') return undefined;
  const available = host.readText(typePath(parent, name, 'available_instances'))?.trim();
  return {
    name,
    available: available !== undefined && /^[+-]?\d+$/.test(available) ? Number(available) : undefined,
    deviceApi: host.readText(typePath(parent, name, 'device_api'))?.trim(),
    title: host.readText(typePath(parent, name, 'name'))?.trim(),
    // Byte for byte: the first mdevctl prints its last newline too.
    description: host.readBytes(typePath(parent, name, 'description'))?.toString(),
  };
}

/**
 * Waits for a parent that is still registering: one that is listed without its types, or a PCI function whose driver
 * may yet make it one.
 * @param limit milliseconds. Returns immediately if there is nothing to wait for.
 */
export async function waitForParent(host: HostQuery, name: ParentName, limit: number): Promise<void> {
  await poll(host, () => !mayRegister(host, name), {limit});
}

function mayRegister(host: HostReader, name: ParentName): boolean {
  if (host.exists(typePath(name))) return false;
  const slot = asSlot(name);
  return host.exists(`${parentsFolder}/${name}`) || (slot !== undefined && host.exists(devicePath(slot)));
}
