/**
 * Run when pearasys or Node is installed, with the Node that will run the programs and its flags (`libexec/node.sh`):
 * writes the folder `cache` next to the programs again. It has the code cache of the command, or, for a Node without a
 * startup snapshot of its own, a snapshot of all programs. The Node of Debian and Ubuntu is built without one, and
 * starts three times as slowly as one that has it; a snapshot of ours saves more than half of that.
 */
import {existsSync, mkdirSync, readdirSync, rmSync} from 'node:fs';
import {join} from 'node:path';
import {loadProgram} from './cli/code-cache.js';
import {replaceFile} from '../host/whole-file.js';
import {makeSnapshot} from './make-snapshot.js';

const folder = import.meta.dirname;
const silent = {isTerminal: false, columns: 80, write: () => undefined};

/** The code cache contains the functions that V8 has compiled for typical commands. */
async function makeCodeCache(): Promise<void> {
  const devices = '/sys/bus/pci/devices';
  const [slot = '0000:00:00.0'] = existsSync(devices) ? readdirSync(devices) : [];
  const {program, script, cachePath} = loadProgram(folder, false, require);
  for (const words of [['--version'], ['--help'], ['list', '--json'], ['list'], ['show', slot, '--json']])
    await program.pearasys(words, {stdout: silent, stderr: silent});
  replaceFile(cachePath, {content: script.createCachedData(), mode: 0o644});
}

async function makeCaches(): Promise<void> {
  const cache = join(folder, 'cache');
  rmSync(cache, {recursive: true, force: true});
  mkdirSync(cache);
  const {node_use_node_snapshot: hasOwn} = process.config.variables as {node_use_node_snapshot?: boolean};
  if (hasOwn !== false) return makeCodeCache();
  try {
    makeSnapshot(folder);
  } catch (error) {
    console.error(`pearasys: no startup snapshot: ${(error as Error).message}`);
    await makeCodeCache();
  }
}

void makeCaches();
