import type {HostReader} from '../../host/host.js';
import {systemdUnits, type Layout} from '../../config/layout.js';
import {devicePath, siblingsOf, type Device} from '../../devices/pci/device.js';
import type {Driver} from '../../devices/pci/driver.js';
import type {DeviceId} from '../../devices/pci/id.js';
import type {Slot} from '../../devices/pci/slot.js';
import type {UnknownKey} from '../../state/desired.js';
import {
  checkedFolder,
  isNamedFor,
  readRecords,
  recordPath,
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
import {readFileState, type FileState} from '../step.js';

/** A device that is to be claimed at each boot. */
export interface WishedClaim {
  readonly slot: Slot;
  readonly id: DeviceId;
  readonly driver: Driver;
  /** The slots that are claimed and released in one, this one included. */
  readonly together: readonly Slot[];
  /** What its record is to have besides; the keys that a record for this card has already are kept. */
  readonly unknown?: readonly UnknownKey[];
}

/** Everything the planners in service.ts decide on. */
export interface ServiceState {
  readonly layout: Layout;
  readonly records: Records;
  readonly units: readonly UnitIdentity[];
  /** Names of the units of {@link units} that are active. */
  readonly active: ReadonlySet<string>;
  /** Each file that a plan may write or remove, by path; absent for a file that is not there. */
  readonly files: ReadonlyMap<string, FileState>;
  /** Where templates in {@link systemdUnits} that are links lead to, by path. */
  readonly links: ReadonlyMap<string, string>;
  /** The links by which {@link units} are wanted, by path: for each the unit, and what the link says. */
  readonly wants: ReadonlyMap<string, WantsLink>;
  /** Whether a systemd and a udev run that answer for this host; none does for an image. */
  readonly running: boolean;
  /** Slots of the wish whose device is there now. */
  readonly present: ReadonlySet<Slot>;
  /** Names for people, by slot. */
  readonly names: ReadonlyMap<Slot, string>;
}

/** A link that systemctl(1), enable, makes: in the folder of the unit that wants this one. */
export interface WantsLink {
  readonly unit: string;
  readonly target: string;
}

/**
 * The claims of these devices on one driver. A set are the functions of a card, as each alone may be of no use; two
 * cards are two sets, so that one which is missing or in use does not keep the other.
 * @param group whether all members of an IOMMU group are a set as well.
 */
export function claimsOf(
  host: HostReader,
  devices: readonly Device[],
  driver: Driver,
  group = false,
): WishedClaim[] {
  return devices.map((device) => {
    const siblings = new Set(siblingsOf(host, device, devices).map(({slot}) => slot));
    const together = devices.filter(
      (other) =>
        other.slot === device.slot ||
        siblings.has(other.slot) ||
        (group && device.group !== undefined && other.group === device.group),
    );
    return {slot: device.slot, id: device.id, driver, together: together.map(({slot}) => slot)};
  });
}

/** The file of a unit's drop-in. Not beside a template elsewhere: systemd looks for it in its own folders only. */
export function dropInPath(unit: UnitIdentity): string {
  return `${dropInFolder(unit)}/50-pearasys.conf`;
}

/** Where systemd finds the slot's template: the file, or a link to it. */
export function templatePath(slot: Slot, folder: string = systemdUnits): string {
  return `${folder}/${templateName(slot)}`;
}

/** Where systemd finds both templates of the slot: that of its claim units, and its own, which requires these. */
export function templatePaths(slot: Slot, folder: string = systemdUnits): string[] {
  return [`${folder}/${claimTemplateName(slot)}`, templatePath(slot, folder)];
}

/** What {@link readServices} needs beside the slots. */
export interface ServiceHints extends Partial<Pick<ServiceState, 'names' | 'active'>> {
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
  const units = readUnits(host);
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
    // There is none in an image.
    ...(host.root === '/' ? host.list(checkedFolder) : [])
      .map((name) => `${checkedFolder}/${name}`)
      .filter((path) => slots.some((slot) => isNamedFor(slot, path))),
  ];
  const wants = new Map<string, WantsLink>();
  const names = new Set(units.map(unitName));
  for (const wanting of host.list(systemdUnits).filter((name) => /\.(?:wants|requires)$/.test(name)))
    for (const unit of host.list(`${systemdUnits}/${wanting}`)) {
      const path = `${systemdUnits}/${wanting}/${unit}`;
      const target = names.has(unit) ? host.readLink(path) : undefined;
      if (target !== undefined) wants.set(path, {unit, target});
    }
  const files = new Map<string, FileState>();
  for (const path of paths) {
    // What could not be put back as it was is not written over.
    const state = readFileState(host, path, !records.problems.some((problem) => problem.path === path));
    if (state !== undefined) files.set(path, state);
  }
  return {
    layout,
    records,
    units,
    active,
    files,
    links,
    wants,
    running: host.root === '/',
    present: new Set(slots.filter((slot) => host.exists(devicePath(slot)))),
    names: known,
  };
}
