import type {HostQuery, HostReader} from '../../host/host.js';
import {poll} from '../../host/poll.js';
import {asParentName, asTypeName, type ParentName, type TypeName} from './mdev-name.js';
import {asUuid, type Uuid} from './uuid.js';

/** An existing mediated device. */
export interface Mdev {
  readonly uuid: Uuid;
  readonly parent: ParentName;
  /** Undefined while it is being created or removed: the kernel links the type after it announces the device. */
  readonly type: TypeName | undefined;
}

/** Less used properties of a mediated device. */
interface MdevUse {
  /** Its driver: `vfio_mdev`, `nvidia-vgpu-vfio`, `vfio_mtty`; undefined without one. */
  readonly driver: string | undefined;
  /** Its IOMMU group; undefined without one. The number changes from boot to boot. */
  readonly group: number | undefined;
}

/** Where the kernel lists the mediated devices. */
const mdevsFolder = '/sys/bus/mdev/devices';

/** The sysfs folder of a mediated device, or the path of one of its attributes. */
export function mdevPath(uuid: Uuid, attribute?: string): string {
  return attribute === undefined ? `${mdevsFolder}/${uuid}` : `${mdevsFolder}/${uuid}/${attribute}`;
}

/** All mediated devices, in the order of their parents and UUIDs. */
export function readMdevs(host: HostReader): Mdev[] {
  return host
    .list(mdevsFolder)
    .map(asUuid)
    .filter((uuid) => uuid !== undefined)
    .map((uuid) => readMdev(host, uuid))
    .filter((mdev) => mdev !== undefined)
    .sort((a, b) => compare(a.parent, b.parent) || compare(a.uuid, b.uuid));
}

/** One mediated device; undefined if it does not exist. */
export function readMdev(host: HostReader, uuid: Uuid): Mdev | undefined {
  // `../../../devices/virtual/mtty/mtty/<uuid>`: the folder above the device is its parent's.
  const parent = asParentName(host.readLink(mdevPath(uuid))?.split('/').at(-2) ?? '');
  if (parent === undefined) return undefined;
  return {uuid, parent, type: asTypeName(lastPart(host.readLink(mdevPath(uuid, 'mdev_type'))) ?? '')};
}

/**
 * Waits until a mediated device shows its type, which the kernel links after it has announced the device.
 * @param limit milliseconds. Returns immediately if there is no such device.
 */
export async function waitForType(host: HostQuery, uuid: Uuid, limit: number): Promise<void> {
  const isSettled = () => {
    const mdev = readMdev(host, uuid);
    return mdev === undefined || mdev.type !== undefined;
  };
  await poll(host, isSettled, {limit, interval: 50});
}

/** The driver and the group of a mediated device. */
export function readMdevUse(host: HostReader, uuid: Uuid): MdevUse {
  const group = lastPart(host.readLink(mdevPath(uuid, 'iommu_group')));
  return {
    driver: lastPart(host.readLink(mdevPath(uuid, 'driver'))),
    group: group === undefined ? undefined : Number(group),
  };
}

/** By their bytes, like mdevctl. */
export function compare(one: string, other: string): number {
  return Buffer.compare(Buffer.from(one), Buffer.from(other));
}

function lastPart(path: string | undefined): string | undefined {
  return path?.slice(path.lastIndexOf('/') + 1);
}
