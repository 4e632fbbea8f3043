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
