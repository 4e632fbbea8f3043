/** Files of an unexpected kind: the built program must not hang when it reads them from an image. */
import assert from 'node:assert/strict';
import {execFileSync, spawnSync} from 'node:child_process';
import {mkdirSync, rmSync} from 'node:fs';
import {basename, dirname, join} from 'node:path';
import {mdevRecord} from '../../src/entry/handlers/mdev-record.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {addParents} from '../simulated-host/standard-machine.js';
import {runOn} from '../unit/services.js';
import {typed} from './runs.js';

const launcher = join(import.meta.dirname, '../../sbin/pearasys');
const uuid = '83b8f4f2-509f-382f-3c1e-e6bfe0fa1001';

/** The limit of a run's data in bytes: Node needs a third, and a huge file alone would need half of it. */
const memory = 600 << 20;

const kinds = {
  FIFO: (path: string) => execFileSync('mkfifo', ['-m', '755', path]),
  directory: (path: string) => mkdirSync(path),
  'file of 300 MB': (path: string) =>
    execFileSync('sh', ['-c', 'truncate -s 300M "$1"; chmod 755 "$1"', 'sh', path]),
};

/** By title: the file, the command that reads it, its exit code, and other text that it prints. */
const files: Readonly<Record<string, {path: string; words: string; exitCode?: number; output?: RegExp}>> = {
  'a record': {
    path: '/etc/pearasys/pci/0000:02:00.0-10de-1b80',
    words: 'list',
    output: /0000:02:00\.0/,
  },
  'the record of a shown device': {
    path: '/etc/pearasys/pci/0000:02:00.0-10de-1b80',
    words: 'show 02:00.0',
    output: /0000:02:00\.0/,
  },
  'a record among the services': {path: '/etc/pearasys/pci/0000:02:00.0-10de-1b80', words: 'service list'},
  'what driverctl has saved': {path: '/etc/driverctl.d/pci-0000:02:00.0', words: 'service import'},
  'a definition': {path: `/etc/mdevctl.d/mtty/${uuid}`, words: 'mdev list'},
  'a definition to be changed': {
    path: `/etc/mdevctl.d/mtty/${uuid}`,
    words: `mdev modify -u ${uuid} -a`,
    exitCode: 3,
  },
  'the devices of a guest': {
    path: '/etc/pearasys/guests/win11.conf',
    words: 'guest list',
    output: /win10/,
  },
  'a list of guests': {
    path: '/etc/pearasys/guests/gpu-passthrough-guests.conf',
    words: 'guest list',
    output: /win10/,
  },
  'the settings of a guest': {
    path: '/etc/pearasys/guests/win10.settings',
    words: 'guest show win10',
    output: /win10/,
  },
  'the settings of all guests': {
    path: '/etc/pearasys/guest.settings',
    words: 'guest show win10',
    output: /win10/,
  },
  'the domain of a guest': {
    path: '/etc/libvirt/qemu/win11.xml',
    words: 'guest setup win11',
    exitCode: 1,
  },
  'the names of devices': {path: '/usr/share/hwdata/pci.ids', words: 'list', output: /10de:1b80/},
  'the names of a shown device': {
    path: '/usr/share/hwdata/pci.ids',
    words: 'show 02:00.0',
    output: /10de:1b80/,
  },
};

describe('a file of an unexpected kind', function () {
  // Each run is a start of Node.
  this.timeout(60_000);
  let host: SimulatedHost;
  beforeEach(() => {
    host = SimulatedHost.standard((machine) => {
      addParents(machine);
      machine.files['/etc/pearasys/guests/win10.conf'] = '0000:02:00.0\n';
    });
  });
  afterEach(() => host.dispose());

  function put(path: string, kind: keyof typeof kinds): void {
    const real = host.machine.folder + path;
    mkdirSync(dirname(real), {recursive: true});
    rmSync(real, {force: true, recursive: true});
    kinds[kind](real);
  }

  for (const [what, {path, words, exitCode = 0, output}] of Object.entries(files))
    for (const kind of Object.keys(kinds) as (keyof typeof kinds)[])
      it(`${what}, as a ${kind}, is reported`, () => {
        put(path, kind);
        const {status, signal, stdout, stderr} = spawnSync(
          'prlimit',
          [`--data=${memory}`, launcher, '--root', host.machine.folder, ...words.split(' ')],
          // A run that hangs is a failure, not the end of the tests.
          {encoding: 'utf8', timeout: 30_000, killSignal: 'SIGKILL', stdio: ['ignore', 'pipe', 'pipe']},
        );
        assert.deepEqual({status, signal}, {status: exitCode, signal: null}, stderr);
        const said = stdout + stderr;
        assert.ok(said.includes(basename(path)), said);
        assert.match(
          said,
          /it is a (?:FIFO|directory)|it is not a file|it is too large; expected at most/,
          said,
        );
        assert.doesNotMatch(said, /internal error/);
        if (output !== undefined) assert.match(stdout, output);
      });

  for (const kind of Object.keys(kinds) as (keyof typeof kinds)[])
    it(`pearasys.conf, as a ${kind}, is reported, and the defaults apply`, async () => {
      put('/etc/pearasys/pearasys.conf', kind);
      assert.equal((await typed(host, `mdev start -u ${uuid} -p mtty -t mtty-1`)).exitCode, 0);
      const {exitCode, journal} = await runOn(host, mdevRecord, uuid);
      assert.equal(exitCode, 0);
      assert.match(
        journal.join('\n'),
        /^<4>\/etc\/pearasys\/pearasys\.conf is ignored: .*(?:not a file|too large)/m,
      );
      assert.ok(host.exists(`/etc/mdevctl.d/mtty/${uuid}`));
    });

  for (const kind of Object.keys(kinds) as (keyof typeof kinds)[])
    it(`a script of mdevctl, as a ${kind}, is reported and not run`, async () => {
      put('/etc/mdevctl.d/scripts.d/callouts/x.sh', kind);
      const {exitCode, stderr} = await typed(host, `mdev start -u ${uuid} -p mtty -t mtty-1`);
      assert.equal(exitCode, 0, stderr);
      assert.match(stderr, /the script \/etc\/mdevctl\.d\/scripts\.d\/callouts\/x\.sh is not run: /);
      assert.ok(host.exists(`/sys/bus/mdev/devices/${uuid}`));
    });
});
