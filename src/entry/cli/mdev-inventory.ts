import type {Host} from '../../host/host.js';
import {readParents} from '../../devices/mdev/parent.js';
import type {ParentName} from '../../devices/mdev/mdev-name.js';
import {readMdevReports, reportParent, type MdevReport, type ParentReport} from './mdev-report.js';
import type {Column} from './table.js';

/** The parents and existing mediated devices of a machine, which `list` and `show` print in addition to PCI devices. */
export interface MdevInventory {
  readonly parents: readonly ParentReport[];
  /** The existing ones; `pearasys mdev list --defined` lists definitions. */
  readonly mdevs: readonly MdevReport[];
}

/** A machine without parents. */
export const noMdevs: MdevInventory = {parents: [], mdevs: []};

/**
 * Reads the parents and their mediated devices.
 * @param isWanted selects parents; devices of others are omitted too.
 */
export async function readInventory(
  host: Host,
  isWanted: (parent: ParentName) => boolean = () => true,
): Promise<MdevInventory> {
  const parents = readParents(host).filter(({name}) => isWanted(name));
  const names = new Set<string>(parents.map(({name}) => name));
  const {mdevs} = await readMdevReports(host);
  return {
    parents: parents.map(reportParent),
    mdevs: mdevs.filter(({active, parent}) => active && names.has(parent)),
  };
}

/**
 * The stable lines for programs, with the fields of a PCI device's line: a parent with its types and how many devices
 * of each are available, a mediated device with its parent and type.
 */
export function inventoryLines({parents, mdevs}: MdevInventory): string {
  const line = (...fields: (string | number | null)[]) =>
    `${fields.map((field) => (field === null || field === '' ? '-' : field)).join('\t')}\n`;
  return [
    ...parents.map(({parent, types}) =>
      line(parent, null, 'mdev-parent', ...Array<null>(7).fill(null), types.map(typeWord).join(','), null),
    ),
    ...mdevs.map(({uuid, type, driver, group, definition, unit, holders, parent}) =>
      line(
        uuid,
        type,
        'mdev',
        driver,
        null,
        group,
        null,
        definition?.start ?? null,
        unit,
        holders.map(({pid, command}) => `process:${command.replaceAll(/[\s,]/g, '_')}[${pid}]`).join(','),
        parent,
        null,
      ),
    ),
  ].join('');
}

/** The tables for people: the types of the parents, and the mediated devices. */
export function inventoryTables({
  parents,
  mdevs,
}: MdevInventory): {readonly columns: readonly Column[]; readonly rows: readonly (readonly string[])[]}[] {
  const types = parents.flatMap(({parent, types: all}) =>
    all.map(({type, available, deviceApi, name}) => [
      parent,
      type,
      String(available ?? '-'),
      deviceApi ?? '-',
      name ?? '-',
    ]),
  );
  const devices = mdevs.map(({uuid, parent, type, driver, group, definition, holders}) => [
    uuid,
    parent,
    type ?? '-',
    driver ?? '-',
    String(group ?? '-'),
    definition?.start ?? '-',
    holders.map(({pid, command}) => `${command}[${pid}]`).join(' '),
  ]);
  return [
    {
      columns: [
        {head: 'PARENT'},
        {head: 'TYPE', shrinks: true},
        {head: 'LEFT'},
        {head: 'API'},
        {head: 'NAME', shrinks: true},
      ],
      rows: types,
    },
    {
      columns: [
        {head: 'MEDIATED DEVICE'},
        {head: 'PARENT'},
        {head: 'TYPE', shrinks: true},
        {head: 'DRIVER', shrinks: true},
        {head: 'GROUP'},
        {head: 'DEFINED'},
        {head: 'HELD BY', shrinks: true},
      ],
      rows: devices,
    },
  ].filter(({rows}) => rows.length > 0);
}

/** A parent for people, as `show` prints it: one fact per line. */
export function printParent({parent, registered, types}: ParentReport, mdevs: readonly MdevReport[]): string {
  const own = mdevs.filter((mdev) => mdev.parent === parent);
  return [
    `${parent} parent of mediated devices`,
    ...facts('types', [
      ...(registered ? [] : ['not visible yet: the parent is still registering']),
      ...types.map(
        ({type, available, deviceApi, name}) =>
          `${type}: ${available ?? '?'} left${deviceApi === null ? '' : `, ${deviceApi}`}${name === null ? '' : `, ${name}`}`,
      ),
    ]),
    ...facts(
      'devices',
      own.map(({uuid, type}) => `${uuid} ${type ?? '?'}`),
    ),
  ].join('\n');
}

/** A mediated device for people, as `show` prints it: one fact per line. */
export function printMdev(mdev: MdevReport): string {
  const {uuid, parent, type, active, definition, driver, group, unit, holders} = mdev;
  const attributes = definition?.attributes ?? [];
  return [
    `${uuid} ${active ? 'mediated device' : 'mediated device, defined but not active'}`,
    ...facts('parent', [parent]),
    ...facts('type', [type ?? 'not visible yet']),
    ...facts('driver', active ? [driver ?? 'none'] : []),
    ...facts('group', group === null ? [] : [String(group)]),
    ...facts('defined', [definition === null ? 'no' : `${definition.start}${other(definition.type, type)}`]),
    ...facts(
      'attributes',
      attributes.map(({name, value}) => `${name}=${value}`),
    ),
    ...facts('unit', unit === null ? [] : [`mdev@${uuid}.service (${unit})`]),
    ...facts(
      'held by',
      holders.flatMap(({text, advice}) => [text, `  to end it: ${advice}`]),
    ),
  ].join('\n');
}

function other(defined: string, type: string | null): string {
  return type === null || defined === type ? '' : `, as ${defined}`;
}

function facts(name: string, values: readonly string[]): string[] {
  return values.map((value, index) => `  ${(index === 0 ? name : '').padEnd(10)} ${value}`);
}

function typeWord({type, available}: {readonly type: string; readonly available: number | null}): string {
  return `${type}:${available ?? '-'}`;
}
