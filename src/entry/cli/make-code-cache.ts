/**
 * Run by `make install` with the Node that will run the program: writes the code cache of the bundle next to it.
 * The cache contains the functions that V8 has compiled for the commands below.
 */
import {existsSync, readdirSync, renameSync, rmSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {loadProgram} from './code-cache.js';

const folder = import.meta.dirname;
for (const name of readdirSync(folder)) if (name.endsWith('.cache')) rmSync(join(folder, name));

const silent = {isTerminal: false, columns: 80, write: () => undefined};
const devices = '/sys/bus/pci/devices';
const [slot = '0000:00:00.0'] = existsSync(devices) ? readdirSync(devices) : [];
const typical = [['--version'], ['--help'], ['list', '--json'], ['list'], ['show', slot, '--json']];

async function makeCodeCache(): Promise<void> {
  const {program, script, cachePath} = loadProgram(folder, false, require);
  for (const words of typical) await program.pearasys(words, {stdout: silent, stderr: silent});
  const temporary = `${cachePath}.new`;
  writeFileSync(temporary, script.createCachedData());
  renameSync(temporary, cachePath);
}

void makeCodeCache();
