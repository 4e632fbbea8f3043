/** Texts in the kernel's formats. */
import type {FunctionDeclaration, MountDeclaration, RouteDeclaration} from '../declaration.js';

/** `pci:v000010DEd00001B80sv00001043sd00008599bc03sc00i00`, as pci_uevent() makes it. */
export function modaliasOf(device: FunctionDeclaration): string {
  const {vendor, model, subVendor, subModel, code} = numbersOf(device);
  const word = (text: string) => text.toUpperCase().padStart(8, '0');
  return (
    `pci:v${word(vendor)}d${word(model)}sv${word(subVendor)}sd${word(subModel)}` +
    `bc${code.slice(0, 2)}sc${code.slice(2, 4)}i${code.slice(4, 6)}`
  );
}

/** The parts of an id, a subsystem id and a class, without `0x`. The class is in capitals. */
export function numbersOf(device: FunctionDeclaration) {
  const [vendor = '0000', model = '0000'] = device.id.split(':');
  const [subVendor = '0000', subModel = '0000'] = (device.subsystem ?? '0000:0000').split(':');
  return {vendor, model, subVendor, subModel, code: device.class.padStart(6, '0').toUpperCase()};
}

/** A bridge has the other kind of configuration header; vfio refuses it. */
export function isBridge(device: FunctionDeclaration): boolean {
  return device.class.startsWith('0604');
}

/** Whether a file-name pattern of modules.alias matches, as fnmatch(3). */
export function matchesPattern(pattern: string, text: string): boolean {
  return patternToExpression(pattern).test(text);
}

const expressions = new Map<string, RegExp>();

/** A shell pattern (`*`, `?`, `[…]`, alternatives by `|` when asked) as a regular expression on the whole text. */
export function patternToExpression(pattern: string, alternatives = false): RegExp {
  const key = `${alternatives ? '|' : ' '}${pattern}`;
  const known = expressions.get(key);
  if (known !== undefined) return known;
  let source = '';
  for (let at = 0; at < pattern.length; at++) {
    const character = pattern.charAt(at);
    const close = character === '[' ? pattern.indexOf(']', at + 2) : -1;
    if (character === '*') source += '[^]*';
    else if (character === '?') source += '[^]';
    else if (character === '|' && alternatives) source += '|';
    else if (close !== -1) {
      source += `[${pattern
        .slice(at + 1, close)
        .replace(/^!/, '^')
        .replaceAll('\\', '\\\\')}]`;
      at = close;
    } else source += character.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&');
  }
  const expression = new RegExp(`^(?:${source})$`);
  expressions.set(key, expression);
  return expression;
}

/** Configuration space: a standard header, and extended capabilities if the device has any. */
export function configOf(device: FunctionDeclaration): Uint8Array {
  const bytes = new Uint8Array(device.dsn === undefined ? 256 : 4096);
  const view = new DataView(bytes.buffer);
  const {vendor, model, subVendor, subModel, code} = numbersOf(device);
  view.setUint16(0x00, parseInt(vendor, 16), true);
  view.setUint16(0x02, parseInt(model, 16), true);
  // Memory and bus master on; the status says that there is a list of capabilities.
  view.setUint16(0x04, 0x0006, true);
  view.setUint16(0x06, 0x0010, true);
  view.setUint8(0x08, parseInt(device.revision ?? '00', 16));
  view.setUint8(0x09, parseInt(code.slice(4, 6), 16));
  view.setUint8(0x0a, parseInt(code.slice(2, 4), 16));
  view.setUint8(0x0b, parseInt(code.slice(0, 2), 16));
  view.setUint8(0x0e, (isBridge(device) ? 1 : 0) | 0x80);
  if (!isBridge(device)) {
    view.setUint16(0x2c, parseInt(subVendor, 16), true);
    view.setUint16(0x2e, parseInt(subModel, 16), true);
  }
  if (device.dsn !== undefined) {
    // Advanced Error Reporting, which points to the next one; the low half of the number comes first.
    const next = device.dsn === '' ? 0 : 0x140;
    view.setUint32(0x100, (next << 20) | 0x2_0001, true);
    if (next !== 0) {
      view.setUint32(next, 0x1_0003, true);
      view.setBigUint64(next + 4, BigInt(`0x${device.dsn.replaceAll('-', '')}`), true);
    }
  }
  device.config?.forEach((byte, index) => (bytes[index] = byte));
  return bytes;
}

/** `resource`: start, end and flags of each region. */
export function resourceOf(device: FunctionDeclaration): string {
  const line = (start: number, end: number, flags: number) =>
    [start, end, flags].map((each) => `0x${each.toString(16).padStart(16, '0')}`).join(' ');
  let next = 0xf000_0000;
  const lines: string[] = [];
  for (let index = 0; index < 13; index++) {
    const size = device.regions?.[index] ?? 0;
    lines.push(size === 0 ? line(0, 0, 0) : line(next, next + size - 1, 0x40200));
    next += size;
  }
  return lines.join('\n');
}

/** One line of mountinfo, see proc(5). */
export function mountLine(mount: MountDeclaration, id: number, device: string): string {
  const escape = (text: string) =>
    text.replace(/[\\ \t\n]/g, (character) => `\\${character.charCodeAt(0).toString(8).padStart(3, '0')}`);
  const size = /(?:^|,)pagesize=\w+/.exec(mount.options ?? '')?.[0].replace(',', '');
  return (
    `${id} 1 ${device} / ${escape(mount.target)} ${mount.options ?? 'rw,relatime'} shared:${id} - ` +
    `${mount.type} ${escape(mount.source)} rw${size === undefined ? '' : `,${size}`}`
  );
}

const routeHeader =
  'Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT' + ' '.repeat(55);

