import type {HostReader} from '../host/host.js';
import {devicePath, readDevice, type Device} from './device.js';
import {isVfio} from './driver.js';
import {slotInPath} from './find.js';
import {readBlocks} from './holders/blocks.js';
import {readDisplayHolders} from './holders/display.js';
import {readInterfaceHolders} from './holders/network.js';
import {readNodes} from './holders/nodes.js';
import {readProcessHolders} from './holders/processes.js';
import {byNumber, type Scope} from './holders/scope.js';
import {readStorageHolders} from './holders/storage.js';
import type {Slot} from './slot.js';

/** What every holder has. */
interface HolderBase {
  /** The device that is held. */
  readonly slot: Slot;
  /**
   * `certain`: taking the device is sure to lose data, cut the machine off or never return, and is refused even
   * with `--force`; `forcible`: the person may decide.
   */
  readonly harm: 'certain' | 'forcible';
}

/** A process that has a node of the device open. */
export interface ProcessHolder extends HolderBase {
  readonly kind: 'process';
  readonly pid: number;
  /** The command's name, as in /proc/<pid>/comm. */
  readonly command: string;
  /** The systemd unit it runs in; undefined outside of one. */
  readonly unit: string | undefined;
  /** The user ID of the service manager that runs the unit; absent for the system's. */
  readonly unitUser?: number;
  /** The nodes it has open, as in `/dev/dri/card0`. */
  readonly nodes: readonly string[];
  /** Whether it is in the display manager's unit, or is a display server that was started from there. */
  readonly displayManager: boolean;
}

/** A file system or swap on a disk of the device. */
export interface MountHolder extends HolderBase {
  readonly kind: 'mount' | 'swap';
  /** The block device: `/dev/nvme0n1p2`. */
  readonly source: string;
  /** The mount point; the word `swap` for swap. */
  readonly target: string;
  /** Whether the system runs from it: /, /usr, /boot, /var, … */
  readonly system: boolean;
}

/** Another block device built on a disk of the device: LVM, RAID, dm-crypt, or a claim the kernel does not name. */
export interface StackHolder extends HolderBase {
  readonly kind: 'stack';
  readonly source: string;
  /** What is built on it: `dm-0 (vg-root)`, `md0`; undefined when the kernel only says that it is in use. */
  readonly by: string | undefined;
}

/** A network interface that is up with an address, or in a route. */
export interface InterfaceHolder extends HolderBase {
  readonly kind: 'interface';
  readonly name: string;
  readonly addresses: readonly string[];
  /** Destinations routed over it: `default via 192.168.1.1`, `192.168.1.0/24`. */
  readonly routes: readonly string[];
  /** The bridge, bond or VLAN that carries the address or route, when it is not the interface itself. */
  readonly through: string | undefined;
  /** Whether without it no route leads to the machine. */
  readonly last: boolean;
}

/** A framebuffer or console shown on the device. */
export interface DisplayHolder extends HolderBase {
  readonly kind: 'framebuffer' | 'console';
  /** `fb0`, `vtcon1`. */
  readonly name: string;
  /** What makes the framebuffer, the console's name: `efi-framebuffer.0`, `nouveaudrmfb`, `frame buffer device`. */
  readonly description: string;
}

/** Virtual functions of the device that are in use. */
export interface VirtualFunctionHolder extends HolderBase {
  readonly kind: 'virtual-function';
  readonly virtualFunction: Slot;
  readonly driver: string;
}

/** Who uses a device now. */
export type Holder =
  ProcessHolder | MountHolder | StackHolder | InterfaceHolder | DisplayHolder | VirtualFunctionHolder;

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
  const known = new Map(devices.map((device) => [device.slot, device]));
  const complete = options.complete === true;
  const below = complete ? new Map<Slot, Device[]>() : readVirtualFunctions(host, known);
  const scope: Scope = {
    host,
    devices: new Map([
      ...known,
      ...[...below.values()].flat().map((device) => [device.slot, device] as const),
    ]),
  };
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
  return devices.flatMap(({slot}) => [
    ...(holders.get(slot) ?? []),
    ...virtualFunctionHolders(slot, virtualFunctions.get(slot) ?? [], holders),
  ]);
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
    .filter((one) => isVfio(one.driver) || holders.has(one.slot))
    .map((one) => ({
      kind: 'virtual-function',
      slot,
      harm: holders.get(one.slot)?.some(({harm}) => harm === 'certain') === true ? 'certain' : 'forcible',
      virtualFunction: one.slot,
      driver: one.driver ?? 'none',
    }));
}

/** A holder in words, for a refusal: `process 812 (Xorg) of gdm.service has /dev/dri/card0 open`. */
export function describeHolder(holder: Holder): string {
  switch (holder.kind) {
    case 'process':
      return `process ${holder.pid} (${holder.command})${unitInWords(holder)} has ${shortList(holder.nodes)} open`;
    case 'mount':
      return `${holder.source} is mounted at ${holder.target}`;
    case 'swap':
      return `${holder.source} is used as swap`;
    case 'stack':
      return `${holder.source} is ${holder.by === undefined ? 'in use by the kernel' : `part of ${holder.by}`}`;
    case 'interface':
      return describeInterface(holder);
    case 'framebuffer':
    case 'console':
      return `${holder.kind} ${holder.name} (${holder.description}) is shown on it`;
    case 'virtual-function':
      return `its virtual function ${holder.virtualFunction} is in use (driver ${holder.driver})`;
  }
}

