import assert from 'node:assert/strict';
import {createHash} from 'node:crypto';
import fs from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import type {ReportResult} from '../../src/entry/cli/commands/report.js';
import type {SimulatedHost} from '../simulated-host/simulated-host.js';
import {machines, runUnits} from '../unit/services.js';
import {answer, succeeds, typed} from './runs.js';

const card = '0000:02:00.0';
const rule = '/usr/lib/udev/rules.d/60-pearasys.rules';
const unit = '/usr/lib/systemd/system/pearasys-record@.service';
const list = '/usr/local/libexec/pearasys/files.sha256';
const uuid = 'c0ffee00-1234-4321-abcd-123456789abc';

describe('pearasys report', () => {
  const machinesOf = machines();

  /** A machine with names that must stay private. */
  const made = (files: Record<string, string> = {}) =>
    machinesOf((declaration) => {
      Object.assign(
        declaration.files,
        {
          '/etc/hostname': 'tower.example.org\n',
          '/etc/os-release': 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
          '/etc/passwd': 'root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n',
          '/etc/group': 'kvm:x:104:\nalice:x:1000:\n',
          '/proc/cmdline':
            'root=UUID=c0ffee00-0000-0000-0000-000000000000 quiet intel_iommu=on pearasys.skip=05:00.0\n',
          '/etc/pearasys/guests/work-vm.conf': `${card}\n`,
          '/var/log/messages': `[ 4.1] pearasys-guest@old\\x2dvm.service: old-vm had machine-qemu\\x2d1\\x2dthird.scope\n[ 4.2] pearasys-guest@work-vm.service[9]: work-vm of alice on tower has ${uuid}\n`,
        },
        files,
      );
    });

  async function json(host: SimulatedHost, line = 'report'): Promise<ReportResult> {
    const {exitCode, stdout, stderr} = await typed(host, `${line} --json`);
    assert.equal(exitCode, 0, stderr);
    return JSON.parse(stdout) as ReportResult;
  }
  const partOf = (report: ReportResult, name: string) => report.parts.find((part) => part.name === name)!;

  it('prints every part, and changes nothing', async () => {
    const host = made();
    runUnits(host);
    await succeeds(host, `-s ${card} service install vfio-pci --siblings --now`);
    host.journal.length = 0;
    const {exitCode, stdout, stderr} = await typed(host, 'report');
    assert.equal(exitCode, 0, stderr);
    for (const expected of [
      /^pearasys \d+\.\d+\.\d+$/m,
      /^Node v\d+/m,
      /^distribution: Debian GNU\/Linux 12 \(bookworm\)$/m,
      /^kernel 6\.1\.0-18-amd64$/m,
      /^systemd 252 /m,
      /^udev 252$/m,
      /^libvirt is not installed$/m,
      /^intel_iommu=on\npearasys\.skip=05:00\.0\n2 other parameters are left out$/m,
      new RegExp(`^ {2}pearasys-${card}@vfio-pci\\.service loaded active`, 'm'),
      new RegExp(
        `^/etc/pearasys/pci/${card}-0x10de-0x1b80:\\n( {2}.*\\n)* {2}PEARASYS_DRIVER=vfio-pci$`,
        'm',
      ),
      new RegExp(`^/etc/systemd/system/sys-bus-pci-devices-${card}\\.device\\.wants/.* -> `, 'm'),
      /^\[ 4\.2\] pearasys-guest@guest-1\.service/m,
      new RegExp(`^ {6}"slot": "${card}",$`, 'm'),
    ])
      assert.match(stdout, expected);
    assert.deepEqual(
      host.journal.filter(({kind}) => kind !== 'run'),
      [],
    );
    assert.doesNotMatch(host.effects().join('\n'), / (start|stop|enable|disable|daemon-reload|trigger) /);
  });

  it('contains no private names, and the same word for the same thing', async () => {
    const host = made({
      '/etc/mdevctl.d/0000:00:02.0': '',
      [`/etc/pearasys/pci/${card}-0x10de-0x1b80`]: `PEARASYS_SLOT=${card}\nPEARASYS_ID=10de:1b80\nPEARASYS_DRIVER=vfio-pci\nPEARASYS_SERIAL=pcie:00-11-22-33-44-55-66-77\n`,
    });
    const {stdout} = await typed(host, 'report');
    assert.doesNotMatch(
      stdout,
      /tower|example\.org|alice|work-vm|old-vm|old\\x2dvm|third|c0ffee00|00-11-22/i,
    );
    assert.match(stdout, /guest-1 of user-1 on host-\d has uuid-1$/m);
    assert.match(stdout, /^\/etc\/pearasys\/guests\/guest-1\.conf:$/m);
    assert.match(stdout, /PEARASYS_SERIAL=pcie:serial-1/);
    // Those of the machine's disks and network cards too.
    assert.doesNotMatch(stdout, /52:54:00|192\.168\./);
  });

  it('says which installed files were changed, are missing, and are overridden', async () => {
    const digest = (text: string) => createHash('sha256').update(text).digest('hex');
    const host = made();
    const textLines = host
      .readText(unit)!
      .split('\n')
      .filter((line) => line.trim() !== '')
      .map((line) => `  ${line}`);
    const texts = [rule, unit].map((path) => host.readBytes(path)!.toString());
    const entries = [
      `${digest(texts[0]!)}  ${rule}`,
      `${digest('other')}  ${unit}`,
      `${digest('')}  /usr/gone`,
    ];
    const tree = host.machine.tree;
    tree.file(list, `${entries.join('\n')}\n`);
    tree.file('/etc/udev/rules.d/60-pearasys.rules', '# mine\n');
    tree.file('/etc/systemd/system/pearasys-record@.service.d/mine.conf', '[Service]\nNice=5\n');
    assert.deepEqual(partOf(await json(host), 'installed').lines, [
      `/etc/udev/rules.d/60-pearasys.rules overrides ${rule}`,
      `${unit} differs from what was installed`,
      ...textLines,
      `/etc/systemd/system/pearasys-record@.service.d/mine.conf overrides ${unit}`,
      '/usr/gone is missing',
      '1 of 3 files are as they were installed',
    ]);
    assert.ok(partOf(await json(host), 'files').lines.includes('  Nice=5'));
  });

  it('says where each setting comes from', async () => {
    const vendor = '/usr/lib/pearasys/pearasys.conf.d/10-vendor.conf';
    const report = await json(made({[vendor]: 'Initramfs=no\n'}));
    assert.deepEqual(partOf(report, 'settings').lines, [
      'AutoRecord=yes (the default)',
      `Initramfs=no (${vendor})`,
    ]);
    assert.ok(partOf(report, 'files').lines.includes(`${vendor}:`));
  });

  it('shows what is alike for many slots once', async () => {
    const host = made();
    await succeeds(host, `-s ${card} -s 0000:04:00.0 service install vfio-pci`);
    const {lines} = partOf(await json(host), 'files');
    const template = (slot: string) => `/etc/systemd/system/pearasys-claim-${slot}@.service:`;
    assert.ok(lines.includes(template(card)));
    assert.ok(
      lines.includes(`${template('0000:04:00.0')} as ${template(card).slice(0, -1)}, with its own slot`),
    );
  });

  it('says what this user may not read', async () => {
    const host = made();
    host.userId = 1000;
    const report = await json(host);
    assert.deepEqual(partOf(report, 'journal').problems, [
      'journalctl --boot --no-pager --no-hostname --output=short-monotonic --lines=1000 --unit=pearasys-early.service ' +
        '--unit=pearasys* --unit=mdev@* --unit=mdev_* --unit=vgpu@* --unit=vgpu_* failed (exit code 1): ' +
        'No journal files were opened due to insufficient permissions.',
    ]);
    assert.match(report.listProblems.join(), /not root: files that processes of other users have open/);
  });

  it('is complete without what fails', async () => {
    const host = made();
    host.failCommand(/^systemctl list-units/, 1, 'Failed to list units: Connection timed out');
    host.failRead(`/etc/pearasys/guests/work-vm.conf`, 'EIO');
    const report = await json(host);
    assert.match(partOf(report, 'units').problems.join(), /Connection timed out$/);
    assert.match(partOf(report, 'files').problems.join(), /guests\/guest-1\.conf failed: /);
    assert.ok(report.list!.devices.length > 0);
  });

  describe('--output', () => {
    let folder: string;
    beforeEach(() => (folder = fs.mkdtempSync(join(tmpdir(), 'pearasys-report-'))));
    afterEach(() => fs.rmSync(folder, {recursive: true}));

    it('writes it, for any user, readable only by this user', async () => {
      const host = made();
      host.userId = 1000;
      const {exitCode, stdout} = await typed(host, 'report --output /home/alice/report.txt');
      assert.equal(exitCode, 0);
      assert.equal(stdout, 'Written to /home/alice/report.txt. Read it before you send it.\n');
      assert.match(host.readText('/home/alice/report.txt') ?? '', /^== Versions$/m);
      assert.equal(host.info('/home/alice/report.txt')?.mode, 0o600);
    });

    it('shows it on a terminal first, and asks', async () => {
      const host = made();
      const no = await answer(
        host,
        ['report', '--output', '/home/alice/report.txt'],
        [/Write this report to/, 'n\r'],
      );
      assert.notEqual(no.exitCode, 0);
      assert.match(no.stdout, /^== Versions$/m);
      assert.equal(host.exists('/home/alice/report.txt'), false);
      const yes = await answer(
        host,
        ['report', '--output', '/home/alice/report.txt'],
        [/Write this report to/, '\r'],
      );
      assert.equal(yes.exitCode, 0, yes.stderr);
      assert.ok(yes.stdout.startsWith(host.readText('/home/alice/report.txt') ?? '?'));
    });

    it('writes nothing in a dry run', async () => {
      const host = made();
      const {exitCode, stdout} = await typed(host, 'report --output /home/alice/report.txt --dry-run');
      assert.equal(exitCode, 0);
      assert.match(stdout, /^cat > \/home\/alice\/report\.txt <<'EOF'\nReport of pearasys\.$/m);
      assert.equal(host.exists('/home/alice/report.txt'), false);
    });

    it('reads the image of --root, and writes outside of it', async () => {
      const host = made();
      const image = join(folder, 'image');
      fs.mkdirSync(join(image, 'etc/pearasys/pci'), {recursive: true});
      fs.writeFileSync(join(image, 'etc/os-release'), 'ID=arch\n');
      const {exitCode, stderr} = await typed(host, `report --root ${image} --output /home/alice/report.txt`);
      assert.equal(exitCode, 0, stderr);
      const text = host.readText('/home/alice/report.txt') ?? '';
      assert.match(text, /^distribution: arch$/m);
      assert.match(text, /^not read: the journal of .* is not read$/m);
      assert.deepEqual(fs.readdirSync(image), ['etc']);
    });
  });
});
