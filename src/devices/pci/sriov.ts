import type {HostReader} from '../../host/host.js';
import {readAttribute} from './attributes.js';
import {devicePath, readBridge} from './device.js';
import {asId, type DeviceId} from './id.js';
import {asSlot, type Slot} from './slot.js';

/** What the kernel says of the virtual functions (VFs) of a physical function (PF), see pci-iov-howto.rst. */
export interface Sriov {
  /** The most that its driver can create (`sriov_totalvfs`). */
  readonly total: number;
  /** How many there are. */
  readonly count: number;
  /** Distances of routing ids; undefined if the device tells them only while it has VFs, or the kernel is too old. */
  readonly places: VirtualPlaces | undefined;
  /** The id of each VF; undefined if the kernel does not tell it (before 4.14). */
  readonly virtualId: DeviceId | undefined;
  /** Whether the kernel offers new VFs to drivers. */
  readonly autoprobe: boolean;
}

/** Where the VFs of a PF are. */
export interface VirtualPlaces {
  /** The routing id of the first one, less that of the PF. */
  readonly offset: number;
  /** The distance of one to the next; 0 if there can be only one. */
  readonly stride: number;
}

/** Reads what the kernel says of the VFs of a device; undefined if it cannot have any. */
export function readSriov(host: HostReader, slot: Slot, id: DeviceId): Sriov | undefined {
  const read = (name: string) => readAttribute(host, slot, `sriov_${name}`);
  const total = readNumber(read('totalvfs'));
  const count = readNumber(read('numvfs'));
  if (total === undefined || count === undefined) return undefined;
  const [offset, stride] = [readNumber(read('offset')), readNumber(read('stride'))];
  // Printed without leading zeros.
  const device = read('vf_device')?.toLowerCase().padStart(4, '0');
  return {
    total,
    count,
    // The specification leaves both undefined while there are no VFs; the offset of a VF is never 0.
    places: offset === undefined || stride === undefined || offset === 0 ? undefined : {offset, stride},
    virtualId: device === undefined ? undefined : asId(`${id.slice(0, 4)}:${device}`),
    autoprobe: read('drivers_autoprobe') !== '0',
  };
}

/**
 * The slot of a VF. It may be on a bus after that of its PF.
 * @returns undefined if no such bus can exist.
 */
export function virtualSlot(pf: Slot, {offset, stride}: VirtualPlaces, index: number): Slot | undefined {
  const [, domain = '', bus = '', device = '', number = ''] =
    /^([0-9a-f]+):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])$/.exec(pf) ?? [];
  const own = (Number.parseInt(bus, 16) << 8) | (Number.parseInt(device, 16) << 3) | Number(number);
  const routing = own + offset + index * stride;
  if (routing > 0xffff) return undefined;
  const hex = (value: number) => value.toString(16).padStart(2, '0');
  return asSlot(`${domain}:${hex(routing >> 8)}:${hex((routing >> 3) & 0x1f)}.${routing & 7}`);
}

/** The last bus number that the bridge above a device passes on; undefined if that is not known. */
export function readLastBus(host: HostReader, slot: Slot): number | undefined {
  const bridge = readBridge(host, slot);
  return bridge === undefined ? undefined : readNumber(readAttribute(host, bridge, 'subordinate_bus_number'));
}

/** Lines of the file `resource` that are the BARs of VFs (PCI_IOV_RESOURCES in include/linux/pci.h). */
const virtualBars = {first: 7, end: 13} as const;
/** IORESOURCE_UNSET in include/linux/ioport.h: no address was assigned. */
const unset = 0x2000_0000n;

/** Whether a BAR of the VFs got no address, because the bridge above has no space for it. */
export function lacksVirtualSpace(host: HostReader, slot: Slot): boolean {
  const lines = host.readText(devicePath(slot, 'resource'))?.split('\n') ?? [];
  return lines.slice(virtualBars.first, virtualBars.end).some((line) => {
    const flags = line.trim().split(/\s+/)[2] ?? '';
    return /^0x[0-9a-f]+$/.test(flags) && (BigInt(flags) & unset) !== 0n;
  });
}

function readNumber(text: string | undefined): number | undefined {
  return text !== undefined && /^\d{1,9}$/.test(text) ? Number(text) : undefined;
}
