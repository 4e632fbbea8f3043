import {ExitCode, PearasysError} from '../../host/errors.js';
import type {HostReader} from '../../host/host.js';
import {asSlot, type Slot} from '../../devices/pci/slot.js';
import type {Guest} from './guest-name.js';

/** The folder of libvirt's system domains. Only root can read it. */
export const domainsFolder = '/etc/libvirt/qemu';

/** The folder of libvirt's networks. */
const networksFolder = `${domainsFolder}/networks`;

/** The namespace of `<qemu:commandline>`; a domain may use any prefix for it. */
const qemuNamespace = 'http://libvirt.org/schemas/domain/qemu/1.0';

/** In characters. A domain with 64 devices has about 50,000. */
const longest = 4 * 1024 * 1024;

/** The maximum depth of nested elements, as in libxml2 and therefore in libvirt. */
const deepest = 256;

/** A PCI device that libvirt passes to a guest. */
interface DomainDevice {
  readonly slot: Slot;
  /** Whether libvirt itself binds the device to vfio-pci, if it is not bound yet, and back. */
  readonly managed: boolean;
}

/** The host devices of a domain. */
export interface DomainDevices {
  /** The PCI functions, in the order of the domain, without duplicates. */
  readonly devices: readonly DomainDevice[];
  /** Sentences about host devices that cannot be taken as a PCI function, and about what taking a function includes. */
  readonly notes: readonly string[];
}

/** A guest's domain in libvirt. */
export type Domain =
  | {readonly kind: 'no-libvirt'}
  /** libvirt is installed, but this user may not read its files. */
  | {readonly kind: 'hidden'}
  | {readonly kind: 'unknown'; readonly known: readonly string[]}
  | ({readonly kind: 'known'; readonly path: string} & DomainDevices);

/** The names of the guests for which libvirt has files. */
export function domainNames(host: HostReader): string[] {
  return host
    .list(domainsFolder)
    .filter((name) => name.endsWith('.xml'))
    .map((name) => name.slice(0, -'.xml'.length));
}

/**
 * The guest's domain, from libvirt's file. libvirt itself is not queried, because it may be waiting for pearasys.
 * @throws PearasysError `bad-guest` for a file that is not a domain.
 */
export async function readDomain(host: HostReader, guest: Guest): Promise<Domain> {
  if (host.info(domainsFolder)?.kind !== 'directory') return {kind: 'no-libvirt'};
  const path = `${domainsFolder}/${guest}.xml`;
  const known = domainNames(host);
  if (known.length === 0 && host.userId !== 0 && host.root === '/') return {kind: 'hidden'};
  if (!known.includes(guest)) return {kind: 'unknown', known};
  const {devices, notes, networks} = await parseDomain(path, host.readBytes(path, longest)?.toString() ?? '');
  const pools: string[] = [];
  for (const network of networks) {
    const note = await readPool(host, network);
    if (note !== undefined) pools.push(note);
  }
  return {kind: 'known', path, devices, notes: [...notes, ...pools]};
}

/**
 * The PCI devices of a domain: `<hostdev type='pci'>`, `<interface type='hostdev'>`, `<disk type='nvme'>`, and those
 * that `<qemu:commandline>` passes to QEMU, see https://libvirt.org/formatdomain.html. Host devices of other kinds are
 * named in the notes, except USB and SCSI devices, which stay on the host's driver.
 * @param path named in the error.
 * @returns also `networks`: the names of libvirt's networks that its interfaces use.
 * @throws PearasysError `bad-guest` for a text that is not a domain.
 */
