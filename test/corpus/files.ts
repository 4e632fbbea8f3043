import {spawnSync} from 'node:child_process';
import fs from 'node:fs';
import {basename, dirname, join} from 'node:path';

/** How a file and its folder are, beside what is in it. */
export interface FileCase {
  readonly content: string;
  /** Permission bits; 0o644 unless told. */
  readonly mode?: number;
  /** Permission bits of the folder; 0o755 unless told. */
  readonly folderMode?: number;
  /** Whose it is: root's unless told. Only root can try another. */
  readonly foreign?: 'file' | 'folder';
  /** What is at the path: a file unless told. */
  readonly kind?: 'link' | 'folder' | 'fifo';
}

/** Whether this process may try the case. */
export function canTry({foreign}: FileCase): boolean {
  return foreign === undefined || process.getuid?.() === 0;
}

/** Makes the file of a case, in place of another one, on the machine below a folder. */
export function putFile(root: string, place: string, one: FileCase): void {
  const {content, mode, folderMode, foreign, kind} = one;
  const path = join(root, place);
  const folder = dirname(path);
  const elsewhere = join(folder, '..', `${basename(folder)}-elsewhere`);
  for (const each of [path, elsewhere]) fs.rmSync(each, {recursive: true, force: true});
  fs.mkdirSync(folder, {recursive: true});
  const file = kind === undefined ? path : elsewhere;
  fs.writeFileSync(file, content);
  fs.chmodSync(file, mode ?? 0o644);
  if (kind === 'link') fs.symlinkSync(`../${basename(elsewhere)}`, path);
  if (kind === 'folder') fs.mkdirSync(path);
  if (kind === 'fifo') spawnSync('mkfifo', [path]);
  fs.chmodSync(folder, folderMode ?? 0o755);
  if (process.getuid?.() !== 0) return;
  const nobody = 65534;
  fs.lchownSync(path, foreign === 'file' ? nobody : 0, 0);
  fs.chownSync(folder, foreign === 'folder' ? nobody : 0, 0);
}

/** How a file is, and whether one that is valid is obeyed then. */
export interface TrustCase extends Omit<FileCase, 'content'> {
  readonly name: string;
  /** `real`: by those alone that follow links, as mdevctl does. */
  readonly obeyed: boolean | 'real';
}

/** The rule of trust: for each kind of file that root obeys. */
export const trustCases: readonly TrustCase[] = [
  {name: 'as it is written', obeyed: true},
  {name: 'that nobody can write', mode: 0o555, obeyed: true},
  {name: 'in a folder that only root can enter', folderMode: 0o700, obeyed: true},
  {name: 'that is a link', kind: 'link', obeyed: 'real'},
  {name: 'that others can write', mode: 0o757, obeyed: false},
  {name: 'that a group can write', mode: 0o775, obeyed: false},
  {name: 'in a folder that others can write to', folderMode: 0o757, obeyed: false},
  {name: 'in a folder that a group can write to', folderMode: 0o775, obeyed: false},
  {name: 'in such a folder, where others can remove only what is theirs', folderMode: 0o1777, obeyed: false},
  {name: 'of another user', foreign: 'file', obeyed: false},
  {name: "in another user's folder", foreign: 'folder', obeyed: false},
  {name: 'that is a folder', kind: 'folder', obeyed: false},
  {name: 'that is a FIFO', kind: 'fifo', obeyed: false},
];
