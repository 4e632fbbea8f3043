/** What `make install` puts on a machine and `make uninstall` takes away again, and how its units are confined. */
import assert from 'node:assert/strict';
import {DEVICES} from './devices.js';
import {installProduct} from './install.js';
import {changedFiles, withProduct} from './shared.js';

describe('set-up on a real machine', function () {
  const product = withProduct(this);
  const {disk1} = DEVICES;
  const unit = `pearasys-${disk1.slot}@vfio-pci.service`;

  it('has units that systemd finds well confined', async () => {
    const {machine} = product();
    await product().sh('-s', disk1.slot, 'service', 'install', 'vfio-pci');
    for (const one of [unit, `pearasys-record@${disk1.slot}.service`]) {
      const report = await machine.sh(`systemd-analyze security --no-pager ${one}`);
      const [, exposure = ''] = /Overall exposure level for \S+: (\d+\.\d)/.exec(report) ?? [];
      // 9.6 is a service without any confinement; a driver cannot be changed without what is left here.
      assert.ok(Number(exposure) > 0 && Number(exposure) < 5, report);
    }
    await product().sh('-s', disk1.slot, 'service', 'uninstall');
  });

  it('puts units into the folder of --prefix, and takes them from there', async () => {
    const {machine} = product();
    const prefix = '/opt/units';
    const printed = await product().sh(
      '-s',
      disk1.slot,
      'service',
      'install',
      'vfio-pci',
      '--prefix',
      prefix,
    );
    assert.ok(printed.includes(`${prefix}/pearasys-${disk1.slot}@.service`), printed);
    assert.equal(await machine.sh(`systemctl is-enabled ${unit}`), 'enabled');
    await machine.sh(`systemctl start ${unit}`);
    assert.equal(await product().driverOf(disk1.slot), 'vfio-pci');
    const template = `pearasys-${disk1.slot}@.service`;
    assert.equal(await machine.sh(`readlink /etc/systemd/system/${template}`), `${prefix}/${template}`);
    await machine.sh(`systemctl stop ${unit}`);
    await product().sh('-s', disk1.slot, 'service', 'uninstall');
    await machine.sh(`test ! -e ${prefix}`);
    assert.equal(await changedFiles(machine, '/etc/systemd'), '');
    await product().sh('bind', 'default', disk1.slot);
    assert.equal(await product().driverOf(disk1.slot), 'nvme');
  });

  describe('make uninstall', () => {
    // Whichever suite comes next finds the product where it was.
    after(async () => {
      await installProduct(product().machine);
      await product().sh('bind', 'default', disk1.slot);
    });

    it('leaves nothing but the settings, and each device on its driver', async () => {
      const {machine} = product();
      await product().sh('-s', disk1.slot, 'service', 'install', 'vfio-pci', '--now');
      await machine.sh('make -C /opt/pearasys-checkout uninstall');
      assert.match(await changedFiles(machine), /^> \/etc\/pearasys\/pci\/0000:03:00\.0-0x1b36-0x0010 \d+$/);
      assert.equal(await product().driverOf(disk1.slot), 'vfio-pci');
      await machine.sh('rm -r /etc/pearasys');
      assert.equal(await changedFiles(machine), '');
    });
  });
});
