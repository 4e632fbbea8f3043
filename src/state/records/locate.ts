/** Which present device is the card of which record. libexec/reserve.sh applies the same rule before the first event. */
import type {Device} from '../../devices/pci/device.js';
import type {DeviceId} from '../../devices/pci/id.js';
import {readIdentity, type Identity, type SeenIdentity} from '../../devices/pci/identity.js';
import {cardOf, type Card, type Slot} from '../../devices/pci/slot.js';
import type {HostReader} from '../../host/host.js';
import type {DeviceRecord} from './record.js';

/** A device that is present. */
export interface PresentDevice {
  readonly slot: Slot;
  readonly id: DeviceId;
  readonly identity: SeenIdentity;
}

/** What a record says of its card. */
export type RecordedCard = Pick<DeviceRecord, 'slot' | 'id' | 'identity'> &
  Partial<Pick<DeviceRecord, 'together'>>;

/** Where the card of a record is. */
export interface Whereabouts {
  /**
   * `matches`: in the recorded slot; `moved`: in another one; `superseded`: it has another record, for the slot in
   * which it is, or of the same content. Otherwise the card is not known: `ambiguous`: several devices may be it;
   * `absent`: nothing is in the recorded slot; `other-card`: another card is there.
   */
  readonly kind: 'matches' | 'moved' | 'superseded' | 'ambiguous' | 'absent' | 'other-card';
  /** The device; undefined if it is not known, or the card does not have this function now. */
  readonly slot?: Slot;
  /** The card, if it is known. */
  readonly card?: Card;
  /** The devices that may be it, if it is not known: those of the same kind that no record is certain of. */
  readonly candidates: readonly Slot[];
}

/**
 * The devices as {@link locateCards} needs them. The identity is read only of those with a recorded id.
 * @param wake see {@link readIdentity}.
 */
export function readPresent(
  host: HostReader,
  devices: readonly Device[],
  records: readonly RecordedCard[],
  wake = false,
): PresentDevice[] {
  const ids = new Set(records.map(({id}) => id));
  return devices.map((device) => ({
    slot: device.slot,
    id: device.id,
    identity: ids.has(device.id) ? readIdentity(host, device, wake) : {},
  }));
}

/** What the machine has now of the recorded cards. */
export interface LocatedCards<One extends RecordedCard> {
  readonly present: ReadonlyMap<Slot, PresentDevice>;
  /** Where the card of each record for a slot is. */
  readonly where: ReadonlyMap<One, Whereabouts>;
}

/** Reads where the card of each record is. @param wake see {@link readIdentity}. */
export function readCards<One extends RecordedCard>(
  host: HostReader,
  records: readonly One[],
  devices: readonly Device[],
  wake: boolean,
): LocatedCards<One> {
  const present = readPresent(host, devices, records, wake);
  return {present: new Map(present.map((one) => [one.slot, one])), where: locateCards(records, present)};
}

/** The functions of a card that is present, by function number. */
type PresentCard = ReadonlyMap<string, PresentDevice>;

/** Records of the functions of one card, in one slot. */
interface RecordedSet<One extends RecordedCard> {
  readonly card: Card;
  readonly records: readonly One[];
}

/**
 * Where the card of each record is. A serial number that is recorded and can be read decides alone; otherwise the path
 * decides; without a path, as in records of older versions, the slot. What one function of a card proves applies to
 * all: they are expected beside each other.
 * @param records those for a slot; records by id alone have no card of their own.
 */