export async function parseDomain(
  path: string,
  text: string,
): Promise<DomainDevices & {readonly networks: readonly string[]}> {
  const domain = await parseXml(path, text, 'domain');
  const found = new Map<Slot, DomainDevice>();
  const notes: string[] = [];
  const take = (element: Element, address: Element | undefined, kind: string): Slot | undefined => {
    const slot = address === undefined ? undefined : addressOf(address);
    if (slot === undefined) {
      notes.push(`a ${kind} of the domain has no valid PCI address: it is not included`);
      return undefined;
    }
    found.set(slot, {
      slot,
      managed: found.get(slot)?.managed === true || attribute(element, 'managed') === 'yes',
    });
    return slot;
  };
  const sourceAddress = (element: Element) => child(child(element, 'source'), 'address');
  for (const devices of children(domain, 'devices')) {
    for (const hostdev of children(devices, 'hostdev')) {
      const type = attribute(hostdev, 'type');
      const address = sourceAddress(hostdev);
      if (type === 'mdev') notes.push(mdevNote(attribute(address, 'uuid')));
      if (type !== 'pci') continue;
      const slot = take(hostdev, address, '<hostdev>');
      if (slot !== undefined) notes.push(...driverNotes(slot, child(hostdev, 'driver')));
    }
    for (const each of children(devices, 'interface')) {
      const address = sourceAddress(each);
      if (attribute(each, 'type') !== 'hostdev' || attribute(address, 'type') === 'usb') continue;
      const slot = take(each, address, "<interface type='hostdev'>");
      if (slot !== undefined) notes.push(...driverNotes(slot, child(each, 'driver')));
    }
    for (const disk of children(devices, 'disk').flatMap(disksOf)) {
      const source = child(disk, 'source');
      if (attribute(disk, 'type') !== 'nvme') continue;
      const slot = take(source ?? disk, child(source, 'address'), "<disk type='nvme'>");
      if (slot !== undefined) notes.push(namespaceNote(slot, attribute(source, 'namespace')));
    }
  }
  for (const {slot, namespace, mdev} of commandLineDevices(domain)) {
    if (mdev !== undefined) notes.push(mdevNote(mdev));
    else if (slot === undefined)
      notes.push('the command line of the domain has a PCI device without a slot: it is not included');
    if (slot === undefined) continue;
    if (!found.has(slot)) found.set(slot, {slot, managed: false});
    if (namespace !== undefined) notes.push(namespaceNote(slot, namespace));
  }
  const networks = children(domain, 'devices')
    .flatMap((devices) => children(devices, 'interface'))
    .filter((each) => attribute(each, 'type') === 'network')
    .map((each) => attribute(child(each, 'source'), 'network'))
    .filter((name) => name !== undefined && name !== '');
  return {
    devices: [...found.values()],
    notes: [...new Set(notes)],
    networks: [...new Set(networks as string[])],
  };
}

function mdevNote(uuid = 'without a UUID'): string {
  return `mediated device ${uuid} is not a PCI function and is not included: see \`pearasys mdev\``;
}

function namespaceNote(slot: Slot, namespace = '?'): string {
  return `the domain has namespace ${namespace} of the NVMe disk ${slot}: the guest takes the whole disk`;
}

/** `<driver name='vfio' model='mlx5_vfio_pci'/>`. */
function driverNotes(slot: Slot, driver: Element | undefined): string[] {
  const name = attribute(driver, 'name') ?? 'vfio';
  const model = attribute(driver, 'model');
  if (name !== 'vfio')
    return [
      `the domain assigns ${slot} by ${name}: pearasys binds it to vfio-pci, which ${name} does not use`,
    ];
  return model === undefined || model === 'vfio-pci'
    ? []
    : [`the domain has ${slot} on ${model}: pearasys binds it to vfio-pci, unless it is already on ${model}`];
}

/** A disk with its backing images, data files and mirrors, which may be on other disks. */
function disksOf(disk: Element): Element[] {
  const source = child(disk, 'source');
  const below = ['backingStore', 'mirror', 'dataStore'].flatMap((name) => [
    ...children(disk, name),
    ...children(source, name),
  ]);
  return [disk, ...below.flatMap(disksOf)];
}

/** Why interfaces in this network of libvirt use a PCI function that only libvirt knows; undefined if they use none. */
async function readPool(host: HostReader, name: string): Promise<string | undefined> {
  const path = `${networksFolder}/${name}.xml`;
  const text = name.includes('/') ? undefined : host.readText(path);
  if (text === undefined) return undefined;
  const forward = child(await parseXml(path, text, 'network'), 'forward');
  if (attribute(forward, 'mode') !== 'hostdev') return undefined;
  const slots = children(forward, 'address').map((address) => addressOf(address) ?? 'an invalid address');
  const functions = children(forward, 'pf').map(
    (pf) => `virtual functions of ${attribute(pf, 'dev') ?? '?'}`,
  );
  const pool = [...slots, ...functions].join(', ') || 'empty';
  return `libvirt picks the function of an interface in network ${name} at each start (${pool}): it is not included`;
}

/** A device that `<qemu:commandline>` passes to QEMU: `-device vfio-pci,host=…`, or an NVMe disk that QEMU drives. */
interface CommandLineDevice {
  readonly slot?: Slot | undefined;
  readonly namespace?: string;
  /** A UUID. */
  readonly mdev?: string;
}

