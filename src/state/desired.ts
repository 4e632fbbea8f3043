/**
 * The configuration files that describe the desired state. Each kind of file has a reader in a folder of its own,
 * which returns used and ignored files of the types declared here. The notes about them are the same for all kinds.
 */
import {PearasysError} from '../host/errors.js';

/** The kinds, each with the text that precedes a path in messages. */
const kinds = {
  record: 'the record',
  vgpu: 'the vGPU record',
  sriov: 'the SR-IOV record',
  driverctl: "driverctl's file",
  definition: 'the definition',
  guest: "the guest's file",
  guests: 'the list of guests',
  settings: 'the settings file',
} as const;

/** The kind of a file. */
export type DesiredKind = keyof typeof kinds;

/** A file that describes a desired state. */
interface DesiredFile {
  readonly kind: DesiredKind;
  readonly path: string;
}

/** A file that is used. Each kind adds the subject of the file, and its desired state. */
export interface WantedFile extends DesiredFile {
  readonly reason?: undefined;
  /** Keys written by a newer version: they are kept when the file is rewritten. */
  readonly unknown: readonly UnknownKey[];
}

/** A file that is ignored and not changed. */
export interface IgnoredFile extends DesiredFile {
  /** Why it is ignored: it cannot be trusted or read, or is invalid. */
  readonly reason: string;
}

/** A key that this version does not know: kept, reported, and without effect. */
export interface UnknownKey {
  readonly key: string;
  readonly value: string;
}

/**
 * The content of a file, or why it is ignored.
 * @param untrusted why the file cannot be trusted; undefined if it can.
 * @param read throws a PearasysError for a file that cannot be read or is invalid.
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

/** The keys of both lists; if both have the same key, that of the first. */
export function mergeUnknown(first: readonly UnknownKey[], second: readonly UnknownKey[]): UnknownKey[] {
  return [...first, ...second.filter(({key}) => !first.some((one) => one.key === key))];
}

/** The note on an ignored file. @param by what ignores it, if others use it. */
export function ignoredNote({kind, path, reason}: IgnoredFile, by = ''): string {
  return `${kinds[kind]} ${path} is ignored${by}: ${reason}`;
}

/** The notes on the unknown keys of a file. */
export function unknownNotes({path, unknown}: Pick<WantedFile, 'path' | 'unknown'>): string[] {
  return unknown.map(
    ({key}) => `${path}: ${key} is not known to this version: it is kept, and has no effect`,
  );
}

/** All notes on these files. */
export function desiredNotes(files: readonly (WantedFile | IgnoredFile)[]): string[] {
  return files.flatMap((file) => (isIgnored(file) ? [ignoredNote(file)] : unknownNotes(file)));
}
