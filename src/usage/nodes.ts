import type {HostReader} from '../host/host.js';
import {devicePath, isBridge, type Device} from '../devices/pci/device.js';
import {isVfio} from '../devices/pci/driver.js';
import {slotInPath} from '../devices/pci/find.js';
import type {Slot} from '../devices/pci/slot.js';
import type {Blocks} from './blocks.js';
import type {NodeUser} from './holder.js';
import {MountTypes} from './mounts.js';
import {removalOf, type Removal} from './removal.js';
import {lastPart, ownersOf, type Scope} from './scope.js';

/** A file that a process uses one or more of the devices through. */
export interface Node {
  readonly path: string;
  readonly owners: readonly Slot[];
  readonly removal: Removal;
  /** For nodes that belong to an interface, not to a device: then there are no owners. */
  readonly attachment?: Attachment;
}

/** What most processes have open in /dev, and what belongs to no device. */
const ofNoDevice =
  /^\/dev\/(?:null|zero|full|u?random|tty\d*|ptmx|kmsg|fuse|net\/tun|(?:pts|shm|mqueue)\/.*)$/;

/** A means by which a process uses a network interface. */
export interface Attachment {
  readonly kind: 'tap' | 'macvtap' | 'packet-socket' | 'xdp';
  /** The interface's name. */
  readonly interface: string;
  /** A socket's inode. */
  readonly inode?: string;
}

/** The processes that are attached to interfaces, by the interface's name. */
export type Attached = ReadonlyMap<
  string,
  readonly {readonly kind: Attachment['kind']; readonly inode: string | undefined; readonly user: NodeUser}[]
>;

interface NumberedNode extends Node {
  readonly type: 'block' | 'char';
}

/** The nodes of the devices, looked up by what a process has open. */
export class Nodes {
  readonly #scope: Scope;
  readonly #byPath = new Map<string, Node>();
  readonly #byNumber = new Map<string, NumberedNode[]>();
  readonly #mounts: MountTypes;
  readonly #taps = new Set<string>();
  /** Interfaces by their index. */
  readonly #programs = new Map<string, string>();

  constructor(scope: Scope) {
    this.#scope = scope;
    this.#mounts = new MountTypes(scope.host);
  }

  get empty(): boolean {
    return this.#byPath.size === 0 && this.#taps.size === 0 && this.#programs.size === 0;
  }

  add(node: Node, type: 'block' | 'char', number?: string): void {
    this.#byPath.set(node.path, node);
    if (number !== undefined)
      this.#byNumber.set(number, [...(this.#byNumber.get(number) ?? []), {...node, type}]);
  }

