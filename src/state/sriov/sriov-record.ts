/** How many virtual functions (VFs) a physical function (PF) has, and which drivers get them. */
import type {Layout} from '../../config/layout.js';
import type {Device} from '../../devices/pci/device.js';
import {noDriver, type Driver} from '../../devices/pci/driver.js';
import {sysfsIds, type DeviceId} from '../../devices/pci/id.js';
import type {Identity} from '../../devices/pci/identity.js';
import {asSlot, type Slot} from '../../devices/pci/slot.js';
import {virtualSlot, type Sriov} from '../../devices/pci/sriov.js';
import type {HostReader} from '../../host/host.js';
import {runState} from '../../host/paths.js';
import type {UnknownKey, WantedFile} from '../desired.js';
import {isNodeAccessKey, parseNodeAccess, printNodeAccess, type NodeAccess} from '../records/node-access.js';
import {
  badRecord,
  checkName,
  isNamedFor,
  parseCard,
  parseIdentity,
  parseRecordedDriver,
  printIdentity,
  readFolder,
  readLines,
  readRecordText,
  recordName,
  requireValue,
  type RecordFolder,
} from '../records/record.js';

/** The VFs that a PF shall have. */
export interface VirtualFunctions {
  /** How many; at least 1. */
  readonly count: number;
  /** Whether the kernel offers them to drivers. Never if one of them has a driver of its own. */
  readonly autoprobe: boolean;
  /** The driver of all VFs that are not in {@link drivers}; undefined for none. */
  readonly driver?: Driver;
  /** The drivers of single VFs, by number. */
  readonly drivers: ReadonlyMap<number, Driver>;
}

/** The content of a record. */
export interface SriovContent extends VirtualFunctions {
  readonly slot: Slot;
  readonly id: DeviceId;
  /** What identifies the card in addition to {@link id}. */
  readonly identity: Identity;
  /** Who may open the nodes of VFs on userspace drivers; absent for root alone. */
  readonly access?: NodeAccess;
  /** Keys written by a newer version: kept unchanged, and reported. */
  readonly unknown: readonly UnknownKey[];
}

/** The record of a PF. */
export interface SriovRecord extends SriovContent, WantedFile {
  readonly kind: 'sriov';
  readonly unknown: readonly UnknownKey[];
}

const keys = {
  count: 'PEARASYS_VFS',
  autoprobe: 'PEARASYS_VF_AUTOPROBE',
  driver: 'PEARASYS_VF_DRIVER',
  drivers: 'PEARASYS_VF_DRIVERS',
} as const;

/** Keys that mean something else in the record of a claim, so that they are a mistake here. */
const foreign = /^PEARASYS_(?:DRIVER|TOGETHER|SET_.*)$/;

/** Keys that identify the card. */
const cardKeys = /^PEARASYS_(?:SLOT|ID|SUBSYSTEM|PATH|SERIAL)$/;

/** The most that a 16-bit register of the device can say. */
export const mostVirtualFunctions = 0xffff;

/** The folder of the records. */
export function sriovFolder(layout: Layout): string {
  return `${layout.config}/sriov`;
}

/** The path of a record. */
export function sriovPath(layout: Layout, card: Pick<SriovContent, 'slot' | 'id'>): string {
  return `${sriovFolder(layout)}/${recordName(card)}`;
}

/** The driver of a VF; undefined if it has none of its own. */
export function driverOf({driver, drivers}: VirtualFunctions, index: number): Driver | undefined {
  return drivers.get(index) ?? driver;
}

/** The drivers of all VFs, each once. */
export function driversIn(wanted: VirtualFunctions): Driver[] {
  return [...new Set(Array.from({length: wanted.count}, (_, index) => driverOf(wanted, index)))].filter(
    (driver) => driver !== undefined,
  );
}

/** The file's text. */
export function printSriov(record: SriovContent): string {
  const {slot, id, count, autoprobe, driver, drivers} = record;
  const single = [...drivers].sort(([a], [b]) => a - b).map(([index, own]) => `${index}:${own}`);
  return [
    `# Written by pearasys: the card with id ${id} in slot ${slot} gets this number of virtual functions.`,
    '# udev (60-pearasys-sriov.rules) writes it when the driver of the card has bound.',
    `# To undo: pearasys sriov unset ${slot}`,
    `PEARASYS_SLOT=${slot}`,
    `PEARASYS_ID=${id}`,
    ...printIdentity(record.identity),
    `${keys.count}=${count}`,
    `${keys.autoprobe}=${autoprobe ? 'yes' : 'no'}`,
    ...(driver === undefined ? [] : [`${keys.driver}=${driver}`]),
    ...(single.length === 0 ? [] : [`${keys.drivers}=${single.join(',')}`]),
    ...printNodeAccess(record.access),
    ...record.unknown.map(({key, value}) => `${key}=${value}`),
    '',
  ].join('\n');
}

