import assert from 'node:assert/strict';
import fs from 'node:fs';
import {setTimeout as wait} from 'node:timers/promises';
import type {BootStatusResult} from '../../src/entry/cli/commands/boot/status.js';
import type {ChangeResult} from '../../src/entry/cli/switching.js';
import {effectText} from '../simulated-host/journal.js';
import type {SimulatedHost} from '../simulated-host/simulated-host.js';
import {machines} from '../unit/services.js';
import {Terminal, typed} from './runs.js';

const card = '0000:02:00.0';
const sound = '0000:02:00.1';
const disk = '0000:04:00.0';
const list = '/etc/pearasys/initramfs-claims';
const settings = '/etc/pearasys/pearasys.conf';
const release = '6.1.0-18-amd64';
const image = `/boot/initrd.img-${release}`;
const rebuild = 'update-initramfs -u -k all';
const link = (slot: string) =>
  `/etc/systemd/system/sys-bus-pci-devices-${slot}.device.wants/pearasys-${slot}@vfio-pci.service`;

describe('pearasys boot', () => {
  const machinesOf = machines();

  /** A machine whose initramfs is built by initramfs-tools, with an image of an hour ago. */
  function made(files: Record<string, string> = {}): SimulatedHost {
    const host = machinesOf((declaration) => {
      Object.assign(
        declaration.files,
        {'/usr/sbin/update-initramfs': '', '/usr/share/initramfs-tools/hook-functions': '', [image]: ''},
        files,
      );
    });
    age(host, image, 3600);
    return host;
  }

  function age(host: SimulatedHost, path: string, seconds: number): void {
    const then = Date.now() / 1000 - seconds;
    fs.utimesSync(host.machine.tree.onDisk(path), then, then);
  }

  /** The slots in the list, or in an image. */
  const slotsIn = (host: SimulatedHost, path: string) =>
    (host.readText(path) ?? '')
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'))
      .map((line) => line.split(' ')[0]);

  async function json<T>(host: SimulatedHost, line: string): Promise<T> {
    const {exitCode, stdout, stderr} = await typed(host, `${line} --json`);
    assert.equal(exitCode, 0, stderr);
    return JSON.parse(stdout) as T;
  }

  const status = (host: SimulatedHost) => json<BootStatusResult>(host, 'boot status');
  const change = (host: SimulatedHost, line: string) => json<ChangeResult>(host, line);
  const rebuilds = (host: SimulatedHost) => host.effects().filter((line) => line === rebuild).length;

  describe('service install and uninstall', () => {
    it('write the list and rebuild the images, once for several devices, as the last step', async () => {
      const host = made();
      const dry = await change(host, `-s ${card} -s ${sound} -s ${disk} service install vfio-pci --dry-run`);
      assert.equal(dry.steps.at(-1), rebuild);
      const {steps} = await change(host, `-s ${card} -s ${sound} -s ${disk} service install vfio-pci`);
      assert.deepEqual(steps, dry.steps);
      assert.equal(rebuilds(host), 1);
      assert.deepEqual(slotsIn(host, list), [card, sound, disk]);
      assert.deepEqual(slotsIn(host, image), [card, sound, disk]);
      assert.match(
        host.readText(list) ?? '',
        new RegExp(`^${card} 0x10de-0x1b80 vfio-pci \\S+ \\S+ \\S+$`, 'm'),
      );
      assert.equal(host.info(list)?.mode, 0o644);

      await change(host, `-s ${disk} service uninstall`);
      assert.deepEqual(slotsIn(host, image), [card, sound]);
      await change(host, `-s ${card} service uninstall`);
      assert.deepEqual(slotsIn(host, image), []);
      assert.equal(rebuilds(host), 3);
    });

    it('say so before the images are rebuilt', async () => {
      const host = made();
      const {stderr} = await typed(host, `-s ${disk} service install vfio-pci`);
      assert.match(stderr, /^rebuilding the initramfs: update-initramfs -u -k all/m);
    });

    it('show the time that passes on a terminal', async () => {
      const host = made();
      const stderr = new Terminal(80);
      host.beforeEffect(async (effect) => {
        if (effectText(effect) !== rebuild) return;
        while (!/\r\d+ s/.test(stderr.text)) await wait(20);
      });
      await typed(host, `-s ${disk} service install vfio-pci`, {stderr});
      const [first, ...rest] = stderr.text.split('\r');
      assert.match(first ?? '', /rebuilding the initramfs: .*\n$/);
      assert.match(rest[0] ?? '', /^\d+ s $/);
      // The line is erased at the end.
      assert.equal(rest.at(-1), '\u001b[K');
    });

    it('do nothing for a claim that is there already', async () => {
      const host = made();
      await change(host, `-s ${disk} service install vfio-pci`);
      const again = await change(host, `-s ${disk} service install vfio-pci`);
      assert.deepEqual(again.steps, []);
      assert.equal(rebuilds(host), 1);
    });

    it('take part in nothing where no supported generator is installed', async () => {
      const host = machinesOf();
      const {steps, notes} = await change(host, `-s ${disk} service install vfio-pci`);
      assert.deepEqual(
        steps.filter((step) => step.includes('initramfs')),
        [],
      );
      assert.deepEqual(notes, []);
      assert.equal(host.exists(list), false);
    });

    it('see what was enabled and disabled by systemctl', async () => {
      const host = made();
      await change(host, `-s ${disk} -s ${card} service install vfio-pci`);
      await host.run('systemctl', ['disable', `pearasys-${disk}@vfio-pci.service`]);
      await change(host, `-s ${card} service install vfio-pci`);
      assert.deepEqual(slotsIn(host, image), [card]);
      await host.run('systemctl', ['enable', `pearasys-${disk}@vfio-pci.service`]);
      await change(host, `-s ${card} service uninstall`);
      assert.deepEqual(slotsIn(host, image), [disk]);
    });

    it('leave the images to the user with --no-initramfs, and the next command rebuilds them', async () => {
      const host = made();
      const {steps, notes} = await change(host, `-s ${disk} service install vfio-pci --no-initramfs`);
      assert.ok(!steps.includes(rebuild));
      assert.match(notes.join(), /the initramfs is not rebuilt: .*update-initramfs -u -k all/);
      assert.deepEqual(slotsIn(host, list), [disk]);
      assert.equal((await status(host)).images[0]?.current, false);
      const next = await change(host, `-s ${disk} service install vfio-pci`);
      assert.deepEqual(next.steps, [rebuild]);
      assert.equal((await status(host)).images[0]?.current, true);
      await change(host, `-s ${disk} service uninstall --no-initramfs`);
      assert.deepEqual(slotsIn(host, list), []);
      assert.deepEqual(slotsIn(host, image), [disk]);
    });

    it('leave the images to the user with --no-initramfs, also when a claim is confirmed or imported', async () => {
      const host = made({[`/etc/driverctl.d/pci-${disk}`]: 'vfio-pci\n'});
      await change(host, `-s ${card} service install vfio-pci --siblings --now --confirm 60 --no-initramfs`);
      const {notes} = await change(host, 'confirm');
      assert.match(notes.join(), /the initramfs is not rebuilt/);
      assert.deepEqual(slotsIn(host, list), [card, sound]);
      await change(host, 'service import --no-initramfs');
      assert.deepEqual(slotsIn(host, list), [card, sound, disk]);
      assert.equal(rebuilds(host), 0);
    });

    it('keep the claim if the rebuild fails, and say what to do', async () => {
      const host = made();
      host.failCommand(rebuild, 1, 'No space left on device', 1);
      const {notes, changed} = await change(host, `-s ${disk} service install vfio-pci`);
      assert.equal(changed, true);
      assert.match(
        notes.join(),
        /not rebuilt: .*No space left on device.*when this is fixed, run: update-initramfs -u -k all/,
      );
      assert.notEqual(host.readLink(link(disk)), undefined);
      assert.deepEqual(slotsIn(host, list), [disk]);
      const {steps} = await change(host, 'boot enable');
      assert.deepEqual(steps, [rebuild]);
      assert.deepEqual(slotsIn(host, image), [disk]);
    });

    it('restore the list if a later step fails, and rebuild nothing', async () => {
      const host = made();
      await change(host, `-s ${card} service install vfio-pci`);
      const before = host.readText(list);
      host.failCommand(`systemctl start pearasys-${disk}@vfio-pci.service`, 1, 'failed');
      const {exitCode} = await typed(host, `-s ${disk} service install vfio-pci --now`);
      assert.equal(exitCode, 1);
      assert.equal(host.readText(list), before);
      assert.equal(rebuilds(host), 1);
    });

    it('write the list into an image of a system, and rebuild nothing there', async () => {
      const host = made();
      host.root = host.machine.tree.root;
      const {steps, notes} = await change(host, `-s ${disk} service install vfio-pci`);
      assert.ok(!steps.includes(rebuild));
      assert.match(notes.join(), /not rebuilt; in it, run: update-initramfs -u -k all/);
      assert.deepEqual(slotsIn(host, list), [disk]);
    });

    for (const [what, path, advice] of [
      ['rpm-ostree', '/run/ostree-booted', /rpm-ostree initramfs --enable/],
      ['a read-only /boot', '/proc/self/mounts', /mount -o remount,rw \/boot && update-initramfs/],
    ] as const)
      it(`print the command for ${what} instead`, async () => {
        const host = made({
          [path]: path.startsWith('/proc')
            ? '/dev/sda2 / ext4 rw,relatime 0 0\n/dev/sda1 /boot ext4 ro,relatime 0 0\n'
            : '',
        });
        const {steps, notes} = await change(host, `-s ${disk} service install vfio-pci`);
        assert.ok(!steps.includes(rebuild));
        assert.match(notes.join(), advice);
        assert.match((await status(host)).advice.join('\n'), advice);
      });

    it('name the unified kernel image that contains the initramfs', async () => {
      const stub = '/sys/firmware/efi/efivars/StubInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f';
      const host = made({[stub]: '', '/etc/kernel/install.conf': 'layout=uki\n'});
      const {steps, notes} = await change(host, `-s ${disk} service install vfio-pci`);
      assert.equal(steps.at(-1), rebuild);
      assert.match(notes.join(), /unified kernel image.*kernel-install add-all/);
    });
  });

  describe('disable and enable', () => {
    it('change the setting, the list and the images', async () => {
      const host = made({[settings]: '# mine\nAutoRecord=no\n'});
      await change(host, `-s ${disk} service install vfio-pci`);
      const {steps} = await change(host, 'boot disable');
      assert.equal(steps.at(-1), rebuild);
      assert.equal(host.readText(settings), '# mine\nAutoRecord=no\nInitramfs=no');
      assert.deepEqual(slotsIn(host, image), []);
      assert.equal((await status(host)).takesPart, false);

      await change(host, `-s ${card} service install vfio-pci`);
      assert.equal(rebuilds(host), 2);
      await change(host, 'boot enable');
      assert.equal(host.readText(settings), '# mine\nAutoRecord=no\nInitramfs=yes');
      assert.deepEqual(slotsIn(host, image), [card, disk]);
      const again = await change(host, 'boot enable');
      assert.deepEqual(again.steps, []);
      assert.equal(again.changed, false);
    });

    it('say where the setting comes from, and write a drop-in beside that of a package', async () => {
      const vendor = '/usr/lib/pearasys/pearasys.conf.d/10-vendor.conf';
      const host = made({[vendor]: 'Initramfs=no\n', '/etc/pearasys/pearasys.conf.d/x.conf': 'nonsense\n'});
      const before = await status(host);
      assert.deepEqual([before.setting, before.settingFrom], [false, vendor]);
      assert.match(before.settingProblems.join(), /x\.conf, line 1: 'nonsense' is ignored/);
      const {stdout, stderr} = await typed(host, 'boot status');
      assert.match(stdout, /only after the root file system is mounted: Initramfs=no in .*10-vendor\.conf$/m);
      assert.match(stderr, /warning: .*x\.conf, line 1/);
      await change(host, 'boot enable');
      const own = '/etc/pearasys/pearasys.conf.d/zz-pearasys.conf';
      assert.equal(host.readText(own), 'Initramfs=yes');
      const after = await status(host);
      assert.deepEqual([after.setting, after.settingFrom], [true, own]);
      await change(host, 'boot disable');
      assert.equal(host.readText(own), 'Initramfs=no');
    });

    it('refuse a change that would have no effect', async () => {
      const host = made();
      host.machine.tree.file(settings, 'AutoRecord=no\n', 0o666);
      const {exitCode, stderr} = await typed(host, 'boot disable');
      assert.equal(exitCode, 3);
      assert.match(
        stderr,
        /Initramfs= cannot be changed in \/etc\/pearasys\/pearasys\.conf: .*writable by others/,
      );
      assert.equal(host.readText(settings), 'AutoRecord=no');
    });

    it('refuse to enable without a supported generator', async () => {
      const {exitCode, stderr} = await typed(machinesOf(), 'boot enable');
      assert.equal(exitCode, 3);
      assert.match(stderr, /no initramfs-tools, dracut or mkinitcpio/);
    });

    it('are a plan with --dry-run', async () => {
      const host = made();
      await change(host, `-s ${disk} service install vfio-pci`);
      const before = host.effects().length;
      const {steps, changed} = await change(host, 'boot disable --dry-run');
      assert.equal(changed, false);
      assert.equal(steps.at(-1), rebuild);
      assert.equal(host.effects().length, before);
    });
  });

  describe('status', () => {
    it('says what each image has and what is wanted', async () => {
      const old = '/boot/initrd.img-6.0.0';
      const host = made({[old]: '', '/usr/lib/modules/6.0.0/modules.dep': ''});
      await change(host, `-s ${disk} service install vfio-pci`);
      host.machine.tree.file(old, '# none\n');
      const found = await status(host);
      assert.equal(found.generator, 'initramfs-tools');
      assert.deepEqual(found.claims, found.images.find(({kernel}) => kernel === release)?.claims);
      assert.deepEqual(
        found.images.map(({kernel, running, current}) => [kernel, running, current]),
        [
          ['6.0.0', false, false],
          [release, true, true],
        ],
      );
      const {stdout} = await typed(host, 'boot status');
      assert.match(
        stdout,
        new RegExp(`^claims take effect in the initramfs \\(initramfs-tools\\): ${disk}$`, 'm'),
      );
      assert.match(stdout, new RegExp(`^${release} \\(running\\): ${image} is up to date$`, 'm'));
      assert.match(stdout, /^6\.0\.0: \S+ is outdated: it has no claims$/m);
      assert.match(stdout, /^to rebuild: pearasys boot enable$/m);
    });

    it('says that the list is behind if a unit was disabled since', async () => {
      const host = made();
      await change(host, `-s ${disk} service install vfio-pci`);
      await host.run('systemctl', ['disable', `pearasys-${disk}@vfio-pci.service`]);
      const found = await status(host);
      assert.equal(found.listCurrent, false);
      assert.deepEqual(found.claims, []);
    });

    it('reports an image that cannot be read', async () => {
      const host = made();
      host.failCommand(/initramfs-claims/, 1, 'cpio: premature end of archive');
      const [found] = (await status(host)).images;
      assert.equal(found?.current, null);
      assert.match(found.problem ?? '', /premature end/);
      assert.match((await typed(host, 'boot status')).stdout, /could not be read: .*premature end/);
    });

    it('lists what overrules claims', async () => {
      const host = made({
        '/proc/cmdline': 'root=/dev/sda1 vfio-pci.ids=10de:1b80 quiet\n',
        '/etc/modprobe.d/vfio.conf':
          '# options vfio-pci ids=1:2\noptions vfio-pci disable_vga=1 ids=10de:1b80\nsoftdep nouveau pre: vfio-pci\n',
        '/usr/lib/modprobe.d/vfio.conf': 'options vfio-pci ids=8086:1\n',
        '/etc/driverctl.d/0000:02:00.0': 'vfio-pci\n',
        '/usr/lib/dracut/modules.d/90driverctl/module-setup.sh': '',
      });
      const {overrules} = await status(host);
      assert.deepEqual(
        overrules.map(({where, text}) => [where, text]),
        [
          ['kernel command line', 'vfio-pci.ids=10de:1b80'],
          ['/etc/modprobe.d/vfio.conf', 'options vfio-pci disable_vga=1 ids=10de:1b80'],
          ['/etc/modprobe.d/vfio.conf', 'softdep nouveau pre: vfio-pci'],
          ['/etc/driverctl.d/0000:02:00.0', 'vfio-pci'],
        ],
      );
      assert.match(overrules.at(-1)?.effect ?? '', /in the initramfs .*90driverctl/);
    });

    it('prints configuration lines on NixOS', async () => {
      const host = machinesOf((declaration) => {
        declaration.files['/etc/NIXOS'] = '';
      });
      await change(host, `-s ${disk} service install vfio-pci`);
      const {advice, takesPart} = await status(host);
      assert.equal(takesPart, false);
      assert.deepEqual(advice, [
        "boot.initrd.preDeviceCommands = ''",
        `  echo vfio-pci >/sys/bus/pci/devices/${disk}/driver_override`,
        "'';",
        'nixos-rebuild boot',
      ]);
    });
  });
});
