/** Holders: how the kernel removes a device while they use it, and that pearasys predicts this. */
import assert from 'node:assert/strict';
import {DEVICES} from './devices.js';
import type {GuestProcess} from './machine.js';
import {plugKeyboard} from './keyboard.js';
import {withProduct} from './shared.js';

interface ReportedHolder {
  readonly kind: string;
  readonly class: string;
  readonly harm: string;
  readonly text: string;
}

describe('holders on a real kernel', function () {
  const product = withProduct(this);
  const {display, displayAudio, disk1} = DEVICES;
  const scripts = '/mnt/checkout/test/vm';

  async function holdersOf(slot: string): Promise<readonly ReportedHolder[]> {
    const {devices} = await product().json<{devices: {holders: ReportedHolder[]}[]}>('show', slot);
    return devices[0]?.holders ?? [];
  }

  async function end(process: GuestProcess): Promise<void> {
    process.kill();
    await process.exited;
  }

  /** Starts a write that waits in the kernel until the holder has ended, and checks where it waits. */
  async function unbindWaits(
    slot: string,
    driver: string,
    where: RegExp,
    holder: GuestProcess,
  ): Promise<void> {
    const {machine} = product();
    const writer = await machine.start(`echo ${slot} >/sys/bus/pci/drivers/${driver}/unbind`);
    await machine.waitUntil(`grep -q '^State:\tD' /proc/${writer.pid}/status`);
    const stack = await machine.sh(`cat /proc/${writer.pid}/stack`);
    await end(holder);
    await writer.exited;
    assert.match(stack, where);
    await product().untilDriver(slot, '');
  }

  describe('by class', () => {
    it('sound: an open control node that is not watched blocks', async () => {
      const {machine} = product();
      const node = await machine.sh(
        `basename /sys/bus/pci/devices/${displayAudio.slot}/sound/card*/controlC*`,
      );
      const holder = await machine.start(`exec sleep infinity </dev/snd/${node}`);
      await machine.waitUntil(`readlink /proc/${holder.pid}/fd/0 | grep -q snd/`);
      const [held] = await holdersOf(displayAudio.slot);
      assert.deepEqual([held?.class, held?.harm], ['blocks', 'certain']);
      const {code, stderr} = await product().run('unbind', displayAudio.slot, '--force');
      assert.equal(code, 3, stderr);
      assert.match(stderr, new RegExp(`${holder.pid} \\(sleep\\) .*/dev/snd/${node}`));
      await unbindWaits(displayAudio.slot, 'snd_hda_intel', /snd_card_free/, holder);
      await product().sh('bind', 'default', displayAudio.slot);
      await product().untilDriver(displayAudio.slot, 'snd_hda_intel');
    });

    it('sound: a watched control node is closed when the card is removed: harmless', async () => {
      const {machine} = product();
      const node = await machine.sh(
        `basename /sys/bus/pci/devices/${displayAudio.slot}/sound/card*/controlC*`,
      );
      const holder = await machine.start(`exec perl ${scripts}/epoll.pl /dev/snd/${node}`);
      await holder.printed(/open/);
      const [held] = await holdersOf(displayAudio.slot);
      assert.deepEqual([held?.class, held?.harm], ['harmless', 'none']);
      const {code, stderr} = await product().run('unbind', displayAudio.slot);
      assert.equal(code, 0, stderr);
      assert.match(stderr, new RegExp(`${holder.pid} \\(perl\\)`));
      await holder.printed(/closed/);
      await end(holder);
      await product().sh('bind', 'default', displayAudio.slot);
    });

    it('input: an open keyboard is harmless', async () => {
      const {machine} = product();
      const {slot, node} = await plugKeyboard(product());
      const holder = await machine.start(`exec sleep infinity <${node}`);
      await machine.waitUntil(`readlink /proc/${holder.pid}/fd/0 | grep -q input/`);
      const held = (await holdersOf(slot)).find(({text}) => text.includes(`process ${holder.pid} `));
      assert.deepEqual([held?.class, held?.harm], ['harmless', 'none']);
      const {code, stderr} = await product().run('bind', 'pci-stub', slot);
      assert.equal(code, 0, stderr);
      assert.match(stderr, new RegExp(`${holder.pid} \\(sleep\\).*${node}`));
      assert.equal(await product().driverOf(slot), 'pci-stub');
      await end(holder);
      await product().sh('bind', 'default', slot);
    });

    it('I2C: an adapter waits until it is closed: blocks', async () => {
      const {machine} = product();
      const slot = '0000:00:1f.3';
      await machine.sh('modprobe i2c-dev && modprobe i2c-i801');
      await product().untilDriver(slot, 'i801_smbus');
      const node = await machine.sh(`ls /sys/bus/pci/devices/${slot} | grep '^i2c-'`);
      await machine.waitUntil(`test -c /dev/${node}`);
      const holder = await machine.start(`exec sleep infinity </dev/${node}`);
      await machine.waitUntil(`readlink /proc/${holder.pid}/fd/0 | grep -q i2c`);
      const [held] = await holdersOf(slot);
      assert.deepEqual([held?.class, held?.harm], ['blocks', 'certain']);
      await unbindWaits(slot, 'i801_smbus', /i2c_del_adapter/, holder);
      await product().sh('bind', 'default', slot);
    });

    for (const [what, slot, driver, node] of [
      ['a display', display.slot, display.driver, 'drm/card*'],
      ["an NVMe controller's node", disk1.slot, disk1.driver, 'nvme/nvme*'],
      ['a disk', disk1.slot, disk1.driver, 'nvme/nvme*/nvme*n1'],
    ] as const)
      it(`${what} is removed while a process has it open: yields`, async () => {
        const {machine} = product();
        const name = await machine.sh(`basename /sys/bus/pci/devices/${slot}/${node}`);
        const path = node.startsWith('drm') ? `/dev/dri/${name}` : `/dev/${name}`;
        const holder = await machine.start(`exec sleep infinity <${path}`);
        await machine.waitUntil(`readlink /proc/${holder.pid}/fd/0 | grep -q ${name}`);
        const [held] = await holdersOf(slot);
        assert.deepEqual([held?.class, held?.harm], ['yields', 'overridable']);
        const {code, stderr} = await product().run('unbind', slot);
        assert.equal(code, 3, stderr);
        await product().sh('unbind', slot, '--force');
        assert.equal(await product().driverOf(slot), '');
        await machine.sh(`kill -0 ${holder.pid}`);
        await end(holder);
        await product().sh('bind', 'default', slot);
        await product().untilDriver(slot, driver);
      });
  });

  /** Whether pearasys would take the device, by a dry run, and its messages. */
  async function wouldTake(slot: string, ...options: string[]): Promise<{taken: boolean; stderr: string}> {
    const {code, stderr} = await product().run('bind', 'pci-stub', slot, '--dry-run', ...options);
    assert.ok(code === 0 || code === 3, stderr);
    return {taken: code === 0, stderr};
  }

  describe('of a network card without an address', () => {
    const {slot} = DEVICES.spareNetwork;
    let name = '';

    before(async () => {
      name = await product().machine.sh(`ls /sys/bus/pci/devices/${slot}/net`);
      await product().machine.sh(`ip link set ${name} up`);
    });
    // The remains of a failed test would be holders of the card in the next test.
    afterEach(async () => {
      await product().machine.run(
        'for link in mv0 vnet3 br7; do ip link del $link; done; ip netns del box; true',
      );
    });
    after(async () => {
      await product().machine.sh(`ip link set ${name} down`);
    });

    it('a bridge is idle until a process uses one of its taps', async () => {
      const {machine} = product();
      await machine.sh(`ip link add br7 type bridge; ip link set ${name} master br7; ip link set br7 up`);
      await machine.sh('ip tuntap add vnet3 mode tap; ip link set vnet3 master br7 up');
      const before = await wouldTake(slot);
      assert.ok(before.taken, before.stderr);
      const open = `sysopen F, "/dev/net/tun", 2 or die $!; ioctl F, 0x400454ca, $_ = pack "a16 S x22", "vnet3", 0x1002 or die $!; $| = 1; print "open\\n"; sleep`;
      const guest = await machine.start(`exec perl -e '${open}' 2>&1`);
      await guest.printed(/open/);
      const {taken, stderr} = await wouldTake(slot);
      await end(guest);
      await machine.sh('ip link del vnet3; ip link del br7');
      assert.ok(!taken);
      assert.match(
        stderr,
        new RegExp(`${name} is a port of bridge br7, which tap vnet3 \\(perl ${guest.pid}.*\\) uses`),
      );
    });

    it('a macvtap is idle until a process has it open', async () => {
      const {machine} = product();
      await machine.sh(`ip link add link ${name} name mv0 type macvtap mode bridge; ip link set mv0 up`);
      const node = `/dev/tap${await machine.sh('cat /sys/class/net/mv0/ifindex')}`;
      await machine.waitUntil(`test -c ${node}`);
      const before = await wouldTake(slot);
      assert.ok(before.taken, before.stderr);
      const guest = await machine.start(`exec sleep infinity <${node}`);
      await machine.waitUntil(`readlink /proc/${guest.pid}/fd/0 | grep -q tap`);
      const {taken, stderr} = await wouldTake(slot);
      await end(guest);
      await machine.sh('ip link del mv0');
      assert.ok(!taken);
      assert.match(
        stderr,
        new RegExp(`${name} carries macvtap mv0, which macvtap mv0 \\(sleep ${guest.pid}.*\\) uses`),
      );
    });

    it('a macvlan in another network namespace is found', async () => {
      const {machine} = product();
      await machine.sh(
        `ip netns add box; ip link add link ${name} name mc0 type macvlan; ip link set mc0 netns box; ip -n box link set mc0 up`,
      );
      const {taken, stderr} = await wouldTake(slot);
      await machine.sh('ip netns del box');
      await machine.waitUntil(
        `awk '$2 == "${name}" && $5 == "01005e000001" {exit $3 != 1}' /proc/net/dev_mcast`,
      );
      assert.ok(!taken);
      assert.match(stderr, /another network namespace/);
    });

    it('a packet socket is found', async () => {
      const {machine} = product();
      const index = await machine.sh(`cat /sys/class/net/${name}/ifindex`);
      const open = `socket S, 17, 3, 0x0300 or die $!; bind S, pack "S n i S C C a8", 17, 3, ${index}, 0, 0, 0, "" or die $!; $| = 1; print "open\\n"; sleep`;
      const daemon = await machine.start(`exec perl -e '${open}' 2>&1`);
      await daemon.printed(/open/);
      const {taken, stderr} = await wouldTake(slot);
      await end(daemon);
      assert.ok(!taken);
      assert.match(stderr, new RegExp(`${name} is used by perl ${daemon.pid}.* by a packet socket`));
      const after = await wouldTake(slot);
      assert.ok(after.taken, after.stderr);
    });
  });

  describe('of a disk that is not mounted itself', () => {
    const {slot} = disk1;
    let disk = '';
    before(async () => {
      disk = await product().machine.sh(`ls /sys/bus/pci/devices/${slot}/nvme/nvme*/ | grep -o '^nvme.*n1$'`);
    });

    it('a loop device on it blocks, mounted or not, even with --force', async () => {
      const {machine} = product();
      const loop = await machine.sh(`modprobe loop; losetup --find --show /dev/${disk}`);
      await machine.sh(`mkfs.ext4 -q -F ${loop} && mkdir -p /mnt/loop && mount ${loop} /mnt/loop`);
      const {taken, stderr} = await wouldTake(slot, '--force');
      await machine.sh(`umount /mnt/loop`);
      const idle = await wouldTake(slot, '--force');
      await machine.sh(`losetup --detach ${loop}; wipefs -qa /dev/${disk}`);
      assert.ok(!taken);
      assert.match(stderr, new RegExp(`${loop} is mounted at /mnt/loop`));
      assert.match(stderr, new RegExp(`/dev/${disk} is in use by ${loop.slice(5)}`));
      assert.ok(!idle.taken);
    });

    it('the NVMe target exports it', async () => {
      const {machine} = product();
      const folder = '/sys/kernel/config/nvmet/subsystems/shared';
      await machine.sh(
        'modprobe nvmet; mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config',
      );
      await machine.sh(
        `mkdir ${folder} && mkdir ${folder}/namespaces/1 && printf /dev/${disk} >${folder}/namespaces/1/device_path && echo 1 >${folder}/namespaces/1/enable`,
      );
      const {taken, stderr} = await wouldTake(slot, '--force');
      await machine.sh(`echo 0 >${folder}/namespaces/1/enable; rmdir ${folder}/namespaces/1 ${folder}`);
      assert.ok(!taken);
      assert.match(stderr, new RegExp(`/dev/${disk} is in use by NVMe target shared, namespace 1`));
    });

    it('another mount namespace has it mounted', async () => {
      const {machine} = product();
      await machine.sh(`mkfs.ext4 -q -F /dev/${disk} && mkdir -p /mnt/box`);
      const box = await machine.start(
        `exec unshare --mount sh -c 'mount /dev/${disk} /mnt/box && echo mounted && exec sleep infinity'`,
      );
      await box.printed(/mounted/);
      const {taken, stderr} = await wouldTake(slot, '--force');
      await end(box);
      await machine.waitUntil(`wipefs -qa /dev/${disk}`);
      assert.ok(!taken);
      assert.match(stderr, new RegExp(`mounted at /mnt/box in the mount namespace of process ${box.pid}`));
      const after = await wouldTake(slot, '--force');
      assert.ok(after.taken, after.stderr);
    });
  });

  describe('do not hang on a file system that does not respond', () => {
    for (const [folder, source] of [
      ['/mnt/silent/dev', 'silent'],
      ['/dev/shm/silent', '/dev/shm/silent/disk'],
    ] as const)
      it(`mounted on ${folder}, with a file open`, async () => {
        const {machine} = product();
        await machine.sh(`modprobe fuse; mkdir -p ${folder}`);
        const server = await machine.start(`exec perl ${scripts}/silent-fuse.pl ${folder} ${source}`);
        await server.printed(/mounted/);
        // Not with Perl, which reads the attributes of an opened file.
        const reader = await machine.start(`exec 3<${folder}/gpu && echo open && exec sleep infinity`);
        await reader.printed(/open/);
        assert.match(await machine.sh(`ls -l /proc/${reader.pid}/fd`), new RegExp(`${folder}/gpu`));
        for (const words of ['list', `show ${disk1.slot}`, `bind vfio-pci ${disk1.slot} --dry-run`]) {
          const command = await machine.start(`exec pearasys ${words}`);
          const {code, stderr} = await command.exited;
          assert.equal(code, 0, `${words}: ${stderr}`);
        }
        await end(reader);
        await end(server);
        await machine.sh(`umount -l ${folder}`);
      });
  });
});
