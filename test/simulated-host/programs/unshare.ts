import {spawnSync} from 'node:child_process';
import {existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {said, type Program} from './program.js';

/**
 * The sandbox in which another program's hook is tried. The hook runs for real, on a copy: in it the folder of hooks
 * is replaced, as the bind mount does it.
 */
export const unshare: Program = (machine, _userId, args) => {
  const [hook = '', guest = '', place = '', hooks = ''] = args.slice(args.indexOf('--') + 5);
  const folder = mkdtempSync(`${tmpdir()}/simulated-hook-`);
  try {
    const text = machine.tree.read(hook) ?? '';
    const marker = `${folder}/ran`;
    mkdirSync(`${folder}/${place}`, {recursive: true});
    writeFileSync(`${folder}/qemu`, text.replaceAll(hooks, folder), {mode: 0o755});
    writeFileSync(`${folder}/${place}/50-pearasys`, `#!/bin/sh\n: >${marker}\n`, {mode: 0o755});
    spawnSync(`${folder}/qemu`, [guest, 'prepare', 'begin', '-'], {
      input: '<domain/>\n',
      timeout: 2000,
      killSignal: 'SIGKILL',
    });
    return Promise.resolve(said(existsSync(marker) ? 'ran' : ''));
  } finally {
    rmSync(folder, {recursive: true});
  }
};
