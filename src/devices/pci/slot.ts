import {usageError} from '../../host/errors.js';

/** `0000:04:00.0`: domain, bus, device and function of a PCI function, lower case. Made only by {@link parseSlot}. */
export type Slot = string & {readonly __brand: 'Slot'};

/** The functions of one slot number, `0000:04:00`. Made only by {@link asCard} and {@link cardOf}. */
export type Card = string & {readonly __brand: 'Card'};

/**
 * A slot as the kernel prints it (pci_setup_device, `%04x:%02x:%02x.%d`), the usual case. Domains above ffff belong
 * to Intel VMD and Hyper-V buses; devices go to 1f, functions to 7.
 */
const canonical = /^(?:[1-9a-f][0-9a-f]{0,3})?[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$/;

/** The same in any spelling: libvirt joins the parts by underscores, nvidia-smi prints domains with eight digits. */
const spelled = /^(?:([0-9a-f]{4,8})([:_]))?([0-9a-f]{2})([:_])([01][0-9a-f])(?:([._])([0-7]|\*))?$/;

/** Prefixes of a slot: in virsh(1), lshw(1), udev's ID_PATH and driverctl's files, devlink(8). */
const prefix = /^pci(?:_|@|-|\/)/;

/** A BusID of xorg.conf(5), whose numbers are decimal: `PCI:1:0:0`, `PCI:1@0:0:0` with the domain after the @. */
const xorgBusId = /^pci:(\d{1,3})(?:@(\d{1,9}))?:(\d{1,2}):(\d)$/;

interface Address {
  readonly card: Card;
  /** The function's digit, `*` for all of them; undefined when none was given. */
  readonly fn: string | undefined;
}

/**
 * The slot that the text spells, without a look-up: `0000:04:00.0`, `04:00.0` in domain 0000, in any case, with
 * superfluous zeros (`00000000:04:00.0`), as other tools spell it (`pci_0000_04_00_0`, `pci@0000:04:00.0`,
 * `PCI:4:0:0`), and the path of its folder in sysfs. Undefined for anything else; `find.ts` looks up names.
 */
export function asSlot(text: string): Slot | undefined {
  if (canonical.test(text)) return text as Slot;
  const address = readAddress(text);
  if (address?.fn === undefined || address.fn === '*') return undefined;
  return `${address.card}.${address.fn}` as Slot;
}

/** The card that the text spells, whose functions are all meant: `0000:04:00`, `04:00`, `04:00.*`. */
export function asCard(text: string): Card | undefined {
  const address = readAddress(text);
  return address === undefined || (address.fn !== undefined && address.fn !== '*') ? undefined : address.card;
}

/**
 * The one slot that the text spells, without a look-up.
 * @throws PearasysError `bad-slot`, exit code 2.
 */
export function parseSlot(text: string): Slot {
  const slot = asSlot(text);
  if (slot === undefined)
    throw usageError(
      asCard(text) === undefined ? `'${text}' is not a slot` : `'${text}' names all functions of a card`,
      `${expectedSlot(text)}; \`pearasys list\` shows them`,
      'bad-slot',
    );
  return slot;
}

/** What is expected instead of a text that is not a slot, for errors about options and files. */
export function expectedSlot(text: string): string {
  const card = asCard(text);
  return card === undefined
    ? 'a slot (domain:bus:device.function) as in 0000:04:00.0, or 04:00.0 in domain 0000'
    : `one function, as in ${card}.0`;
}

/** The slot without its function, `0000:04:00`: what siblings share. */
export function cardOf(slot: Slot): Card {
  return slot.slice(0, slot.lastIndexOf('.')) as Card;
}

/** `pci_0000_04_00_0`: the name of libvirt's node device, see virsh(1), nodedev-list. */
export function virshName(slot: Slot): string {
  return `pci_${slot.replace(/[:.]/g, '_')}`;
}

function readAddress(text: string): Address | undefined {
  // A longer text is never a slot.
  if (text.length > 4096) return undefined;
  if (text.startsWith('/')) return readPath(text);
  const lower = text.toLowerCase();
  const decimal = xorgBusId.exec(lower);
  if (decimal !== null) {
    const [bus = '', domain = '0', device = '', fn] = decimal.slice(1);
    return makeAddress(Number(domain), Number(bus), Number(device), fn);
  }
  const isPrefixed = prefix.test(lower);
  const match = spelled.exec(isPrefixed ? lower.slice('pci_'.length) : lower);
  if (match === null) return undefined;
  const [, domain = '0', first = match[4], bus = '', second, device = '', last, fn] = match;
  // Mixed separators are a mistake, and underscores alone could be the name of anything.
  const underscores = second === '_';
  if (first !== second || (last !== undefined && (last === '_') !== underscores)) return undefined;
  if (underscores !== lower.startsWith('pci_')) return undefined;
  return makeAddress(Number.parseInt(domain, 16), Number.parseInt(bus, 16), Number.parseInt(device, 16), fn);
}

/** A folder below /sys that is named after the function: as the bus, a driver, a group or the tree of devices has it. */
function readPath(text: string): Address | undefined {
  const [, name = ''] =
    /^\/sys\/(?:devices|bus\/pci|kernel\/iommu_groups)\/(?:.*\/)?([^/]+)\/*$/.exec(text) ?? [];
  const slot = canonical.test(name.toLowerCase()) ? readAddress(name) : undefined;
  return slot;
}

function makeAddress(
  domain: number,
  bus: number,
  device: number,
  fn: string | undefined,
): Address | undefined {
  if (
    bus > 0xff ||
    device > 0x1f ||
    (fn !== undefined && fn !== '*' && Number(fn) > 7) ||
    domain > 0xffff_ffff
  )
    return undefined;
  const hex = (value: number, digits: number) => value.toString(16).padStart(digits, '0');
  return {card: `${hex(domain, 4)}:${hex(bus, 2)}:${hex(device, 2)}` as Card, fn};
}
