/** dpdk-devbind.py on what the test machine shows: the machine's image has no Python. */
import {execFileSync} from 'node:child_process';
import {existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import path from 'node:path';
import {fetchDevbind} from '../../build/devbind-package.js';
import {cacheFolder} from './image.js';

/** What the script reads, as the machine's programs print it. */
interface Captured {
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

/** One write to an attribute. */
export interface Write {
  readonly path: string;
  readonly data: string;
}

/**
 * Runs it as on the machine: with these answers, and with the modules of the drivers loaded. Writes are noted instead of
 * made: this is not the machine whose devices they are for. The hook refuses any that would not be noted.
 */
const harness = `
import builtins, io, json, os, runpy, subprocess, sys
script, folder, modules, *words = sys.argv[1:]
writes = []
class Noted(io.StringIO):
    def __init__(self, path):
        super().__init__(newline='')
        self.path = path
    def close(self):
        if not self.closed:
            writes.append({'path': self.path, 'data': self.getvalue()})
        super().close()
def refuse(event, arguments):
    if event == 'open' and arguments[2] & (os.O_WRONLY | os.O_RDWR) and str(arguments[0]).startswith('/sys/'):
        raise PermissionError('a write that is not noted: %s' % arguments[0])
sys.addaudithook(refuse)
open_file, list_folder, is_folder, exists = open, os.listdir, os.path.isdir, os.path.exists
builtins.open = lambda path, mode='r', *rest, **named: (
    Noted(path) if str(path).startswith('/sys/') and mode != 'r' else open_file(path, mode, *rest, **named))
os.listdir = lambda p: (
    modules.split() if p == '/sys/module/' else ['dmar0'] if p == '/sys/class/iommu' else list_folder(p))
os.path.isdir = lambda p: p.startswith('/sys/module/') or is_folder(p)
os.path.exists = lambda p: p.endswith('/driver_override') or exists(p)
subprocess.check_output = lambda words: open_file(os.path.join(folder, words[0]), 'rb').read()
subprocess.call = lambda *words, **options: 0
sys.argv = ['dpdk-devbind.py', *words]
runpy.run_path(script, run_name='__main__')
with open_file(os.path.join(folder, 'writes'), 'w') as file:
    json.dump(writes, file)
`;

/** The script's own status. */
export function devbindStatus(captured: Captured): DevbindDevice[] {
  return parse(runScript(captured, ['--status']).output);
}

/**
 * What the script writes, in order, if each write succeeds.
 * @param words its arguments
 * @param drivers the host drivers whose modules are loaded
 */
export function devbindWrites(
  captured: Captured,
  words: readonly string[],
  drivers: readonly string[],
): readonly Write[] {
  return runScript(captured, words, drivers).writes;
}

function runScript(
  {lspci, routes}: Captured,
  words: readonly string[],
  drivers: readonly string[] = [],
): {readonly output: string; readonly writes: readonly Write[]} {
  const folder = mkdtempSync(path.join(tmpdir(), 'pearasys-devbind-'));
  try {
    writeFileSync(path.join(folder, 'lspci'), `${lspci}\n\n`);
    writeFileSync(path.join(folder, 'ip'), routes);
    const modules = ['vfio_pci', 'uio_pci_generic', ...drivers].join(' ');
    const output = execFileSync(
      '/usr/bin/python3',
      ['-c', harness, scriptFile(), folder, modules, ...words],
      {encoding: 'utf8'},
    );
    const writes = JSON.parse(readFileSync(path.join(folder, 'writes'), 'utf8')) as Write[];
    return {output, writes};
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
