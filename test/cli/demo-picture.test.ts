/** The README's picture shows what the demo prints. */
import assert from 'node:assert/strict';
import {readFileSync} from 'node:fs';
import {join} from 'node:path';
import {XMLParser} from 'fast-xml-parser';
import {demoOutput, picture, shownLines} from '../../build/picture.js';

const file = join(import.meta.dirname, '../../docs/demo.svg');

interface Drawn {
  readonly svg: {
    readonly '@_width': string;
    readonly text: readonly {readonly tspan: readonly Row[]}[];
  };
}

interface Row {
  readonly '#text': string;
  readonly '@_textLength': string;
}

function parse(svg: string): Drawn['svg'] {
  const parser = new XMLParser({
    ignoreAttributes: false,
    trimValues: false,
    parseTagValue: false,
    // Characters by their numbers.
    htmlEntities: true,
    isArray: (name) => name === 'text' || name === 'tspan',
  });
  return (parser.parse(svg) as Drawn).svg;
}

describe('the picture of the demo', () => {
  it('shows what the demo prints now (if not: make docs/demo.svg)', () => {
    const printed = demoOutput();
    const shown = parse(readFileSync(file, 'utf8')).text.map(({tspan}) =>
      tspan.map((row) => row['#text']).join(''),
    );
    assert.deepEqual(
      shown,
      shownLines(printed).filter((line) => line !== ''),
    );
    const lines = printed.split('\n');
    for (const line of shown) assert.ok(lines.includes(line), line);
    assert.ok(shown.filter((line) => line.startsWith('$ ')).length >= 4, shown.join('\n'));
  }).timeout(60_000);

  it('continues a line that is too long in the next row, within the picture', () => {
    const long = `pearasys: ${'<&> '.repeat(60)}end`;
    const svg = parse(picture([long]));
    const rows = svg.text.flatMap(({tspan}) => tspan);
    assert.ok(rows.length > 1);
    assert.equal(rows.map((row) => row['#text']).join(''), long);
    for (const row of rows) assert.ok(Number(row['@_textLength']) < Number(svg['@_width']));
  });

  it('is not made without one of its scenes', () => {
    assert.throws(() => shownLines('== Another scene\n$ pearasys list\n'), /has no scene/);
  });
});
