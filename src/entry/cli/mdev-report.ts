import type {Host, HostReader} from '../../host/host.js';
import {
  readDefinitions,
  type Attribute,
  type DefinitionFilter,
  type Definitions,
} from '../../state/definitions/definition.js';
import type {UnknownKey} from '../../state/desired.js';
import {readHoldersOf} from '../../usage/mdev-users.js';
import {readMdev, readMdevs, readMdevUse, type Mdev} from '../../devices/mdev/mdev.js';
import type {Parent} from '../../devices/mdev/parent.js';
import type {Uuid} from '../../devices/mdev/uuid.js';
import type {NodeUser} from '../../usage/holder.js';
import {adviseOnNodeUser, describeNodeUser} from '../../usage/words.js';
import {mdevUnit, readActiveStates} from '../../systemd/unit.js';

/** A type as `--json` prints it. */
export interface TypeReport {
  readonly type: string;
  /** How many more can be created now; null if the parent does not say. */
  readonly available: number | null;
  /** `vfio-pci`, `vfio-ccw`, `vfio-ap`; null if the driver does not say. */
  readonly deviceApi: string | null;
  /** Its name for people. */
  readonly name: string | null;
  readonly description: string | null;
}

/** A parent as `--json` prints it. */
export interface ParentReport {
  readonly parent: string;
  /** The PCI function that it is. */
  readonly slot: string | null;
  /** False while its types are not visible because it is still registering. */
  readonly registered: boolean;
  readonly types: readonly TypeReport[];
}

/** A process that has a mediated device open, as `--json` prints it. */
export interface MdevHolderReport {
  readonly pid: number;
  readonly command: string;
  readonly unit: string | null;
  readonly nodes: readonly string[];
  readonly text: string;
  readonly advice: string;
}

/** A mediated device, or one that is only defined, as `--json` prints it. One for each parent of a UUID. */
export interface MdevReport {
  readonly uuid: string;
  readonly parent: string;
  /** The type of the device, or without one of the definition. Null while the kernel does not show it yet. */
  readonly type: string | null;
  /** Whether the device exists. */
  readonly active: boolean;
  /** Its definition on this parent; null without a readable one. */
  readonly definition: DefinitionReport | null;
  readonly driver: string | null;
  /** IOMMU group. */
  readonly group: number | null;
  /** systemd's name of the state of its unit, `mdev@<uuid>.service`; null if systemd is not running. */
  readonly unit: string | null;
  readonly holders: readonly MdevHolderReport[];
}

/** The content of a definition. */
export interface DefinitionReport {
  readonly type: string;
  readonly start: 'auto' | 'manual';
  readonly attributes: readonly Attribute[];
  /** What the file has that this version does not know. */
  readonly unknown: readonly UnknownKey[];
}

/** A file among the definitions that is not one; it is ignored and not changed. */
export interface BrokenReport {
  readonly path: string;
  readonly parent: string;
  readonly uuid: string | null;
  readonly reason: string;
}

/** Mediated devices and definitions. */
export interface MdevReports {
  /** In the order of their parents and UUIDs. */
  readonly mdevs: readonly MdevReport[];
  readonly broken: readonly BrokenReport[];
}

/** One parent's report. */
export function reportParent({name, slot, registered, types}: Parent): ParentReport {
  return {
    parent: name,
    slot: slot ?? null,
    registered,
    types: types.map((type) => ({
      type: type.name,
      available: type.available ?? null,
      deviceApi: type.deviceApi ?? null,
      name: type.title ?? null,
      description: type.description?.trimEnd() ?? null,
    })),
  };
}

/** Reads the matching mediated devices and definitions, and their reports. */
export async function readMdevReports(host: Host, filter: DefinitionFilter = {}): Promise<MdevReports> {
  const active = readMatching(host, filter);
  const definitions = readDefinitions(host, filter);
  const uuids = [...new Set([...active, ...definitions.definitions].map(({uuid}) => uuid))];
  const holders = readHoldersOf(
    host,
    active.map(({uuid}) => uuid),
  );
  const units = await readActiveStates(host, uuids.map(mdevUnit));
  return {
    mdevs: join(active, definitions).map((one) => {
      const {driver, group} = one.active ? readMdevUse(host, one.uuid) : {};
      return {
        ...one,
        driver: driver ?? null,
        group: group ?? null,
        unit: units.get(mdevUnit(one.uuid)) ?? null,
        holders: one.active ? (holders.get(one.uuid) ?? []).map(reportHolder) : [],
      };
    }),
    broken: definitions.broken.map(({path, parent, uuid = null, reason}) => ({path, parent, uuid, reason})),
  };
}

function readMatching(host: HostReader, {uuid, parent}: DefinitionFilter): Mdev[] {
  const one = uuid === undefined ? undefined : readMdev(host, uuid);
  const all = uuid === undefined ? readMdevs(host) : one === undefined ? [] : [one];
  return all.filter((mdev) => parent === undefined || mdev.parent === parent);
}

/** The report of a device without further look-ups. */
type Joined = Pick<MdevReport, 'parent' | 'type' | 'active' | 'definition'> & {readonly uuid: Uuid};

function join(active: readonly Mdev[], {definitions}: Definitions): Joined[] {
  const found = new Map<string, Joined>();
  for (const {uuid, parent, type} of active)
    found.set(`${parent}/${uuid}`, {uuid, parent, type: type ?? null, active: true, definition: null});
  for (const {uuid, parent, type, start, attributes, unknown} of definitions) {
    const known = found.get(`${parent}/${uuid}`) ?? {uuid, parent, type, active: false};
    found.set(`${parent}/${uuid}`, {...known, definition: {type, start, attributes, unknown}});
  }
  return [...found.keys()].sort().flatMap((key) => found.get(key) ?? []);
}

function reportHolder(user: NodeUser): MdevHolderReport {
  const {pid, command, unit = null, nodes} = user;
  return {pid, command, unit, nodes, text: describeNodeUser(user), advice: adviseOnNodeUser(user)};
}
