import assert from 'node:assert/strict';
import {PearasysError} from '../../src/host/errors.js';
import {isVfio, parseDriver} from '../../src/pci/driver.js';
import {asId, parseId, sysfsIds} from '../../src/pci/id.js';
import {asSlot, cardOf, parseSlot} from '../../src/pci/slot.js';

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
    ['00010000:e1:00.0', '00010000:e1:00.0'],
  ] as const)
    it(`'${text}' is ${slot}`, () => assert.equal(parseSlot(text), slot));

  for (const text of [
    '',
    '04:00',
    '4:00.0',
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

  it('is in sysfs as two numbers', () => {
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

  it('a slot or an id in its place is told as such', () => {
    for (const text of ['04:00.0', '10de:1b80'])
      assert.match(refused(() => parseDriver(text), 'bad-driver').hint ?? '', /looks like a device/);
  });

  it('tells VFIO’s own and variant drivers', () => {
    for (const name of ['vfio-pci', 'mlx5_vfio_pci', 'nvgrace_gpu_vfio_pci', 'nvgrace-gpu-vfio-pci'])
      assert.equal(isVfio(name), true, name);
    for (const name of [undefined, 'vfio', 'xvfio-pci', 'vfio-pci-core', 'uio_pci_generic', 'none'])
      assert.equal(isVfio(name), false, name);
  });
});
