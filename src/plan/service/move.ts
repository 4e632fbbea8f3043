/** Moves records and units to the slots in which their cards are now. */
import {posix} from 'node:path';
import {devicePath} from '../../devices/pci/device.js';
import type {Identity} from '../../devices/pci/identity.js';
import {cardOf, parseSlot, type Card, type Slot} from '../../devices/pci/slot.js';
import {runState} from '../../host/paths.js';
import type {Whereabouts} from '../../state/records/locate.js';
import {
  checkedPath,
  printChecked,
  printRecord,
  recordPath,
  type DeviceRecord,
} from '../../state/records/record.js';
import {claimTemplate, slotTemplate, unitSettings} from '../../systemd/unit-texts.js';
import {deviceUnit, enabledLink, unitName, type UnitIdentity} from '../../systemd/unit.js';
import {
  makeLink,
  plan,
  removeFile,
  removeLink,
  systemctl,
  udevadm,
  writeFile,
  type FileState,
  type Planned,
  type Step,
} from '../step.js';
import {grantsOf, planAccess} from './access.js';
import {enabledClaims, planClaimList} from './claim-list.js';
import {
  checkedOf,
  dropInPath,
  templatePath,
  templatePaths,
  tidy,
  type ServiceState,
  type WantsLink,
} from './service-state.js';

/** From which slot to which each record moves. */
type Moves = ReadonlyMap<Slot, Slot>;

/** The mark by which libexec/early says that the card of another slot's record is in this slot. */
export function movedMark(slot: Slot): string {
  return `${runState}/moved/${slot}`;
}

/** Which records move, and what is written into them. */
interface MoveRequest {
  readonly moves: Moves;
  /** Copies of records that are where they belong: a killed run has left them, or the card was recorded again. */
  readonly outdated: ReadonlySet<DeviceRecord>;
  /** What identifies a card now, where it is not as recorded. */
  readonly identities: ReadonlyMap<DeviceRecord, Identity>;
  /** Records that get the identity of another card: nothing else shows that they belong to the card in the new slot. */
  readonly adopted?: readonly DeviceRecord[];
  /** Why records do not move, although it is known where their cards are. */
  readonly notes: readonly string[];
}

/**
 * Which records have to move. A record whose card is not known makes room if its slot is needed: it gets the slot that
 * the others leave, and its card is still found by path or serial number.
 */
export function findMoves(
  where: ReadonlyMap<DeviceRecord, Whereabouts>,
  state: Pick<ServiceState, 'files' | 'links'>,
): Omit<MoveRequest, 'identities' | 'adopted'> {
  // Those of this boot only are not files of the administrator.
  const all = [...where.keys()].filter(({source}) => source === 'record');
  const outdated = new Set(
    all.filter((record) => {
      const place = where.get(record);
      return (
        place?.kind === 'superseded' &&
        all.some((other) => {
          const theirs = where.get(other);
          return (
            theirs?.kind !== 'superseded' && theirs?.slot === place.slot && other.driver === record.driver
          );
        })
      );
    }),
  );
  const live = all.filter((record) => !outdated.has(record));
  const inSlot = (slot: Slot) => live.filter((record) => record.slot === slot);
  const moves = new Map<Slot, Slot>();
  const notes: string[] = [];
  for (const record of live) {
    const {slot} = record;
    const place = where.get(record);
    if (slot === 'any' || place?.card === undefined || place.kind === 'superseded') continue;
    if (place.card === cardOf(slot)) continue;
    if (inSlot(slot).length > 1)
      notes.push(
        `slot ${slot} has several records, and none is moved: remove the outdated ones of ${inSlot(slot)
          .map(({path}) => path)
          .join(', ')}`,
      );
    else moves.set(slot, onCard(place.card, slot));
  }
  const arriving = [...moves.values()];
  // A killed run has written the new record, but perhaps not the units.
  for (const record of outdated) {
    const to = where.get(record)?.slot;
    if (record.slot === 'any' || to === undefined || to === record.slot) continue;
    if (inSlot(record.slot).length > 0 || !hasTemplate(record.slot, state)) continue;
    if (!arriving.includes(to)) moves.set(record.slot, to);
  }
  for (const target of arriving) {
    const occupants = live.filter(
      ({slot}) => slot !== 'any' && cardOf(slot) === cardOf(target) && !moves.has(slot),
    );
    if (!occupants.some(({slot}) => slot === target)) continue;
    const chain = chainTo(target, moves);
    const [start = target] = chain.slice(-1);
    const canMakeRoom = occupants.every(
      (record) =>
        where.get(record)?.card === undefined &&
        (record.identity.path !== undefined || record.identity.serial !== undefined),
    );
    if (canMakeRoom) {
      for (const {slot} of occupants) if (slot !== 'any') moves.set(slot, onCard(cardOf(start), slot));
      continue;
    }
    for (const slot of chain) moves.delete(slot);
    notes.push(
      `the record of ${chain[0] ?? ''} is not moved to ${target}, which has another record; to remove that one: pearasys -s ${target} service uninstall`,
    );
  }
  return {moves, outdated, notes};
}