/** What ends this holder's use: `systemctl stop gdm.service`, `umount /mnt/data`. */
export function adviseOnHolder(holder: Holder): string {
  switch (holder.kind) {
    case 'process':
      return adviseOnProcess(holder);
    case 'mount':
      return holder.system
        ? "the system runs from it: it can't be taken"
        : `umount ${shellWord(holder.target)}`;
    case 'swap':
      return `swapoff ${shellWord(holder.source)}`;
    case 'stack':
      return adviseOnStack(holder);
    case 'interface':
      return holder.last
        ? "without it this machine is cut off: it can't be taken before another interface has a default route"
        : `ip link set ${shellWord(holder.name)} down`;
    case 'framebuffer':
      return adviseOnFramebuffer(holder);
    case 'console':
      return `echo 0 > /sys/class/vtconsole/${holder.name}/bind`;
    case 'virtual-function':
      return holder.harm === 'certain'
        ? `end the use of ${holder.virtualFunction} first`
        : `echo 0 > ${devicePath(holder.slot, 'sriov_numvfs')}`;
  }
}

function unitInWords({unit, unitUser, displayManager}: ProcessHolder): string {
  const words = [
    ...(unit === undefined ? [] : [` of ${unit}`]),
    ...(unitUser === undefined ? [] : [` (user ${unitUser})`]),
    ...(displayManager ? [' (display manager)'] : []),
  ];
  return words.join('');
}

function describeInterface({name, addresses, routes, through, last}: InterfaceHolder): string {
  const way = through === undefined ? '' : ` through ${through}`;
  if (last) {
    const defaults = routes.filter((route) => route.startsWith('default'));
    const named = defaults.length > 0 ? defaults : [...addresses, ...routes];
    return `${name} carries the last route to this machine (${named.join(', ')})${way}`;
  }
  const uses = [
    ...(addresses.length === 0 ? [] : [`is up with ${shortList(addresses)}`]),
    ...(routes.length === 0
      ? []
      : [`carries the route${routes.length === 1 ? '' : 's'} ${shortList(routes)}`]),
  ];
  return `${name} ${uses.join(' and ')}${way}`;
}

/** Units that are not to be stopped for one device, and what ends their use instead. */
const unitAdvice: Readonly<Record<string, string>> = {
  'init.scope': 'it is the service manager itself: see RuntimeWatchdogSec= in systemd-system.conf(5)',
  'systemd-logind.service': 'end the session that it opened it for: loginctl list-sessions',
  'systemd-udevd.service': 'udevadm settle',
};

function adviseOnProcess({unit, unitUser, displayManager, pid}: ProcessHolder): string {
  const kill = `kill ${pid}`;
  if (unitUser !== undefined)
    return unit?.endsWith('.service') === true
      ? `systemctl --user --machine=${unitUser}@ stop ${shellWord(unit)}`
      : kill;
  const service = unit?.endsWith('.service') === true ? unit : undefined;
  if (displayManager) return `systemctl stop ${shellWord(service ?? 'display-manager.service')}`;
  const special = unit === undefined ? undefined : unitAdvice[unit];
  if (special !== undefined) return special;
  const guest = /^machine-qemu\\x2d\d+\\x2d(.+)\.scope$/.exec(unit ?? '')?.[1];
  if (guest !== undefined) return `virsh shutdown ${shellWord(unescapeUnit(guest))}`;
  // A user's manager is a service too, but ending all that the user runs is more than is needed.
  return service === undefined || service.startsWith('user@') ? kill : `systemctl stop ${shellWord(service)}`;
}

function adviseOnStack({source, by}: StackHolder): string {
  if (by === undefined)
    return `lsblk ${shellWord(source)}, zpool status and btrfs filesystem show tell what uses it`;
  const mapped = /^dm-\d+ \((.+)\)$/.exec(by)?.[1];
  if (mapped !== undefined) return `dmsetup remove ${shellWord(mapped)}`;
  if (/^md\d/.test(by)) return `mdadm --stop ${shellWord(`/dev/${by}`)}`;
  if (by.startsWith('bcache')) return `echo 1 > /sys/block/${by}/bcache/stop`;
  return `stop ${by}`;
}

function adviseOnFramebuffer({name, description}: DisplayHolder): string {
  const driver = /^((?:efi|simple|vesa)-framebuffer)\.\d+$/.exec(description)?.[1];
  return driver === undefined
    ? `see that nobody needs the screen of ${name}: it is off until a driver has the device again`
    : `echo ${description} > /sys/bus/platform/drivers/${driver}/unbind`;
}

/** The first few of a list, and how many more there are. */
function shortList(list: readonly string[]): string {
  const most = 3;
  return list.length <= most + 1
    ? list.join(', ')
    : `${list.slice(0, most).join(', ')} and ${list.length - most} more`;
}

/** `\x2d` and the like in a unit's name, see systemd.unit(5). */
function unescapeUnit(text: string): string {
  const bytes = text.replace(/\\x([0-9a-f]{2})|[^\\]/giu, (all, digits?: string) =>
    digits === undefined ? encodeURIComponent(all) : `%${digits}`,
  );
  try {
    return decodeURIComponent(bytes);
  } catch {
    return text;
  }
}

/** A word as a shell takes it: quoted only where needed. */
function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
