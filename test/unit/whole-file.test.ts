import assert from 'node:assert/strict';
import {spawnSync} from 'node:child_process';
import fs from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {pathToFileURL} from 'node:url';
import {draftFolder} from '../../src/host/paths.js';
import {MachineHost} from '../../src/host/machine-host.js';
import {draftName} from '../../src/host/whole-file.js';

const source = (name: string) => pathToFileURL(join(import.meta.dirname, '../../src/host', name)).href;

describe('a file that is written whole', () => {
  let folder: string;
  let host: MachineHost;
  beforeEach(() => {
    folder = fs.mkdtempSync(join(tmpdir(), 'pearasys-whole-'));
    host = new MachineHost(folder);
  });
  afterEach(() => fs.rmSync(folder, {recursive: true}));

  const modeOf = (path: string) => (fs.statSync(folder + path).mode & 0o7777).toString(8);
  const all = () => fs.readdirSync(folder, {recursive: true}).map(String).sort();

  /** Writes `/etc/a/x` in a process that kills itself at this call of Node's. */
  function killedAt(call: 'renameSync' | 'writeFileSync' | 'fsyncSync' | 'mkdirSync', mode = 0o644): void {
    const program = `
      import fs from 'node:fs';
      const {MachineHost} = await import(${JSON.stringify(source('machine-host.ts'))});
      const host = new MachineHost(${JSON.stringify(folder)});
      const original = fs.${call};
      fs.${call} = (...args) => {
        if (${JSON.stringify(call)} === 'mkdirSync') original(...args);
        process.kill(process.pid, 'SIGKILL');
      };
      await host.writeFile('/etc/a/x', 'new\\n', {mode: ${mode}});`;
    const {signal, stderr} = spawnSync(
      process.execPath,
      ['--import', 'tsx', '--input-type=module', '--eval', program],
      {encoding: 'utf8'},
    );
    assert.equal(signal, 'SIGKILL', stderr);
  }

  for (const umask of [0o022, 0o077, 0o777, 0])
    it(`has the requested mode, and so do new folders, with umask ${umask.toString(8)}`, async () => {
      const before = process.umask(umask);
      try {
        await host.writeFile('/etc/a/b/x', 'x\n', {mode: 0o640});
        await host.writeFile('/etc/a/b/y', 'y\n');
      } finally {
        process.umask(before);
      }
      assert.deepEqual(['/etc', '/etc/a', '/etc/a/b', '/etc/a/b/x', '/etc/a/b/y'].map(modeOf), [
        '755',
        '755',
        '755',
        '640',
        '644',
      ]);
    });

  it('has the requested owner and group, and set-id bits', async function () {
    // Only root can change the owner of a file.
    if (process.geteuid?.() !== 0) this.skip();
    await host.writeFile('/x', 'x\n', {mode: 0o2750, owner: {uid: 12, gid: 34}});
    const {uid, gid} = fs.statSync(`${folder}/x`);
    assert.deepEqual([uid, gid, modeOf('/x')], [12, 34, '2750']);
  });

  for (const call of ['mkdirSync', 'writeFileSync', 'fsyncSync', 'renameSync'] as const)
    it(`is old or new if its writer is killed at ${call}, and the next writer leaves nothing else`, async () => {
      fs.mkdirSync(`${folder}/etc/a`, {recursive: true});
      fs.writeFileSync(`${folder}/etc/a/x`, 'old\n');
      killedAt(call, 0o755);
      assert.equal(host.readText('/etc/a/x'), 'old');
      // No program can take the remains for a unit, a drop-in, a hook or a definition.
      assert.deepEqual(host.list('/etc/a'), ['x']);
      const left = fs.readdirSync(`${folder}/etc/a`).filter((name) => name !== 'x');
      assert.deepEqual(left, [draftFolder]);
      await host.writeFile('/etc/a/y', 'y\n');
      assert.deepEqual(all(), ['etc', 'etc/a', 'etc/a/x', 'etc/a/y']);
    });

  it('is removed with its new folders if its first writer was killed', async () => {
    for (const call of ['mkdirSync', 'renameSync'] as const) {
      killedAt(call);
      await host.tidyFolder('/etc/a', {prune: 2});
      assert.deepEqual(all(), []);
    }
  });

  it('is removed with its folder even if a killed writer has left files there', async () => {
    await host.writeFile('/etc/a/x', 'x\n');
    killedAt('renameSync');
    await host.removeFile('/etc/a/x', {prune: 1});
    assert.deepEqual(all(), ['etc']);
  });

  it('does not touch drafts of running processes, and other files', async () => {
    const drafts = `${folder}/etc/${draftFolder}`;
    fs.mkdirSync(drafts, {recursive: true});
    const living = draftName(process.ppid);
    assert.ok(living !== undefined);
    const [pid, start] = living.split('.');
    const earlierBoot = `${pid ?? ''}.${start ?? ''}.00000000-0000-0000-0000-000000000000`;
    const earlierProcess = living.replace(/\.\d+\./, '.1.');
    for (const name of [living, earlierBoot, earlierProcess, 'mine'])
      fs.writeFileSync(`${drafts}/${name}`, '');
    await host.writeFile('/etc/x', 'x\n');
    assert.deepEqual(fs.readdirSync(drafts).sort(), [living, 'mine'].sort());
  });

  it('is not written through a link instead of the folder for drafts', async () => {
    fs.mkdirSync(`${folder}/etc`);
    fs.mkdirSync(`${folder}/elsewhere`);
    fs.symlinkSync('../elsewhere', `${folder}/etc/${draftFolder}`);
    await assert.rejects(host.writeFile('/etc/x', 'x\n'), {code: 'file-failed'});
    assert.deepEqual(fs.readdirSync(`${folder}/elsewhere`), []);
    assert.equal(fs.existsSync(`${folder}/etc/x`), false);
  });

  it('may be a link, which replaces a file or another link', async () => {
    await host.writeFile('/etc/x', 'x\n');
    await host.makeLink('/etc/x', 'y');
    assert.equal(host.readLink('/etc/x'), 'y');
    await host.makeLink('/etc/x', '/z');
    assert.equal(host.readLink('/etc/x'), '/z');
    assert.deepEqual(all(), ['etc', 'etc/x']);
  });

  it('is on the disk with its folder after the sync, also if the folder was removed', async () => {
    await host.writeFile('/etc/a/x', 'x\n');
    await host.removeFile('/etc/a/x', {prune: 2});
    const synced: number[] = [];
    const original = fs.fsyncSync;
    fs.fsyncSync = (file) => {
      synced.push(fs.fstatSync(file).ino);
      original(file);
    };
    try {
      await host.syncFiles();
      assert.deepEqual(synced, [fs.statSync(folder).ino]);
      synced.length = 0;
      await host.syncFiles();
    } finally {
      fs.fsyncSync = original;
    }
    assert.deepEqual(synced, []);
  });
});