/** The slots from which records move to this one, the nearest first. */
function chainTo(target: Slot, moves: Moves): Slot[] {
  const chain: Slot[] = [];
  for (let slot: Slot | undefined = target; ;) {
    slot = [...moves].find(([, to]) => to === slot)?.[0];
    if (slot === undefined || chain.includes(slot)) return chain;
    chain.push(slot);
  }
}

/**
 * The plan that moves records, units, links and checked copies. A killed run leaves each record in at least one place,
 * and the next run completes it: a card leaves its old slot only when its new one is complete, and cards that exchange
 * places use a slot that no device can have. Units of the old slots are not stopped: another card may be there now.
 * @param tag whether udev has to tag the devices: not within an add event, which has just done so.
 */
export function planMove(request: MoveRequest, state: ServiceState, tag: boolean): Planned {
  const {moves, outdated, identities, adopted = []} = request;
  const {layout} = state;
  const records = state.records.records.filter(({slot, source}) => slot !== 'any' && source === 'record');
  const arrivals = new Set(moves.values());
  const draft = new Draft(state);
  const left: DeviceRecord[] = records.filter(
    (record) =>
      outdated.has(record) ||
      (record.slot !== 'any' && (moves.has(record.slot) || arrivals.has(record.slot))),
  );
  const written = new Map<Slot, DeviceRecord>();
  const inSlot = (slot: Slot): DeviceRecord | undefined =>
    records
      .filter((record) => record.slot === slot)
      .sort((one, other) => Number(outdated.has(one)) - Number(outdated.has(other)))[0];
  /** The names of slots for a record that goes to a slot: the functions of a card stay together. */
  const namesFor =
    (record: DeviceRecord, to: Slot) =>
    (slot: Slot): Slot => {
      if (record.slot === 'any') return slot;
      if (cardOf(slot) === cardOf(record.slot)) return onCard(cardOf(to), slot);
      // After a killed run, a name may be the new one already.
      return inSlot(slot)?.together.includes(record.slot) === true ? (moves.get(slot) ?? slot) : slot;
    };

  /** Completes a slot for the record and the units of another one, or of the same. */
  const complete = (from: Slot, to: Slot): void => {
    const record = inSlot(from);
    if (record === undefined) return;
    const moved: DeviceRecord = {
      ...record,
      slot: to,
      together: record.together.map(namesFor(record, to)),
      identity: identities.get(record) ?? record.identity,
    };
    // A copy may be older than the record that is there.
    if (!outdated.has(record)) draft.put(recordPath(layout, moved), printRecord(moved));
    draft.moveUnits(from, moved, namesFor(record, to), outdated.has(record));
    if (to === (moves.get(from) ?? from)) written.set(to, moved);
    else left.push(moved);
  };

  // With its identity in the old record, the rest is a move like any other: the next run or boot completes it.
  for (const record of adopted)
    draft.put(
      recordPath(layout, record),
      printRecord({...record, identity: identities.get(record) ?? record.identity}),
    );
  const pending = new Map([...moves].map(([from, to]) => [from, {now: from, to}]));
  const spares: Slot[] = [];
  while (pending.size > 0) {
    const cards = [...new Set([...pending.values()].map(({now}) => cardOf(now)))];
    const ofCard = (card: Card) => [...pending].filter(([, {now}]) => cardOf(now) === card);
    const ready = cards.find((card) =>
      ofCard(card).every(([, {to}]) => cardOf(to) === card || ofCard(cardOf(to)).length === 0),
    );
    if (ready !== undefined)
      for (const [from, {to}] of ofCard(ready)) {
        complete(from, to);
        pending.delete(from);
      }
    else {
      const [first] = cards;
      const spare = spareCard(state, spares);
      if (first === undefined) break;
      for (const [from, {to}] of ofCard(first)) {
        const now = onCard(spare, from);
        complete(from, now);
        pending.set(from, {now, to});
        spares.push(now);
      }
    }
  }
  // What was installed together with a card that has moved, and cards that were recorded with less.
  for (const record of records) {
    if (record.slot === 'any' || outdated.has(record) || moves.has(record.slot)) continue;
    const names = namesFor(record, record.slot);
    if (identities.has(record) || record.together.some((slot) => names(slot) !== slot))
      complete(record.slot, record.slot);
  }
  const empty = new Set([...left.flatMap(({slot}) => (slot === 'any' ? [] : [slot])), ...spares]);
  for (const slot of empty)
    if (!written.has(slot) && !records.some((record) => record.slot === slot && !left.includes(record)))
      draft.removeUnits(slot);
  const kept = new Set([...written.values()].map((record) => recordPath(layout, record)));
  // Only the record of its sibling distinguishes a function without a serial number from that of another card.
  const isNumbered = ({identity}: DeviceRecord) => Number(identity.serial !== undefined);
  for (const record of left.sort((one, other) => isNumbered(one) - isNumbered(other))) {
    const path = recordPath(layout, record);
    if (kept.has(path)) continue;
    draft.dropChecked(record);
    draft.drop(path);
  }
  const {steps} = draft;
  const remaining = state.records.records.filter(
    (record) => !left.includes(record) && (record.slot === 'any' || !written.has(record.slot)),
  );
  const changes = steps.length > 0;
  if (changes) {
    const claims = enabledClaims([...remaining, ...written.values()], (link) => draft.wants.has(link));
    steps.push(...planClaimList(claims, layout, state.claimList));
  }
  // Also without a move: a run that was killed may have left the rules as they were.
  steps.push(...planAccess(grantsOf([...remaining, ...written.values()]), state.access));
  if (!state.running || !changes) return plan([...tidy(state), ...steps], {notes: notesOf(request)});
  steps.push(systemctl(['daemon-reload']));
  for (const record of written.values()) draft.putChecked(record, [...remaining, ...written.values()]);
  const here = [...arrivals].filter((slot) => state.present.has(slot));
  const units = here.flatMap((slot) => {
    const record = written.get(slot);
    return record !== undefined && draft.wants.has(enabledLink({slot, driver: record.driver}))
      ? [unitName({slot, driver: record.driver})]
      : [];
  });
  if (tag && here.length > 0) {
    steps.push(udevadm(['trigger', '--action=change', ...here.map((slot) => devicePath(slot))]));
    steps.push(systemctl(['start', ...here.map(deviceUnit)]));
  }
  if (units.length > 0) steps.push(systemctl(['start', '--no-block', ...units]));
  return plan([...tidy(state), ...steps], {
    notes: notesOf(request),
    afterUndo: [systemctl(['daemon-reload'])],
  });
}

