import type {Device} from './device.js';
import {deviceTypes, type DeviceType, type TypeRule} from './device-type.js';
import {dpdkTypes} from './dpdk-types.js';

/** The kinds of devices that SPDK's scripts/setup.sh binds. */
export type SpdkKind = 'nvme' | 'ioat' | 'dsa' | 'iaa' | 'virtio' | 'vmd';

/**
 * The ids that SPDK's scripts/setup.sh takes from include/spdk/pci_ids.h (BSD-3-Clause; commit c7bd57b6, and the id of
 * IAA from SPDK 23.01). NVMe controllers are known by their class.
 */
const spdkIds: Readonly<Record<Exclude<SpdkKind, 'nvme'>, readonly string[]>> = {
  ioat: [
    ...idsFrom('8086', '3c20', 8),
    ...idsFrom('8086', '3c2e', 2),
    ...idsFrom('8086', '0e20', 8),
    ...idsFrom('8086', '0e2e', 2),
    ...idsFrom('8086', '2f20', 8),
    ...idsFrom('8086', '2f2e', 2),
    ...idsFrom('8086', '0c50', 4),
    ...idsFrom('8086', '6f50', 4),
    ...idsFrom('8086', '6f20', 8),
    ...idsFrom('8086', '6f2e', 2),
    '8086:2021',
    '8086:0b00',
  ],
  dsa: ['8086:0b25'],
  iaa: ['8086:0cfe'],
  virtio: ['1af4:1001', '1af4:1004', '1af4:1042', '1af4:1048', '1af4:1017'],
  vmd: ['8086:201d', '8086:28c0'],
};

/** The class of NVMe controllers: mass storage, non-volatile memory, NVM Express. */
const nvmeClass = 0x01_08_02;

/** The base class of mass storage. */
const storageClass = 0x01;

/** The types of a device, in the order of {@link deviceTypes}; a device may have several. */
export function typesOf(device: Pick<Device, 'id' | 'classCode'>): DeviceType[] {
  const kind = spdkKindOf(device);
  return deviceTypes.filter((type) => {
    if (type === 'storage') return device.classCode >>> 16 === storageClass || kind === 'virtio';
    const engine = type === 'dma' && (kind === 'ioat' || kind === 'dsa' || kind === 'iaa');
    return engine || dpdkTypes[type].some((rule) => matches(device, rule));
  });
}

/** Which of SPDK's kinds a device is; undefined for none. */
export function spdkKindOf({id, classCode}: Pick<Device, 'id' | 'classCode'>): SpdkKind | undefined {
  if (classCode === nvmeClass) return 'nvme';
  return (['ioat', 'dsa', 'iaa', 'virtio', 'vmd'] as const).find((kind) => spdkIds[kind].includes(id));
}

function matches({id, classCode}: Pick<Device, 'id' | 'classCode'>, rule: TypeRule): boolean {
  return (
    classCode >>> 16 === Number.parseInt(rule.class, 16) &&
    (rule.vendor === undefined || id.startsWith(`${rule.vendor}:`)) &&
    (rule.devices === undefined || rule.devices.includes(id.slice('vvvv:'.length)))
  );
}

function idsFrom(vendor: string, first: string, count: number): string[] {
  return Array.from(
    {length: count},
    (_, index) => `${vendor}:${(Number.parseInt(first, 16) + index).toString(16).padStart(4, '0')}`,
  );
}
