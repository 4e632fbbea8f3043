import {posix} from 'node:path';
import {PearasysError, ExitCode} from '../../host/errors.js';
import type {HostReader} from '../../host/host.js';
import {runState} from '../../host/paths.js';
import type {Layout} from '../../config/layout.js';
import {distrust} from '../../config/trust.js';
import type {Device} from '../../devices/pci/device.js';
import {parseDriver, type Driver} from '../../devices/pci/driver.js';
import {asId, sysfsIds, type DeviceId} from '../../devices/pci/id.js';
import {isIdentity, type Identity} from '../../devices/pci/identity.js';
import {asSlot, cardOf, expectedSlot, type Slot} from '../../devices/pci/slot.js';
import {
  readDesired,
  type DesiredKind,
  type IgnoredFile,
  type UnknownKey,
  type WantedFile,
} from '../desired.js';
import {
  isSettingKey,
  parseSettings,
  printForRule,
  printSettings,
  type DeviceSettings,
} from './device-settings.js';
import {isNodeAccessKey, parseNodeAccess, printNodeAccess, type NodeAccess} from './node-access.js';

/** The content of a record. */
export interface RecordContent {
  /** The slot, or `any` for a record by id alone. */
  readonly slot: Slot | 'any';
  readonly id: DeviceId;
  readonly driver: Driver;
  /** The slots installed, and therefore switched, together, including this one. Only this slot for a single device. */
  readonly together: readonly Slot[];
  /** What identifies the card in addition to {@link id}; empty in a record of an older version. */
  readonly identity: Identity;
  /** What is set at each claim besides the driver; absent for nothing. */
  readonly settings?: DeviceSettings;
  /** Who may open its nodes; absent if only root may. */
  readonly access?: NodeAccess;
  /** Keys written by a newer version: kept unchanged, and reported. */
  readonly unknown: readonly UnknownKey[];
}

/** Where a claim comes from. */
export type RecordSource = 'record' | 'kernel-command-line' | 'credential';

/** The record of a device. */
export interface DeviceRecord extends RecordContent, WantedFile {
  readonly kind: 'record';
  /** `record` for a file of the administrator; otherwise pearasys-generator has written the record for this boot. */
  readonly source: RecordSource;
  readonly unknown: readonly UnknownKey[];
}

/** The content of the folder of records. */
export type Records = RecordFolder<DeviceRecord>;

const keys = {
  slot: 'PEARASYS_SLOT',
  id: 'PEARASYS_ID',
  driver: 'PEARASYS_DRIVER',
  together: 'PEARASYS_TOGETHER',
  subsystem: 'PEARASYS_SUBSYSTEM',
  path: 'PEARASYS_PATH',
  serial: 'PEARASYS_SERIAL',
  source: 'PEARASYS_SOURCE',
} as const;

/** The parts of an identity, each with what is expected as its value. */
const expectedParts = {
  subsystem: 'vendor:device in small letters',
  path: 'a root bus and the functions below it, as in 0000:00/1c.0/00.0',
  serial: 'pcie:, nvme: or mac: and letters, digits, colons, dots, underscores and dashes',
} as const satisfies Readonly<Record<keyof Identity, string>>;
const parts = ['subsystem', 'path', 'serial'] as const;

/** The folder of the records. */
export function recordsFolder(layout: Layout): string {
  return `${layout.config}/pci`;
}

/** The folder of the records that pearasys-generator writes for this boot. */
const bootRecordsFolder = `${runState}/pci`;

/**
 * The record's path. It contains slot, vendor and device as sysfs prints them, so that udev's test for the file is
 * the identity check of the card, without starting a process.
 */
export function recordPath(layout: Layout, record: Pick<RecordContent, 'slot' | 'id'>): string {
  return `${recordsFolder(layout)}/${recordName(record)}`;
}

/** The name of a record's file. */
export function recordName({slot, id}: Pick<RecordContent, 'slot' | 'id'>): string {
  return `${slot}-${sysfsIds(id).join('-')}`;
}

