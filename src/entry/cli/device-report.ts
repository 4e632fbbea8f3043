import type {Host, HostReader} from '../../host/host.js';
import type {Layout} from '../../config/layout.js';
import {readPhysicalFunction} from '../../devices/pci/dependents.js';
import {readDevices, readNumaNode, readResponds, type Device} from '../../devices/pci/device.js';
import {readHolders, seesAllProcesses} from '../../usage/holders.js';
import type {Holder} from '../../usage/holder.js';
import {adviseOnHolder, describeHolder} from '../../usage/words.js';
import {printName, readDeviceNames, type DeviceNames} from '../../devices/pci/names.js';
import type {Slot} from '../../devices/pci/slot.js';
import {readRecords, type DeviceRecord} from '../../state/records/record.js';
import {readQuarantines, type Quarantine} from '../../state/quarantine.js';
import {
  compareIdentity,
  readCards,
  type IdentityReport,
  type LocatedCards,
} from '../../state/records/locate.js';
import type {IgnoredFile, UnknownKey} from '../../state/desired.js';
import {readUnitStates, type UnitState} from '../../systemd/unit.js';
import {reportAccess, type AccessReport} from './access-report.js';

/** A holder as `--json` prints it: the fields of its kind, a text for people, and how to end its use. */
export type HolderReport = Told<Holder> & {readonly text: string; readonly advice: string};

/** A value, or `null` without one: `--json` omits no key. */
type Told<T> = T extends object
  ? {readonly [Key in keyof T]-?: Exclude<T[Key], undefined> | (undefined extends T[Key] ? null : never)}
  : never;

/** What is recorded about a device. */
export interface RecordReport {
  readonly driver: string;
  /** The recorded slot; `any` for a record by id alone. */
  readonly slot: string;
  readonly id: string;
  /** Whether the card in the slot is the recorded one; if not, it is not claimed. */
  readonly matches: boolean;
  /** Which parts of the recorded identity the card has; null for a record by id alone. */
  readonly identity: IdentityReport | null;
  /** Who may open its nodes; null for root only. */
  readonly access: AccessReport | null;
  /** What the record has that this version does not know. */
  readonly unknown: readonly UnknownKey[];
}

/** A unit of the device. */
export interface UnitReport {
  readonly unit: string;
  readonly driver: string;
  /** Whether it claims the device at boot and at each hot-add. */
  readonly enabled: boolean;
  /** systemd's name of its state; null if systemd is not running. */
  readonly active: string | null;
}

/** A device as `--json` prints it. */
export interface DeviceReport {
  readonly slot: string;
  /** `10de:1b80` */
  readonly id: string;
  /** Subsystem vendor and device; `0000:0000` if the card has none. */
  readonly subsystem: string;
  /** Base class, subclass and programming interface, six hexadecimal digits. */
  readonly class: string;
  /** Names from the system's pci.ids; null for unknown ones. */
  readonly className: string | null;
  readonly vendorName: string | null;
  readonly deviceName: string | null;
  readonly driver: string | null;
  readonly override: string | null;
  /** IOMMU group; null without an IOMMU. */
  readonly group: number | null;
  readonly numaNode: number | null;
  /** The physical function of a virtual one; null for all other devices. */
  readonly physicalFunction: string | null;
  readonly bootDisplay: boolean;
  /** For a virtual function on which NVIDIA's driver makes vGPUs without mediated devices. */
  readonly vgpu: {
    /** The type that is set; null if none is. */
    readonly type: number | null;
  } | null;
  /**
   * Whether it responds at all: false if its configuration space reads as all ones. Null if that is not known, for
   * example for a suspended device, which is not woken for this.
   */
  readonly responds: boolean | null;
  /** Why the device is quarantined; null if it is not. */
  readonly quarantined: string | null;
  readonly record: RecordReport | null;
  readonly units: readonly UnitReport[];
  readonly holders: readonly HolderReport[];
}

/** The input for the reports of several devices, read once. */
export interface Surroundings {
  readonly names: ReadonlyMap<Slot, DeviceNames>;
  /** The reasons why files of names are ignored. */
  readonly namesProblems: readonly string[];
  /** By slot; those by id alone under `any`. */
  readonly records: ReadonlyMap<string, readonly DeviceRecord[]>;
  /** Where the recorded cards are. */
  readonly cards: LocatedCards<DeviceRecord>;
  /** Record files that are ignored. */
  readonly problems: readonly IgnoredFile[];
  readonly units: ReadonlyMap<Slot, readonly UnitState[]>;
  readonly holders: ReadonlyMap<Slot, readonly Holder[]>;
  /** Read only for reports of single devices: lists do not show it. */
  readonly numaNode: (slot: Slot) => number | undefined;
  /** As {@link numaNode}. */
  readonly physicalFunction: (slot: Slot) => Slot | undefined;
  /** As {@link numaNode}. */
  readonly responds: (slot: Slot) => boolean | undefined;
  readonly quarantined: ReadonlyMap<Slot, Quarantine>;
}

/** What {@link readSurroundings} reads beyond the devices themselves. */
export interface SurroundingsOptions {
  /** Further devices to be named. */
  readonly others?: readonly Device[];
  /** Whether these are all devices of the machine. */
  readonly complete?: boolean;
}