  /** A packet socket on an interface, by its inode. */
  attachSocket(inode: string, name: string): void {
    const attachment = {kind: 'packet-socket', interface: name, inode} as const;
    this.#byPath.set(`socket:[${inode}]`, {
      path: 'a packet socket',
      owners: [],
      removal: 'yields',
      attachment,
    });
  }

  /** The node of a macvtap interface. */
  attachNode(path: string, number: string | undefined, name: string): void {
    const attachment = {kind: 'macvtap', interface: name} as const;
    this.add({path, owners: [], removal: 'yields', attachment}, 'char', number);
  }

  /** A tap interface: used by processes that have /dev/net/tun open for it. */
  attachTap(name: string): void {
    this.#taps.add(name);
  }

  /** An interface that XDP programs may be attached to, by its index. */
  attachProgram(index: string, name: string): void {
    this.#programs.set(index, name);
  }

  /**
   * The node that an open file leads to.
   * @param file the number of the descriptor.
   * @param link the text of the link /proc/<pid>/fd/<file>, see proc(5).
   */
  find(pid: string, file: string, link: string): Node | undefined {
    if (!link.startsWith('/')) return this.#byPath.get(link) ?? this.#program(pid, file, link);
    return (
      this.#byPath.get(link) ??
      this.#tap(pid, file, link) ??
      this.#resource(link) ??
      this.#numbered(pid, file, link)
    );
  }

  /** A descriptor of /dev/net/tun names its interface (tun_chr_show_fdinfo in drivers/net/tun.c). */
  #tap(pid: string, file: string, link: string): Node | undefined {
    if (this.#taps.size === 0 || !link.endsWith('/net/tun')) return undefined;
    const name = /^iff:\s*(\S+)/m.exec(this.#info(pid, file))?.[1];
    if (name === undefined || !this.#taps.has(name)) return undefined;
    return {path: link, owners: [], removal: 'yields', attachment: {kind: 'tap', interface: name}};
  }

  /** A link of an XDP program names its interface (bpf_xdp_link_show_fdinfo in net/core/dev.c). */
  #program(pid: string, file: string, link: string): Node | undefined {
    if (this.#programs.size === 0 || !/^anon_inode:\[?bpf[-_]link\]?$/.test(link)) return undefined;
    const info = this.#info(pid, file);
    const index = /^link_type:\s*xdp$/m.test(info) ? /^ifindex:\s*(\d+)/m.exec(info)?.[1] : undefined;
    const name = index === undefined ? undefined : this.#programs.get(index);
    if (name === undefined) return undefined;
    return {
      path: 'an XDP program',
      owners: [],
      removal: 'yields',
      attachment: {kind: 'xdp', interface: name},
    };
  }

  #info(pid: string, file: string): string {
    return this.#scope.host.readText(`/proc/${pid}/fdinfo/${file}`) ?? '';
  }

  /**
   * A userspace driver maps the device's regions from sysfs (Documentation/PCI/sysfs-pci.rst).
   */
  #resource(link: string): Node | undefined {
    const file = /^\/sys\/.*\/((?:resource\d+(?:_wc)?)|config)$/.exec(link)?.[1];
    const slot = file === undefined ? undefined : slotInPath(link);
    if (file === undefined || slot === undefined || !this.#scope.devices.has(slot)) return undefined;
    return {path: devicePath(slot, file), owners: [slot], removal: 'yields'};
  }

  /**
   * A container may have the node at another path, and a removed node may still be open, so the number decides. stat(2)
   * of the link reaches the file's file system, which another user may run: it is used only for the kernel's own.
   */
  #numbered(pid: string, file: string, link: string): Node | undefined {
    if (!link.includes('/dev/') || ofNoDevice.test(link)) return undefined;
    if (this.#byNumber.size === 0 || !this.#mounts.isLocal(pid, file)) return undefined;
    const {host} = this.#scope;
    const number = host.info(`/proc/${pid}/fd/${file}`)?.deviceNumber;
    if (number === undefined) return undefined;
    return this.#byNumber.get(number)?.find((node) => {
      // Block and character devices have separate numbers, and a number alone does not say which it is.
      const other = node.type === 'block' ? 'char' : 'block';
      return (
        !host.exists(`/sys/dev/${other}/${number}`) ||
        lastPart(link.replace(/ \(deleted\)$/, '')) === lastPart(node.path)
      );
    });
  }
}

/** The nodes of the devices: from /sys/dev/char and the block devices, and VFIO's and NVIDIA's own. */
export function readNodes(scope: Scope, blocks: Blocks): Nodes {
  const nodes = new Nodes(scope);
  // If a disk is only open, the data at risk belongs to one process, which can be ended: a file system, swap or
  // stack on it is reported separately.
  for (const {node, number, owners} of blocks.all)
    if (owners.length > 0) nodes.add({path: node, owners, removal: 'yields'}, 'block', number);
  addCharacterNodes(scope, nodes);
  addGroupNodes(scope, nodes);
  addNvidiaNodes(scope, nodes);
  return nodes;
}

/** /sys/dev/char (Documentation/ABI/testing/sysfs-dev); a device's uevent has the node's path below /dev. */
function addCharacterNodes(scope: Scope, nodes: Nodes): void {
  const {host} = scope;
  for (const number of host.list('/sys/dev/char')) {
    const link = host.readLink(`/sys/dev/char/${number}`);
    const owners = link === undefined ? [] : ownersOf(scope, link);
    if (owners.length === 0) continue;
    const name = /^DEVNAME=(.+)$/m.exec(host.readText(`/sys/dev/char/${number}/uevent`) ?? '')?.[1];
    if (name === undefined) continue;
    const drivers = owners.map((slot) => scope.devices.get(slot)?.driver);
    const removal = removalOf(name, {path: link ?? '', drivers, modeset: () => hasModeset(host)});
    nodes.add({path: `/dev/${name}`, owners, removal}, 'char', number);
  }
}

