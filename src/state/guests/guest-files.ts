import {ExitCode, PearasysError} from '../../host/errors.js';
import type {HostReader} from '../../host/host.js';
import type {Layout} from '../../config/layout.js';
import {distrust} from '../../config/trust.js';
import type {Device} from '../../devices/pci/device.js';
import {asSlot, cardOf, expectedSlot, type Slot} from '../../devices/pci/slot.js';
import {isIgnored, readDesired, type IgnoredFile, type WantedFile} from '../desired.js';
import {asGuest, type Guest} from './guest-name.js';

/**
 * The files of guests, in `/etc/pearasys/guests`, in the format of virt-aid: `<guest>.conf` has one slot per line. Two
 * lists, with one guest per line, name the guests that take the display that the firmware uses, and those that take
 * another display. Empty lines and lines that begin with `#` are kept in place.
 */
export type GuestList = 'primary' | 'gpu';

/** The lists that contain a guest. */
export type GuestDisplay = GuestList | 'both';

/** The names of the two lists. */
const listNames: Readonly<Record<GuestList, string>> = {
  primary: 'single-gpu-passthrough-guests.conf',
  gpu: 'gpu-passthrough-guests.conf',
};

/** A guest that is set up. */
type GuestFile = (WantedFile | IgnoredFile) & {
  readonly kind: 'guest';
  readonly guest: Guest;
  /** The guest's slots, in the order of the file, without duplicates; empty if the file is ignored. */
  readonly slots: readonly Slot[];
};

/** The files of all guests. */
export interface GuestFiles {
  readonly guests: readonly GuestFile[];
  /** The names in each list, in its order, without duplicates. */
  readonly lists: Readonly<Record<GuestList, readonly string[]>>;
  /** The lists that are ignored. */
  readonly problems: readonly IgnoredFile[];
}

/** The folder of these files. */
export function guestsFolder(layout: Layout): string {
  return `${layout.config}/guests`;
}

/** The file with the slots of a guest. */
export function guestPath(layout: Layout, guest: Guest): string {
  return `${guestsFolder(layout)}/${guest}.conf`;
}

/** The file of a list of guests. */
export function listPath(layout: Layout, list: GuestList): string {
  return `${guestsFolder(layout)}/${listNames[list]}`;
}

/** Reads all guests and both lists. The result includes files that cannot be read or trusted, with their problems. */
export function readGuestFiles(host: HostReader, layout: Layout): GuestFiles {
  const folder = guestsFolder(layout);
  const guests = host
    .list(folder)
    .filter((name) => name.endsWith('.conf'))
    .map((name) => asGuest(name.slice(0, -'.conf'.length)))
    .filter((guest) => guest !== undefined)
    .map((guest) => readGuestFile(host, layout, guest))
    .filter((file) => file !== undefined);
  const [primary, gpu] = [readList(host, layout, 'primary'), readList(host, layout, 'gpu')];
  return {
    guests,
    lists: {primary: namesOf(primary), gpu: namesOf(gpu)},
    problems: [primary, gpu].filter((list) => isIgnored(list)),
  };
}

/** The file of one guest; undefined if it is not set up. */
export function readGuestFile(host: HostReader, layout: Layout, guest: Guest): GuestFile | undefined {
  const path = guestPath(layout, guest);
  if (host.info(path, false) === undefined) return undefined;
  const untrusted = distrust(host, guestsFolder(layout), 'directory') ?? distrust(host, path, 'file');
  const slots = readDesired({kind: 'guest', path}, untrusted, () => parseSlots(host.readText(path) ?? ''));
  return {
    kind: 'guest',
    path,
    guest,
    ...('reason' in slots ? {slots: [], reason: slots.reason} : {slots, unknown: []}),
  };
}

/** The slots in a guest's file. @throws PearasysError `bad-guest`: which line is invalid, or that no slot is given. */
function parseSlots(text: string): readonly Slot[] {
  const slots = new Set<Slot>();
  const bad = (message: string) =>
    new PearasysError({code: 'bad-guest', exitCode: ExitCode.refused, message});
  for (const [index, line] of linesOf(text).entries()) {
    const word = wordOf(line);
    if (word === '') continue;
    const slot = asSlot(word);
    if (slot === undefined) throw bad(`line ${index + 1} is '${line}', expected ${expectedSlot(word)}`);
    slots.add(slot);
  }
  if (slots.size === 0) throw bad('it does not name a device');
  return [...slots];
}