/**
 * The record in a file. libexec/records.sh applies the same rule.
 * @param path named in the error.
 * @throws PearasysError `bad-record`
 */
export function parseSriov(path: string, text: string): SriovContent {
  const values = readLines(path, text, ['PEARASYS_SLOT', 'PEARASYS_ID', ...Object.values(keys)]);
  const misplaced = [...values.keys()].find((key) => foreign.test(key));
  if (misplaced !== undefined) throw badRecord(path, `${misplaced} is not a key of an SR-IOV record`);
  const {slot, id} = parseCard(path, values);
  if (slot === 'any')
    throw badRecord(path, 'PEARASYS_SLOT=any is invalid: a number of virtual functions is for one slot');
  const countText = requireValue(path, values, keys.count);
  const count = parseCount(countText);
  if (count === undefined)
    throw badRecord(path, `${keys.count}=${countText} is invalid: expected a number from 1 to 65535`);
  const autoprobe = values.get(keys.autoprobe) ?? 'yes';
  if (autoprobe !== 'yes' && autoprobe !== 'no')
    throw badRecord(path, `${keys.autoprobe}=${autoprobe} is invalid: expected yes or no`);
  const driver = values.get(keys.driver);
  const drivers = parseDrivers(path, values.get(keys.drivers), count);
  const access = parseNodeAccess(values, (reason) => badRecord(path, reason));
  return {
    slot,
    id,
    identity: parseIdentity(path, values),
    count,
    // A driver could take a VF before its own one is set.
    autoprobe: autoprobe === 'yes' && driver === undefined && drivers.size === 0,
    ...(driver === undefined ? {} : {driver: parseRecordedDriver(path, keys.driver, driver)}),
    drivers,
    ...(access === undefined ? {} : {access}),
    unknown: [...values]
      .filter(
        ([key]) => !Object.values<string>(keys).includes(key) && !cardKeys.test(key) && !isNodeAccessKey(key),
      )
      .map(([key, value]) => ({key, value})),
  };
}

/** A number of VFs; undefined if the text is none. */
export function parseCount(text: string): number | undefined {
  return /^[1-9]\d{0,4}$/.test(text) && Number(text) <= mostVirtualFunctions ? Number(text) : undefined;
}

/** `0:vfio-pci,3:iavf` */
function parseDrivers(path: string, text: string | undefined, count: number): Map<number, Driver> {
  const drivers = new Map<number, Driver>();
  if (text === undefined) return drivers;
  for (const word of text.split(',')) {
    const [, number, name] = /^(0|[1-9]\d{0,4}):(.+)$/.exec(word) ?? [];
    if (number === undefined || name === undefined)
      throw badRecord(path, `${keys.drivers} contains '${word}': expected NUMBER:DRIVER`);
    const index = Number(number);
    if (index >= count)
      throw badRecord(
        path,
        `${keys.drivers} names virtual function ${index}: with ${count}, the last one is ${count - 1}`,
      );
    if (drivers.has(index)) throw badRecord(path, `${keys.drivers} names virtual function ${index} twice`);
    drivers.set(index, parseRecordedDriver(path, keys.drivers, name));
  }
  return drivers;
}

/** All records of numbers of VFs. */
export function readSriovRecords(host: HostReader, layout: Layout): RecordFolder<SriovRecord> {
  return readFolder(host, sriovFolder(layout), 'sriov', (from, path): SriovRecord => {
    const content = parseSriov(path, readRecordText(from, path));
    checkName(path, content);
    return {kind: 'sriov', path, ...content};
  });
}

/** The folder of the copies of checked records, for the udev rule. libexec/early writes the same. */
export const sriovCopies = `${runState}/sriov`;

/** The folder of what the udev rule needs to claim a VF. */
export const virtualCopies = `${runState}/vfs`;

