import fs from 'node:fs';
import {basename, dirname, join} from 'node:path';
import {errnoOf, FileFault} from './errors.js';

/** The number of links that the kernel follows in one path, see path_resolution(7). */
const mostLinks = 40;

const {O_DIRECTORY, O_NOCTTY, O_NOFOLLOW, O_NONBLOCK, O_RDONLY} = fs.constants;

/** The mode of new folders: readable by all users. */
const folderMode = 0o755;

/** open(2): a handle without opening the file, which has no effect on a device or FIFO. Node does not export it. */
const O_PATH = 0o10000000;

/** An open folder: replacing it has no effect on this handle. Must be closed. */
interface FolderHandle {
  /** The path of an entry of the folder, for a system call that does not follow a link as the last part. */
  at(name: string): string;
  close(): void;
}

/** The folder that contains the last part of a path. */
interface ParentHandle extends FolderHandle {
  /** The last part of the path. */
  readonly name: string;
  /** The path of the folder on this machine. */
  readonly real: string;
  /** Folders in which a missing folder was created. */
  readonly changed: readonly string[];
}

/**
 * The folder that contains all files of a machine. `/` is this machine itself, whose paths the kernel resolves. For
 * any other folder, paths are resolved as openat2(2) with RESOLVE_IN_ROOT does: an absolute link starts at the root,
 * `..` never leads above it, and the 41st link is an error. The opened file is compared with the resolved path, so that
 * a link that another process creates meanwhile is not followed out of the root either.
 */
export class RootFolder {
  readonly #isMachine: boolean;
  readonly #given: string;
  #real: string | undefined;

  constructor(root: string) {
    this.#isMachine = root === '/';
    this.#given = root;
  }