/** The file's text: `KEY=value` lines as udev(7) IMPORT{file} reads them. */
export function printRecord(record: RecordContent): string {
  const subject =
    record.slot === 'any'
      ? `each card with id ${record.id} that appears, in any slot,`
      : `the card with id ${record.id} in slot ${record.slot}`;
  const undo = record.slot === 'any' ? `--any-slot -d ${record.id}` : `-s ${record.slot}`;
  return [
    `# Written by pearasys: ${subject} gets this driver.`,
    '# udev (60-pearasys.rules) applies it at each add event. Another card in the slot is not touched.',
    `# To undo: pearasys ${undo} service uninstall`,
    `${keys.slot}=${record.slot}`,
    `${keys.id}=${record.id}`,
    `${keys.driver}=${record.driver}`,
    ...(record.together.length > 1 ? [`${keys.together}=${record.together.join(',')}`] : []),
    ...printIdentity(record.identity),
    ...printSettings(record.settings ?? []),
    ...printNodeAccess(record.access),
    ...record.unknown.map(({key, value}) => `${key}=${value}`),
    '',
  ].join('\n');
}

/** The lines of a record that identify its card. */
export function printIdentity(identity: Identity): string[] {
  return parts.flatMap((part) => (identity[part] === undefined ? [] : [`${keys[part]}=${identity[part]}`]));
}

/**
 * The folder with the drivers of checked records, for the udev rule, which can check neither the owner nor the syntax
 * of a record. The rule reads only these copies, written by libexec/early or by pearasys, and no record itself.
 */
export const checkedFolder = `${runState}/checked`;

/**
 * The path of a record's copy; undefined if it has none. It ends with the bridge above the recorded card, because the
 * rule can compare that: a card below another bridge has no copy.
 * @param bridge the bridge above the device in the slot now, see {@link readBridge}. Needed only for a card below
 *   several bridges, whose last one is behind a bus that may be renumbered.
 */
export function checkedPath(
  record: Pick<RecordContent, 'slot' | 'id' | 'identity'>,
  bridge: Slot | undefined,
): string | undefined {
  const [root, first, ...below] = record.identity.path?.split('/') ?? [];
  const path = `${checkedFolder}/${recordName(record)}`;
  if (root === undefined || first === undefined || below.length === 0) return path;
  const above = below.length === 1 ? `${root}:${first}` : bridge;
  return above === undefined ? undefined : `${path}@${above}`;
}

/** The text of the copy that the rule would read for a device; undefined if there is none. */
export function readChecked(
  host: HostReader,
  device: Pick<Device, 'slot' | 'id'>,
  bridge: Slot | undefined,
): string | undefined {
  const path = `${checkedFolder}/${recordName(device)}`;
  return (bridge === undefined ? undefined : host.readText(`${path}@${bridge}`)) ?? host.readText(path);
}

/** What a record's copy is printed from. */
type CheckedContent = Pick<RecordContent, 'slot' | 'driver' | 'identity' | 'settings'>;

/**
 * The text of the copy, as libexec/early writes it: what the rule needs of the record.
 * @param others the records in the same state of the machine; this record may be among them.
 */
export function printChecked(
  record: CheckedContent,
  others: readonly Pick<RecordContent, 'slot' | 'identity'>[],
): string {
  const {driver, settings = []} = record;
  const serial = numberOfCard(record, others) ?? record.identity.serial;
  return [
    `${keys.driver}=${driver}`,
    ...(serial === undefined ? [] : [`${keys.serial}=${serial}`]),
    ...printForRule(settings),
    '',
  ].join('\n');
}

/**
 * The PCI Express serial number of the card: a function without one is left to its unit too, which compares the card's.
 * If any function of a card has the number, the first one has it (PCI Express Base Specification, 7.9.3).
 */
function numberOfCard(
  {slot, identity}: Pick<RecordContent, 'slot' | 'identity'>,
  others: readonly Pick<RecordContent, 'slot' | 'identity'>[],
): string | undefined {
  if (slot === 'any') return undefined;
  const before = others.filter(
    (other) => other.slot !== 'any' && cardOf(other.slot) === cardOf(slot) && other.slot < slot,
  );
  return [identity.serial, ...before.map((other) => other.identity.serial)].find(
    (serial) => serial?.startsWith('pcie:') === true,
  );
}

/** The limits of a record in lines and bytes; libexec/records.sh has the same. */
const mostLines = 100;
const mostBytes = 64 * 1024;

/**
 * The record in a file.
 * @param path named in the error.
 * @throws PearasysError `bad-record`: which line is invalid and what was expected.
 */
