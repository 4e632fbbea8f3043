import assert from 'node:assert/strict';
import {differences, parseTables, printTables} from '../../build/devbind-tables.js';
import {spdkKindOf, typesOf} from '../../src/devices/pci/device-types.js';
import {dpdkSource, dpdkTypes} from '../../src/devices/pci/dpdk-types.js';
import {parseId} from '../../src/devices/pci/id.js';

const device = (id: string, classCode: number) => ({id: parseId(id), classCode});

/** A shortened dpdk-devbind.py. */
const script = `network_class = {'Class': '02', 'Vendor': None, 'Device': None,
                 'SVendor': None, 'SDevice': None}
intel_ioat = {'Class': '08', 'Vendor': '8086',
              'Device': '6f20,6f21',
              'SVendor': None, 'SDevice': None}
virtio_blk = {'Class': '01', 'Vendor': "1af4", 'Device': '1001,1042',
              'SVendor': None, 'SDevice': None}

network_devices = [network_class]
baseband_devices = [network_class]
crypto_devices = [network_class]
dma_devices = [intel_ioat,
               network_class]
eventdev_devices = [network_class]
mempool_devices = [network_class]
compress_devices = [network_class]
regex_devices = [network_class]
ml_devices = [network_class]
misc_devices = [virtio_blk]

devices = {}
`;

describe('types of devices', () => {
  it('are those of dpdk-devbind.py: by base class, vendor and device', () => {
    assert.deepEqual(typesOf(device('8086:10d3', 0x02_00_00)), ['net']);
    assert.deepEqual(typesOf(device('177d:a0dd', 0x08_80_00)), ['net']);
    assert.deepEqual(typesOf(device('177d:a0dd', 0x09_00_00)), []);
    assert.deepEqual(typesOf(device('8086:a0dd', 0x08_80_00)), []);
    assert.deepEqual(typesOf(device('8086:0b30', 0x12_00_00)), ['net', 'baseband']);
    assert.deepEqual(typesOf(device('8086:2710', 0x0b_40_00)), ['crypto', 'event']);
    assert.deepEqual(typesOf(device('177d:a092', 0x08_80_00)), ['ml']);
  });

  it('include disks, and what SPDK adds', () => {
    assert.deepEqual(typesOf(device('144d:a808', 0x01_08_02)), ['storage']);
    assert.deepEqual(typesOf(device('1af4:1042', 0x01_00_00)), ['storage', 'misc']);
    assert.deepEqual(typesOf(device('8086:0cfe', 0x08_80_00)), ['dma']);
    assert.deepEqual(typesOf(device('8086:2f27', 0x08_80_00)), ['dma']);
    assert.deepEqual(typesOf(device('10de:1b80', 0x03_00_00)), []);
  });

  it('have the kinds of SPDK', () => {
    const kinds = [
      ['144d:a808', 0x01_08_02, 'nvme'],
      ['144d:a808', 0x01_08_03, undefined],
      ['8086:3c27', 0x08_80_00, 'ioat'],
      ['8086:3c28', 0x08_80_00, undefined],
      ['8086:0c53', 0x08_80_00, 'ioat'],
      ['8086:0b25', 0x08_80_00, 'dsa'],
      ['8086:0cfe', 0x08_80_00, 'iaa'],
      ['1af4:1048', 0x01_00_00, 'virtio'],
      ['8086:201d', 0x01_04_00, 'vmd'],
    ] as const;
    for (const [id, classCode, kind] of kinds) assert.equal(spdkKindOf(device(id, classCode)), kind, id);
  });
});

describe('the tables of dpdk-devbind.py', () => {
  it('are read from its text', () => {
    const tables = parseTables(script);
    assert.deepEqual(tables.dma, [{class: '08', vendor: '8086', devices: ['6f20', '6f21']}, {class: '02'}]);
    assert.deepEqual(tables.misc, [{class: '01', vendor: '1af4', devices: ['1001', '1042']}]);
  });

  it('are not read if something in them is not known here', () => {
    for (const [change, expected] of [
      [[/^misc_devices.*$/m, ''], /no tables for misc/],
      [[/^misc_devices/m, 'new_devices'], /the table new_devices is new/],
      [[/\[virtio_blk\]/, '[virtio_scsi]'], /has virtio_scsi, which is not defined/],
      [[/'SVendor': None/, "'SVendor': '8086'"], /the rule network_class has a form/],
      [[/'Class': '02'/, "'Class': None"], /the rule network_class has a form/],
    ] as const) {
      const [pattern, text] = change;
      assert.throws(() => parseTables(script.replace(pattern, text)), expected);
    }
  });

  it('are written as the module of src is', async () => {
    const source = {version: dpdkSource.version, package: dpdkSource.package.split(' ')[1] ?? ''};
    const {readFileSync} = await import('node:fs');
    const written = readFileSync(new URL('../../src/devices/pci/dpdk-types.ts', import.meta.url), 'utf8');
    assert.equal(await printTables(dpdkTypes, source), written);
  });

  it('are compared rule by rule', () => {
    const tables = parseTables(script);
    assert.deepEqual(differences(tables, tables), []);
    assert.deepEqual(differences({...tables, ml: []}, tables), ['ml: +{"class":"02"}']);
    assert.deepEqual(differences(tables, {...tables, ml: [{class: '03'}]}), [
      'ml: -{"class":"02"} +{"class":"03"}',
    ]);
  });
});
