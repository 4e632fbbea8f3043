/** Who may open claimed devices, on a real kernel; new_id, remove_id and no-IOMMU mode. */
import assert from 'node:assert/strict';
import {DEVICES} from './devices.js';
import {chosenSuite} from './image.js';
import {installProduct} from './install.js';
import {KeptDisk} from './kept-disk.js';
import {
  BOOT_LIMIT,
  CHECKOUT,
  explainFailures,
  skipUnlessAvailable,
  type Machine,
  type Result,
} from './machine.js';
import {closeShared, Product} from './shared.js';

const vfio = 'vfio-pci';
const unitOf = (slot: string): string => `pearasys-${slot}@${vfio}.service`;

describe('who may open a device on a real kernel', function () {
  this.timeout(400_000);
  let disk: KeptDisk;
  let machine: Machine;
  let product: Product;
  const {edu0, edu1, legacy0, legacy1, spareNetwork} = DEVICES;
  /** The card that has other slots when buses are renumbered. */
  const card = 'e1000e,bus=hotplug2,mac=52:54:00:aa:00:01,romfile=';
  const firstSlot = '0000:08:00.0';

  before(async function () {
    this.timeout(BOOT_LIMIT);
    const recipe = {suite: chosenSuite()};
    await skipUnlessAvailable(this, recipe);
    await closeShared();
    disk = await KeptDisk.create(recipe);
    await boot();
    await installProduct(machine);
    await machine.sh(`for user in alice bob carol; do useradd $user; done
groupadd --system vfio
usermod --append --groups vfio carol
install -m 755 ${CHECKOUT}/test/vm/open.pl /usr/local/bin/open.pl`);
  });
  after(async () => {
    await (machine as Machine | undefined)?.close();
    await (disk as KeptDisk | undefined)?.remove();
  });
  explainFailures(() => machine);

  /** Starts the machine with further devices, as for QEMU. */
  async function boot(devices: readonly string[] = [], kernelParameters = ''): Promise<void> {
    machine = await disk.boot({extraDevices: [...devices, card], kernelParameters});
    product = new Product(machine);
  }

  async function reboot(...how: Parameters<typeof boot>): Promise<void> {
    await machine.sh('sync');
    await machine.close();
    await boot(...how);
  }

  /** Opens the device as a user does, without root. */
  const openAs = (user: string, slot: string): Promise<Result> =>
    machine.run(
      `setpriv --reuid=${user} --regid=${user} --init-groups --inh-caps=-all /usr/local/bin/open.pl ${slot}`,
    );

  async function assertOpens(user: string, slot: string): Promise<void> {
    const {stdout, stderr} = await openAs(user, slot);
    assert.equal(stdout + stderr, 'mapped\n', `${user} ${slot}`);
  }

  async function assertDenied(user: string, slot: string): Promise<void> {
    const {stdout, stderr} = await openAs(user, slot);
    assert.match(stdout + stderr, /^\/dev\/vfio\/(?:noiommu-)?\d+: Permission denied\n$/, `${user} ${slot}`);
  }

  const groupOf = (slot: string) =>
    machine.sh(`basename "$(readlink /sys/bus/pci/devices/${slot}/iommu_group)"`);
  const ownerOf = (path: string) => machine.sh(`stat -c '%U:%G %a' ${path}`);

  it('the user can, and map memory, and members of the group; another user gets EACCES', async () => {
    const words = ['--user', 'alice', '--user-group', 'vfio'];
    const {stderr} = await product.run(
      '-s',
      firstSlot,
      '-s',
      spareNetwork.slot,
      'service',
      'install',
      vfio,
      '--now',
      ...words,
    );
    assert.match(stderr, /user alice may lock \d+ \w+ /);
    for (const slot of [firstSlot, spareNetwork.slot]) {
      assert.equal(await product.driverOf(slot), vfio);
      await assertOpens('alice', slot);
      await assertOpens('carol', slot);
      await assertDenied('bob', slot);
    }
    assert.doesNotMatch(await product.journalOf('systemd-udevd'), /pearasys-access/);
  });

  it('also after a rebind and when the device was removed and found again', async () => {
    const {slot} = spareNetwork;
    await product.sh('bind', 'default', slot);
    await product.sh('bind', vfio, slot);
    await assertOpens('alice', slot);
    await machine.sh(`echo 1 > /sys/bus/pci/devices/${slot}/remove`);
    await machine.sh('echo 1 > /sys/bus/pci/rescan');
    await product.untilState(unitOf(slot), 'active');
    await assertOpens('alice', slot);
    await assertDenied('bob', slot);
  });

  it('also after three boots with other numbers of groups and buses', async () => {
    const groups = new Set([await groupOf(firstSlot)]);
    const [one, other] = ['pci-testdev,addr=7', 'pci-testdev,addr=b'];
    const bridge = 'pcie-pci-bridge,bus=hotplug0';
    for (const [devices, slot] of [
      [[one], firstSlot],
      [[one, other, bridge], '0000:09:00.0'],
      [[other], firstSlot],
    ] as const) {
      await reboot(devices);
      for (const claimed of [slot, spareNetwork.slot]) {
        await product.untilState(unitOf(claimed), 'active');
        assert.equal(await product.driverOf(claimed), vfio, claimed);
      }
      await machine.waitUntil(`grep -qs '^# ${slot} ' /etc/udev/rules.d/61-pearasys-access.rules`);
      await machine.sh('udevadm settle');
      for (const claimed of [slot, spareNetwork.slot]) {
        await assertOpens('alice', claimed);
        await assertOpens('carol', claimed);
        await assertDenied('bob', claimed);
      }
      groups.add(await groupOf(slot));
    }
    assert.ok(groups.size > 2, [...groups].join(' '));
  });

  it('changes at once with `service set`', async () => {
    const {slot} = spareNetwork;
    await product.sh('service', 'set', slot, '--user', 'bob', '--user-group=', '--mode', '0600');
    await assertOpens('bob', slot);
    for (const user of ['alice', 'carol']) await assertDenied(user, slot);
    await machine.sh(`udevadm trigger --action=change --settle /sys/class/vfio/${await groupOf(slot)}`);
    await assertOpens('bob', slot);
    await product.sh('service', 'set', slot, '--user=');
    await assertDenied('bob', slot);
    assert.equal(await ownerOf(`/dev/vfio/${await groupOf(slot)}`), 'root:root 600');
    await product.sh('-s', slot, 'service', 'uninstall');
    await product.sh('bind', 'default', slot);
  });

  it('includes the node of UIO', async () => {
    const {slot} = edu0;
    await product.sh(
      '-s',
      slot,
      'service',
      'install',
      'uio_pci_generic',
      '--user',
      'alice',
      '--mode',
      '600',
      '--now',
    );
    assert.equal(await ownerOf(`/dev/$(ls /sys/bus/pci/devices/${slot}/uio)`), 'alice:root 600');
    await product.sh('-s', slot, 'service', 'uninstall');
  });

  it('is one user for all members of a group', async () => {
    const {stderr} = await product.run('-s', legacy0.slot, 'service', 'install', vfio, '--user', 'alice');
    assert.match(stderr, new RegExp(`users of ${legacy0.slot} .*: .*${legacy1.slot}`));
    const refused = await product.run('-s', legacy1.slot, 'service', 'install', vfio, '--user', 'bob');
    assert.equal(refused.code, 3);
    assert.match(refused.stderr, /in one IOMMU group, which only one user can open/);
    await product.sh('-s', legacy0.slot, 'service', 'uninstall');
  });

  describe('new_id', () => {
    it('says which twin the driver takes too, and takes none without --force', async () => {
      const {code, stderr} = await product.run('driver', 'new-id', vfio, edu0.slot);
      assert.equal(code, 3);
      assert.match(
        stderr,
        new RegExp(`${vfio} takes ${edu1.slot} too: it has the same id ${edu0.id} and no driver`),
      );
      assert.equal(await product.driverOf(edu0.slot), '');
    });

    it('takes both, and remove_id leaves them there until they are unbound', async () => {
      await product.sh('driver', 'new-id', vfio, edu0.id, '--force');
      for (const {slot} of [edu0, edu1]) assert.equal(await product.driverOf(slot), vfio);
      const {code, stderr} = await product.run('driver', 'remove-id', vfio, edu0.slot);
      assert.equal(code, 3);
      assert.match(stderr, new RegExp(`${edu1.slot} has the same id ${edu0.id}: it stays on ${vfio}`));
      await product.sh('driver', 'remove-id', vfio, edu0.id, '--force');
      for (const {slot} of [edu0, edu1]) {
        assert.equal(await product.driverOf(slot), vfio);
        await machine.sh(
          `echo ${slot} > /sys/bus/pci/drivers/${vfio}/unbind; echo ${slot} > /sys/bus/pci/drivers_probe`,
        );
        assert.equal(await product.driverOf(slot), '');
      }
      const again = await product.run('driver', 'remove-id', vfio, edu0.id, '--force');
      assert.equal(again.code, 1);
      assert.match(again.stderr, /only ids that were added can be removed/);
    });

    it('takes only the device that has no other override', async () => {
      await product.sh('bind', 'none', edu1.slot);
      await product.sh('driver', 'new-id', vfio, edu0.slot);
      assert.equal(await product.driverOf(edu0.slot), vfio);
      assert.equal(await product.driverOf(edu1.slot), '');
      await product.sh('driver', 'remove-id', vfio, edu0.slot);
      await machine.sh(`echo ${edu0.slot} > /sys/bus/pci/drivers/${vfio}/unbind`);
      await product.sh('bind', 'default', edu1.slot);
    });
  });

  describe('no-IOMMU mode', () => {
    const parameter = '/sys/module/vfio/parameters/enable_unsafe_noiommu_mode';
    const {slot, id} = edu0;
    /** Debian's kernels are built without the mode. */
    const hasMode = async () => (await machine.run(`modprobe vfio && test -e ${parameter}`)).code === 0;

    it('is refused by a kernel without it, and nothing is changed', async function () {
      if (await hasMode()) this.skip();
      const {code, stderr} = await product.run('driver', 'no-iommu', 'on', '--permanent', '--force');
      assert.equal(code, 3);
      assert.match(stderr, /this kernel has no no-IOMMU mode \(CONFIG_VFIO_NOIOMMU is not set\)/);
      assert.match(await product.sh('driver', 'no-iommu'), /^this kernel has no no-IOMMU mode\n/);
      assert.equal(await machine.sh('ls /etc/modprobe.d/pearasys* 2>/dev/null || true'), '');
    });

    it('is on at each boot, and only a user with CAP_SYS_RAWIO opens the device', async function () {
      if (!(await hasMode())) this.skip();
      await reboot([], 'intel_iommu=off');
      const refused = await product.run('driver', 'no-iommu', 'on');
      assert.equal(refused.code, 3);
      assert.match(refused.stderr, new RegExp(`${slot} \\(${id}\\) has no IOMMU group`));
      assert.equal((await product.run('bind', vfio, slot)).code, 3);
      await product.sh('driver', 'no-iommu', 'on', '--permanent', '--force');
      await product.sh('-s', slot, 'service', 'install', vfio, '--user', 'alice');
      await reboot([], 'intel_iommu=off');
      await product.untilState(unitOf(slot), 'active');
      assert.equal(await machine.sh(`cat ${parameter}`), 'Y');
      const node = `/dev/vfio/noiommu-${await groupOf(slot)}`;
      await machine.sh('udevadm settle');
      assert.equal(await ownerOf(node), 'alice:root 660');
      await assertDenied('bob', slot);
      assert.equal((await openAs('alice', slot)).stderr, `${node}: Operation not permitted\n`);
      assert.equal(await machine.sh(`/usr/local/bin/open.pl ${slot}`), 'opened');
      await product.sh('driver', 'no-iommu', 'off', '--force');
      assert.equal(await machine.sh(`cat ${parameter}`), 'N');
      assert.equal((await product.run('bind', vfio, edu1.slot)).code, 3);
    });
  });
});
