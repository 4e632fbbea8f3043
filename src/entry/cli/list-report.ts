import {posix} from 'node:path';
import type {Layout} from '../../config/layout.js';
import {readParentNames} from '../../devices/mdev/parent.js';
import {readDevices, type Device} from '../../devices/pci/device.js';
import {asSlot} from '../../devices/pci/slot.js';
import type {FileError} from '../../host/errors.js';
import type {Host} from '../../host/host.js';
import {readSurroundings, reportDevice, type DeviceReport, type Surroundings} from './device-report.js';
import type {MdevInventory} from './mdev-inventory.js';
import type {MdevReport, ParentReport} from './mdev-report.js';

/** What `pearasys list --json` prints. */
export interface ListResult {
  readonly devices: readonly DeviceReport[];
  /** Record files that are ignored, and devices that cannot be read, with the reasons. */
  readonly problems: readonly {readonly path: string; readonly reason: string}[];
  /** Records whose card is not in its slot; they have no effect. */
  readonly missing: readonly MissingCard[];
  /** The parents of mediated devices, PCI functions and others; with filters only those among the devices. */
  readonly parents: readonly ParentReport[];
  /** The mediated devices of these parents. */
  readonly mdevs: readonly MdevReport[];
}

/** A recorded card that is not in its slot. */
export interface MissingCard {
  readonly slot: string;
  readonly id: string;
  /** The slot in which it is now; if that is not certain, those in which it may be, except those with their own record. */
  readonly elsewhere: readonly string[];
}

/** What is read for a list of devices. */
interface DeviceList {
  readonly devices: readonly Device[];
  readonly surroundings: Surroundings;
  /** The mediated devices and their parents; undefined if there are none. */
  readonly inventory: MdevInventory | undefined;
  /** Devices that cannot be read. */
  readonly unreadable: readonly FileError[];
  readonly missing: readonly MissingCard[];
}

/** Reads the devices. @param wanted which of them are listed; undefined for all. */
export async function readList(
  host: Host,
  layout: Layout,
  wanted?: (device: Device) => boolean,
): Promise<DeviceList> {
  const unreadable: FileError[] = [];
  const all = readDevices(host, (error) => unreadable.push(error));
  const devices = wanted === undefined ? all : all.filter(wanted);
  const surroundings = await readSurroundings(host, layout, devices, {
    complete: devices.length === all.length,
  });
  const inventory = await readMdevs(host, wanted === undefined ? undefined : devices);
  return {devices, surroundings, inventory, unreadable, missing: missingCards(surroundings)};
}

/** What `--json` prints of it. */
export function listResult({devices, surroundings, inventory, unreadable, missing}: DeviceList): ListResult {
  return {
    // Only on request: for thousands of devices they take time, and lines do not need them.
    get devices() {
      return devices.map((device) => reportDevice(device, surroundings));
    },
    problems: [
      ...surroundings.problems.map(({path, reason}) => ({path, reason})),
      ...unreadable.map(({path, message}) => ({path: posix.dirname(path), reason: message})),
    ],
    missing,
    parents: inventory?.parents ?? [],
    mdevs: inventory?.mdevs ?? [],
  };
}

/**
 * The parents and mediated devices; undefined on a machine without any, which costs reading one folder.
 * @param chosen the devices to which parents must belong; undefined for all parents.
 */
async function readMdevs(
  host: Host,
  chosen: readonly Device[] | undefined,
): Promise<MdevInventory | undefined> {
  if (readParentNames(host).length === 0) return undefined;
  const {readInventory} = await import('./mdev-inventory.js');
  const slots = chosen === undefined ? undefined : new Set(chosen.map(({slot}) => slot));
  return await readInventory(host, (parent) => {
    const slot = asSlot(parent);
    return slots === undefined || (slot !== undefined && slots.has(slot));
  });
}

/** Records whose slot is empty or has another card. */
function missingCards({records, cards}: Pick<Surroundings, 'records' | 'cards'>): MissingCard[] {
  return [...cards.where].flatMap(([record, {kind, slot, candidates}]) => {
    if (kind === 'matches' || kind === 'superseded') return [];
    const elsewhere = slot === undefined ? candidates.filter((one) => !records.has(one)) : [slot];
    return [{slot: record.slot, id: record.id, elsewhere}];
  });
}
