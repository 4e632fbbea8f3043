import type {HostReader} from '../../host/host.js';
import {draftFolder} from '../../host/paths.js';
import {systemdUnits, type Layout} from '../../config/layout.js';
import {devicePath, readBridge, siblingsOf, type Device} from '../../devices/pci/device.js';
import type {Driver} from '../../devices/pci/driver.js';
import type {DeviceId} from '../../devices/pci/id.js';
import {readLastingIdentity, type Identity} from '../../devices/pci/identity.js';
import type {Slot} from '../../devices/pci/slot.js';
import type {UnknownKey} from '../../state/desired.js';
import type {SettingChange} from '../../state/records/device-settings.js';
import type {NodeAccessChange} from '../../state/records/node-access.js';
import {
  checkedFolder,
  checkedPath,
  isNamedFor,
  readRecords,
  recordPath,
  recordsFolder,
  type RecordContent,
  type Records,
} from '../../state/records/record.js';
import {
  claimTemplateName,
  dropInFolder,
  readUnits,
  templateName,
  unitName,
  type UnitIdentity,
} from '../../systemd/unit.js';
import {readInitramfs} from '../../state/initramfs/generator.js';
import {readFileState, type FileState, type Step} from '../step.js';
import {grantsOf, readAccess, type AccessState} from './access.js';
import {readClaimList, type ClaimListState} from './claim-list.js';

/** A device to claim at each boot. */
export interface RequestedClaim {
  readonly slot: Slot;
  readonly id: DeviceId;
  readonly driver: Driver;
  /** The slots that are claimed and released together, including this one. */
  readonly together: readonly Slot[];
  /** Changes of the settings that an existing record for this card has. */
  readonly changes?: readonly SettingChange[];
  /** A change of who may open its nodes. */
  readonly accessChange?: NodeAccessChange | undefined;
  /** What identifies the card; undefined if there is no device to read it from. */
  readonly identity?: Identity;
  /** Additional keys of its record. The keys that an existing record for this card has are kept. */
  readonly unknown?: readonly UnknownKey[];
}

/** The state that the planners in service.ts use. */
export interface ServiceState {
  readonly layout: Layout;
  readonly records: Records;
  readonly units: readonly UnitIdentity[];
  /** Names of the units of {@link units} that are active. */
  readonly active: ReadonlySet<string>;
  /** Each existing file that a plan may write or remove, by path. */
  readonly files: ReadonlyMap<string, FileState>;
  /** The targets of templates in {@link systemdUnits} that are links, by path. */
  readonly links: ReadonlyMap<string, string>;
  /** The links by which {@link units} are wanted, by path: the unit and the target of each link. */
  readonly wants: ReadonlyMap<string, WantsLink>;
  /** The folders in which a run left unfinished files: after a power cut, no note in /run lists them. */
  readonly untidy: readonly string[];
  /** The list of claims for the initramfs. */
  readonly claimList: ClaimListState;
  /** The rules that give nodes to users. */
  readonly access: AccessState;
  /** Whether systemd and udev run for this host; false for an image. */
  readonly running: boolean;
  /** The requested slots whose device is present. */
  readonly present: ReadonlySet<Slot>;
  /** The bridges above the requested slots. */
  readonly bridges: ReadonlyMap<Slot, Slot>;
  /** The device names that are shown to users, by slot. */
  readonly names: ReadonlyMap<Slot, string>;
}

/** A link that systemctl(1), enable, creates in the folder of the unit that wants this one. */
export interface WantsLink {
  readonly unit: string;
  readonly target: string;
}

/**
 * The claims of these devices on one driver. The functions of a card are a set, because one function alone may be of no
 * use. Two cards are two sets, so that a missing or used card does not block the other.
 * @param group whether all members of an IOMMU group are a set, too.
 */
export function claimsOf(
  host: HostReader,
  devices: readonly Device[],
  driver: Driver,
  group = false,
): RequestedClaim[] {
  return devices.map((device) => {
    const siblings = new Set(siblingsOf(host, device, devices).map(({slot}) => slot));
    const together = devices.filter(
      (other) =>
        other.slot === device.slot ||
        siblings.has(other.slot) ||
        (group && device.group !== undefined && other.group === device.group),
    );
    return {
      slot: device.slot,
      id: device.id,
      driver,
      together: together.map(({slot}) => slot),
      identity: readLastingIdentity(host, device),
    };
  });
}

