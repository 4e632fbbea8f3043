import fs from 'node:fs';
import {basename, dirname, join} from 'node:path';
import {errnoOf} from './errors.js';
import type {FileOwner} from './host.js';
import {draftFolder} from './paths.js';

/** The properties of a new file. */
interface NewFile {
  readonly content: string | Buffer;
  /** Permission bits, regardless of the umask. */
  readonly mode: number;
  /** Default: the user and group of this process. */
  readonly owner?: FileOwner | undefined;
}

/**
 * Makes a whole file or a symbolic link at this path, and replaces an existing one.
 * @param path the kernel follows links in it; a link at its end is replaced.
 */
export function replaceFile(path: string, file: NewFile | {readonly target: string}): void {
  const folder = dirname(path);
  const draft = makeDraft(folder, (place) => {
    if ('target' in file) fs.symlinkSync(file.target, place);
    else writeNewFile(place, file);
  });
  try {
    fs.renameSync(draft, path);
  } catch (error) {
    fs.rmSync(draft, {force: true});
    throw error;
  } finally {
    sweepDrafts(folder);
  }
}

/** Removes the unfinished files of killed runs from this folder. */
export function sweepDrafts(folder: string): void {
  const drafts = join(folder, draftFolder);
  let names: string[];
  try {
    // This program makes no link there.
    if (!fs.lstatSync(drafts).isDirectory()) return;
    names = fs.readdirSync(drafts);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return;
    throw error;
  }
  for (const name of names) if (isStale(name)) fs.rmSync(join(drafts, name), {force: true});
  try {
    fs.rmdirSync(drafts);
  } catch (error) {
    // Another run is writing a file there.
    if (!['ENOTEMPTY', 'EEXIST', 'ENOENT'].includes(errnoOf(error))) throw error;
  }
}

/** Writes a folder's entries to the disk, so that a rename or removal in it survives a power cut. */
export function syncFolder(folder: string): void {
  let file: number;
  try {
    file = fs.openSync(folder, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  } catch (error) {
    // It has been removed since: then its parent's entry matters.
    if (errnoOf(error) === 'ENOENT') return;
    throw error;
  }
  try {
    fs.fsyncSync(file);
  } catch (error) {
    // Some file systems (9p, FUSE) do not support it for folders.
    if (!['EINVAL', 'ENOSYS', 'ENOTSUP', 'EOPNOTSUPP'].includes(errnoOf(error))) throw error;
  } finally {
    fs.closeSync(file);
  }
}

function withoutUmask<Result>(work: () => Result): Result {
  const before = process.umask(0);
  try {
    return work();
  } finally {
    process.umask(before);
  }
}

/** How often the folder of drafts may disappear before it is used, because another run has finished and removes it. */
const mostRaces = 100;

function makeDraft(folder: string, make: (place: string) => void): string {
  const drafts = join(folder, draftFolder);
  const place = join(drafts, ownName());
  for (let race = 1; ; race++)
    try {
      makeDraftFolder(drafts);
      try {
        make(place);
      } catch (error) {
        fs.rmSync(place, {force: true});
        throw error;
      }
      return place;
    } catch (error) {
      if (errnoOf(error) === 'ENOENT' && race < mostRaces) continue;
      sweepDrafts(folder);
      throw error;
    }
}

function makeDraftFolder(drafts: string): void {
  try {
    withoutUmask(() => fs.mkdirSync(drafts, {mode: 0o700}));
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST' || !fs.lstatSync(drafts).isDirectory()) throw error;
  }
}

/** @throws the system's error; the file still exists then. */
function writeNewFile(path: string, {content, mode, owner}: NewFile): void {
  const file = fs.openSync(path, 'wx', 0o600);
  try {
    // On the open file: this continues after a short write, and notices a full disk.
    fs.writeFileSync(file, content);
    const {uid, gid} = fs.fstatSync(file);
    if (owner !== undefined && (owner.uid !== uid || owner.gid !== gid))
      fs.fchownSync(file, owner.uid, owner.gid);
    // After the owner, because a change of owner clears bits.
    fs.fchmodSync(file, mode);
    fs.fsyncSync(file);
  } finally {
    fs.closeSync(file);
  }
}

/**
 * A name that identifies the process that writes the draft: `<pid>.<start>.<boot>`. A draft of a process that has
 * ended, or of an earlier boot, can be removed.
 */
export function draftName(pid: number): string | undefined {
  const stat = readMachine(`/proc/${pid}/stat`);
  // The command comes before it in parentheses, and may contain any character.
  const fields = stat?.slice(stat.lastIndexOf(')') + 2).split(' ');
  const start = fields?.[0] === 'Z' ? undefined : fields?.[19];
  const boot = readMachine('/proc/sys/kernel/random/boot_id')?.trim();
  return start === undefined ? undefined : `${pid}.${start}.${boot ?? ''}`;
}

function ownName(): string {
  return draftName(process.pid) ?? `${process.pid}.0.`;
}

function isStale(name: string): boolean {
  const pid = Number(/^(\d+)\./.exec(basename(name))?.[1]);
  // Other names are not from this program.
  return Number.isInteger(pid) && name !== ownName() && draftName(pid) !== name;
}

/** Of the machine that this runs on, even with another root: the other runs are on this machine. */
function readMachine(path: string): string | undefined {
  try {
    return fs.readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}