/**
 * VFIO's group nodes (Documentation/driver-api/vfio.rst). A process that has one open may use any device of the
 * group; for a mediated device's group that is its parent.
 */
function addGroupNodes(scope: Scope, nodes: Nodes): void {
  const {host, devices} = scope;
  const numbered = new Set(host.list('/sys/class/vfio'));
  const names = new Set([...host.list('/dev/vfio'), ...numbered]);
  for (const {driver, group} of devices.values())
    if (group !== undefined && isVfio(driver)) names.add(String(group));
  const members = membersOf(
    [...names].map(numberOf).filter((group) => group !== undefined),
    devices.values(),
  );
  for (const name of names) {
    const group = numberOf(name);
    if (group === undefined) continue;
    // A group of PCI devices has only these; a group without any may belong to a mediated device.
    const own = members.get(group) ?? [];
    const all = own.length > 0 ? own : ownersOfGroup(scope, group);
    const owners = all.filter((device) => !isBridge(device)).map(({slot}) => slot);
    const number = numbered.has(name) ? host.readText(`/sys/class/vfio/${name}/dev`) : undefined;
    if (owners.length > 0) nodes.add({path: `/dev/vfio/${name}`, owners, removal: 'blocks'}, 'char', number);
  }
}

/** The group of a node: `12`, or `noiommu-12` (drivers/vfio/group.c). */
function numberOf(name: string): number | undefined {
  const digits = /^(?:noiommu-)?(\d+)$/.exec(name)?.[1];
  return digits === undefined ? undefined : Number(digits);
}

/** Only the devices of these groups: there may be thousands of others. */
function membersOf(groups: readonly number[], devices: Iterable<Device>): Map<number, Device[]> {
  const members = new Map<number, Device[]>(groups.map((group) => [group, []]));
  for (const device of devices) if (device.group !== undefined) members.get(device.group)?.push(device);
  return members;
}

/** The entries of a group's folder (Documentation/ABI/testing/sysfs-kernel-iommu_groups), including mediated devices. */
function ownersOfGroup(scope: Scope, group: number): Device[] {
  const folder = `/sys/kernel/iommu_groups/${group}/devices`;
  const owners = scope.host
    .list(folder)
    .flatMap((member) => ownersOf(scope, scope.host.readLink(`${folder}/${member}`) ?? member));
  return [...new Set(owners)].map((slot) => scope.devices.get(slot)).filter((device) => device !== undefined);
}

/**
 * /dev/nvidia<N>, which is not in sysfs. nvidiactl, nvidia-uvm and nvidia-modeset are omitted: all cards share them,
 * and they hold the module, not a card: see readModuleUsers. The driver's removal waits for the card's node, and does
 * not notice when it is closed (NVIDIA/open-gpu-kernel-modules, issues 1119 and 1374).
 */
function addNvidiaNodes({host, devices}: Scope, nodes: Nodes): void {
  for (const {slot, driver} of devices.values()) {
    if (driver !== 'nvidia') continue;
    const minor = nvidiaMinor(host, slot);
    if (minor !== undefined)
      nodes.add({path: `/dev/nvidia${minor}`, owners: [slot], removal: 'blocks'}, 'char', `195:${minor}`);
  }
}

function nvidiaMinor(host: HostReader, slot: Slot): string | undefined {
  const text = host.readText(`/proc/driver/nvidia/gpus/${slot}/information`);
  return /^Device Minor:\s*(\d+)/m.exec(text ?? '')?.[1];
}

/** Whether nvidia-drm sets display modes itself: then each card is in use as long as a DRM node is open. */
function hasModeset(host: HostReader): boolean {
  return host.readText('/sys/module/nvidia_drm/parameters/modeset') === 'Y';
}
