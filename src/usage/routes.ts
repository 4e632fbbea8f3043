import {endianness} from 'node:os';
import type {HostReader} from '../host/host.js';

/** Flags of a route, from linux/route.h and linux/ipv6_route.h. */
const routeFlag = {
  up: 0x1,
  reject: 0x200,
  anycast: 0x10_0000,
  cache: 0x100_0000,
  local: 0x8000_0000,
} as const;

/** Where packets are sent, by interface: `default via 192.0.2.1`, `192.0.2.0/24`. */
export function readRoutes(host: HostReader): Map<string, string[]> {
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

/** A line of /proc/net/ipv6_route, see proc(5). It also contains each address of the machine itself. */
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

/** Whether a route is a default route. */
export function isDefault(route: string): boolean {
  return route.startsWith('default');
}
