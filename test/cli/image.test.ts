/** What a package brings for systemd, in an image of a system: presets, tmpfiles.d, and the digests of its files. */
import assert from 'node:assert/strict';
import {spawnSync} from 'node:child_process';
import fs from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import type {ReportResult} from '../../src/entry/cli/commands/report.js';

const repository = join(import.meta.dirname, '../..');

/** Runs a program, which must succeed. @returns its standard output. */
function run(command: string, ...args: readonly string[]): string {
  const {status, stdout, stderr} = spawnSync(command, args, {cwd: repository, encoding: 'utf8'});
  assert.equal(status, 0, `${command} ${args.join(' ')}: ${stderr}`);
  return stdout;
}

describe('an image with pearasys', function () {
  this.timeout(60_000);
  let image: string;
  const claim =
    'etc/systemd/system/sys-bus-pci-devices-0000:04:00.0.device.wants/pearasys-0000:04:00.0@vfio-pci.service';
  before(function () {
    const missing = ['systemctl', 'systemd-tmpfiles'].filter(
      (program) => spawnSync(program, ['--version']).error !== undefined,
    );
    if (missing.length > 0 && process.env['CI'] !== 'true') this.skip();
    assert.deepEqual(missing, [], 'needed: apt install systemd');
    image = fs.mkdtempSync(join(tmpdir(), 'pearasys-image-'));
    run('make', 'install', `DESTDIR=${image}`, 'PREFIX=/usr');
    const words = ['-s', '04:00.0', '-d', '10de:1b80', 'service', 'install', 'vfio-pci'];
    run('sbin/pearasys', '--root', image, ...words);
  });
  after(() => {
    if ((image as string | undefined) !== undefined) fs.rmSync(image, {recursive: true});
  });

  const linksInEtc = () =>
    run('find', image, '-path', '*/etc/systemd/*', '-type', 'l', '-printf', '%P\n').trim().split('\n');

  for (const [what, others] of [
    ['a distribution that enables every unit by default', ''],
    ['one that disables every unit by default', 'disable *\n'],
  ] as const)
    it(`keeps its claims, and gets no others, at the first boot of ${what}`, () => {
      assert.deepEqual(linksInEtc(), [claim]);
      const preset = join(image, 'usr/lib/systemd/system-preset/99-default.preset');
      fs.writeFileSync(preset, others);
      run('systemctl', `--root=${image}`, 'preset-all');
      assert.deepEqual(linksInEtc(), [claim]);
      const files = run('systemctl', `--root=${image}`, 'list-unit-files', '--no-legend', '--no-pager');
      assert.match(files, /^pearasys-early\.service +static/m);
      assert.deepEqual(
        files.split('\n').filter((line) => !/ (?:static|indirect) /.test(line) && line !== ''),
        [],
      );
    });

  it('has the folder for state, which all users may read', () => {
    run('systemd-tmpfiles', `--root=${image}`, '--create', 'pearasys.conf');
    assert.equal(fs.statSync(join(image, 'run/pearasys')).mode & 0o7777, 0o755);
  });

  it('has files as they were installed, until one is changed', () => {
    const installed = () => {
      const layout = ['--root', image, 'report', '--json'];
      const report = JSON.parse(run(join(image, 'usr/lib/pearasys/run'), ...layout)) as ReportResult;
      return report.parts.find(({name}) => name === 'installed')!;
    };
    // The launcher of the image runs the Node of the image: the bundle is run without it.
    fs.writeFileSync(
      join(image, 'usr/lib/pearasys/run'),
      `#!/bin/sh\nexec node ${join(image, 'usr/lib/pearasys/start.cjs')} "$@"\n`,
      {mode: 0o755},
    );
    const {lines, problems} = installed();
    assert.deepEqual(problems, []);
    assert.match(lines.join('\n'), /^(\d+) of \1 files are as they were installed$/);
    fs.appendFileSync(join(image, 'usr/lib/udev/rules.d/60-pearasys.rules'), '# changed\n');
    assert.equal(
      installed().lines[0],
      '/usr/lib/udev/rules.d/60-pearasys.rules differs from what was installed',
    );
  });
});