function notesOf({moves, notes}: MoveRequest): string[] {
  return [...notes, ...[...moves].map(([from, to]) => `the record of ${from} moves to ${to}`)];
}

/** The slot of the same function on another card. */
function onCard(card: Card, slot: Slot): Slot {
  return parseSlot(`${card}${slot.slice(slot.lastIndexOf('.'))}`);
}

/** A card's place that nothing uses: one of the last ones of bus ff, where no card that can be removed is. */
function spareCard(state: ServiceState, spares: readonly Slot[]): Card {
  const slots = state.records.records.flatMap(({slot}) => (slot === 'any' ? [] : [slot]));
  const used = new Set(
    [...slots, ...spares, ...state.units.map(({slot}) => slot), ...state.present].map(cardOf),
  );
  for (let device = 0x1f; device > 0; device--) {
    const card = cardOf(parseSlot(`0000:ff:${device.toString(16).padStart(2, '0')}.0`));
    if (!used.has(card)) return card;
  }
  throw new Error('more cards exchange their places than a bus has');
}

function hasTemplate(slot: Slot, {files, links}: Pick<ServiceState, 'files' | 'links'>): boolean {
  return files.has(templatePath(slot)) || links.has(templatePath(slot));
}

/** The files as they are after the steps so far. */
class Draft {
  readonly steps: Step[] = [];
  readonly wants: Map<string, WantsLink>;
  readonly #state: ServiceState;
  readonly #files: Map<string, FileState>;
  readonly #links: Map<string, string>;
  #units: readonly UnitIdentity[];

  constructor(state: ServiceState) {
    this.#state = state;
    this.wants = new Map(state.wants);
    this.#files = new Map(state.files);
    this.#links = new Map(state.links);
    this.#units = state.units;
  }

