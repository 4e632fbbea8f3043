import assert from 'node:assert/strict';
import {readDevices} from '../../src/devices/pci/device.js';
import {findDriver, hasDevices, moduleOfDriver, modulesFor} from '../../src/devices/pci/modules.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {addNvidia} from '../simulated-host/standard-machine.js';
import {aDevice, aDriver} from './values.js';

describe('modules', () => {
  let host: SimulatedHost;
  beforeEach(() => {
    host = SimulatedHost.standard(addNvidia);
  });
  afterEach(() => host.dispose());
  const aliases = '/usr/lib/modules/6.1.0-18-amd64/modules.alias';

  it('reads indexes of the size that distributions have', () => {
    const text = host.readText(aliases) ?? '';
    host.machine.tree.file(aliases, `${'alias usb:v0000p0000d* none\n'.repeat(100_000)}${text}\n`);
    const [gpu] = readDevices(host).filter(({slot}) => slot === '0000:02:00.0');
    assert.ok(gpu !== undefined && modulesFor(host, gpu).includes('nouveau'));
  });

  describe('findDriver', () => {
    it('a registered one, and none', () => {
      assert.deepEqual(findDriver(host, aDriver('nouveau')), {kind: 'present'});
      assert.deepEqual(findDriver(host, aDriver('none')), {kind: 'present'});
    });

    it('one that a module of its name provides, with - or _', () => {
      assert.deepEqual(findDriver(host, aDriver('vfio-pci')), {
        kind: 'module',
        module: 'vfio-pci',
        loaded: false,
      });
      assert.deepEqual(findDriver(host, aDriver('igb')), {kind: 'module', module: 'igb', loaded: false});
    });

    it('one whose module is already loaded without it', () => {
      assert.deepEqual(findDriver(host, aDriver('drm')), {kind: 'module', module: 'drm', loaded: true});
      assert.equal(findDriver(host, aDriver('i915')).kind, 'module');
    });

    it('an unknown one, with the known ones', () => {
      const source = findDriver(host, aDriver('vfoi-pci'));
      assert.equal(source.kind, 'unknown');
      for (const name of ['nouveau', 'vfio-pci']) assert.ok(source.known.includes(name), name);
      for (const name of ['nvidia', 'mlx5_vfio_pci']) assert.ok(source.modules.includes(name), name);
      for (const name of ['vfio_pci', 'xhci_pci', 'nouveau']) assert.ok(!source.modules.includes(name), name);
      assert.equal(new Set(source.known).size, source.known.length);
    });

    it('the name of a module instead of a driver', () => {
      for (const [module, driver] of [
        ['vfio_pci', 'vfio-pci'],
        ['pci_stub', 'pci-stub'],
        // Loaded: the kernel tells.
        ['xhci_pci', 'xhci_hcd'],
        ['i2c_i801', 'i801_smbus'],
        ['ehci_pci', 'ehci-pci'],
      ] as const)
        assert.deepEqual(findDriver(host, aDriver(module)), {
          kind: 'unknown',
          known: [driver],
          modules: [],
          isModule: true,
        });
    });

    it('a driver whose module has another name', async () => {
      await host.writeAttribute('/sys/bus/pci/drivers/xhci_hcd/unbind', '0000:00:14.0', 1000);
      await host.run('modprobe', ['-r', 'xhci_pci']);
      assert.deepEqual(findDriver(host, aDriver('xhci_hcd')), {
        kind: 'module',
        module: 'xhci_pci',
        loaded: false,
      });
    });

    it('if the modules cannot be read, modprobe decides', () => {
      host.machine.tree.remove('/usr/lib/modules');
      assert.deepEqual(findDriver(host, aDriver('anything')), {
        kind: 'module',
        module: 'anything',
        loaded: false,
      });
    });
  });

  describe('modulesFor', () => {
    it('by vendor, class, and VFIO’s variants last', () => {
      const device = readDevices(host).find(({slot}) => slot === '0000:02:00.0');
      assert.deepEqual(modulesFor(host, device!), ['nouveau', 'nvidia', 'vfio_pci']);
    });

    it('supports stars, question marks and ranges as depmod writes them, and literal dots', () => {
      host.machine.tree.file(
        aliases,
        'alias pci:v000010DEd00001B8[0-3]sv*sd*bc*sc*i* range\n' +
          'alias pci:v000010DEd00001B8[4-9]sv*sd*bc*sc*i* other\n' +
          'alias pci:v000010DEd00001B8?sv*sd*bc03sc*i* mark\n' +
          'alias pci:v*d*sv*sd*bc03sc00i00* class\n' +
          'alias pci:v*d*sv*sd*bc04sc00i00* sound\n' +
          'alias usb:v000010DEd00001B80* usb\n' +
          'alias pci:v000010DEd00001B80sv00001043sd00008591bc03sc00i0. dot\n' +
          '# alias pci:v000010DEd00001B80sv*sd*bc*sc*i* comment\n' +
          'alias pci:v000010DEd00001B80sv*sd*bc*sc*i* last',
      );
      assert.deepEqual(modulesFor(host, aDevice('02:00.0')), ['range', 'mark', 'last', 'class']);
    });

    it('none without the list', () => {
      host.machine.tree.remove(aliases);
      assert.deepEqual(modulesFor(host, aDevice('02:00.0')), []);
    });
  });

  it('the module of a driver, which need not have its name', () => {
    assert.equal(moduleOfDriver(host, 'xhci_hcd'), 'xhci_pci');
    assert.equal(moduleOfDriver(host, 'pcieport'), undefined);
  });

  it('whether a module has devices', async () => {
    assert.equal(hasDevices(host, 'e1000e'), true);
    await host.run('modprobe', ['vfio-pci']);
    assert.equal(hasDevices(host, 'vfio-pci'), false);
    assert.equal(hasDevices(host, 'nothing'), false);
  });
});
