/** Listing, binding, refusals and undo: the command line on a real kernel. */
import assert from 'node:assert/strict';
import {DEVICES} from './devices.js';
import {withProduct} from './shared.js';

interface ListedDevice {
  readonly slot: string;
  readonly id: string;
  readonly driver: string | null;
  readonly group: number | null;
  readonly holders: readonly {readonly kind: string}[];
}

describe('the command line on a real kernel', function () {
  const product = withProduct(this);
  const {spareNetwork, network, disk0, disk1, display, displayAudio, edu0, edu1} = DEVICES;

  it('lists the same devices as lspci', async () => {
    const {machine} = product();
    const lspci = (await machine.sh('lspci -Dnn')).split('\n').map((line) => ({
      slot: line.slice(0, 12),
      id: /\[([0-9a-f]{4}:[0-9a-f]{4})\](?: \(rev .*\))?(?: \(prog-if .*\))?$/.exec(line)?.[1],
    }));
    const {devices} = await product().json<{devices: ListedDevice[]}>('list');
    assert.deepEqual(
      devices.map(({slot, id}) => ({slot, id})),
      lspci,
    );
    const shown = await machine.sh('lspci -Dnnk');
    for (const {slot, driver} of devices) {
      const block = shown.slice(shown.indexOf(slot)).split(/\n(?=[0-9a-f])/)[0] ?? '';
      assert.equal(driver ?? undefined, /Kernel driver in use: (\S+)/.exec(block)?.[1], slot);
    }
  });

  it('works as any user if nothing is changed', async () => {
    const {machine} = product();
    for (const words of [
      'list',
      `show ${disk1.slot}`,
      `bind vfio-pci ${disk1.slot} --dry-run`,
      'service list',
    ]) {
      const {code, stderr} = await machine.run(`setpriv --reuid=65534 --clear-groups pearasys ${words}`);
      assert.equal(code, 0, `${words}: ${stderr}`);
    }
    const {code, stderr} = await machine.run(
      `setpriv --reuid=65534 --clear-groups pearasys bind vfio-pci ${disk1.slot}`,
    );
    assert.equal(code, 1);
    assert.match(stderr, /needs root/);
    assert.equal(await product().driverOf(disk1.slot), 'nvme');
  });

  describe('bind', () => {
    const singles = [
      ['an NVMe disk', disk1],
      ['a network card', spareNetwork],
    ] as const;
    for (const [what, device] of singles)
      for (const driver of ['vfio-pci', 'uio_pci_generic', 'pci-stub'])
        it(`binds ${what} to ${driver}, and back`, async () => {
          await product().sh('bind', driver, device.slot);
          assert.equal(await product().driverOf(device.slot), driver);
          await product().sh('bind', 'default', device.slot);
          assert.equal(await product().driverOf(device.slot), device.driver);
          assert.equal(await product().overrideOf(device.slot), '(null)');
        });

    for (const driver of ['vfio-pci', 'uio_pci_generic', 'pci-stub'])
      it(`binds both functions of a display card to ${driver}, and back to their own drivers`, async () => {
        await product().sh('bind', driver, display.slot, '--siblings');
        assert.equal(await product().driverOf(display.slot), driver);
        assert.equal(await product().driverOf(displayAudio.slot), driver);
        await product().sh('bind', 'default', display.slot, '--group');
        assert.equal(await product().driverOf(display.slot), display.driver);
        assert.equal(await product().driverOf(displayAudio.slot), displayAudio.driver);
      });

    it('refuses one function alone if its group would not be viable', async () => {
      const {code, stderr} = await product().run('bind', 'vfio-pci', display.slot);
      assert.equal(code, 3);
      assert.match(stderr, new RegExp(`${displayAudio.slot} .* is on ${displayAudio.driver}`));
      assert.equal(await product().driverOf(display.slot), display.driver);
    });

    it('finds a device by its interface and by its disk', async () => {
      const {machine} = product();
      const name = await machine.sh(`ls /sys/bus/pci/devices/${spareNetwork.slot}/net`);
      await product().sh('bind', 'pci-stub', name);
      assert.equal(await product().driverOf(spareNetwork.slot), 'pci-stub');
      await product().sh('bind', 'default', spareNetwork.slot.slice(5));
      const disk = await machine.sh(
        `ls /sys/bus/pci/devices/${disk1.slot}/nvme/nvme*/ | grep -o '^nvme.*n1$'`,
      );
      await product().sh('bind', 'pci-stub', disk);
      assert.equal(await product().driverOf(disk1.slot), 'pci-stub');
      await product().sh('bind', 'default', disk1.slot);
      assert.equal(await product().driverOf(disk1.slot), 'nvme');
    });

    it('refuses an id of twins, binds one of them by slot, and both with --all', async () => {
      const {code, stderr} = await product().run('bind', 'vfio-pci', edu0.id);
      assert.equal(code, 2);
      assert.match(stderr, new RegExp(`${edu0.slot}, ${edu1.slot}`));
      await product().sh('bind', 'vfio-pci', edu0.slot);
      assert.equal(await product().driverOf(edu1.slot), '');
      await product().sh('bind', 'vfio-pci', edu0.id, '--all');
      assert.equal(await product().driverOf(edu1.slot), 'vfio-pci');
      await product().sh('unbind', edu0.id, '--all');
      assert.equal(await product().driverOf(edu0.slot), '');
      assert.equal(await product().overrideOf(edu1.slot), '(null)');
    });

    it('ends in the state of one of two simultaneous calls', async () => {
      const {machine} = product();
      const both = ['vfio-pci', 'pci-stub'].map(async (driver) => product().run('bind', driver, disk1.slot));
      const codes = (await Promise.all(both)).map(({code}) => code);
      const driver = await product().driverOf(disk1.slot);
      assert.ok(['vfio-pci', 'pci-stub'].includes(driver), driver);
      assert.equal(await product().overrideOf(disk1.slot), driver);
      assert.ok(codes.every((code) => [0, 3].includes(code)) && codes.includes(0), String(codes));
      await product().sh('bind', 'default', disk1.slot);
      // Only what exists until the next boot remains: for units of other tests that waited for each other, and of early.
      const standing = ['lock', 'released', 'claim', 'release', 'record', 'checked', 'claims', 'snapshot']
        .map((name) => `-e ${name}`)
        .join(' ');
      assert.equal(await machine.sh(`ls -A /run/pearasys | grep -v -x ${standing} || true`), '');
    });

    it('is undone by an interrupt', async () => {
      const {machine} = product();
      // A module that loads slowly avoids a race between the steps and the signal.
      await machine.sh('mkdir -p /run/modprobe.d && modprobe -r uio_pci_generic');
      await machine.sh(
        "echo 'install uio_pci_generic mkfifo /run/gate; cat /run/gate; modprobe --ignore-install uio_pci_generic' >/run/modprobe.d/slow.conf",
      );
      const switching = await machine.start(`exec pearasys bind uio_pci_generic ${disk1.slot}`);
      await machine.waitUntil('test -p /run/gate');
      switching.kill('INT');
      await machine.sh('echo >/run/gate; rm /run/gate /run/modprobe.d/slow.conf');
      const {code, stderr} = await switching.exited;
      assert.equal(code, 1, stderr);
      assert.match(stderr, /interrupted/);
      assert.equal(await product().driverOf(disk1.slot), 'nvme');
      assert.equal(await product().overrideOf(disk1.slot), '(null)');
      assert.equal(await machine.sh('ls -d /sys/module/uio_pci_generic 2>/dev/null || true'), '');
    });

    it('prevents all drivers from binding with none', async () => {
      await product().sh('bind', 'none', disk1.slot);
      assert.equal(await product().driverOf(disk1.slot), '');
      await product().machine.sh(`echo ${disk1.slot} > /sys/bus/pci/drivers_probe`);
      assert.equal(await product().driverOf(disk1.slot), '');
      await product().sh('bind', 'default', disk1.slot);
      assert.equal(await product().driverOf(disk1.slot), 'nvme');
    });

    it('reports that nothing is to do, and does nothing', async () => {
      const {changed, steps} = await product().json<{changed: boolean; steps: string[]}>(
        'bind',
        'nvme',
        disk1.slot,
      );
      assert.equal(changed, false);
      assert.deepEqual(steps, []);
    });

    it('prints the steps with --dry-run without applying them', async () => {
      const lines = (await product().sh('bind', 'pci-stub', disk1.slot, '--dry-run')).split('\n');
      assert.ok(lines.includes(`echo '${disk1.slot}' > /sys/bus/pci/drivers/nvme/unbind`));
      assert.equal(await product().driverOf(disk1.slot), 'nvme');
    });
  });

  describe('refusals', () => {
    it('does not take a mounted disk, even with --force', async () => {
      const {machine} = product();
      const disk = await machine.sh(
        `ls /sys/bus/pci/devices/${disk0.slot}/nvme/nvme*/ | grep -o '^nvme.*n1$'`,
      );
      await machine.sh(`mkfs.ext4 -q -F /dev/${disk} && mkdir -p /mnt/data && mount /dev/${disk} /mnt/data`);
      for (const force of [[], ['--force']]) {
        const {code, stderr} = await product().run('bind', 'vfio-pci', disk0.slot, ...force);
        assert.equal(code, 3);
        assert.match(stderr, /\/mnt\/data/);
        assert.match(stderr, /umount \/mnt\/data/);
      }
      await machine.sh(`umount /mnt/data && wipefs -qa /dev/${disk}`);
      assert.equal(await product().driverOf(disk0.slot), 'nvme');
    });

    it('takes an interface with the last route only with --force, and says how to get it back', async () => {
      const {machine} = product();
      const name = await machine.sh(`ls /sys/bus/pci/devices/${network.slot}/net`);
      await machine.sh(`ip link set ${name} up && ip address replace 10.0.2.15/24 dev ${name}`);
      await machine.waitUntil(`ip route show dev ${name} | grep -q 10.0.2.0/24`);
      await machine.sh(`ip route replace default via 10.0.2.2 dev ${name}`);
      const {code, stderr} = await product().run('bind', 'vfio-pci', network.slot);
      assert.equal(code, 3);
      assert.match(stderr, new RegExp(`${name} carries the last route to this machine \\(default`));
      assert.match(stderr, new RegExp(`pearasys bind default ${network.slot}`));
      assert.equal(await product().driverOf(network.slot), 'e1000e');
      await product().sh('bind', 'vfio-pci', network.slot, '--force');
      assert.equal(await product().driverOf(network.slot), 'vfio-pci');
      await product().sh('bind', 'default', network.slot);
      assert.equal(await product().driverOf(network.slot), 'e1000e');
    });

    it('takes a card whose interface was moved into a namespace only with --force', async () => {
      const {machine} = product();
      const name = await machine.sh(`ls /sys/bus/pci/devices/${spareNetwork.slot}/net`);
      await machine.sh(`ip netns add elsewhere && ip link set ${name} netns elsewhere`);
      const {code, stderr} = await product().run('bind', 'vfio-pci', spareNetwork.slot);
      assert.equal(code, 3);
      assert.match(stderr, /namespace/);
      await product().sh('bind', 'vfio-pci', spareNetwork.slot, '--force');
      await machine.sh('ip netns delete elsewhere');
      await product().sh('bind', 'default', spareNetwork.slot);
      assert.equal(await product().driverOf(spareNetwork.slot), 'e1000e');
    });

    it('does not take a disk used by device mapper', async () => {
      const {machine} = product();
      const disk = await machine.sh(
        `ls /sys/bus/pci/devices/${disk0.slot}/nvme/nvme*/ | grep -o '^nvme.*n1$'`,
      );
      await machine.sh(`dmsetup create held --table "0 2048 linear /dev/${disk} 0"`);
      const {code, stderr} = await product().run('unbind', disk, '--force');
      await machine.sh('dmsetup remove held');
      assert.equal(code, 3);
      assert.match(stderr, /held/);
    });

    it('does not take a card with a virtual function on vfio-pci', async () => {
      const {machine} = product();
      const {slot} = DEVICES.sriov;
      const virtual = slot.replace(/0$/, '1');
      await machine.sh(`echo 1 > /sys/bus/pci/devices/${slot}/sriov_numvfs`);
      await product().sh('bind', 'vfio-pci', virtual);
      const {devices} = await product().json<{devices: ListedDevice[]}>('list');
      assert.deepEqual(
        devices.find((device) => device.slot === slot)?.holders.map(({kind}) => kind),
        ['virtual-function'],
      );
      const {code, stderr} = await product().run('unbind', slot);
      assert.equal(code, 3, stderr);
      assert.match(stderr, new RegExp(`${virtual}.*vfio-pci`));
      assert.equal(await product().driverOf(slot), 'nvme');
      await machine.sh(`echo 0 > /sys/bus/pci/devices/${slot}/sriov_numvfs`);
      assert.equal((await product().run('unbind', slot)).code, 0);
      await product().sh('bind', 'default', slot);
      assert.equal(await product().driverOf(slot), 'nvme');
    });

    it('names the process that has a node of the card open', async () => {
      const {machine} = product();
      const card = await machine.sh(`ls /sys/bus/pci/devices/${display.slot}/drm | grep card`);
      const holder = await machine.start(`exec sleep infinity </dev/dri/${card}`);
      const {code, stderr} = await product().run('bind', 'vfio-pci', display.slot, '--siblings');
      holder.kill();
      assert.equal(code, 3);
      assert.match(stderr, new RegExp(`${holder.pid} \\(sleep\\).*/dev/dri/${card}`));
    });

    it('does not take the boot display with its console without --force', async () => {
      const {code, stderr} = await product().run('unbind', DEVICES.bootDisplay.slot);
      assert.equal(code, 3);
      assert.match(stderr, /console|framebuffer/);
    });

    it('refuses a device that a guest uses through VFIO, instead of hanging', async () => {
      const {machine} = product();
      await product().sh('bind', 'vfio-pci', spareNetwork.slot);
      const guest = await machine.start(`exec perl /mnt/checkout/test/vm/stuck.pl ${spareNetwork.slot}`);
      await guest.printed(/held/);
      const {code, stderr} = await product().run('unbind', spareNetwork.slot, '--force');
      assert.equal(code, 3);
      assert.match(stderr, new RegExp(`${guest.pid} \\(.*\\).*/dev/vfio/\\d+`));
      guest.kill();
      await guest.exited;
      await product().sh('bind', 'default', spareNetwork.slot);
      assert.equal(await product().driverOf(spareNetwork.slot), 'e1000e');
    });
  });

  it('does not hang on a write that never returns', async () => {
    const {machine} = product();
    await product().sh('bind', 'vfio-pci', spareNetwork.slot);
    // The group's node is closed again, so pearasys cannot know which device the process uses.
    const guest = await machine.start(`exec perl /mnt/checkout/test/vm/stuck.pl ${spareNetwork.slot} hidden`);
    await guest.printed(/held/);
    const {code, stderr} = await product().run('unbind', spareNetwork.slot, '--timeout', '3');
    assert.equal(code, 5, stderr);
    assert.match(stderr, /drivers\/vfio-pci\/unbind did not return within 3 s/);
    assert.match(stderr, new RegExp(`${guest.pid} \\(.*\\)`));
    assert.match(
      await machine.sh('ps -ewwo wchan:32,args'),
      /^vfio_unregister_group_dev .*attribute-writer/m,
    );
    // The kernel keeps the device locked meanwhile. With 6.1 even reading its override would hang.
    const {devices} = await product().json<{devices: ListedDevice[]}>('list');
    assert.ok(devices.some(({slot}) => slot === spareNetwork.slot));
    assert.match(await product().sh('show', spareNetwork.slot), /has not returned/);
    assert.equal((await product().run('bind', 'default', spareNetwork.slot)).code, 5);
    guest.kill();
    await guest.exited;
    await machine.waitUntil('! ps -eo args | grep -q [a]ttribute-writer');
    await product().untilDriver(spareNetwork.slot, '');
    await product().sh('bind', 'default', spareNetwork.slot);
    assert.equal(await product().driverOf(spareNetwork.slot), 'e1000e');
  });

  it('restores the first function if the driver rejects the second', async () => {
    const {machine} = product();
    const port = machine.ports.take();
    const {slot} = port;
    const second = slot.replace(/0$/, '1');
    await port.plug('edu', {addr: '0.1', multifunction: true});
    await port.plug('e1000e', {addr: '0.0', multifunction: true});
    await machine.waitUntil(`test -e /sys/bus/pci/devices/${second}`);
    await product().untilDriver(slot, 'e1000e');
    await product().sh('bind', 'vfio-pci', slot, second);
    const {code, stderr} = await product().run('bind', 'e1000e', slot, second);
    assert.equal(code, 1, stderr);
    assert.match(stderr, new RegExp(`driver e1000e did not take ${second}`));
    assert.match(stderr, new RegExp(`state of ${slot}: on driver vfio-pci`));
    assert.equal(await product().driverOf(slot), 'vfio-pci');
    assert.equal(await product().driverOf(second), 'vfio-pci');
  });

  it('uses locks that no other user can hold', async () => {
    const {machine} = product();
    const {slot} = spareNetwork;
    await product().sh('bind', 'vfio-pci', slot);
    const {code, stderr} = await machine.run(
      `setpriv --reuid=65534 --regid=65534 --clear-groups flock --nonblock /run/pearasys/lock/${slot} true`,
    );
    assert.notEqual(code, 0);
    assert.match(stderr, /Permission denied/);
    await product().sh('bind', 'default', slot);
    assert.equal(await product().driverOf(slot), 'e1000e');
  });

  describe("the first pearasys's command line", () => {
    it('chains, and prints each write with -v', async () => {
      const {code, stdout, stderr} = await product().run(
        ...['-v', '-s', disk1.slot, 'pci', 'device', '--driver', 'vfio-pci', 'bind', 'device', 'unbind'],
        ...['driver', 'nvme', 'bind'],
      );
      assert.equal(code, 0, stderr);
      assert.match(stdout + stderr, /^echo '0000:03:00\.0' > \/sys\/bus\/pci\/drivers\/nvme\/unbind$/m);
      assert.equal(await product().driverOf(disk1.slot), 'nvme');
      await product().sh('bind', 'default', disk1.slot);
    });

    it('binds by new-id, unbinds, removes the id, removes and rescans', async () => {
      await product().sh('-s', edu0.slot, 'pci', 'driver', 'pci-stub', 'new-id');
      assert.equal(await product().driverOf(edu0.slot), 'pci-stub');
      await product().sh(
        ...['-s', edu0.slot, '-s', edu1.slot, 'pci', 'device', 'unbind', 'driver', 'pci-stub', 'remove-id'],
        ...['device', 'remove', 'rescan'],
      );
      assert.equal(await product().driverOf(edu0.slot), '');
      assert.equal(await product().driverOf(edu1.slot), '');
    });

    it('skips with a warning a device that is already on the driver', async () => {
      const {code, stderr} = await product().run('-s', disk1.slot, 'pci', 'driver', 'nvme', 'bind');
      assert.equal(code, 0);
      assert.match(stderr, /Skipping device 0000:03:00\.0, current driver is nvme/);
    });
  });
});
