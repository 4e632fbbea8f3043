import {posix} from 'node:path';
import {ExitCode, FileError, PearasysError} from '../../host/errors.js';
import type {HostReader} from '../../host/host.js';
import {isVfio} from './driver.js';
import {asId, type DeviceId} from './id.js';
import {asSlot, cardOf, type Slot} from './slot.js';

/** One PCI function as the kernel shows it now. */
export interface Device {
  readonly slot: Slot;
  readonly id: DeviceId;
  /** Subsystem vendor:device, `0000:0000` if the card has none. */
  readonly subsystem: string;
  /** Base class, subclass and programming interface: 0x030000 is a VGA controller. */
  readonly classCode: number;
  readonly driver: string | undefined;
  readonly override: string | undefined;
  /** IOMMU group; undefined without an IOMMU. The number changes from boot to boot. */
  readonly group: number | undefined;
  /** Whether the firmware showed its messages on this device. */
  readonly bootDisplay: boolean;
  /** How reading `driver_override` went; {@link override} is valid only when this is `known`. */
  readonly overrideState: OverrideState;
  /**
   * Whether the kernel keeps the device locked because a write or a probe does not return. Then the override is
   * not known, and any process that reads or writes it blocks as well.
   */
  readonly locked: boolean;
  /**
   * The vGPU type of a virtual function of NVIDIA's driver, 0 if none is set; absent for all other devices.
   * A guest gets such a function as it is, without a mediated device and without vfio-pci.
   */
  readonly vgpuType?: number;
}

/**
 * `missing`: the kernel has no such attribute (before 3.16), or the tree was captured without it; `unreadable`: the
 * read failed (EACCES, EIO); `blocked`: a read would not return.
 */
export type OverrideState = 'known' | 'missing' | 'unreadable' | 'blocked';

/** Where the kernel lists the devices. */
export const devicesFolder = '/sys/bus/pci/devices';

/** Where the kernel lists the IOMMU groups; empty without an IOMMU. */
const groupsFolder = '/sys/kernel/iommu_groups';

/** The sysfs folder of a device, or the path of one of its attributes. */
export function devicePath(slot: Slot, attribute?: string): string {
  return attribute === undefined ? `${devicesFolder}/${slot}` : `${devicesFolder}/${slot}/${attribute}`;
}

/** The path that a link in sysfs leads to; its text goes up to /sys and down from there. */
export function absolute(link: string): string {
  return link.replace(/^(?:\.\.\/)+/, '/sys/');
}

/**
 * All PCI functions, in slot order.
 * @param onUnreadable is called for each device that exists but cannot be read; it is omitted.
 * @throws PearasysError `no-sysfs` where there is no PCI bus to read.
 */
export function readDevices(host: HostReader, onUnreadable?: (problem: FileError) => void): Device[] {
  const names = host.list(devicesFolder);
  if (names.length === 0 && !host.exists(devicesFolder))
    throw new PearasysError({
      code: 'no-sysfs',
      exitCode: ExitCode.failed,
      message: `${host.root === '/' ? '' : host.root}${devicesFolder} does not exist: no PCI bus, or sysfs is not mounted`,
      hint:
        host.root === '/'
          ? 'mount sysfs with: mount -t sysfs sysfs /sys'
          : 'an image has no devices: name them by slot and id',
    });
  const devices: Device[] = [];
  const shared: Shared = {hasGroups: undefined, ids: new Map(), words: new Map()};
  let bus: Bus | undefined;
  for (const name of names) {
    const slot = asSlot(name);
    if (slot === undefined) continue;
    // The devices of a bus are adjacent.
    const number = slot.slice(0, -4);
    if (bus?.number !== number) bus = readBus(host, number, slot);
    let device = readFrom(host, slot, `${bus.folder}/${slot}`, shared);
    // Two on one bus may be in different folders.
    if (!isDevice(device)) device = readFrom(host, slot, devicePath(slot), shared);
    if (isDevice(device)) devices.push(device);
    else if (device !== undefined) onUnreadable?.(device);
  }
  return devices;
}