function commandLineDevices(domain: Element): CommandLineDevice[] {
  const args = Object.keys(domain)
    .filter((tag) => localName(tag) === 'commandline')
    .flatMap((tag) => children(domain, tag).map((element) => ({tag, element})))
    .filter(({tag, element}) => namespaceOf(tag, element, domain) === qemuNamespace)
    .flatMap(({tag, element}) => children(element, tag.replace(/commandline$/, 'arg')))
    .map((arg) => attribute(arg, 'value') ?? '');
  return args.flatMap((arg, index): CommandLineDevice[] => {
    const option = (args[index - 1] ?? '').replace(/^--?/, '-');
    if (option === '-device') return deviceOf(propertiesOf(arg, 'driver'));
    if (option === '-drive' || option === '-blockdev') return diskOf(propertiesOf(arg, 'file'), arg);
    return [];
  });
}

/** `-device vfio-pci,host=02:00.0`, see https://www.qemu.org/docs/master/system/device-emulation.html. */
function deviceOf(properties: ReadonlyMap<string, string>): CommandLineDevice[] {
  if (!/^vfio-pci(?:-nohotplug)?$/.test(properties.get('driver') ?? '')) return [];
  const folder = properties.get('sysfsdev') ?? '';
  const name = folder.replace(/\/+$/, '').replace(/^.*\//, '');
  if (/^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(name)) return [{mdev: name}];
  return [{slot: asSlot(properties.get('host') ?? name)}];
}

/** `file=nvme://0000:01:00.0/1`, or `driver=nvme,device=0000:01:00.0,namespace=1`: qemu-block-drivers(7). */
function diskOf(properties: ReadonlyMap<string, string>, text: string): CommandLineDevice[] {
  const url = /nvme:\/\/([0-9a-fA-F:.]+)\/(\d+)/.exec(text);
  if (url !== null) return [{slot: asSlot(url[1] ?? ''), namespace: url[2] ?? ''}];
  const prefix = properties.get('file.driver') === 'nvme' ? 'file.' : '';
  if (properties.get(`${prefix}driver`) !== 'nvme') return [];
  const namespace = properties.get(`${prefix}namespace`);
  return [
    {
      slot: asSlot(properties.get(`${prefix}device`) ?? ''),
      ...(namespace === undefined ? {} : {namespace}),
    },
  ];
}

/** The properties of a QEMU option: JSON, or `key=value,…` where a comma in a value is doubled. */
function propertiesOf(text: string, first: string): Map<string, string> {
  if (text.trimStart().startsWith('{'))
    try {
      const entries = Object.entries(JSON.parse(text) as Record<string, unknown>);
      return new Map(entries.map(([key, value]) => [key, String(value)]));
    } catch {
      // QEMU would not start with this option.
      return new Map();
    }
  const parts = text.replaceAll(',,', '\0').split(',');
  return new Map(
    parts.map((part, index): [string, string] => {
      const at = part.indexOf('=');
      const [key, value] =
        at < 0 ? (index === 0 ? [first, part] : [part, 'on']) : [part.slice(0, at), part.slice(at + 1)];
      return [key, value.replaceAll('\0', ',')];
    }),
  );
}

/**
 * `<address domain='0x0000' bus='0x06' slot='0x02' function='0x0'/>`. A missing attribute is 0; the result is undefined
 * if all are missing.
 */
function addressOf(address: Element): Slot | undefined {
  const numbers = [
    ['domain', 4, 0xffffffff],
    ['bus', 2, 0xff],
    ['slot', 2, 0x1f],
    ['function', 1, 7],
  ] as const;
  const digits = numbers.map(([name, width, most]) => {
    const number = numberOf(attribute(address, name) ?? '0');
    return number === undefined || number > most ? '?' : number.toString(16).padStart(width, '0');
  });
  const [domain = '', bus = '', slot = '', fn = ''] = digits;
  return digits.every((text) => /^0+$/.test(text)) ? undefined : asSlot(`${domain}:${bus}:${slot}.${fn}`);
}

/** A number as libvirt reads it, by strtoul(3) with base 0: decimal, `0x` hexadecimal, or octal after a `0`. */
function numberOf(text: string): number | undefined {
  const digits = /^\s*\+?(0x[0-9a-f]+|0[0-7]*|[1-9]\d*)$/i.exec(text)?.[1];
  if (digits === undefined) return undefined;
  return /^0[0-7]/.test(digits) ? parseInt(digits, 8) : Number(digits);
}

/** An element: attributes by `@name`, child elements as lists by name. */
type Element = Readonly<Record<string, unknown>>;

/**
 * The root element of an XML text.
 * @throws PearasysError `bad-guest`: what is invalid.
 */
async function parseXml(path: string, text: string, root: string): Promise<Element> {
  const bad = (reason: string) =>
    new PearasysError({
      code: 'bad-guest',
      exitCode: ExitCode.failed,
      message: `could not read ${path} as a libvirt ${root}: ${reason}`,
      details: ['nothing was changed'],
      hint:
        root === 'domain'
          ? "'virsh dumpxml GUEST' shows what libvirt has; 'virsh define FILE' writes the file again"
          : "'virsh net-dumpxml NETWORK' shows what libvirt has",
    });
  if (text.length > longest) throw bad(`it is longer than ${longest / 1024 / 1024} MiB`);
  // eslint-disable-next-line no-control-regex -- the characters that XML does not allow
  if (/[\0-\x08\x0b\x0c\x0e-\x1f]/.test(text)) throw bad('it has control characters: it is not XML in UTF-8');
  const fault = faultOf(text);
  if (fault !== undefined) throw bad(fault);
  const {XMLParser} = await import('fast-xml-parser');
  const parser = new XMLParser({
    ignoreAttributes: false,
    attributeNamePrefix: '@',
    parseAttributeValue: false,
    parseTagValue: false,
    ignoreDeclaration: true,
    ignorePiTags: true,
    maxNestedTags: deepest,
    isArray: (_name, _path, _leaf, isAttribute) => !isAttribute,
    // Other programs store their own data here. It is not parsed.
    stopNodes: ['domain.metadata', 'network.metadata'],
  });
  let parsed: unknown;
  try {
    parsed = parser.parse(text);
  } catch (error) {
    throw bad(error instanceof Error ? error.message : String(error));
  }
  const roots = elements(parsed).flatMap(([tag, list]) => list.map((element) => ({tag, element})));
  const [first] = roots;
  if (first === undefined || roots.length > 1 || localName(first.tag) !== root)
    throw bad(`its root is not one <${root}>`);
  return first.element;
}

/** A comment, CDATA, an instruction, a document type, a tag, or any other `<`. */
const markup =
  /<!--[^]*?-->|<!\[CDATA\[[^]*?\]\]>|<\?[^]*?\?>|<!DOCTYPE|<(\/?)([^\s/>"'<=!?]+)(?:[^<>"']|"[^"<]*"|'[^'<]*')*?(\/?)>|</g;

/** What is invalid about the tags of an XML text, which the parser does not check; undefined for valid tags. */
function faultOf(text: string): string | undefined {
  const open: string[] = [];
  for (const [found, end, name = '', empty] of text.matchAll(markup)) {
    if (found === '<') return 'it has a < that does not begin a tag';
    if (found === '<!DOCTYPE') return 'it has a document type declaration, which libvirt never writes';
    if (end === undefined || empty === '/') continue;
    if (end === '') open.push(name);
    else if (open.pop() !== name) return `</${name}> does not end an element`;
    if (open.length > deepest) return `it has more than ${deepest} nested elements`;
  }
  return open.length === 0 ? undefined : `it ends within <${open.at(-1) ?? ''}>`;
}

/** The namespace of a tag. `xmlns:prefix` may be declared on the element itself, or on the root. */
function namespaceOf(tag: string, element: Element, root: Element): string | undefined {
  const at = tag.indexOf(':');
  const declaration = at < 0 ? 'xmlns' : `xmlns:${tag.slice(0, at)}`;
  return attribute(element, declaration) ?? attribute(root, declaration);
}

function localName(tag: string): string {
  return tag.slice(tag.indexOf(':') + 1);
}

function elements(value: unknown): [string, Element[]][] {
  return Object.entries(asElement(value))
    .filter(([key]) => !key.startsWith('@') && key !== '#text')
    .map(([key, list]) => [key, (Array.isArray(list) ? (list as unknown[]) : []).map(asElement)]);
}

function children(element: Element | undefined, name: string): Element[] {
  const list = element !== undefined && Object.hasOwn(element, name) ? element[name] : undefined;
  return Array.isArray(list) ? (list as unknown[]).map(asElement) : [];
}

function child(element: Element | undefined, name: string): Element | undefined {
  return children(element, name)[0];
}

function attribute(element: Element | undefined, name: string): string | undefined {
  const key = `@${name}`;
  const value = element !== undefined && Object.hasOwn(element, key) ? element[key] : undefined;
  return typeof value === 'string' ? value : undefined;
}

/** The parser returns an element without attributes and children as a text. */
function asElement(value: unknown): Element {
  return typeof value === 'object' && value !== null ? (value as Element) : {};
}
