import type {Layout} from '../config/layout.js';
import {readDevice, readDevices} from '../devices/pci/device.js';
import {readLastingIdentity, type Identity} from '../devices/pci/identity.js';
import {readNames} from '../devices/pci/names.js';
import {cardOf, type Card, type Slot} from '../devices/pci/slot.js';
import {carryOut, type CarryOutOptions, type Outcome} from '../engine/carry-out.js';
import {ExitCode, PearasysError} from '../host/errors.js';
import type {Host, HostReader} from '../host/host.js';
import {findMoves, planMove} from '../plan/service/move.js';
import {readServices, type ServiceState} from '../plan/service/service-state.js';
import {servicesLock} from '../plan/service/service.js';
import type {LocatedCards, Whereabouts} from '../state/records/locate.js';
import {readRecords, type DeviceRecord} from '../state/records/record.js';
import {findCards, readIdentities} from './cards.js';
import {withRebuild} from './initramfs.js';

/** A record whose card is not in the recorded slot, or not certainly. */
interface Adoptable {
  readonly record: DeviceRecord;
  readonly place: Whereabouts;
  /** The devices that may be the card: the one that is, if that is certain. */
  readonly devices: readonly {readonly slot: Slot; readonly identity: Identity}[];
}

/** The devices for which a record may be taken over, by record. */
export function readAdoptable(host: HostReader, layout: Layout): Adoptable[] {
  const {records} = readRecords(host, layout);
  const cards = findCards(host, ownRecords(records));
  return [...cards.where].flatMap(([record, place]) => {
    if (place.kind === 'matches' || place.kind === 'superseded') return [];
    const slots = place.slot === undefined ? eligible(cards, record) : [place.slot];
    const devices = slots.map((slot) => ({slot, identity: cards.present.get(slot)?.identity ?? {}}));
    return devices.length === 0 ? [] : [{record, place, devices}];
  });
}

/** What is taken over: the record of a slot for the card in another one, or in the same. */
interface Adoption {
  readonly record: DeviceRecord;
  readonly slot: Slot;
  readonly identity: Identity;
}

/**
 * The records that the card in a slot takes over, with the other functions of the card.
 * @param from the recorded slot, if several records may be meant.
 * @throws PearasysError `no-device` when there is nothing to take over; `ambiguous` when several records may be meant.
 */
export function findAdoptions(
  host: HostReader,
  layout: Layout,
  slot: Slot,
  from: Slot | undefined,
): readonly Adoption[] {
  const {records} = readRecords(host, layout);
  return chooseAdoptions(host, findCards(host, ownRecords(records)), slot, from);
}

/**
 * Takes a moved or replaced card over: the records get what identifies the card now, and move with their units to its
 * slot.
 * @throws PearasysError the refusal, or what failed.
 */
export async function adoptCard(
  host: Host,
  layout: Layout,
  {slot, from, rebuild}: {readonly slot: Slot; readonly from: Slot | undefined; readonly rebuild: boolean},
  options: CarryOutOptions,
): Promise<Outcome> {
  const outcome = await carryOut(
    host,
    [servicesLock],
    () => {
      const state = readState(host, layout);
      const cards = findCards(host, ownRecords(state.records.records));
      const adopted = chooseAdoptions(host, cards, slot, from);
      const where = new Map(cards.where);
      // Of a killed run, the records may be those of this card already.
      const taken = adopted.filter(({record}) => where.get(record)?.card !== cardOf(slot));
      for (const {record, slot: to} of taken)
        where.set(record, {
          kind: record.slot === to ? 'matches' : 'moved',
          slot: to,
          card: cardOf(to),
          candidates: [],
        });
      const identities = readIdentities(host, {...cards, where});
      for (const {record, identity} of taken) identities.set(record, identity);
      const request = {...findMoves(where, state), identities, adopted: taken.map(({record}) => record)};
      return planMove(request, state, true);
    },
    options,
  );
  return await withRebuild(host, layout, outcome, rebuild, options);
}