/** What the devices of a bus have in common. */
interface Bus {
  /** Domain and bus: `0000:04`. */
  readonly number: string;
  /** The folder that contains its devices' folders: a path through each device's link is slower. */
  readonly folder: string;
}

/** @param slot any of the bus's devices. */
function readBus(host: HostReader, number: string, slot: Slot): Bus {
  const link = host.readLink(devicePath(slot));
  return {number, folder: link === undefined ? devicesFolder : posix.dirname(absolute(link))};
}

/**
 * One PCI function; undefined when it does not exist, or disappears while it is read.
 * @throws FileError when it exists but cannot be read.
 */
export function readDevice(host: HostReader, slot: Slot): Device | undefined {
  const device = readFrom(host, slot, devicePath(slot), {hasGroups: true, ids: new Map(), words: new Map()});
  if (device === undefined || isDevice(device)) return device;
  throw device;
}

/** The bridge above a function; undefined on a root bus, or without the device. */
export function readBridge(host: HostReader, slot: Slot): Slot | undefined {
  const link = host.readLink(devicePath(slot));
  return link === undefined ? undefined : asSlot(posix.basename(posix.dirname(link)));
}

/** The NUMA node of a function; undefined for none. */
export function readNumaNode(host: HostReader, slot: Slot): number | undefined {
  const node = Number(readOptional(host, devicePath(slot, 'numa_node')) ?? -1);
  return node >= 0 ? node : undefined;
}

/** Bytes of the header that every function has and every user may read, see lspci(8). */
const headerLength = 64;

/**
 * Whether the function responds at all: one that has failed or lost power reads as all ones, while sysfs still shows
 * the old ids. Undefined when this cannot be determined, for example when the function is suspended, because the read
 * would wake it.
 */
export function readResponds(host: HostReader, slot: Slot): boolean | undefined {
  if (readSuspended(host, slot)) return undefined;
  const header = host.readStart(devicePath(slot, 'config'), headerLength);
  // A virtual function has no ids in its configuration space (SR-IOV 3.4.1.1), but everything else.
  return header === undefined || header.length < headerLength
    ? undefined
    : header.some((byte) => byte !== 0xff);
}

/** Whether the function is suspended: then reading its configuration space wakes it. */
export function readSuspended(host: HostReader, slot: Slot): boolean {
  return /^(?:suspended|suspending)$/.test(
    readOptional(host, devicePath(slot, 'power/runtime_status')) ?? '',
  );
}

/** The text of an attribute; undefined when it does not exist or cannot be read. */
export function readOptional(host: HostReader, path: string): string | undefined {
  try {
    return host.readText(path);
  } catch (error) {
    if (!(error instanceof FileError)) throw error;
    return undefined;
  }
}

function isDevice(answer: Device | FileError | undefined): answer is Device {
  return answer !== undefined && !(answer instanceof FileError);
}

/** State shared by the reading of several devices. */
interface Shared {
  /** Whether there are IOMMU groups; undefined until it is needed. */
  hasGroups: boolean | undefined;
  /** Ids by the kernel's spelling: machines with many functions have many of one kind. */
  readonly ids: Map<string, DeviceId | undefined>;
  /** Words by the kernel's spelling: a substring would keep the whole text that it is part of in memory. */
  readonly words: Map<string, string>;
}