export function locateCards<One extends RecordedCard>(
  records: readonly One[],
  devices: readonly PresentDevice[],
): Map<One, Whereabouts> {
  const sets: RecordedSet<One>[] = [];
  for (const record of records) {
    if (record.slot === 'any') continue;
    const card = cardOf(record.slot);
    const set = sets.find(
      (one) => one.card === card && one.records.every((other) => mayBeOneCard(record, other)),
    );
    if (set === undefined) sets.push({card, records: [record]});
    else sets.splice(sets.indexOf(set), 1, {card, records: [...set.records, record]});
  }
  const cards = new Map<Card, Map<string, PresentDevice>>();
  for (const device of devices) {
    const card = cards.get(cardOf(device.slot)) ?? new Map<string, PresentDevice>();
    cards.set(cardOf(device.slot), card.set(functionOf(device.slot), device));
  }
  const hasProof = (set: RecordedSet<One>) =>
    set.records.some(({identity: {path, serial}}) => path !== undefined || serial !== undefined);
  const proven = new Map(sets.filter(hasProof).map((set) => [set, findCard(set, cards)]));
  const taken = new Set(proven.values());
  // A record of an older version is for a slot: it has the card there only if that is not certainly another one's.
  const bySlot = (set: RecordedSet<One>) => {
    const card = findCard(set, cards);
    return card === undefined || taken.has(card) ? undefined : card;
  };
  const found = sets.map((set) => ({set, card: hasProof(set) ? proven.get(set) : bySlot(set)}));
  const claims = joinFunctions(found, cards);
  const known = new Set(claims.map(({card}) => card));
  const result = new Map<One, Whereabouts>();
  for (const [index, {set, card}] of claims.entries()) {
    const rivals = claims.filter((other) => other.set !== set && card !== undefined && other.card === card);
    const isOwn = card === set.card;
    // The record for the slot in which the card is has been written later.
    const newer = rivals.filter(
      (rival) =>
        !isOwn && (rival.set.card === card || (isSameSet(set, rival.set) && claims.indexOf(rival) < index)),
    );
    const isCertain =
      card !== undefined &&
      (isOwn || rivals.every((rival) => rival.set.card === card || isSameSet(set, rival.set)));
    for (const record of set.records) {
      const there = deviceFor(record, card === undefined ? undefined : cards.get(card));
      if (isCertain && there !== undefined) {
        const isOutdated = newer.some((rival) =>
          rival.set.records.some((other) => isSameFunction(record, other)),
        );
        const kind = isOwn ? 'matches' : isOutdated ? 'superseded' : 'moved';
        result.set(record, {kind, slot: there.slot, card, candidates: []});
        continue;
      }
      const isFree = (slot: Slot) => !known.has(cardOf(slot)) || (cardOf(slot) === card && !isCertain);
      const candidates = devices
        .filter((device) => isFree(device.slot) && isPossible(record, device))
        .map(({slot}) => slot);
      const isTaken = devices.some(({slot}) => slot === record.slot);
      result.set(record, {
        kind: candidates.length > 1 ? 'ambiguous' : isTaken ? 'other-card' : 'absent',
        ...(isCertain ? {card} : {}),
        candidates: isCertain ? [] : candidates,
      });
    }
  }
  return result;
}

/** A set of records, and the card that it is certain of. */
interface FoundSet<One extends RecordedCard> {
  readonly set: RecordedSet<One>;
  readonly card: Card | undefined;
}

/**
 * A service adopt that was killed may have given only one function the identity of the other card: the functions that
 * were installed with it are expected beside it.
 */
function joinFunctions<One extends RecordedCard>(
  found: readonly FoundSet<One>[],
  cards: ReadonlyMap<Card, PresentCard>,
): FoundSet<One>[] {
  const wholeOf = ({set, card}: FoundSet<One>) =>
    card !== undefined
      ? undefined
      : found.find(
          (other) =>
            other.card !== undefined &&
            other.set.card === set.card &&
            set.records.every(
              (record) =>
                deviceFor(record, cards.get(other.card ?? set.card)) !== undefined &&
                other.set.records.some(({together = []}) => together.some((slot) => slot === record.slot)),
            ),
        );
  return found
    .filter((one) => wholeOf(one) === undefined)
    .map((one) => {
      const others = found.filter((other) => wholeOf(other) === one).flatMap(({set}) => set.records);
      return {...one, set: {...one.set, records: [...one.set.records, ...others]}};
    });
}

function isSameFunction(one: RecordedCard, other: RecordedCard): boolean {
  return one.id === other.id && functionOf(one.slot) === functionOf(other.slot);
}

/** Whether two records for slots of one card can be of one card: one of them may be of a card that was there before. */
function mayBeOneCard(one: RecordedCard, other: RecordedCard): boolean {
  const above = ({identity: {path}}: RecordedCard) => path?.slice(0, path.lastIndexOf('/'));
  const number = ({identity: {serial}}: RecordedCard) =>
    serial?.startsWith('pcie:') === true ? serial : undefined;
  return (
    one.slot !== other.slot &&
    isSame(above(one), above(other)) !== false &&
    isSame(number(one), number(other)) !== false
  );
}

/**
 * Whether two sets are records of one card, as a killed run leaves them. The new one may have another path, because the
 * card was put into another place.
 */
