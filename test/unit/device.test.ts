import assert from 'node:assert/strict';
import {mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {MachineHost} from '../../src/host/machine-host.js';
import {devicePath, modaliasOf, readDevices, readNumaNode} from '../../src/devices/pci/device.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';

describe('devices', () => {
  const host = SimulatedHost.standard();
  const devices = readDevices(host);

  it('are those that the kernel lists, in slot order', () => {
    assert.deepEqual(
      devices.map(({slot}) => slot),
      host.list('/sys/bus/pci/devices'),
    );
  });

  it('have the modalias that the kernel prints', () => {
    for (const device of devices)
      assert.equal(modaliasOf(device), host.readText(devicePath(device.slot, 'modalias')), device.slot);
  });

  it('have the ids, class and driver of their attributes', () => {
    for (const device of devices) {
      const read = (attribute: string) =>
        host.readText(devicePath(device.slot, attribute))?.replace('0x', '');
      assert.equal(device.id, `${read('vendor')}:${read('device')}`, device.slot);
      assert.equal(device.classCode.toString(16).padStart(6, '0'), read('class'), device.slot);
      assert.equal(
        device.driver,
        host.readLink(devicePath(device.slot, 'driver'))?.replace(/.*\//, ''),
        device.slot,
      );
    }
  });

  it('are found on one bus in different folders, and without links', () => {
    const root = mkdtempSync(join(tmpdir(), 'pearasys-devices-'));
    try {
      const bus = join(root, 'sys/bus/pci/devices');
      mkdirSync(bus, {recursive: true});
      const add = (folder: string, device: string) => {
        mkdirSync(folder, {recursive: true});
        writeFileSync(join(folder, 'uevent'), `PCI_CLASS=20000\nPCI_ID=8086:${device}\n`);
        writeFileSync(join(folder, 'numa_node'), '1\n');
      };
      const folders = {'0000:03:00.0': 'pci0000:00/0000:00:1c.0', '0000:03:10.0': 'pci0000:00/0000:00:1d.0'};
      for (const [slot, parent] of Object.entries(folders)) {
        add(join(root, 'sys/devices', parent, slot), '10D3');
        symlinkSync(`../../../devices/${parent}/${slot}`, join(bus, slot));
      }
      add(join(bus, '0000:04:00.0'), '10D4');
      const image = new MachineHost(root);
      assert.deepEqual(
        readDevices(image).map(({slot, id}) => [slot, id, readNumaNode(image, slot)]),
        [
          ['0000:03:00.0', '8086:10d3', 1],
          ['0000:03:10.0', '8086:10d3', 1],
          ['0000:04:00.0', '8086:10d4', 1],
        ],
      );
    } finally {
      rmSync(root, {recursive: true});
    }
  });
});
