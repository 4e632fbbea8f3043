import {ExitCode, PearasysError} from '../host/errors.js';
import type {HostReader} from '../host/host.js';
import {asSlot, type Slot} from '../pci/slot.js';
import type {Guest} from './name.js';

/** Where libvirt keeps the definitions of the system's domains. Only root may look into it. */
export const domainsFolder = '/etc/libvirt/qemu';

/** A PCI device that libvirt hands to a guest. */
export interface DomainDevice {
  readonly slot: Slot;
  /** Whether libvirt binds it to vfio-pci and back by itself, for a device that is not there yet. */
  readonly managed: boolean;
}

/** What libvirt knows of a guest. */
export type Domain =
  | {readonly kind: 'no-libvirt'}
  /** libvirt is there, and may not be looked into by this user. */
  | {readonly kind: 'hidden'}
  | {readonly kind: 'unknown'; readonly known: readonly string[]}
  | {readonly kind: 'known'; readonly path: string; readonly devices: readonly DomainDevice[]};

/**
 * The guest's domain, from libvirt's file; libvirt itself is not asked, as it may be waiting for us.
 * @throws PearasysError `bad-guest` for a file that is no domain's.
 */
export async function readDomain(host: HostReader, guest: Guest): Promise<Domain> {
  if (host.info(domainsFolder)?.kind !== 'directory') return {kind: 'no-libvirt'};
  const path = `${domainsFolder}/${guest}.xml`;
  const names = host.list(domainsFolder).filter((name) => name.endsWith('.xml'));
  if (names.length === 0 && host.userId !== 0 && host.root === '/') return {kind: 'hidden'};
  if (!names.includes(`${guest}.xml`))
    return {kind: 'unknown', known: names.map((name) => name.slice(0, -'.xml'.length))};
  return {kind: 'known', path, devices: await parseDomain(path, host.readText(path) ?? '')};
}

/**
 * The PCI devices of a domain: `<hostdev type='pci'>` and `<interface type='hostdev'>`, see
 * https://libvirt.org/formatdomain.html#host-device-assignment.
 * @param path named in the error.
 */
export async function parseDomain(path: string, text: string): Promise<DomainDevice[]> {
  const {XMLParser} = await import('fast-xml-parser');
  const lists = new Set(['hostdev', 'interface']);
  const parser = new XMLParser({
    ignoreAttributes: false,
    attributeNamePrefix: '@',
    parseAttributeValue: false,
    parseTagValue: false,
    isArray: (name) => lists.has(name),
  });
  // The parser takes a text that ends early for a whole one.
  const domain = /<\/domain>\s*$/.test(text) ? member(parser.parse(text), 'domain') : undefined;
  if (domain === undefined)
    throw new PearasysError({
      code: 'bad-guest',
      exitCode: ExitCode.failed,
      message: `${path} is no libvirt domain`,
      hint: 'virsh dumpxml shows what libvirt makes of it',
    });
  const devices = member(domain, 'devices');
  const found = new Map<Slot, DomainDevice>();
  for (const [tag, type] of [
    ['hostdev', 'pci'],
    ['interface', 'hostdev'],
  ] as const)
    for (const element of listOf(member(devices, tag))) {
      if (member(element, '@type') !== type) continue;
      const slot = addressOf(member(member(element, 'source'), 'address'));
      if (slot !== undefined) found.set(slot, {slot, managed: member(element, '@managed') === 'yes'});
    }
  return [...found.values()];
}

/** `<address domain='0x0000' bus='0x06' slot='0x02' function='0x0'/>`, whose numbers may be decimal too. */
function addressOf(address: unknown): Slot | undefined {
  const digits = ([name, width, otherwise]: readonly [string, number, string?]) => {
    const text = member(address, `@${name}`) ?? otherwise;
    const number = typeof text === 'string' && text !== '' ? Number(text) : NaN;
    return Number.isInteger(number) ? number.toString(16).padStart(width, '0') : '?';
  };
  const [domain, bus, slot, fn] = (
    [
      ['domain', 4, '0'],
      ['bus', 2],
      ['slot', 2],
      ['function', 1, '0'],
    ] as const
  ).map(digits);
  return asSlot(`${domain ?? ''}:${bus ?? ''}:${slot ?? ''}.${fn ?? ''}`);
}

function member(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}
