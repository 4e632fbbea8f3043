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
    it('get a signal only if the PID was not reused', async () => {
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
    it('text without its last newline, and missing files as undefined', () => {
      fs.writeFileSync(real('/etc/a'), 'one\ntwo\n\n');
      assert.equal(host.readText('/etc/a'), 'one\ntwo\n');
      assert.equal(host.readText('/etc/b'), undefined);
      assert.equal(host.readText('/etc/a/b'), undefined);
      assert.throws(
        () => host.readText('/etc'),
        (error) => error instanceof FileError && error.errno === 'EISDIR',
      );
    });

    it('links as within the image, and never out of it', () => {
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
    it('whole, with folders and mode, and leaves nothing else', async () => {
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

    it('without space the old file is unchanged, and nothing else is left', async function () {
      const small = '/etc/small';
      fs.mkdirSync(real(small));
      if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=8k', 'tmpfs', real(small)]).status !== 0)
        this.skip();
      try {
        // If the test may not mount, or the size has no effect, this cannot be tested.
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

    it('removes them, and on request a folder that is then empty', async () => {
      await host.writeFile('/etc/a/b', '');
      await host.writeFile('/etc/a/c', '');
      await host.removeFile('/etc/a/b', {prune: 1});
      assert.deepEqual(host.list('/etc/a'), ['c']);
      await host.removeFile('/etc/a/c', {prune: 1});
      assert.equal(host.exists('/etc/a'), false);
      await host.removeFile('/etc/a/c', {prune: 1});
      await assert.rejects(host.removeFile('/etc'), (error) => error instanceof FileError);
    });

    it('removes as many empty folders above as requested', async () => {
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

  describe('sets owners', () => {
    it('of device nodes', async function () {
      const node = real('/etc/null');
      // mknod needs a capability that root of a container may not have.
      if (spawnSync('mknod', [node, 'c', '1', '3']).status !== 0) this.skip();
      const machine = new MachineHost();
      assert.equal(await machine.setOwner(node, {uid: 12, gid: 34}, 0o640), true);
      const {uid, gid, mode} = fs.statSync(node);
      assert.deepEqual([uid, gid, mode & 0o7777], [12, 34, 0o640]);
      await machine.close();
    });

    it('of nothing else, and of no node in an image, which would be one of this machine', async () => {
      const machine = new MachineHost();
      fs.writeFileSync(real('/etc/file'), '', {mode: 0o600});
      fs.symlinkSync('/dev/null', real('/etc/link'));
      fs.mkdirSync(real('/etc/folder'), {mode: 0o700});
      for (const name of ['file', 'link', 'missing', 'no/folder', 'folder'])
        assert.equal(await machine.setOwner(real(`/etc/${name}`), {uid: 12, gid: 34}, 0o666), false, name);
      const {uid, mode} = fs.statSync(real('/etc/file'));
      assert.deepEqual([uid === 12, mode & 0o777], [false, 0o600]);
      assert.equal(fs.statSync(real('/etc/folder')).mode & 0o777, 0o700);
      spawnSync('mknod', [real('/etc/null'), 'c', '1', '3']);
      assert.equal(await host.setOwner('/etc/null', {uid: 12, gid: 34}, 0o666), false);
      await machine.close();
    });
  });

  describe('writes attributes', () => {
    it('in one write, without creating or truncating files', async () => {
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

    it('by a child that has ended when the host is closed, because systemd would report leftover processes', async () => {
      const children = () => fs.readFileSync('/proc/thread-self/children', 'utf8').split(' ').filter(Boolean);
      const others = children();
      fs.writeFileSync(real('/etc/a'), '');
      await host.writeAttribute('/etc/a', 'x', 5000);
      assert.equal(children().length, others.length + 1);
      await host.close();
      assert.deepEqual(children(), others);
    });

    it('by one child if they begin at once and each is fast', async () => {
      const children = () => fs.readFileSync('/proc/thread-self/children', 'utf8').split(' ').filter(Boolean);
      const others = children();
      const paths = Array.from({length: 8}, (_, number) => `/etc/${number}`);
      for (const path of paths) fs.writeFileSync(real(path), '');
      await Promise.all(paths.map((path) => host.writeAttribute(path, 'x', 5000)));
      for (const path of paths) assert.equal(host.readText(path), 'x');
      assert.equal(children().length, others.length + 1);
    });

    it('by one child if each waits for the one before it, and by several if they take long', async () => {
      const children = () => fs.readFileSync('/proc/thread-self/children', 'utf8').split(' ').filter(Boolean);
      const others = children();
      fs.writeFileSync(real('/etc/a'), '');
      fs.writeFileSync(real('/etc/b'), '');
      await Promise.all(['/etc/a', '/etc/b'].map((path) => host.writeAttribute(path, 'x', 5000)));
      await host.writeAttribute('/etc/a', 'y', 5000);
      const writers = children().filter((pid) => !others.includes(pid));
      for (const pid of writers) process.kill(Number(pid), 'SIGSTOP');
      const slow = writers.map(() => host.writeAttribute('/etc/a', 'z', 20_000));
      await host.writeAttribute('/etc/b', 'z', 20_000);
      assert.equal(host.readText('/etc/b'), 'z');
      assert.equal(host.readText('/etc/a'), 'y');
      for (const pid of writers) process.kill(Number(pid), 'SIGCONT');
      await Promise.all(slow);
      assert.equal(host.readText('/etc/a'), 'z');
      await host.close();
      assert.deepEqual(children(), others);
    });

    it('one that does not return is left behind, and the next goes to another child', async () => {
      const children = () => fs.readFileSync('/proc/thread-self/children', 'utf8').split(' ').filter(Boolean);
      const others = children();
      fs.writeFileSync(real('/etc/a'), '');
      await host.writeAttribute('/etc/a', 'x', 5000);
      const [writer = ''] = children().filter((pid) => !others.includes(pid));
      // A stopped process responds as little as one that waits in the kernel.
      process.kill(Number(writer), 'SIGSTOP');
      await assert.rejects(host.writeAttribute('/etc/a', 'x', 1000), (error) => {
        assert.ok(error instanceof StuckError);
        assert.equal(error.exitCode, 5);
        assert.equal(error.pid, Number(writer));
        process.kill(error.pid, 'SIGKILL');
        return true;
      });
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

    it('a failing one is reported with its message, a missing one as missing', async () => {
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

    it('one that does not end is killed', async () => {
      await assert.rejects(
        host.run('sleep', ['60'], {limit: 100}),
        (error) => error instanceof CommandError && error.status === undefined && error.ended === 'late',
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
            error instanceof CommandError &&
            error.ended === 'late' &&
            / did not end in time$/.test(error.message),
        );
        const pid = fs.readFileSync(mark, 'utf8').trim();
        // Removed, or a zombie that waits for its new parent; otherwise mocha's limit ends the test.
        const isDead = () =>
          !fs.existsSync(`/proc/${pid}/stat`) || /\) [ZX]/.test(fs.readFileSync(`/proc/${pid}/stat`, 'utf8'));
        while (!isDead()) await host.pause(10);
      });

    it('passes standard input, even if it is not read', async () => {
      assert.equal((await host.run('cat', [], {input: '{"a":1}'})).stdout, '{"a":1}');
      assert.equal((await host.run('true', [], {input: 'x'.repeat(1 << 20)})).status, 0);
      assert.equal((await host.run('cat', [])).stdout, '');
    });

    it('can accept any exit code, and pass the environment on', async () => {
      assert.equal((await host.run('sh', ['-c', 'exit 77'], {accept: 'any'})).status, 77);
      process.env['PEARASYS_TEST'] = 'x';
      const {stdout} = await host.run('env', [], {inheritEnvironment: true});
      delete process.env['PEARASYS_TEST'];
      assert.match(stdout, /^PEARASYS_TEST=x$/m);
    });
  });

  describe('runs misbehaving programs', () => {
    const rejected = async (run: Promise<unknown>): Promise<CommandError> => {
      const error = await run.then(
        () => undefined,
        (reason: unknown) => reason,
      );
      assert.ok(error instanceof CommandError, String(error));
      return error;
    };
    /** Waits until the process is removed, or is a zombie that waits for its new parent. */
    const hasEnded = async (pid: string) => {
      const stat = `/proc/${pid}/stat`;
      while (fs.existsSync(stat) && !/\) [ZX]/.test(fs.readFileSync(stat, 'utf8'))) await host.pause(10);
    };

    it('endless output ends at the limit, and the limit is reported', async () => {
      for (const where of ['', ' >&2']) {
        const error = await rejected(host.run('sh', ['-c', `yes${where}`], {limit: 20_000}));
        assert.equal(error.ended, 'overflow');
        assert.match(error.message, / printed too much$/);
        assert.deepEqual(error.details, ['expected at most 1 MiB of output']);
      }
    });

    it('too much output of one that has ended is a failure too', async () => {
      const script = 'head -c 3000 /dev/zero';
      assert.equal((await host.run('sh', ['-c', script], {outputLimit: 3000})).stdout.length, 3000);
      const error = await rejected(host.run('sh', ['-c', script], {outputLimit: 2999}));
      assert.equal(error.ended, 'overflow');
    });

    it('one that ignores SIGTERM is killed, with those it has started', async () => {
      const mark = join(folder, 'started');
      const script = `trap '' TERM; sh -c "trap '' TERM; echo \\$\\$ >${mark}; while :; do sleep 1; done" & wait; while :; do sleep 1; done`;
      const error = await rejected(host.run('sh', ['-c', script], {limit: 3000}));
      assert.equal(error.ended, 'late');
      await hasEnded(fs.readFileSync(mark, 'utf8').trim());
    });

    it('one that has left the group is not waited for', async () => {
      const mark = join(folder, 'started');
      const script = `setsid sh -c 'echo $$ >${mark}; exec sleep 61' & while :; do sleep 1; done`;
      const error = await rejected(host.run('sh', ['-c', script], {limit: 3000}));
      assert.equal(error.ended, 'late');
      process.kill(Number(fs.readFileSync(mark, 'utf8')), 'SIGKILL');
    });

    it('processes in the background are not waited for, and not killed', async () => {
      const {stdout} = await host.run('sh', ['-c', 'sleep 61 & echo $!'], {limit: 20_000});
      process.kill(Number(stdout), 'SIGKILL');
    });

    it('a failed start is reported with its reason, also when no descriptor is left', async () => {
      fs.writeFileSync(real('/etc/text'), '');
      for (const [file, words] of [
        ['no-such-program', /^ENOENT \(/],
        [real('/etc/text'), /^EACCES \(permission denied\)$/],
      ] as const) {
        const error = await rejected(host.run(file, []));
        assert.match(error.message, / could not be run$/);
        assert.match(error.details.join(), words);
      }
      await host.run('true', []);
      const open: number[] = [];
      let answer: CommandError;
      try {
        for (;;)
          try {
            open.push(fs.openSync('/dev/null', 'r'));
          } catch {
            break;
          }
        answer = await rejected(host.run('true', []));
      } finally {
        for (const file of open) fs.closeSync(file);
      }
      assert.deepEqual(answer.details, ['EMFILE (too many open files)']);
    });
  });

  describe('special and huge files', () => {
    const failure = (read: () => unknown): string => {
      try {
        read();
      } catch (error) {
        if (error instanceof FileError) return error.message;
        throw error;
      }
      return '';
    };
    const expected = 'expected a regular file of at most 1 MiB';

    for (const [what, make, answer] of [
      ['FIFO', (path: string) => execFileSync('mkfifo', [path]), `it is a FIFO; ${expected}`],
      ['directory', (path: string) => fs.mkdirSync(path), `it is a directory; ${expected}`],
      ['device', (path: string) => fs.symlinkSync('/dev/zero', path), `it is a device node; ${expected}`],
      ['huge file', (path: string) => execFileSync('truncate', ['-s', '300M', path]), 'it is too large'],
      [
        'socket',
        (path: string) =>
          execFileSync('perl', [
            '-MIO::Socket::UNIX',
            '-e',
            'IO::Socket::UNIX->new(Local => $ARGV[0], Listen => 1)',
            path,
          ]),
        `it is a socket; ${expected}`,
      ],
    ] as const)
      it(`a ${what} is not read, on the machine and in an image`, function () {
        const path = real('/etc/x');
        // In an image, the target of a link is in the image.
        const inImage = what !== 'device';
        try {
          make(path);
        } catch (error) {
          if (what === 'socket') this.skip();
          throw error;
        }
        for (const [one, name] of [
          [new MachineHost(), path],
          ...(inImage ? [[host, '/etc/x'] as const] : []),
        ] as const)
          for (const read of [() => one.readText(name), () => one.readBytes(name)])
            assert.ok(failure(read).startsWith(`reading ${name} failed: ${answer}`), failure(read));
      });

    it('the caller sets the limit, and its last byte is read', () => {
      fs.writeFileSync(real('/etc/x'), 'x'.repeat(5000));
      assert.equal(host.readBytes('/etc/x', 5000)?.length, 5000);
      assert.match(
        failure(() => host.readBytes('/etc/x', 4999)),
        /expected at most 4999 bytes$/,
      );
      fs.writeFileSync(real('/etc/x'), '');
      assert.equal(host.readText('/etc/x'), '');
    });
  });

  describe('locks', () => {
    it('have one holder at a time: the next one waits, but not for a lock of another name', async () => {
      const first = await host.lock('0000:02:00.0', 1000);
      const other = await host.lock('0000:02:00.1', 1000);
      await assert.rejects(new MachineHost(folder).lock('0000:02:00.0', 100), {code: 'busy', exitCode: 3});
      const waiting = new MachineHost(folder).lock('0000:02:00.0', 5000);
      await first.release();
      await (await waiting).release();
      await other.release();
    });

    it('end with their process, in any way', async () => {
      const program =
        `import {MachineHost} from ${JSON.stringify(join(import.meta.dirname, '../../src/host/machine-host.ts'))};` +
        `await new MachineHost(${JSON.stringify(folder)}).lock('x', 1000); process.kill(process.pid, 'SIGKILL');`;
      const {signal} = spawnSync(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', program]);
      assert.equal(signal, 'SIGKILL');
      await (await host.lock('x', 2000)).release();
    });

    it('are in a folder that no other user can enter, with any previous mode and any umask', async () => {
      const umask = process.umask(0);
      try {
        await (await host.lock('x', 1000)).release();
        assert.deepEqual(
          ['/run', '/run/pearasys', '/run/pearasys/lock', '/run/pearasys/lock/x'].map(
            (path) => host.info(path)?.mode,
          ),
          [0o755, 0o755, 0o700, 0o600],
        );
      } finally {
        process.umask(umask);
      }
      fs.chmodSync(real('/run/pearasys/lock'), 0o755);
      fs.writeFileSync(real('/run/pearasys/lock/y'), '');
      // Another process has opened the lock before, and holds it.
      const stranger = spawn('flock', [real('/run/pearasys/lock/y'), 'sh', '-c', 'echo; sleep 61'], {
        detached: true,
      });
      await new Promise((resolve) => stranger.stdout.once('data', resolve));
      try {
        await (await host.lock('y', 1000)).release();
      } finally {
        process.kill(-(stranger.pid ?? 0), 'SIGKILL');
      }
      assert.equal(host.info('/run/pearasys/lock')?.mode, 0o700);
    });

    it("another user's folder is refused", async function () {
      if (process.geteuid?.() !== 0) this.skip();
      fs.mkdirSync(real('/run/pearasys/lock'), {recursive: true});
      fs.chownSync(real('/run/pearasys/lock'), 1000, 1000);
      await assert.rejects(
        host.lock('x', 1000),
        /its folder is owned by user 1000; expected a folder owned by root$/,
      );
    });

    for (const [what, make] of [
      ['link', (path: string, outside: string) => fs.symlinkSync(outside, path)],
      ['link to nothing', (path: string, outside: string) => fs.symlinkSync(`${outside}.new`, path)],
      ['FIFO', (path: string) => execFileSync('mkfifo', [path])],
      ['directory', (path: string) => fs.mkdirSync(path)],
    ] as const)
      it(`a ${what} in the place of a lock is refused at once`, async () => {
        const outside = fs.mkdtempSync(join(tmpdir(), 'pearasys-outside-'));
        try {
          fs.writeFileSync(`${outside}/x`, 'kept');
          fs.mkdirSync(real('/run/pearasys/lock'), {recursive: true, mode: 0o700});
          make(real('/run/pearasys/lock/x'), `${outside}/x`);
          await assert.rejects(
            host.lock('x', 20_000),
            (error) => error instanceof FileError && error.errno === 'EINVAL',
          );
          assert.deepEqual(fs.readdirSync(outside), ['x']);
          assert.equal(fs.readFileSync(`${outside}/x`, 'utf8'), 'kept');
        } finally {
          fs.rmSync(outside, {recursive: true});
        }
      });

    it('a wait for one ends with the signal', async () => {
      const held = await host.lock('x', 1000);
      const controller = new AbortController();
      const waiting = new MachineHost(folder).lock('x', 600_000, controller.signal);
      await host.pause(1);
      controller.abort();
      await assert.rejects(waiting, {code: 'interrupted', exitCode: 1, details: ['nothing was changed']});
      await assert.rejects(host.lock('y', 1000, controller.signal), {code: 'interrupted'});
      await held.release();
    });
  });

  describe('--root is never left', () => {
    let outside: string;
    beforeEach(() => {
      outside = fs.mkdtempSync(join(tmpdir(), 'pearasys-outside-'));
      fs.writeFileSync(`${outside}/file`, 'outside');
    });
    afterEach(() => fs.rmSync(outside, {recursive: true, force: true}));
    const untouched = () => {
      assert.deepEqual(fs.readdirSync(outside), ['file']);
      assert.equal(fs.readFileSync(`${outside}/file`, 'utf8'), 'outside');
    };

    it('by an absolute link, a relative one, or one of links: what is written is in the image', async () => {
      fs.symlinkSync(outside, real('/absolute'));
      fs.symlinkSync(`..${'/..'.repeat(20)}${outside}`, real('/relative'));
      fs.symlinkSync('relative', real('/chain'));
      for (const link of ['/absolute', '/relative', '/chain']) {
        await host.writeFile(`${link}/new`, 'inside');
        assert.equal(fs.readFileSync(real(`${outside}/new`), 'utf8'), 'inside');
        assert.equal(host.readText(`${link}/file`), undefined);
        await host.removeFile(`${link}/new`);
        await host.removeFile(`${link}/file`);
        untouched();
      }
      // The folder of run time state, and of locks.
      fs.symlinkSync(outside, real('/run'));
      await (await host.lock('x', 1000)).release();
      assert.ok(fs.existsSync(real(`${outside}/pearasys/lock/x`)));
      untouched();
    });

    it('through more links than the kernel follows: ELOOP', async () => {
      fs.symlinkSync(outside, real('/link0'));
      for (let link = 1; link <= 41; link++) fs.symlinkSync(`link${link - 1}`, real(`/link${link}`));
      fs.symlinkSync('loop', real('/loop'));
      for (const path of ['/link41/file', '/link40/file', '/loop/file', '/loop']) {
        const isLoop = (error: unknown) => error instanceof FileError && error.errno === 'ELOOP';
        assert.throws(() => host.readText(path), isLoop, path);
        assert.throws(() => host.readBytes(path), isLoop, path);
        assert.equal(host.exists(path), false);
        assert.equal(host.realPath(path), undefined);
        assert.deepEqual(host.list(path), []);
        if (path !== '/loop') await assert.rejects(host.writeFile(path, 'x'), isLoop, path);
        if (path !== '/loop') await assert.rejects(host.removeFile(path), isLoop, path);
        await assert.rejects(host.writeAttribute(path, 'x', 5000), isLoop, path);
      }
      // The 40th link is still followed.
      fs.mkdirSync(real(outside), {recursive: true});
      fs.writeFileSync(real(`${outside}/file`), 'inside');
      assert.equal(host.readText('/link39/file'), 'inside');
      untouched();
    });

    it('by a link at the end of the path: it is read in the image, and replaced', async () => {
      fs.symlinkSync(`${outside}/file`, real('/etc/x'));
      assert.equal(host.readText('/etc/x'), undefined);
      await assert.rejects(host.writeAttribute('/etc/x', 'x', 5000), {errno: 'ENOENT'});
      await host.writeFile('/etc/x', 'inside');
      assert.equal(host.info('/etc/x', false)?.kind, 'file');
      untouched();
    });

    it('by a device node or FIFO of the image: neither is opened', async () => {
      execFileSync('mkfifo', [real('/etc/pipe')]);
      await assert.rejects(
        host.writeAttribute('/etc/pipe', 'x', 5000),
        /it is a FIFO; expected a regular file$/,
      );
      assert.equal(host.isClaimedByKernel('/etc/pipe'), false);
      await host.writeFile('/etc/pipe', 'inside');
      assert.equal(host.readText('/etc/pipe'), 'inside');
    });

    it('and a missing root is created with its first file, even below a link', async () => {
      fs.mkdirSync(real('/behind'));
      fs.symlinkSync(real('/behind'), real('/link-to-behind'));
      for (const name of ['/none', '/link-to-behind/none']) {
        const root = new MachineHost(real(name));
        assert.equal(root.readText('/etc/x'), undefined);
        assert.deepEqual(root.list('/'), []);
        assert.equal(fs.existsSync(real(name)), false);
        await root.writeFile('/etc/x', 'one');
        assert.equal(fs.readFileSync(real(`${name}/etc/x`), 'utf8'), 'one');
        assert.equal(root.readText('/etc/x'), 'one');
      }
    });

    it('even if the root is a link', async () => {
      fs.symlinkSync(folder, `${outside}.link`);
      try {
        const other = new MachineHost(`${outside}.link`);
        await other.writeFile('/etc/a/x', 'one');
        assert.equal(host.readText('/etc/a/x'), 'one');
        assert.equal(other.readText('/etc/a/x'), 'one');
        assert.equal(other.realPath('/etc/a/../a/x'), '/etc/a/x');
        assert.deepEqual(other.list('/etc'), ['a']);
        await (await other.lock('x', 1000)).release();
      } finally {
        fs.rmSync(`${outside}.link`);
      }
    });
  });
});
