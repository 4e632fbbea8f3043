import fs from 'node:fs';
import {basename, dirname, join} from 'node:path';
import {errnoOf, FileFault} from './errors.js';

/** How many links the kernel follows in one path, see path_resolution(7). */
const mostLinks = 40;

const {O_DIRECTORY, O_NOCTTY, O_NOFOLLOW, O_NONBLOCK, O_RDONLY} = fs.constants;

/** The mode of new folders: all users may read them. */
const folderMode = 0o755;

/** open(2): a handle of a file that is not opened, so that a device or FIFO has no effect. Node has no name for it. */
const O_PATH = 0o10000000;

/** A folder that is open, so that nobody can put another one in its place; to be closed. */
export interface FolderHandle {
  /** The path of an entry of the folder, for one system call that does not follow a link there. */
  at(name: string): string;
  close(): void;
}

/** The folder that a path is in. */
export interface ParentHandle extends FolderHandle {
  /** The last part of the path. */
  readonly name: string;
  /** Where the folder is on this machine. */
  readonly real: string;
  /** Folders in which one was made. */
  readonly changed: readonly string[];
}

/**
 * The folder below which all files of a machine are. `/` is this machine itself, whose paths the kernel resolves.
 * For any other folder paths are resolved as openat2(2) with RESOLVE_IN_ROOT does: an absolute link leads to the
 * root, `..` never above it, and the 41st link is an error. What is opened is compared with what was resolved, so
 * that a link which somebody puts there meanwhile leads nowhere either.
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
   * Where the path is on this machine. What does not exist is left as it is.
   * @param follow whether a link in the last place is followed.
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

  /** The path as seen from the root, of a path that {@link locate} has answered. */
  inside(real: string): string {
    return this.#isMachine ? real : real.slice(this.#path.length) || '/';
  }

  /**
   * The bytes of a regular file. Anything else is not opened, let alone read.
   * @param limit bytes that it may have.
   * @throws FileFault for a file that is too large, special, or not where it was a moment ago.
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

  /** The first bytes of a regular file, at most so many. @throws as {@link read}, whatever the file's size. */
  readStart(path: string, bytes: number): Buffer {
    const file = this.#open(this.locate(path, true), Number.MAX_SAFE_INTEGER);
    try {
      const start = Buffer.alloc(bytes);
      return start.subarray(0, fs.readSync(file, start, 0, bytes, 0));
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
   * Opens the folder that a path is in; its last part may be missing, or be a link, which is not followed.
   * @param create whether missing folders are made (0755, whatever the umask).
   * @throws Error of the system call that failed.
   */
  openParent(path: string, create: boolean): ParentHandle {
    const located = this.locate(path, false);
    const real = dirname(located);
    const changed: string[] = [];
    const handle = this.#openFolder(real, create, changed);
    return {...handle, name: basename(located), real, changed};
  }

  /** @param changed gets the folders in which one is made. */
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
        // The umask has taken its part of the bits.
        fs.chmodSync(descriptorPath(handle), folderMode);
      }
    }
    return {at: (name) => `${descriptorPath(handle)}/${name}`, close: () => fs.closeSync(handle)};
  }

  #open(real: string, limit: number): number {
    const flags = O_RDONLY | O_NONBLOCK | O_NOCTTY;
    if (this.#isMachine) {
      // Opening a device may already have an effect.
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

  /** A handle of what is at a resolved path, and only there. */
  #openPath(real: string, flags: number): number {
    const handle = fs.openSync(real, O_PATH | O_NOFOLLOW | flags);
    if (fs.readlinkSync(descriptorPath(handle)) === real) return handle;
    fs.closeSync(handle);
    throw new FileFault('EXDEV', 'a folder above it was replaced at the same time');
  }

  /** Without links. It may not be there yet: it is made with the first file in it. */
  get #path(): string {
    this.#real ??= withoutLinks(this.#given);
    return this.#real;
  }
}

/** A file that this process inherited open: standard input, or the pipe of a shell's `<(COMMAND)`. */
const givenOpen = /^(?:-|\/dev\/stdin|\/(?:dev|proc\/self)\/fd\/(\d+))$/;

/**
 * The bytes of a file that is named on the command line: a regular file of this machine, or one that is open already
 * (`-`, `/dev/stdin`, `/dev/fd/N`, `/proc/self/fd/N`), which may be a pipe, a socket or a terminal too. A FIFO or device
 * by its own name is refused: opening it may never return, or have an effect.
 * @param limit bytes that it may have.
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
  // Whoever shares it wants it so; opened anew it waits for the writer.
  const file = fs.openSync(descriptorPath(descriptor), O_RDONLY | O_NOCTTY);
  try {
    return readAll(file, limit);
  } finally {
    fs.closeSync(file);
  }
}

/** See proc_pid_fdinfo(5): the flags are octal. */
function isNonBlocking(descriptor: number): boolean {
  const flags = /^flags:\s*([0-7]+)/m.exec(fs.readFileSync(`/proc/self/fdinfo/${descriptor}`, 'utf8'));
  return (parseInt(flags?.[1] ?? '0', 8) & O_NONBLOCK) !== 0;
}

/** The path without links, as far as it exists. */
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

/** `1 MiB`. */
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

/** Its size may be more than stat(2) said, or not be told: procfs says 0. */
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

/** @returns whether it is new. What is there and is no folder fails at the next step, with the kernel's own reason. */
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

/** The target of a link; undefined for what is none, or is not there. */
function readLink(path: string): string | undefined {
  try {
    return fs.lstatSync(path, {throwIfNoEntry: false})?.isSymbolicLink() === true
      ? fs.readlinkSync(path)
      : undefined;
  } catch {
    return undefined;
  }
}
