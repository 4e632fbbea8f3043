import {posix} from 'node:path';
import type {HostReader} from '../../host/host.js';
import {devicePath} from './device.js';
import type {Slot} from './slot.js';

/**
 * The nodes in /dev through which a program of a user can drive the device now: those of VFIO (the group's, which opens
 * all of its members, and the device's own) and of UIO. None while the device is on another driver.
 */
export function userNodes(host: HostReader, slot: Slot): string[] {
  const group = host.readLink(devicePath(slot, 'iommu_group'));
  const number = group === undefined ? undefined : posix.basename(group);
  return [
    // Without an IOMMU, VFIO makes a group of its own (drivers/vfio/group.c).
    ...(number === undefined ? [] : [`vfio/${number}`, `vfio/noiommu-${number}`]),
    ...host.list(devicePath(slot, 'vfio-dev')).map((name) => `vfio/devices/${name}`),
    ...host.list(devicePath(slot, 'uio')),
  ]
    .map((name) => `/dev/${name}`)
    .filter((path) => host.info(path)?.kind === 'device');
}
