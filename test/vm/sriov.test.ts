/** Virtual functions on a real kernel: created by the udev rules at boot and when their device comes back. */
import assert from 'node:assert/strict';
import {spawnSync} from 'node:child_process';
import type {SriovListResult} from '../../src/entry/cli/commands/sriov/list.js';
import {DEVICES} from './devices.js';
import {CHECKOUT} from './machine.js';
import {withProduct} from './shared.js';

const pf = DEVICES.sriov.slot;
const virtual = (index: number) => pf.replace(/0$/, String(index + 1));
const all = [0, 1, 2, 3].map(virtual);
const target = `pearasys-sriov@${pf}.target`;
const service = `pearasys-vfs@${pf}.service`;
const attributes = `/sys/bus/pci/devices/${pf}`;

describe('virtual functions on a real kernel', function () {
  const product = withProduct(this);

  after(async () => {
    await product().machine.run(`pearasys sriov unset ${pf}`);
  });

  const driversOf = async (slots: readonly string[] = all) =>
    Promise.all(slots.map((slot) => product().driverOf(slot)));

  /** What the handler has logged in this boot; systemd says when it has skipped its unit. */
  const logged = async () =>
    product().machine.sh(
      "journalctl --no-pager -b -o cat -u 'pearasys-vfs@*' | grep -v 'was skipped because' || true",
    );

  /** What udev announces of disks while something is done: lines with their paths in sysfs. */
  async function watch(work: () => Promise<void>): Promise<string[]> {
    const {machine} = product();
    const monitor = await machine.start(
      'exec stdbuf -oL udevadm monitor --kernel --udev --subsystem-match=block --subsystem-match=nvme --subsystem-match=net',
    );
    monitor.exited.catch(() => undefined);
    await monitor.printed(/KERNEL/);
    await work();
    await machine.sh('udevadm settle');
    monitor.kill();
    return monitor.stdout.split('\n').filter((line) => /^(?:KERNEL|UDEV) *\[/.test(line));
  }

  /** Removes the device from the kernel's view and finds it again. With virtual functions, its removal is a kernel bug. */
  const replug = async () =>
    product().machine.sh(
      `echo 0 > ${attributes}/sriov_numvfs; echo 1 > ${attributes}/remove; udevadm settle; echo 1 > /sys/bus/pci/rescan`,
    );

  const ofVirtual = (events: readonly string[]) =>
    events.filter((line) => all.some((slot) => line.includes(`/${slot}/`)));

  it('are created, and claimed as they appear, without a process and without a disk of the host', async () => {
    const events = await watch(async () => {
      await product().sh('sriov', 'set', pf, '4', '--driver', 'vfio-pci');
    });
    assert.deepEqual(await driversOf(), ['vfio-pci', 'vfio-pci', 'vfio-pci', 'vfio-pci']);
    assert.deepEqual(ofVirtual(events), []);
    await product().untilState(target, 'active');
    assert.ok(await product().wasSkipped(service));
    assert.equal(await logged(), '');
  });

  it('are the same after a reboot', async () => {
    const {machine} = product();
    await machine.reboot();
    await product().untilState(target, 'active');
    await machine.sh('udevadm settle');
    assert.deepEqual(await driversOf(), ['vfio-pci', 'vfio-pci', 'vfio-pci', 'vfio-pci']);
    assert.equal(await product().driverOf(pf), 'nvme');
    assert.ok(await product().wasSkipped(service));
    assert.equal(await logged(), '');
    // Their host driver has not seen them.
    for (const slot of all)
      assert.equal(await machine.sh(`dmesg | grep -F 'nvme ${slot}' || true`), '', slot);
    assert.match(await machine.sh('dmesg'), new RegExp(`pci function ${pf}`));
    const {physical} = await product().json<SriovListResult>('sriov', 'list');
    const one = physical.find(({slot}) => slot === pf);
    assert.equal(one?.state, 'right');
    assert.equal(one.active, 'active');
    assert.deepEqual(
      one.virtual.map(({slot, driver}) => [slot, driver]),
      all.map((slot) => [slot, 'vfio-pci']),
    );
    const tree = await product().sh('list', '--tree');
    for (const slot of all) assert.match(tree, new RegExp(`^ {4}${slot}\t`, 'm'));
  });

  it('are created again when their device was removed and comes back, or returns to its driver', async () => {
    const {machine} = product();
    const events = await watch(async () => {
      await replug();
      for (const slot of all) await product().untilDriver(slot, 'vfio-pci');
    });
    assert.deepEqual(ofVirtual(events), []);
    // The disk of the device itself has come back: the monitor sees such events.
    assert.ok(
      events.some((line) => line.includes(`/${pf}/`)),
      events.join('\n'),
    );
    await product().untilState(target, 'active');
    await product().sh('bind', 'vfio-pci', pf, '--force');
    assert.equal(await machine.sh(`cat ${attributes}/sriov_numvfs`), '0');
    await product().sh('bind', 'default', pf);
    for (const slot of all) await product().untilDriver(slot, 'vfio-pci');
    assert.equal(await logged(), '');
    assert.doesNotMatch(await machine.sh('dmesg'), /kernel BUG|sriov_release/);
  });

  it('are not removed for another number while one is in use, and the refusal says which', async () => {
    const {machine} = product();
    const guest = await machine.start(`exec perl ${CHECKOUT}/test/vm/stuck.pl ${virtual(2)}`);
    guest.exited.catch(() => undefined);
    await guest.printed(/held/);
    const {code, stderr} = await product().run('sriov', 'set', pf, '2', '--driver', 'vfio-pci');
    assert.equal(code, 3, stderr);
    assert.match(stderr, new RegExp(`must first remove all 4, but ${virtual(2)} .* is in use`));
    assert.match(stderr, /\(perl\)/);
    const unset = await product().run('sriov', 'unset', pf);
    assert.equal(unset.code, 3, unset.stderr);
    guest.kill();
    await guest.exited.catch(() => undefined);
    await product().sh('sriov', 'set', pf, '2', '--driver', 'vfio-pci', '--vf', '1:driver=none');
    assert.deepEqual(await driversOf(all.slice(0, 2)), ['vfio-pci', '']);
    assert.equal(await product().overrideOf(virtual(1)), 'none');
    assert.equal(await machine.sh(`test ! -e /sys/bus/pci/devices/${virtual(2)} && echo gone`), 'gone');
  });

  it('are refused with the reason, or fail with it in the journal of the unit', async () => {
    const {machine} = product();
    const many = await product().run('sriov', 'set', pf, '5');
    assert.equal(many.code, 3);
    assert.match(many.stderr, /at most 4 virtual functions/);
    const other = await product().run('sriov', 'set', DEVICES.disk0.slot, '1');
    assert.equal(other.code, 3);
    assert.match(other.stderr, /has no SR-IOV/);
    await machine.sh('chmod o+w /etc/pearasys/sriov/*');
    await replug();
    await product().untilState(service, 'failed');
    assert.match(await product().journalOf(service), /is writable by others: chmod go-w/);
    assert.equal(await machine.sh(`cat ${attributes}/sriov_numvfs`), '0');
    await machine.sh('chmod o-w /etc/pearasys/sriov/*');
    await machine.sh(`systemctl start ${target}`);
    assert.equal(await product().driverOf(virtual(0)), 'vfio-pci');
  });

  it('are open to their users, but not those of a card with another record', async () => {
    const {machine} = product();
    await product().sh('sriov', 'set', pf, '2', '--driver', 'vfio-pci', '--user', 'daemon');
    const owner = async () => {
      const group = await machine.sh(`basename $(readlink /sys/bus/pci/devices/${virtual(0)}/iommu_group)`);
      return machine.sh(`stat -c '%U %a' /dev/vfio/${group}`);
    };
    const owned = async () => {
      await machine.sh('udevadm settle');
      return owner();
    };
    assert.equal(await owned(), 'daemon 660');
    await replug();
    for (const slot of all.slice(0, 2)) await product().untilDriver(slot, 'vfio-pci');
    assert.equal(await owned(), 'daemon 660');
    const copies = `/run/pearasys/vfs/${virtual(0)}-*`;
    for (const [record, expected] of [
      ['other', 'root 600'],
      [`${pf}-`, 'daemon 660'],
    ] as const) {
      await machine.sh(
        `cp ${copies} /run/copy; ${record === 'other' ? `sed -i s/RECORD=.*/RECORD=other/ ${copies};` : ''}` +
          ' chown root /dev/vfio/[0-9]*; chmod 600 /dev/vfio/[0-9]*; udevadm trigger --action=add --subsystem-match=vfio --settle;' +
          ` cat /run/copy > $(echo ${copies}); rm /run/copy`,
      );
      assert.equal(await owner(), expected, record);
    }
    await product().sh('sriov', 'set', pf, '2', '--driver', 'vfio-pci', '--user=');
    assert.equal(await owned(), 'root 600');
  });

  it('are gone after unset, also when their device comes back', async () => {
    const {machine} = product();
    await product().sh('sriov', 'unset', pf);
    assert.equal(
      await machine.sh(`cat ${attributes}/sriov_numvfs ${attributes}/sriov_drivers_autoprobe`),
      '0\n1',
    );
    await product().untilState(target, 'inactive');
    assert.equal(await machine.sh('ls /etc/pearasys/sriov /run/pearasys/vfs 2>/dev/null || true'), '');
    await replug();
    await product().untilDriver(pf, 'nvme');
    await machine.sh('udevadm settle');
    assert.equal(await machine.sh(`cat ${attributes}/sriov_numvfs`), '0');
  });

  it('get MAC addresses from a .link file before they are claimed, if QEMU has a network card with SR-IOV', async function () {
    const {stdout} = spawnSync('qemu-system-x86_64', ['-device', 'help'], {encoding: 'utf8'});
    if (!stdout.includes('name "igb"')) this.skip();
    const {machine} = product();
    const port = machine.ports.take();
    await port.plug('igb');
    await product().untilDriver(port.slot, 'igb');
    const address = '52:54:00:aa:00:01';
    await machine.writeFile(
      '/etc/systemd/network/10-sriov.link',
      `[Match]\nPath=pci-${port.slot}\n[Link]\nNamePolicy=keep kernel database onboard slot path\nSR-IOVVirtualFunctions=2\n` +
        `[SR-IOV]\nVirtualFunction=1\nMACAddress=${address}\n`,
    );
    try {
      await product().sh('sriov', 'set', port.slot, '2', '--driver', 'vfio-pci');
      const shown = async () => machine.sh(`ip link show dev $(ls /sys/bus/pci/devices/${port.slot}/net)`);
      assert.match(await shown(), new RegExp(`vf 1 +link/ether ${address}`));
      await port.unplug();
      await port.plug('igb');
      await product().untilState(`pearasys-sriov@${port.slot}.target`, 'active');
      assert.match(await shown(), new RegExp(`vf 1 +link/ether ${address}`));
      const slots = await machine.sh(
        `cd /sys/bus/pci/devices/${port.slot}; for vf in virtfn*; do basename $(readlink $vf); done`,
      );
      for (const slot of slots.split('\n')) await product().untilDriver(slot, 'vfio-pci');
      assert.equal(await logged(), '');
      await product().sh('sriov', 'unset', port.slot);
    } finally {
      await machine.sh('rm /etc/systemd/network/10-sriov.link');
    }
  });
});
