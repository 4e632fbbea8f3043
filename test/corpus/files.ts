import {spawnSync} from 'node:child_process';
import fs from 'node:fs';
import {basename, dirname, join} from 'node:path';

/** The content of a file, and the properties of the file and its folder. */
export interface FileCase {
  readonly content: string;
  /** Permission bits; 0o644 by default. */
  readonly mode?: number;
  /** Permission bits of the folder; 0o755 by default. */
  readonly folderMode?: number;
  /** Whether the file or its folder belongs to another user instead of root. Only root can create this case. */
  readonly foreign?: 'file' | 'folder';
  /** What exists at the path; a file by default. */
  readonly kind?: 'link' | 'folder' | 'fifo';
}

/** Whether this process can create the case. */
export function canTry({foreign}: FileCase): boolean {
  return foreign === undefined || process.getuid?.() === 0;
}

/** Creates the file of a case on the machine below a folder, and replaces an existing one. */
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

/** Properties of a file, and whether it is used if its content is valid. */
export interface TrustCase extends Omit<FileCase, 'content'> {
  readonly name: string;
  /** `real`: only by readers that follow links, as mdevctl does. */
  readonly obeyed: boolean | 'real';
}

/** The rule of trust for each kind of file that root uses. */
export const trustCases: readonly TrustCase[] = [
  {name: 'as it is written', obeyed: true},
  {name: 'that is read-only', mode: 0o555, obeyed: true},
  {name: 'in a folder that only root can enter', folderMode: 0o700, obeyed: true},
  {name: 'that is a link', kind: 'link', obeyed: 'real'},
  {name: 'that others can write', mode: 0o757, obeyed: false},
  {name: 'that a group can write', mode: 0o775, obeyed: false},
  {name: 'in a folder that others can write to', folderMode: 0o757, obeyed: false},
  {name: 'in a folder that a group can write to', folderMode: 0o775, obeyed: false},
  {name: 'in a sticky folder that others can write to', folderMode: 0o1777, obeyed: false},
  {name: 'of another user', foreign: 'file', obeyed: false},
  {name: "in another user's folder", foreign: 'folder', obeyed: false},
  {name: 'that is a folder', kind: 'folder', obeyed: false},
  {name: 'that is a FIFO', kind: 'fifo', obeyed: false},
];
