import assert from 'node:assert/strict';
import fs from 'node:fs';
import {CommandError, PearasysError, StuckError, WriteError} from '../../src/host/errors.js';
import {startOf} from '../../src/host/process.js';
import type {MachineDeclaration} from '../simulated-host/declaration.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {
  addNvidia,
  addParents,
  beforeUdev,
  functionOf,
  sriovCard,
} from '../simulated-host/standard-machine.js';
import {parseRules} from '../simulated-host/udev/rules.js';
import {applyRules} from '../simulated-host/udev/worker.js';
import {deviceUnit} from '../simulated-host/systemd/unit-files.js';
import type {KernelEvent} from '../simulated-host/kernel/events.js';

/** The idle graphics card and its sound function; the one with the display. */
const card = '0000:02:00.0';
const cardSound = '0000:02:00.1';
const display = '0000:01:00.0';
const drivers = '/sys/bus/pci/drivers';
const limit = 5000;

const attribute = (slot: string, name: string) => `/sys/bus/pci/devices/${slot}/${name}`;

describe('simulated host', () => {
  const hosts: SimulatedHost[] = [];

  function made(tweak?: (declaration: MachineDeclaration) => void): SimulatedHost {
    const host = SimulatedHost.standard(tweak);
    hosts.push(host);
    return host;
  }

  const write = (host: SimulatedHost, path: string, value: string) => host.writeAttribute(path, value, limit);

  async function refused(work: Promise<unknown>, errno: string): Promise<void> {
    await assert.rejects(work, (error: unknown) => error instanceof WriteError && error.errno === errno);
  }

  const driverOf = (host: SimulatedHost, slot: string) =>
    host.readLink(attribute(slot, 'driver'))?.split('/').at(-1);

  async function giveToVfio(host: SimulatedHost, slot: string): Promise<void> {
    await host.run('modprobe', ['vfio-pci']);
    await write(host, attribute(slot, 'driver_override'), 'vfio-pci');
    const driver = driverOf(host, slot);
    if (driver !== undefined) await write(host, `${drivers}/${driver}/unbind`, slot);
    await write(host, '/sys/bus/pci/drivers_probe', slot);
  }

  afterEach(() => {
    for (const host of hosts.splice(0)) {
      host.dispose();
      assert.equal(fs.existsSync(host.machine.folder), false);
    }
  });

  describe('the standard machine', () => {
    it('has two identical cards with sound, two disks, two network cards, and no vfio yet', () => {
      const host = made();
      assert.deepEqual(host.machine.bindings(), [
        '0000:00:00.0 -',
        '0000:00:01.0 pcieport',
        '0000:00:01.1 pcieport',
        '0000:00:14.0 xhci_hcd',
        '0000:00:14.2 -',
        '0000:00:1c.0 pcieport',
        '0000:00:1c.4 pcieport',
        '0000:00:1d.0 pcieport',
        '0000:00:1f.0 -',
        '0000:00:1f.6 e1000e',
        '0000:01:00.0 nouveau',
        '0000:01:00.1 snd_hda_intel',
        '0000:02:00.0 nouveau',
        '0000:02:00.1 snd_hda_intel',
        '0000:03:00.0 nvme',
        '0000:04:00.0 nvme',
        '0000:05:00.0 e1000e',
      ]);
      assert.equal(host.exists(`${drivers}/vfio-pci`), false);
      assert.equal(host.exists('/dev/vfio'), false);
    });

    it('shows a device as the kernel does', () => {
      const host = made();
      assert.equal(
        host.readText(attribute(display, 'uevent')),
        'DRIVER=nouveau\nPCI_CLASS=30000\nPCI_ID=10DE:1B80\nPCI_SUBSYS_ID=1043:8599\nPCI_SLOT_NAME=0000:01:00.0\n' +
          'MODALIAS=pci:v000010DEd00001B80sv00001043sd00008599bc03sc00i00',
      );
      assert.equal(host.readText(attribute(display, 'driver_override')), '(null)');
      assert.equal(host.readText(attribute(display, 'boot_vga')), '1');
      assert.equal(host.readText(attribute(card, 'boot_vga')), '0');
      assert.equal(host.readText(attribute(card, 'numa_node')), '-1');
      assert.equal(host.realPath(attribute(card, '.')), '/sys/devices/pci0000:00/0000:00:01.1/0000:02:00.0');
      assert.equal(
        host.readLink('/sys/bus/pci/devices/0000:02:00.0'),
        '../../../devices/pci0000:00/0000:00:01.1/0000:02:00.0',
      );
      assert.equal(host.readLink(attribute(card, 'iommu_group'))?.endsWith('/kernel/iommu_groups/2'), true);
      assert.deepEqual(host.list('/sys/kernel/iommu_groups/2/devices'), ['0000:00:01.1', card, cardSound]);
      assert.equal(host.realPath(`${drivers}/xhci_hcd/module`), '/sys/module/xhci_pci');
      const config = fs.readFileSync(
        `${host.machine.folder}${host.realPath(attribute(card, 'config')) ?? ''}`,
      );
      assert.ok(config.length >= 64);
      assert.equal(config.readUInt32LE(0), 0x1b8010de);
    });

    it('shows who uses what', () => {
      const host = made();
      assert.equal(host.readLink('/proc/901/fd/4'), '/dev/dri/card0');
      assert.equal(host.info('/dev/dri/card0')?.deviceNumber, '226:0');
      assert.equal(
        host.realPath('/sys/dev/char/226:0'),
        `${host.realPath(attribute(display, '.')) ?? ''}/drm/card0`,
      );
      assert.match(
        host.readText('/proc/self/mountinfo') ?? '',
        /^\d+ 1 259:2 \/ \/ .* - ext4 \/dev\/nvme0n1p2 rw$/m,
      );
      assert.match(host.readText('/proc/net/route') ?? '', /^eth0\t00000000\t010200C0\t0003\t/m);
      assert.equal(host.isClaimedByKernel('/dev/nvme0n1'), true);
      assert.equal(host.isClaimedByKernel('/dev/nvme0n1p2'), true);
      assert.equal(host.isClaimedByKernel('/dev/nvme1n1'), false);
      assert.deepEqual(host.addresses().get('eth0'), ['192.0.2.10/24', '2001:db8::10/64']);
      assert.equal(host.addresses().has('eth1'), false);
      assert.equal(
        host.realPath('/etc/systemd/system/display-manager.service'),
        '/usr/lib/systemd/system/gdm.service',
      );
    });

    it('can have stacks on disks, bonds on interfaces, and a disk under the kernel’s multipath', () => {
      const host = made((declaration) => {
        declaration.stacks.push({name: 'dm-0', dm: {name: 'vg-data', uuid: 'LVM-1'}, on: ['nvme1n1']});
        declaration.virtualInterfaces.push({
          name: 'bond0',
          kind: 'bond',
          lower: ['eth1'],
          addresses: ['198.51.100.1/24'],
        });
        functionOf(declaration, '0000:03:00.0').nvme!.multipath = true;
      });
      assert.equal(host.isClaimedByKernel('/dev/nvme1n1'), true);
      assert.deepEqual(host.list('/sys/class/block/nvme1n1/holders'), ['dm-0']);
      assert.equal(host.realPath('/dev/mapper/vg-data'), '/dev/dm-0');
      assert.equal(host.realPath('/sys/class/net/eth1/master'), '/sys/devices/virtual/net/bond0');
      assert.equal(
        host.realPath('/sys/block/nvme0n1'),
        '/sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1',
      );
    });

    it('shows the same when all of it is in its folder as when the kernel’s part is in memory', async () => {
      const host = made();
      await giveToVfio(host, card);
      host.machine.hotRemove('0000:05:00.0');
      const shown = (): string[] => {
        const lines: string[] = [];
        const look = (path: string): void => {
          const {kind, mode, size = 0} = host.info(path, false) ?? {};
          const isReadable = kind === 'file' && ((mode ?? 0) & 0o444) !== 0;
          lines.push(`${path} ${kind ?? ''} ${mode?.toString(8) ?? ''} ${host.readLink(path) ?? ''}`);
          lines.push(
            `${host.realPath(path) ?? ''} ${isReadable ? `${size} ${host.readText(path) ?? ''}` : ''}`,
          );
          if (kind === 'directory') for (const name of host.list(path)) look(`${path}/${name}`);
        };
        for (const top of ['/sys', '/proc']) look(top);
        return lines;
      };
      const inMemory = shown();
      assert.ok(inMemory.length > 2000);
      const devices = `${host.machine.folder}/sys/bus/pci/devices`;
      assert.deepEqual(fs.readdirSync(devices).sort(), host.list('/sys/bus/pci/devices'));
      assert.equal(fs.readFileSync(`${devices}/${card}/driver_override`, 'utf8'), 'vfio-pci\n');
      assert.deepEqual(shown(), inMemory);
      // As before, in the folder.
      await write(host, `${drivers}/vfio-pci/unbind`, card);
      assert.equal(fs.existsSync(`${devices}/${card}/driver`), false);
    });

    it('never follows an absolute link out of its folder', () => {
      const host = made();
      fs.symlinkSync('/etc', `${host.machine.folder}/etc/outside`);
      assert.deepEqual(host.list('/etc/outside'), host.list('/etc'));
      assert.equal(host.exists('/etc/outside/passwd'), false);
    });
  });

  describe('drivers', () => {
    it('the safe sequence gives the card to vfio-pci, and back', async () => {
      const host = made();
      const before = host.machine.bindings();
      await giveToVfio(host, card);
      assert.equal(driverOf(host, card), 'vfio-pci');
      assert.equal(driverOf(host, display), 'nouveau');
      assert.deepEqual(host.list('/dev/vfio'), ['2', 'vfio']);
      assert.equal(host.info('/dev/vfio/2')?.kind, 'device');
      assert.deepEqual(host.list('/sys/class/drm'), ['card0', 'card0-DP-1', 'card0-HDMI-A-1', 'renderD128']);
      await write(host, attribute(card, 'driver_override'), '\n');
      await write(host, attribute(card, 'driver/unbind'), card);
      await write(host, '/sys/bus/pci/drivers_probe', card);
      assert.deepEqual(host.machine.bindings(), before);
      assert.deepEqual(host.list('/dev/vfio'), ['vfio']);
      assert.deepEqual(host.machine.harm, []);
      assert.deepEqual(host.effects(), [
        'modprobe vfio-pci',
        `echo 'vfio-pci' > /sys/bus/pci/devices/${card}/driver_override`,
        `echo '${card}' > /sys/bus/pci/drivers/nouveau/unbind`,
        `echo '${card}' > /sys/bus/pci/drivers_probe`,
        `echo '' > /sys/bus/pci/devices/${card}/driver_override`,
        `echo '${card}' > /sys/bus/pci/devices/${card}/driver/unbind`,
        `echo '${card}' > /sys/bus/pci/drivers_probe`,
      ]);
    });

    it('a probe can be refused: drivers_probe succeeds and binds nothing, bind has the errno', async () => {
      const host = made();
      host.refuseProbe(card, 'nouveau');
      await write(host, `${drivers}/nouveau/unbind`, card);
      await write(host, '/sys/bus/pci/drivers_probe', card);
      assert.equal(driverOf(host, card), undefined);
      await refused(write(host, `${drivers}/nouveau/bind`, card), 'ENODEV');
    });

    it('a probe may be busy for a while', async () => {
      const host = made();
      await write(host, `${drivers}/nvme/unbind`, '0000:04:00.0');
      host.refuseProbe('0000:04:00.0', 'nvme', 'EBUSY', 2);
      await refused(write(host, `${drivers}/nvme/bind`, '0000:04:00.0'), 'EBUSY');
      await refused(write(host, `${drivers}/nvme/bind`, '0000:04:00.0'), 'EBUSY');
      await write(host, `${drivers}/nvme/bind`, '0000:04:00.0');
    });

    it('vfio refuses devices without a group, unless it is told to take them', async () => {
      const without = made((declaration) => (declaration.iommu = false));
      assert.equal(without.readLink(attribute(card, 'iommu_group')), undefined);
      await without.run('modprobe', ['vfio-pci']);
      await write(without, attribute(card, 'driver_override'), 'vfio-pci');
      await write(without, `${drivers}/nouveau/unbind`, card);
      await refused(write(without, `${drivers}/vfio-pci/bind`, card), 'EINVAL');
      await write(without, '/sys/module/vfio/parameters/enable_unsafe_noiommu_mode', 'Y');
      await write(without, `${drivers}/vfio-pci/bind`, card);
      assert.equal(
        without.list('/dev/vfio').some((name) => name.startsWith('noiommu-')),
        true,
      );
    });

    it('variant drivers of vfio match only under an override', async () => {
      const host = made((declaration) => {
        declaration.functions.push({slot: '0000:07:00.0', id: '15b3:101e', class: '020000', group: 30});
      });
      await host.run('modprobe', ['mlx5_vfio_pci']);
      await write(host, '/sys/bus/pci/drivers_probe', '0000:07:00.0');
      assert.equal(driverOf(host, '0000:07:00.0'), undefined);
      await write(host, attribute('0000:07:00.0', 'driver_override'), 'mlx5_vfio_pci');
      await write(host, '/sys/bus/pci/drivers_probe', '0000:07:00.0');
      assert.equal(driverOf(host, '0000:07:00.0'), 'mlx5_vfio_pci');
    });

    it('records the harm of taking what is in use, as the kernel does not ask', async () => {
      const host = made();
      await write(host, `${drivers}/nvme/unbind`, '0000:03:00.0');
      await write(host, `${drivers}/e1000e/unbind`, '0000:00:1f.6');
      assert.equal(
        host.machine.harm.some((line) => line.includes('mounted on /')),
        true,
      );
      assert.equal(
        host.machine.harm.some((line) => line.includes('route 0.0.0.0/0 by eth0')),
        true,
      );
      assert.equal(host.addresses().has('eth0'), false);
    });
  });

  describe('access', () => {
    it('without being root nothing can be written', async () => {
      const host = made();
      host.userId = 1000;
      await refused(write(host, attribute(card, 'driver_override'), 'vfio-pci'), 'EACCES');
      await assert.rejects(host.writeFile('/etc/pearasys/x', ''), {errno: 'EACCES'});
      await assert.rejects(host.run('modprobe', ['vfio-pci']), /exit code 1/);
      assert.deepEqual(host.list('/proc/812/fd'), []);
      assert.equal(host.list('/proc/901/fd').length, 5);
    });

    it('an attribute that the simulation does not know is an error of the test, not a success', async () => {
      const host = made();
      await assert.rejects(write(host, attribute(card, 'numa_node'), '0'), /no answer/);
    });
  });

  describe('slots', () => {
    it('a card that was pulled stays away; another card in its slot is another device', async () => {
      const host = made();
      host.machine.hotRemove(card);
      await write(host, '/sys/bus/pci/rescan', '1');
      assert.equal(host.exists(attribute(card, '.')), false);
      host.machine.hotAdd({...functionOf(host.machine.declaration, card), id: '10de:1b81'});
      assert.equal(host.readText(attribute(card, 'device')), '0x1b81');
      assert.equal(driverOf(host, card), 'nouveau');
    });
  });

  describe('other attributes', () => {
    it('resets are counted, and a device that cannot be reset has no such attribute', async () => {
      const host = made();
      assert.equal(host.readText(attribute(card, 'reset_method')), 'flr bus');
      await write(host, attribute(card, 'reset'), '1');
      assert.equal(host.machine.device(card).resets, 1);
      await refused(write(host, attribute('0000:00:14.2', 'reset'), '1'), 'ENOENT');
    });

    it('virtual functions: 0 before another count, the host’s driver only with autoprobe', async () => {
      const host = made((declaration) => declaration.functions.push(sriovCard()));
      const numbers = attribute('0000:06:00.0', 'sriov_numvfs');
      await refused(write(host, numbers, '2'), 'ENOENT');
      await host.run('modprobe', ['igb']);
      await host.run('modprobe', ['igbvf']);
      await refused(write(host, numbers, '8'), 'ERANGE');
      await write(host, numbers, '2');
      assert.deepEqual([driverOf(host, '0000:06:10.0'), driverOf(host, '0000:06:10.2')], ['igbvf', 'igbvf']);
      assert.equal(
        host.realPath(attribute('0000:06:10.2', 'physfn')),
        host.realPath(attribute('0000:06:00.0', '.')),
      );
      assert.equal(host.readLink(attribute('0000:06:00.0', 'virtfn1'))?.endsWith('0000:06:10.2'), true);
      await refused(write(host, numbers, '3'), 'EBUSY');
      await write(host, numbers, '0');
      assert.equal(host.exists(attribute('0000:06:10.0', '.')), false);
      await write(host, attribute('0000:06:00.0', 'sriov_drivers_autoprobe'), '0');
      await write(host, numbers, '3');
      assert.equal(driverOf(host, '0000:06:10.0'), undefined);
      await refused(write(host, `${drivers}/igbvf/bind`, '0000:06:10.0'), 'ENODEV');
      await refused(write(host, `${drivers}/igb/unbind`, '0000:06:10.0'), 'ENODEV');
    });
  });

  describe('graphics', () => {
    it('the console goes with the framebuffer’s driver and comes back with it', async () => {
      const host = made();
      assert.equal(host.readText('/sys/class/vtconsole/vtcon1/bind'), '1');
      await write(host, `${drivers}/nouveau/unbind`, display);
      assert.equal(host.readText('/sys/class/vtconsole/vtcon1/bind'), '0');
      assert.equal(host.readText('/sys/class/vtconsole/vtcon0/bind'), '1');
      assert.equal(host.readText('/proc/fb'), '');
      await write(host, `${drivers}/nouveau/bind`, display);
      assert.equal(host.readText('/sys/class/vtconsole/vtcon1/bind'), '1');
    });

    it('an open node does not block the unbind; the module stays, and the card comes back under another name', async () => {
      const host = made();
      await write(host, `${drivers}/nouveau/unbind`, display);
      assert.equal(host.readLink('/proc/901/fd/4'), '/dev/dri/card0 (deleted)');
      await assert.rejects(
        host.run('modprobe', ['-r', 'nouveau']),
        (error) =>
          error instanceof CommandError && error.stderr === 'modprobe: FATAL: Module nouveau is in use.',
      );
      await write(host, `${drivers}/nouveau/bind`, display);
      assert.deepEqual(host.list(attribute(display, 'drm')), ['card2', 'renderD128']);
    });

    it('the firmware’s framebuffer is released by its own driver', async () => {
      const host = made((declaration) => {
        declaration.firmwareFramebuffer = 'efi-framebuffer';
        functionOf(declaration, display).drm!.framebuffer = false;
      });
      assert.equal(host.readText('/proc/fb'), '0 EFI VGA');
      await write(host, '/sys/class/vtconsole/vtcon1/bind', '0');
      await write(host, '/sys/bus/platform/drivers/efi-framebuffer/unbind', 'efi-framebuffer.0');
      assert.equal(host.readText('/proc/fb'), '');
      await write(host, '/sys/bus/platform/drivers/efi-framebuffer/bind', 'efi-framebuffer.0');
      assert.equal(host.readText('/proc/fb'), '0 EFI VGA');
    });
  });

  describe('writes that never return', () => {
    it('vfio waits for whoever has the device open, holding its lock; then it goes on', async () => {
      const host = made();
      await giveToVfio(host, card);
      host.machine.addProcess({
        pid: 4321,
        comm: 'qemu-system-x86',
        holds: ['/dev/vfio/2', 'anon_inode:[vfio-device]'],
      });
      await assert.rejects(write(host, `${drivers}/vfio-pci/unbind`, card), StuckError);
      assert.equal(host.machine.elapsed, limit);
      assert.equal(host.machine.device(card).driver, 'vfio-pci');
      await assert.rejects(write(host, attribute(card, 'driver_override'), '\n'), StuckError);
      assert.throws(() => host.readText(attribute(card, 'driver_override')), /never return/);
      await write(host, attribute(display, 'driver_override'), 'nouveau');
      await host.findLocked(100);
      assert.equal(host.readText(attribute(card, 'driver_override')), undefined);
      host.machine.endProcess(4321);
      assert.equal(driverOf(host, card), undefined);
      await write(host, attribute(card, 'driver_override'), '\n');
      assert.equal(host.effects().at(-3), `echo '' > ${attribute(card, 'driver_override')} # never returns`);
    });

    it('so does NVIDIA’s driver, for its nodes', async () => {
      const host = made((declaration) => {
        addNvidia(declaration);
        for (const module of declaration.modules) if (module.name === 'nvidia') module.loaded = true;
        functionOf(declaration, card).driver = 'nvidia';
      });
      host.machine.openFile(901, '/dev/dri/card1');
      await assert.rejects(write(host, `${drivers}/nvidia/unbind`, card), StuckError);
      host.machine.closeFile(901, '/dev/dri/card1');
      assert.equal(driverOf(host, card), undefined);
    });

    it('can be scripted for any path', async () => {
      const host = made();
      const letReturn = host.neverReturn('*/nvme/unbind');
      await assert.rejects(
        write(host, attribute('0000:04:00.0', 'driver/unbind'), '0000:04:00.0'),
        StuckError,
      );
      assert.equal(driverOf(host, '0000:04:00.0'), 'nvme');
      letReturn();
      assert.equal(driverOf(host, '0000:04:00.0'), undefined);
    });
  });

  describe('scripted failures, hooks and locks', () => {
    it('a write, a file and a command can fail, and leave nothing behind', async () => {
      const host = made();
      host.failWrite(/\/drivers_probe$/, 'EIO', 1);
      host.failFile('/etc/pearasys/*', 'ENOSPC', 1);
      host.failCommand('modprobe *', 1, 'modprobe: ERROR: no luck');
      await refused(write(host, '/sys/bus/pci/drivers_probe', card), 'EIO');
      await write(host, '/sys/bus/pci/drivers_probe', card);
      await assert.rejects(host.writeFile('/etc/pearasys/a', 'x'), {errno: 'ENOSPC'});
      assert.equal(host.exists('/etc/pearasys'), false);
      await host.writeFile('/etc/pearasys/a', 'x\n', {mode: 0o600});
      assert.equal(host.readText('/etc/pearasys/a'), 'x');
      assert.deepEqual(host.info('/etc/pearasys/a')?.mode, 0o600);
      await host.removeFile('/etc/pearasys/a', {prune: 1});
      assert.equal(host.exists('/etc/pearasys'), false);
      await assert.rejects(host.run('modprobe', ['vfio-pci']), CommandError);
      assert.deepEqual(host.effects(), [
        `echo '${card}' > /sys/bus/pci/drivers_probe # EIO`,
        `echo '${card}' > /sys/bus/pci/drivers_probe`,
        'write /etc/pearasys/a # ENOSPC',
        'write /etc/pearasys/a (600)',
        'rm /etc/pearasys/a',
        'modprobe vfio-pci # exit code 1',
      ]);
    });

    it('a process ends by a signal at once, after a while, or never, and its number is not it', async () => {
      const host = made();
      host.machine.addProcess({pid: 50, comm: 'slow', takes: 300});
      host.machine.addProcess({pid: 51, comm: 'stubborn', ignores: ['SIGTERM']});
      const started = (pid: number) => startOf(host, pid) ?? '';
      assert.equal(host.signal({pid: 50, started: started(51)}, 'SIGTERM'), false);
      for (const pid of [50, 51]) assert.equal(host.signal({pid, started: started(pid)}, 'SIGTERM'), true);
      assert.notEqual(started(50), '');
      await host.pause(300);
      assert.equal(started(50), '');
      assert.equal(host.signal({pid: 51, started: started(51)}, 'SIGKILL'), true);
      assert.equal(started(51), '');
      assert.deepEqual(host.effects(), ['kill -SIGTERM 50', 'kill -SIGTERM 51', 'kill -SIGKILL 51']);
    });

    it("what a user runs ends 10 s after the display manager's stop", async () => {
      const host = made();
      await host.run('systemctl', ['stop', 'gdm.service']);
      assert.ok(!host.exists('/proc/901'));
      assert.ok(host.exists('/proc/940'));
      await host.pause(10_000);
      assert.ok(!host.exists('/proc/940'));
      await host.run('systemctl', ['start', 'gdm.service']);
      assert.ok(host.exists('/proc/901') && host.exists('/proc/940'));
    });

    it('a hook sees each effect and may pull the card between two of them', async () => {
      const host = made();
      host.afterEffect((effect) => {
        if (effect.kind === 'write' && effect.path.endsWith('/unbind')) host.machine.hotRemove(card);
      });
      await write(host, `${drivers}/nouveau/unbind`, card);
      await refused(write(host, '/sys/bus/pci/drivers_probe', card), 'ENODEV');
    });

    it('hosts of one machine share its locks, and wait', async () => {
      const host = made();
      const other = new SimulatedHost(host.machine);
      other.lockPatience = 20;
      const lock = await host.lock(card, 1000);
      await assert.rejects(
        other.lock(card, 30_000),
        (error) => error instanceof PearasysError && error.code === 'busy' && error.exitCode === 3,
      );
      other.lockPatience = 10_000;
      const waiting = other.lock(card, 30_000);
      await (await other.lock(display, 1000)).release();
      await lock.release();
      await (await waiting).release();
      await (await host.lock(card, 1)).release();
    });
  });

  describe('programs', () => {
    it('a module that is built in is not removed, and a program that is not there is no exit code', async () => {
      const host = made();
      await assert.rejects(
        host.run('modprobe', ['-r', 'i915']),
        (error) =>
          error instanceof CommandError &&
          error.status === 1 &&
          error.stderr === 'modprobe: FATAL: Module i915 is builtin.',
      );
      await assert.rejects(
        host.run('no-such-program', []),
        (error) => error instanceof CommandError && error.status === undefined,
      );
    });

    it('of two drivers for a card the first that was registered has it', async () => {
      const host = made((declaration) => {
        for (const module of declaration.modules) if (module.name === 'nouveau') module.loaded = false;
        for (const each of declaration.functions) if (each.driver === 'nouveau') delete each.driver;
        addNvidia(declaration);
      });
      await write(host, attribute(card, 'driver_override'), 'vfio-pci');
      await host.run('modprobe', ['-b', host.readText(attribute(display, 'modalias')) ?? '']);
      assert.equal(driverOf(host, display), 'nouveau');
      assert.equal(driverOf(host, card), undefined);
    });
  });

  describe('systemd', () => {
    it('a start of what is bound to a device that does not come ends after its timeout', async () => {
      const host = made((declaration) => {
        declaration.files['/etc/systemd/system/bound.service'] =
          `[Unit]\nBindsTo=sys-bus-pci-devices-${card}.device\n[Service]\nType=oneshot\nExecStart=/bin/true\n`;
      });
      host.machine.hotRemove(card);
      await host.userland.idle();
      await assert.rejects(host.run('systemctl', ['start', 'bound.service']), /exit code 1/);
      assert.equal(host.machine.elapsed, 90_000);
    });

    it('units run the programs of their lines, which may be plugged in', async () => {
      const host = made((declaration) => {
        declaration.files['/etc/systemd/system/own@.service'] =
          '[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/own/program "%i b" c\nExecStop=/own/stop %i\n';
      });
      const seen: [string, ...(readonly string[])][] = [];
      host.userland.execute = (unit, argv) => {
        seen.push([unit, ...argv]);
        return 0;
      };
      await host.run('systemctl', ['start', 'own@a']);
      await host.run('systemctl', ['stop', 'own@a']);
      assert.deepEqual(seen, [
        ['own@a.service', '/own/program', 'a b', 'c'],
        ['own@a.service', '/own/stop', 'a'],
      ]);
      assert.deepEqual(host.userland.jobs, ['start own@a.service', 'stop own@a.service']);
    });

    it('stopping the display manager ends what it started, and frees the card’s node', async () => {
      const host = made();
      assert.equal(host.userland.state('gdm.service'), 'active');
      await host.run('systemctl', ['stop', 'gdm.service']);
      assert.equal(host.exists('/proc/901'), false);
      assert.equal(host.exists('/proc/940'), true);
      await host.run('systemctl', ['start', 'gdm.service']);
      assert.equal(host.readLink('/proc/901/fd/4'), '/dev/dri/card0');
    });

    it('names device units as systemd-escape does', () => {
      assert.equal(deviceUnit(`/sys/bus/pci/devices/${card}`), `sys-bus-pci-devices-${card}.device`);
      assert.equal(deviceUnit('/sys/devices/a-b'), 'sys-devices-a\\x2db.device');
    });
  });

  describe('udev', () => {
    const record = `/etc/pearasys/pci/${card}-0x10de-0x1b80`;
    const link = `/etc/systemd/system/sys-bus-pci-devices-${card}.device.wants/pearasys-${card}@vfio-pci.service`;
    const rules = `SUBSYSTEM!="pci", GOTO="end"
ACTION=="remove", GOTO="end"
TEST!="/etc/pearasys/pci/$kernel-$attr{vendor}-$attr{device}", GOTO="end"
TAG+="systemd", ENV{SYSTEMD_ALIAS}+="/sys/bus/pci/devices/$kernel"
ACTION!="add", GOTO="end"
IMPORT{file}="/etc/pearasys/pci/$kernel-$attr{vendor}-$attr{device}"
TEST!="/etc/systemd/system/sys-bus-pci-devices-$kernel.device.wants/pearasys-$kernel@$env{PEARASYS_DRIVER}.service", GOTO="end"
ATTR{driver_override}="$env{PEARASYS_DRIVER}"
ENV{SYNTH_UUID}!="?*", TEST=="driver", ATTR{driver/unbind}="$kernel"
ATTR{[subsystem/pci]drivers_probe}="$kernel"
RUN{builtin}+="kmod load $env{PEARASYS_DRIVER}"
LABEL="end"
`;

    function withRules(tweak?: (declaration: MachineDeclaration) => void): SimulatedHost {
      const host = made((declaration) => {
        declaration.files['/etc/udev/rules.d/60-pearasys.rules'] = rules;
        declaration.files[record] = 'PEARASYS_DRIVER=vfio-pci\n';
        declaration.files[`/etc/systemd/system/pearasys-${card}@.service`] =
          '[Service]\nType=oneshot\nRemainAfterExit=yes\n[Install]\nWantedBy=sys-bus-pci-devices-%j.device\n';
        tweak?.(declaration);
      });
      host.machine.tree.textLink(link, `/etc/systemd/system/pearasys-${card}@.service`);
      return host;
    }

    it('at boot the override comes before the default driver’s module', async () => {
      const host = withRules(beforeUdev);
      host.userland.coldplug();
      await host.userland.idle();
      assert.deepEqual([driverOf(host, display), driverOf(host, card)], ['nouveau', 'vfio-pci']);
      assert.equal(driverOf(host, '0000:03:00.0'), 'nvme');
    });

    it('with one worker the twin’s event may load the driver that takes the card first', async () => {
      const host = withRules(beforeUdev);
      host.userland.oneWorker = true;
      host.userland.coldplug();
      await host.userland.idle();
      assert.equal(driverOf(host, card), 'nouveau');
      assert.equal(host.readText(attribute(card, 'driver_override')), 'vfio-pci');
    });

    it('another card in the slot, or a unit that is not enabled: nothing happens', async () => {
      const host = withRules();
      host.machine.hotRemove(card);
      host.machine.hotAdd({...functionOf(host.machine.declaration, card), id: '10de:1b81'});
      await host.userland.idle();
      assert.equal(driverOf(host, card), 'nouveau');
      host.machine.hotRemove(card);
      await host.run('systemctl', ['disable', `pearasys-${card}@vfio-pci.service`]);
      host.machine.hotAdd({...functionOf(host.machine.declaration, card), id: '10de:1b80'});
      await host.userland.idle();
      assert.equal(driverOf(host, card), 'nouveau');
      assert.equal(host.readText(attribute(card, 'driver_override')), '(null)');
    });

    it('tells what the rules have written, and what they would have started', () => {
      const host = made();
      const event: KernelEvent = {
        action: 'add',
        devpath: (host.realPath(attribute(card, '.')) ?? '').slice('/sys'.length),
        subsystem: 'pci',
        properties: {},
      };
      const apply = (text: string) => applyRules(host.machine, event, parseRules(text));
      assert.deepEqual(apply('ENV{UNSET}!="?*", RUN+="/bin/true"').processes, ['/bin/true']);
      assert.deepEqual(apply('RUN{program}+="/bin/true $kernel"').processes, [`/bin/true ${card}`]);
      assert.deepEqual(apply('ATTR{driver_override}="none"').writes, [
        `${host.realPath(attribute(card, '.')) ?? ''}/driver_override=none`,
      ]);
    });

    it('refuses rules that it does not know', () => {
      for (const text of [
        'NAME="x"',
        'ENV{X}="1" ENV{Y}="2"',
        'ATTR{x}+="1"',
        'GOTO="nowhere"',
        'RUN{shell}+="x"',
        'KERNEL=="$kernel"',
        'ENV="x"',
        'IMPORT{builtin}="path_id"',
      ])
        assert.throws(() => parseRules(text), /rules:1/, text);
    });
  });

  describe('mediated devices', () => {
    const uuid = '83c32df7-d52e-4ec1-9668-1f3c7e4df107';
    const create = (type: string) => `/sys/class/mdev_bus/mtty/mdev_supported_types/${type}/create`;
    const device = `/sys/bus/mdev/devices/${uuid}`;

    it('announce themselves as the kernel does, the type only after the add', async () => {
      const host = made(addParents);
      const seen: string[] = [];
      host.machine.subscribe(({action, subsystem}) =>
        seen.push(`${action} ${subsystem}${host.exists(`${device}/mdev_type`) ? '' : ' without a type'}`),
      );
      await write(host, create('mtty-1'), uuid);
      assert.deepEqual(seen, ['add mdev without a type', 'add vfio', 'add vfio-dev', 'bind mdev']);
    });

    it('take the values that their attributes take', async () => {
      const host = made((machine) => {
        addParents(machine);
        machine.mdevs = {[uuid]: '0000:02:00.0/vgpu-1'};
      });
      await write(host, `${device}/frame_rate`, '60');
      assert.equal(host.readText(`${device}/frame_rate`), '60');
      await refused(write(host, `${device}/frame_rate`, 'fast'), 'EINVAL');
      await refused(write(host, `${device}/nosuch`, '1'), 'ENOENT');
    });

    it('go with their parent, which says so', () => {
      const host = made((machine) => {
        addParents(machine);
        machine.mdevs = {[uuid]: 'mtty/mtty-1'};
      });
      const seen: string[] = [];
      host.machine.subscribe(({action, properties}) =>
        seen.push(`${action} ${properties['MDEV_STATE'] ?? ''}`),
      );
      const [mtty] = host.machine.declaration.mdevParents;
      host.machine.mdevs.unregister('mtty');
      assert.deepEqual(host.machine.mdevs.list(), []);
      assert.equal(host.exists('/sys/class/mdev_bus/mtty'), false);
      host.machine.mdevs.register(mtty!);
      assert.equal(seen[0], 'change unregistered');
      assert.equal(seen.at(-1), 'change registered');
    });
  });
});
