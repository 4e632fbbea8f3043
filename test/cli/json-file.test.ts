/** The file that --jsonfile names: of each kind, for both programs, as built. */
import assert from 'node:assert/strict';
import {execFileSync, spawnSync} from 'node:child_process';
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {mdevctl} from '../../src/entry/mdevctl/drop-in.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';

const sbin = join(import.meta.dirname, '../../sbin');
const config = '{"mdev_type": "mtty-2", "start": "manual", "attrs": []}\n';
const uuid = '83b8f4f2-509f-382f-3c1e-e6bfe0fa1001';

describe('the file that --jsonfile names', function () {
  // Each run is a start of Node.
  this.timeout(60_000);
  let host: SimulatedHost;
  let folder: string;
  let words: readonly string[];
  beforeEach(() => {
    host = SimulatedHost.standard();
    folder = mkdtempSync(join(tmpdir(), 'pearasys-json-'));
    words = ['--root', host.machine.folder, 'mdev', 'define', '-u', uuid, '-p', 'mtty', '--jsonfile'];
  });
  afterEach(() => {
    rmSync(folder, {recursive: true});
    host.dispose();
  });

  /** @param input what is open as standard input. */
  function define(path: string, input: {readonly text: string} | {readonly file: number}) {
    const result = spawnSync(join(sbin, 'pearasys'), [...words, path], {
      encoding: 'utf8',
      // A run that hangs is a failure, not the end of the tests.
      timeout: 30_000,
      killSignal: 'SIGKILL',
      ...('text' in input ? {input: input.text} : {stdio: [input.file, 'pipe', 'pipe']}),
    });
    return result;
  }

  const defined = () =>
    JSON.parse(readFileSync(`${host.machine.folder}/etc/mdevctl.d/mtty/${uuid}`, 'utf8')) as unknown;

  /** A shell has `"$@" FILE` run. */
  function inShell(script: string) {
    return spawnSync('bash', ['-c', script, 'bash', join(sbin, 'pearasys'), ...words], {
      encoding: 'utf8',
      timeout: 30_000,
      killSignal: 'SIGKILL',
      cwd: folder,
      env: {...process.env, CONFIG: config},
    });
  }

  for (const [what, script] of [
    ['a regular file', 'printf %s "$CONFIG" >a; "$@" a'],
    ['a link to one', 'printf %s "$CONFIG" >a; ln -s a b; "$@" b'],
    ['a pipe as -', 'printf %s "$CONFIG" | "$@" -'],
    ['a pipe as /dev/stdin', 'printf %s "$CONFIG" | "$@" /dev/stdin'],
    ['a pipe as /proc/self/fd/0', 'printf %s "$CONFIG" | "$@" /proc/self/fd/0'],
    [
      'a pipe that is written to in parts',
      '(printf %.9s "$CONFIG"; read -r go <go; printf %s "${CONFIG:9}") | (echo >go & "$@" /dev/stdin)',
    ],
    ['<(COMMAND) of a shell', '"$@" <(printf %s "$CONFIG")'],
    ['a regular file as /dev/stdin', 'printf %s "$CONFIG" >a; "$@" /dev/stdin <a'],
    ['a here-document', '"$@" - <<<"$CONFIG"'],
    ['a FIFO as standard input', 'mkfifo p; (printf %s "$CONFIG" >p) & "$@" /dev/stdin <p; wait'],
    [
      'a pipe that somebody made non-blocking',
      // The flag is of the open file, which both have.
      '(read -r go <go; printf %s "$CONFIG") | (dd iflag=nonblock count=0 status=none; echo >go & "$@" /dev/stdin)',
    ],
  ] as const)
    it(`may be ${what}`, () => {
      execFileSync('mkfifo', [join(folder, 'go')]);
      const {status, stderr} = inShell(script);
      assert.equal(status, 0, stderr);
      assert.deepEqual(defined(), JSON.parse(config));
    });

  it('may be the socket that Node gives a child as standard input', () => {
    const {status, stderr} = define('/dev/stdin', {text: config});
    assert.equal(status, 0, stderr);
    assert.deepEqual(defined(), JSON.parse(config));
  });

  const expected = 'expected a regular file of at most 1 MiB';
  for (const [what, make, reason] of [
    ['a FIFO', (path: string) => execFileSync('mkfifo', [path]), `it is a FIFO; ${expected}`],
    ['a directory', (path: string) => mkdirSync(path), `it is a directory; ${expected}`],
    ['a device', (path: string) => symlinkSync('/dev/zero', path), `it is a device node; ${expected}`],
    [
      '300 MB',
      (path: string) => execFileSync('truncate', ['-s', '300M', path]),
      'it is too large; expected at most 1 MiB',
    ],
    [
      'more than 1 MiB of JSON',
      (path: string) => writeFileSync(path, config.padEnd((1 << 20) + 1)),
      'it is too large; expected at most 1 MiB',
    ],
  ] as const)
    it(`${what} is refused with the reason`, async () => {
      const path = join(folder, 'x');
      make(path);
      const {status, stderr} = inShell(`"$@" ${path}`);
      assert.equal(status, 1, stderr);
      assert.equal(stderr, `pearasys: reading ${path} failed: ${reason}\n`);
      let said = '';
      const exitCode = await mdevctl('mdevctl', ['define', '-u', uuid, '-p', 'mtty', '--jsonfile', path], {
        host,
        stdout: {isTerminal: false, columns: 80, write: () => undefined},
        stderr: {isTerminal: false, columns: 80, write: (text) => (said += text)},
      });
      assert.equal(exitCode, 1, said);
      assert.equal(said, `Error: reading ${path} failed: ${reason}\n`);
    });

  it('1 MiB is read', () => {
    const path = join(folder, 'x');
    writeFileSync(path, config.padEnd(1 << 20));
    const {status, stderr} = inShell(`"$@" ${path}`);
    assert.equal(status, 0, stderr);
  });

  it('endless standard input is read only up to the limit', () => {
    const file = openSync('/dev/zero', 'r');
    try {
      const {status, stderr} = define('-', {file});
      assert.equal(status, 1, stderr);
      assert.match(stderr, /^pearasys: reading - failed: it is too large; expected at most 1 MiB$/m);
    } finally {
      closeSync(file);
    }
    assert.match(inShell('yes | "$@" /dev/stdin').stderr, /reading \/dev\/stdin failed: it is too large/);
  });

  it('standard input that is closed, empty or a directory is reported', () => {
    assert.match(inShell('"$@" /dev/fd/77').stderr, /reading \/dev\/fd\/77 failed: EBADF/);
    assert.match(inShell('"$@" - </dev/null').stderr, /- is not used: it is not JSON/);
    assert.match(inShell('"$@" - <.').stderr, /reading - failed: it is a directory/);
  });
});
