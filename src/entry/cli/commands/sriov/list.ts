import {readNumaNode} from '../../../../devices/pci/device.js';
import {printName, readDeviceNames, type DeviceNames} from '../../../../devices/pci/names.js';
import type {Host} from '../../../../host/host.js';
import {
  readSriovReports,
  type SriovReport,
  type SriovStateWord,
  type VirtualReport,
} from '../../../../operations/sriov-list.js';
import {ignoredNote, unknownNotes} from '../../../../state/desired.js';
import {describeRescue, readRescue, switchedOffBy} from '../../../../state/rescue.js';
import {readActiveStates} from '../../../../systemd/unit.js';
import {sriovUnit} from '../../../../plan/sriov/sriov.js';
import {readHolders} from '../../../../usage/holders.js';
import {describeHolder} from '../../../../usage/words.js';
import {reportAccess, type AccessReport} from '../../access-report.js';
import {BaseCommand} from '../../base-command.js';
import {hasColors} from '../../context.js';

/** A virtual function, as `--json` prints it. */
export interface VirtualEntry {
  readonly index: number;
  readonly slot: string;
  readonly id: string;
  readonly driver: string | null;
  /** The driver that is recorded for it; null for none. */
  readonly wanted: string | null;
  /** IOMMU group; null without an IOMMU. */
  readonly group: number | null;
  /** What uses it, as texts. */
  readonly holders: readonly string[];
}

/** A physical function, as `--json` prints it. */
export interface PhysicalEntry {
  readonly slot: string;
  readonly id: string;
  readonly name: string | null;
  readonly driver: string | null;
  readonly numaNode: number | null;
  /** How many virtual functions there are, and how many there can be; null for a card that is absent. */
  readonly count: number | null;
  readonly total: number | null;
  readonly autoprobe: boolean | null;
  /** What is recorded; null for nothing. `driver` is that of all, `drivers` those of single ones by number. */
  readonly record: {
    readonly slot: string;
    readonly count: number;
    readonly autoprobe: boolean;
    readonly driver: string | null;
    readonly drivers: Readonly<Record<string, string>>;
    /** Who may open the nodes of virtual functions; null for root alone. */
    readonly access: AccessReport | null;
  } | null;
  readonly state: SriovStateWord;
  /** Its unit and systemd's name of its state; null without a record, or if systemd is not running. */
  readonly unit: string | null;
  readonly active: string | null;
  /** Whether the kernel command line switches it off for this boot. */
  readonly switchedOff: boolean;
  readonly virtual: readonly VirtualEntry[];
}

/** What `--json` prints. */
export interface SriovListResult {
  readonly physical: readonly PhysicalEntry[];
  /** Records that are ignored, and why. */
  readonly problems: readonly {readonly path: string; readonly reason: string}[];
}

/** `pearasys sriov list`: the devices that can have virtual functions, and what is recorded. */
export default class SriovList extends BaseCommand {
  static override description =
    'Lists the devices that can have virtual functions, each with its virtual functions below it. On a terminal, ' +
    'prints a table. Otherwise prints one line per device, tab-separated, - for none: slot, id, `pf`, number of ' +
    'virtual functions, the most that are possible, recorded number, driver, state (right, other-number, ' +
    'other-driver, absent, unrecorded), name; for a virtual function: slot, id, `vf`, its number, the slot of its ' +
    'device, recorded driver, driver, IOMMU group, what uses it.';

  async run(): Promise<SriovListResult> {
    await this.parse(SriovList);
    const host = await this.openHost();
    const {reports, problems} = readSriovReports(host, this.layout);
    const devices = reports.flatMap(({device, virtual}) => [
      ...(device === undefined ? [] : [device]),
      ...virtual.map((one) => one.device),
    ]);
    const names = readDeviceNames(host, devices);
    const units = await readActiveStates(
      host,
      reports.filter(({record}) => record !== undefined).map(({slot}) => sriovUnit(slot)),
    );
    const holders = holdersOf(host, reports);
    const rescue = readRescue(host);
    const physical = reports.map((report): PhysicalEntry => {
      const unit = report.record === undefined ? null : sriovUnit(report.slot);
      return {
        ...physicalEntry(host, report, names.get(report.slot), holders),
        unit,
        active: unit === null ? null : (units.get(unit) ?? null),
        switchedOff: switchedOffBy(rescue, report.slot) !== undefined,
      };
    });
    await this.#print(physical);
    for (const file of problems) this.warn(ignoredNote(file));
    for (const {record} of reports)
      if (record !== undefined) for (const note of unknownNotes(record)) this.warn(note);
    const off = describeRescue(
      rescue,
      reports.filter(({record}) => record !== undefined).map(({slot}) => slot),
    );
    if (off !== undefined) this.warn(off);
    return {physical, problems: problems.map(({path, reason}) => ({path, reason}))};
  }