/** The path of the file with which the udev rule claims a VF. @param bridge the one above its PF. */
export function virtualCopy(slot: Slot, id: DeviceId, bridge: Slot | undefined): string {
  return `${virtualCopies}/${slot}-${sysfsIds(id).join('-')}${bridgeSuffix(bridge)}`;
}

function bridgeSuffix(bridge: Slot | undefined): string {
  return bridge === undefined ? '' : `@${bridge}`;
}

/** The line of such a file that names the record of the PF. */
export function recordLine(record: string): string {
  return `PEARASYS_SRIOV_RECORD=${record}`;
}

/** A file that the udev rule reads. */
export interface RuleFile {
  readonly path: string;
  readonly content: string;
}

/**
 * What the udev rule needs: a file for the PF, and one for each VF with a driver. The names end with the bridge above
 * the PF, which the rule can compare. Without places the rule leaves the PF to its unit.
 */
export function printCopies(
  record: SriovContent,
  {slot, id}: Pick<Device, 'slot' | 'id'>,
  sriov: Pick<Sriov, 'places' | 'virtualId'>,
  bridge: Slot | undefined,
): RuleFile[] {
  const name = recordName(record);
  const virtual = placesOf(record, slot, sriov).flatMap(({slot: own, id: virtualId, driver}) =>
    driver === undefined
      ? []
      : [
          {
            path: virtualCopy(own, virtualId, bridge),
            content: `PEARASYS_DRIVER=${driver}\nPEARASYS_PF=${slot}\n${recordLine(name)}\n`,
          },
        ],
  );
  const drivers = driversIn(record);
  const wanted = Array.from({length: record.count}, (_, index) => driverOf(record, index));
  const isReady = virtual.length === wanted.filter((driver) => driver !== undefined).length;
  const modules = drivers.filter((driver) => driver !== noDriver);
  const lines = [
    recordLine(name),
    `PEARASYS_VFS=${record.count}`,
    `PEARASYS_VF_LAST=${record.count - 1}`,
    `PEARASYS_VF_AUTOPROBE=${record.autoprobe ? '1' : '0'}`,
    ...(record.identity.serial === undefined ? [] : [`PEARASYS_SRIOV_SERIAL=${record.identity.serial}`]),
    ...(modules.length === 0 ? [] : [`PEARASYS_VF_MODULES=${modules.join(' ')}`]),
    ...(isReady ? ['PEARASYS_VF_READY=yes'] : []),
    '',
  ];
  return [
    {
      path: `${sriovCopies}/${slot}-${sysfsIds(id).join('-')}${bridgeSuffix(bridge)}`,
      content: lines.join('\n'),
    },
    ...virtual,
  ];
}

/** A VF before it exists. */
export interface VirtualPlace {
  readonly index: number;
  readonly slot: Slot;
  readonly id: DeviceId;
  readonly driver: Driver | undefined;
}

/** Where the VFs of a record will be; empty if the kernel does not tell it. */
export function placesOf(
  wanted: VirtualFunctions,
  pf: Slot,
  {places, virtualId}: Pick<Sriov, 'places' | 'virtualId'>,
): VirtualPlace[] {
  if (places === undefined || virtualId === undefined) return [];
  return Array.from({length: wanted.count}, (_, index) => ({
    index,
    slot: virtualSlot(pf, places, index),
    id: virtualId,
    driver: driverOf(wanted, index),
  })).flatMap(({slot, ...rest}) => (slot === undefined ? [] : [{slot, ...rest}]));
}

/** The existing files for the rule that belong to a PF, and to its VFs. */
export function readCopies(host: HostReader, pf: Slot): string[] {
  const own = host
    .list(sriovCopies)
    .filter((name) => isNamedFor(pf, name))
    .map((name) => `${sriovCopies}/${name}`);
  const virtual = host
    .list(virtualCopies)
    .map((name) => `${virtualCopies}/${name}`)
    .filter((path) => new RegExp(`^PEARASYS_PF=${pf}$`, 'm').test(host.readText(path) ?? ''));
  return [...own, ...virtual];
}

/** The slot in the name of a file for the udev rule. */
export function slotIn(path: string): Slot | undefined {
  return asSlot(path.slice(path.lastIndexOf('/') + 1).split('-', 1)[0] ?? '');
}

/** Whether the udev rule claims this VF for the record of its PF. */
export function isVirtualClaim(host: HostReader, slot: Slot): boolean {
  return host.list(virtualCopies).some((name) => isNamedFor(slot, name));
}
