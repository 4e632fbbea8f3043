/** The files that `make install` creates and `make uninstall` removes, and the sandboxing of the units. */
import assert from 'node:assert/strict';
import {DEVICES} from './devices.js';
import {installProduct} from './install.js';
import {changedFiles, withProduct} from './shared.js';

describe('set-up on a real machine', function () {
  const product = withProduct(this);
  const {disk1} = DEVICES;
  const unit = `pearasys-${disk1.slot}@vfio-pci.service`;

  it('has units with a good rating in systemd-analyze security', async () => {
    const {machine} = product();
    await product().sh('-s', disk1.slot, 'service', 'install', 'vfio-pci');
    for (const one of [unit, `pearasys-record@${disk1.slot}.service`]) {
      const report = await machine.sh(`systemd-analyze security --no-pager ${one}`);
      const [, exposure = ''] = /Overall exposure level for \S+: (\d+\.\d)/.exec(report) ?? [];
      // A service without any sandboxing has 9.6. The remaining permissions are needed to change a driver.
      assert.ok(Number(exposure) > 0 && Number(exposure) < 5, report);
    }
    await product().sh('-s', disk1.slot, 'service', 'uninstall');
  });

  it('creates units in the folder of --prefix, and removes them', async () => {
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

  it('imports the drivers that driverctl has saved', async () => {
    const {machine} = product();
    await machine.sh(`driverctl set-override ${disk1.slot} vfio-pci`);
    assert.equal(await machine.sh('driverctl list-overrides'), `${disk1.slot} vfio-pci`);
    await product().sh('service', 'import');
    assert.equal(await machine.sh('ls /etc/driverctl.d'), '');
    assert.equal(await machine.sh(`systemctl is-enabled ${unit}`), 'enabled');
    assert.equal(await product().driverOf(disk1.slot), 'vfio-pci');
    await product().sh('-s', disk1.slot, 'service', 'uninstall');
    await product().sh('bind', 'default', disk1.slot);
  });

  describe('make uninstall', () => {
    // The next suite needs pearasys installed.
    after(async () => {
      await installProduct(product().machine);
      await product().sh('bind', 'default', disk1.slot);
    });

    it('keeps only the settings, and each device on its driver', async () => {
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
