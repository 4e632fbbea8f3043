import type {Layout} from '../../config/layout.js';
import {readVfioParameters} from '../../devices/pci/attributes.js';
import {readDependents} from '../../devices/pci/dependents.js';
import {
  devicePath,
  isVirtualFunction,
  readBridge,
  readDevices,
  type Device,
} from '../../devices/pci/device.js';
import type {Driver} from '../../devices/pci/driver.js';
import {readLastingIdentity, type Identity} from '../../devices/pci/identity.js';
import {findDriver, type DriverSource} from '../../devices/pci/modules.js';
import {readNoIommuMode, type NoIommuMode} from '../../devices/pci/no-iommu.js';
import type {Slot} from '../../devices/pci/slot.js';
import {lacksVirtualSpace, readLastBus, readSriov, type Sriov} from '../../devices/pci/sriov.js';
import type {HostReader} from '../../host/host.js';
import {readCards} from '../../state/records/locate.js';
import type {RecordFolder} from '../../state/records/record.js';
import {quarantinePath} from '../../state/quarantine.js';
import {readRescue, switchedOffBy, type Rescue} from '../../state/rescue.js';
import {
  driversIn,
  placesOf,
  readCopies,
  readSriovRecords,
  slotIn,
  sriovPath,
  virtualCopies,
  type SriovRecord,
  type VirtualFunctions,
} from '../../state/sriov/sriov-record.js';
import {hasUnits} from '../../systemd/unit.js';
import type {Holder} from '../../usage/holder.js';
import {readHolders} from '../../usage/holders.js';
import {readAccess, type AccessState} from '../service/access.js';
import {readFileState, type FileState} from '../step.js';
import {releasedMark} from '../switch/claim.js';

/** A physical function (PF); in an image, which has no devices, only its slot and id. */
export type PhysicalFunction = Device | Pick<Device, 'slot' | 'id'>;

/** What the planners in sriov.ts need to know of a PF. */
export interface SriovState extends CardRecords {
  readonly layout: Layout;
  readonly device: PhysicalFunction;
  /** Undefined if the device cannot have virtual functions (VFs), or is absent. */
  readonly sriov: Sriov | undefined;
  /** Whether the device is itself a VF. */
  readonly isVirtual: boolean;
  readonly identity: Identity;
  readonly bridge: Slot | undefined;
  /** The last bus number that the bridge above it passes on; undefined if it is not known. */
  readonly lastBus: number | undefined;
  /** Whether the bridge above it has no memory space for its VFs. */
  readonly lacksSpace: boolean;
  readonly records: RecordFolder<SriovRecord>;
  /** The VFs that exist now, by number. */
  readonly virtual: readonly Device[];
  /** The slots of VFs that keep the driver that they have: as in the udev rule, the record of the PF is not for them. */
  readonly exempt: ReadonlySet<Slot>;
  /** The marks of VFs that were released by hand, by slot. */
  readonly released: ReadonlyMap<Slot, FileState>;
  /** The holders of these. */
  readonly holders: readonly Holder[];
  /** The existing files that a plan may write or remove, by path. */
  readonly files: ReadonlyMap<string, FileState>;
  /** Who may open nodes now, and those of the VFs that exist. */
  readonly access: AccessState;
  /** The slots of VFs of this PF for which the udev rule has a file. */
  readonly claimed: readonly Slot[];
  /** Where each wanted driver comes from. */
  readonly sources: ReadonlyMap<Driver, DriverSource>;
  readonly noIommu: NoIommuMode;
  /** Whether vfio-pci was told to create VFs (its parameter enable_sriov). */
  readonly vfioCreates: boolean;
  /** The folders of its network interfaces, if a .link file has settings for VFs: udev applies them at an add event. */
  readonly interfaces: readonly string[];
  /** Whether udev runs for this host; false for an image. */
  readonly running: boolean;
  /** The word of the kernel command line that switches it off for this boot. */
  readonly off: string | undefined;
}

