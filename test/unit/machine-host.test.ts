import assert from 'node:assert/strict';
import fs from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {CommandError, FileError, StuckError, WriteError} from '../../src/host/errors.js';
import {MachineHost} from '../../src/host/machine-host.js';
import {startOf} from '../../src/host/process.js';
import {execFileSync, spawn, spawnSync} from 'node:child_process';

describe('MachineHost', function () {
  // It starts real processes.
  this.timeout(20_000);
  let folder: string;
  let host: MachineHost;
  const real = (path: string) => folder + path;
  beforeEach(() => {
    folder = fs.mkdtempSync(join(tmpdir(), 'pearasys-host-'));
    host = new MachineHost(`${folder}/`);
    fs.mkdirSync(real('/etc'));
  });
  afterEach(async () => {
    await host.close();
    fs.rmSync(folder, {recursive: true, force: true});
  });

  describe('processes', () => {
    it('get a signal only when they are those that are meant', async () => {
      const machine = new MachineHost();
      const child = spawn('sleep', ['60'], {stdio: 'ignore'});
      const ended = new Promise((resolve) => child.once('exit', (_, signal) => resolve(signal)));
      const pid = child.pid ?? 0;
      const started = startOf(machine, pid) ?? '';
      assert.match(started, /^\d+$/);
      assert.equal(machine.signal({pid, started: '1'}, 'SIGKILL'), false);
      assert.equal(startOf(machine, pid), started);
      assert.equal(machine.signal({pid, started}, 'SIGTERM'), true);
      assert.equal(await ended, 'SIGTERM');
      assert.equal(startOf(machine, pid), undefined);
      assert.equal(machine.signal({pid, started}, 'SIGTERM'), false);
    });
  });

  describe('reads', () => {
    it('text without its last newline, what is not there as undefined', () => {
      fs.writeFileSync(real('/etc/a'), 'one\ntwo\n\n');
      assert.equal(host.readText('/etc/a'), 'one\ntwo\n');
      assert.equal(host.readText('/etc/b'), undefined);
      assert.equal(host.readText('/etc/a/b'), undefined);
      assert.throws(
        () => host.readText('/etc'),
        (error) => error instanceof FileError && error.errno === 'EISDIR',
      );
    });

    it('links as the image would, and never out of it', () => {
      fs.writeFileSync(real('/etc/a'), 'inside\n');
      fs.symlinkSync('/etc/a', real('/absolute'));
      fs.symlinkSync('../../../../../etc/passwd', real('/etc/up'));
      fs.symlinkSync('/etc/loop', real('/etc/loop'));
      assert.equal(host.readText('/absolute'), 'inside');
      assert.equal(host.readText('/etc/up'), undefined);
      assert.equal(host.exists('/etc/loop'), false);
      assert.equal(host.realPath('/absolute'), '/etc/a');
      assert.equal(host.readLink('/absolute'), '/etc/a');
      assert.equal(host.info('/absolute', false)?.kind, 'link');
      assert.equal(host.info('/absolute')?.kind, 'file');
    });

    it('folders in order; none is empty', () => {
      for (const name of ['b', 'a']) fs.writeFileSync(real(`/etc/${name}`), '');
      assert.deepEqual(host.list('/etc'), ['a', 'b']);
      assert.deepEqual(host.list('/nothing'), []);
    });
  });

  describe('writes files', () => {
    it('whole, with folders and mode, and leaves nothing beside them', async () => {
      await host.writeFile('/etc/new/x', 'one\n');
      await host.writeFile('/etc/new/x', 'two\n', {mode: 0o600});
      assert.equal(fs.readFileSync(real('/etc/new/x'), 'utf8'), 'two\n');
      assert.equal(host.info('/etc/new/x')?.mode, 0o600);
      assert.deepEqual(fs.readdirSync(real('/etc/new')), ['x']);
    });

    it('or not at all', async () => {
      fs.mkdirSync(real('/etc/x'));
      await assert.rejects(host.writeFile('/etc/x', 'y'), (error) => error instanceof FileError);
      fs.writeFileSync(real('/etc/file'), 'kept');
      await assert.rejects(host.writeFile('/etc/file/below', 'y'), (error) => error instanceof FileError);
      assert.equal(fs.readFileSync(real('/etc/file'), 'utf8'), 'kept');
      assert.deepEqual(fs.readdirSync(real('/etc')).sort(), ['file', 'x']);
    });

    it('no space: the old one is whole, and nothing is left beside it', async function () {
      const small = '/etc/small';
      fs.mkdirSync(real(small));
      if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=8k', 'tmpfs', real(small)]).status !== 0)
        this.skip();
      try {
        // Where a test may not mount, or the size does not count, there is nothing to be seen.
        const full = spawnSync('dd', ['if=/dev/zero', `of=${real(`${small}/probe`)}`, 'bs=1M', 'count=4']);
        if (full.status === 0) this.skip();
        fs.rmSync(real(`${small}/probe`));
        await host.writeFile(`${small}/x`, 'old\n');
        await assert.rejects(
          host.writeFile(`${small}/x`, 'new\n'.repeat(1_000_000)),
          (error) => error instanceof FileError && error.errno === 'ENOSPC',
        );
        assert.equal(host.readText(`${small}/x`), 'old');
        assert.deepEqual(host.list(small), ['x']);
      } finally {
        execFileSync('umount', [real(small)]);
      }
    });

    it('removes them, and a folder that is left empty when asked', async () => {
      await host.writeFile('/etc/a/b', '');
      await host.writeFile('/etc/a/c', '');
      await host.removeFile('/etc/a/b', {prune: 1});
      assert.deepEqual(host.list('/etc/a'), ['c']);
      await host.removeFile('/etc/a/c', {prune: 1});
      assert.equal(host.exists('/etc/a'), false);
      await host.removeFile('/etc/a/c', {prune: 1});
      await assert.rejects(host.removeFile('/etc'), (error) => error instanceof FileError);
    });

    it('removes as many folders above as are left empty and asked for', async () => {
      await host.writeFile('/etc/a/b/c/d/e', '');
      await host.writeFile('/etc/a/x', '');
      await host.removeFile('/etc/a/b/c/d/e', {prune: 2});
      assert.deepEqual(host.list('/etc/a/b'), []);
      await host.writeFile('/etc/a/b/c/d/e', '');
      await host.removeFile('/etc/a/b/c/d/e', {prune: 9});
      assert.deepEqual(host.list('/etc/a'), ['x']);
    });

    it('a link is removed, not what it leads to', async () => {
      fs.writeFileSync(real('/etc/a'), '');
      fs.symlinkSync('/etc/a', real('/etc/b'));
      await host.removeFile('/etc/b');
      assert.deepEqual(host.list('/etc'), ['a']);
    });
  });

  describe('writes attributes', () => {
    it('in one write, without making or emptying anything', async () => {
      fs.writeFileSync(real('/etc/a'), 'a longer text');
      await host.writeAttribute('/etc/a', 'x', 5000);
      assert.equal(host.readText('/etc/a'), 'x longer text');
      await assert.rejects(
        host.writeAttribute('/etc/none', 'x', 5000),
        (error) => error instanceof WriteError && error.errno === 'ENOENT',
      );
      assert.equal(host.exists('/etc/none'), false);
      await assert.rejects(
        host.writeAttribute('/etc', 'x', 5000),
        (error) => error instanceof WriteError && error.errno === 'EISDIR',
      );
    });

    it('by a child that has ended when the host is closed: systemd would tell of what a service leaves', async () => {
      const children = () => fs.readFileSync('/proc/thread-self/children', 'utf8').split(' ').filter(Boolean);
      const others = children();
      fs.writeFileSync(real('/etc/a'), '');
      await host.writeAttribute('/etc/a', 'x', 5000);
      assert.equal(children().length, others.length + 1);
      await host.close();
      assert.deepEqual(children(), others);
    });

    it('one that does not return is left behind, and the next goes to another child', async () => {
      // Opening a pipe that nobody reads waits.
      execFileSync('mkfifo', [real('/etc/pipe')]);
      fs.writeFileSync(real('/etc/a'), '');
      const started = Date.now();
      await assert.rejects(host.writeAttribute('/etc/pipe', 'x', 1000), (error) => {
        assert.ok(error instanceof StuckError);
        assert.equal(error.exitCode, 5);
        assert.ok(error.pid !== undefined);
        process.kill(error.pid, 'SIGKILL');
        return true;
      });
      assert.ok(Date.now() - started < 10_000);
      await host.writeAttribute('/etc/a', 'y', 5000);
      assert.equal(host.readText('/etc/a'), 'y');
    });
  });

  describe('runs programs', () => {
    it('without a shell, with a clean environment', async () => {
      process.env['PEARASYS_TEST'] = 'x';
      const {stdout} = await host.run('env', []);
      delete process.env['PEARASYS_TEST'];
      assert.doesNotMatch(stdout, /PEARASYS_TEST/);
      assert.match(stdout, /^LC_ALL=C$/m);
      assert.equal((await host.run('echo', ['$(id)', ';', '*'])).stdout, '$(id) ; *');
    });

    it('a failing one is told in its own words, a missing one as such', async () => {
      await assert.rejects(host.run('sh', ['-c', 'echo no >&2; exit 3']), (error) => {
        assert.ok(error instanceof CommandError);
        assert.deepEqual([error.status, error.stderr.trim()], [3, 'no']);
        return true;
      });
      assert.equal((await host.run('sh', ['-c', 'exit 3'], {accept: [0, 3]})).status, 3);
      await assert.rejects(
        host.run('no-such-program', []),
        (error) => error instanceof CommandError && error.status === undefined,
      );
    });

    it('one that does not end is ended', async () => {
      await assert.rejects(
        host.run('sleep', ['60'], {limit: 100}),
        (error) => error instanceof CommandError && error.status === undefined && error.late,
      );
    });

    for (const [what, output] of [
      ['which keeps its output open', ''],
      ['though its output is closed', '>/dev/null 2>&1 </dev/null'],
    ] as const)
      it(`with what it has started, ${what}`, async () => {
        const mark = join(folder, 'started');
        await assert.rejects(
          host.run('sh', ['-c', `sleep 61 ${output} & echo $! >${mark}; wait`], {limit: 300}),
          (error) =>
            error instanceof CommandError && error.late && / did not end in time$/.test(error.message),
        );
        const pid = fs.readFileSync(mark, 'utf8').trim();
        // Gone, or dead and waiting for its new parent; a test that waits in vain ends by mocha's limit.
        const isDead = () =>
          !fs.existsSync(`/proc/${pid}/stat`) || /\) [ZX]/.test(fs.readFileSync(`/proc/${pid}/stat`, 'utf8'));
        while (!isDead()) await host.pause(10);
      });

    it('gives it something to read, though it may not read it', async () => {
      assert.equal((await host.run('cat', [], {input: '{"a":1}'})).stdout, '{"a":1}');
      assert.equal((await host.run('true', [], {input: 'x'.repeat(1 << 20)})).status, 0);
      assert.equal((await host.run('cat', [])).stdout, '');
    });

    it('any exit code may be an answer, and the environment handed on', async () => {
      assert.equal((await host.run('sh', ['-c', 'exit 77'], {accept: 'any'})).status, 77);
      process.env['PEARASYS_TEST'] = 'x';
      const {stdout} = await host.run('env', [], {inheritEnvironment: true});
      delete process.env['PEARASYS_TEST'];
      assert.match(stdout, /^PEARASYS_TEST=x$/m);
    });
  });

  describe('locks', () => {
    it('one at a time, the next waits, another name does not', async () => {
      const first = await host.lock('0000:02:00.0', 1000);
      const other = await host.lock('0000:02:00.1', 1000);
      await assert.rejects(new MachineHost(folder).lock('0000:02:00.0', 100), {code: 'busy', exitCode: 3});
      const waiting = new MachineHost(folder).lock('0000:02:00.0', 5000);
      await first.release();
      await (await waiting).release();
      await other.release();
    });

    it('go with the process that has them, however it ends', async () => {
      const program =
        `import {MachineHost} from ${JSON.stringify(join(import.meta.dirname, '../../src/host/machine-host.ts'))};` +
        `await new MachineHost(${JSON.stringify(folder)}).lock('x', 1000); process.kill(process.pid, 'SIGKILL');`;
      const {signal} = spawnSync(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', program]);
      assert.equal(signal, 'SIGKILL');
      await (await host.lock('x', 2000)).release();
    });
  });
});
