import {randomUUID} from 'node:crypto';
import {usageError} from '../../host/errors.js';

/** The name of a mediated device, as the kernel prints it: `83c32df7-d52e-4ec1-9668-1f3c7e4df107`. Made only by {@link parseUuid} and {@link newUuid}. */
export type Uuid = string & {readonly __brand: 'Uuid'};

const canonical = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/**
 * The UUID in the text, in any form of RFC 9562 that mdevctl accepts: with or without hyphens, in braces, as a URN,
 * in either case. Undefined if it is not one.
 */
export function asUuid(text: string): Uuid | undefined {
  if (canonical.test(text)) return text as Uuid;
  const bare = /^(?:urn:uuid:|\{)?([0-9a-f-]+)(\})?$/.exec(text.toLowerCase());
  if (bare === null || text.startsWith('{') !== (bare[2] === '}')) return undefined;
  const digits = bare[1] ?? '';
  if (canonical.test(digits)) return digits as Uuid;
  return /^[0-9a-f]{32}$/.test(digits)
    ? (digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5') as Uuid)
    : undefined;
}

/** @throws PearasysError `bad-uuid`, exit code 2. */
export function parseUuid(text: string): Uuid {
  const uuid = asUuid(text);
  if (uuid === undefined)
    throw usageError(
      `'${text}' is not a UUID`,
      'a UUID is 32 hexadecimal digits, as in 83c32df7-d52e-4ec1-9668-1f3c7e4df107; `pearasys mdev list` shows those in use',
      'bad-uuid',
    );
  return uuid;
}

/** A random UUID. */
export function newUuid(): Uuid {
  return randomUUID() as Uuid;
}