export function parseRecord(path: string, text: string): RecordContent {
  const values = readLines(path, text, Object.values(keys));
  const unknown = [...values]
    .filter(
      ([key]) => !Object.values<string>(keys).includes(key) && !isSettingKey(key) && !isNodeAccessKey(key),
    )
    .map(([key, value]) => ({key, value}));
  const {slot, id} = parseCard(path, values);
  const driver = requireValue(path, values, keys.driver);
  const together = (values.get(keys.together)?.split(',') ?? (slot === 'any' ? [] : [slot])).map((word) => {
    const one = asSlot(word);
    if (one !== word)
      throw badRecord(
        path,
        `${keys.together} names '${word}', which is not a slot: expected ${expectedSlot(word)}`,
      );
    return one;
  });
  if (slot !== 'any' && !together.includes(slot))
    throw badRecord(path, `${keys.together} does not include ${slot} itself`);
  const settings = parseSettings(values, (reason) => badRecord(path, reason));
  const access = parseNodeAccess(values, (reason) => badRecord(path, reason));
  return {
    slot,
    id,
    driver: parseRecordedDriver(path, keys.driver, driver),
    together,
    identity: parseIdentity(path, values),
    ...(settings.length === 0 ? {} : {settings}),
    ...(access === undefined ? {} : {access}),
    unknown,
  };
}

/**
 * The keys and values of a record's file.
 * @param expected the keys that an error names.
 * @throws PearasysError `bad-record`
 */
export function readLines(path: string, text: string, expected: readonly string[]): Map<string, string> {
  const values = new Map<string, string>();
  const lines = text.split('\n');
  if (lines.length > mostLines) throw badRecord(path, `it has more than ${mostLines} lines`);
  for (const [index, line] of lines.entries()) {
    if (line === '' || line.startsWith('#')) continue;
    // A key without the prefix PEARASYS_ could have a meaning for udev, which imports all keys.
    const match = /^(PEARASYS_[A-Z0-9_]+)=([ -~]*)$/.exec(line);
    if (match === null)
      throw badRecord(
        path,
        `line ${index + 1} is '${line}', expected KEY=VALUE with one of the keys ${expected.join(', ')}`,
      );
    const [, key = '', value = ''] = match;
    if (values.has(key)) throw badRecord(path, `line ${index + 1} repeats ${key}`);
    values.set(key, value);
  }
  return values;
}

/** @throws PearasysError `bad-record` if the key is missing. */
export function requireValue(path: string, values: ReadonlyMap<string, string>, key: string): string {
  const value = values.get(key);
  if (value === undefined) throw badRecord(path, `the line ${key}= is missing`);
  return value;
}

/** The slot and id in a record. @throws PearasysError `bad-record` */
export function parseCard(
  path: string,
  values: ReadonlyMap<string, string>,
): Pick<RecordContent, 'slot' | 'id'> {
  const [slotText, idText] = [requireValue(path, values, keys.slot), requireValue(path, values, keys.id)];
  const slot = slotText === 'any' ? slotText : asSlot(slotText);
  const id = asId(idText);
  // udev and the shell compare texts: to them a shortened slot or id is a different one.
  if (slot !== slotText)
    throw badRecord(path, `${keys.slot}=${slotText} is not a slot: expected ${expectedSlot(slotText)}`);
  if (id !== idText)
    throw badRecord(path, `${keys.id}=${idText} is not an id: expected vendor:device in small letters`);
  return {slot, id};
}

/** The driver in a line of a record. @throws PearasysError `bad-record` */
export function parseRecordedDriver(path: string, key: string, text: string): Driver {
  try {
    return parseDriver(text);
  } catch (error) {
    throw badRecord(path, `${key}=${text} is not a driver's name`, error);
  }
}

/** What identifies the card of a record. @throws PearasysError `bad-record` */
export function parseIdentity(path: string, values: ReadonlyMap<string, string>): Identity {
  const identity: {-readonly [Part in keyof Identity]: Identity[Part]} = {};
  for (const part of parts) {
    const value = values.get(keys[part]);
    if (value === undefined) continue;
    if (!isIdentity(part, value))
      throw badRecord(path, `${keys[part]}=${value} is invalid: expected ${expectedParts[part]}`);
    identity[part] = value;
  }
  return identity;
}

/**
 * All records, and the files in their folder that are invalid or cannot be trusted. A record of the administrator takes
 * precedence over one that was written for this boot.
 */
