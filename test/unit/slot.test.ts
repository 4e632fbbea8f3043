import assert from 'node:assert/strict';
import {PearasysError} from '../../src/host/errors.js';
import {isVfio, parseDriver} from '../../src/devices/pci/driver.js';
import {asId, parseId, sysfsIds} from '../../src/devices/pci/id.js';
import {asCard, asSlot, cardOf, parseSlot} from '../../src/devices/pci/slot.js';

function refused(work: () => unknown, code: string): PearasysError {
  try {
    work();
  } catch (error) {
    assert.ok(error instanceof PearasysError);
    assert.equal(error.code, code);
    assert.equal(error.exitCode, 2);
    assert.ok(error.hint !== undefined);
    return error;
  }
  assert.fail('it was taken');
}

describe('a slot', () => {
  for (const [text, slot] of [
    ['0000:04:00.0', '0000:04:00.0'],
    ['04:00.0', '0000:04:00.0'],
    ['0000:0A:1F.7', '0000:0a:1f.7'],
    ['10000:e1:00.0', '10000:e1:00.0'],
    ['00010000:e1:00.0', '10000:e1:00.0'],
    // nvidia-smi and DCGM print domains with eight digits.
    ['00000000:01:00.0', '0000:01:00.0'],
    ['0000000A:01:00.0', '000a:01:00.0'],
    ['00000:01:00.0', '0000:01:00.0'],
    ['pci_0000_01_00_0', '0000:01:00.0'],
    ['pci_10000_e1_00_0', '10000:e1:00.0'],
    ['PCI_0000_0A_1F_7', '0000:0a:1f.7'],
    ['pci@0000:01:00.0', '0000:01:00.0'],
    ['pci-0000:01:00.0', '0000:01:00.0'],
    ['pci/0000:01:00.0', '0000:01:00.0'],
    ['PCI:10:0:1', '0000:0a:00.1'],
    ['PCI:2@1:31:7', '0001:02:1f.7'],
    ['/sys/bus/pci/devices/0000:01:00.0', '0000:01:00.0'],
    ['/sys/bus/pci/devices/0000:01:00.0/', '0000:01:00.0'],
    ['/sys/devices/pci0000:00/0000:00:01.1/0000:02:00.0', '0000:02:00.0'],
    ['/sys/kernel/iommu_groups/14/devices/0000:01:00.0', '0000:01:00.0'],
  ] as const)
    it(`'${text}' is ${slot}`, () => assert.equal(parseSlot(text), slot));

  for (const text of [
    '',
    '4:00.0',
    'pci_0000:01:00.0',
    'pci_0000_01_00.0',
    '0000_01_00_0',
    'PCI:256:0:0',
    'PCI:1:32:0',
    'PCI:1:0:8',
    '/sys/bus/pci/devices/',
    '/sys/bus/pci/devices/0000:01:00.0/net',
    '/etc/0000:01:00.0',
    '04:00.8',
    '04:20.0',
    '000:04:00.0',
    '000000000:04:00.0',
    '0000:04:00.0 ',
    '0000:04:00.0\n',
    '0000:04:00.0/..',
    '../0000:04:00.0',
    '0000-04-00.0',
    'g000:04:00.0',
  ])
    it(`${JSON.stringify(text)} is none`, () => {
      assert.equal(asSlot(text), undefined);
      const error = refused(() => parseSlot(text), 'bad-slot');
      assert.equal(error.message, `'${text}' is not a slot`);
      assert.match(error.hint ?? '', /0000:04:00\.0/);
    });

  for (const [text, card] of [
    ['04:00', '0000:04:00'],
    ['0000:04:00', '0000:04:00'],
    ['00000000:04:00.*', '0000:04:00'],
    ['0A:1F.*', '0000:0a:1f'],
    ['pci_0000_04_00', '0000:04:00'],
  ] as const)
    it(`'${text}' is none, but all functions of ${card}`, () => {
      assert.equal(asCard(text), card);
      assert.equal(asSlot(text), undefined);
      const error = refused(() => parseSlot(text), 'bad-slot');
      assert.equal(error.message, `'${text}' names all functions of a card`);
      assert.match(error.hint ?? '', /one function/);
    });

  for (const text of ['04:00.0', '04', '', '04:20.*', '04:00.*.', 'eth0', '04-00'])
    it(`'${text}' is no card`, () => assert.equal(asCard(text), undefined));

  it('shares its beginning with its siblings', () => {
    assert.equal(cardOf(parseSlot('04:00.1')), '0000:04:00');
  });
});

describe('an id', () => {
  for (const text of ['10de:1b80', '10DE:1B80', '0x10de:0x1b80'])
    it(`'${text}' is 10de:1b80`, () => assert.equal(parseId(text), '10de:1b80'));

  for (const text of [
    '',
    '10de',
    '10de:',
    '10de:1b8',
    '10de:1b800',
    '10de 1b80',
    '10de:1b80\n',
    '*:1b80',
    '../:1b80',
  ])
    it(`${JSON.stringify(text)} is none`, () => {
      assert.equal(asId(text), undefined);
      assert.match(refused(() => parseId(text), 'bad-id').hint ?? '', /10de:1b80/);
    });

  it('is not a slot: -s is for that', () => {
    assert.match(refused(() => parseId('04:00.0'), 'bad-id').hint ?? '', /it is a slot: -s 04:00\.0/);
  });

  it('appears in sysfs as two numbers', () => {
    assert.deepEqual(sysfsIds(parseId('10de:1b80')), ['0x10de', '0x1b80']);
  });
});

describe('a driver’s name', () => {
  for (const text of ['vfio-pci', 'none', 'snd_hda_intel', '8139too', 'mlx5_vfio_pci', 'a.b'])
    it(`'${text}' is one`, () => assert.equal(parseDriver(text), text));

  for (const text of [
    '',
    '.',
    '..',
    'a..b',
    '../x',
    'a/b',
    '-r',
    '_x',
    'a b',
    'a\n',
    'a@b',
    "a'b",
    '$(x)',
    'ä',
    'a'.repeat(65),
  ])
    it(`${JSON.stringify(text)} is none`, () => {
      refused(() => parseDriver(text), 'bad-driver');
    });

  it('a slot or an id in its place is reported as such', () => {
    for (const text of ['04:00.0', '10de:1b80'])
      assert.match(refused(() => parseDriver(text), 'bad-driver').hint ?? '', /looks like a device/);
  });

  it('recognizes vfio-pci and its variant drivers', () => {
    for (const name of ['vfio-pci', 'mlx5_vfio_pci', 'nvgrace_gpu_vfio_pci', 'nvgrace-gpu-vfio-pci'])
      assert.equal(isVfio(name), true, name);
    for (const name of [undefined, 'vfio', 'xvfio-pci', 'vfio-pci-core', 'uio_pci_generic', 'none'])
      assert.equal(isVfio(name), false, name);
  });
});
