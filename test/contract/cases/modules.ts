import assert from 'node:assert/strict';
import {DEVICES} from '../../vm/devices.js';
import type {ContractArea} from '../machine.js';
import {attribute, driverOf, drivers, edu, nic, succeeds, write} from './pci.js';

export const modules: ContractArea = {
  title: 'modprobe',
  cases: [
    {
      title: 'loads a module and its dependencies; the driver binds unbound devices that have its override',
      check: async (on) => {
        await succeeds(on, 'modprobe', '-r', 'vfio-pci');
        await write(on, [attribute(edu, 'driver_override'), 'vfio-pci']);
        assert.equal((await on.run('modprobe', '-n', 'vfio-pci')).code, 0);
        assert.equal(await on.exists('/sys/module/vfio_pci'), false);
        await succeeds(on, 'modprobe', '--', 'vfio-pci');
        assert.equal(await driverOf(on, edu), 'vfio-pci');
        for (const name of ['vfio', 'vfio_pci_core', 'vfio_iommu_type1', 'vfio_pci'])
          assert.equal(await on.exists(`/sys/module/${name}`), true, name);
        assert.equal(await on.link('/sys/module/vfio_pci/drivers/pci:vfio-pci'), 'vfio-pci');
        assert.equal(await on.link(`${drivers}/vfio-pci/module`), 'vfio_pci');
      },
    },
    {
      title: '-r unbinds the driver from its devices, and unloads the modules that only it needed',
      check: async (on) => {
        await succeeds(on, 'modprobe', 'vfio-pci');
        await write(on, [attribute(edu, 'driver_override'), 'vfio-pci'], ['/sys/bus/pci/drivers_probe', edu]);
        await succeeds(on, 'modprobe', '-r', 'vfio-pci');
        assert.equal(await driverOf(on, edu), undefined);
        const left = [];
        for (const name of ['vfio_pci', 'vfio_pci_core', 'vfio_iommu_type1', 'vfio'])
          if (await on.exists(`/sys/module/${name}`)) left.push(name);
        // vfio loads vfio_iommu_type1, which needs vfio: both are in use.
        assert.deepEqual(left, ['vfio_iommu_type1', 'vfio']);
      },
    },
    {
      title: '-r releases the devices of a driver, the last bound first',
      check: async (on) => {
        const [one, other] = [DEVICES.legacy0.slot, DEVICES.legacy1.slot];
        await succeeds(on, 'modprobe', '-r', 'e1000');
        assert.deepEqual(await on.events(), [`unbind pci ${other}`, `unbind pci ${one}`]);
        await succeeds(on, 'modprobe', 'e1000');
        assert.deepEqual(await on.events(), [`bind pci ${one}`, `bind pci ${other}`]);
      },
    },
    {
      title: 'fails with these messages',
      check: async (on) => {
        const says = async (args: readonly string[], text: RegExp | '', code = 1) => {
          const ended = await on.run('modprobe', ...args);
          assert.equal(ended.code, code, args.join(' '));
          if (text === '') assert.equal(ended.stderr, '');
          else assert.match(ended.stderr, text);
        };
        await says(
          ['nothing'],
          /^modprobe: FATAL: Module nothing not found in directory \/lib\/modules\/\S+$/,
        );
        await says(['-r', 'nothing'], /^modprobe: FATAL: Module nothing not found\.$/);
        await says(['-q', 'nothing'], '');
        await says([], /^modprobe: ERROR: missing parameters\. See -h\.$/);
        await says(['-r', 'drm'], /^modprobe: FATAL: Module drm is in use\.$/);
        await says(['nvme'], '', 0);
      },
    },
    {
      title: 'rmmod fails with these messages',
      check: async (on) => {
        const missing = await on.run('rmmod', 'nothing');
        assert.deepEqual(
          [missing.code, missing.stderr],
          [1, 'rmmod: ERROR: Module nothing is not currently loaded'],
        );
        const used = await on.run('rmmod', 'drm');
        assert.equal(used.code, 1);
        assert.match(used.stderr, /^rmmod: ERROR: Module drm is in use by: .*\bbochs\b/);
      },
    },
    {
      title: 'applies modprobe.d: options, softdep, blacklist, install',
      check: async (on) => {
        await succeeds(on, 'modprobe', '-r', 'vfio-pci');
        await succeeds(on, 'modprobe', '-r', 'pci-stub');
        await succeeds(on, 'modprobe', '-r', 'e1000');
        await on.put(
          '/etc/modprobe.d/contract.conf',
          'options vfio-pci ids=1234:11e8\nsoftdep e1000 pre: vfio-pci\nblacklist e1000\ninstall pci-stub /bin/false\n',
        );
        await succeeds(on, 'modprobe', '-b', 'e1000');
        assert.equal(await on.exists('/sys/module/e1000'), false);
        await succeeds(on, 'modprobe', 'e1000');
        assert.equal(await on.exists('/sys/module/e1000'), true);
        assert.equal(await driverOf(on, edu), 'vfio-pci');
        const {code, stderr} = await on.run('modprobe', 'pci-stub');
        assert.equal(code, 1);
        assert.match(stderr, /modprobe: ERROR: could not insert 'pci_stub': Invalid argument$/);
        // Unloading the module removes the ids.
        await succeeds(on, 'modprobe', '-r', 'vfio-pci');
      },
    },
    {
      title: 'finds the module of a device by its alias',
      check: async (on) => {
        await succeeds(on, 'modprobe', '-r', 'e1000');
        await succeeds(
          on,
          'modprobe',
          '-b',
          (await on.read(attribute(DEVICES.legacy0.slot, 'modalias'))) ?? '',
        );
        assert.equal(await driverOf(on, DEVICES.legacy0.slot), 'e1000');
        assert.equal(await driverOf(on, nic), 'e1000e');
      },
    },
  ],
};
