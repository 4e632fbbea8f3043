import {endianness} from 'node:os';
import {devicePath, isNetwork} from '../device.js';
import {isVfio} from '../driver.js';
import type {Slot} from '../slot.js';
import type {InterfaceHolder, NamespaceHolder} from './holder.js';
import {lastPart, ownersOf, type Scope} from './scope.js';

/** A network interface, of hardware or made of others. */
interface Interface {
  readonly name: string;
  /** The devices that it goes with; none for one outside of the scope. */
  readonly owners: readonly Slot[];
  /** Whether hardware is behind it, of the PCI bus or not: only that leads out of the machine. */
  readonly physical: boolean;
  readonly up: boolean;
  /** The bonds, bridges, VLANs directly on it. */
  readonly uppers: readonly string[];
  readonly addresses: readonly string[];
  readonly routes: readonly string[];
}

/** What /sys/class/net lists. */
interface InterfaceLink {
  readonly name: string;
  /** Where it leads; undefined when it has gone meanwhile. */
  readonly link: string | undefined;
  readonly owners: readonly Slot[];
  readonly up: boolean;
}

/**
 * Interfaces of the devices that are up and carry an address or a route, themselves or through what is built on
 * them. An address or route that is only the link's own (fe80::/10) makes no use.
 * @param takenWith the devices that go when this one is taken, itself included.
 */
export function readInterfaceHolders(
  scope: Scope,
  takenWith: (slot: Slot) => ReadonlySet<Slot>,
): (InterfaceHolder | NamespaceHolder)[] {
  const {host} = scope;
  const links = host.list('/sys/class/net').map((name) => {
    const link = host.readLink(`/sys/class/net/${name}`);
    return {name, link, owners: link === undefined ? [] : ownersOf(scope, link), up: isUp(scope, name)};
  });
  const seen = new Set(links.flatMap(({owners}) => owners));
  const moved = readMoved(scope, seen);
  // Then nobody's addresses and routes matter, which take longer to read than all the rest here.
  if (!links.some(({owners, up}) => up && owners.length > 0)) return moved;
  const network = new Network(readInterfaces(scope, links));
  const holders: (InterfaceHolder | NamespaceHolder)[] = moved;
  for (const lower of network.all)
    for (const slot of lower.up ? lower.owners : [])
      for (const user of network.carriedBy(lower)) {
        if (user.addresses.length === 0 && user.routes.length === 0) continue;
        const last = network.isCutOff(scope, user, takenWith(slot));
        holders.push({
          kind: 'interface',
          slot,
          class: 'yields',
          harm: last ? 'certain' : 'forcible',
          name: lower.name,
          addresses: user.addresses,
          routes: user.routes,
          through: user === lower ? undefined : user.name,
          last,
        });
      }
  return holders;
}

/**
 * Network devices of which an interface is in another network namespace. sysfs shows the interfaces of a process's
 * own namespace only, but the folder that they are in is there, and looks empty, as long as the device has one
 * anywhere.
 * @param seen devices with an interface here.
 */
function readMoved({host, devices}: Scope, seen: ReadonlySet<Slot>): NamespaceHolder[] {
  const moved: NamespaceHolder[] = [];
  for (const device of devices.values()) {
    const {slot, driver} = device;
    if (!isNetwork(device) || driver === undefined || isVfio(driver) || seen.has(slot)) continue;
    const folder = devicePath(slot);
    // The interface of a virtio device is one level further down. No other card's folder is gone through for that.
    const parents =
      driver === 'virtio-pci' ? host.list(folder).filter((name) => name.startsWith('virtio')) : ['.'];
    const nets = parents.map((parent) => `${folder}/${parent}/net`).filter((net) => host.exists(net));
    // One that has just come is in there already, and not yet in /sys/class/net as that was listed.
    if (nets.some((net) => host.list(net).length === 0))
      moved.push({kind: 'network-namespace', slot, class: 'yields', harm: 'forcible'});
  }
  return moved;
}

class Network {
  readonly all: readonly Interface[];
  readonly #byName: ReadonlyMap<string, Interface>;
  /** For each interface the hardware below it. */
  readonly #ways = new Map<Interface, Interface[]>();
  /** The interfaces that lead to the machine. */
  readonly #last: readonly Interface[];

  constructor(all: readonly Interface[]) {
    this.all = all;
    this.#byName = new Map(all.map((one) => [one.name, one]));
    for (const one of all)
      if (one.physical && one.up)
        for (const user of this.carriedBy(one)) this.#ways.set(user, [...(this.#ways.get(user) ?? []), one]);
    const used = [...this.#ways.keys()].filter((one) => one.addresses.length > 0 || one.routes.length > 0);
    const defaults = used.filter((one) => one.routes.some(isDefault));
    this.#last = defaults.length > 0 ? defaults : used;
  }

  /** The interface and all that is built on it. */
  carriedBy(lower: Interface): Interface[] {
    const found = new Set([lower]);
    // A set gives what is added while it is gone through.
    for (const one of found)
      for (const name of one.uppers) {
        const upper = this.#byName.get(name);
        if (upper !== undefined) found.add(upper);
      }
    return [...found];
  }

  /**
   * Whether this interface is one of the last ways to the machine, and none is left without the taken devices. The
   * ways are the default routes; without one, whatever has an address. What no hardware is below, as a VPN, leads
   * out through another interface and counts for nothing.
   */
  isCutOff(scope: Scope, user: Interface, taken: ReadonlySet<Slot>): boolean {
    return this.#last.includes(user) && !this.#last.some((one) => this.#leadsOutWithout(scope, one, taken));
  }

  #leadsOutWithout({host}: Scope, user: Interface, taken: ReadonlySet<Slot>): boolean {
    return (this.#ways.get(user) ?? []).some(
      ({name, owners}) =>
        !owners.some((slot) => taken.has(slot)) &&
        // No cable: its route is there, and leads nowhere.
        !/down$/.test(host.readText(`/sys/class/net/${name}/operstate`) ?? ''),
    );
  }
}

