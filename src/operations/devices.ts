import {carriersOf} from '../devices/pci/dependents.js';
import {
  isBridge,
  readDevice,
  readDevices,
  readGroupMembers,
  siblingsOf,
  type Device,
} from '../devices/pci/device.js';
import {findDevices} from '../devices/pci/find.js';
import type {HostReader} from '../host/host.js';

/** Which devices are included with the named ones. */
export interface Selection {
  /** Whether an id selects each device that has it; otherwise it must match one. */
  readonly all?: boolean;
  readonly siblings?: boolean;
  readonly group?: boolean;
}

/**
 * The devices that the words name, with siblings and group members on request. Bridges are never included, nor are
 * devices that a named one needs to exist (the PF of a virtual function): switching those would remove the named one.
 * @throws PearasysError what {@link findDevices} throws.
 */
export function selectDevices(host: HostReader, words: readonly string[], selection: Selection): Device[] {
  const devices = readDevices(host);
  const named = findDevices(host, devices, words, {all: selection.all === true});
  const chosen = new Map(named.map((device) => [device.slot, device]));
  const carriers = new Set(
    selection.group === true ? named.flatMap((device) => carriersOf(host, device.slot)) : [],
  );
  for (const device of named)
    for (const other of [
      ...(selection.siblings === true ? siblingsOf(host, device, devices) : []),
      ...(selection.group === true ? readGroupMembers(host, device) : []),
    ])
      if (!isBridge(other) && !carriers.has(other.slot)) chosen.set(other.slot, other);
  return [...chosen.values()].sort((a, b) => (a.slot < b.slot ? -1 : 1));
}

/**
 * The devices for a planner of `carryOut`: as they were just read for its first plan, and read again under the locks.
 * @throws PearasysError what {@link reread} throws.
 */
export function refreshed(
  host: HostReader,
  devices: readonly Device[],
  when: 'early' | 'again',
): readonly Device[] {
  return when === 'early' ? devices : reread(host, devices);
}

/**
 * Reads the same devices again.
 * @throws PearasysError `no-device`, exit code 4, for one that has disappeared since.
 */
export function reread(host: HostReader, devices: readonly Pick<Device, 'slot'>[]): Device[] {
  return findDevices(
    host,
    devices.map((device) => readDevice(host, device.slot)).filter((device) => device !== undefined),
    devices.map((device) => device.slot),
  );
}
