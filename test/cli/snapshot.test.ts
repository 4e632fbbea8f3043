/** The startup snapshot of all programs, made with the Node of the tests; the virtual machines use it too. */
import assert from 'node:assert/strict';
import {spawnSync} from 'node:child_process';
import {
  appendFileSync,
  chmodSync,
  copyFileSync,
  cpSync,
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

const repository = join(import.meta.dirname, '../..');

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
    makeSnapshot(folder);
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
      .replaceAll('@NODE@', node);
    writeFileSync(join(folder, name), text, {mode: 0o755});
  }

  /** With the snapshot: nothing else that runs it is in the folder. */
  function run(words: readonly string[], options: {cwd?: string; env?: NodeJS.ProcessEnv} = {}) {
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
      const flags = ['--no-rehash-snapshot', '--snapshot-blob', join(folder, 'cache/snapshot')];
      const {stderr} = spawnSync(process.execPath, [...flags, `/nowhere/${name}.cjs`], {encoding: 'utf8'});
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
      ['completion', 'bash'],
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

  it('is used for the files that it was made of, and for no others', () => {
    const shown = join(folder, 'node');
    writeFileSync(shown, '#!/bin/sh\necho "$@"\n', {mode: 0o755});
    putShell('node.sh', 'libexec/node.sh', shown);
    try {
      const uses = () => run(['list']).stdout.includes('--snapshot-blob');
      const snapshotOf = join(folder, 'cache/snapshot-of');
      const original = readFileSync(snapshotOf, 'utf8');
      assert.equal(uses(), true);
      const content = join(folder, 'snapshot.cjs');
      for (const [what, change] of [
        [
          'replaced',
          () => {
            cpSync(content, `${content}.new`);
            renameSync(`${content}.new`, content);
          },
        ],
        ['changed', () => appendFileSync(content, '\n')],
        ['gone', () => rmSync(content)],
      ] as const) {
        change();
        assert.equal(uses(), false, what);
      }
      copyFileSync(join(repository, 'dist/snapshot.cjs'), content);
      for (const text of ['', '\n', original.split('\n')[0] ?? '', original.replace(/^\d+/, '1')]) {
        writeFileSync(snapshotOf, text);
        assert.equal(uses(), false, JSON.stringify(text));
      }
      rmSync(snapshotOf);
      assert.equal(uses(), false);
    } finally {
      chmodSync(shown, 0o644);
    }
  });
});
