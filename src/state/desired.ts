/**
 * What files say that is wanted. Each kind of such a file has a reader in a folder of its own, which returns wanted and
 * ignored files of the shape that is declared here; what is told of them is the same for all kinds.
 */
import {PearasysError} from '../host/errors.js';

/** The kinds, each with its words in front of a path. */
const kinds = {
  record: 'the record',
  driverctl: "driverctl's file",
  definition: 'the definition',
  guest: "the guest's file",
  guests: 'the list of guests',
  settings: 'the settings file',
} as const;

/** What a file is about. */
export type DesiredKind = keyof typeof kinds;

/** A file that says what is wanted. */
interface DesiredFile {
  readonly kind: DesiredKind;
  readonly path: string;
}

/** One that is obeyed. Each kind adds which thing it is about, and what is wanted of it. */
export interface WantedFile extends DesiredFile {
  readonly reason?: undefined;
  /** What a newer version has written: it stays when the file is rewritten. */
  readonly unknown: readonly UnknownKey[];
}

/** One that is ignored, and left as it is. */
export interface IgnoredFile extends DesiredFile {
  /** Why: it may not be trusted, cannot be read, or is not valid. */
  readonly reason: string;
}

/** A key that this version does not know: kept, reported, and without effect. */
export interface UnknownKey {
  readonly key: string;
  readonly value: string;
}

/**
 * What a file says, or why it is ignored.
 * @param untrusted why it may not be obeyed, whatever it says; undefined when it may.
 * @param read throws a PearasysError for a file that cannot be read or is not valid.
 */
export function readDesired<Wanted>(
  file: DesiredFile,
  untrusted: string | undefined,
  read: () => Wanted,
): Wanted | IgnoredFile {
  const {kind, path} = file;
  if (untrusted !== undefined) return {kind, path, reason: untrusted};
  try {
    return read();
  } catch (error) {
    if (!(error instanceof PearasysError)) throw error;
    return {kind, path, reason: error.details[0] ?? error.message};
  }
}

/** Whether the file is ignored. */
export function isIgnored<File extends WantedFile | IgnoredFile>(
  file: File,
): file is Extract<File, IgnoredFile> {
  return file.reason !== undefined;
}

/** The keys of both; where both have one, that of the first. */
export function mergeUnknown(first: readonly UnknownKey[], second: readonly UnknownKey[]): UnknownKey[] {
  return [...first, ...second.filter(({key}) => !first.some((one) => one.key === key))];
}

/** The note on a file that is ignored. @param by who ignores it, where others do not. */
export function ignoredNote({kind, path, reason}: IgnoredFile, by = ''): string {
  return `${kinds[kind]} ${path} is ignored${by}: ${reason}`;
}

/** The notes on what a file has that this version does not know; none where it knows all. */
export function unknownNotes({path, unknown}: Pick<WantedFile, 'path' | 'unknown'>): string[] {
  return unknown.map(
    ({key}) => `${path}: ${key} is not known to this version: it is kept, and has no effect`,
  );
}

/** All notes on these files. */
export function desiredNotes(files: readonly (WantedFile | IgnoredFile)[]): string[] {
  return files.flatMap((file) => (isIgnored(file) ? [ignoredNote(file)] : unknownNotes(file)));
}
