import {usageError} from '../../host/errors.js';

const units = ['K', 'M', 'G', 'T'] as const;

/**
 * A size in bytes, from a number with a unit such as `2M` or `16GiB`.
 * @throws PearasysError `usage`: without a unit it could be a number of bytes, of kilobytes or of pages.
 */
export function parseSize(text: string): number {
  const [, digits = '', unit = ''] = /^(\d{1,12})(?:([KMGT])(?:i?B)?)?$/i.exec(text) ?? [];
  const power = units.indexOf(unit.toUpperCase() as (typeof units)[number]) + 1;
  if (digits === '' || (power === 0 && Number(digits) !== 0))
    throw usageError(`'${text}' is not a size`, 'a size is a number and a unit: 512M, 4G');
  const bytes = Number(digits) * 1024 ** power;
  if (!Number.isSafeInteger(bytes)) throw usageError(`'${text}' is too large for a size`);
  return bytes;
}

/** A size with the largest unit that leaves a whole number: `2M`, `1536M`, `0`. */
export function printSize(bytes: number): string {
  let power = 0;
  while (bytes > 0 && power < units.length && bytes % 1024 ** (power + 1) === 0) power += 1;
  return `${bytes / 1024 ** power}${units[power - 1] ?? ''}`;
}
