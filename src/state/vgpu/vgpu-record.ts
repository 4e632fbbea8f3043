/** Which vGPU type a virtual function of NVIDIA's driver has. */
import type {Layout} from '../../config/layout.js';
import type {DeviceId} from '../../devices/pci/id.js';
import type {Slot} from '../../devices/pci/slot.js';
import type {HostReader} from '../../host/host.js';
import type {UnknownKey, WantedFile} from '../desired.js';
import {
  badRecord,
  checkName,
  parseCard,
  readFolder,
  readLines,
  readRecordText,
  recordName,
  requireValue,
  type RecordFolder,
} from '../records/record.js';

/** The content of a record. */
export interface VgpuContent {
  readonly slot: Slot;
  readonly id: DeviceId;
  /** The number of the type; never 0. */
  readonly type: number;
  /** Keys written by a newer version: kept unchanged, and reported. */
  readonly unknown: readonly UnknownKey[];
}

/** The record of a virtual function. */
export interface VgpuRecord extends VgpuContent, WantedFile {
  readonly kind: 'vgpu';
  readonly unknown: readonly UnknownKey[];
}

const typeKey = 'PEARASYS_VGPU_TYPE';
const knownKeys: readonly string[] = ['PEARASYS_SLOT', 'PEARASYS_ID', typeKey];

/** The folder of the records. */
export function vgpuFolder(layout: Layout): string {
  return `${layout.config}/vgpu`;
}

/** The path of a record. It contains slot, vendor and device as sysfs prints them, for the udev rule's test. */
export function vgpuPath(layout: Layout, card: Pick<VgpuContent, 'slot' | 'id'>): string {
  return `${vgpuFolder(layout)}/${recordName(card)}`;
}

/** The file's text. */
export function printVgpu({slot, id, type, unknown}: VgpuContent): string {
  return [
    `# Written by pearasys: the virtual function with id ${id} in slot ${slot} gets this vGPU type.`,
    '# udev (60-pearasys-vgpu.rules) starts its unit, which sets the type.',
    `# To undo: pearasys vgpu set ${slot} 0`,
    `PEARASYS_SLOT=${slot}`,
    `PEARASYS_ID=${id}`,
    `${typeKey}=${type}`,
    ...unknown.map(({key, value}) => `${key}=${value}`),
    '',
  ].join('\n');
}

/**
 * The record in a file.
 * @param path named in the error.
 * @throws PearasysError `bad-record`
 */
export function parseVgpu(path: string, text: string): VgpuContent {
  const values = readLines(path, text, knownKeys);
  const {slot, id} = parseCard(path, values);
  if (slot === 'any') throw badRecord(path, 'PEARASYS_SLOT=any is invalid: a vGPU type is for one slot');
  const type = requireValue(path, values, typeKey);
  if (!/^[1-9]\d{0,8}$/.test(type))
    throw badRecord(path, `${typeKey}=${type} is invalid: expected the number of a type`);
  const unknown = [...values]
    .filter(([key]) => !knownKeys.includes(key))
    .map(([key, value]) => ({key, value}));
  return {slot, id, type: Number(type), unknown};
}

/** All records, and the files in their folder that are ignored. */
export function readVgpuRecords(host: HostReader, layout: Layout): RecordFolder<VgpuRecord> {
  return readFolder(host, vgpuFolder(layout), 'vgpu', readRecord);
}

function readRecord(host: HostReader, path: string): VgpuRecord {
  const content = parseVgpu(path, readRecordText(host, path));
  checkName(path, content);
  return {kind: 'vgpu', path, ...content};
}