  async #print(physical: readonly PhysicalEntry[]): Promise<void> {
    const {stdout, environment} = this.context;
    if (!stdout.isTerminal) {
      for (const one of physical) {
        this.log(pfCells(one).join('\t'));
        for (const vf of one.virtual) this.log(vfCells(vf, one.slot).join('\t'));
      }
      return;
    }
    if (physical.length === 0) {
      this.log('No device can have virtual functions.');
      return;
    }
    const {printTable} = await import('../../table.js');
    const columns = [
      {head: 'SLOT'},
      {head: 'ID'},
      {head: 'VFS'},
      {head: 'RECORDED', shrinks: true},
      {head: 'DRIVER', shrinks: true},
      {head: 'STATE', shrinks: true},
      {head: 'NAME', shrinks: true},
    ];
    const rows = physical.flatMap((one) => [
      [
        one.slot,
        one.id,
        `${one.count ?? '-'}/${one.total ?? '-'}`,
        recordedWord(one),
        one.driver ?? '-',
        one.active === 'failed' ? `${one.state}, failed` : one.state,
        one.name ?? '',
      ],
      ...one.virtual.map((vf) => [
        `  ${vf.slot}`,
        vf.id,
        String(vf.index),
        vf.wanted ?? '-',
        vf.driver ?? '-',
        vf.wanted === null || vf.wanted === vf.driver ? '' : 'other-driver',
        vf.holders.join('; '),
      ]),
    ]);
    this.logTable(await printTable(stdout, hasColors(stdout, environment), columns, rows));
  }
}

/** The texts of what uses each virtual function. */
function holdersOf(host: Host, reports: readonly SriovReport[]): ReadonlyMap<string, readonly string[]> {
  const texts = new Map<string, string[]>();
  const devices = reports.flatMap(({virtual}) => virtual.map(({device}) => device));
  for (const holder of readHolders(host, devices, {alone: true}))
    texts.set(holder.slot, [...(texts.get(holder.slot) ?? []), describeHolder(holder)]);
  return texts;
}

function physicalEntry(
  host: Host,
  {slot, device, sriov, record, state, virtual}: SriovReport,
  names: DeviceNames | undefined,
  holders: ReadonlyMap<string, readonly string[]>,
): Omit<PhysicalEntry, 'unit' | 'active' | 'switchedOff'> {
  return {
    slot,
    id: device?.id ?? record?.id ?? '',
    name: device === undefined ? null : printName(device.id, names),
    driver: device?.driver ?? null,
    numaNode: device === undefined ? null : (readNumaNode(host, slot) ?? null),
    count: sriov?.count ?? null,
    total: sriov?.total ?? null,
    autoprobe: sriov?.autoprobe ?? null,
    record:
      record === undefined
        ? null
        : {
            slot: record.slot,
            count: record.count,
            autoprobe: record.autoprobe,
            driver: record.driver ?? null,
            access: reportAccess(record.access),
            drivers: Object.fromEntries(
              [...record.drivers].map(([index, driver]) => [String(index), driver]),
            ),
          },
    state,
    virtual: virtual.map((one) => virtualEntry(one, holders.get(one.device.slot) ?? [])),
  };
}

function virtualEntry({index, device, wanted}: VirtualReport, holders: readonly string[]): VirtualEntry {
  return {
    index,
    slot: device.slot,
    id: device.id,
    driver: device.driver ?? null,
    wanted: wanted ?? null,
    group: device.group ?? null,
    holders,
  };
}

/** `4 vfio-pci`, `7 iavf, 0: vfio-pci`. */
function recordedWord({record}: PhysicalEntry): string {
  if (record === null) return '-';
  const {count, driver, drivers, autoprobe} = record;
  const words = [
    ...(driver === null ? [] : [driver]),
    ...Object.entries(drivers).map(([index, own]) => `${index}: ${own}`),
    ...(driver === null && !autoprobe ? ['no autoprobe'] : []),
  ];
  return [String(count), words.join(', ')].filter((word) => word !== '').join(' ');
}

function pfCells({slot, id, count, total, record, driver, state, name}: PhysicalEntry): string[] {
  return [
    slot,
    id,
    'pf',
    ...[count, total, record?.count ?? null].map((number) => String(number ?? '-')),
    driver ?? '-',
    state,
    name ?? '-',
  ];
}

function vfCells({slot, id, index, wanted, driver, group, holders}: VirtualEntry, pf: string): string[] {
  return [
    slot,
    id,
    'vf',
    String(index),
    pf,
    wanted ?? '-',
    driver ?? '-',
    String(group ?? '-'),
    holders.length === 0 ? '-' : holders.join('; '),
  ];
}