/** @returns the error when it cannot be read; undefined when it does not exist. */
function readFrom(
  host: HostReader,
  slot: Slot,
  folder: string,
  shared: Shared,
): Device | FileError | undefined {
  // One read for most of it: the kernel prints class, ids, driver and modalias together.
  let uevent = readOptional(host, `${folder}/uevent`);
  if (uevent?.includes('PCI_ID=') !== true) uevent = readWithoutLock(host, folder);
  const id = uevent === undefined ? undefined : once(shared.ids, field(uevent, 'PCI_ID='), asId);
  if (uevent === undefined || id === undefined)
    return host.exists(folder) ? whyUnreadable(host, `${folder}/vendor`) : undefined;
  const classCode = Number.parseInt(field(uevent, 'PCI_CLASS='), 16);
  const driver = once(shared.words, field(uevent, 'DRIVER='), String);
  const overridePath = `${folder}/driver_override`;
  let override: string | undefined;
  let overrideState: OverrideState = 'known';
  try {
    override = host.readText(overridePath);
    if (override === undefined) overrideState = host.isLocked(overridePath) ? 'blocked' : 'missing';
  } catch (error) {
    if (!(error instanceof FileError)) throw error;
    overrideState = 'unreadable';
  }
  // It may have disappeared since the first read.
  if (overrideState === 'missing' && !host.exists(folder)) return undefined;
  const group = readGroup(host, folder, shared);
  return {
    slot,
    id,
    subsystem: once(shared.words, field(uevent, 'PCI_SUBSYS_ID='), subsystemIn),
    classCode: Number.isNaN(classCode) ? 0 : classCode,
    driver: driver === '' ? undefined : driver,
    // A cleared override reads back as (null).
    override: override === undefined || override === '(null)' || override === '' ? undefined : override,
    group,
    bootDisplay: classCode >>> 16 === 0x03 && readOptional(host, `${folder}/boot_vga`) === '1',
    overrideState,
    locked: overrideState === 'blocked',
    ...(driver.startsWith('nvidia') ? readVgpuType(host, folder) : {}),
  };
}

/** The error for an attribute that must not be read. */
function whyUnreadable(host: HostReader, path: string): FileError {
  try {
    host.readText(path);
  } catch (error) {
    if (error instanceof FileError) return error;
    throw error;
  }
  return new FileError('reading', path, 'ENOENT');
}

/** NVIDIA's attribute for vGPUs on virtual functions (Virtual GPU Software User Guide, "SR-IOV vGPU"). */
function readVgpuType(host: HostReader, folder: string): Pick<Device, 'vgpuType'> {
  const type = /\d+/.exec(readOptional(host, `${folder}/nvidia/current_vgpu_type`) ?? '')?.[0];
  return type === undefined ? {} : {vgpuType: Number(type)};
}

function subsystemIn(text: string): string {
  return text === '' ? '0000:0000' : text.toLowerCase();
}

/** The number of the device's group. Without an IOMMU only the first device is checked: each check is an exception. */
function readGroup(host: HostReader, folder: string, shared: Shared): number | undefined {
  if (shared.hasGroups === false) return undefined;
  const link = host.readLink(`${folder}/iommu_group`);
  if (link !== undefined) return Number(link.slice(link.lastIndexOf('/') + 1));
  // A captured tree may have only the links.
  shared.hasGroups ??= !host.exists(groupsFolder) || host.list(groupsFolder).length > 0;
  return undefined;
}

/**
 * The content of uevent, from attributes that can be read while the device is locked and that captured trees have;
 * undefined when there are none.
 */
function readWithoutLock(host: HostReader, folder: string): string | undefined {
  const read = (attribute: string) => readOptional(host, `${folder}/${attribute}`)?.replace(/^0x/, '');
  const [vendor, device] = [read('vendor'), read('device')];
  if (vendor === undefined || device === undefined) return undefined;
  const driver = host.readLink(`${folder}/driver`);
  return [
    `PCI_ID=${vendor}:${device}`,
    `PCI_SUBSYS_ID=${read('subsystem_vendor') ?? '0000'}:${read('subsystem_device') ?? '0000'}`,
    `PCI_CLASS=${read('class') ?? ''}`,
    ...(driver === undefined ? [] : [`DRIVER=${driver.slice(driver.lastIndexOf('/') + 1)}`]),
  ].join('\n');
}

/**
 * When udev first saw the device, in microseconds since the boot (USEC_INITIALIZED, sd_device(3)): a device that was
 * removed and is back has another one. Undefined until udev has seen it.
 */
export function readInitialized(host: HostReader, slot: Slot): number | undefined {
  const database = host.readText(`/run/udev/data/+pci:${slot}`);
  const initialized = /^I:(\d+)$/m.exec(database ?? '')?.[1];
  return initialized === undefined ? undefined : Number(initialized);
}

