/** The packages that `make deb`, `make rpm` and makepkg build: they contain what `make install` installs. */
import assert from 'node:assert/strict';
import {spawnSync} from 'node:child_process';
import {mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';

const repository = join(import.meta.dirname, '../..');

/** Runs a program, which must succeed. @returns its standard output. */
function run(command: string, ...args: readonly string[]): string {
  const {status, stdout, stderr, error} = spawnSync(command, args, {
    cwd: repository,
    encoding: 'utf8',
    // The settings of an outer make do not apply. A commit between two builds would change their times.
    env: {PATH: process.env['PATH'], LC_ALL: 'C', SOURCE_DATE_EPOCH: '1700000000'},
  });
  assert.equal(error, undefined);
  assert.equal(status, 0, `${command} ${args.join(' ')}: ${stdout}${stderr}`);
  return stdout;
}

/** Path and type with permissions, such as `/usr/sbin/pearasys -rwxr-xr-x`, without folders. */
type Listing = readonly string[];

describe('packages', function () {
  this.timeout(120_000);
  let folder: string;
  let version: string;
  before(function () {
    const missing = ['dpkg-deb', 'rpmbuild', 'lintian'].filter(
      (program) => spawnSync(program, ['--version']).error !== undefined,
    );
    if (missing.length > 0 && process.env['CI'] !== 'true') this.skip();
    assert.deepEqual(missing, [], 'needed: apt install dpkg rpm lintian');
    folder = mkdtempSync(join(tmpdir(), 'pearasys-packages-'));
    ({version} = JSON.parse(readFileSync(join(repository, 'package.json'), 'utf8')) as {version: string});
    for (const name of ['first', 'second']) run('make', 'deb', 'rpm', `packages=${join(folder, name)}`);
  });
  after(() => {
    // Undefined if the packages could not be built.
    if ((folder as string | undefined) !== undefined) rmSync(folder, {recursive: true});
  });

  const deb = () => join(folder, `first/pearasys_${version}_all.deb`);
  const rpm = () => join(folder, `first/pearasys-${version}-1.noarch.rpm`);

  /** What `make install` installs for a package with these generators of an initramfs. */
  function installed(initramfs: string): Listing {
    const image = join(folder, initramfs.replace(' ', '-'));
    run('make', 'install', `DESTDIR=${image}`, 'PREFIX=/usr', `INITRAMFS=${initramfs}`);
    return sorted(run('find', image, '!', '-type', 'd', '-printf', '/%P %M\n'));
  }

  /** In order, without what only the packages have, and with the names of manual pages that are not compressed. */
  function sorted(text: string): Listing {
    return text
      .split('\n')
      .map((line) => line.replace(/(\/man\/.*)\.gz /, '$1 '))
      .filter((line) => line !== '' && !/^\/usr\/share\/(doc\/pearasys\/(?!third|sbom)|lintian\/)/.test(line))
      .sort();
  }

  it('for Debian have the files and modes of make install', () => {
    const found = run('dpkg-deb', '--contents', deb())
      .split('\n')
      .filter((line) => /^[-l]/.test(line))
      .map((line) => line.split(/ +/))
      .map(([mode = '', , , , , path = '']) => `${path.slice(1)} ${mode}`);
    // Debian's zsh looks in a folder of its own.
    const moved = found.join('\n').replace('/zsh/vendor-completions/', '/zsh/site-functions/');
    assert.deepEqual(sorted(moved), installed('initramfs-tools dracut'));
  });

  it('for Debian have mdevctl and lsmdev in a package of their own, with their completion', () => {
    const list = run('dpkg-deb', '--contents', join(folder, `first/pearasys-mdevctl_${version}_all.deb`));
    for (const name of ['mdevctl', 'lsmdev'])
      for (const path of [
        `sbin/${name} -> pearasys`,
        `lib/pearasys/completion/${name}`,
        `share/bash-completion/completions/${name}`,
        `share/zsh/vendor-completions/_${name}`,
        `share/fish/vendor_completions.d/${name}.fish`,
      ])
        assert.ok(list.includes(` ./usr/${path}\n`), path);
    assert.doesNotMatch(run('dpkg-deb', '--contents', deb()), /completion.*\/_?(mdevctl|lsmdev)/);
  });

  it('for Fedora have the files and modes of make install', () => {
    const found = run(
      'rpm',
      '--query',
      '--package',
      '--queryformat',
      '[%{FILENAMES} %{FILEMODES:perms}\n]',
      rpm(),
    )
      .split('\n')
      .filter((line) => / [-l]/.test(line));
    assert.deepEqual(sorted(found.join('\n')), installed('dracut'));
  });

  it('for Arch Linux have the files and modes of make install, below /usr/bin and /usr/lib', () => {
    // What makepkg does, in a copy of the checkout that is already built.
    const image = join(folder, 'arch');
    const sources = join(folder, 'sources');
    mkdirSync(sources);
    symlinkSync(repository, join(sources, `pearasys-${version}`));
    const program =
      'set -e; . packaging/arch/PKGBUILD; srcdir=$1 pkgdir=$2; echo "$pkgver $arch"; package >&2';
    assert.equal(run('bash', '-c', program, 'bash', sources, image), `${version} any\n`);
    const found = run('find', image, '!', '-type', 'd', '-printf', '/%P %M\n');
    assert.doesNotMatch(found, /\/usr\/(sbin|libexec)\//);
    assert.match(found, /^\/etc\/mkinitcpio\.conf\.d\/pearasys\.conf -rw-r--r--$/m);
    const moved = found
      .replace(/^\/usr\/bin\//gm, '/usr/sbin/')
      .replace(/^\/usr\/lib\/pearasys\/libexec\//gm, '/usr/libexec/pearasys/')
      .replace(/^\/usr\/share\/licenses\/.*\n/m, '');
    assert.deepEqual(sorted(moved), installed('mkinitcpio dracut'));
  });

  it('keep settings that the administrator has changed: their own are in /usr, and none is in /etc', () => {
    for (const files of [
      run('sh', '-c', 'dpkg-deb --fsys-tarfile "$1" | tar -t', 'sh', deb()),
      run('rpm', '--query', '--package', '--list', rpm()),
    ]) {
      assert.match(files, /^\.?\/usr\/lib\/pearasys\/pearasys\.conf$/m);
      // Folders for records and guests.
      const inEtc = files.split('\n').filter((path) => /^\.?\/etc\/./.test(path));
      assert.doesNotMatch(inEtc.join('\n'), /\.conf|[^/]*\d/);
    }
    assert.match(
      readFileSync(join(repository, 'packaging/arch/PKGBUILD'), 'utf8'),
      /^backup=\(etc\/mkinitcpio\.conf\.d\/pearasys\.conf\)$/m,
    );
  });

  it('do not start, stop or restart a unit, enable nothing, and touch no device', () => {
    const scripts =
      ['postinst', 'prerm', 'postrm'].map((name) => run('dpkg-deb', '--info', deb(), name)).join('\n') +
      run('rpm', '--query', '--package', '--scripts', '--triggers', rpm()) +
      readFileSync(join(repository, 'packaging/arch/pearasys.install'), 'utf8');
    const called = [...scripts.matchAll(/\bsystemctl ([^;|\n]*)/g)].map(([, words]) => words);
    assert.deepEqual([...new Set(called)], ['--system daemon-reload']);
    assert.doesNotMatch(scripts, /udevadm (?!control --reload)|deb-systemd|\/sys\/bus/);
    // Both make the caches, and when Node is upgraded.
    assert.equal(run('dpkg-deb', '--info', deb(), 'triggers'), 'interest-noawait /usr/bin/node\n');
    assert.match(scripts, /triggerin scriptlet .* -- nodejs, nodejs-libs\n.*make-caches\.cjs/);
  });

  it('have scripts that a shell accepts, with the text that all packages share', () => {
    const shared = readFileSync(join(repository, 'packaging/scriptlets.sh'), 'utf8').trim();
    const rpmScript = (tag: string) =>
      run('rpm', '--query', '--package', '--queryformat', `%{${tag}}`, rpm());
    for (const text of [
      ...['postinst', 'prerm', 'postrm'].map((name) => run('dpkg-deb', '--info', deb(), name)),
      ...['POSTIN', 'PREUN', 'POSTUN'].map(rpmScript),
    ]) {
      assert.ok(text.includes(shared), text);
      run('sh', '-n', '-c', text);
    }
  });

  it('need the Node of Debian 12 and Ubuntu 24.04, by its path', () => {
    assert.match(run('dpkg-deb', '--field', deb(), 'Depends'), /^nodejs \(>= 18\.19\), /);
    assert.match(run('rpm', '--query', '--package', '--requires', rpm()), /^nodejs >= 18\.19$/m);
    assert.match(
      run('sh', '-c', 'dpkg-deb --fsys-tarfile "$1" | tar -xO ./usr/libexec/pearasys/node.sh', 'sh', deb()),
      /^node='\/usr\/bin\/node'$/m,
    );
  });

  it('are the same bytes each time', () => {
    for (const path of [deb(), rpm(), join(folder, `first/pearasys-mdevctl_${version}_all.deb`)])
      assert.ok(readFileSync(path).equals(readFileSync(path.replace('/first/', '/second/'))), path);
  });

  it('satisfy lintian', () => {
    const printed = run(
      'lintian',
      ...['--fail-on', 'error,warning', '--tag-display-limit', '0', '--allow-root'],
      deb(),
      join(folder, `first/pearasys-mdevctl_${version}_all.deb`),
    );
    assert.doesNotMatch(printed, /^[EW]:/m);
  });
});
