import {spawnSync} from 'node:child_process';
import {closeSync, fsyncSync, openSync, readFileSync, statSync} from 'node:fs';
import {join} from 'node:path';
import {replaceFile} from '../host/whole-file.js';

/**
 * Makes the startup snapshot of the programs in a folder, for the running Node, in its folder `cache`: `snapshot`; `cpu`
 * with what decides whether it fits a CPU; and `snapshot-of`, whose lines are the identity and the paths of the files that
 * it depends on.
 * @param flags those with which libexec/node.sh runs Node.
 * @throws Error if this Node cannot make a snapshot, or does not run from it.
 */
export function makeSnapshot(folder: string, flags: readonly string[] = process.execArgv): void {
  const programs = join(folder, 'snapshot.cjs');
  const snapshot = join(folder, 'cache/snapshot');
  node(flags, '--snapshot-blob', snapshot, '--build-snapshot', programs);
  const version = node(flags, '--snapshot-blob', snapshot, join(folder, 'start.cjs'), '--version');
  if (!version.startsWith('pearasys ')) throw new Error(`a program in it prints ${JSON.stringify(version)}`);
  // Only with the second file is the first one used, see libexec/node.sh: it must be complete by then.
  sync(snapshot);
  replaceFile(join(folder, 'cache/cpu'), {content: describeCpu(), mode: 0o644});
  const files = [process.execPath, ...librariesOfNode(), programs, snapshot];
  const content = `${files.map(identity).join(' ')}\n${files.join(' ')}\n`;
  replaceFile(join(folder, 'cache/snapshot-of'), {content, mode: 0o644});
}

function sync(path: string): void {
  const file = openSync(path, 'r');
  try {
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

/**
 * Runs this Node with its own flags, because V8 accepts a snapshot only with those that it was made with.
 * @returns what it has printed.
 */
function node(flags: readonly string[], ...words: string[]): string {
  const {error, status, stdout, stderr} = spawnSync(process.execPath, [...flags, ...words], {
    encoding: 'utf8',
  });
  if (error !== undefined) throw error;
  if (status !== 0) throw new Error(`node ${words.join(' ')}: ${stderr.trim()}`);
  return stdout;
}

/**
 * The lines about the first CPU that libexec/node.sh compares: its model and its features, for which V8 compiles. See
 * show_cpuinfo in the kernel's arch/x86/kernel/cpu/proc.c and arch/arm64/kernel/cpuinfo.c.
 */
function describeCpu(): string {
  const [first = ''] = readFileSync('/proc/cpuinfo', 'utf8').split('\n\n', 1);
  const shown = /^(?:vendor_id|cpu family|model|stepping|flags|Features|CPU [a-z]*)\t.*$/gm;
  return (first.match(shown) ?? []).map((line) => `${line}\n`).join('');
}

/** What of Node is in libraries of its own, as in Debian: proc_pid_maps(5). */
function librariesOfNode(): string[] {
  const maps = readFileSync('/proc/self/maps', 'utf8');
  return [...new Set(maps.match(/\/\S*\/lib(?:node|v8)[\w.-]*\.so\S*$/gm))];
}

/** Changes whenever the file is replaced, like the stat(1) of libexec/node.sh: inode, bytes, second of the change. */
function identity(file: string): string {
  const {ino, size, ctimeMs} = statSync(file, {bigint: true});
  return `${ino} ${size} ${ctimeMs / 1000n}`;
}
