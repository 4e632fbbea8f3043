/** Holders: what the kernel's removal does while they are there, and that the product knows it. */
import assert from 'node:assert/strict';
import {DEVICES, HOTPLUG} from './devices.js';
import type {GuestProcess} from './machine.js';
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

  /** Starts a write that the kernel keeps until the holder has ended, and looks where in the kernel it waits. */
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
    it('sound: a control node that somebody has open and does not watch blocks', async () => {
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

    it('sound: a control node that is watched is closed when the card goes: harmless', async () => {
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

    it('input: nobody has to close a keyboard', async () => {
      const {machine} = product();
      const {bus, slot} = HOTPLUG.hotplug0;
      await machine.deviceAdd('qemu-xhci', {id: 'usb', bus});
      await product().untilDriver(slot, 'xhci_hcd');
      await machine.deviceAdd('usb-kbd', {id: 'keyboard', bus: 'usb.0'});
      const find = `find -L /sys/class/input -maxdepth 1 -name 'event*' -exec sh -c 'readlink -f "$1" | grep -q ${slot}' _ {} \\; -print`;
      await machine.waitUntil(`${find} | grep -q event`);
      const node = (await machine.sh(find)).replace(/.*\//, '');
      await machine.waitUntil(`test -c /dev/input/${node}`);
      const holder = await machine.start(`exec sleep infinity </dev/input/${node}`);
      await machine.waitUntil(`readlink /proc/${holder.pid}/fd/0 | grep -q input/`);
      const held = (await holdersOf(slot)).find(({text}) => text.includes(`process ${holder.pid} `));
      assert.deepEqual([held?.class, held?.harm], ['harmless', 'none']);
      const {code, stderr} = await product().run('bind', 'pci-stub', slot);
      assert.equal(code, 0, stderr);
      assert.match(stderr, new RegExp(`${holder.pid} \\(sleep\\).*input/${node}`));
      assert.equal(await product().driverOf(slot), 'pci-stub');
      await end(holder);
      await product().sh('bind', 'default', slot);
      await machine.deviceDel('usb');
      await machine.waitUntil(`test ! -e /sys/bus/pci/devices/${slot}`);
    });

    it('I2C: an adapter waits for who has it open: blocks', async () => {
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
      it(`${what} is lost to who has it open: yields`, async () => {
        const {machine} = product();
        const name = await machine.sh(`basename /sys/bus/pci/devices/${slot}/${node}`);
        const path = node.startsWith('drm') ? `/dev/dri/${name}` : `/dev/${name}`;
        const holder = await machine.start(`exec sleep infinity <${path}`);
        await machine.waitUntil(`readlink /proc/${holder.pid}/fd/0 | grep -q ${name}`);
        const [held] = await holdersOf(slot);
        assert.deepEqual([held?.class, held?.harm], ['yields', 'forcible']);
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

  describe('do not hang on a file system that does not answer', () => {
    for (const [folder, source] of [
      ['/mnt/silent/dev', 'silent'],
      ['/dev/shm/silent', '/dev/shm/silent/disk'],
    ] as const)
      it(`mounted on ${folder}, with a file open`, async () => {
        const {machine} = product();
        await machine.sh(`modprobe fuse; mkdir -p ${folder}`);
        const server = await machine.start(`exec perl ${scripts}/silent-fuse.pl ${folder} ${source}`);
        await server.printed(/mounted/);
        const reader = await machine.start(
          `exec perl -e 'sysopen F, "${folder}/gpu", 0 or die $!; $| = 1; print "open\\n"; sleep' 2>&1`,
        );
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
