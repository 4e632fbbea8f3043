/** Holders: what the kernel's removal does while they are there, and that the product knows it. */
import assert from 'node:assert/strict';
import {DEVICES} from './devices.js';
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
  const {displayAudio} = DEVICES;

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
  });

  /** Whether the product would take the device, without doing it, and what it says. */
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
    // Whatever a failed test has left would be a use of the card for the next.
    afterEach(async () => {
      await product().machine.run('for link in vnet3 br7; do ip link del $link; done; true');
    });
    after(async () => {
      await product().machine.sh(`ip link set ${name} down`);
    });

    it('a bridge is idle until somebody has a tap in it', async () => {
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
  });
});
