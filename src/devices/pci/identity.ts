import type {HostReader} from '../../host/host.js';
import {devicePath, readDevices, readOptional, readSuspended, type Device} from './device.js';
import {asSlot, cardOf, type Slot} from './slot.js';

/**
 * What identifies a card beyond vendor and device, so that it is recognized when buses are renumbered or cards are
 * moved. Each part is undefined if it is not known.
 */
export interface Identity {
  /** Subsystem vendor:device, `10de:1b80`. */
  readonly subsystem?: string;
  /**
   * `0000:00/1c.0/00.0`: the root bus, then device and function of each bridge, and of the function itself. It stays
   * the same when buses are renumbered, because it contains no number of a bus that is behind a bridge.
   */
  readonly path?: string;
  /**
   * `pcie:` and the PCI Express Device Serial Number, which can be read at any time; `nvme:` and the disk's serial
   * number or `mac:` and the address of a network interface, which can be read only while the host driver has the card.
   */
  readonly serial?: string;
}

/** The identity of a device that is present. */
export interface SeenIdentity extends Identity {
  /** The extended configuration space was read, and it has no serial number. */
  readonly hasNoNumber?: true;
}

/** The syntax of each part; libexec/records.sh checks the same. */
const patterns: Readonly<Record<keyof Identity, RegExp>> = {
  subsystem: /^[0-9a-f]{4}:[0-9a-f]{4}$/,
  path: /^[0-9a-f]{4,}:[0-9a-f]{2}(?:\/[0-9a-f]{2}\.[0-7])+$/,
  serial: /^(?:pcie|nvme|mac):[A-Za-z0-9:._-]+$/,
};

/** Whether the text is a valid value of this part of an identity. */
export function isIdentity(part: keyof Identity, text: string): boolean {
  return patterns[part].test(text);
}

/**
 * The identity of a device. VPD, which may contain a serial number too, is not read: on some devices the read takes
 * seconds or never returns, and units would wait for it.
 * @param wake whether a suspended device is woken to read its serial number. A report does not do that.
 */
export function readIdentity(
  host: HostReader,
  {slot, subsystem}: Pick<Device, 'slot' | 'subsystem'>,
  wake: boolean,
): SeenIdentity {
  const path = readPath(host, slot);
  const number = wake || !readSuspended(host, slot) ? readSerialNumber(host, slot) : undefined;
  const serial =
    number === undefined || number === 'none'
      ? (readDiskSerial(host, slot) ?? readMac(host, slot))
      : `pcie:${number}`;
  return {
    ...(isIdentity('subsystem', subsystem) ? {subsystem} : {}),
    ...(path === undefined ? {} : {path}),
    ...(serial === undefined ? {} : {serial}),
    ...(number === 'none' ? {hasNoNumber: true} : {}),
  };
}

/**
 * The identity to record. A number of PCI Express that another card has too is omitted: if the recorded card were taken
 * out, the other one would be claimed. Such a card is known by its path.
 */
export function readLastingIdentity(
  host: HostReader,
  device: Pick<Device, 'slot' | 'id' | 'subsystem'>,
): Identity {
  const {subsystem, path, serial} = readIdentity(host, device, true);
  const isShared =
    serial?.startsWith('pcie:') === true &&
    readDevices(host).some(
      (other) =>
        other.id === device.id &&
        cardOf(other.slot) !== cardOf(device.slot) &&
        readIdentity(host, other, true).serial === serial,
    );
  const lasting = isShared ? (readDiskSerial(host, device.slot) ?? readMac(host, device.slot)) : serial;
  return {
    ...(subsystem === undefined ? {} : {subsystem}),
    ...(path === undefined ? {} : {path}),
    ...(lasting === undefined ? {} : {serial: lasting}),
  };
}

/** The path of a function, see {@link Identity.path}; undefined in a captured tree without the tree of devices. */
function readPath(host: HostReader, slot: Slot): string | undefined {
  const parts = host.realPath(devicePath(slot))?.split('/') ?? [];
  const root = parts.find((part) => /^pci[0-9a-f]+:[0-9a-f]{2}$/.test(part));
  // A root bus below another one (Intel VMD) has a domain that the kernel chooses.
  const functions = parts.flatMap((part) => asSlot(part) ?? []).map((each) => each.slice(-4));
  const path = [root?.slice('pci'.length), ...functions].join('/');
  return root !== undefined && isIdentity('path', path) ? path : undefined;
}

/** Where the extended capabilities begin, how many bytes there are, and the capability with the serial number. */
const extended = {start: 0x100, end: 0x1000, serialNumber: 0x0003} as const;

/**
 * Realtek's network cards all have this number: it consists of a constant and the maker's prefix.
 */
const sharedNumbers: ReadonlySet<string> = new Set(['01-00-00-00-68-4c-e0-00']);

/**
 * The PCI Express Device Serial Number as lspci(8) prints it (PCI Express Base Specification, 7.9.3); `none` if the
 * device has none that identifies it; undefined if this cannot be read: only root may, and not every device has
 * extended configuration space. Only what is needed is read: some devices do not survive a read of other registers.
 */
function readSerialNumber(host: HostReader, slot: Slot): string | undefined {
  const config = devicePath(slot, 'config');
  const word = (offset: number): number | undefined => {
    const bytes = host.readStart(config, 4, offset);
    return bytes?.length === 4 ? bytes.readUInt32LE() : undefined;
  };
  const seen = new Set<number>();
  for (let offset: number = extended.start; offset >= extended.start && offset < extended.end;) {
    // A device that fails may answer with a list that never ends.
    if (seen.has(offset)) return undefined;
    seen.add(offset);
    const header = word(offset);
    if (header === undefined || header === 0xffff_ffff) return undefined;
    if ((header & 0xffff) === extended.serialNumber) {
      const [low, high] = [word(offset + 4), word(offset + 8)];
      if (low === undefined || high === undefined) return undefined;
      const digits = [high, low].map((half) => half.toString(16).padStart(8, '0')).join('');
      const number = (digits.match(/../g) ?? []).join('-');
      return /^(?:0+|f+)$/.test(digits) || sharedNumbers.has(number) ? 'none' : number;
    }
    offset = (header >>> 20) & 0xffc;
  }
  return 'none';
}

/** The serial number of an NVMe disk, while its driver has it. */
function readDiskSerial(host: HostReader, slot: Slot): string | undefined {
  const folder = devicePath(slot, 'nvme');
  const [disk] = host.list(folder);
  const serial = disk === undefined ? undefined : readOptional(host, `${folder}/${disk}/serial`)?.trim();
  return serial === undefined || !isIdentity('serial', `nvme:${serial}`) ? undefined : `nvme:${serial}`;
}

/** The lowest address of the device's network interfaces that is the card's own, while its driver has it. */
function readMac(host: HostReader, slot: Slot): string | undefined {
  const folder = devicePath(slot, 'net');
  const addresses = host
    .list(folder)
    // NET_ADDR_PERM: neither random nor set by an administrator, nor taken over from a bond.
    .filter((name) => readOptional(host, `${folder}/${name}/addr_assign_type`) === '0')
    .map((name) => `mac:${readOptional(host, `${folder}/${name}/address`) ?? ''}`)
    .filter((serial) => isIdentity('serial', serial));
  return addresses.sort()[0];
}
