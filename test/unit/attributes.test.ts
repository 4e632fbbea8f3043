import assert from 'node:assert/strict';
import {
  devicePath,
  readDevice,
  readDevices,
  readNumaNode,
  readResponds,
} from '../../src/devices/pci/device.js';
import {parseSlot} from '../../src/devices/pci/slot.js';
import type {MachineDeclaration} from '../simulated-host/declaration.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {functionOf} from '../simulated-host/standard-machine.js';

const slot = parseSlot('0000:05:00.0');

describe('attributes of devices', () => {
  const hosts: SimulatedHost[] = [];
  afterEach(() => {
    for (const host of hosts.splice(0)) host.dispose();
  });

  function made(tweak?: (declaration: MachineDeclaration) => void): SimulatedHost {
    const host = SimulatedHost.standard(tweak);
    hosts.push(host);
    return host;
  }

  /** Calls `then` after the attribute has been read. */
  function afterReading(host: SimulatedHost, attribute: string, then: () => void): void {
    const read = host.readText.bind(host);
    host.readText = (path) => {
      const text = read(path);
      if (path.endsWith(`/${slot}/${attribute}`)) then();
      return text;
    };
  }

  describe('missing, unreadable and blocked are three different results', () => {
    it('driver_override: missing, as before Linux 3.16 and in captured trees', () => {
      const host = made();
      host.machine.tree.remove(devicePath(slot, 'driver_override'));
      const device = readDevice(host, slot);
      assert.deepEqual(
        [device?.overrideState, device?.override, device?.locked],
        ['missing', undefined, false],
      );
      assert.equal(readDevices(host).find((one) => one.slot === slot)?.overrideState, 'missing');
    });

    for (const errno of ['EACCES', 'EIO'])
      it(`driver_override: unreadable with ${errno}, and all other devices are read`, () => {
        const host = made();
        const count = readDevices(host).length;
        host.failRead(new RegExp(`${slot}/driver_override$`), errno);
        const devices = readDevices(host);
        assert.equal(devices.length, count);
        const device = devices.find((one) => one.slot === slot);
        assert.deepEqual(
          [device?.overrideState, device?.locked, device?.driver],
          ['unreadable', false, 'e1000e'],
        );
      });

    it('driver_override: blocked, only after a check has found it', async () => {
      const host = made();
      host.neverReturn(devicePath(slot, 'driver/unbind'));
      await assert.rejects(host.writeAttribute(devicePath(slot, 'driver/unbind'), slot, 10));
      await host.findLocked(10);
      const device = readDevice(host, slot);
      assert.deepEqual([device?.overrideState, device?.locked, device?.id], ['blocked', true, '8086:10d3']);
    });

    it('uevent: unreadable or missing, its content comes from other attributes', () => {
      const host = made();
      const whole = readDevice(host, slot);
      host.failRead(new RegExp(`${slot}/uevent$`), 'EACCES');
      assert.deepEqual(readDevice(host, slot), whole);
      const other = made();
      other.machine.tree.remove(devicePath(slot, 'uevent'));
      assert.deepEqual(readDevice(other, slot), whole);
    });

    it('boot_vga and numa_node: unreadable counts as missing', () => {
      const host = made();
      host.failRead(/\/(?:boot_vga|numa_node)$/, 'EIO');
      assert.ok(readDevices(host).every(({bootDisplay}) => !bootDisplay));
      assert.equal(readNumaNode(host, slot), undefined);
    });

    it('a device that cannot be read at all is reported, and is not called absent', () => {
      const host = made();
      host.failRead(new RegExp(`/${slot}/`), 'EACCES');
      const told: string[] = [];
      const devices = readDevices(host, ({message}) => told.push(message));
      assert.ok(devices.length > 0 && devices.every((one) => one.slot !== slot));
      assert.equal(told.length, 1);
      assert.match(told[0] ?? '', /0000:05:00\.0\/vendor failed: EACCES/);
      assert.throws(() => readDevice(host, slot), {code: 'file-failed', exitCode: 1});
    });

    for (const attribute of ['uevent', 'driver_override'])
      it(`a device that is removed after its ${attribute} was read is absent`, () => {
        const host = made();
        let gone = false;
        afterReading(host, attribute, () => {
          if (!gone) host.machine.hotRemove(slot);
          gone = true;
        });
        // Its state of just before is as good an answer as that it has gone.
        const device = readDevice(host, slot);
        if (attribute === 'uevent') assert.equal(device, undefined);
        assert.equal(device?.locked ?? false, false);
        assert.equal(readDevice(host, slot), undefined);
      });
  });

  describe('attributes of single functions are read for each function', () => {
    it('the NUMA node of functions of one bus', () => {
      const host = made((declaration) => {
        functionOf(declaration, '0000:00:14.0').numaNode = 0;
        functionOf(declaration, '0000:02:00.0').numaNode = 1;
        functionOf(declaration, '0000:02:00.1').numaNode = -1;
      });
      assert.deepEqual(
        ['0000:00:14.0', '0000:02:00.0', '0000:02:00.1'].map((one) => readNumaNode(host, parseSlot(one))),
        [0, 1, undefined],
      );
    });

    it('the IOMMU group, also in a tree with links but without a list of groups', () => {
      const host = made();
      const groups = new Map(readDevices(host).map((device) => [device.slot, device.group]));
      // The first in order has none, as a root complex' own registers.
      const [first] = groups.keys();
      host.machine.tree.remove(devicePath(first!, 'iommu_group'));
      host.machine.tree.remove('/sys/kernel/iommu_groups');
      for (const device of readDevices(host))
        assert.equal(device.group, device.slot === first ? undefined : groups.get(device.slot), device.slot);
    });

    it('the subsystem of two devices with the same id', () => {
      const host = made((declaration) => {
        functionOf(declaration, '0000:01:00.0').subsystem = '1462:3300';
        functionOf(declaration, '0000:02:00.0').subsystem = '1043:859A';
      });
      assert.deepEqual(
        ['0000:01:00.0', '0000:02:00.0'].map((one) => readDevice(host, parseSlot(one))?.subsystem),
        ['1462:3300', '1043:859a'],
      );
    });
  });

  describe('whether a device responds', () => {
    it('not when its configuration space reads all ones', () => {
      const host = made((declaration) => {
        functionOf(declaration, slot).config = Array.from({length: 256}, () => 0xff);
      });
      assert.equal(readResponds(host, slot), false);
      assert.equal(readResponds(host, parseSlot('0000:02:00.0')), true);
    });

    it('a virtual function has no ids there, and responds', () => {
      const host = made((declaration) => {
        functionOf(declaration, slot).config = [
          0xff,
          0xff,
          0xff,
          0xff,
          0,
          0,
          0x10,
          0,
          ...Array<number>(56).fill(0),
        ];
      });
      assert.equal(readResponds(host, slot), true);
    });

    it('is not read from a suspended device, and is unknown without the file', () => {
      const host = made();
      host.machine.tree.file(devicePath(slot, 'power/runtime_status'), 'suspended\n');
      assert.equal(readResponds(host, slot), undefined);
      host.machine.tree.file(devicePath(slot, 'power/runtime_status'), 'active\n');
      host.machine.tree.remove(devicePath(slot, 'config'));
      assert.equal(readResponds(host, slot), undefined);
    });
  });
});