function isSameSet(one: RecordedSet<RecordedCard>, other: RecordedSet<RecordedCard>): boolean {
  return one.records.some((record) =>
    other.records.some(
      ({id, identity: {path, serial}}) =>
        record.id === id &&
        (isSame(record.identity.serial, serial) ??
          (record.identity.serial === serial && isSame(record.identity.path, path) === true)),
    ),
  );
}

/** The parts of a recorded identity that a device has, and those that it has not; parts that are unknown are in neither. */
export function compareIdentity(record: RecordedCard, device: PresentDevice): IdentityReport {
  const {identity} = device;
  const parts: [Part, boolean | undefined][] = [
    ['id', record.id === device.id],
    ['subsystem', isSame(record.identity.subsystem, identity.subsystem)],
    ['path', isSame(record.identity.path, identity.path)],
    ['serial', isSameSerial(record.identity, identity)],
    ['slot', record.slot === device.slot],
  ];
  return {
    holds: parts.filter(([, same]) => same === true).map(([part]) => part),
    differs: parts.filter(([, same]) => same === false).map(([part]) => part),
  };
}

/** Which parts of a record's identity a device has, as it is reported. */
export interface IdentityReport {
  readonly holds: readonly Part[];
  readonly differs: readonly Part[];
}

/** How a record compares with the device that is its card, or else is in its slot; null without such a device. */
export function reportIdentity(
  record: DeviceRecord,
  {where, present}: LocatedCards<DeviceRecord>,
): IdentityReport | null {
  const slot = where.get(record)?.slot ?? record.slot;
  const device = slot === 'any' ? undefined : present.get(slot);
  return device === undefined ? null : compareIdentity(record, device);
}

/** A part of an identity that a device may have in common with a record. */
export type Part = 'id' | 'slot' | keyof Identity;

/** The card of these records. */
function findCard(set: RecordedSet<RecordedCard>, cards: ReadonlyMap<Card, PresentCard>): Card | undefined {
  const {records} = set;
  const bySerial: Card[] = [];
  const byPath: Card[] = [];
  const others: Card[] = [];
  for (const [card, functions] of cards) {
    const pairs = records.flatMap((record) => {
      const device = deviceFor(record, functions);
      return device === undefined ? [] : [{recorded: record.identity, seen: device.identity}];
    });
    const serials = pairs.map(({recorded, seen}) => isSameSerial(recorded, seen));
    if (pairs.length === 0 || serials.includes(false)) continue;
    if (pairs.some(({recorded, seen}) => isSame(recorded.path, seen.path) === true)) byPath.push(card);
    if (serials.includes(true)) bySerial.push(card);
    else others.push(card);
  }
  // Some makers give one serial number to all their cards.
  if (bySerial.length > 0) return only(bySerial) ?? only(bySerial.filter((card) => byPath.includes(card)));
  if (records.some(({identity}) => identity.path !== undefined))
    return only(others.filter((card) => byPath.includes(card)));
  return others.find((card) => card === set.card);
}

function only<T>(list: readonly T[]): T | undefined {
  return list.length === 1 ? list[0] : undefined;
}

/** The function of a card that is the record's, if the card is. */
function deviceFor(record: RecordedCard, card: PresentCard | undefined): PresentDevice | undefined {
  const device = card?.get(functionOf(record.slot));
  return device !== undefined && isOfKind(record, device) ? device : undefined;
}

/** Whether the device may be the record's, if it was put into another slot. */
function isPossible(record: RecordedCard, device: PresentDevice): boolean {
  return (
    isOfKind(record, device) &&
    functionOf(device.slot) === functionOf(record.slot) &&
    isSameSerial(record.identity, device.identity) !== false
  );
}

function isOfKind(record: RecordedCard, device: PresentDevice): boolean {
  return record.id === device.id && isSame(record.identity.subsystem, device.identity.subsystem) !== false;
}

/** Undefined if one of them is unknown. */
function isSame(recorded: string | undefined, seen: string | undefined): boolean | undefined {
  return recorded === undefined || seen === undefined ? undefined : recorded === seen;
}

/** Undefined if one of them is unknown, or they are of different kinds. */
function isSameSerial(recorded: Identity, seen: SeenIdentity): boolean | undefined {
  const kind = (serial: string | undefined) => serial?.slice(0, serial.indexOf(':'));
  if (kind(recorded.serial) === 'pcie' && seen.hasNoNumber === true) return false;
  return kind(recorded.serial) === kind(seen.serial) ? isSame(recorded.serial, seen.serial) : undefined;
}

function functionOf(slot: string): string {
  return slot.slice(slot.lastIndexOf('.') + 1);
}
