import assert from 'node:assert/strict';
import {parseId} from '../../src/devices/pci/id.js';
import {printName, readDeviceNames, readNames, searchNames} from '../../src/devices/pci/names.js';
import {parseSlot} from '../../src/devices/pci/slot.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';

const file = Buffer.from(
  `#
#\tList of PCI ID's
# Vendors, devices and subsystems.
001c  PEAK-System Technik GmbH
\t0001  PCAN-PCI CAN-Bus controller
\t\t001c 0004  2 Channel CAN Bus SJC1000
10de  NVIDIA Corporation
\t0020  NV4 [Riva TNT]
# A comment within
\t1b80  GP104 [GeForce GTX 1080]
\t\t10de 1b80  A subsystem
10df  Emulex Corporation
\t0720  OneConnect 10Gb NIC (be3)
1e0f  Kioxia Größe GmbH
\t0001  SSD µ
8086  Intel Corporation
\t1533  I210 Gigabit Network Connection

C 00  Unclassified device
\t00  Non-VGA unclassified device
C 03  Display controller
\t00  VGA compatible controller
\t\t00  VGA controller
\t02  3D controller
C 0c  Serial bus controller
\t03  USB controller
`,
);

function search(ids: string[], classes: string[] = []): Record<string, string> {
  return Object.fromEntries(searchNames(file, new Set(ids), new Set(classes)));
}

describe('names from pci.ids', () => {
  it('finds vendors and devices in any order of the ids', () => {
    assert.deepEqual(search(['8086:1533', '001c:0001', '10de:1b80']), {
      '001c': 'PEAK-System Technik GmbH',
      '001c:0001': 'PCAN-PCI CAN-Bus controller',
      '10de': 'NVIDIA Corporation',
      '10de:1b80': 'GP104 [GeForce GTX 1080]',
      '8086': 'Intel Corporation',
      '8086:1533': 'I210 Gigabit Network Connection',
    });
  });

  it("does not take another vendor's device with the same number", () => {
    assert.deepEqual(search(['10de:0720', '10de:1533']), {'10de': 'NVIDIA Corporation'});
    assert.deepEqual(search(['10df:1b80']), {'10df': 'Emulex Corporation'});
  });

  it('does not take a subsystem for a device, nor a vendor for a class', () => {
    assert.deepEqual(search(['001c:001c', '00c0:0000']), {'001c': 'PEAK-System Technik GmbH'});
  });

  it('continues after a missing vendor', () => {
    assert.deepEqual(search(['0000:0001', '1111:0001', '8086:1533', 'ffff:ffff'], ['0302']), {
      '8086': 'Intel Corporation',
      '8086:1533': 'I210 Gigabit Network Connection',
      'C 03': 'Display controller',
      'C 0302': '3D controller',
    });
  });

  it('finds classes, and the base class of an unknown one', () => {
    assert.deepEqual(search([], ['0300', '0c03', '0c7f', 'ff00']), {
      'C 03': 'Display controller',
      'C 0300': 'VGA compatible controller',
      'C 0c': 'Serial bus controller',
      'C 0c03': 'USB controller',
    });
  });

  it('decodes UTF-8', () => {
    assert.deepEqual(search(['1e0f:0001']), {'1e0f': 'Kioxia Größe GmbH', '1e0f:0001': 'SSD µ'});
  });

  it('accepts an empty and a truncated file', () => {
    assert.equal(searchNames(Buffer.alloc(0), new Set(['10de:1b80']), new Set(['0300'])).size, 0);
    const cut = file.subarray(0, file.indexOf('GP104') + 3);
    assert.equal(searchNames(cut, new Set(['10de:1b80']), new Set()).get('10de:1b80'), 'GP1');
  });

  it('is read from the host, and the file may be missing', () => {
    const host = SimulatedHost.standard();
    const device = {slot: parseSlot('04:00.0'), id: parseId('10de:1b80'), classCode: 0x030000};
    assert.deepEqual(readDeviceNames(host, [device]).get(device.slot), {
      class: 'VGA compatible controller',
      vendor: 'NVIDIA Corporation',
      device: 'GP104 [GeForce GTX 1080]',
    });
    host.dispose();
    const bare = SimulatedHost.standard((machine) => {
      machine.files = {};
    });
    assert.equal(readNames(bare, [device]).size, 1);
    bare.dispose();
  });

  it('prints numbers for what it does not know', () => {
    const unknown = {class: undefined, vendor: undefined, device: undefined};
    assert.equal(printName('10de:1b80', undefined), 'device 10de:1b80');
    assert.equal(printName('10de:1b80', unknown), 'device 10de:1b80');
    assert.equal(printName('10de:1b80', {...unknown, vendor: 'NVIDIA'}), 'NVIDIA device 1b80');
  });
});
