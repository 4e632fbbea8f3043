/** dpdk-devbind.py on what the test machine shows: the machine's image has no Python. */
import {execFileSync} from 'node:child_process';
import {existsSync, mkdtempSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import path from 'node:path';
import {fetchDevbind} from '../../build/devbind-package.js';
import {cacheFolder} from './image.js';

/** What the script reads, as the machine's programs print it. */
export interface Captured {
  /** `lspci -Dvmmnnk` */
  readonly lspci: string;
  /** `ip -o route` */
  readonly routes: string;
}

/** One device in a section of the script's status. */
export interface DevbindDevice {
  readonly slot: string;
  /** `Network`, `Crypto` and so on. */
  readonly type: string;
  /** As in `devices using DPDK-compatible driver`, `devices using kernel driver`, `Other … devices`. */
  readonly state: 'userspace' | 'kernel' | 'unused';
  readonly driver: string | undefined;
}

/** Runs it as on the machine: with these answers, and with the modules of the drivers for programs loaded. */
const harness = `
import os, runpy, subprocess, sys
script, folder = sys.argv[1:3]
list_folder, is_folder, answer = os.listdir, os.path.isdir, subprocess.check_output
os.listdir = lambda p: ['vfio_pci', 'uio_pci_generic'] if p == '/sys/module/' else list_folder(p)
os.path.isdir = lambda p: p.startswith('/sys/module/') or is_folder(p)
subprocess.check_output = lambda words: open(os.path.join(folder, words[0]), 'rb').read()
subprocess.call = lambda *words, **options: 0
sys.argv = ['dpdk-devbind.py', '--status']
runpy.run_path(script, run_name='__main__')
`;

/** The script's own status. */
export function devbindStatus({lspci, routes}: Captured): DevbindDevice[] {
  const folder = mkdtempSync(path.join(tmpdir(), 'pearasys-devbind-'));
  try {
    writeFileSync(path.join(folder, 'lspci'), `${lspci}\n\n`);
    writeFileSync(path.join(folder, 'ip'), routes);
    const output = execFileSync('/usr/bin/python3', ['-c', harness, scriptFile(), folder], {
      encoding: 'utf8',
    });
    return parse(output);
  } finally {
    rmSync(folder, {recursive: true});
  }
}

/** The script of Debian, fetched once. */
function scriptFile(): string {
  const file = path.join(cacheFolder(), 'dpdk-devbind.py');
  if (!existsSync(file)) writeFileSync(file, fetchDevbind('trixie').text);
  return file;
}

function parse(output: string): DevbindDevice[] {
  const devices: DevbindDevice[] = [];
  let section: Pick<DevbindDevice, 'type' | 'state'> | undefined;
  for (const line of output.split('\n')) {
    const [, type, words] =
      /^(\S.*?) (?:\(\w+\) )?devices using (DPDK-compatible|kernel) driver$/.exec(line) ?? [];
    const other = /^Other (.*?)(?: \(\w+\))? devices$/.exec(line)?.[1];
    if (type !== undefined) section = {type, state: words === 'kernel' ? 'kernel' : 'userspace'};
    else if (other !== undefined) section = {type: other, state: 'unused'};
    const slot = /^[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7] /.exec(line)?.[0].trim();
    if (slot !== undefined && section !== undefined)
      devices.push({slot, ...section, driver: /\bdrv=(\S+)/.exec(line)?.[1]});
  }
  return devices;
}
