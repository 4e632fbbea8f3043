import fs from 'node:fs';
import {posix} from 'node:path';
import {errnoOf} from '../../src/host/errors.js';

/** A node in /dev. It lies in the folder as an empty file: making real ones needs privileges and could reach hardware. */
export interface DeviceNode {
  readonly type: 'block' | 'character';
  /** `226:0` */
  readonly number: string;
  readonly mode: number;
}

/** How many links a path may go through, as the kernel's MAXSYMLINKS. */
const mostLinks = 40;

/** A folder that stands for the root of a machine. Paths are the machine's; nothing here leaves the folder. */
export class Tree {
  readonly folder: string;
  /** The nodes in /dev, by path. */
  readonly nodes = new Map<string, DeviceNode>();

  /** Permissions that a new file does not get by itself: the umask of the process. */
  readonly #withheld: number;

  constructor(folder: string) {
    this.folder = folder;
    const probe = `${folder}/.probe`;
    fs.mkdirSync(probe, {mode: 0o777});
    this.#withheld = 0o777 & ~fs.statSync(probe).mode;
    fs.rmdirSync(probe);
  }

  /** Writes a file, with the folders above it. */
  file(path: string, content: string | Uint8Array, mode = 0o444): void {
    const target = this.folder + path;
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
    fs.mkdirSync(this.folder + path, {recursive: true, mode: 0o755});
  }

  /** Makes a relative link at `path` to another path of the machine, as sysfs has them. */
  link(path: string, to: string): void {
    this.textLink(path, posix.relative(posix.dirname(path), to));
  }

  /** Makes a link with exactly this text. */
  textLink(path: string, text: string): void {
    try {
      fs.symlinkSync(text, this.folder + path);
    } catch {
      this.directory(posix.dirname(path));
      fs.rmSync(this.folder + path, {force: true});
      fs.symlinkSync(text, this.folder + path);
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
    fs.rmSync(this.folder + path, {recursive: true, force: true});
  }

  /** Removes a folder when nothing is in it. */
  removeEmpty(path: string): void {
    try {
      fs.rmdirSync(this.folder + path);
    } catch {
      // Something is still in it, or it is gone already.
    }
  }

  /** Whether something is at this path, a broken link included. */
  has(path: string): boolean {
    return fs.lstatSync(this.folder + path, {throwIfNoEntry: false}) !== undefined;
  }

  list(path: string): string[] {
    const real = this.resolve(path);
    try {
      return real === undefined ? [] : fs.readdirSync(this.folder + real).sort();
    } catch {
      return [];
    }
  }

  /** A file's text, as it is; undefined when there is none. */
  read(path: string): string | undefined {
    const real = this.resolve(path);
    try {
      return real === undefined ? undefined : fs.readFileSync(this.folder + real, 'utf8');
    } catch {
      return undefined;
    }
  }

  stat(path: string): fs.Stats | undefined {
    return fs.lstatSync(this.folder + path, {throwIfNoEntry: false});
  }

  /**
   * The path without links. Absolute links begin at the folder, as for a process whose root it is: a plain
   * realpath(3) would follow them to the machine this runs on.
   */
  resolve(path: string, followLast = true): string | undefined {
    let left = path.split('/').filter((part) => part !== '');
    let done: string[] = [];
    for (let links = 0; left.length > 0;) {
      const [part = '', ...rest] = left;
      left = rest;
      if (part === '.') continue;
      if (part === '..') {
        done.pop();
        continue;
      }
      const here = `/${[...done, part].join('/')}`;
      let stat: fs.Stats | undefined;
      try {
        stat = this.stat(here);
      } catch {
        // ENOTDIR: a file in the middle of the path.
        return undefined;
      }
      if (stat === undefined) return undefined;
      if (!stat.isSymbolicLink() || (left.length === 0 && !followLast)) {
        done.push(part);
        continue;
      }
      if (++links > mostLinks) return undefined;
      const text = fs.readlinkSync(this.folder + here);
      if (text.startsWith('/')) done = [];
      left = [...text.split('/').filter((each) => each !== ''), ...left];
    }
    return `/${done.join('/')}`;
  }
}
