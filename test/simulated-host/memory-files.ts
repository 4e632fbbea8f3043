import fs from 'node:fs';
import {posix} from 'node:path';
import {FileError} from '../../src/host/errors.js';
import type {FileInfo, HostReader} from '../../src/host/host.js';

/** What is at a path. */
export type MemoryEntry =
  | {readonly kind: 'directory'; readonly names: Set<string>; readonly modified: number}
  | {
      readonly kind: 'file';
      readonly content: string | Uint8Array;
      readonly mode: number;
      readonly modified: number;
    }
  | {readonly kind: 'link'; readonly text: string; readonly modified: number};

/** What lstat(2) says, as far as it matters here. */
export interface FileStat {
  readonly mode: number;
  isFile(): boolean;
  isDirectory(): boolean;
  isSymbolicLink(): boolean;
}

type Reader = Pick<HostReader, 'readText' | 'readBytes' | 'readStart' | 'readLink' | 'list' | 'info'>;

const {S_IFDIR, S_IFLNK, S_IFREG} = fs.constants;

/**
 * Files in memory, as the kernel's own are. A machine has more than a thousand, of which a test reads few: making and
 * removing them on a disk would take most of the tests' time. Paths have no links, save in the last place.
 */
export class MemoryFiles implements Reader {
  /** By path; a folder comes before what is in it. */
  readonly entries = new Map<string, MemoryEntry>();

  /** @param tops folders, each of which has its own path as a prefix of all that is in it. */
  constructor(tops: readonly string[]) {
    for (const top of tops)
      this.entries.set(top, {kind: 'directory', names: new Set(), modified: Date.now()});
  }

  /** Writes a file, in the place of a file or link, with the folders above it. */
  file(path: string, content: string | Uint8Array, mode: number): void {
    this.#put(path, {kind: 'file', content, mode, modified: Date.now()});
  }

  /** Makes a link, in the place of a file or link, with the folders above it. */
  link(path: string, text: string): void {
    this.#put(path, {kind: 'link', text, modified: Date.now()});
  }

  directory(path: string): void {
    const there = this.entries.get(path);
    if (there?.kind === 'directory') return;
    if (there !== undefined) throw new Error(`${path} is there already, and is no folder`);
    this.#put(path, {kind: 'directory', names: new Set(), modified: Date.now()});
  }

  #put(path: string, entry: MemoryEntry): void {
    const there = this.entries.get(path);
    if (there?.kind === 'directory') throw new Error(`${path} is there already, and is a folder`);
    if (there === undefined) {
      const folder = posix.dirname(path);
      this.directory(folder);
      const above = this.entries.get(folder);
      if (above?.kind === 'directory') above.names.add(posix.basename(path));
    }
    this.entries.set(path, entry);
  }

  /** Removes a file, a link or a whole folder. */
  remove(path: string): void {
    const there = this.entries.get(path);
    if (there === undefined) return;
    if (there.kind === 'directory') for (const name of there.names) this.remove(`${path}/${name}`);
    this.entries.delete(path);
    const above = this.entries.get(posix.dirname(path));
    if (above?.kind === 'directory') above.names.delete(posix.basename(path));
  }

  /** Removes a folder when nothing is in it. */
  removeEmpty(path: string): void {
    const there = this.entries.get(path);
    if (there?.kind === 'directory' && there.names.size === 0) this.remove(path);
  }

  stat(path: string): FileStat | undefined {
    const there = this.entries.get(path);
    if (there === undefined) return undefined;
    const type = {directory: S_IFDIR, file: S_IFREG, link: S_IFLNK}[there.kind];
    return {
      mode: type | modeOf(there),
      isFile: () => there.kind === 'file',
      isDirectory: () => there.kind === 'directory',
      isSymbolicLink: () => there.kind === 'link',
    };
  }

  readText(path: string): string | undefined {
    const text = this.text(path);
    return text?.endsWith('\n') === true ? text.slice(0, -1) : text;
  }

  /** As it is, its final newline included. */
  text(path: string): string | undefined {
    const content = this.#content(path);
    return typeof content === 'object' ? Buffer.from(content).toString() : content;
  }

  readBytes(path: string): Buffer | undefined {
    const content = this.#content(path);
    return content === undefined ? undefined : Buffer.from(content);
  }

  readStart(path: string, bytes: number, offset = 0): Buffer | undefined {
    return this.entries.get(path)?.kind === 'file'
      ? this.readBytes(path)?.subarray(offset, offset + bytes)
      : undefined;
  }

  readLink(path: string): string | undefined {
    const there = this.entries.get(path);
    return there?.kind === 'link' ? there.text : undefined;
  }

  list(path: string): string[] {
    const there = this.entries.get(path);
    return there?.kind === 'directory' ? [...there.names].sort() : [];
  }

  info(path: string): FileInfo | undefined {
    const there = this.entries.get(path);
    if (there === undefined) return undefined;
    const {kind, modified} = there;
    const size =
      kind === 'directory' ? 0 : Buffer.byteLength(there.kind === 'file' ? there.content : there.text);
    return {kind, uid: 0, gid: 0, mode: modeOf(there), size, modified};
  }

  #content(path: string): string | Uint8Array | undefined {
    const there = this.entries.get(path);
    if (there === undefined) return undefined;
    if (there.kind !== 'file')
      throw new FileError('reading', path, there.kind === 'directory' ? 'EISDIR' : 'ELOOP');
    return there.content;
  }
}

function modeOf(entry: MemoryEntry): number {
  if (entry.kind === 'file') return entry.mode;
  return entry.kind === 'directory' ? 0o755 : 0o777;
}
