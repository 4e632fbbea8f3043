import fs from 'node:fs';
import {basename, dirname, join} from 'node:path';
import {errnoOf} from './errors.js';
import type {FileOwner} from './host.js';
import {draftFolder} from './paths.js';

/** What a new file is to be. */
export interface NewFile {
  readonly content: string;
  /** Permission bits; the umask changes nothing. */
  readonly mode: number;
  /** Default: the user and group of this process. */
  readonly owner?: FileOwner | undefined;
}

/**
 * Makes a whole file at this path, or a symbolic link, in place of what is there.
 * @param path links in it are followed by the kernel; a link in the last place is replaced.
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

/** Removes what killed runs were making in this folder. */
export function sweepDrafts(folder: string): void {
  const drafts = join(folder, draftFolder);
  let names: string[];
  try {
    // A link there is not ours.
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
    // Another run is making a file there.
    if (!['ENOTEMPTY', 'EEXIST', 'ENOENT'].includes(errnoOf(error))) throw error;
  }
}

/** Writes a folder's entries to the disk, so that a rename or removal in it outlives a power cut. */
export function syncFolder(folder: string): void {
  let file: number;
  try {
    file = fs.openSync(folder, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  } catch (error) {
    // It went away since: then it is its parent's entry that matters.
    if (errnoOf(error) === 'ENOENT') return;
    throw error;
  }
  try {
    fs.fsyncSync(file);
  } catch (error) {
    // Some file systems (9p, FUSE) do not have it for folders.
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

/** Times that the folder of drafts may vanish between being made and being used, as another run is done with it. */
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

/** @throws what the system answered, with the file still there. */
function writeNewFile(path: string, {content, mode, owner}: NewFile): void {
  const file = fs.openSync(path, 'wx', 0o600);
  try {
    // On the open file: it goes on after a short write, and finds the disk full.
    fs.writeFileSync(file, content);
    const {uid, gid} = fs.fstatSync(file);
    if (owner !== undefined && (owner.uid !== uid || owner.gid !== gid))
      fs.fchownSync(file, owner.uid, owner.gid);
    // After the owner: a change of owner takes bits away.
    fs.fchmodSync(file, mode);
    fs.fsyncSync(file);
  } finally {
    fs.closeSync(file);
  }
}

/**
 * A name that says whose draft it is: `<pid>.<start>.<boot>`. A draft of a process that has ended, or of an earlier
 * boot, is nobody's any more.
 */
export function draftName(pid: number): string | undefined {
  const stat = readMachine(`/proc/${pid}/stat`);
  // The command stands in brackets before it, and may have any character in it.
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
  // What is not named so was made by somebody else.
  return Number.isInteger(pid) && name !== ownName() && draftName(pid) !== name;
}

/** Of the machine this runs on, whatever the root is: that is where the other runs are. */
function readMachine(path: string): string | undefined {
  try {
    return fs.readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}
