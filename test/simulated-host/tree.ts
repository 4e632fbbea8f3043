import fs from 'node:fs';
import {posix} from 'node:path';
import {errnoOf} from '../../src/host/errors.js';
import {MemoryFiles, type FileStat} from './memory-files.js';

/** A node in /dev. It lies in the folder as an empty file: making real ones needs privileges and could reach hardware. */
export interface DeviceNode {
  readonly type: 'block' | 'character';
  /** `226:0` */
  readonly number: string;
  readonly mode: number;
}

/** How many links a path may go through, as the kernel's MAXSYMLINKS. */
const mostLinks = 40;

/** The kernel's own file systems: only the simulated kernel changes what is there. */
const kernelFolders = ['/sys', '/proc'];
const isKernels = /^\/(?:sys|proc)(?:\/|$)/;

/**
 * A folder that stands for the root of a machine. Paths are the machine's; nothing here leaves the folder. What the
 * kernel shows is kept in memory until somebody asks for {@link folder}.
 */
export class Tree {
  /** The folder, which may be without what is in /sys and /proc. */
  readonly root: string;
  /** The nodes in /dev, by path. */
  readonly nodes = new Map<string, DeviceNode>();

  /** What the kernel shows; undefined once it is in the folder. */
  #memory: MemoryFiles | undefined = new MemoryFiles(kernelFolders);
  /** Permissions that a new file does not get by itself: the umask of the process. */
  readonly #withheld: number;

  constructor(root: string) {
    this.root = root;
    for (const folder of kernelFolders) fs.mkdirSync(root + folder, {mode: 0o777});
    this.#withheld = 0o777 & ~fs.statSync(root + (kernelFolders[0] ?? '')).mode;
    for (const folder of kernelFolders) fs.chmodSync(root + folder, 0o755);
  }

  /** The folder with all of the machine in it: for other programs, and for what is not to go through this class. */
  get folder(): string {
    const memory = this.#memory;
    this.#memory = undefined;
    for (const [path, entry] of memory?.entries ?? []) {
      if (entry.kind === 'directory') this.directory(path);
      else if (entry.kind === 'link') this.textLink(path, entry.text);
      else this.file(path, entry.content, entry.mode);
    }
    return this.root;
  }

  /** Where a path is on the machine that this runs on. */
  onDisk(path: string): string {
    return (isKernels.test(path) ? this.folder : this.root) + path;
  }

  /** The files that this path is among, when they are in memory only. */
  memory(path: string): MemoryFiles | undefined {
    return this.#memory !== undefined && isKernels.test(path) ? this.#memory : undefined;
  }

  /** Removes the folder, and what is in memory. */
  dispose(): void {
    this.#memory = undefined;
    fs.rmSync(this.root, {recursive: true, force: true});
  }

