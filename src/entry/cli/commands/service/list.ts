import {readDevices} from '../../../../devices/pci/device.js';
import {
  readCards,
  reportIdentity,
  type IdentityReport,
  type LocatedCards,
  type Whereabouts,
} from '../../../../state/records/locate.js';
import {readRecords, type DeviceRecord, type RecordSource} from '../../../../state/records/record.js';
import {desiredNotes, type UnknownKey} from '../../../../state/desired.js';
import {quarantineNote, readQuarantines, type Quarantine} from '../../../../state/quarantine.js';
import {describeRescue, readRescue, switchedOffBy} from '../../../../state/rescue.js';
import {readUnitStates} from '../../../../systemd/unit.js';
import {reportAccess, type AccessReport} from '../../access-report.js';
import {BaseCommand} from '../../base-command.js';
import {hasColors} from '../../context.js';

/** One record, as `--json` prints it. */
export interface ServiceEntry {
  /** The slot; `any` for a record by id alone. */
  readonly slot: string;
  /** The recorded id; null for a unit without a record. */
  readonly id: string | null;
  readonly driver: string;
  /** Null for a record by id alone, which has no unit. */
  readonly unit: string | null;
  readonly enabled: boolean;
  /** systemd's name of the unit's state; null if systemd is not running. */
  readonly active: string | null;
  /** See {@link Whereabouts}; `unrecorded` for a unit without a record. */
  readonly card: Whereabouts['kind'] | 'unrecorded';
  /** Which parts of the recorded identity the card has, or else the device in the slot; null without a device. */
  readonly identity: IdentityReport | null;
  /** The slot in which the card is now; if that is not certain, those in which it may be. */
  readonly elsewhere: readonly string[];
  /** Where the claim comes from: a record, or for this boot the kernel command line or a credential. */
  readonly source: RecordSource;
  /** Who may open its nodes; null for root only. */
  readonly access: AccessReport | null;
  /** What the record has that this version does not know. */
  readonly unknown: readonly UnknownKey[];
  /** Whether the kernel command line switches the claim off for this boot. */
  readonly switchedOff: boolean;
  /** Why the card is quarantined; null if it is not. */
  readonly quarantined: string | null;
}

/** What `--json` prints. */
export interface ServiceListResult {
  readonly services: readonly ServiceEntry[];
  /** Records that are ignored, and why. */
  readonly problems: readonly {readonly path: string; readonly reason: string}[];
}

/** `pearasys service list`: what is recorded and enabled. */
export default class ServiceList extends BaseCommand {
  static override description =
    'On a terminal, prints a table. Otherwise prints one line per unit, tab-separated: slot, recorded id, ' +
    'driver, enabled or disabled, the state of the unit, whether the card is the recorded one, and where the ' +
    'claim comes from (record, kernel-command-line, credential). A record that is ignored is reported on ' +
    'standard error.';