/** The path of a unit's drop-in. Never in another folder of templates: systemd searches only its own folders for it. */
export function dropInPath(unit: UnitIdentity): string {
  return `${dropInFolder(unit)}/50-pearasys.conf`;
}

/** The path at which systemd finds the slot's template: a file, or a link to it. */
export function templatePath(slot: Slot, folder: string = systemdUnits): string {
  return `${folder}/${templateName(slot)}`;
}

/** The paths at which systemd finds the slot's templates: that of its claim units, and its own, which requires them. */
export function templatePaths(slot: Slot, folder: string = systemdUnits): string[] {
  return [`${folder}/${claimTemplateName(slot)}`, templatePath(slot, folder)];
}

/** The existing copies of a record for the rule, also of what it was before. */
export function checkedOf(
  record: Pick<RecordContent, 'slot' | 'id'>,
  files: ServiceState['files'],
): string[] {
  const plain = checkedPath({...record, identity: {}}, undefined) ?? '';
  return [...files.keys()].filter((path) => path === plain || path.startsWith(`${plain}@`));
}

/** What {@link readServices} needs in addition to the slots. */
interface ServiceHints extends Partial<Pick<ServiceState, 'names' | 'active'>> {
  /** The folder for the templates. */
  readonly folder?: string;
}

/** Reads what the planners in service.ts need to know about these slots. */
export function readServices(
  host: HostReader,
  layout: Layout,
  slots: readonly Slot[],
  {names: known = new Map(), active = new Set(), folder = systemdUnits}: ServiceHints = {},
): ServiceState {
  const records = readRecords(host, layout);
  // Those of pearasys-generator go when their slot has a unit here: then it writes none.
  const units = readUnits(host, [systemdUnits]);
  const templates = slots.flatMap((slot) => templatePaths(slot));
  const links = new Map<string, string>();
  for (const path of templates) {
    const target = host.readLink(path);
    if (target !== undefined) links.set(path, target);
  }
  const paths = [
    ...records.records.map((record) => recordPath(layout, record)),
    ...records.problems.map(({path}) => path),
    ...templates.filter((path) => !links.has(path)),
    ...links.values(),
    ...slots.flatMap((slot) => templatePaths(slot, folder)).filter((path) => !links.has(path)),
    ...units.map(dropInPath),
    // An image has no such folder.
    ...(host.root === '/' ? host.list(checkedFolder) : [])
      .map((name) => `${checkedFolder}/${name}`)
      .filter((path) => slots.some((slot) => isNamedFor(slot, path))),
  ];
  const wants = new Map<string, WantsLink>();
  const names = new Set(units.map(unitName));
  const wanting = host
    .list(systemdUnits)
    .filter((name) => /\.(?:wants|requires)$/.test(name))
    .map((name) => `${systemdUnits}/${name}`);
  for (const place of wanting)
    for (const unit of host.list(place)) {
      const path = `${place}/${unit}`;
      const target = names.has(unit) ? host.readLink(path) : undefined;
      if (target !== undefined) wants.set(path, {unit, target});
    }
  const files = new Map<string, FileState>();
  for (const path of paths) {
    // A file that could not be restored exactly is not overwritten.
    const state = readFileState(host, path, !records.problems.some((problem) => problem.path === path));
    if (state !== undefined) files.set(path, state);
  }
  const bridges = new Map<Slot, Slot>();
  for (const slot of slots) {
    const bridge = readBridge(host, slot);
    if (bridge !== undefined) bridges.set(slot, bridge);
  }
  return {
    layout,
    records,
    units,
    active,
    files,
    links,
    wants,
    untidy: [
      ...[layout.config, recordsFolder(layout), systemdUnits, ...wanting],
      ...units.map((unit) => dropInFolder(unit)),
    ].filter((place) => host.exists(`${place}/${draftFolder}`)),
    claimList: readClaimList(host, layout, readInitramfs(host)),
    access: readAccess(host, 'records', [...slots, ...grantsOf(records.records).map(({slot}) => slot)]),
    running: host.root === '/',
    present: new Set(slots.filter((slot) => host.exists(devicePath(slot)))),
    bridges,
    names: known,
  };
}

/** Removes what is left of unfinished files. */
export function tidy({untidy}: ServiceState): Step[] {
  return untidy.map((folder) => ({kind: 'tidy-folder', folder, prune: 0, undo: []}));
}