export function readRecords(host: HostReader, layout: Layout): Records {
  const configured = readFolder(host, recordsFolder(layout), 'record', readRecord);
  const named = new Set(
    [...configured.records, ...configured.problems].map(({path}) => posix.basename(path)),
  );
  const forBoot = readFolder(host, bootRecordsFolder, 'record', readRecord, (name) => !named.has(name));
  return {
    records: [...configured.records, ...forBoot.records],
    problems: [...configured.problems, ...forBoot.problems],
    folderProblem: configured.folderProblem,
  };
}

/** A folder of records of any kind. */
export interface RecordFolder<One extends WantedFile> {
  readonly records: readonly One[];
  /** Files that are ignored and not changed. */
  readonly problems: readonly IgnoredFile[];
  /** Why the whole folder is ignored; undefined if it can be trusted. */
  readonly folderProblem: IgnoredFile | undefined;
}

/**
 * Reads a folder of records.
 * @param read reads one of its files; throws a PearasysError for an invalid one.
 * @param wanted which names are read.
 */
export function readFolder<One extends WantedFile>(
  host: HostReader,
  folder: string,
  kind: DesiredKind,
  read: (host: HostReader, path: string) => One,
  wanted: (name: string) => boolean = () => true,
): RecordFolder<One> {
  const records: One[] = [];
  const problems: IgnoredFile[] = [];
  const reason = distrust(host, folder, 'directory');
  for (const name of host.list(folder).filter(wanted)) {
    const path = `${folder}/${name}`;
    const file = readDesired<One>({kind, path}, reason ?? distrust(host, path, 'file'), () =>
      read(host, path),
    );
    if (file.reason !== undefined) problems.push(file);
    else records.push(file);
  }
  return {
    records,
    problems,
    folderProblem: reason === undefined ? undefined : {kind, path: folder, reason},
  };
}

/** Whether the file's name is that of a record for this slot. The file need not be readable. */
export function isNamedFor(slot: Slot, path: string): boolean {
  return path.slice(path.lastIndexOf('/') + 1).startsWith(`${slot}-`);
}

/** The record for exactly this card in this slot, or the reason why its file is ignored. */
export function readRecordOf(
  host: HostReader,
  layout: Layout,
  device: Pick<Device, 'slot' | 'id'>,
): DeviceRecord | IgnoredFile | undefined {
  for (const folder of [recordsFolder(layout), bootRecordsFolder]) {
    const path = `${folder}/${recordName(device)}`;
    if (host.info(path, false) === undefined) continue;
    const untrusted = distrust(host, folder, 'directory') ?? distrust(host, path, 'file');
    return readDesired({kind: 'record', path}, untrusted, () => readRecord(host, path));
  }
  return undefined;
}

/** The text of a record's file. @throws PearasysError `bad-record` if it is too large or truncated. */
export function readRecordText(host: HostReader, path: string): string {
  const size = host.info(path)?.size ?? 0;
  if (size > mostBytes) throw badRecord(path, `it is too large; expected at most ${mostBytes / 1024} KiB`);
  const text = host.readText(path);
  if (text === undefined) throw badRecord(path, 'it was removed while it was read');
  // A complete record ends with a newline: if the text is as long as the file, the file is truncated.
  if (host.info(path)?.size === Buffer.byteLength(text))
    throw badRecord(path, 'it is truncated: its last line has no newline');
  return text;
}

/** @throws PearasysError `bad-record` if the file has the name of another card. */
export function checkName(path: string, card: Pick<RecordContent, 'slot' | 'id'>): void {
  if (recordName(card) !== posix.basename(path))
    throw badRecord(path, `its content (slot ${card.slot}, id ${card.id}) does not match its name`);
}

function readRecord(host: HostReader, path: string): DeviceRecord {
  const text = readRecordText(host, path);
  const record = parseRecord(path, text);
  checkName(path, record);
  const forBoot = posix.dirname(path) === bootRecordsFolder;
  const fromCredential = new RegExp(`^${keys.source}=credential$`, 'm').test(text);
  const source = !forBoot ? 'record' : fromCredential ? 'credential' : 'kernel-command-line';
  return {kind: 'record', path, source, ...record};
}

/** The error for a record that is ignored. */
export function badRecord(path: string, reason: string, cause?: unknown): PearasysError {
  return new PearasysError({
    code: 'bad-record',
    exitCode: ExitCode.failed,
    message: `the record ${path} is ignored`,
    details: [reason],
    hint: 'rewrite it with `pearasys service install`, or remove it',
    cause,
  });
}
