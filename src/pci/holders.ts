import type {HostReader} from '../host/host.js';
import {devicePath, readDevice, type Device} from './device.js';
import {isVfio} from './driver.js';
import {slotInPath} from './find.js';
import {readBlocks} from './holders/blocks.js';
import {readDisplayHolders} from './holders/display.js';
import {worstOf, type Holder, type VirtualFunctionHolder} from './holders/holder.js';
import {readInterfaceHolders} from './holders/network.js';
import {readNodes} from './holders/nodes.js';
import {readProcessHolders} from './holders/processes.js';
import {byNumber, type Scope} from './holders/scope.js';
import {readStorageHolders} from './holders/storage.js';
import type {Slot} from './slot.js';

/** Settings of {@link readHolders}. */
export interface HolderOptions {
  /**
   * Whether each device is looked at as if it alone were to be taken, as in a list; otherwise all of them together,
   * which matters for the last route to the machine.
   */
  readonly alone?: boolean;
  /** Whether these are all devices of the machine, so that virtual functions are among them. */
  readonly complete?: boolean;
}

/**
 * All holders of these devices, in the devices' order. Each folder of the kernel is gone through once, however many
 * devices there are. What another user's processes have open only root sees: {@link seesAllProcesses}.
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
  const below = complete ? new Map<Slot, Device[]>() : readVirtualFunctions(host, known);
  const all = below.size === 0 ? known : new Map(known);
  for (const device of [...below.values()].flat()) all.set(device.slot, device);
  const scope: Scope = {host, devices: all};
  // A device's virtual functions go with it.
  const withVirtual = (slot: Slot) => [
    slot,
    ...(complete ? virtualFunctionsOf(host, slot, known) : (below.get(slot) ?? [])).map((one) => one.slot),
  ];
  const together =
    options.alone === true ? undefined : new Set(devices.flatMap(({slot}) => withVirtual(slot)));
  const blocks = readBlocks(scope);
  const holders = bySlot([
    ...readProcessHolders(scope, readNodes(scope, blocks)),
    ...readStorageHolders(host, blocks),
    ...readInterfaceHolders(scope, (slot) => together ?? new Set(withVirtual(slot))),
    ...readDisplayHolders(scope),
  ]);
  // Among all devices, those in use are few: asking these for what they are part of is quicker than asking all.
  const virtualFunctions = complete ? readPhysicalFunctions(host, devices, holders) : below;
  const found: Holder[] = [];
  for (const {slot} of devices) {
    const own = holders.get(slot);
    if (own !== undefined) found.push(...own);
    const virtual = virtualFunctions.get(slot);
    if (virtual !== undefined) found.push(...virtualFunctionHolders(slot, virtual, holders));
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

/** Whether what every process has open can be seen: root only, see /proc/<pid>/fd in proc(5). */
export function seesAllProcesses(host: HostReader): boolean {
  return host.userId === 0;
}

/** The virtual functions of each device that has some (Documentation/PCI/pci-iov-howto.rst). */
function readVirtualFunctions(
  host: HostReader,
  devices: ReadonlyMap<Slot, Device>,
): Map<Slot, readonly Device[]> {
  const found = new Map<Slot, readonly Device[]>();
  for (const slot of devices.keys()) {
    const own = virtualFunctionsOf(host, slot, devices);
    if (own.length > 0) found.set(slot, own);
  }
  return found;
}

function virtualFunctionsOf(host: HostReader, slot: Slot, known: ReadonlyMap<Slot, Device>): Device[] {
  // Not to be read: the kernel would wait there for as long as the device's driver is being removed.
  if (!host.exists(devicePath(slot, 'sriov_numvfs'))) return [];
  return host
    .list(devicePath(slot))
    .filter((name) => /^virtfn\d+$/.test(name))
    .sort(byNumber)
    .map((name) => slotInPath(host.readLink(devicePath(slot, name)) ?? ''))
    .map((one) => (one === undefined ? undefined : (known.get(one) ?? readDevice(host, one))))
    .filter((one) => one !== undefined);
}

/** The virtual functions that are in use, by their physical function. */
function readPhysicalFunctions(
  host: HostReader,
  devices: readonly Device[],
  holders: ReadonlyMap<Slot, readonly Holder[]>,
): Map<Slot, Device[]> {
  const found = new Map<Slot, Device[]>();
  for (const device of devices) {
    if (!isVfio(device.driver) && !holders.has(device.slot)) continue;
    const link = devicePath(device.slot, 'physfn');
    // Asked first, as most have none and a link that is not there costs an exception.
    const physical = host.exists(link) ? slotInPath(host.readLink(link) ?? '') : undefined;
    if (physical !== undefined) found.set(physical, [...(found.get(physical) ?? []), device]);
  }
  return found;
}

/**
 * Virtual functions that are given to userspace or held themselves. They are removed with the physical function's
 * driver, so what is certain harm to one of them is so to all.
 */
function virtualFunctionHolders(
  slot: Slot,
  virtualFunctions: readonly Device[],
  holders: ReadonlyMap<Slot, readonly Holder[]>,
): VirtualFunctionHolder[] {
  return virtualFunctions
    .map((one) => ({one, own: (holders.get(one.slot) ?? []).filter(({harm}) => harm !== 'none')}))
    .filter(({one, own}) => isVfio(one.driver) || own.length > 0)
    .map(({one, own}) => ({
      kind: 'virtual-function',
      slot,
      class: worstOf(['yields', ...own.map((holder) => holder.class)]),
      harm: own.some(({harm}) => harm === 'certain') ? 'certain' : 'forcible',
      virtualFunction: one.slot,
      driver: one.driver ?? 'none',
    }));
}