/** Whether a route is the one to everywhere. */
function isDefault(route: string): boolean {
  return route.startsWith('default');
}

/** All interfaces but the loopback (Documentation/ABI/testing/sysfs-class-net). */
function readInterfaces(scope: Scope, links: readonly InterfaceLink[]): Interface[] {
  const {host} = scope;
  const addresses = host.addresses();
  const routes = readRoutes(scope);
  const interfaces: Interface[] = [];
  const names = links.map(({name}) => name);
  for (const {name, link, owners, up} of links) {
    if (link === undefined || name === 'lo') continue;
    interfaces.push({
      name,
      owners,
      physical: !link.includes('/virtual/'),
      up,
      uppers: up ? uppersOf(scope, name, names) : [],
      addresses: (addresses.get(name) ?? []).filter((address) => !/^fe[89ab]/i.test(address)),
      routes: routes.get(name) ?? [],
    });
  }
  return interfaces;
}

/** Whether it was set up (IFF_UP, see netdevice(7)), with a cable or without. */
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
 * Whether this may be a port that Open vSwitch gives to the machine itself. sysfs does not link those with the
 * switch; taken for one is any virtual interface without a type of its own, as the mistake in the other direction
 * would cut the machine off.
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

/** Flags of a route, from linux/route.h and linux/ipv6_route.h. */
const routeFlag = {
  up: 0x1,
  reject: 0x200,
  anycast: 0x10_0000,
  cache: 0x100_0000,
  local: 0x8000_0000,
} as const;

/** Where packets are sent, by interface: `default via 192.0.2.1`, `192.0.2.0/24`. */
function readRoutes({host}: Scope): Map<string, string[]> {
  const routes = new Map<string, string[]>();
  const add = (name: string, destination: string) => {
    const known = routes.get(name) ?? [];
    if (!known.includes(destination)) routes.set(name, [...known, destination]);
  };
  for (const line of (host.readText('/proc/net/route') ?? '').split('\n').slice(1)) readRoute(line, add);
  for (const line of (host.readText('/proc/net/ipv6_route') ?? '').split('\n')) readRoute6(line, add);
  return routes;
}

/** A line of /proc/net/route, see proc(5): the main table. */
function readRoute(line: string, add: (name: string, destination: string) => void): void {
  const [name = '', destination = '', gateway = '', flags = '', , , , mask = ''] = line.trim().split(/\s+/);
  const bits = Number.parseInt(flags, 16);
  if (Number.isNaN(bits) || (bits & routeFlag.up) === 0 || (bits & routeFlag.reject) !== 0) return;
  const to = dotted(destination);
  const via = dotted(gateway);
  const length = dotted(mask)
    .split('.')
    .reduce((sum, byte) => sum + Number(byte).toString(2).replaceAll('0', '').length, 0);
  if (/^(?:127|22[4-9]|23\d)\./.test(to)) return;
  add(name, length === 0 ? `default${via === '0.0.0.0' ? '' : ` via ${via}`}` : `${to}/${length}`);
}

/** A line of /proc/net/ipv6_route, see proc(5). It also has each of the machine's own addresses. */
function readRoute6(line: string, add: (name: string, destination: string) => void): void {
  const [destination = '', length = '', , , gateway = '', , , , flags = '', name = ''] = line
    .trim()
    .split(/\s+/);
  const bits = Number.parseInt(flags, 16);
  const other = routeFlag.reject | routeFlag.anycast | routeFlag.cache | routeFlag.local;
  if (Number.isNaN(bits) || (bits & routeFlag.up) === 0 || (bits & other) !== 0) return;
  if (name === 'lo' || /^(?:ff|fe[89ab])/i.test(destination)) return;
  const via = colons(gateway);
  const bitsLong = Number.parseInt(length, 16);
  add(
    name,
    bitsLong === 0 ? `default${via === '::' ? '' : ` via ${via}`}` : `${colons(destination)}/${bitsLong}`,
  );
}

/** An IPv4 address from the eight digits that the kernel prints in the processor's own byte order. */
function dotted(digits: string): string {
  const bytes = (digits.match(/../g) ?? []).map((byte) => Number.parseInt(byte, 16));
  return (endianness() === 'LE' ? bytes.reverse() : bytes).join('.');
}

/** An IPv6 address in its short form from 32 digits. */
function colons(digits: string): string {
  const long = (digits.match(/..../g) ?? []).join(':');
  return URL.canParse(`http://[${long}]`) ? new URL(`http://[${long}]`).hostname.slice(1, -1) : long;
}
