import type {HostReader} from '../host/host.js';
import {absolute, devicePath, isBridge, type Device} from '../devices/pci/device.js';
import {slotsInPath, slotsOfPath} from '../devices/pci/find.js';
import type {Slot} from '../devices/pci/slot.js';

/** Where holders are searched: the given devices, and the virtual functions that disappear with them. */
export interface Scope {
  readonly host: HostReader;
  readonly devices: ReadonlyMap<Slot, Device>;
}

/**
 * The devices of the scope that provide what a link in /sys/class, /sys/dev or /sys/devices leads to: the deepest
 * function on its path, or those behind a multipath NVMe disk; and any function above that is not a bridge, such as
 * Intel's VMD, whose driver removes the whole bus. Bridges keep their bus without a driver.
 */
export function ownersOf({host, devices}: Scope, link: string): Slot[] {
  // Most links lead to terminals and virtual devices, which have no PCI device.
  if (link.includes('/devices/') && !/\/pci|\/nvme-subsystem\//.test(link)) return [];
  const path = absolute(link);
  const own = slotsInPath(path);
  const lines =
    own.length > 0
      ? [own]
      : slotsOfPath(host, path).map((slot) => slotsInPath(host.readLink(devicePath(slot)) ?? slot));
  const owners = new Set<Slot>();
  for (const slots of lines)
    slots.forEach((slot, index) => {
      const device = devices.get(slot);
      if (device !== undefined && (index === slots.length - 1 || !isBridge(device))) owners.add(slot);
    });
  return [...owners];
}

/** The last part of a path. */
export function lastPart(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

/** Sorts `sda2` before `sda10`. Not by localeCompare, whose first call takes longer than all the reading here. */
export function byNumber(a: string, b: string): number {
  const left = padded(a);
  const right = padded(b);
  return left < right ? -1 : left > right ? 1 : 0;
}

/** The text with all its numbers equally long. */
export function padded(text: string): string {
  return text.replace(/\d+/g, (digits) => digits.padStart(10, '0'));
}