  /**
   * The path on this machine. Parts that do not exist are kept unchanged.
   * @param follow whether a link as the last part is followed.
   * @throws FileFault ELOOP.
   */
  locate(path: string, follow: boolean): string {
    if (this.#isMachine) return path;
    const left = path.split('/').filter((part) => part !== '');
    const done: string[] = [];
    let links = 0;
    for (let part = left.shift(); part !== undefined; part = left.shift()) {
      if (part === '.') continue;
      if (part === '..') {
        done.pop();
        continue;
      }
      const target = follow || left.length > 0 ? readLink(join(this.#path, ...done, part)) : undefined;
      if (target === undefined) {
        done.push(part);
        continue;
      }
      if (++links > mostLinks) throw new FileFault('ELOOP', `its path has more than ${mostLinks} links`);
      if (target.startsWith('/')) done.length = 0;
      left.unshift(...target.split('/').filter((one) => one !== ''));
    }
    return join(this.#path, ...done);
  }

  /** The path relative to the root, of a path that {@link locate} returned. */
  inside(real: string): string {
    return this.#isMachine ? real : real.slice(this.#path.length) || '/';
  }

  /**
   * The bytes of a regular file. Files of other kinds are not opened.
   * @param limit the maximum size in bytes.
   * @throws FileFault for a file that is too large or special, or was replaced during the call.
   * @throws Error of the system call that failed.
   */
  read(path: string, limit: number): Buffer {
    const file = this.#open(this.locate(path, true), limit);
    try {
      return readAll(file, limit);
    } finally {
      fs.closeSync(file);
    }
  }

  /** The first bytes of a regular file, or those from an offset, at most `bytes`. @throws as {@link read}, but accepts a file of any size. */
  readStart(path: string, bytes: number, offset = 0): Buffer {
    const file = this.#open(this.locate(path, true), Number.MAX_SAFE_INTEGER);
    try {
      const start = Buffer.alloc(bytes);
      return start.subarray(0, fs.readSync(file, start, 0, bytes, offset));
    } finally {
      fs.closeSync(file);
    }
  }

  /** The names in a folder. @throws Error of the system call that failed. */
  list(path: string): string[] {
    if (this.#isMachine) return fs.readdirSync(path);
    const handle = this.#openPath(this.locate(path, true), O_DIRECTORY);
    try {
      return fs.readdirSync(descriptorPath(handle));
    } finally {
      fs.closeSync(handle);
    }
  }

  /**
   * Opens the folder that contains the last part of a path. This part may be missing, or a link, which is not followed.
   * @param create whether missing folders are created (mode 0755, regardless of the umask).
   * @throws Error of the system call that failed.
   */
  openParent(path: string, create: boolean): ParentHandle {
    const located = this.locate(path, false);
    const real = dirname(located);
    const changed: string[] = [];
    const handle = this.#openFolder(real, create, changed);
    return {...handle, name: basename(located), real, changed};
  }

  /** @param changed receives the folders in which a missing folder is created. */
  #openFolder(real: string, create: boolean, changed: string[]): FolderHandle {
    if (this.#isMachine) {
      if (create) makeFolders(real, changed);
      return {at: (name) => join(real, name), close: () => undefined};
    }
    let handle: number;
    try {
      handle = this.#openPath(real, O_DIRECTORY);
    } catch (error) {
      if (!create || errnoOf(error) !== 'ENOENT') throw error;
      if (real === this.#path) {
        makeFolders(real, changed);
        return this.#openFolder(real, create, changed);
      }
      const parent = this.#openFolder(dirname(real), true, changed);
      let isNew: boolean;
      try {
        isNew = makeFolder(parent.at(basename(real)));
      } finally {
        parent.close();
      }
      handle = this.#openPath(real, O_DIRECTORY);
      if (isNew) {
        changed.push(dirname(real));
        // The umask may have cleared some of the bits.
        fs.chmodSync(descriptorPath(handle), folderMode);
      }
    }
    return {at: (name) => `${descriptorPath(handle)}/${name}`, close: () => fs.closeSync(handle)};
  }

  #open(real: string, limit: number): number {
    const flags = O_RDONLY | O_NONBLOCK | O_NOCTTY;
    if (this.#isMachine) {
      // Opening a device can have an effect.
      checkRegular(fs.statSync(real), limit);
      return fs.openSync(real, flags);
    }
    const handle = this.#openPath(real, 0);
    try {
      checkRegular(fs.fstatSync(handle), limit);
      return fs.openSync(descriptorPath(handle), flags);
    } finally {
      fs.closeSync(handle);
    }
  }

  /** A handle of the file at a resolved path. Fails if the path leads elsewhere by now. */
  #openPath(real: string, flags: number): number {
    const handle = fs.openSync(real, O_PATH | O_NOFOLLOW | flags);
    if (fs.readlinkSync(descriptorPath(handle)) === real) return handle;
    fs.closeSync(handle);
    throw new FileFault('EXDEV', 'a folder above it was replaced at the same time');
  }

  /** The root without links. It may not exist yet: it is created with its first file. */
  get #path(): string {
    this.#real ??= withoutLinks(this.#given);
    return this.#real;
  }
}

/** An open file that this process inherited: standard input, or the pipe of a shell's `<(COMMAND)`. */
const givenOpen = /^(?:-|\/dev\/stdin|\/(?:dev|proc\/self)\/fd\/(\d+))$/;

/**
 * The bytes of a file that is named on the command line: a regular file of this machine, or an inherited one (`-`,
 * `/dev/stdin`, `/dev/fd/N`, `/proc/self/fd/N`), which may also be a pipe, a socket or a terminal. A FIFO or device
 * with its own name is refused: opening it may block forever, or have an effect.
 * @param limit the maximum size in bytes.
 * @throws as {@link RootFolder.read}.
 */
export function readNamedFile(path: string, limit = 1 << 20): Buffer {
  const machine = new RootFolder('/');
  const given = givenOpen.exec(path);
  if (given === null) return machine.read(path, limit);
  const descriptor = Number(given[1] ?? 0);
  const stat = fs.fstatSync(descriptor);
  if (stat.isFile() || stat.isDirectory()) return machine.read(descriptorPath(descriptor), limit);
  if (!isNonBlocking(descriptor)) return readAll(descriptor, limit);
  // Other processes share O_NONBLOCK, so it is not cleared. Reads of the reopened file wait for the writer.
  const file = fs.openSync(descriptorPath(descriptor), O_RDONLY | O_NOCTTY);
  try {
    return readAll(file, limit);
  } finally {
    fs.closeSync(file);
  }
}

/** Whether O_NONBLOCK is set. The flags are octal, see proc_pid_fdinfo(5). */
function isNonBlocking(descriptor: number): boolean {
  const flags = /^flags:\s*([0-7]+)/m.exec(fs.readFileSync(`/proc/self/fdinfo/${descriptor}`, 'utf8'));
  return (parseInt(flags?.[1] ?? '0', 8) & O_NONBLOCK) !== 0;
}

/** The path with all links resolved, as far as it exists. */
function withoutLinks(path: string): string {
  try {
    return fs.realpathSync(path);
  } catch (error) {
    const folder = dirname(path);
    if (errnoOf(error) !== 'ENOENT' || folder === path) return path;
    return join(withoutLinks(folder), basename(path));
  }
}

/** The kind of a file as text: `a FIFO`. */
export function kindOfFile(stat: fs.Stats): string {
  if (stat.isFile()) return 'a regular file';
  if (stat.isDirectory()) return 'a directory';
  if (stat.isFIFO()) return 'a FIFO';
  if (stat.isSocket()) return 'a socket';
  return stat.isSymbolicLink() ? 'a symbolic link' : 'a device node';
}

/** A size as text: `1 MiB`. */
export function sizeWords(bytes: number): string {
  if (bytes % (1 << 20) === 0) return `${bytes / (1 << 20)} MiB`;
  return bytes % (1 << 10) === 0 ? `${bytes / (1 << 10)} KiB` : `${bytes} bytes`;
}

function checkRegular(stat: fs.Stats, limit: number): void {
  const expected = `expected a regular file of at most ${sizeWords(limit)}`;
  if (!stat.isFile())
    throw new FileFault(stat.isDirectory() ? 'EISDIR' : 'EINVAL', `it is ${kindOfFile(stat)}; ${expected}`);
  if (stat.size > limit) throw tooLarge(limit);
}

function tooLarge(limit: number): FileFault {
  return new FileFault('EFBIG', `it is too large; expected at most ${sizeWords(limit)}`);
}

/** Reads to the end: the file may be larger than stat(2) reported, and procfs reports 0. */
function readAll(file: number, limit: number): Buffer {
  const chunks: Buffer[] = [];
  let total = 0;
  let next = Math.min(fs.fstatSync(file).size, limit) + 1;
  for (;;) {
    const chunk = Buffer.allocUnsafe(Math.max(next, 1 << 12));
    const length = fs.readSync(file, chunk);
    if (length === 0) return chunks.length === 1 ? (chunks[0] ?? chunk) : Buffer.concat(chunks);
    total += length;
    if (total > limit) throw tooLarge(limit);
    chunks.push(chunk.subarray(0, length));
    next = 1 << 16;
  }
}

function makeFolders(path: string, changed: string[]): void {
  let isNew: boolean;
  try {
    isNew = makeFolder(path);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
    makeFolders(dirname(path), changed);
    isNew = makeFolder(path);
  }
  if (!isNew) return;
  changed.push(dirname(path));
  fs.chmodSync(path, folderMode);
}

/** @returns whether the folder is new. If it is a file of another kind, the next step fails with the kernel's error. */
function makeFolder(path: string): boolean {
  try {
    fs.mkdirSync(path, folderMode);
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') return false;
    throw error;
  }
  return true;
}

function descriptorPath(descriptor: number): string {
  return `/proc/self/fd/${descriptor}`;
}

/** The target of a link; undefined if the path is not a link or does not exist. */
function readLink(path: string): string | undefined {
  try {
    return fs.lstatSync(path, {throwIfNoEntry: false})?.isSymbolicLink() === true
      ? fs.readlinkSync(path)
      : undefined;
  } catch {
    return undefined;
  }
}
