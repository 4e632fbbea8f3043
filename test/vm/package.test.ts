/**
 * The Debian packages on a machine without pearasys: installed, used, upgraded, downgraded, removed and purged. After
 * that, on the same machine but without Node, the tarball that brings its own.
 */
import assert from 'node:assert/strict';
import {mkdtemp, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import path from 'node:path';
import {execa} from 'execa';
import {DEVICES} from './devices.js';
import {BOOT_LIMIT, CHECKOUT, explainFailures, Machine, skipUnlessAvailable} from './machine.js';
import {changedFiles, closeShared, listFiles, Product} from './shared.js';

const {disk1, spareNetwork} = DEVICES;
const claimed = `pearasys-${disk1.slot}@vfio-pci.service`;
const guest = 'pearasys-guest@g.service';
/** The version before the one that is built now, and that one. */
const versions = ['0.0.1', '0.1.0'] as const;

describe('packages on a real machine', function () {
  this.timeout(600_000);
  let machine: Machine;
  let product: Product;
  let folder: string | undefined;
  let closing: (() => Promise<void>) | undefined;

  before(async function () {
    this.timeout(BOOT_LIMIT);
    await skipUnlessAvailable(this);
    await closeShared();
    folder = await mkdtemp(path.join(tmpdir(), 'pearasys-packages-'));
    for (const version of versions) await execa('make', ['deb', `packages=${folder}`, `version=${version}`]);
    await execa('make', ['dist', `packages=${folder}`, `version=${versions[1]}`]);
    machine = await Machine.boot({shares: {packages: folder}});
    closing = () => machine.close();
    product = new Product(machine);
    await listFiles(machine);
  });
  after(async () => {
    await closing?.();
    if (folder !== undefined) await rm(folder, {recursive: true});
  });
  explainFailures(() => machine);

  const apt = (words: string) => machine.sh(`DEBIAN_FRONTEND=noninteractive apt-get --yes --quiet ${words}`);
  const file = (name: string, version: string) => `/mnt/packages/${name}_${version}_all.deb`;
  /** What tells whether a unit was started, stopped or restarted, and a device has left its driver. */
  const states = async () =>
    machine.sh(
      `systemctl show --property=Id,ActiveState,InvocationID,StateChangeTimestampMonotonic ${claimed} ${guest}; readlink /sys/bus/pci/devices/${disk1.slot}/driver /sys/bus/pci/devices/${spareNetwork.slot}/driver`,
    );

  describe('for Debian', () => {
    it('install with the Node of the distribution, and enable nothing', async () => {
      await apt(`install ${file('pearasys', versions[0])}`);
      assert.match(await product.sh('list'), new RegExp(`^${disk1.slot}\t`, 'm'));
      assert.equal(await machine.sh('systemctl list-units --no-legend --all "pearasys-*@*"'), '');
      assert.match(await machine.sh('sh -x /usr/sbin/pearasys list 2>&1'), /^\+ exec .* --snapshot-blob /m);
      assert.equal(await machine.sh('stat --format="%a %U" /run/pearasys'), '755 root');
      assert.equal(await machine.sh('systemctl --failed --no-legend'), '');
    });

    /**
     * Does something while /usr cannot be changed.
     * @param spoil what is done to the caches before; they are kept in /var/tmp.
     * @param seal makes it so. Unmounted lazily: what was started since then has files of it open.
     */
    const sealed = async (spoil: string, seal: string, unseal: string, work: () => Promise<void>) => {
      await machine.sh(`set -e; cp -a /usr/lib/pearasys/cache /var/tmp/cache; ${spoil}; ${seal}`);
      try {
        assert.match((await machine.run('touch /usr/x')).stderr, /Read-only file system/);
        await work();
      } finally {
        await machine.sh(
          `set -e; ${unseal}; umount --lazy /usr; rm -rf /usr/lib/pearasys/cache; mv /var/tmp/cache /usr/lib/pearasys/cache`,
        );
      }
    };

    it('claim a device, and return it, with a read-only /usr and without caches', async () => {
      const {slot} = spareNetwork;
      const seal = 'mount --bind /usr /usr; mount -o remount,bind,ro /usr';
      await sealed('rm -r /usr/lib/pearasys/cache', seal, 'true', async () => {
        await product.sh('-s', slot, 'service', 'install', 'vfio-pci', '--now');
        assert.equal(await product.stateOf(`pearasys-${slot}@vfio-pci.service`), 'active');
        await product.sh('-s', slot, 'service', 'uninstall');
        await product.sh('bind', 'default', slot);
        assert.equal(await product.driverOf(slot), 'e1000e');
      });
    });

    it('write hooks, give a guest its device, and report, with /usr from an image and stale caches', async () => {
      const {slot} = spareNetwork;
      const spoil =
        'sed -i "1s/^/other /" /usr/lib/pearasys/cache/snapshot-of; for each in /usr/lib/pearasys/cache/*.cache; do [ ! -e $each ] || echo stale >$each; done';
      // The root folder itself is immutable, as that of rpm-ostree.
      const seal =
        'mkdir -p /run/empty; modprobe overlay; mount -t overlay overlay -o lowerdir=/run/empty:/usr /usr; chattr +i /';
      await sealed(spoil, seal, 'chattr -i /', async () => {
        await product.sh('guest', 'setup', 'g', '--device', slot, '--yes');
        await product.sh('guest', 'install-hooks', 'g');
        await machine.sh(`systemctl start ${guest}`);
        assert.equal(await product.driverOf(slot), 'vfio-pci');
        await machine.sh(`systemctl stop ${guest}`);
        assert.equal(await product.driverOf(slot), 'e1000e');
        await product.sh('guest', 'remove-hooks');
        await product.sh('guest', 'remove', 'g');
        const {stdout, stderr} = await product.run('report', '--output', '/root/report.txt');
        assert.deepEqual(
          [stdout.trim(), stderr],
          ['Written to /root/report.txt. Read it before you send it.', ''],
        );
        const text = await machine.sh('cat /root/report.txt; rm /root/report.txt');
        assert.doesNotMatch(text, /^not read: /m);
        assert.match(text, /^(\d+) of \1 files are as they were installed$/m);
        assert.match(text, /^\[ *[\d.]+\] .*pearasys-guest@guest-1/m);
        assert.match(text, new RegExp(`"slot": "${slot}"`));
        const name = await machine.sh('cat /proc/sys/kernel/hostname');
        assert.doesNotMatch(text, new RegExp(`\\b${name}\\b|\\b52:54:00:|pearasys-guest@g\\.`));
      });
    });

    it('pass the test that they have for autopkgtest', async () => {
      await machine.sh(`${CHECKOUT}/packaging/deb/autopkgtest/debian/tests/installed`, {timeout: 300_000});
    });

    it('are upgraded and downgraded without touching a unit or a device', async () => {
      await product.sh('-s', disk1.slot, 'service', 'install', 'vfio-pci', '--now');
      await product.sh('guest', 'setup', 'g', '--device', spareNetwork.slot, '--yes');
      await machine.sh(`systemctl start ${guest}`);
      const before = await states();
      assert.match(before, /drivers\/vfio-pci\n.*drivers\/vfio-pci$/);
      await apt(`install ${file('pearasys', versions[1])}`);
      assert.equal(await machine.sh("dpkg-query --show --showformat='${Version}' pearasys"), versions[1]);
      assert.equal(await states(), before);
      await apt(`install --allow-downgrades ${file('pearasys', versions[0])}`);
      assert.equal(await states(), before);
      await apt(`install ${file('pearasys', versions[1])}`);
      assert.equal(await states(), before);
      await machine.sh(`systemctl stop ${guest}`);
      assert.equal(await product.driverOf(spareNetwork.slot), 'e1000e');
    });

    it('claim at boot', async () => {
      await machine.reboot();
      assert.equal(await product.driverOf(disk1.slot), 'vfio-pci');
      assert.equal(await product.stateOf(claimed), 'active');
    });

    it('do not use the startup snapshot of another Node, and make a new one when Node is upgraded', async () => {
      const used = () =>
        machine.sh('sh -x /usr/sbin/pearasys list 2>&1 | grep -c -e --snapshot-blob || true');
      assert.notEqual(await used(), '0');
      // As dpkg replaces it.
      const library = '$(echo /usr/lib/x86_64-linux-gnu/libnode.so.*)';
      await machine.sh(`cp -a ${library} /root/new && mv /root/new ${library}`);
      assert.equal(await used(), '0');
      await machine.sh('dpkg-trigger --by-package=nodejs /usr/bin/node && dpkg --configure --pending');
      assert.notEqual(await used(), '0');
    });

    it('provide mdevctl and lsmdev', async () => {
      await apt(`install ${file('pearasys-mdevctl', versions[1])}`);
      assert.match(await machine.sh('mdevctl define --help && lsmdev --version'), /^lsmdev /m);
      await apt('purge pearasys-mdevctl');
      await machine.sh('! command -v mdevctl');
    });

    it('keep records when they are removed, and claim again when they are installed again', async () => {
      await apt('remove pearasys');
      assert.equal(await product.driverOf(disk1.slot), 'vfio-pci');
      await machine.reboot();
      assert.equal(await product.driverOf(disk1.slot), 'nvme');
      assert.equal(await machine.sh('systemctl --failed --no-legend'), '');
      await apt(`install ${file('pearasys', versions[1])}`);
      await machine.reboot();
      assert.equal(await product.driverOf(disk1.slot), 'vfio-pci');
    });

    it('leave nothing after a purge', async () => {
      assert.match(await apt('purge pearasys 2>&1'), /devices stay on their present drivers/);
      assert.equal(await changedFiles(machine), '');
      assert.equal(await product.driverOf(disk1.slot), 'vfio-pci');
      await machine.reboot();
      assert.equal(await product.driverOf(disk1.slot), 'nvme');
      assert.equal(await machine.sh('systemctl --failed --no-legend'), '');
    });
  });

  describe('with their own Node', () => {
    const script = `pearasys-${versions[1]}-linux-x64/install.sh`;

    it('install on a machine without Node and without a network', async () => {
      await apt('purge --autoremove nodejs');
      // The test machine's own wrapper.
      await machine.sh('rm /usr/local/bin/node; ! command -v node; ! ls /usr/lib/*/libnode*');
      assert.equal(await machine.sh('ip route'), '');
      await listFiles(machine);
      await machine.sh(
        `cd /var/tmp && tar -xzf /mnt/packages/pearasys-${versions[1]}-linux-x64.tar.gz && ${script}`,
      );
      assert.match(await product.sh('list'), new RegExp(`^${disk1.slot}\t`, 'm'));
      assert.equal(await machine.sh('systemctl list-units --no-legend --all "pearasys-*@*"'), '');
      assert.equal(await machine.sh('ls /usr/local/lib/pearasys/cache/*.cache | wc -l'), '1');
    });

    it('are upgraded without touching a unit or a device', async () => {
      await product.sh('-s', disk1.slot, 'service', 'install', 'vfio-pci', '--now');
      const before = await states();
      assert.match(before, /ActiveState=active[^]*drivers\/vfio-pci\n/);
      await machine.sh(`/var/tmp/${script}`);
      assert.equal(await states(), before);
    });

    it('claim at boot', async () => {
      await machine.reboot();
      assert.equal(await product.driverOf(disk1.slot), 'vfio-pci');
      assert.equal(await product.stateOf(claimed), 'active');
    });

    it('leave nothing after a purge, and touch no device', async () => {
      await machine.sh('/usr/local/libexec/pearasys/install.sh --purge');
      assert.equal(await changedFiles(machine), '');
      assert.equal(await product.driverOf(disk1.slot), 'vfio-pci');
      assert.equal(await machine.sh('systemctl --failed --no-legend'), '');
    });
  });
});
