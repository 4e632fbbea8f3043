import {usageError} from '../../host/errors.js';

/**
 * The name of a guest, which is the name of its libvirt domain. It is part of file names and of a unit's name. Only
 * {@link parseGuest} creates one.
 */
export type Guest = string & {readonly __brand: 'Guest'};

/** Names with which a guest's file would be one of the two lists, see `guest-files.ts`. */
const taken = new Set(['single-gpu-passthrough-guests', 'gpu-passthrough-guests']);

/** The characters that are not escaped in a unit's instance, see systemd.unit(5). */
const plain = /^[A-Za-z0-9:_.-]+$/;

/** In bytes. libvirt accepts any name without `/` and newline, but the length of a file's name is limited. */
const longest = 120;

/** The maximum length of a unit's name in bytes: systemd's UNIT_NAME_MAX. An escaped byte takes four. */
const longestUnit = 255;

/**
 * The guest with this name.
 * @throws PearasysError `bad-guest`, exit code 2: empty, longer than 120 bytes or too long for systemd after escaping;
 *   contains `/` or a control character; starts with a dot, dash or blank, or ends with a blank; or is the name of one
 *   of the two lists of guests.
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

/** Which rule a name violates; undefined for a valid name. */
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

/** The guest with this name; undefined for an invalid name, see {@link parseGuest}. */
export function asGuest(text: string): Guest | undefined {
  return faultOf(text) === undefined ? (text as Guest) : undefined;
}

/**
 * `pearasys-guest@<guest>.service`. A name of letters, digits, `:`, `_`, `.` and `-` is used unchanged. Any other name
 * is escaped as by systemd-escape(1), which the libvirt hook calls.
 */
export function guestUnit(guest: Guest): string {
  return `pearasys-guest@${instanceOf(guest)}.service`;
}

/** The unit that keeps the host awake while the guest has devices. systemd stops it after that of {@link guestUnit}. */
export function awakeUnit(guest: Guest): string {
  return `pearasys-awake@${instanceOf(guest)}.service`;
}

function instanceOf(guest: Guest): string {
  return plain.test(guest) ? guest : escape(guest);
}

/** The guest of a unit's instance, escaped as in `%i`. @throws PearasysError `bad-guest`. */
export function guestOfInstance(instance: string): Guest {
  return parseGuest(unescapeInstance(instance));
}

/** The text that is escaped in a unit's name, see systemd-escape(1). */
export function unescapeInstance(instance: string): string {
  return instance.replace(/(?:\\x[0-9a-f]{2})+/g, (codes) =>
    Buffer.from(codes.replaceAll('\\x', ''), 'hex').toString(),
  );
}

function escape(text: string): string {
  return [...Buffer.from(text)]
    .map((byte) => {
      const character = String.fromCharCode(byte);
      return /[A-Za-z0-9:_.]/.test(character) ? character : `\\x${byte.toString(16).padStart(2, '0')}`;
    })
    .join('');
}
