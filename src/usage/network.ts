import {devicePath, isNetwork} from '../devices/pci/device.js';
import {isVfio} from '../devices/pci/driver.js';
import type {Slot} from '../devices/pci/slot.js';
import type {InterfaceHolder, InterfaceUser, NamespaceHolder, StackedInterface} from './holder.js';
import type {Attached, Nodes} from './nodes.js';
import {isDefault, readRoutes} from './routes.js';
import {lastPart, ownersOf, type Scope} from './scope.js';

/** A network interface, of hardware or virtual. */
interface Interface {
  readonly name: string;
  /** The PCI devices that it depends on; none for an interface outside of the scope. */
  readonly owners: readonly Slot[];
  /** Whether it has hardware, on the PCI bus or not: only that leads out of the machine. */
  readonly physical: boolean;
  readonly up: boolean;
  /** The bonds, bridges and VLANs directly on it. */
  readonly uppers: readonly string[];
  readonly addresses: readonly string[];
  readonly routes: readonly string[];
}

/** What /sys/class/net lists. */
interface InterfaceLink {
  readonly name: string;
  /** Where its link leads; undefined when it has disappeared since. */
  readonly link: string | undefined;
  readonly owners: readonly Slot[];
  readonly up: boolean;
}

/** Drivers of network cards that count the multicast groups of an interface twice (drivers/net/ethernet). */
const syncingDrivers: ReadonlySet<string> = new Set([
  'enic',
  'hclgevf',
  'hns3',
  'i40e',
  'iavf',
  'ice',
  'idpf',
  'ionic',
]);

/** The multicast group that each interface with IPv4 is in, with its address as in /proc/net/dev_mcast. */
const allHosts = '01005e000001';

/**
 * Reads the interfaces, and those built on the devices' interfaces. Addresses and routes take longer to read than all
 * the rest, so they are read only if an interface of the devices is up.
 */
export function readNetwork(scope: Scope): Network {
  const {host} = scope;
  const links = host.list('/sys/class/net').map((name) => {
    const link = host.readLink(`/sys/class/net/${name}`);
    return {name, link, owners: link === undefined ? [] : ownersOf(scope, link), up: isUp(scope, name)};
  });
  const moved = readMoved(scope, new Set(links.flatMap(({owners}) => owners)));
  const inUse = links.some(({owners, up}) => up && owners.length > 0);
  return new Network(scope, inUse ? readInterfaces(scope, links) : [], moved);
}

/**
 * Network devices with an interface in another network namespace. sysfs shows a process only the interfaces of its own
 * namespace, but their folder exists, and appears empty, as long as the device has an interface in any namespace.
 * @param seen devices with an interface here.
 */
function readMoved({host, devices}: Scope, seen: ReadonlySet<Slot>): NamespaceHolder[] {
  const moved: NamespaceHolder[] = [];
  for (const device of devices.values()) {
    const {slot, driver} = device;
    if (!isNetwork(device) || driver === undefined || isVfio(driver) || seen.has(slot)) continue;
    const folder = devicePath(slot);
    // The interface of a virtio device is one level deeper. Folders of other cards are not searched for that.
    const parents =
      driver === 'virtio-pci' ? host.list(folder).filter((name) => name.startsWith('virtio')) : ['.'];
    const nets = parents.map((parent) => `${folder}/${parent}/net`).filter((net) => host.exists(net));
    // A new interface may be in there already, but not in /sys/class/net when that was listed.
    if (nets.some((net) => host.list(net).length === 0))
      moved.push({kind: 'network-namespace', slot, class: 'yields', harm: 'overridable'});
  }
  return moved;
}

/** The interfaces of this network namespace, and how they are connected. */
export class Network {
  readonly #scope: Scope;
  readonly #all: readonly Interface[];
  readonly #moved: readonly NamespaceHolder[];
  readonly #byName: ReadonlyMap<string, Interface>;
  readonly #byIndex = new Map<string, Interface>();
  /** The interfaces that have this one as their bridge, bond or switch. */
  readonly #ports = new Map<Interface, Interface[]>();
  /** The devices' interfaces and those built on them, by distance. */
  readonly #stacked: ReadonlySet<Interface>;
  readonly #packetSockets: readonly {readonly inode: string; readonly on: Interface}[];

  #members: ReadonlyMap<string, number> | undefined;
  #sessions: readonly string[] | undefined;

