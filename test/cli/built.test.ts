/** The built program: the bundle, with the packages that are loaded only when they are used. */
import assert from 'node:assert/strict';
import {execFileSync, spawn, spawnSync} from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import {tmpdir} from 'node:os';
import {dirname, join} from 'node:path';
import {setTimeout as wait} from 'node:timers/promises';
import {commands} from '../../src/entry/cli/command-table.js';
import {MachineHost} from '../../src/host/machine-host.js';
import {servicesLock} from '../../src/plan/service/service.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';

const launcher = join(import.meta.dirname, '../../sbin/pearasys');

function built(...words: string[]) {
  const result = spawnSync(launcher, words, {encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe']});
  // A warning of Node: `(node:812) [DEP0176] DeprecationWarning: …`.
  assert.doesNotMatch(result.stderr, /^\(node:\d+\)|Warning: /m, words.join(' '));
  return result;
}

describe('the built program', () => {
  it('prints the help of every command', function () {
    // Each command is one start of Node.
    this.timeout(180_000);
    for (const id of Object.keys(commands)) {
      const {status, stdout, stderr} = built('help', ...id.split(':'));
      assert.equal(status, 0, stderr);
      assert.ok(stdout.includes(`$ pearasys ${id.replace(':', ' ')}`), stdout);
    }
  });

  it('rejects wrong arguments with 2', () => {
    for (const words of [['lisst'], ['list', '--nonsense'], ['bind'], ['pci', 'device']]) {
      const {status, stderr} = built(...words);
      assert.equal(status, 2, words.join(' '));
      assert.doesNotMatch(stderr, /internal error|at .*\.cjs/);
    }
  });

  describe('on a simulated machine', () => {
    let host: SimulatedHost;
    before(() => (host = SimulatedHost.standard()));
    after(() => host.dispose());

    it('lists, shows and plans', () => {
      const {folder} = host.machine;
      for (const words of [
        ['list', '--json'],
        ['show', '02:00.0'],
        ['bind', 'vfio-pci', '02:00.0', '--siblings', '--dry-run'],
        ['-s', '02:00.0', 'pci', 'device', '--driver', 'vfio-pci', 'bind', '--dry-run'],
        ['-s', '02:00.0', 'service', 'install', 'vfio-pci', '--dry-run'],
        ['service', 'list'],
      ]) {
        const {status, stdout, stderr} = built('--root', folder, ...words);
        assert.equal(status, 0, `${words.join(' ')}: ${stderr}`);
        assert.doesNotMatch(stderr, /internal error/);
        if (words[0] !== 'service') assert.notEqual(stdout, '');
      }
    });

    it('draws a table on a terminal', function () {
      const line = `${launcher} list --root ${host.machine.folder}`;
      const {error, status, stdout} = spawnSync('script', ['-qec', line, '/dev/null'], {
        encoding: 'utf8',
        env: {...process.env, TERM: 'xterm'},
      });
      // On Debian it is in bsdutils, which is always installed.
      if (error !== undefined) this.skip();
      assert.equal(status, 0, stdout);
      assert.match(stdout, /SLOT.*ID.*CLASS.*DRIVER/);
    });
  });

  describe('while it waits for a lock', function () {
    this.timeout(60_000);
    let host: SimulatedHost;
    beforeEach(() => (host = SimulatedHost.standard()));
    afterEach(() => host.dispose());

    /** All files of the machine except the locks, with their times. */
    const files = () =>
      execFileSync('find', ['.', '-path', './run/pearasys', '-prune', '-o', '-printf', '%P %s %T@ %l\n'], {
        cwd: host.machine.folder,
        encoding: 'utf8',
      });

    /** Waits until the process has a child with this name: flock(1) runs as long as the lock is held. */
    async function untilChild(pid: number, name: string): Promise<void> {
      for (;;) {
        const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ');
        if (children.some((child) => child !== '' && comm(child) === name)) return;
        await wait(10);
      }
    }
    const comm = (pid: string) =>
      existsSync(`/proc/${pid}/comm`) ? readFileSync(`/proc/${pid}/comm`, 'utf8').trim() : undefined;

    for (const [words, lock, signal] of [
      ['-s 02:00.0 service install vfio-pci', servicesLock, 'SIGTERM'],
      ['-s 02:00.0 service install vfio-pci --timeout 600', servicesLock, 'SIGINT'],
      [
        'mdev define -u 83b8f4f2-509f-382f-3c1e-e6bfe0fa1001 -p mtty -t mtty-1',
        '83b8f4f2-509f-382f-3c1e-e6bfe0fa1001',
        'SIGHUP',
      ],
    ] as const)
      it(`ends at once with 1 at ${signal}, and nothing is changed: ${words}`, async () => {
        const held = await new MachineHost(host.machine.folder).lock(lock, 1000);
        const before = files();
        const child = spawn(launcher, ['--root', host.machine.folder, ...words.split(' ')], {
          stdio: ['ignore', 'pipe', 'pipe'],
        });
        let stderr = '';
        child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
        const ended = new Promise<unknown[]>((resolve) =>
          child.once('close', (code, by) => resolve([code, by])),
        );
        await Promise.race([untilChild(child.pid ?? 0, 'flock'), ended]);
        child.kill(signal);
        assert.deepEqual(await ended, [1, null], stderr);
        assert.equal(stderr, 'pearasys: interrupted\n  nothing was changed\n');
        assert.equal(files(), before);
        await held.release();
      });
  });

  describe('whose output fails', () => {
    let host: SimulatedHost;
    let full: number;
    before(() => {
      host = SimulatedHost.standard();
      full = openSync('/dev/full', 'w');
    });
    after(() => {
      host.dispose();
      closeSync(full);
    });
    const run = (
      program: string,
      words: readonly string[],
      stdout: 'pipe' | number,
      stderr: 'pipe' | number,
    ) => spawnSync(program, words, {encoding: 'utf8', stdio: ['ignore', stdout, stderr]});
    const loss = (what: string, name = 'pearasys') =>
      `${name}: writing to standard ${what} failed: ENOSPC (no space left)\n`;

    it('reports it in one line and ends with 1 if nothing was changed', function () {
      this.timeout(60_000);
      const root = ['--root', host.machine.folder];
      for (const words of [
        ['list', ...root],
        ['list', '--json', ...root],
        ['show', '02:00.0', ...root],
        ['show', '02:00.0', '--json', ...root],
        ['service', 'list', '--json', ...root],
        ['guest', 'query', ...root],
        ['bind', 'vfio-pci', '02:00.0', '--siblings', '--dry-run', ...root],
        ['completion', 'bash'],
        ['completion', 'zsh', '--json'],
        ['--help'],
        ['help', 'service', 'install'],
        ['--version'],
      ]) {
        const {status, stderr} = run(launcher, words, full, 'pipe');
        assert.deepEqual([status, stderr], [1, loss('output')], words.join(' '));
      }
    });

    it('keeps the exit code of a failure that cannot be reported', function () {
      this.timeout(60_000);
      const root = ['--root', host.machine.folder];
      for (const [words, expected] of [
        [['lisst'], 2],
        [['list', '--nonsense'], 2],
        [['show', '0e:1f.7', ...root], 4],
        [['bind', 'vfio-pci', '02:00.0', ...root], 3],
        [['bind', 'vfio-pci', '02:00.0', '--json', ...root], 3],
      ] as const) {
        for (const [stdout, stderr] of [
          ['pipe', full],
          [full, 'pipe'],
          [full, full],
        ] as const) {
          const {status} = run(launcher, words, stdout, stderr);
          assert.equal(status, expected, words.join(' '));
        }
      }
      const refused = run(launcher, ['bind', 'vfio-pci', '02:00.0', ...root], 'pipe', full);
      assert.equal(refused.stdout, loss('error'));
      const asJson = run(launcher, ['bind', 'vfio-pci', '02:00.0', '--json', ...root], 'pipe', full);
      assert.equal((JSON.parse(asJson.stdout) as {error: {exitCode: number}}).error.exitCode, 3);
    });

    it('ends with 0 if the change was made', () => {
      const image = mkdtempSync(join(tmpdir(), 'pearasys-image-'));
      try {
        mkdirSync(join(image, 'etc/systemd/system'), {recursive: true});
        const words = [
          '-s',
          '04:00.0',
          '-d',
          '10de:1b80',
          'service',
          'install',
          'vfio-pci',
          '-v',
          '--root',
          image,
        ];
        const {status, stderr} = run(launcher, words, full, 'pipe');
        assert.equal(status, 0, stderr);
        assert.ok(stderr.endsWith(loss('output')), stderr);
        assert.ok(existsSync(join(image, 'etc/pearasys/pci/0000:04:00.0-0x10de-0x1b80')));
        const removed = run(
          launcher,
          ['-s', '04:00.0', 'service', 'uninstall', '-v', '--root', image],
          'pipe',
          full,
        );
        assert.equal(removed.status, 0);
        assert.equal(existsSync(join(image, 'etc/pearasys/pci/0000:04:00.0-0x10de-0x1b80')), false);
      } finally {
        rmSync(image, {recursive: true});
      }
    });

    it('reports nothing when its reader has closed the pipe', () => {
      const {status, stdout, stderr} = spawnSync(
        'bash',
        ['-c', 'for n in 1 2 3; do "$0" "$@"; done | head -n 1; echo "${PIPESTATUS[0]}"', launcher, '--help'],
        {encoding: 'utf8'},
      );
      assert.deepEqual([status, stderr], [0, '']);
      assert.match(stdout, /\n0\n$/);
    });

    it('is the same as mdevctl', () => {
      const program = join(import.meta.dirname, '../../dist/mdevctl.cjs');
      for (const [words, name] of [
        [['mdevctl', '--version'], 'mdevctl'],
        [['mdevctl', 'list', '--dumpjson'], 'mdevctl'],
        [['lsmdev', '--help'], 'lsmdev'],
      ] as const) {
        const {status, stderr} = run('node', [program, ...words], full, 'pipe');
        assert.deepEqual([status, stderr], [1, loss('output', name)], words.join(' '));
      }
      assert.equal(run('node', [program, 'mdevctl', 'nonsense'], 'pipe', full).status, 2);
    });

    it('is the same as a handler, because systemd uses its exit code', () => {
      for (const handler of ['claim', 'release', 'guest-start']) {
        const program = join(import.meta.dirname, `../../dist/${handler}.cjs`);
        for (const stderr of ['pipe', full] as const)
          assert.equal(run('node', [program], 'pipe', stderr).status, 2, handler);
      }
    });
  });

  it('installs an image: files, and the record of a device that is named by slot and id', () => {
    const image = mkdtempSync(join(tmpdir(), 'pearasys-image-'));
    try {
      mkdirSync(join(image, 'etc/systemd/system'), {recursive: true});
      const words = ['-s', '04:00.0', '-d', '10de:1b80', 'service', 'install', 'vfio-pci', '--dry-run'];
      const {status, stdout, stderr} = built('--root', image, ...words);
      assert.equal(status, 0, stderr);
      assert.match(stdout, /^cat > \/etc\/pearasys\/pci\/0000:04:00\.0-0x10de-0x1b80/m);
    } finally {
      rmSync(image, {recursive: true});
    }
  });

  it('is installed with the given folders, and with a code cache that V8 accepts from its launcher', () => {
    const prefix = mkdtempSync(join(tmpdir(), 'pearasys-installed-'));
    try {
      const folders = ['SYSCONFDIR', 'UNITDIR', 'UDEVDIR'].map((name) => `${name}=${join(prefix, name)}`);
      const made = spawnSync('make', ['install', `PREFIX=${prefix}`, ...folders, 'reload='], {
        cwd: join(import.meta.dirname, '../..'),
        encoding: 'utf8',
      });
      assert.equal(made.status, 0, made.stderr);
      const shell = readFileSync(join(prefix, 'libexec/pearasys/node.sh'), 'utf8');
      const flags = /^flags='(.*)'$/m.exec(shell)?.[1];
      for (const [shared, path] of [
        ['man/man8/pearasys.8', 'SYSCONFDIR/pearasys/guests'],
        ...[
          'bash-completion/completions/pearasys',
          'zsh/site-functions/_pearasys',
          'fish/vendor_completions.d/pearasys.fish',
        ].map((script) => [script, 'SYSCONFDIR/pearasys'] as const),
      ] as const) {
        const text = readFileSync(join(prefix, 'share', shared), 'utf8');
        assert.ok(text.includes(join(prefix, path)), shared);
        assert.doesNotMatch(text, /@SYSCONFDIR@|@LIBDIR@|\/etc\/pearasys/);
        if (path !== 'SYSCONFDIR/pearasys') continue;
        for (const file of ['complete', 'pearasys']) {
          const read = join(prefix, 'lib/pearasys/completion', file);
          assert.ok(text.includes(read) && existsSync(read), file);
        }
      }
      const pagesIn = (folder: string) => readdirSync(folder, {recursive: true, encoding: 'utf8'}).sort();
      const pages = pagesIn(join(import.meta.dirname, '../../dist/share/man'));
      assert.ok(pages.includes('man5/pearasys-records.5'));
      assert.deepEqual(pagesIn(join(prefix, 'share/man')), pages);
      const library = join(prefix, 'lib/pearasys');
      const [cache = ''] = readdirSync(join(library, 'cache'));
      const look = `const {readFileSync} = require('fs'), {Script} = require('vm');
        const script = new Script(readFileSync('pearasys.cjs', 'latin1'), {cachedData: readFileSync(${JSON.stringify(join('cache', cache))})});
        console.log(script.cachedDataRejected)`;
      const {stdout, stderr} = spawnSync('node', [...(flags ?? '').split(' '), '-e', look], {
        cwd: library,
        encoding: 'utf8',
      });
      assert.equal(stdout, 'false\n', stderr);
    } finally {
      rmSync(prefix, {recursive: true});
    }
  });

  it('is installed in an image without running a program of it: its Node is the image’s', () => {
    const image = mkdtempSync(join(tmpdir(), 'pearasys-image-'));
    try {
      const made = spawnSync('make', ['install', `DESTDIR=${image}`, 'PREFIX=/usr'], {
        cwd: join(import.meta.dirname, '../..'),
        encoding: 'utf8',
        env: {PATH: process.env['PATH']},
      });
      assert.equal(made.status, 0, made.stderr);
      assert.match(
        readFileSync(join(image, 'usr/libexec/pearasys/node.sh'), 'utf8'),
        /^node='\/usr\/bin\/node'$/m,
      );
      // Caches are for one build of Node.
      assert.ok(!existsSync(join(image, 'usr/lib/pearasys/cache')));
    } finally {
      rmSync(image, {recursive: true});
    }
  });

  it('is uninstalled with the completion of its programs', () => {
    const image = mkdtempSync(join(tmpdir(), 'pearasys-image-'));
    try {
      const make = (...goals: string[]) => {
        const {status, stderr} = spawnSync(
          'make',
          ['-C', join(import.meta.dirname, '../..'), ...goals, `DESTDIR=${image}`],
          // The outer make's settings are none of this one's.
          {encoding: 'utf8', env: {PATH: process.env['PATH']}},
        );
        assert.equal(status, 0, stderr);
      };
      const completions = () =>
        ['bash-completion/completions', 'zsh/site-functions', 'fish/vendor_completions.d'].flatMap((folder) =>
          readdirSync(join(image, 'usr/local/share', folder)).sort(),
        );
      make('install');
      assert.deepEqual(completions(), ['pearasys', '_pearasys', 'pearasys.fish']);
      make('install-mdevctl');
      assert.deepEqual(completions(), [
        ...['lsmdev', 'mdevctl', 'pearasys'],
        ...['_lsmdev', '_mdevctl', '_pearasys'],
        ...['lsmdev.fish', 'mdevctl.fish', 'pearasys.fish'],
      ]);
      make('uninstall');
      assert.deepEqual(completions(), []);
    } finally {
      rmSync(image, {recursive: true});
    }
  });

  it('is uninstalled with all its manual pages, those of an older version too, and no other', () => {
    const image = mkdtempSync(join(tmpdir(), 'pearasys-image-'));
    try {
      const folder = join(image, 'usr/local/share/man');
      const pages = [
        'man5/pearasys.conf.5',
        'man7/pearasys-events.7',
        'man8/pearasys.8',
        'man8/pearasys-old.8',
      ];
      for (const page of [...pages, 'man8/other.8']) {
        mkdirSync(dirname(join(folder, page)), {recursive: true});
        writeFileSync(join(folder, page), '');
      }
      const {status, stderr} = spawnSync(
        'make',
        ['-C', join(import.meta.dirname, '../..'), 'uninstall', `DESTDIR=${image}`],
        // The outer make's settings are none of this one's.
        {encoding: 'utf8', env: {PATH: process.env['PATH']}},
      );
      assert.equal(status, 0, stderr);
      const left = ['man5', 'man7', 'man8'].flatMap((section) => readdirSync(join(folder, section)));
      assert.deepEqual(left, ['other.8']);
    } finally {
      rmSync(image, {recursive: true});
    }
  });

  it("is uninstalled with a warning if a file turns VFIO's no-IOMMU mode on at each boot", () => {
    const image = mkdtempSync(join(tmpdir(), 'pearasys-image-'));
    try {
      const uninstall = () =>
        spawnSync('make', ['-C', join(import.meta.dirname, '../..'), 'uninstall', `DESTDIR=${image}`], {
          encoding: 'utf8',
          // The outer make's settings are none of this one's.
          env: {PATH: process.env['PATH']},
        });
      const before = uninstall();
      assert.equal(before.status, 0, before.stderr);
      assert.doesNotMatch(before.stderr, /no-iommu/);
      const file = join(image, 'etc/modprobe.d/pearasys-no-iommu.conf');
      mkdirSync(dirname(file), {recursive: true});
      writeFileSync(file, '');
      const {status, stderr} = uninstall();
      assert.equal(status, 0, stderr);
      assert.ok(stderr.includes(`${file} stays: it turns VFIO's no-IOMMU mode on at each boot`), stderr);
      assert.ok(existsSync(file));
    } finally {
      rmSync(image, {recursive: true});
    }
  });
});
