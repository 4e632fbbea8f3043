/** Devices for programs on a real kernel: which disks are taken, and whether other tools see the same. */
import assert from 'node:assert/strict';
import type {UserspaceStatusResult} from '../../src/entry/cli/commands/userspace/status.js';
import type {UserspaceResult} from '../../src/entry/cli/userspace.js';
import {devbindStatus} from './devbind.js';
import {DEVICES} from './devices.js';
import {withProduct} from './shared.js';
import {encryptedVolume, guidTable, physicalVolume, raidMember} from './signatures.js';

/** dpdk-devbind.py's names of types, and its words for them. */
const devbindTypes: Readonly<Record<string, string>> = {
  net: 'Network',
  baseband: 'Baseband',
  crypto: 'Crypto',
  dma: 'DMA',
  event: 'Eventdev',
  mempool: 'Mempool',
  compress: 'Compress',
  misc: 'Misc',
  regex: 'Regex',
  ml: 'ML',
};

describe('userspace on a real kernel', function () {
  const product = withProduct(this);
  const {disk0, disk1, network, spareNetwork} = DEVICES;

  const diskOf = (slot: string) =>
    product().machine.sh(`cd /sys/bus/pci/devices/${slot}/nvme/nvme*/ && ls -d nvme*n1`);
  const statusOf = async (...words: string[]) =>
    (await product().json<UserspaceStatusResult>('userspace', 'status', ...words)).devices;
  const config = (...words: string[]) => product().json<UserspaceResult>('userspace', 'config', ...words);
  const reset = (...words: string[]) => product().json<UserspaceResult>('userspace', 'reset', ...words);
  const reasonsOf = async (slot: string) => {
    const [device] = await statusOf(slot);
    return device?.skipped?.reasons ?? [];
  };

  /** Writes the beginning of the disk, the rest of which is empty. */
  async function fill(slot: string, beginning: Buffer): Promise<string> {
    const {machine} = product();
    const disk = await diskOf(slot);
    await machine.writeFile('/tmp/beginning', beginning);
    await machine.sh(
      `dd if=/dev/zero of=/dev/${disk} bs=1M count=4 conv=fsync status=none && ` +
        `dd if=/tmp/beginning of=/dev/${disk} bs=4k conv=fsync status=none && udevadm settle`,
    );
    return disk;
  }

  afterEach(async () => {
    const {machine} = product();
    await machine.run('umount /mnt/data; rmdir /mnt/data');
    await reset(disk0.slot, disk1.slot, spareNetwork.slot);
    await fill(disk0.slot, Buffer.alloc(4096));
    await fill(disk1.slot, Buffer.alloc(4096));
  });

  it('takes a blank disk, and returns it when its disk is there again', async () => {
    const {machine} = product();
    const disk = await diskOf(disk1.slot);
    assert.deepEqual(await reasonsOf(disk1.slot), []);
    const taken = await config(disk1.slot);
    assert.deepEqual(taken.skipped, []);
    assert.equal(await product().driverOf(disk1.slot), 'vfio-pci');
    const [device] = await statusOf(disk1.slot);
    assert.deepEqual([device?.state, device?.driver, device?.disks], ['userspace', 'vfio-pci', []]);
    const returned = await reset();
    assert.deepEqual(returned.notes, []);
    assert.equal(await product().driverOf(disk1.slot), 'nvme');
    // At once, without a wait.
    const number = await machine.sh(`cat /sys/block/${disk}/dev`);
    await machine.sh(`test -b /dev/${disk} && test -e /run/udev/data/b${number}`);
  });

  it('skips a disk with data of each kind; --take takes it', async () => {
    const {machine} = product();
    const sectors = Number(await machine.sh(`cat /sys/block/${await diskOf(disk1.slot)}/size`));
    for (const [beginning, expected] of [
      [guidTable(sectors), 'a partition table (gpt)'],
      [physicalVolume(), 'a part of RAID, LVM or ZFS (LVM2_member)'],
      [raidMember(), 'a part of RAID, LVM or ZFS (linux_raid_member)'],
      [encryptedVolume(), 'encrypted data (crypto_LUKS)'],
    ] as const) {
      const disk = await fill(disk1.slot, beginning);
      assert.deepEqual(await reasonsOf(disk1.slot), [`/dev/${disk} carries ${expected}`]);
    }
    const refused = await product().run('userspace', 'config', disk1.slot);
    assert.equal(refused.code, 3);
    assert.match(refused.stderr, new RegExp(`carries encrypted data.*\n.*\n.*--take ${disk1.slot}`));
    assert.equal(await product().driverOf(disk1.slot), 'nvme');
    await config(disk0.slot, disk1.slot, '--take', disk1.slot);
    assert.equal(await product().driverOf(disk0.slot), 'vfio-pci');
    assert.equal(await product().driverOf(disk1.slot), 'vfio-pci');
  });

  it('skips a file system; one that is mounted is not taken by --take either', async () => {
    const {machine} = product();
    const disk = await diskOf(disk1.slot);
    await machine.sh(`mkfs.ext4 -q /dev/${disk} && udevadm settle && mkdir -p /mnt/data`);
    assert.deepEqual(await reasonsOf(disk1.slot), [`/dev/${disk} carries a file system (ext4)`]);
    const both = await config(disk0.slot, disk1.slot);
    assert.deepEqual(
      both.skipped.map(({slot, code}) => [slot, code]),
      [[disk1.slot, 'carries-data']],
    );
    assert.equal(await product().driverOf(disk0.slot), 'vfio-pci');
    await machine.sh(`mount /dev/${disk} /mnt/data`);
    assert.deepEqual(await reasonsOf(disk1.slot), [`/dev/${disk} is mounted at /mnt/data`]);
    const {code, stderr} = await product().run('userspace', 'config', disk1.slot, '--take', disk1.slot);
    assert.equal(code, 3, stderr);
    assert.match(stderr, /is mounted at \/mnt\/data\n/);
  });

  it('skips an empty disk with a bad sector where a signature can be', async () => {
    const {machine} = product();
    const port = machine.ports.take();
    const damaged = 'damaged';
    // LUKS has its last header at 4 MiB.
    await machine.monitor('blockdev-add', {
      'node-name': damaged,
      driver: 'blkdebug',
      image: port.place.drive,
      'inject-error': [{event: 'none', iotype: 'read', sector: 8192, errno: 5}],
    });
    try {
      await port.plug('nvme', {drive: damaged});
      const disk = await diskOf(port.slot);
      await product().untilDriver(port.slot, 'nvme');
      const blkid = await machine.run(`blkid -p /dev/${disk}`);
      assert.deepEqual([blkid.code, blkid.stderr], [2, '']);
      assert.deepEqual(await reasonsOf(port.slot), [
        `/dev/${disk} could not be searched for data: it cannot be read`,
      ]);
    } finally {
      await port.unplug();
      await machine.monitor('blockdev-del', {'node-name': damaged});
    }
  });

  it('gives the mounted huge pages to the user of the devices', async () => {
    const {machine} = product();
    const owner = () => machine.sh('stat -c "%U %G %a" /dev/hugepages');
    await machine.sh('findmnt -t hugetlbfs /dev/hugepages');
    assert.equal(await owner(), 'root root 755');
    try {
      await config(disk1.slot, '--user', 'nobody');
      assert.equal(await owner(), 'nobody root 775');
    } finally {
      await machine.sh('chown root /dev/hugepages && chmod 0755 /dev/hugepages');
    }
  });

  it('of twins takes the one that is not in use; PCI_BLOCKED wins', async () => {
    const {machine} = product();
    await machine.sh('ip link set enp0s6 up && ip address add 10.0.2.15/24 dev enp0s6');
    try {
      const blocked = await machine.run(
        `PCI_BLOCKED=${spareNetwork.slot} pearasys userspace config ${network.slot} ${spareNetwork.slot}`,
      );
      assert.equal(blocked.code, 3);
      assert.match(blocked.stderr, /PCI_BLOCKED names it/);
      const result = await config(network.slot, spareNetwork.slot);
      assert.deepEqual(
        result.skipped.map(({slot, code}) => [slot, code]),
        [[network.slot, 'in-use']],
      );
      assert.equal(await product().driverOf(network.slot), 'e1000e');
      assert.equal(await product().driverOf(spareNetwork.slot), 'vfio-pci');
      const returned = await reset(spareNetwork.slot);
      assert.deepEqual(returned.notes, []);
      await machine.sh(`ls /sys/bus/pci/devices/${spareNetwork.slot}/net/`);
    } finally {
      await machine.sh('ip address flush dev enp0s6; ip link set enp0s6 down');
    }
  });

  it('sees the same devices in the same states as dpdk-devbind.py and SPDK', async () => {
    const {machine} = product();
    await config(disk1.slot, spareNetwork.slot);
    await machine.sh(`pearasys unbind ${DEVICES.legacy1.slot}`);
    try {
      const devices = await statusOf();
      const lspci = await machine.sh('lspci -Dvmmnnk');
      const routes = await machine.sh('ip -o route');
      const theirs = devbindStatus({lspci, routes});
      for (const [type, words] of Object.entries(devbindTypes)) {
        const ours = devices
          .filter(({types}) => types.includes(type))
          .map(({slot, state, driver}) => [slot, state, driver ?? undefined]);
        const same = theirs
          .filter((device) => device.type === words)
          .map(({slot, state, driver}) => [slot, state, driver])
          .sort();
        assert.deepEqual(ours, same, type);
      }
      assert.deepEqual(
        ['userspace', 'kernel', 'unused'].map((state) => theirs.some((device) => device.state === state)),
        [true, true, true],
      );
      // Its status lists the NVMe controllers and virtio disks by slot, with driver, controller and disks.
      const spdk = await machine.sh(`
        for slot in $(ls /sys/bus/pci/devices | sort); do
          folder=/sys/bus/pci/devices/$slot
          case $(cat $folder/class):$(cat $folder/vendor):$(cat $folder/device) in
            0x010802:*) kind=nvme ;;
            *:0x1af4:0x1001|*:0x1af4:0x1042|*:0x1af4:0x1004|*:0x1af4:0x1048) kind=virtio ;;
            *) continue ;;
          esac
          driver=-
          [ ! -e $folder/driver ] || driver=$(basename $(readlink $folder/driver))
          disks=$(find $folder/ -path '*n1' -name 'nvme*n1' -printf '%f ' -o -path '*/block/vd*' -prune -printf '%f ')
          echo $kind $slot $driver $disks
        done`);
      assert.deepEqual(
        devices
          .filter(({kind}) => kind !== null)
          .map(({kind, slot, driver, disks}) =>
            [kind, slot, driver ?? '-', ...(slot === DEVICES.sriov.slot ? [] : disks)].join(' '),
          ),
        // A multipath disk is not below its controller: SPDK has another name for it.
        spdk
          .split('\n')
          .map((line) => (line.includes(DEVICES.sriov.slot) ? line.split(' ').slice(0, 3).join(' ') : line)),
      );
    } finally {
      await product().sh('bind', 'default', DEVICES.legacy1.slot);
    }
  });
});