function ownRecords(records: readonly DeviceRecord[]): DeviceRecord[] {
  return records.filter(({source, slot}) => source === 'record' && slot !== 'any');
}

/** The services, with the slots of all records and devices: any of them may be part of a chain of moves. */
function readState(host: HostReader, layout: Layout): ServiceState {
  const recorded = readRecords(host, layout).records.flatMap(({slot}) => (slot === 'any' ? [] : [slot]));
  const devices = readDevices(host);
  const slots = [...new Set([...recorded, ...devices.map((device) => device.slot)])];
  return readServices(host, layout, slots, {names: readNames(host, devices)});
}

function chooseAdoptions(
  host: HostReader,
  cards: LocatedCards<DeviceRecord>,
  slot: Slot,
  from: Slot | undefined,
): Adoption[] {
  const device = readDevice(host, slot);
  if (device === undefined)
    throw new PearasysError({
      code: 'no-device',
      exitCode: ExitCode.noDevice,
      message: `there is no device in slot ${slot}`,
      hint: '`pearasys service adopt` lists the cards that can be adopted',
    });
  const all = [...cards.where].filter(
    ([record]) => from === undefined || recordedCard(record) === cardOf(from),
  );
  // Of a killed run, records of any function of the card may be left.
  const certain = all.filter(
    ([record, place]) => place.card === cardOf(slot) && recordedCard(record) !== cardOf(slot),
  );
  const possible = all.filter(([record]) => eligible(cards, record).includes(slot));
  // By default, a card in the slot of a record replaces the recorded one.
  const same = possible.filter(([record]) => record.slot === slot);
  const [chosen, ...more] = certain.length > 0 ? certain : same.length > 0 ? same : possible;
  if (chosen === undefined)
    throw new PearasysError({
      code: 'no-device',
      exitCode: ExitCode.noDevice,
      message: `${slot} (${device.id}) cannot be adopted: no record with a missing card matches it`,
      details: ['nothing was changed'],
      hint: '`pearasys service adopt` lists the cards that can be adopted',
    });
  const card = recordedCard(chosen[0]);
  const others = more.filter(([record]) => recordedCard(record) !== card);
  if (others.length > 0)
    throw new PearasysError({
      code: 'ambiguous-device',
      exitCode: ExitCode.usage,
      message: `${slot} (${device.id}) cannot be adopted: it may be the card of several records`,
      details: [
        ...[chosen, ...others].map(([record]) => `the record of ${record.slot}, for ${record.driver}`),
        'nothing was changed',
      ],
      hint: `pearasys service adopt ${slot} --from SLOT`,
    });
  return [...cards.where].flatMap(([record]) => {
    if (record.slot === 'any' || recordedCard(record) !== card) return [];
    const to = `${cardOf(slot)}${record.slot.slice(record.slot.lastIndexOf('.'))}` as Slot;
    const there = to === slot ? device : readDevice(host, to);
    return there?.id === record.id
      ? [{record, slot: there.slot, identity: readLastingIdentity(host, there)}]
      : [];
  });
}

function recordedCard({slot}: DeviceRecord): Card | undefined {
  return slot === 'any' ? undefined : cardOf(slot);
}

/** The slots of the devices that may take a record over: of its kind, and not certainly the card of another record. */
function eligible({where, present}: LocatedCards<DeviceRecord>, record: DeviceRecord): Slot[] {
  if (where.get(record)?.card !== undefined) return [];
  const known = new Set([...where.values()].map(({card}) => card));
  const functionOf = (slot: string) => slot.slice(slot.lastIndexOf('.'));
  return [...present.values()]
    .filter(
      ({slot, id}) =>
        id === record.id && functionOf(slot) === functionOf(record.slot) && !known.has(cardOf(slot)),
    )
    .map(({slot}) => slot);
}