/** Whether the device is a bridge to another bus (class 0x0604..): a member of groups that is never bound. */
export function isBridge(device: Device): boolean {
  return device.classCode >>> 8 === 0x0604;
}

/** Whether a guest can get the device through VFIO as it is: on a VFIO driver, or as a vGPU on NVIDIA's driver. */
export function servesVfio({driver, vgpuType}: Device): boolean {
  return isVfio(driver) || vgpuType !== undefined;
}

/** Whether the device is a network card of any kind (class 0x02....). */
export function isNetwork(device: Device): boolean {
  return device.classCode >>> 16 === 0x02;
}

/**
 * The other functions of the same card. A virtual function counts as a separate card, although its slot may look like
 * one of its PF: it is a sibling neither of its PF nor of other virtual functions.
 */
export function siblingsOf(host: HostReader, device: Device, devices: readonly Device[]): Device[] {
  const card = cardOf(device.slot);
  const others = devices.filter((other) => other.slot !== device.slot && cardOf(other.slot) === card);
  if (others.length === 0 || isVirtualFunction(host, device.slot)) return [];
  return others.filter((other) => !isVirtualFunction(host, other.slot));
}

/** Whether the device is an SR-IOV virtual function (Documentation/PCI/pci-iov-howto.rst). */
export function isVirtualFunction(host: HostReader, slot: Slot): boolean {
  return host.readLink(devicePath(slot, 'physfn')) !== undefined;
}

/** The physical function of a virtual one; undefined for all other devices. */
export function readPhysicalFunction(host: HostReader, slot: Slot): Slot | undefined {
  const link = host.readLink(devicePath(slot, 'physfn'));
  return link === undefined ? undefined : asSlot(posix.basename(link));
}

/** All members of a device's group, itself included, in slot order; only the device without an IOMMU. */
export function readGroupMembers(host: HostReader, device: Device): Device[] {
  if (device.group === undefined) return [device];
  return host
    .list(`${groupsFolder}/${device.group}/devices`)
    .map(asSlot)
    .filter((slot) => slot !== undefined)
    .map((slot) => (slot === device.slot ? device : readDevice(host, slot)))
    .filter((member) => member !== undefined);
}

/** driverctl's names of classes, with their base classes (pci.ids, section C). */
export const classWords: Readonly<Record<string, number>> = {
  storage: 0x01,
  network: 0x02,
  display: 0x03,
  multimedia: 0x04,
  memory: 0x05,
  bridge: 0x06,
  communication: 0x07,
  system: 0x08,
  input: 0x09,
  docking: 0x0a,
  processor: 0x0b,
  serial: 0x0c,
};

/**
 * The modalias that udev gives to modprobe. The kernel makes it from the numbers alone (pci_uevent in
 * drivers/pci/pci-driver.c).
 */
export function modaliasOf({
  id,
  subsystem,
  classCode,
}: Pick<Device, 'id' | 'subsystem' | 'classCode'>): string {
  const [vendor = '', device = '', subVendor = '', subDevice = ''] = `${id}:${subsystem}`
    .split(':')
    .map((hex) => hex.toUpperCase().padStart(8, '0'));
  const [base = '', sub = '', programming = ''] = [classCode >>> 16, classCode >>> 8, classCode].map((code) =>
    (code & 0xff).toString(16).toUpperCase().padStart(2, '0'),
  );
  return `pci:v${vendor}d${device}sv${subVendor}sd${subDevice}bc${base}sc${sub}i${programming}`;
}

/** The value in the line `KEY=value` of a uevent; empty when there is none. */
function field(uevent: string, key: string): string {
  const line = uevent.startsWith(key) ? 0 : uevent.indexOf(`\n${key}`) + 1;
  if (line === 0 && !uevent.startsWith(key)) return '';
  const end = uevent.indexOf('\n', line);
  return uevent.slice(line + key.length, end < 0 ? undefined : end);
}

/** The cached result for the text, or a new one. */
function once<T>(known: Map<string, T>, text: string, make: (text: string) => T): T {
  let value = known.get(text);
  if (value === undefined) {
    value = make(text);
    known.set(text, value);
  }
  return value;
}