  async run(): Promise<ServiceListResult> {
    await this.parse(ServiceList);
    const host = await this.openHost();
    const devices = host.exists('/sys/bus/pci/devices') ? readDevices(host) : [];
    const {records, problems} = readRecords(host, this.context.layout);
    const units = await readUnitStates(host);
    const cards = readCards(host, records, devices, false);
    const recordOf = (slot: string) => {
      const all = records.filter((record) => record.slot === slot);
      return all.find((record) => cards.where.get(record)?.kind === 'matches') ?? all[0];
    };
    const withUnit = new Set(units.map(({slot}) => recordOf(slot)));
    const rescue = readRescue(host);
    const quarantines = new Map<string, Quarantine>(
      readQuarantines(host)
        .filter(({slot, id}) => devices.some((device) => device.slot === slot && device.id === id))
        .map((one) => [one.slot, one]),
    );
    const quarantined = (slot: string) => quarantines.get(slot)?.reason ?? null;
    const services: ServiceEntry[] = [
      ...units.map(({slot, driver, unit, enabled, active = null}) => ({
        ...describeMatch(recordOf(slot), cards),
        slot,
        driver,
        unit,
        enabled,
        active,
        switchedOff: switchedOffBy(rescue, slot) !== undefined,
        quarantined: quarantined(slot),
      })),
      ...records
        .filter((record) => !withUnit.has(record))
        .map((record) => ({
          ...describeMatch(record, cards),
          slot: record.slot,
          driver: record.driver,
          unit: null,
          enabled: record.slot === 'any',
          active: null,
          switchedOff: record.slot === 'any' ? rescue.all : switchedOffBy(rescue, record.slot) !== undefined,
          quarantined: quarantined(record.slot),
        })),
    ].sort((a, b) => (a.slot < b.slot ? -1 : 1));
    await this.#print(services);
    for (const quarantine of quarantines.values())
      if (services.some(({slot}) => slot === quarantine.slot)) this.warn(quarantineNote(quarantine));
    for (const note of desiredNotes([...problems, ...records])) this.warn(note);
    const off = describeRescue(
      rescue,
      units.map(({slot}) => slot),
    );
    if (off !== undefined) this.warn(off);
    return {services, problems: problems.map(({path, reason}) => ({path, reason}))};
  }

  async #print(services: readonly ServiceEntry[]): Promise<void> {
    const {stdout, environment} = this.context;
    if (!stdout.isTerminal) {
      for (const entry of services) this.log(cells(entry).join('\t'));
      return;
    }
    if (services.length === 0) {
      this.log('There are no records.');
      return;
    }
    const {printTable} = await import('../../table.js');
    const columns = [
      {head: 'SLOT'},
      {head: 'ID'},
      {head: 'DRIVER', shrinks: true},
      {head: 'AT BOOT'},
      {head: 'UNIT'},
      {head: 'CARD', shrinks: true},
      // Usually all claims are from records.
      ...(services.some(({source}) => source !== 'record') ? [{head: 'FROM'}] : []),
    ];
    const rows = services.map((entry) => cells(entry).slice(0, columns.length));
    this.logTable(await printTable(stdout, hasColors(stdout, environment), columns, rows));
  }
}

function describeMatch(
  record: DeviceRecord | undefined,
  cards: LocatedCards<DeviceRecord>,
): Pick<ServiceEntry, 'id' | 'card' | 'identity' | 'elsewhere' | 'source' | 'access' | 'unknown'> {
  if (record === undefined)
    return {
      id: null,
      card: 'unrecorded',
      identity: null,
      elsewhere: [],
      source: 'record',
      access: null,
      unknown: [],
    };
  const place = cards.where.get(record);
  const found = place?.kind === 'matches' || place?.slot === undefined ? [] : [place.slot];
  return {
    id: record.id,
    // A record by id alone matches each card.
    card: place?.kind ?? 'matches',
    identity: reportIdentity(record, cards),
    elsewhere: [...found, ...(place?.candidates ?? [])],
    source: record.source,
    access: reportAccess(record.access),
    unknown: record.unknown,
  };
}

/** The card's state in words: `matches, other path`, `moved, now in 0000:05:00.0`. */
function cardWords({card, identity, elsewhere, quarantined}: ServiceEntry): string {
  const differs = card === 'matches' ? (identity?.differs ?? []) : [];
  const isKnown = card === 'moved' || card === 'superseded';
  return [
    card,
    ...(differs.length === 0 ? [] : [`other ${differs.join(' and ')}`]),
    ...(quarantined === null ? [] : ['quarantined']),
    ...(elsewhere.length === 0 ? [] : [`${isKnown ? 'now' : 'perhaps'} in ${elsewhere.join(' ')}`]),
  ].join(', ');
}

function cells(entry: ServiceEntry): string[] {
  return [
    entry.slot,
    entry.id ?? '-',
    entry.driver,
    entry.enabled ? 'enabled' : 'disabled',
    entry.active ?? '-',
    cardWords(entry),
    entry.source,
  ];
}
