import assert from 'node:assert/strict';
import fs from 'node:fs';
import {CommandError, FileError, PearasysError, StuckError, WriteError} from '../../src/host/errors.js';
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

  describe('driver_override', () => {
    it('neither unbinds nor loads a module', async () => {
      const host = made();
      await write(host, attribute(card, 'driver_override'), 'vfio-pci');
      assert.equal(host.readText(attribute(card, 'driver_override')), 'vfio-pci');
      assert.equal(driverOf(host, card), 'nouveau');
      assert.equal(host.exists(`${drivers}/vfio-pci`), false);
    });

    it('is cleared by a newline, and not by a write of nothing', async () => {
      const host = made();
      await write(host, attribute(card, 'driver_override'), 'vfio-pci\n');
      await write(host, attribute(card, 'driver_override'), '');
      assert.equal(host.readText(attribute(card, 'driver_override')), 'vfio-pci');
      await write(host, attribute(card, 'driver_override'), '\n');
      assert.equal(host.readText(attribute(card, 'driver_override')), '(null)');
    });

    it('that names no driver keeps every driver off', async () => {
      const host = made();
      await write(host, attribute(card, 'driver_override'), 'none');
      await write(host, `${drivers}/nouveau/unbind`, card);
      await write(host, '/sys/bus/pci/drivers_probe', card);
      assert.equal(driverOf(host, card), undefined);
      await refused(write(host, `${drivers}/nouveau/bind`, card), 'ENODEV');
    });
  });

  describe('bind, unbind and drivers_probe', () => {
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

    it('drivers_probe succeeds when nothing bound, and for a bound device; an unknown slot is ENODEV', async () => {
      const host = made();
      await write(host, '/sys/bus/pci/drivers_probe', '0000:00:14.2');
      assert.equal(driverOf(host, '0000:00:14.2'), undefined);
      await write(host, '/sys/bus/pci/drivers_probe', card);
      await refused(write(host, '/sys/bus/pci/drivers_probe', '0000:77:00.0'), 'ENODEV');
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

    it('bind needs a match, and a device without a driver', async () => {
      const host = made();
      await host.run('modprobe', ['vfio-pci']);
      await refused(write(host, `${drivers}/vfio-pci/bind`, card), 'ENODEV');
      await refused(write(host, `${drivers}/nouveau/bind`, card), 'EBUSY');
      await refused(write(host, `${drivers}/nvme/bind`, card), 'ENODEV');
      await refused(write(host, `${drivers}/nouveau/bind`, '0000:77:00.0'), 'ENODEV');
      await write(host, attribute(card, 'driver_override'), 'vfio-pci');
      await refused(write(host, `${drivers}/vfio-pci/bind`, card), 'EBUSY');
      await write(host, `${drivers}/nouveau/unbind`, card);
      await write(host, `${drivers}/vfio-pci/bind`, card);
      assert.equal(driverOf(host, card), 'vfio-pci');
    });

    it('unbind needs a device of this driver', async () => {
      const host = made();
      await refused(write(host, `${drivers}/nvme/unbind`, card), 'ENODEV');
      await refused(write(host, `${drivers}/vfio-pci/unbind`, card), 'ENOENT');
    });

    it('a driver does not take hardware that it does not drive, override or not', async () => {
      const host = made();
      await write(host, `${drivers}/nouveau/unbind`, card);
      await write(host, attribute(card, 'driver_override'), 'e1000e');
      await refused(write(host, `${drivers}/e1000e/bind`, card), 'ENODEV');
    });

    it('vfio refuses bridges, devices without a group, and parents of virtual functions', async () => {
      const host = made((declaration) => {
        delete functionOf(declaration, '0000:00:01.1').driver;
        declaration.functions.push(sriovCard());
      });
      await host.run('modprobe', ['vfio-pci']);
      await write(host, attribute('0000:00:01.1', 'driver_override'), 'vfio-pci');
      await refused(write(host, `${drivers}/vfio-pci/bind`, '0000:00:01.1'), 'EINVAL');
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

  describe('new_id and remove_id', () => {
    it('new_id takes unbound twins too; a second write is EEXIST and leaves the device driverless', async () => {
      const host = made();
      await host.run('modprobe', ['vfio-pci']);
      await write(host, `${drivers}/nouveau/unbind`, display);
      await write(host, `${drivers}/nouveau/unbind`, card);
      await write(host, `${drivers}/vfio-pci/new_id`, '10de 1b80');
      assert.deepEqual([driverOf(host, display), driverOf(host, card)], ['vfio-pci', 'vfio-pci']);
      await write(host, `${drivers}/vfio-pci/unbind`, card);
      await refused(write(host, `${drivers}/vfio-pci/new_id`, '10de 1b80'), 'EEXIST');
      assert.equal(driverOf(host, card), undefined);
      await write(host, `${drivers}/vfio-pci/bind`, card);
    });

    it('does not take bound devices, nor those with another override', async () => {
      const host = made();
      await host.run('modprobe', ['vfio-pci']);
      await write(host, attribute(card, 'driver_override'), 'none');
      await write(host, `${drivers}/nouveau/unbind`, card);
      await write(host, `${drivers}/vfio-pci/new_id`, '10de 1b80');
      assert.deepEqual([driverOf(host, display), driverOf(host, card)], ['nouveau', undefined]);
    });

    it('an id of the driver’s own table is EEXIST, half an id EINVAL, removing an unknown one ENODEV', async () => {
      const host = made();
      await refused(
        write(host, `${drivers}/nouveau/new_id`, '10de 1b80 ffffffff ffffffff 030000 ffffff'),
        'EEXIST',
      );
      await refused(write(host, `${drivers}/nouveau/new_id`, '10de'), 'EINVAL');
      await refused(write(host, `${drivers}/nouveau/remove_id`, '10de 1b80'), 'ENODEV');
      await host.run('modprobe', ['pci_stub']);
      await write(host, `${drivers}/pci-stub/new_id`, '10de 1b80');
      await write(host, `${drivers}/pci-stub/remove_id`, '10de 1b80');
      await write(host, `${drivers}/pci-stub/new_id`, '10de 1b80');
    });
  });

  describe('access', () => {
    it('a missing attribute is ENOENT, a read-only one EACCES for root too, a folder EISDIR', async () => {
      const host = made();
      await refused(write(host, attribute(card, 'nothing'), '1'), 'ENOENT');
      await refused(write(host, attribute(card, 'vendor'), '1'), 'EACCES');
      await refused(write(host, attribute(card, 'power'), '1'), 'EISDIR');
      assert.throws(
        () => host.readText(attribute(card, 'remove')),
        (error) => error instanceof FileError && error.errno === 'EACCES',
      );
    });

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

  describe('remove and rescan', () => {
    it('the subtree of a bridge goes, a rescan of everything brings it back with its default drivers', async () => {
      const host = made();
      const events: string[] = [];
      host.machine.subscribe(({action, devpath, subsystem}: KernelEvent) => {
        if (subsystem === 'pci') events.push(`${action} ${devpath.slice(-12)}`);
      });
      const before = host.machine.bindings();
      await write(host, attribute('0000:00:01.1', 'remove'), '1');
      assert.equal(host.exists(attribute(card, '.')), false);
      assert.equal(host.exists('/sys/kernel/iommu_groups/2'), false);
      assert.deepEqual(events, [
        `unbind ${card}`,
        `remove ${card}`,
        `unbind ${cardSound}`,
        `remove ${cardSound}`,
        'unbind 0000:00:01.1',
        'remove 0000:00:01.1',
      ]);
      await write(host, '/sys/bus/pci/rescan', '1');
      assert.deepEqual(host.machine.bindings(), before);
      assert.deepEqual(events.slice(6), [
        'add 0000:00:01.1',
        `add ${card}`,
        `add ${cardSound}`,
        'bind 0000:00:01.1',
        `bind ${card}`,
        `bind ${cardSound}`,
      ]);
    });

    it('a bus can be scanned alone; an override does not survive; nonsense is EINVAL and 0 does nothing', async () => {
      const host = made();
      await write(host, attribute(card, 'driver_override'), 'vfio-pci');
      await write(host, attribute(card, 'remove'), '0');
      assert.equal(host.exists(attribute(card, '.')), true);
      await refused(write(host, attribute(card, 'remove'), 'yes'), 'EINVAL');
      await write(host, attribute(card, 'remove'), '1');
      await write(host, attribute(cardSound, 'remove'), '1');
      await write(host, '/sys/class/pci_bus/0000:01/rescan', '1');
      assert.equal(host.exists(attribute(card, '.')), false);
      await write(host, attribute('0000:00:01.1', 'pci_bus/0000:02/rescan'), '1');
      assert.deepEqual([driverOf(host, card), driverOf(host, cardSound)], ['nouveau', 'snd_hda_intel']);
      assert.equal(host.readText(attribute(card, 'driver_override')), '(null)');
    });

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
    it('reset_method lists, chooses, restores, disables; an unsupported one is EINVAL', async () => {
      const host = made();
      const path = attribute(card, 'reset_method');
      assert.equal(host.readText(path), 'flr bus');
      await write(host, path, 'bus');
      assert.equal(host.readText(path), 'bus');
      await refused(write(host, path, 'pm'), 'EINVAL');
      await write(host, attribute(card, 'reset'), '1');
      assert.equal(host.machine.device(card).resets, 1);
      await refused(write(host, attribute(card, 'reset'), '2'), 'EINVAL');
      await write(host, path, '\n');
      assert.equal(host.readText(path), '');
      await refused(write(host, attribute(card, 'reset'), '1'), 'ENOTTY');
      await write(host, path, 'default');
      assert.equal(host.readText(path), 'flr bus');
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

    it('power policy', async () => {
      const host = made();
      await write(host, attribute(card, 'd3cold_allowed'), '0');
      assert.equal(host.readText(attribute(card, 'd3cold_allowed')), '0');
      await refused(write(host, attribute(card, 'd3cold_allowed'), 'no'), 'EINVAL');
      await write(host, attribute(card, 'power/control'), 'auto');
      await refused(write(host, attribute(card, 'power/control'), 'off'), 'EINVAL');
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
      assert.equal(driverOf(host, card), 'vfio-pci');
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

    it('a removal that is stuck holds up every other removal and scan', async () => {
      const host = made();
      await giveToVfio(host, card);
      host.machine.addProcess({
        pid: 4321,
        comm: 'qemu-system-x86',
        holds: ['/dev/vfio/2', 'anon_inode:[vfio-device]'],
      });
      await assert.rejects(write(host, attribute(card, 'remove'), '1'), StuckError);
      await assert.rejects(write(host, '/sys/bus/pci/rescan', '1'), StuckError);
      await assert.rejects(write(host, attribute('0000:05:00.0', 'remove'), '1'), StuckError);
      host.machine.endProcess(4321);
      assert.equal(host.exists(attribute(card, '.')), false);
      await write(host, '/sys/bus/pci/rescan', '1');
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

    it('a group that a guest has open is not given to a host driver', async () => {
      const host = made();
      await giveToVfio(host, card);
      await write(host, `${drivers}/snd_hda_intel/unbind`, cardSound);
      host.machine.addProcess({
        pid: 4321,
        comm: 'qemu-system-x86',
        holds: ['/dev/vfio/2', 'anon_inode:[vfio-device]'],
      });
      await refused(write(host, `${drivers}/snd_hda_intel/bind`, cardSound), 'EBUSY');
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
    it('modprobe loads by name or alias with what it needs, and its driver probes unbound devices', async () => {
      const host = made((declaration) => {
        for (const module of declaration.modules) if (module.name === 'nouveau') module.loaded = false;
        for (const each of declaration.functions) if (each.driver === 'nouveau') delete each.driver;
      });
      await write(host, attribute(card, 'driver_override'), 'vfio-pci');
      await host
        .run('modprobe', ['-b', host.readText(attribute(display, 'modalias')) ?? ''])
        .catch(() => undefined);
      // The vendor's driver has the same alias; the first that probes successfully has it.
      assert.equal(driverOf(host, display), 'nouveau');
      assert.equal(driverOf(host, card), undefined);
      await host.run('modprobe', ['--', 'vfio-pci']);
      assert.equal(driverOf(host, card), 'vfio-pci');
      assert.deepEqual(
        ['vfio', 'vfio_pci_core', 'vfio_iommu_type1', 'vfio_pci'].filter(
          (name) => !host.exists(`/sys/module/${name}`),
        ),
        [],
      );
      assert.equal(host.realPath('/sys/module/vfio_pci/drivers/pci:vfio-pci'), `${drivers}/vfio-pci`);
      await host.run('modprobe', ['-r', 'vfio-pci']);
      assert.equal(driverOf(host, card), undefined);
      assert.equal(host.exists('/dev/vfio/vfio'), false);
    });

    it('modprobe complains as it does', async () => {
      const host = made();
      const says = async (args: string[], stderr: string) => {
        await assert.rejects(
          host.run('modprobe', args),
          (error) => error instanceof CommandError && error.status === 1 && error.stderr === stderr,
        );
      };
      await says(
        ['nothing'],
        'modprobe: FATAL: Module nothing not found in directory /lib/modules/6.1.0-18-amd64',
      );
      await says(['-r', 'nothing'], 'modprobe: FATAL: Module nothing not found.');
      await says(['-r', 'i915'], 'modprobe: FATAL: Module i915 is builtin.');
      await says(['-r', 'drm'], 'modprobe: FATAL: Module drm is in use.');
      await assert.rejects(
        host.run('no-such-program', []),
        (error) => error instanceof CommandError && error.status === undefined,
      );
    });

    it('modprobe obeys modprobe.d: options, softdep, blacklist, install', async () => {
      const host = made((declaration) => {
        declaration.files['/etc/modprobe.d/a.conf'] =
          'options vfio-pci ids=10de:1b80\nsoftdep igb pre: vfio-pci\nblacklist igb\ninstall igbvf /bin/false\n';
      });
      await write(host, `${drivers}/nouveau/unbind`, card);
      await host.run('modprobe', ['-b', 'igb']);
      assert.equal(host.machine.isLoaded('igb'), false);
      await host.run('modprobe', ['igb']);
      assert.equal(driverOf(host, card), 'vfio-pci');
      await assert.rejects(host.run('modprobe', ['igbvf']), CommandError);
    });

    it('a device that is claimed by name stays with a driver loaded later', async () => {
      const host = made(addNvidia);
      await write(host, attribute(card, 'driver_override'), 'none');
      await write(host, `${drivers}/nouveau/unbind`, card);
      await host.run('modprobe', ['nvidia']);
      assert.equal(driverOf(host, card), undefined);
    });
  });

  describe('systemd', () => {
    const unit = (driver: string) => `pearasys-${card}@${driver}.service`;
    const wants = `/etc/systemd/system/sys-bus-pci-devices-${card}.device.wants`;
    const template =
      '[Unit]\nDescription=PCI device %j on driver %i\nBindsTo=sys-bus-pci-devices-%j.device\n\n' +
      '[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true %j %i\n\n' +
      '[Install]\nWantedBy=sys-bus-pci-devices-%j.device\n';

    async function withUnits(): Promise<SimulatedHost> {
      const host = made();
      await host.writeFile(`/etc/systemd/system/pearasys-${card}@.service`, template);
      await host.writeFile(
        `/etc/systemd/system/${unit('vfio-pci')}.d/pearasys.conf`,
        `[Unit]\nConflicts=${unit('nouveau')}\n`,
      );
      await host.run('systemctl', ['daemon-reload']);
      return host;
    }

    it('enable makes the link that the rule looks at, with %j and %i; disable removes it', async () => {
      const host = await withUnits();
      const {stderr} = await host.run('systemctl', ['enable', unit('vfio-pci')]);
      assert.equal(
        stderr,
        `Created symlink ${wants}/${unit('vfio-pci')} → /etc/systemd/system/pearasys-${card}@.service.`,
      );
      assert.equal(
        host.readLink(`${wants}/${unit('vfio-pci')}`),
        `/etc/systemd/system/pearasys-${card}@.service`,
      );
      assert.equal((await host.run('systemctl', ['is-enabled', unit('vfio-pci')])).stdout, 'enabled');
      await host.run('systemctl', ['disable', unit('vfio-pci')]);
      assert.equal(host.exists(wants), false);
      const {status, stdout} = await host.run('systemctl', ['is-enabled', unit('vfio-pci')], {
        accept: [0, 1],
      });
      assert.deepEqual([status, stdout], [1, 'disabled']);
    });

    it('start runs the handler plugged in, stops what conflicts, and fails as systemctl says it', async () => {
      const host = await withUnits();
      const seen: string[] = [];
      host.userland.runUnit = (name, action) => {
        seen.push(`${action} ${name}`);
        return name === unit('none') ? 1 : 0;
      };
      await host.run('systemctl', ['start', unit('vfio-pci')]);
      await host.run('systemctl', ['start', unit('vfio-pci')]);
      await host.run('systemctl', ['start', unit('nouveau')]);
      await assert.rejects(
        host.run('systemctl', ['start', unit('none')]),
        (error) => error instanceof CommandError && /^Job for .* failed because/.test(error.stderr),
      );
      assert.deepEqual(seen, [
        `start ${unit('vfio-pci')}`,
        `stop ${unit('vfio-pci')}`,
        `start ${unit('nouveau')}`,
        `start ${unit('none')}`,
      ]);
      const {stdout} = await host.run('systemctl', [
        'list-units',
        '--all',
        '--plain',
        '--no-legend',
        'pearasys-*',
      ]);
      assert.deepEqual(stdout.split('\n'), [
        `${unit('none')} loaded failed failed PCI device ${card} on driver none`,
        `${unit('nouveau')} loaded active exited PCI device ${card} on driver nouveau`,
        `${unit('vfio-pci')} loaded inactive dead PCI device ${card} on driver vfio-pci`,
      ]);
      const {stdout: shown} = await host.run('systemctl', [
        'show',
        '-p',
        'ActiveState,LoadState',
        unit('nouveau'),
      ]);
      assert.equal(shown, 'ActiveState=active\nLoadState=loaded');
      await assert.rejects(host.run('systemctl', ['start', 'nothing']), /exit code 5/);
    });

    it('a start while the unit stops fails, as EDEADLK', async () => {
      const host = await withUnits();
      await host.run('systemctl', ['start', unit('vfio-pci')]);
      let finish: (status: number) => void = () => undefined;
      host.userland.runUnit = () => new Promise((resolve) => (finish = resolve));
      const stopping = host.run('systemctl', ['stop', unit('vfio-pci')]);
      await Promise.resolve();
      await assert.rejects(host.run('systemctl', ['start', unit('vfio-pci')]), CommandError);
      finish(0);
      await stopping;
    });

    it('the unit stops with its device and comes back with it', async () => {
      const host = await withUnits();
      await host.run('systemctl', ['enable', '--now', unit('vfio-pci')]);
      host.machine.hotRemove(card);
      await host.userland.idle();
      assert.equal(host.userland.state(unit('vfio-pci')), 'inactive');
      await assert.rejects(host.run('systemctl', ['start', unit('vfio-pci')]), /exit code 1/);
      host.machine.hotAdd(card);
      await host.userland.idle();
      assert.equal(host.userland.state(unit('vfio-pci')), 'active');
    });

    it('units that want each other start together, in one job each', async () => {
      const host = await withUnits();
      const sound = `pearasys-${cardSound}@vfio-pci.service`;
      await host.writeFile(`/etc/systemd/system/pearasys-${cardSound}@.service`, template);
      for (const [one, other] of [
        [unit('vfio-pci'), sound],
        [sound, unit('vfio-pci')],
      ] as const)
        await host.writeFile(`/etc/systemd/system/${one}.d/together.conf`, `[Unit]\nWants=${other}\n`);
      await host.run('systemctl', ['start', unit('vfio-pci')]);
      await host.userland.idle();
      assert.deepEqual(host.userland.jobs, [`start ${unit('vfio-pci')}`, `start ${sound}`]);
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

    it('a hot-added card is handed over without a process, whether the module was loaded or not', async () => {
      const host = withRules();
      host.machine.hotRemove(card);
      host.machine.hotAdd(card);
      // The default driver was quicker than the rules.
      assert.equal(driverOf(host, card), 'nouveau');
      await host.userland.idle();
      assert.equal(driverOf(host, card), 'vfio-pci');
      assert.equal(driverOf(host, display), 'nouveau');
      await write(host, attribute(card, 'remove'), '1');
      await write(host, '/sys/bus/pci/rescan', '1');
      await host.userland.idle();
      assert.equal(driverOf(host, card), 'vfio-pci');
      assert.deepEqual(host.userland.processes, []);
      assert.equal(host.userland.state(`pearasys-${card}@vfio-pci.service`), 'active');
    });

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

    it('nothing is unbound on a synthetic event', async () => {
      const host = withRules();
      await host.run('udevadm', ['trigger', '--action=add', '--subsystem-match=pci']);
      await host.run('udevadm', ['settle']);
      assert.equal(driverOf(host, card), 'nouveau');
    });

    it('an event without the tag loses the device unit at the next daemon-reload', async () => {
      const host = withRules((declaration) => {
        declaration.files['/etc/udev/rules.d/60-pearasys.rules'] = rules.replace(
          'TAG+="systemd"',
          'ACTION=="add", TAG+="systemd"',
        );
        declaration.files[`/etc/systemd/system/pearasys-${card}@.service`] =
          '[Unit]\nBindsTo=sys-bus-pci-devices-%j.device\n[Service]\nType=oneshot\nRemainAfterExit=yes\n';
      });
      const unit = `pearasys-${card}@vfio-pci.service`;
      host.machine.hotRemove(card);
      host.machine.hotAdd(card);
      await host.userland.idle();
      assert.equal(host.userland.state(unit), 'active');
      await host.run('systemctl', ['daemon-reload']);
      await host.userland.idle();
      assert.equal(host.userland.state(unit), 'inactive');
    });

    it('within a line matches come before imports, and a missing attribute matches nothing', () => {
      const host = made((declaration) => {
        declaration.files['/etc/values'] = '# comment\nX=1\nQUOTED="a b"\n';
      });
      const event: KernelEvent = {
        action: 'add',
        devpath: (host.realPath(attribute(card, '.')) ?? '').slice('/sys'.length),
        subsystem: 'pci',
        properties: {},
      };
      const apply = (text: string) => applyRules(host.machine, event, parseRules(text));
      const {properties} = apply(
        'IMPORT{file}=="/etc/values", ENV{X}=="1", ENV{SAME_LINE}="yes"\n' +
          'IMPORT{file}=="/etc/values"\n' +
          'ENV{X}=="1", ENV{NEXT_LINE}="$env{QUOTED} %k"\n' +
          'ATTR{nothing}!="x", ENV{MISSING}="matched"\n' +
          'ATTR{class}=="0x0300*|0x0302*", TEST{0022}!="/etc/values", ENV{A}="1"\n' +
          'ENV{A}+="2", ENV{UNSET}!="?*", RUN+="/bin/true"\n',
      );
      assert.deepEqual(properties, {X: '1', QUOTED: 'a b', NEXT_LINE: `a b ${card}`, A: '1 2'});
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
    const other = '93c32df7-d52e-4ec1-9668-1f3c7e4df107';
    const create = (type: string) => `/sys/class/mdev_bus/mtty/mdev_supported_types/${type}/create`;
    const device = `/sys/bus/mdev/devices/${uuid}`;
    const left = (host: SimulatedHost, type: string) =>
      host.readText(`/sys/class/mdev_bus/mtty/mdev_supported_types/${type}/available_instances`);

    it('are created once, in any form of the same UUID, while there is something left', async () => {
      const host = made(addParents);
      await refused(write(host, create('mtty-1'), 'nonsense'), 'EINVAL');
      await refused(write(host, create('mtty-1'), uuid.replaceAll('-', '')), 'EINVAL');
      await write(host, create('mtty-1'), `${uuid.toUpperCase()}\n`);
      assert.deepEqual(host.machine.mdevs.list(), [`${uuid} mtty mtty-1`]);
      await refused(write(host, create('mtty-2'), uuid), 'EEXIST');
      assert.deepEqual([left(host, 'mtty-1'), left(host, 'mtty-2')], ['21', '10']);
      await refused(
        write(host, '/sys/class/mdev_bus/mtty/mdev_supported_types/mtty-3/create', other),
        'ENOENT',
      );
      host.machine.declaration.mdevParents[0]!.units = 2;
      await refused(write(host, create('mtty-2'), other), 'ENOSPC');
      await write(host, `${device}/remove`, '0');
      assert.equal(host.exists(device), true);
      await write(host, `${device}/remove`, '1');
      assert.equal(host.exists(device), false);
      assert.equal(host.exists('/sys/devices/virtual/mtty/mtty/mdev_supported_types'), true);
      await refused(write(host, `${device}/remove`, '1'), 'ENOENT');
    });

    it('have a driver, a type, and a group of their own with its node', async () => {
      const host = made(addParents);
      await write(host, create('mtty-1'), uuid);
      const group = host.readLink(`${device}/iommu_group`)?.split('/').at(-1) ?? '';
      assert.equal(host.realPath(`${device}/driver`), '/sys/bus/mdev/drivers/vfio_mtty');
      assert.equal(
        host.realPath(`${device}/mdev_type`),
        '/sys/devices/virtual/mtty/mtty/mdev_supported_types/mtty-1',
      );
      assert.equal(host.info(`/dev/vfio/${group}`)?.kind, 'device');
      await write(host, `${device}/remove`, '1');
      assert.equal(host.exists(`/dev/vfio/${group}`), false);
      assert.equal(host.exists(`/sys/kernel/iommu_groups/${group}`), false);
    });

    it('announce themselves as the kernel does, the type only after the add', async () => {
      const host = made(addParents);
      const seen: string[] = [];
      host.machine.subscribe(({action, subsystem}) =>
        seen.push(`${action} ${subsystem}${host.exists(`${device}/mdev_type`) ? '' : ' without a type'}`),
      );
      await write(host, create('mtty-1'), uuid);
      assert.deepEqual(seen, ['add mdev without a type', 'add vfio', 'add vfio-dev', 'bind mdev']);
    });

    it('one that is open is removed when it is closed, and not before', async () => {
      const host = made(addParents);
      await write(host, create('mtty-1'), uuid);
      const group = host.readLink(`${device}/iommu_group`)?.split('/').at(-1) ?? '';
      host.machine.addProcess({pid: 9, comm: 'qemu', holds: [`/dev/vfio/${group}`]});
      await assert.rejects(write(host, `${device}/remove`, '1'), StuckError);
      await refused(write(host, `${device}/remove`, '1'), 'EAGAIN');
      assert.equal(host.exists(device), true);
      host.machine.endProcess(9);
      assert.equal(host.exists(device), false);
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
