import assert from 'node:assert/strict';
import type {IdResult} from '../../src/entry/cli/ids.js';
import type {NoIommuResult} from '../../src/entry/cli/commands/driver/no-iommu.js';
import type {MachineDeclaration} from '../simulated-host/declaration.js';
import type {SimulatedHost} from '../simulated-host/simulated-host.js';
import {machines} from '../unit/services.js';
import {answer, run, succeeds, typed} from './runs.js';

const [first, second] = ['0000:01:00.0', '0000:02:00.0'];
const id = '10de:1b80';
const disk = '0000:04:00.0';
const file = '/etc/modprobe.d/pearasys-no-iommu.conf';
const parameter = '/sys/module/vfio/parameters/enable_unsafe_noiommu_mode';

describe('pearasys driver', () => {
  const made = machines();
  const driverOf = (host: SimulatedHost, slot: string) => host.machine.device(slot).driver;
  const writes = (host: SimulatedHost) => host.effects().filter((line) => line.startsWith('echo '));

  /** A machine whose two cards of one model have no driver. */
  function withTwins(tweak?: (declaration: MachineDeclaration) => void): SimulatedHost {
    return made((declaration) => {
      for (const one of declaration.functions)
        if (one.id === id) {
          delete one.driver;
          delete one.drm;
        }
      declaration.processes = [];
      tweak?.(declaration);
    });
  }

  describe('new-id', () => {
    it('lists the twin that the driver would take too, and does nothing without --force', async () => {
      const host = withTwins();
      const {exitCode, stderr} = await typed(host, `driver new-id vfio-pci ${first}`);
      assert.equal(exitCode, 3);
      assert.match(stderr, /affects another device/);
      assert.match(
        stderr,
        new RegExp(`vfio-pci takes ${second} too: it has the same id ${id} and no driver`),
      );
      assert.doesNotMatch(stderr, new RegExp(`takes ${first}`));
      assert.match(stderr, /--force; for one device only: pearasys bind vfio-pci SLOT/);
      assert.deepEqual(writes(host), []);
      const both = await typed(host, `driver new-id vfio-pci ${id}`);
      assert.match(both.stderr, /affects 2 other devices/);
    });

    it('lists it in a dry run, with the writes', async () => {
      const host = withTwins();
      const {stdout, stderr} = await succeeds(host, `driver new-id vfio-pci ${id} --dry-run`);
      assert.match(stderr, new RegExp(`vfio-pci takes ${second} too`));
      assert.match(
        stdout,
        /^modprobe vfio-pci\n[\s\S]*echo '10de 1b80' > \/sys\/bus\/pci\/drivers\/vfio-pci\/new_id/m,
      );
      assert.deepEqual(writes(host), []);
    });

    it('does it with --force, and says what became of the devices', async () => {
      const host = withTwins();
      const result = JSON.parse(
        (await succeeds(host, `driver new-id vfio-pci ${id} --force --json`)).stdout,
      ) as IdResult;
      assert.deepEqual(result.ids, [id]);
      assert.deepEqual(
        result.devices.map(({slot, driver}) => [slot, driver]),
        [
          [first, 'vfio-pci'],
          [second, 'vfio-pci'],
        ],
      );
      assert.equal(result.changed, true);
    });

    it('asks on a terminal', async () => {
      for (const yes of [true, false]) {
        const host = withTwins();
        const {exitCode} = await answer(
          host,
          ['driver', 'new-id', 'vfio-pci', first],
          [/Continue\?/, yes ? 'y\n' : 'n\n'],
        );
        assert.equal(exitCode === 0, yes);
        assert.equal(driverOf(host, second), yes ? 'vfio-pci' : undefined);
      }
    });

    it('asks nothing about the only device with the id', async () => {
      const host = made();
      await succeeds(host, `unbind ${disk}`);
      const {stdout} = await succeeds(host, `driver new-id vfio-pci 144d:a80a`);
      assert.match(stdout, /^vfio-pci takes devices with id 144d:a80a\n0000:04:00\.0 is on vfio-pci\n$/);
    });

    it('leaves out a twin that is kept for another driver, or has one', async () => {
      const host = withTwins();
      await succeeds(host, `bind none ${second}`);
      await succeeds(host, `driver new-id vfio-pci ${first}`);
      assert.equal(driverOf(host, first), 'vfio-pci');
      assert.equal(driverOf(host, second), undefined);
      const bound = withTwins();
      await succeeds(bound, `bind pci-stub ${second}`);
      const {stderr} = await succeeds(bound, `driver new-id vfio-pci ${first}`);
      assert.match(
        stderr,
        new RegExp(`${second} has the same id ${id} and stays on pci-stub; when it is probed again`),
      );
    });

    it('binds the devices also if the driver knew the id already', async () => {
      const host = made();
      await succeeds(host, `unbind ${disk}`);
      await succeeds(host, 'driver new-id vfio-pci 144d:a80a');
      await succeeds(host, `unbind ${disk}`);
      await succeeds(host, 'driver new-id vfio-pci 144d:a80a');
      assert.equal(driverOf(host, disk), 'vfio-pci');
    });

    it('takes an id that no device has yet', async () => {
      const host = made();
      const {stdout} = await succeeds(host, 'driver new-id vfio-pci 1234:5678');
      assert.equal(stdout, 'vfio-pci takes devices with id 1234:5678\n');
    });

    it('undoes all if a device cannot be bound', async () => {
      const host = withTwins();
      host.refuseProbe(second, 'vfio-pci', 'EIO');
      const {exitCode, stderr} = await typed(host, `driver new-id vfio-pci ${id} --force`);
      assert.equal(exitCode, 1);
      assert.match(stderr, /undone/);
      assert.equal(driverOf(host, first), undefined);
      // The id is gone as well: otherwise this would say that it exists.
      await host.run('modprobe', ['vfio-pci']);
      await assert.rejects(
        host.writeAttribute('/sys/bus/pci/drivers/vfio-pci/remove_id', '10de 1b80', 1000),
        /ENODEV|No such device/,
      );
    });

    it('refuses an unknown driver, and a word that is no device', async () => {
      const host = made();
      assert.equal((await typed(host, `driver new-id nosuch ${id}`)).exitCode, 2);
      assert.equal((await typed(host, 'driver new-id vfio-pci 0000:7f:00.0')).exitCode, 4);
      assert.equal((await typed(host, 'driver new-id vfio-pci')).exitCode, 2);
    });
  });

  describe('remove-id', () => {
    it('says which devices keep the driver, and that it does not take them again', async () => {
      const host = withTwins();
      await succeeds(host, `driver new-id vfio-pci ${id} --force`);
      const {exitCode, stderr} = await typed(host, `driver remove-id vfio-pci ${first}`);
      assert.equal(exitCode, 3);
      assert.match(
        stderr,
        new RegExp(`${second} has the same id ${id}: it stays on vfio-pci until it is unbound`),
      );
      const {stdout} = await succeeds(host, `driver remove-id vfio-pci ${first} --force`);
      assert.equal(
        stdout,
        `vfio-pci no longer has the id ${id}\n${first} is on vfio-pci\n${second} is on vfio-pci\n`,
      );
      const again = await typed(host, `driver remove-id vfio-pci ${id} --force`);
      assert.equal(again.exitCode, 1);
      assert.match(again.stderr, /only ids that were added can be removed/);
    });

    it('does not count devices that have the driver because of their override', async () => {
      const host = withTwins();
      await succeeds(host, `bind vfio-pci ${second} --force`);
      await succeeds(host, `driver new-id vfio-pci ${first}`);
      await succeeds(host, `driver remove-id vfio-pci ${first}`);
    });

    it('refuses a driver that is not loaded', async () => {
      const {exitCode, stderr} = await typed(made(), `driver remove-id vfio-pci ${id}`);
      assert.equal(exitCode, 2);
      assert.match(stderr, /no PCI driver vfio-pci is registered/);
    });
  });

  describe('no-iommu', () => {
    const without = (tweak?: (declaration: MachineDeclaration) => void) =>
      made((declaration) => {
        declaration.iommu = false;
        tweak?.(declaration);
      });
    const status = async (host: SimulatedHost) =>
      JSON.parse((await succeeds(host, 'driver no-iommu --json')).stdout) as NoIommuResult;

    it('shows the mode and the devices without a group', async () => {
      const {stdout} = await succeeds(made(), 'driver no-iommu');
      assert.equal(
        stdout,
        'no-IOMMU mode is off, and vfio is not loaded\nnothing turns it on at boot\nall devices have an IOMMU group: the mode affects none\n',
      );
      const {mode, configured, withoutGroup} = await status(without());
      assert.deepEqual([mode, configured], ['not-loaded', []]);
      assert.ok(withoutGroup.some(({slot}) => slot === disk));
      assert.ok(!withoutGroup.some(({slot}) => slot === '0000:00:1d.0'), 'a bridge');
    });

    it('lists what VFIO could give away without isolation, and does nothing without --force', async () => {
      const host = without();
      const {exitCode, stderr} = await typed(host, 'driver no-iommu on');
      assert.equal(exitCode, 3);
      assert.match(stderr, /no-IOMMU mode affects \d+ devices/);
      assert.match(
        stderr,
        /0000:04:00\.0 \(144d:a80a\) has no IOMMU group: VFIO can then give it to a program, without DMA isolation/,
      );
      const dry = await succeeds(host, 'driver no-iommu on --dry-run');
      assert.equal(dry.stdout, `modprobe vfio\necho 'Y' > ${parameter}\n`);
      assert.equal(host.exists('/sys/module/vfio'), false);
    });

    it('is on until the next boot, with --permanent for each boot, and off again', async () => {
      const host = without();
      await succeeds(host, 'driver no-iommu on --force');
      assert.equal(host.readText(parameter), 'Y');
      assert.equal(host.exists(file), false);
      await succeeds(host, `bind vfio-pci ${disk}`);
      const {stdout} = await succeeds(host, 'driver no-iommu on --permanent --force');
      assert.match(stdout, new RegExp(`^no-IOMMU mode is on\n${file} turns it on at each boot\n`));
      assert.match(
        host.readText(file) ?? '',
        /no-IOMMU mode[\s\S]*can write to all memory[\s\S]*\noptions vfio enable_unsafe_noiommu_mode=1$/,
      );
      assert.equal((await succeeds(host, 'driver no-iommu on --permanent')).exitCode, 0);
      const refused = await typed(host, 'driver no-iommu off');
      assert.equal(refused.exitCode, 3);
      assert.match(
        refused.stderr,
        /0000:04:00\.0 \(144d:a80a\) is on vfio-pci in no-IOMMU mode: it stays there/,
      );
      await succeeds(host, 'driver no-iommu off --force');
      assert.equal(host.readText(parameter), 'N');
      assert.equal(host.exists(file), false);
      assert.equal((await status(host)).mode, 'off');
    });

    it('asks on a terminal', async () => {
      const host = without();
      const {exitCode} = await answer(host, ['driver', 'no-iommu', 'on'], [/Continue\?/, 'y\n']);
      assert.equal(exitCode, 0);
      assert.equal(host.readText(parameter), 'Y');
    });

    it('asks nothing where no device is without a group', async () => {
      await succeeds(made(), 'driver no-iommu on');
    });

    it('says what overrules it', async () => {
      const host = without((declaration) => {
        declaration.files['/etc/modprobe.d/vfio.conf'] = 'options vfio enable_unsafe_noiommu_mode=0\n';
      });
      const {stderr} = await succeeds(host, 'driver no-iommu on --permanent --force');
      assert.match(stderr, /\/etc\/modprobe\.d\/vfio\.conf comes after .*, and turns it off at each boot/);
      const other = without((declaration) => {
        declaration.files['/etc/modprobe.d/a.conf'] = 'options vfio enable_unsafe_noiommu_mode=1\n';
      });
      const off = await succeeds(other, 'driver no-iommu off');
      assert.match(off.stderr, /\/etc\/modprobe\.d\/a\.conf turns it on again/);
    });

    it('is refused by a kernel without the mode', async () => {
      const host = without((declaration) => {
        const module = declaration.modules.find(({name}) => name === 'vfio');
        if (module !== undefined) module.parameters = {};
      });
      host.machine.loadModule('vfio');
      const {exitCode, stderr} = await typed(host, 'driver no-iommu on --force');
      assert.equal(exitCode, 3);
      assert.match(stderr, /CONFIG_VFIO_NOIOMMU/);
      const gone = without(
        (declaration) =>
          (declaration.modules = declaration.modules.filter(({name}) => !name.startsWith('vfio'))),
      );
      assert.match(
        (await typed(gone, 'driver no-iommu on --force')).stderr,
        /this kernel has no module vfio/,
      );
    });

    it('needs one of its words', async () => {
      for (const words of [['maybe'], ['--permanent'], ['off', '--permanent']])
        assert.equal((await run(made(), ['driver', 'no-iommu', ...words])).exitCode, 2, words.join(' '));
    });
  });
});