/** Reads the input for reports of these devices. */
export async function readSurroundings(
  host: Host,
  layout: Layout,
  devices: readonly Device[],
  {others = [], complete = false}: SurroundingsOptions = {},
): Promise<Surroundings> {
  const {records, problems} = readRecords(host, layout);
  const namesProblems: string[] = [];
  return {
    names: readDeviceNames(host, [...devices, ...others], (problem) => namesProblems.push(problem)),
    namesProblems,
    records: bySlot(records),
    cards: readCards(host, records, complete || records.length === 0 ? devices : readDevices(host), false),
    problems,
    units: bySlot(await readUnitStates(host)),
    holders: bySlot(readHolders(host, devices, {alone: true, complete})),
    numaNode: (slot) => readNumaNode(host, slot),
    physicalFunction: (slot) => readPhysicalFunction(host, slot),
    responds: (slot) => readResponds(host, slot),
    quarantined: new Map(readQuarantines(host).map((one) => [one.slot, one])),
  };
}

function bySlot<K extends string, T extends {readonly slot: K}>(list: readonly T[]): Map<K, T[]> {
  const map = new Map<K, T[]>();
  for (const one of list) {
    const known = map.get(one.slot);
    if (known === undefined) map.set(one.slot, [one]);
    else known.push(one);
  }
  return map;
}

/** One device's report. */
export function reportDevice(device: Device, surroundings: Surroundings): DeviceReport {
  const names = surroundings.names.get(device.slot);
  return {
    slot: device.slot,
    id: device.id,
    subsystem: device.subsystem,
    class: printClass(device.classCode),
    className: names?.class ?? null,
    vendorName: names?.vendor ?? null,
    deviceName: names?.device ?? null,
    driver: device.driver ?? null,
    override: device.override ?? null,
    group: device.group ?? null,
    numaNode: surroundings.numaNode(device.slot) ?? null,
    physicalFunction: surroundings.physicalFunction(device.slot) ?? null,
    bootDisplay: device.bootDisplay,
    vgpu: device.vgpuType === undefined ? null : {type: device.vgpuType === 0 ? null : device.vgpuType},
    responds: surroundings.responds(device.slot) ?? null,
    quarantined: quarantineOf(device, surroundings)?.reason ?? null,
    record: reportRecord(device, surroundings),
    units: (surroundings.units.get(device.slot) ?? []).map(({unit, driver, enabled, active = null}) => ({
      unit,
      driver,
      enabled,
      active,
    })),
    holders: (surroundings.holders.get(device.slot) ?? []).map(reportHolder),
  };
}

/** The quarantine of this very card. */
export function quarantineOf(
  {slot, id}: Device,
  {quarantined}: Pick<Surroundings, 'quarantined'>,
): Quarantine | undefined {
  const quarantine = quarantined.get(slot);
  return quarantine?.id === id ? quarantine : undefined;
}

/** A class code as it is printed. */
export function printClass(classCode: number): string {
  return classCode.toString(16).padStart(6, '0');
}

function reportHolder(holder: Holder): HolderReport {
  const all = holder.kind === 'process' ? {...holder, unitUser: holder.unitUser} : holder;
  const told = Object.fromEntries(
    Object.entries(all).map(([key, value]: [string, unknown]) => [key, value ?? null]),
  );
  return {...(told as unknown as Told<Holder>), text: describeHolder(holder), advice: adviseOnHolder(holder)};
}

/** The device's name in one line. */
export function nameInReport({id, vendorName, deviceName, className}: DeviceReport): string {
  return printName(id, {
    vendor: vendorName ?? undefined,
    device: deviceName ?? undefined,
    class: className ?? undefined,
  });
}

/** The note when not everything was visible; undefined otherwise. */
export function blindSpot(host: HostReader): string | undefined {
  return seesAllProcesses(host)
    ? undefined
    : 'pearasys: not root: files that processes of other users have open are not visible';
}

/**
 * The record of this very card, also if it is for the slot in which the card was before, or by its id alone; else one
 * of another card in its slot.
 */
export function recordFor(
  {slot, id}: Device,
  {records, cards}: Pick<Surroundings, 'records' | 'cards'>,
): DeviceRecord | undefined {
  if (records.size === 0) return undefined;
  const own = records.get(slot) ?? [];
  const located = [...cards.where].filter(([, place]) => place.slot === slot && place.kind !== 'superseded');
  return (
    located[0]?.[0] ??
    own.find((one) => one.id === id) ??
    records.get('any')?.find((one) => one.id === id) ??
    own[0]
  );
}

/** What {@link recordFor} finds, as it is reported. */
export function reportRecord(
  device: Device,
  surroundings: Pick<Surroundings, 'records' | 'cards'>,
): RecordReport | null {
  const record = recordFor(device, surroundings);
  if (record === undefined) return null;
  const {cards} = surroundings;
  const there = cards.present.get(device.slot);
  return {
    driver: record.driver,
    slot: record.slot,
    id: record.id,
    matches: record.slot === 'any' ? record.id === device.id : cards.where.get(record)?.slot === device.slot,
    identity: record.slot === 'any' || there === undefined ? null : compareIdentity(record, there),
    access: reportAccess(record.access),
    unknown: record.unknown,
  };
}