/** /proc/net/route: addresses as the processor has them in memory, so turned round on a PC. */
export function routeTable(routes: readonly RouteDeclaration[]): string {
  const lines = routes
    .filter(({destination}) => !destination.includes(':'))
    .map((route) => {
      const [address = '0.0.0.0', length = '0'] = route.destination.split('/');
      const mask = Number(length) === 0 ? 0 : (0xffffffff << (32 - Number(length))) >>> 0;
      const maskText = [24, 16, 8, 0].map((shift) => (mask >>> shift) & 0xff).join('.');
      const flags = route.gateway === undefined ? '0001' : '0003';
      return (
        `${route.interface}\t${turned(address)}\t${turned(route.gateway ?? '0.0.0.0')}\t${flags}\t0\t0\t` +
        `${route.metric ?? 0}\t${turned(maskText)}\t0\t0\t0`
      ).padEnd(127);
    });
  return [routeHeader, ...lines].join('\n') + '\n';
}

function turned(address: string): string {
  return address
    .split('.')
    .reverse()
    .map((part) => Number(part).toString(16).toUpperCase().padStart(2, '0'))
    .join('');
}

/** /proc/net/ipv6_route. */
export function route6Table(routes: readonly RouteDeclaration[]): string {
  const line = (destination: string, gateway: string, metric: number, flags: string, name: string) => {
    const [address = '::', length = '0'] = destination.split('/');
    return (
      `${expanded(address)} ${Number(length).toString(16).padStart(2, '0')} ${'0'.repeat(32)} 00 ${expanded(gateway)} ` +
      `${metric.toString(16).padStart(8, '0')} 00000001 00000000 ${flags} ${name.padStart(8)}`
    );
  };
  return (
    [
      ...routes
        .filter(({destination}) => destination.includes(':'))
        .map((route) =>
          line(
            route.destination,
            route.gateway ?? '::',
            route.metric ?? 1024,
            route.gateway === undefined ? '00000001' : '00000003',
            route.interface,
          ),
        ),
      // The kernel always has these two: its own address, and "nothing else" (RTF_REJECT).
      line('::1/128', '::', 0, '80200001', 'lo'),
      line('::/0', '::', 0xffffffff, '00200200', 'lo'),
    ].join('\n') + '\n'
  );
}

function expanded(address: string): string {
  const [head = '', tail] = address.split('::');
  const words = (text: string) =>
    text === '' ? [] : text.split(':').map((word) => word.toLowerCase().padStart(4, '0'));
  const first = words(head);
  const last = words(tail ?? '');
  return [...first, ...Array<string>(8 - first.length - last.length).fill('0000'), ...last].join('');
}

/** The names and numbers that the machine's database of PCI ids knows, in its own format. */
export const pciIds = `#
#	List of PCI ID's
#
#	Version: 2024.01.01
#

# Vendors, devices and subsystems. Please keep sorted.

# Syntax:
# vendor  vendor_name
#	device  device_name				<-- single tab
#		subvendor subdevice  subsystem_name	<-- two tabs

0000  Gammagraphx, Inc. (or missing ID)
10de  NVIDIA Corporation
	10f0  GP104 High Definition Audio Controller
	1b80  GP104 [GeForce GTX 1080]
		1043 8599  GP104 [ROG STRIX-GTX1080]
	1b81  GP104 [GeForce GTX 1070]
144d  Samsung Electronics Co Ltd
	a808  NVMe SSD Controller SM981/PM981/PM983
		144d a801  SSD 970 EVO Plus 1TB
	a80a  NVMe SSD Controller PM9A1/PM9A3/980PRO
8086  Intel Corporation
	10c9  82576 Gigabit Network Connection
	10ca  82576 Virtual Function
	10d3  82574L Gigabit Network Connection
	15bb  Ethernet Connection (7) I219-LM
	1901  6th-10th Gen Core Processor PCIe Controller (x16)
	1905  Xeon E3-1200 v5/E3-1500 v5/6th Gen Core Processor PCIe Controller (x8)
	3e30  8th/9th Gen Core 8-core Desktop Processor Host Bridge/DRAM Registers [Coffee Lake S]
	a306  Q370 Chipset LPC/eSPI Controller
	a338  Cannon Lake PCH PCI Express Root Port #1
	a33c  Cannon Lake PCH PCI Express Root Port #5
	a330  Cannon Lake PCH PCI Express Root Port #9
	a352  Cannon Lake PCH SATA AHCI Controller
	a36d  Cannon Lake PCH USB 3.1 xHCI Host Controller
	a36f  Cannon Lake PCH Shared SRAM

# List of known device classes, subclasses and programming interfaces

# Syntax:
# C class	class_name
#	subclass	subclass_name  		<-- single tab
#		prog-if  prog-if_name  	<-- two tabs

C 01  Mass storage controller
	06  SATA controller
		01  AHCI 1.0
	08  Non-Volatile memory controller
		02  NVM Express
C 02  Network controller
	00  Ethernet controller
	80  Network controller
C 03  Display controller
	00  VGA compatible controller
		00  VGA controller
	02  3D controller
C 04  Multimedia controller
	03  Audio device
C 05  Memory controller
	00  RAM memory
C 06  Bridge
	00  Host bridge
	01  ISA bridge
	04  PCI bridge
		00  Normal decode
C 0c  Serial bus controller
	03  USB controller
		30  XHCI
	05  SMBus
`;

/** 80-drivers.rules of systemd 252, as far as PCI goes. */
export const driverRules = `# do not edit this file, it will be overwritten on update

ACTION!="add", GOTO="drivers_end"

ENV{MODALIAS}=="?*", RUN{builtin}+="kmod load"

LABEL="drivers_end"
`;
