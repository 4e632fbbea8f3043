/** What disks carry, as blkid(8) tells it. */
import assert from 'node:assert/strict';
import {readDevice} from '../../src/devices/pci/device.js';
import {parseSlot} from '../../src/devices/pci/slot.js';
import {describeContents, readContents, readDisks} from '../../src/usage/contents.js';
import type {MachineDeclaration} from '../simulated-host/declaration.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {functionOf} from '../simulated-host/standard-machine.js';

const spare = parseSlot('0000:04:00.0');
const node = '/dev/nvme1n1';

describe('what a disk carries', () => {
  const hosts: SimulatedHost[] = [];
  afterEach(() => {
    for (const host of hosts.splice(0)) host.dispose();
  });

  function made(tweak?: (machine: MachineDeclaration) => void): SimulatedHost {
    const host = SimulatedHost.standard(tweak);
    hosts.push(host);
    return host;
  }

  async function contentsOf(host: SimulatedHost) {
    const device = readDevice(host, spare);
    assert.ok(device);
    const [found, ...more] = await readContents(host, readDisks(host, [device]));
    assert.deepEqual(more, []);
    assert.ok(found);
    assert.equal(found.node, node);
    assert.deepEqual(found.slots, [spare]);
    return found;
  }

  const signed =
    (values: Record<string, string> | 'ambiguous' | 'unreadable') => (machine: MachineDeclaration) => {
      machine.signatures = {[node]: values};
    };

  it('is nothing if libblkid finds nothing', async () => {
    const found = await contentsOf(made());
    assert.deepEqual(found.contents, {kind: 'blank'});
    assert.equal(describeContents(found), undefined);
  });

  for (const [values, text] of [
    [{PTUUID: 'x', PTTYPE: 'gpt'}, 'carries a partition table (gpt)'],
    [{TYPE: 'ext4', USAGE: 'filesystem', UUID: 'x'}, 'carries a file system (ext4)'],
    [{TYPE: 'LVM2_member', USAGE: 'raid'}, 'carries a part of RAID, LVM or ZFS (LVM2_member)'],
    [{TYPE: 'zfs_member', USAGE: 'raid'}, 'carries a part of RAID, LVM or ZFS (zfs_member)'],
    [{TYPE: 'crypto_LUKS', USAGE: 'crypto'}, 'carries encrypted data (crypto_LUKS)'],
    [{TYPE: 'swap', USAGE: 'other'}, 'carries data (swap)'],
    [
      {TYPE: 'iso9660', USAGE: 'filesystem', PTTYPE: 'dos'},
      'carries a partition table (dos) and a file system (iso9660)',
    ],
    ['ambiguous', 'carries several signatures'],
  ] as const)
    it(`is found: ${text}`, async () => {
      const found = await contentsOf(made(signed(values)));
      assert.equal(found.contents.kind, 'data');
      assert.equal(describeContents(found), `${node} ${text}`);
    });

  it('is a partition table if the kernel knows partitions', async () => {
    const host = made((machine) => {
      const {nvme} = functionOf(machine, spare);
      if (nvme !== undefined) nvme.partitions = [{}];
    });
    assert.equal(describeContents(await contentsOf(host)), `${node} carries a partition table`);
  });

  describe('is not known, which is not the same as blank', () => {
    const unknown = async (host: SimulatedHost, reason: RegExp) => {
      const {contents} = await contentsOf(host);
      assert.match(contents.kind === 'unknown' ? contents.reason : contents.kind, reason);
    };

    it('if the disk cannot be read: blkid is silent about that', () =>
      unknown(made(signed('unreadable')), /cannot be read/));

    const mebibyte = 1024 ** 2;
    /** A disk of 64 MiB with one sector that cannot be read. */
    const damagedAt = (at: number) =>
      made((machine) => {
        machine.damaged = {[node]: at};
        const {nvme} = functionOf(machine, spare);
        if (nvme !== undefined) nvme.size = (64 * mebibyte) / 512;
      });

    for (const [place, at] of [
      ['where LUKS has its last header', 4 * mebibyte],
      ['where RAID controllers keep theirs', 64 * mebibyte - 3087 * 512],
      ['at the end', 64 * mebibyte - 512],
    ] as const)
      it(`if a sector cannot be read ${place}: blkid is silent about that`, () =>
        unknown(damagedAt(at), /cannot be read/));

    it('but a sector that no signature can be in does not count', async () => {
      const {contents} = await contentsOf(damagedAt(32 * mebibyte));
      assert.deepEqual(contents, {kind: 'blank'});
    });

    it('if a sector of a small disk cannot be read', async () => {
      const host = made((machine) => {
        machine.damaged = {[node]: 3 * mebibyte};
        const {nvme} = functionOf(machine, spare);
        if (nvme !== undefined) nvme.size = (4 * mebibyte) / 512;
      });
      await unknown(host, /cannot be read/);
    });

    it('if there is no blkid', async () => {
      const host = made();
      host.failCommand(/^blkid /, 127, 'not found');
      await unknown(host, /blkid ended with exit code 127|not found/);
    });

    it('without root', async () => {
      const host = made();
      host.userId = 1000;
      await unknown(host, /only root/);
    });

    it('if its node is missing: blkid exits as for a blank disk', async () => {
      const host = made();
      host.machine.tree.nodes.delete(node);
      await unknown(host, /is not its node/);
    });

    it('if the disk has no size yet', async () => {
      const host = made((machine) => {
        const {nvme} = functionOf(machine, spare);
        if (nvme !== undefined) nvme.size = 0;
      });
      await unknown(host, /no size yet/);
    });
  });
});
