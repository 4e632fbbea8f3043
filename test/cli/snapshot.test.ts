/** The startup snapshot of all programs, made with the Node of the tests; the virtual machines use it too. */
import assert from 'node:assert/strict';
import {spawnSync} from 'node:child_process';
import {
  appendFileSync,
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import {tmpdir} from 'node:os';
import {basename, dirname, join} from 'node:path';
import {makeSnapshot} from '../../src/entry/make-snapshot.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {nodeFlags} from '../unit/services.js';

const repository = join(import.meta.dirname, '../..');
const flags = nodeFlags.split(' ');

describe('the startup snapshot', function () {
  this.timeout(60_000);
  let folder: string;
  let host: SimulatedHost;
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'pearasys-snapshot-'));
    // As in a package; the rest of dist/ must not be needed.
    mkdirSync(join(folder, 'cache'));
    for (const name of ['snapshot.cjs', 'start.cjs'])
      copyFileSync(join(repository, 'dist', name), join(folder, name));
    makeSnapshot(folder, flags);
    mkdirSync(join(folder, 'run'));
    writeFileSync(join(folder, 'cpuinfo'), readFileSync('/proc/cpuinfo'));
    putShell('node.sh', 'libexec/node.sh', process.execPath);
    putShell('pearasys', 'sbin/pearasys', process.execPath);
    host = SimulatedHost.standard();
  });
  after(() => {
    rmSync(folder, {recursive: true});
    host.dispose();
  });

  /** As `make install` does it. */
  function putShell(name: string, from: string, node: string): void {
    const text = readFileSync(join(repository, from), 'utf8')
      .replaceAll(/@(?:LIBEXECDIR|LIBDIR)@/g, folder)
      .replaceAll('@NODE@', node)
      .replaceAll('/run/pearasys', join(folder, 'run'))
      .replaceAll('/proc/cpuinfo', join(folder, 'cpuinfo'));
    writeFileSync(join(folder, name), text, {mode: 0o755});
  }

  /** With the snapshot: nothing else that runs it is in the folder. */
  function run(
    words: readonly string[],
    options: {cwd?: string; env?: NodeJS.ProcessEnv; uid?: number} = {},
  ) {
    return spawnSync(join(folder, 'pearasys'), words, {encoding: 'utf8', ...options});
  }

  it('has every program that Node runs', () => {
    const others = ['make-caches', 'pearasys', 'render-template', 'snapshot'];
    const programs = readdirSync(join(repository, 'dist'))
      .filter((name) => name.endsWith('.cjs'))
      .map((name) => basename(name, '.cjs'))
      .filter((name) => !others.includes(name));
    assert.ok(programs.includes('claim'));
    for (const name of programs) {
      const words = [...flags, '--snapshot-blob', join(folder, 'cache/snapshot')];
      const {stderr} = spawnSync(process.execPath, [...words, `/nowhere/${name}.cjs`], {encoding: 'utf8'});
      assert.doesNotMatch(stderr, /has no program/, name);
    }
  });

  it('does what the programs do without it', () => {
    const root = host.machine.folder;
    for (const words of [
      ['--version'],
      ['--help'],
      ['help', 'service', 'install'],
      ['list', '--root', root],
      ['list', '--json', '--root', root],
      ['show', '02:00.0', '--root', root],
      ['bind', 'vfio-pci', '02:00.0', '--siblings', '--dry-run', '--root', root],
      ['-s', '02:00.0', 'service', 'install', 'vfio-pci', '--dry-run', '--root', root],
      ['guest', 'setup', 'g', '--device', '02:00.0', '--dry-run', '--root', root],
      ['lisst'],
    ]) {
      const {status, stdout, stderr} = spawnSync(join(repository, 'sbin/pearasys'), words, {
        encoding: 'utf8',
      });
      const own = run(words);
      assert.deepEqual([own.status, own.stdout, own.stderr], [status, stdout, stderr], words.join(' '));
    }
  });

  it('knows the working directory and the environment of the run, not of its making', () => {
    const {folder: root} = host.machine;
    const relative = ['list', '--json', '--root', basename(root)];
    assert.equal(run(relative, {cwd: dirname(root)}).stdout, run(['list', '--json', '--root', root]).stdout);
    const env = {...process.env, JOURNAL_STREAM: '1:1'};
    assert.equal(run(['list', '--root', root], {env}).status, 0);
  });

  describe('with a Node that only tells how it was called', () => {
    const shown = () => join(folder, 'node');
    const asked = () => join(folder, 'asked');
    const uses = () => run(['list']).stdout.includes('--snapshot-blob');
    beforeEach(() => {
      putShell('node.sh', 'libexec/node.sh', shown());
      answers('yes');
      rmSync(join(folder, 'run'), {recursive: true, force: true});
      rmSync(asked(), {force: true});
    });

    /** @param answer whether it starts from the snapshot; each time it is asked is a line in the file `asked`. */
    function answers(answer: 'yes' | 'no'): void {
      const script = `#!/bin/sh
        case "$*" in *--snapshot-blob*--version) echo >>'${asked()}'; [ ${answer} = yes ]; exit;; esac
        echo "$@"`;
      writeFileSync(shown(), script, {mode: 0o755});
    }

    const timesAsked = () => (existsSync(asked()) ? readFileSync(asked(), 'utf8').length : 0);

    it('is used on the CPU that it was made on, without trying', () => {
      assert.deepEqual([uses(), uses(), timesAsked()], [true, true, 0]);
    });

    it('is used on another CPU if Node starts from it, which is tried once in a boot', () => {
      const cpu = join(folder, 'cpuinfo');
      const original = readFileSync(cpu, 'utf8');
      try {
        for (const change of [/^flags\t.*|^Features\t.*/m, /^model\t.*|^CPU part\t.*/m]) {
          writeFileSync(cpu, original.replace(change, 'other\t: 1'));
          rmSync(join(folder, 'run'), {recursive: true, force: true});
          rmSync(asked(), {force: true});
          answers('yes');
          assert.deepEqual([uses(), uses(), timesAsked()], [true, true, 1]);
          // Another boot.
          rmSync(join(folder, 'run'), {recursive: true});
          answers('no');
          assert.deepEqual([uses(), uses(), timesAsked()], [false, false, 2]);
        }
        // What differs from boot to boot, and further CPUs.
        rmSync(join(folder, 'run'), {recursive: true});
        rmSync(asked());
        writeFileSync(
          cpu,
          `${original.replace(/^(cpu MHz|bogomips|BogoMIPS)\t.*/m, '$1\t: 1')}flags\t: other\n`,
        );
        assert.deepEqual([uses(), timesAsked()], [true, 0]);
      } finally {
        writeFileSync(cpu, original);
      }
    });

    it('is not used by who cannot write down the answer', function () {
      if (process.getuid?.() !== 0) return this.skip();
      chmodSync(folder, 0o755);
      mkdirSync(join(folder, 'run'));
      const asNobody = () => run(['list'], {uid: 65_534}).stdout.includes('--snapshot-blob');
      assert.equal(asNobody(), false);
      assert.equal(uses(), true);
      assert.equal(asNobody(), true);
      assert.equal(timesAsked(), 0);
    });

    it('is used only for the files that it was made of', () => {
      const content = join(folder, 'snapshot.cjs');
      const snapshotOf = join(folder, 'cache/snapshot-of');
      const original = readFileSync(snapshotOf, 'utf8');
      assert.equal(uses(), true);
      cpSync(content, `${content}.new`);
      renameSync(`${content}.new`, content);
      assert.equal(uses(), false, 'replaced');
      appendFileSync(content, '\n');
      assert.equal(uses(), false, 'changed');
      rmSync(content);
      assert.equal(uses(), false, 'gone');
      copyFileSync(join(repository, 'dist/snapshot.cjs'), content);
      for (const text of ['', '\n', original.split('\n')[0] ?? '', original.replace(/^\d+/, '1')]) {
        writeFileSync(snapshotOf, text);
        assert.equal(uses(), false, JSON.stringify(text));
      }
      rmSync(snapshotOf);
      assert.equal(uses(), false);
    });
  });
});
