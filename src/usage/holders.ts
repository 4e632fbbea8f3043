import type {HostReader} from '../host/host.js';
import {carriersOf, dependentsOf, readDependents} from '../devices/pci/dependents.js';
import {devicePath, isBridge, isVirtualFunction, type Device} from '../devices/pci/device.js';
import {isVfio} from '../devices/pci/driver.js';
import {readBlocks} from './blocks.js';
import {readDisplayHolders} from './display.js';
import {worstOf, type Holder} from './holder.js';
import {readNetwork} from './network.js';
import {readNodes} from './nodes.js';
import {readProcessHolders} from './processes.js';
import type {Scope} from './scope.js';
import {readStorageHolders} from './storage.js';
import type {Slot} from '../devices/pci/slot.js';

/** Settings of {@link readHolders}. */
interface HolderOptions {
  /**
   * Whether each device is treated as if only it were to be taken, as in a list; otherwise all of them together,
   * which matters for the last route to the machine.
   */
  readonly alone?: boolean;
  /** Whether these are all devices of the machine, so that virtual functions are among them. */
  readonly complete?: boolean;
}

/**
 * All holders of these devices, in the order of the devices. Each folder in sysfs and /proc is read once for all of
 * them. Only root sees what processes of other users have open: {@link seesAllProcesses}.
 */
export function readHolders(
  host: HostReader,
  devices: readonly Device[],
  options: HolderOptions = {},
): Holder[] {
  if (devices.length === 0) return [];
  const known = new Map<Slot, Device>();
  for (const device of devices) known.set(device.slot, device);
  const complete = options.complete === true;
  const below = complete ? new Map<Slot, Device[]>() : readBelow(host, known);
  const all = below.size === 0 ? known : new Map(known);
  for (const device of [...below.values()].flat()) all.set(device.slot, device);
  const scope: Scope = {host, devices: all};
  // What exists only through a device disappears with it.
  const withBelow = (slot: Slot) => [
    slot,
    ...(complete ? virtualFunctionsOf(host, slot, known) : (below.get(slot) ?? [])).map((one) => one.slot),
  ];
  const together = options.alone === true ? undefined : new Set(devices.flatMap(({slot}) => withBelow(slot)));
  const blocks = readBlocks(scope);
  const network = readNetwork(scope);
  const nodes = readNodes(scope, blocks);
  network.addNodes(nodes);
  const processes = readProcessHolders(scope, nodes);
  const holders = bySlot([
    ...processes.holders,
    ...readStorageHolders(host, blocks),
    ...network.holders((slot) => together ?? new Set(withBelow(slot)), processes.attached),
    ...readDisplayHolders(scope),
  ]);
  // Few of all devices are in use: it is faster to check only what those are part of.
  const dependents = complete ? readAbove(host, known, holders) : below;
  const found: Holder[] = [];
  for (const {slot} of devices) {
    found.push(
      ...(holders.get(slot) ?? []),
      ...dependentHolders(host, slot, dependents.get(slot) ?? [], holders),
    );
  }
  return found;
}

function bySlot(holders: readonly Holder[]): Map<Slot, Holder[]> {
  const result = new Map<Slot, Holder[]>();
  for (const holder of holders) {
    const known = result.get(holder.slot);
    if (known === undefined) result.set(holder.slot, [holder]);
    else known.push(holder);
  }
  return result;
}

/** Whether the open files of every process are visible: only to root, see /proc/<pid>/fd in proc(5). */
export function seesAllProcesses(host: HostReader): boolean {
  return host.userId === 0;
}

/** What disappears with each device's driver, for the devices with such dependents. */
function readBelow(host: HostReader, devices: ReadonlyMap<Slot, Device>): Map<Slot, readonly Device[]> {
  const found = new Map<Slot, readonly Device[]>();
  for (const [slot, device] of devices) {
    if (isBridge(device)) continue;
    const own = dependentsOf(readDependents(host, slot, devices));
    if (own.length > 0) found.set(slot, own);
  }
  return found;
}

function virtualFunctionsOf(
  host: HostReader,
  slot: Slot,
  known: ReadonlyMap<Slot, Device>,
): readonly Device[] {
  return host.exists(devicePath(slot, 'sriov_numvfs')) ? readDependents(host, slot, known).virtual : [];
}

/** The devices in use that disappear with another device's driver, by that device. */
function readAbove(
  host: HostReader,
  devices: ReadonlyMap<Slot, Device>,
  holders: ReadonlyMap<Slot, readonly Holder[]>,
): Map<Slot, Device[]> {
  const found = new Map<Slot, Device[]>();
  for (const device of devices.values()) {
    if (!isVfio(device.driver) && !holders.has(device.slot)) continue;
    for (const slot of carriersOf(host, device.slot)) {
      const carrier = devices.get(slot);
      if (carrier !== undefined && !isBridge(carrier)) found.set(slot, [...(found.get(slot) ?? []), device]);
    }
  }
  return found;
}

/**
 * Devices that are passed to userspace or held themselves, and disappear with the driver of this one: certain harm to
 * one of them is certain harm to this one.
 */
function dependentHolders(
  host: HostReader,
  slot: Slot,
  dependents: readonly Device[],
  holders: ReadonlyMap<Slot, readonly Holder[]>,
): Holder[] {
  const own = new Set((holders.get(slot) ?? []).map(print));
  return dependents.flatMap((one): Holder[] => {
    const theirs = (holders.get(one.slot) ?? []).filter(({harm}) => harm !== 'none');
    if (!isVfio(one.driver) && theirs.length === 0) return [];
    const base = {
      slot,
      class: worstOf(['yields', ...theirs.map((holder) => holder.class)]),
      harm: theirs.some(({harm}) => harm === 'certain') ? 'certain' : 'overridable',
      driver: one.driver ?? 'none',
    } as const;
    if (isVirtualFunction(host, one.slot))
      return [{...base, kind: 'virtual-function', virtualFunction: one.slot}];
    // The mounts and nodes of a device below this one count for this one too.
    const told = theirs.length > 0 && theirs.every((holder) => own.has(print({...holder, slot})));
    return told ? [] : [{...base, kind: 'dependent', dependent: one.slot}];
  });
}

function print(holder: Holder): string {
  return JSON.stringify(holder, Object.keys(holder).sort());
}
