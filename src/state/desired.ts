/** Something that this version does not know, as a newer one may have written: kept, reported, and without effect. */
export interface UnknownKey {
  readonly key: string;
  readonly value: string;
}

/** The keys of both; where both have one, that of the first. */
export function mergeUnknown(first: readonly UnknownKey[], second: readonly UnknownKey[]): UnknownKey[] {
  return [...first, ...second.filter(({key}) => !first.some((one) => one.key === key))];
}

/** The note on what a file has that this version does not know; none where it knows all. */
export function unknownNotes(path: string, unknown: readonly UnknownKey[]): string[] {
  return unknown.map(
    ({key}) => `${path}: ${key} is not known to this version: it is kept, and has no effect`,
  );
}