/** The guests whose files contain this slot. */
export function guestsOfSlot(files: GuestFiles, slot: Slot): Guest[] {
  return files.guests.filter(({slots}) => slots.includes(slot)).map(({guest}) => guest);
}

/** The lists for a guest with these devices: none without a display, both with the primary display and another one. */
export function listsFor(
  devices: readonly Pick<Device, 'slot' | 'classCode' | 'bootDisplay'>[],
): ReadonlySet<GuestList> {
  const displays = devices.filter(isDisplay);
  const primary = new Set(displays.filter(({bootDisplay}) => bootDisplay).map(({slot}) => cardOf(slot)));
  const lists = displays.map(({slot}): GuestList => (primary.has(cardOf(slot)) ? 'primary' : 'gpu'));
  return new Set(lists);
}

/** The lists as one word; null without any. */
export function displayOf(lists: ReadonlySet<GuestList>): GuestDisplay | null {
  if (lists.size === 2) return 'both';
  return lists.has('primary') ? 'primary' : lists.has('gpu') ? 'gpu' : null;
}

/** The lists that contain this guest. */
export function listsWith({lists}: GuestFiles, guest: Guest): ReadonlySet<GuestList> {
  return new Set((['primary', 'gpu'] as const).filter((list) => lists[list].includes(guest)));
}

/** Whether the device is a display controller: base class 03 in pci.ids. */
export function isDisplay({classCode}: Pick<Device, 'classCode'>): boolean {
  return classCode >>> 16 === 0x03;
}

/**
 * The text of a guest's file with these slots instead of the previous ones. Comments are kept, and so are the lines of
 * slots that do not change.
 * @param previous undefined for a new file.
 */
export function editSlots(previous: string | undefined, slots: readonly Slot[]): string {
  const left = new Set(slots);
  const lines = linesOf(previous ?? '').filter((line) => {
    const word = wordOf(line);
    if (word === '') return true;
    const slot = asSlot(word);
    return slot !== undefined && left.delete(slot);
  });
  return join([...lines, ...left]);
}

/** The text of a list that contains the guest once (`present`), or not at all. All other lines are kept. */
export function editList(previous: string | undefined, guest: Guest, present: boolean): string {
  const lines = linesOf(previous ?? '');
  const first = lines.findIndex((line) => nameIn(line) === guest);
  const kept = lines.filter((line, index) => nameIn(line) !== guest || (present && index === first));
  return join(present && first < 0 ? [...kept, guest] : kept);
}

/** A list of guests. */
interface GuestListFile extends WantedFile {
  readonly names: readonly string[];
}

function readList(host: HostReader, layout: Layout, list: GuestList): GuestListFile | IgnoredFile {
  const file = {kind: 'guests', path: listPath(layout, list)} as const;
  const {path} = file;
  const untrusted = distrust(host, guestsFolder(layout), 'directory') ?? distrust(host, path, 'file');
  return readDesired(file, untrusted, () => {
    const names = linesOf(host.readText(path) ?? '')
      .map(nameIn)
      .filter((name) => name !== '');
    return {...file, names: [...new Set(names)], unknown: []};
  });
}

function namesOf(list: GuestListFile | IgnoredFile): readonly string[] {
  return isIgnored(list) ? [] : list.names;
}

/** The guest's name in a line. A name may contain blanks and `#`, so only a whole line is a comment. */
function nameIn(line: string): string {
  return line.startsWith('#') ? '' : line.trim();
}

/** The content of a line, without a trailing comment. */
function wordOf(line: string): string {
  return line.replace(/#.*$/, '').trim();
}

function linesOf(text: string): string[] {
  return text === '' ? [] : text.replace(/\r?\n$/, '').split(/\r?\n/);
}

function join(lines: readonly string[]): string {
  return lines.map((line) => `${line}\n`).join('');
}