  /** Writes a file, with the folders above it. */
  file(path: string, content: string | Uint8Array, mode = 0o444): void {
    const memory = this.memory(path);
    if (memory !== undefined) {
      memory.file(this.#place(memory, path), content, mode);
      return;
    }
    const target = this.root + path;
    try {
      fs.writeFileSync(target, content, {mode, flag: 'wx'});
    } catch (error) {
      const code = errnoOf(error);
      // An attribute's file is read-only for its owner too: a new one replaces it.
      if (code === 'EEXIST') fs.rmSync(target, {force: true});
      else if (code === 'ENOENT') this.directory(posix.dirname(path));
      else throw error;
      fs.writeFileSync(target, content, {mode, flag: 'wx'});
    }
    if ((mode & this.#withheld) !== 0) fs.chmodSync(target, mode);
  }

  directory(path: string): void {
    const memory = this.memory(path);
    if (memory !== undefined) memory.directory(this.#place(memory, path));
    else fs.mkdirSync(this.root + path, {recursive: true, mode: 0o755});
  }

  /** Makes a relative link at `path` to another path of the machine, as sysfs has them. */
  link(path: string, to: string): void {
    this.textLink(path, posix.relative(posix.dirname(path), to));
  }

  /** Makes a link with exactly this text. */
  textLink(path: string, text: string): void {
    const memory = this.memory(path);
    if (memory !== undefined) {
      memory.link(this.#place(memory, path), text);
      return;
    }
    const target = this.root + path;
    try {
      fs.symlinkSync(text, target);
    } catch {
      this.directory(posix.dirname(path));
      fs.rmSync(target, {force: true});
      fs.symlinkSync(text, target);
    }
  }

  /** Makes a device node, and its link in /sys/dev when the device is known. */
  node(path: string, node: DeviceNode, device?: string): void {
    this.file(path, '', 0o600);
    this.nodes.set(path, node);
    if (device !== undefined)
      this.link(`/sys/dev/${node.type === 'block' ? 'block' : 'char'}/${node.number}`, device);
  }

  removeNode(path: string): void {
    const node = this.nodes.get(path);
    if (node === undefined) return;
    this.nodes.delete(path);
    this.remove(path);
    this.remove(`/sys/dev/${node.type === 'block' ? 'block' : 'char'}/${node.number}`);
  }

  /** Removes a file, a link or a whole folder. */
  remove(path: string): void {
    const memory = this.memory(path);
    if (memory !== undefined) memory.remove(this.#place(memory, path));
    else fs.rmSync(this.root + path, {recursive: true, force: true});
  }

  /** Removes a folder when nothing is in it. */
  removeEmpty(path: string): void {
    const memory = this.memory(path);
    if (memory !== undefined) {
      memory.removeEmpty(this.#place(memory, path));
      return;
    }
    try {
      fs.rmdirSync(this.root + path);
    } catch {
      // Something is still in it, or it is gone already.
    }
  }

  /** Whether something is at this path, a broken link included. */
  has(path: string): boolean {
    return this.stat(path) !== undefined;
  }

  list(path: string): string[] {
    const real = this.resolve(path);
    if (real === undefined) return [];
    const memory = this.memory(real);
    if (memory !== undefined) return memory.list(real);
    try {
      return fs.readdirSync(this.root + real).sort();
    } catch {
      return [];
    }
  }

  /** A file's text, as it is; undefined when there is none. */
  read(path: string): string | undefined {
    const real = this.resolve(path);
    if (real === undefined) return undefined;
    try {
      const memory = this.memory(real);
      return memory === undefined ? fs.readFileSync(this.root + real, 'utf8') : memory.text(real);
    } catch {
      return undefined;
    }
  }

  stat(path: string): FileStat | undefined {
    const memory = this.memory(path);
    return memory === undefined
      ? fs.lstatSync(this.root + path, {throwIfNoEntry: false})
      : memory.stat(this.#place(memory, path));
  }

  /** The path without links, save in the last place, as the system calls understand it. */
  #place(memory: MemoryFiles, path: string): string {
    if (memory.entries.has(path)) return path;
    const folder = posix.dirname(path);
    if (folder === '/') return path;
    const real = this.resolve(folder) ?? this.#place(memory, folder);
    return `${real}/${posix.basename(path)}`;
  }

  /**
   * The path without links. Absolute links begin at the folder, as for a process whose root it is: a plain
   * realpath(3) would follow them to the machine this runs on.
   */
  resolve(path: string, followLast = true): string | undefined {
    const known = this.#memory?.entries.get(path);
    if (known !== undefined && (known.kind !== 'link' || !followLast)) return path;
    const left = partsOf(path);
    let done = '';
    let links = 0;
    for (let part = left.shift(); part !== undefined; part = left.shift()) {
      if (part === '.') continue;
      if (part === '..') {
        done = done.slice(0, Math.max(0, done.lastIndexOf('/')));
        continue;
      }
      const here = `${done}/${part}`;
      const target = this.#target(here);
      if (target === undefined) return undefined;
      if (target === notALink || (left.length === 0 && !followLast)) {
        done = here;
        continue;
      }
      if (++links > mostLinks) return undefined;
      if (target.startsWith('/')) done = '';
      left.unshift(...partsOf(target));
    }
    return done === '' ? '/' : done;
  }

  /** The text of the link at a path that has no others; undefined when nothing is there. */
  #target(path: string): string | typeof notALink | undefined {
    const memory = this.memory(path);
    if (memory !== undefined) {
      const entry = memory.entries.get(path);
      return entry?.kind === 'link' ? entry.text : entry && notALink;
    }
    let stat: fs.Stats | undefined;
    try {
      stat = fs.lstatSync(this.root + path, {throwIfNoEntry: false});
    } catch {
      // ENOTDIR: a file in the middle of the path.
      return undefined;
    }
    return stat?.isSymbolicLink() === true ? fs.readlinkSync(this.root + path) : stat && notALink;
  }
}

const notALink = Symbol('not a link');

function partsOf(path: string): string[] {
  return path.split('/').filter((part) => part !== '');
}