  constructor(scope: Scope, all: readonly Interface[], moved: readonly NamespaceHolder[]) {
    this.#scope = scope;
    this.#all = all;
    this.#moved = moved;
    this.#byName = new Map(all.map((one) => [one.name, one]));
    for (const one of all) {
      const index = this.#attribute(one, 'ifindex');
      if (index !== undefined) this.#byIndex.set(index, one);
      for (const name of one.uppers) {
        const upper = this.#byName.get(name);
        if (upper !== undefined) this.#ports.set(upper, [...(this.#ports.get(upper) ?? []), one]);
      }
    }
    this.#stacked = new Set(this.#owned().flatMap((lower) => [...this.#carriedBy(lower).keys()]));
    this.#packetSockets = this.#stacked.size === 0 ? [] : this.#readPacketSockets();
  }

  /** Adds what processes use interfaces through without any device: taps, packet sockets, XDP programs. */
  addNodes(nodes: Nodes): void {
    for (const {inode, on} of this.#packetSockets) nodes.attachSocket(inode, on.name);
    for (const one of this.#stacked) {
      const index = this.#attribute(one, 'ifindex');
      if (index !== undefined) nodes.attachProgram(index, one.name);
      // All taps: a guest may route between two of them.
      if ((this.#ports.get(one) ?? []).some((port) => this.#isTap(port)))
        for (const tap of this.#all) if (this.#isTap(tap)) nodes.attachTap(tap.name);
      const folder = `/sys/class/net/${one.name}/macvtap`;
      for (const tap of this.#scope.host.list(folder))
        nodes.attachNode(`/dev/${tap}`, this.#scope.host.readText(`${folder}/${tap}/dev`), one.name);
    }
  }

  /**
   * Interfaces of the devices that are up and have an address, a route or a user, directly or through interfaces built
   * on them. A link-local address or route (fe80::/10) does not count.
   * @param takenWith the devices that disappear when this one is taken, including itself.
   * @param attached what processes use of the nodes of {@link addNodes}.
   */
  holders(
    takenWith: (slot: Slot) => ReadonlySet<Slot>,
    attached: Attached,
  ): (InterfaceHolder | NamespaceHolder)[] {
    const ways = new Ways(this.#scope, this.#waysOut(attached));
    const holders: (InterfaceHolder | NamespaceHolder)[] = [...this.#moved];
    for (const lower of this.#owned()) {
      const carried = this.#carriedBy(lower);
      const told = new Set<string>();
      for (const [user] of [...carried, ...this.#routedBy(lower, carried, attached)]) {
        const own = carried.has(user) ? this.#usersOf(user, carried, attached) : [];
        const users = own.filter((one) => {
          const key = `${one.kind} ${one.interface} ${one.process?.pid ?? ''}`;
          return !told.has(key) && told.add(key);
        });
        if (user.addresses.length === 0 && user.routes.length === 0 && users.length === 0) continue;
        for (const slot of lower.owners) {
          const last = ways.areCutOff(user, takenWith(slot));
          const stack = this.#stackOf(lower, user, carried);
          holders.push({
            kind: 'interface',
            slot,
            class: 'yields',
            harm: 'overridable',
            name: lower.name,
            addresses: user.addresses,
            routes: user.routes,
            through: user === lower ? undefined : user.name,
            ...(users.length === 0 ? {} : {stack, users}),
            last,
          });
        }
      }
    }
    return holders;
  }

  #owned(): Interface[] {
    return this.#all.filter(({up, owners}) => up && owners.length > 0);
  }

  /** The interface and all built on it, each with the one below it. */
  #carriedBy(lower: Interface): Map<Interface, Interface | undefined> {
    const found = new Map<Interface, Interface | undefined>([[lower, undefined]]);
    // Iterating a map includes entries that are added meanwhile.
    for (const [one] of found)
      for (const upper of [...this.#named(one.uppers), ...this.#peersOn(one)])
        if (!found.has(upper)) found.set(upper, one);
    return found;
  }

  #named(names: readonly string[]): Interface[] {
    return names.map((name) => this.#byName.get(name)).filter((one) => one !== undefined);
  }

  /** The other ends of the veth pairs in a bridge, if they are in this namespace. */
  #peersOn(bridge: Interface): Interface[] {
    return (this.#ports.get(bridge) ?? [])
      .map((port) => this.#peerOf(port))
      .filter((one) => one !== undefined);
  }

  /** The other end of a veth pair: `elsewhere` when it is in another namespace; undefined for other interfaces. */
  #peerOf(port: Interface, elsewhere?: false): Interface | undefined;
  #peerOf(port: Interface, elsewhere: true): Interface | 'elsewhere' | undefined;
  #peerOf(port: Interface, elsewhere = false): Interface | 'elsewhere' | undefined {
    if (port.physical || !/^(?:veth)?$/.test(this.#typeOf(port))) return undefined;
    const index = this.#attribute(port, 'ifindex');
    const peer = this.#attribute(port, 'iflink');
    if (index === undefined || peer === undefined || peer === index) return undefined;
    const found = this.#byIndex.get(peer);
    if (found !== undefined && this.#attribute(found, 'iflink') === index) return found;
    return elsewhere ? 'elsewhere' : undefined;
  }

  /**
   * Interfaces whose only way out is this one, by way of a virtual machine that routes: a process with a tap on an
   * interface built on this one, and another tap on theirs.
   */
  #routedBy(
    lower: Interface,
    carried: ReadonlyMap<Interface, unknown>,
    attached: Attached,
  ): Map<Interface, Interface> {
    const found = new Map<Interface, Interface>();
    const direct = new Set(this.#hardware().flatMap((one) => [...this.#carriedBy(one).keys()]));
    const tapsOf = (pid: number) =>
      [...attached].filter(([, users]) => users.some(({user}) => user.pid === pid)).map(([name]) => name);
    for (const one of carried.keys())
      for (const port of this.#ports.get(one) ?? [])
        for (const {user} of attached.get(port.name) ?? [])
          for (const tap of this.#named(tapsOf(user.pid)).filter((other) => other !== port))
            for (const far of this.#carriedBy(tap).keys())
              if (!carried.has(far) && !direct.has(far)) found.set(far, lower);
    return found;
  }

  #hardware(): Interface[] {
    return this.#all.filter(({physical, up}) => physical && up);
  }

  /** The hardware below each interface with an address or route. */
  #waysOut(attached: Attached): Map<Interface, Interface[]> {
    const ways = new Map<Interface, Interface[]>();
    for (const one of this.#hardware()) {
      const carried = this.#carriedBy(one);
      for (const user of [...carried.keys(), ...this.#routedBy(one, carried, attached).keys()])
        if (user.addresses.length > 0 || user.routes.length > 0)
          ways.set(user, [...(ways.get(user) ?? []), one]);
    }
    return ways;
  }

  /** The users of an interface without an address of this machine. */
  #usersOf(one: Interface, carried: ReadonlyMap<Interface, unknown>, attached: Attached): InterfaceUser[] {
    const users: InterfaceUser[] = (attached.get(one.name) ?? []).map(({kind, user}) => ({
      kind,
      interface: one.name,
      process: user,
    }));
    const named = new Set((attached.get(one.name) ?? []).map(({inode}) => inode));
    if (this.#packetSockets.some(({inode, on}) => on === one && !named.has(inode)))
      users.push({kind: 'packet-socket', interface: one.name});
    if (this.#hasHiddenUpper(one)) users.push({kind: 'namespace', interface: one.name});
    this.#sessions ??= readSessions(this.#scope);
    const session = this.#sessions.includes(one.name);
    if (session && !this.#named(one.uppers).some((upper) => this.#typeOf(upper) === 'ppp'))
      users.push({kind: 'pppoe', interface: one.name});
    for (const port of this.#ports.get(one) ?? [])
      if (!carried.has(port)) users.push(...this.#usersOfPort(port, one, attached));
    return users;
  }

  #usersOfPort(port: Interface, bridge: Interface, attached: Attached): InterfaceUser[] {
    if (this.#isTap(port)) {
      const known = (attached.get(port.name) ?? []).map(({user}) => ({
        kind: 'tap' as const,
        interface: port.name,
        process: user,
      }));
      // A tap that no process has open has no carrier (drivers/net/tun.c).
      return known.length > 0 || this.#isDown(port) ? known : [{kind: 'tap', interface: port.name}];
    }
    if (this.#peerOf(port, true) === 'elsewhere') return [{kind: 'namespace', interface: port.name}];
    const forwards = this.#isBridge(bridge) && (port.physical || this.#typeOf(port) === 'vxlan');
    return forwards && !this.#isDown(port) ? [{kind: 'port', interface: port.name}] : [];
  }

  /**
   * Whether an interface in another namespace is built on it, which sysfs does not link: macvlan, ipvlan and VLAN pass
   * their multicast addresses to the interface below. The count in /proc/net/dev_mcast has the interface itself, each
   * one above that passes it on, and each one below that gets it (__hw_addr_sync_one in net/core/dev_addr_lists.c).
   */
  #hasHiddenUpper(one: Interface): boolean {
    const index = this.#attribute(one, 'ifindex');
    this.#members ??= readMembers(this.#scope);
    const above = this.#named(one.uppers).filter((upper) => this.#passesGroups(upper, one));
    const below = (this.#ports.get(one) ?? []).filter((lower) => this.#passesGroups(one, lower));
    const itself = this.#givesGroupsToHardware(one) ? 2 : 1;
    return (this.#members.get(index ?? '') ?? 0) > itself + above.length + below.length;
  }

  /**
   * Whether its driver gets the addresses by __dev_mc_sync or __hw_addr_sync, which counts as one more: the drivers
   * listed here, and Wi-Fi (ieee80211_set_multicast_list in net/mac80211/iface.c).
   */
  #givesGroupsToHardware(one: Interface): boolean {
    if (!one.physical || !one.up) return false;
    const folder = `/sys/class/net/${one.name}`;
    const driver = lastPart(this.#scope.host.readLink(`${folder}/device/driver`) ?? '');
    return syncingDrivers.has(driver) || this.#scope.host.exists(`${folder}/phy80211`);
  }

  /**
   * Whether an interface passes its multicast addresses to the one below. A bridge does not, nor does a bond to its
   * backup (bond_set_rx_mode in drivers/net/bonding/bond_main.c).
   */
  #passesGroups(upper: Interface, lower: Interface): boolean {
    if (!upper.up || this.#isBridge(upper)) return false;
    const mode = this.#attribute(upper, 'bonding/mode') ?? '';
    const hasBackups = /^(?:active-backup|balance-tlb|balance-alb)\b/.test(mode);
    return !hasBackups || this.#attribute(upper, 'bonding/active_slave') === lower.name;
  }

  /** The interfaces between this one and its users, the nearest first. */
  #stackOf(
    lower: Interface,
    user: Interface,
    carried: ReadonlyMap<Interface, Interface | undefined>,
  ): StackedInterface[] {
    const stack: StackedInterface[] = [];
    for (let at: Interface | undefined = user; at !== undefined && at !== lower; at = carried.get(at))
      stack.unshift({name: at.name, type: this.#typeWord(at)});
    return stack;
  }

  #typeWord(one: Interface): string {
    if (one.name === 'ovs-system') return 'openvswitch';
    const files = this.#scope.host.list(`/sys/class/net/${one.name}`);
    // The type of a macvtap may be macvlan.
    const folder = ['macvtap', 'bridge', 'bonding'].find((file) => files.includes(file));
    return folder === undefined ? this.#typeOf(one) : folder.replace('bonding', 'bond');
  }

  #isBridge(one: Interface): boolean {
    return ['bridge', 'openvswitch'].includes(this.#typeWord(one));
  }

  /** The kernel's name of its type; empty for hardware and for interfaces without a type. */
  #typeOf({name}: Interface): string {
    return (
      /^DEVTYPE=(.+)$/m.exec(this.#scope.host.readText(`/sys/class/net/${name}/uevent`) ?? '')?.[1] ?? ''
    );
  }

  #isTap({name}: Interface): boolean {
    return this.#scope.host.exists(`/sys/class/net/${name}/tun_flags`);
  }

  #isDown({name}: Interface): boolean {
    return isWithoutCarrier(this.#scope, name);
  }

  #attribute({name}: Interface, file: string): string | undefined {
    return this.#scope.host.readText(`/sys/class/net/${name}/${file}`);
  }

  /** /proc/net/packet, see packet(7): sockets that receive the packets of one of the interfaces. */
  #readPacketSockets(): {inode: string; on: Interface}[] {
    const sockets: {inode: string; on: Interface}[] = [];
    for (const line of (this.#scope.host.readText('/proc/net/packet') ?? '').split('\n').slice(1)) {
      const [, , , , index = '', running, , , inode = ''] = line.trim().split(/\s+/);
      const on = this.#byIndex.get(index);
      if (running === '1' && on !== undefined && this.#stacked.has(on)) sockets.push({inode, on});
    }
    return sockets;
  }
}

/** The ways to the machine, by the hardware that they use. */
class Ways {
  readonly #scope: Scope;
  readonly #ways: ReadonlyMap<Interface, readonly Interface[]>;
  /** The interfaces that lead to the machine: those with a default route; without one, all that have an address. */
  readonly #last: readonly Interface[];

  constructor(scope: Scope, ways: ReadonlyMap<Interface, readonly Interface[]>) {
    this.#scope = scope;
    this.#ways = ways;
    const used = [...ways.keys()];
    const defaults = used.filter((one) => one.routes.some(isDefault));
    this.#last = defaults.length > 0 ? defaults : used;
  }

  /**
   * Whether this interface is one of the last ways to the machine, and none is left without the taken devices. An
   * interface without hardware below, such as a VPN, leads out through another interface and does not count.
   */
  areCutOff(user: Interface, taken: ReadonlySet<Slot>): boolean {
    return this.#last.includes(user) && !this.#last.some((one) => this.#leadsOutWithout(one, taken));
  }

  #leadsOutWithout(user: Interface, taken: ReadonlySet<Slot>): boolean {
    return (this.#ways.get(user) ?? []).some(
      ({name, owners}) =>
        // Without a cable the route exists, but leads nowhere.
        !owners.some((slot) => taken.has(slot)) && !isWithoutCarrier(this.#scope, name),
    );
  }
}

/** All interfaces except the loopback (Documentation/ABI/testing/sysfs-class-net). */
function readInterfaces(scope: Scope, links: readonly InterfaceLink[]): Interface[] {
  const {host} = scope;
  const addresses = host.addresses();
  const routes = readRoutes(host);
  const sessions = readSessions(scope);
  const interfaces: Interface[] = [];
  const names = links.map(({name}) => name);
  for (const {name, link, owners, up} of links) {
    if (link === undefined || name === 'lo') continue;
    interfaces.push({
      name,
      owners,
      physical: !link.includes('/virtual/'),
      up,
      uppers: up
        ? [...uppersOf(scope, name, names), ...(sessions.includes(name) ? pppInterfaces(scope, names) : [])]
        : [],
      addresses: (addresses.get(name) ?? []).filter((address) => !/^fe[89ab]/i.test(address)),
      routes: routes.get(name) ?? [],
    });
  }
  return interfaces;
}

/** How often each interface, by its index, is counted in the group of {@link allHosts}: /proc/net/dev_mcast. */
function readMembers({host}: Scope): Map<string, number> {
  const members = new Map<string, number>();
  for (const line of (host.readText('/proc/net/dev_mcast') ?? '').split('\n')) {
    const [index = '', , users = '', , address] = line.trim().split(/\s+/);
    if (address === allHosts) members.set(index, Number(users));
  }
  return members;
}

/** The interfaces of the kernel's PPPoE sessions: /proc/net/pppoe (drivers/net/ppp/pppoe.c). */
function readSessions({host}: Scope): string[] {
  return (host.readText('/proc/net/pppoe') ?? '')
    .split('\n')
    .slice(1)
    .map((line) => line.trim().split(/\s+/)[2] ?? '')
    .filter((name) => name !== '');
}

/** The ppp interfaces. The kernel does not say to which session each belongs. */
function pppInterfaces({host}: Scope, names: readonly string[]): string[] {
  return names.filter((name) => /^DEVTYPE=ppp$/m.test(host.readText(`/sys/class/net/${name}/uevent`) ?? ''));
}

function isWithoutCarrier({host}: Scope, name: string): boolean {
  return /down$/.test(host.readText(`/sys/class/net/${name}/operstate`) ?? '');
}

/** Whether it is up (IFF_UP, see netdevice(7)), with or without a cable. */
function isUp({host}: Scope, name: string): boolean {
  return (Number(host.readText(`/sys/class/net/${name}/flags`) ?? 0) & 1) === 1;
}

function uppersOf(scope: Scope, name: string, all: readonly string[]): string[] {
  const {host} = scope;
  const folder = `/sys/class/net/${name}`;
  const files = host.list(folder);
  const uppers = new Set(
    files.filter((file) => file.startsWith('upper_')).map((file) => file.slice('upper_'.length)),
  );
  if (files.includes('master')) uppers.add(lastPart(host.readLink(`${folder}/master`) ?? ''));
  if (uppers.has('ovs-system')) for (const port of all) if (mayBeSwitchPort(scope, port)) uppers.add(port);
  return [...uppers];
}

/**
 * Whether this may be a port of Open vSwitch for the machine itself. sysfs does not link those with the switch, so any
 * virtual interface without a type counts as one: the opposite mistake would cut the machine off.
 */
function mayBeSwitchPort({host}: Scope, name: string): boolean {
  const folder = `/sys/class/net/${name}`;
  const files = host.list(folder);
  return (
    host.readLink(folder)?.includes('/virtual/') === true &&
    name !== 'lo' &&
    !files.some((file) => file === 'tun_flags' || file.startsWith('lower_')) &&
    !/^DEVTYPE=/m.test(host.readText(`${folder}/uevent`) ?? '')
  );
}