  /**
   * Gives the units that a slot had at the beginning to another slot, in place of those that it has.
   * @param names the slots' new names, for siblings.
   * @param adds whether links that the other slot has are kept.
   */
  moveUnits(from: Slot, record: DeviceRecord, names: (slot: Slot) => Slot, adds: boolean): void {
    const {slot: to} = record;
    if (to === 'any' || !hasTemplate(from, this.#state)) return;
    const renamed = (text: string) =>
      text.replace(slotPattern, (slot) => (slot === from ? to : names(slot as Slot)));
    this.#putTemplates(from, to, record);
    const own = this.#state.units.filter(({slot}) => slot === from).map((unit) => ({...unit, slot: to}));
    const others = this.#units.filter(
      (unit) => unit.slot === to && !own.some((one) => unitName(one) === unitName(unit)),
    );
    const units = adds ? [...own, ...others] : own;
    for (const unit of units)
      this.put(
        dropInPath(unit),
        unitSettings(unit, {
          name: this.#state.names.get(to) ?? 'Device',
          rivals: units,
          together: unit.driver === record.driver ? record.together : [],
        }),
      );
    if (!adds) for (const unit of others) this.drop(dropInPath(unit));
    this.#units = [...this.#units.filter(({slot}) => slot !== to), ...units];
    const wanted = new Map(
      [...this.#state.wants]
        .filter(([, {unit}]) => isOf(unit, from))
        .map(([path, {unit, target}]) => [renamed(path), {unit: renamed(unit), target: renamed(target)}]),
    );
    if (!adds)
      for (const [path, {unit, target}] of [...this.wants])
        if (isOf(unit, to) && !wanted.has(path)) this.#unlink(path, target);
    for (const [path, link] of wanted) {
      if (this.wants.get(path)?.target !== link.target) this.steps.push(makeLink(path, link.target));
      this.wants.set(path, link);
    }
  }

  /** Removes the units of a slot, first the templates: without them nothing is started any more. */
  removeUnits(slot: Slot): void {
    for (const path of templatePaths(slot).reverse()) {
      const target = this.#links.get(path);
      if (target === undefined) this.drop(path);
      else {
        this.steps.push({
          kind: 'remove-file',
          path,
          prune: 0,
          undo: [{kind: 'make-link', path, target, undo: []}],
        });
        this.#links.delete(path);
        this.drop(target);
      }
    }
    for (const [path, {unit, target}] of [...this.wants]) if (isOf(unit, slot)) this.#unlink(path, target);
    for (const unit of this.#units.filter((one) => one.slot === slot)) this.drop(dropInPath(unit));
    this.#units = this.#units.filter((one) => one.slot !== slot);
  }

  /** Removes the copies of a record for the rule. */
  dropChecked(record: DeviceRecord): void {
    for (const copy of checkedOf(record, this.#files)) this.drop(copy);
  }

  /** Leaves the copy of a record for the rule. @param others the records after the plan. */
  putChecked(record: DeviceRecord, others: readonly DeviceRecord[]): void {
    const bridge = record.slot === 'any' ? undefined : this.#state.bridges.get(record.slot);
    const path = checkedPath(record, bridge);
    for (const other of checkedOf(record, this.#files)) if (other !== path) this.drop(other);
    if (path !== undefined) this.put(path, printChecked(record, others));
  }

  #putTemplates(from: Slot, to: Slot, record: DeviceRecord): void {
    const {layout} = this.#state;
    const texts = [claimTemplate(to, layout), slotTemplate(to, record.together, layout)];
    const sources = templatePaths(from);
    for (const [index, path] of templatePaths(to).entries()) {
      const linked = this.#links.get(sources[index] ?? '');
      const place = linked === undefined ? path : `${posix.dirname(linked)}/${posix.basename(path)}`;
      const there = this.#links.get(path);
      if (there !== undefined && there !== place) {
        this.steps.push({
          kind: 'remove-file',
          path,
          prune: 0,
          undo: [{kind: 'make-link', path, target: there, undo: []}],
        });
        this.#links.delete(path);
      }
      this.put(place, texts[index] ?? '');
      if (place !== path && this.#links.get(path) !== place) {
        this.steps.push(makeLink(path, place));
        this.#links.set(path, place);
      }
    }
  }

  /** Writes a file, unless it has this content. */
  put(path: string, content: string): void {
    const previous = this.#files.get(path);
    if (previous?.content === content) return;
    this.steps.push(writeFile(path, content, previous));
    this.#files.set(path, {mode: 0o644, ...previous, content});
  }

  /** Removes a file, if it exists. */
  drop(path: string): void {
    const previous = this.#files.get(path);
    if (previous === undefined) return;
    this.steps.push(removeFile(path, previous));
    this.#files.delete(path);
  }

  #unlink(path: string, target: string): void {
    this.steps.push(removeLink(path, target));
    this.wants.delete(path);
  }
}

function isOf(unit: string, slot: Slot): boolean {
  return unit.startsWith(`pearasys-${slot}@`);
}

/** A slot within the name of a unit. */
const slotPattern = /[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]/g;
