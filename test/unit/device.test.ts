import assert from 'node:assert/strict';
import {devicePath, modaliasOf, readDevices} from '../../src/pci/device.js';
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
});
