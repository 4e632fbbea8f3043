import {usageError} from '../../host/errors.js';

/**
 * The name of a guest: that of its libvirt domain. It becomes part of file names and of a unit's name. Made only by
 * {@link parseGuest}.
 */
export type Guest = string & {readonly __brand: 'Guest'};

/** Names that would make a guest's file one of the two lists, see `files.ts`. */
const taken = new Set(['single-gpu-passthrough-guests', 'gpu-passthrough-guests']);

/** What a unit's instance may have without being escaped, see systemd.unit(5). */
const plain = /^[A-Za-z0-9:_.-]+$/;

/** libvirt takes any name without `/` and newline; a file's name also has a length. */
const longest = 120;

/** How long the name of a unit may be, in bytes: UNIT_NAME_MAX of systemd. Each byte that is escaped takes four. */
const longestUnit = 255;

/**
 * The guest of this name.
 * @throws PearasysError `bad-guest`, exit code 2: empty, longer than 120 bytes or too long for systemd once escaped,
 *   with `/` or a control character, with a dot, dash or blank in front or a blank at the end, or one of the names of
 *   the two lists of guests.
 */
export function parseGuest(text: string): Guest {
  const fault = faultOf(text);
  if (fault !== undefined)
    throw usageError(
      `'${text}' cannot be the name of a guest: ${fault}`,
      'use the name of the libvirt domain, as `virsh list --all` shows it',
      'bad-guest',
    );
  return text as Guest;
}

/** Which rule a name breaks; undefined for one that is fine. */
function faultOf(text: string): string | undefined {
  const bytes = Buffer.byteLength(text);
  if (text === '') return 'it is empty';
  if (taken.has(text)) return 'the name is reserved for a list of guests';
  if (bytes > longest) return `it has ${bytes} bytes; at most ${longest} are allowed`;
  if (text.includes('/')) return 'it contains a /';
  if (/\p{Cc}/u.test(text)) return 'it contains a control character';
  if (/^\./.test(text)) return 'it begins with a dot, as a hidden file does';
  if (/^-/.test(text)) return 'it begins with a dash, as an option does';
  if (/^\s/.test(text)) return 'it begins with a blank';
  if (/\s$/.test(text)) return 'it ends with a blank';
  if (Buffer.from(text).toString() !== text) return 'it is not valid Unicode';
  if (guestUnit(text as Guest).length > longestUnit)
    return `the name of its unit, with characters escaped, is longer than ${longestUnit} bytes`;
  return undefined;
}

/** The guest of this name; undefined when nothing can be called so, see {@link parseGuest}. */
export function asGuest(text: string): Guest | undefined {
  return faultOf(text) === undefined ? (text as Guest) : undefined;
}

/**
 * `pearasys-guest@<guest>.service`. A name of letters, digits, `:`, `_`, `.` and `-` stands there as it is; any other
 * one is escaped as systemd-escape(1) does it, which is what the libvirt hook calls for it.
 */
export function guestUnit(guest: Guest): string {
  return `pearasys-guest@${plain.test(guest) ? guest : escape(guest)}.service`;
}

/** The guest of a unit's instance, as `%i` has it. @throws PearasysError `bad-guest`. */
export function guestOfInstance(instance: string): Guest {
  const text = instance.replace(/(?:\\x[0-9a-f]{2})+/g, (codes) =>
    Buffer.from(codes.replaceAll('\\x', ''), 'hex').toString(),
  );
  return parseGuest(text);
}

function escape(text: string): string {
  return [...Buffer.from(text)]
    .map((byte) => {
      const character = String.fromCharCode(byte);
      return /[A-Za-z0-9:_.]/.test(character) ? character : `\\x${byte.toString(16).padStart(2, '0')}`;
    })
    .join('');
}