/** Reads {@link SriovState}. @param wanted the VFs that the PF shall have; undefined for none. */
export function readSriovState(
  host: HostReader,
  layout: Layout,
  device: PhysicalFunction,
  wanted: VirtualFunctions | undefined,
): SriovState {
  const {slot, id} = device;
  const isPresent = 'classCode' in device;
  const records = readSriovRecords(host, layout);
  const found = recordsFor(host, records.records, device);
  const sriov = isPresent ? readSriov(host, slot, id) : undefined;
  const virtual = sriov === undefined ? [] : readDependents(host, slot).virtual;
  const places = wanted === undefined || sriov === undefined ? [] : placesOf(wanted, slot, sriov);
  const slots = [...new Set([...virtual, ...places].map((one) => one.slot))];
  const rescue = readRescue(host);
  const drivers = wanted === undefined ? [] : driversIn(wanted);
  const copies = host.root === '/' ? readCopies(host, slot) : [];
  const files = new Map<string, FileState>();
  const paths = [sriovPath(layout, device), ...found.own.map(({path}) => path), ...copies];
  for (const path of paths) {
    const state = readFileState(host, path, !records.problems.some((problem) => problem.path === path));
    if (state !== undefined) files.set(path, state);
  }
  return {
    layout,
    device,
    sriov,
    isVirtual: isVirtualFunction(host, slot),
    identity: isPresent ? readLastingIdentity(host, device) : {},
    bridge: readBridge(host, slot),
    lastBus: readLastBus(host, slot),
    lacksSpace: lacksVirtualSpace(host, slot),
    records,
    ...found,
    virtual,
    exempt: new Set(slots.filter((one) => isExempt(host, rescue, one))),
    released: readReleased(host, slots),
    holders: readHolders(host, virtual),
    files,
    access: readAccess(
      host,
      'sriov',
      virtual.map((one) => one.slot),
    ),
    claimed: copies
      .filter((path) => path.startsWith(virtualCopies))
      .map((path) => slotIn(path))
      .filter((one) => one !== undefined),
    sources: new Map(drivers.map((driver) => [driver, findDriver(host, driver)])),
    noIommu: readNoIommuMode(host),
    vfioCreates: readVfioParameters(host).some(({name, value}) => name === 'enable_sriov' && value === 'Y'),
    interfaces: hasLinkSettings(host)
      ? host.list(devicePath(slot, 'net')).map((name) => devicePath(slot, `net/${name}`))
      : [],
    running: host.root === '/',
    off: host.root === '/' ? switchedOffBy(rescue, slot) : undefined,
  };
}

/** Whether the udev rule does not claim a VF for the record of its PF. */
export function isExempt(host: HostReader, rescue: Rescue, slot: Slot): boolean {
  return (
    hasUnits(host, slot) || switchedOffBy(rescue, slot) !== undefined || host.exists(quarantinePath(slot))
  );
}

function readReleased(host: HostReader, slots: readonly Slot[]): Map<Slot, FileState> {
  const marks = new Map<Slot, FileState>();
  for (const slot of slots) {
    const state = readFileState(host, releasedMark(slot));
    if (state !== undefined) marks.set(slot, state);
  }
  return marks;
}

/** Whether a .link file has settings for VFs, see systemd.link(5). */
function hasLinkSettings(host: HostReader): boolean {
  return ['/etc/systemd/network', '/run/systemd/network', '/usr/lib/systemd/network'].some((folder) =>
    host
      .list(folder)
      .filter((name) => name.endsWith('.link'))
      .map((name) => `${folder}/${name}`)
      .some((path) => host.info(path)?.kind === 'file' && /^\[SR-IOV\]/m.test(host.readText(path) ?? '')),
  );
}

/** The records that concern a PF. */
export interface CardRecords {
  /** The record of this card, also for the slot in which it was before. */
  readonly its: SriovRecord | undefined;
  /** All records of this card, and those for its slot of cards that are in no other one. */
  readonly own: readonly SriovRecord[];
  /** Where the card is now that the record for this slot and id is of, if it is in another slot. */
  readonly elsewhere: Slot | undefined;
}

/** Finds the records of the card in a slot, and those for the slot. */
export function recordsFor(
  host: HostReader,
  records: readonly SriovRecord[],
  device: PhysicalFunction,
): CardRecords {
  if (records.length === 0) return {its: undefined, own: [], elsewhere: undefined};
  const {slot, id} = device;
  const forSlot = records.filter((record) => record.slot === slot);
  const named = forSlot.find((record) => record.id === id);
  // A card that is absent is known only by its record's name.
  if (!('classCode' in device))
    return {
      its: named,
      own: [...(named === undefined ? [] : [named]), ...forSlot.filter((record) => record !== named)],
      elsewhere: undefined,
    };
  const {where} = readCards(host, records, readDevices(host), true);
  const replaceable = forSlot.filter((record) => [undefined, slot].includes(where.get(record)?.slot));
  const whose = records.filter((record) => where.get(record)?.slot === slot && record.id === id);
  const its = named !== undefined && whose.includes(named) ? named : whose[0];
  return {
    its,
    own: [...new Set([...(its === undefined ? [] : [its]), ...whose, ...replaceable])],
    elsewhere: named === undefined || whose.includes(named) ? undefined : where.get(named)?.slot,
  };
}
