import assert from 'node:assert/strict';
import stringWidth from 'string-width';
import {printTable, type Column} from '../../src/entry/cli/table.js';
import {Terminal} from '../cli/runs.js';

const columns: readonly Column[] = [
  {head: 'SLOT'},
  {head: 'DRIVER', shrinks: true},
  {head: 'GROUP'},
  {head: 'NAME', shrinks: true},
];
const narrow = ['0000:01:00.0', 'nouveau', '1', 'NVIDIA Corporation GP104 [GeForce GTX 1080]'];
const wide = ['0000:02:00.0', 'vfio-pci', '14', '株式会社バッファロー ネットワークカード 高速版'];
/** Outside of the Basic Multilingual Plane: two units of UTF-16 each. */
const astral = ['0000:03:00.0', '-', '-', '𠮷𠮷𠮷𠮷𠮷𠮷𠮷𠮷𠮷𠮷𠮷𠮷𠮷𠮷𠮷𠮷𠮷𠮷𠮷𠮷'];

async function lines(
  width: number,
  rows: readonly (readonly string[])[],
  {colors = false, of = columns} = {},
): Promise<string[]> {
  return (await printTable(new Terminal(width), colors, of, rows)).split('\n');
}

/** Where the last column begins on the screen. */
function lastColumn(line: string, cell: string): number {
  assert.ok(line.includes(cell), line);
  return stringWidth(line.slice(0, line.indexOf(cell)));
}

describe('a table on a terminal', () => {
  it('has columns as wide as their widest cells where there is room', async () => {
    assert.deepEqual(await lines(200, [narrow, wide]), [
      'SLOT          DRIVER    GROUP  NAME',
      '0000:01:00.0  nouveau   1      NVIDIA Corporation GP104 [GeForce GTX 1080]',
      '0000:02:00.0  vfio-pci  14     株式会社バッファロー ネットワークカード 高速版',
    ]);
  });

  it('cuts the cells of the columns that shrink, the widest first', async () => {
    assert.deepEqual(await lines(60, [narrow]), [
      'SLOT          DRIVER   GROUP  NAME',
      '0000:01:00.0  nouveau  1      NVIDIA Corporation GP104 [GeF…',
    ]);
    const holders = ['0000:04:00.0', 'a-driver-with-a-long-name', '1', 'a device with a long name as well'];
    assert.deepEqual(await lines(60, [holders]), [
      'SLOT          DRIVER              GROUP  NAME',
      '0000:04:00.0  a-driver-with-a-l…  1      a device with a l…',
    ]);
  });

  for (const width of [40, 60, 80, 100])
    it(`fits into ${width} columns, also with wide characters`, async () => {
      for (const line of await lines(width, [narrow, wide, astral]))
        assert.ok(stringWidth(line) <= width, `${stringWidth(line)}: ${line}`);
    });

  it('cuts the ends of lines where even the narrowest columns have no room', async () => {
    assert.deepEqual(await lines(30, [narrow]), [
      'SLOT          DRIVER   GROUP …',
      '0000:01:00.0  nouveau  1     …',
    ]);
  });

  it('aligns what follows wide characters', async () => {
    const of = [{head: 'NAME', shrinks: true}, {head: 'SLOT'}];
    for (const width of [80, 40]) {
      const [head = '', ...rest] = await lines(
        width,
        [narrow, wide, astral].map((row) => [row[3] ?? '', row[0] ?? '']),
        {of},
      );
      for (const [index, {0: slot = ''}] of [narrow, wide, astral].entries())
        assert.equal(lastColumn(rest[index] ?? '', slot), lastColumn(head, 'SLOT'));
    }
  });

  it('never cuts a character in half', async () => {
    for (let width = 36; width < 60; width++)
      for (const line of await lines(width, [astral])) assert.doesNotMatch(line, /\p{Cs}/u);
  });

  it('prints text that others chose without what would change the terminal', async () => {
    const hostile = ['0000:01:00.0', '\u001b[2J\u009b31m', '\n', `\u001b]0;title\u0007 ${'x'.repeat(80)}`];
    for (const width of [200, 40]) {
      const text = (await lines(width, [hostile])).join('\n');
      assert.doesNotMatch(text, /(?!\n)\p{Cc}/u);
      assert.equal(text.split('\n').length, 2);
      assert.ok(text.includes('\\x1b[2J'), text);
    }
  });

  it('has bold heads where colors are wanted, and the same text', async () => {
    for (const width of [200, 60, 30]) {
      const [head, ...rest] = await lines(width, [narrow], {colors: true});
      const [plainHead, ...plainRest] = await lines(width, [narrow]);
      assert.equal(head, `\u001b[1m${plainHead ?? ''}\u001b[22m`);
      assert.deepEqual(rest, plainRest);
    }
  });
});
