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
import {isIgnored, readDesired, type IgnoredFile, type UnknownKey, type WantedFile} from '../desired.js';
import {
  isSettingKey,
  parseSettings,
  printForRule,
  printSettings,
  type DeviceSettings,
} from './device-settings.js';

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
export interface Records {
  readonly records: readonly DeviceRecord[];
  /** Files that are ignored and not changed. */
  readonly problems: readonly IgnoredFile[];
  /** Why the whole folder is ignored; undefined if it can be trusted. */
  readonly folderProblem: IgnoredFile | undefined;
}

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
function recordsFolder(layout: Layout): string {
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

function recordName({slot, id}: Pick<RecordContent, 'slot' | 'id'>): string {
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
    ...parts.flatMap((part) =>
      record.identity[part] === undefined ? [] : [`${keys[part]}=${record.identity[part]}`],
    ),
    ...printSettings(record.settings ?? []),
    ...record.unknown.map(({key, value}) => `${key}=${value}`),
    '',
  ].join('\n');
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
        `line ${index + 1} is '${line}', expected KEY=VALUE with one of the keys ${Object.values(keys).join(', ')}`,
      );
    const [, key = '', value = ''] = match;
    if (values.has(key)) throw badRecord(path, `line ${index + 1} repeats ${key}`);
    values.set(key, value);
  }
  const unknown = [...values]
    .filter(([key]) => !Object.values<string>(keys).includes(key) && !isSettingKey(key))
    .map(([key, value]) => ({key, value}));
  const [slot, id, driver] = [keys.slot, keys.id, keys.driver].map((key) => {
    const value = values.get(key);
    if (value === undefined) throw badRecord(path, `the line ${key}= is missing`);
    return value;
  }) as [string, string, string];
  const parsedSlot = slot === 'any' ? slot : asSlot(slot);
  const parsedId = asId(id);
  // udev and the shell compare texts: to them a shortened slot or id is a different one.
  if (parsedSlot !== slot)
    throw badRecord(path, `${keys.slot}=${slot} is not a slot: expected ${expectedSlot(slot)}`);
  if (parsedId !== id)
    throw badRecord(path, `${keys.id}=${id} is not an id: expected vendor:device in small letters`);
  const together = (values.get(keys.together)?.split(',') ?? (parsedSlot === 'any' ? [] : [parsedSlot])).map(
    (word) => {
      const one = asSlot(word);
      if (one !== word)
        throw badRecord(
          path,
          `${keys.together} names '${word}', which is not a slot: expected ${expectedSlot(word)}`,
        );
      return one;
    },
  );
  if (parsedSlot !== 'any' && !together.includes(parsedSlot))
    throw badRecord(path, `${keys.together} does not include ${parsedSlot} itself`);
  let parsedDriver: Driver;
  try {
    parsedDriver = parseDriver(driver);
  } catch (error) {
    throw badRecord(path, `${keys.driver}=${driver} is not a driver's name`, error);
  }
  const settings = parseSettings(values, (reason) => badRecord(path, reason));
  return {
    slot: parsedSlot,
    id: parsedId,
    driver: parsedDriver,
    together,
    identity: parseIdentity(path, values),
    ...(settings.length === 0 ? {} : {settings}),
    unknown,
  };
}

function parseIdentity(path: string, values: ReadonlyMap<string, string>): Identity {
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
  const configured = readFolder(host, recordsFolder(layout));
  const named = new Set(
    [...configured.records, ...configured.problems].map(({path}) => posix.basename(path)),
  );
  const forBoot = readFolder(host, bootRecordsFolder, (name) => !named.has(name));
  return {
    records: [...configured.records, ...forBoot.records],
    problems: [...configured.problems, ...forBoot.problems],
    folderProblem: configured.folderProblem,
  };
}

function readFolder(
  host: HostReader,
  folder: string,
  wanted: (name: string) => boolean = () => true,
): Records {
  const records: DeviceRecord[] = [];
  const problems: IgnoredFile[] = [];
  const reason = distrust(host, folder, 'directory');
  for (const name of host.list(folder).filter(wanted)) {
    const path = `${folder}/${name}`;
    const file = readDesired({kind: 'record', path}, reason ?? distrust(host, path, 'file'), () =>
      readRecord(host, path),
    );
    if (isIgnored(file)) problems.push(file);
    else records.push(file);
  }
  return {
    records,
    problems,
    folderProblem: reason === undefined ? undefined : {kind: 'record', path: folder, reason},
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

function readRecord(host: HostReader, path: string): DeviceRecord {
  const size = host.info(path)?.size ?? 0;
  if (size > mostBytes) throw badRecord(path, `it is too large; expected at most ${mostBytes / 1024} KiB`);
  const text = host.readText(path);
  if (text === undefined) throw badRecord(path, 'it was removed while it was read');
  // A complete record ends with a newline: if the text is as long as the file, the file is truncated.
  if (host.info(path)?.size === Buffer.byteLength(text))
    throw badRecord(path, 'it is truncated: its last line has no newline');
  const record = parseRecord(path, text);
  if (recordName(record) !== posix.basename(path))
    throw badRecord(path, `its content (slot ${record.slot}, id ${record.id}) does not match its name`);
  const forBoot = posix.dirname(path) === bootRecordsFolder;
  const fromCredential = new RegExp(`^${keys.source}=credential$`, 'm').test(text);
  const source = !forBoot ? 'record' : fromCredential ? 'credential' : 'kernel-command-line';
  return {kind: 'record', path, source, ...record};
}

function badRecord(path: string, reason: string, cause?: unknown): PearasysError {
  return new PearasysError({
    code: 'bad-record',
    exitCode: ExitCode.failed,
    message: `the record ${path} is ignored`,
    details: [reason],
    hint: 'rewrite it with `pearasys service install`, or remove it',
    cause,
  });
}
