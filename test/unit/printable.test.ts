import assert from 'node:assert/strict';
import {printable, printableLine} from '../../src/host/printable.js';

describe('text that others chose', () => {
  const cases: [what: string, text: string, line: string][] = [
    ['an escape sequence', 'a\u001b[31mb', 'a\\x1b[31mb'],
    ['a title, ended by a bell', '\u001b]0;x\u0007', '\\x1b]0;x\\x07'],
    ['C1 controls', 'a\u009b31mb\u0085', 'a\\u009b31mb\\u0085'],
    ['carriage return and backspace', 'good\rbad\b', 'good\\x0dbad\\x08'],
    ['NUL and DEL', '\u0000\u007f', '\\x00\\u007f'],
    ['what turns the direction', 'a\u202eb\u2066c\u200f', 'a\\u202eb\\u2066c\\u200f'],
    ['what cannot be seen', 'a\u200bb\ufeff\u{e0041}', 'a\\u200bb\\ufeff\\udb40\\udc41'],
    ['other ends of a line', 'a\u2028b\u2029', 'a\\u2028b\\u2029'],
    ['half a character', 'a\ud800b', 'a\\ud800b'],
  ];
  for (const [what, text, expected] of cases)
    it(`${what} is escaped`, () => {
      assert.equal(printable(text), expected);
      assert.equal(printableLine(text), expected);
      assert.deepEqual(JSON.parse(printable(JSON.stringify({text}, null, 2))), {text});
    });

  it('all other text stays as it is', () => {
    for (const text of ['Größe 10 µ, 日本語, 🎮 ~', 'a\\x1b', '']) assert.equal(printableLine(text), text);
    assert.equal(printable('a\tb\nc\n'), 'a\tb\nc\n');
  });

  it('a line stays one line, and is cut when it is very long', () => {
    assert.equal(printableLine('a\nb\tc'), 'a\\x0ab\\x09c');
    assert.equal(printableLine('x'.repeat(4096)).length, 4096);
    assert.equal(printableLine('x'.repeat(100_000)), `${'x'.repeat(4096)}… (100000 characters)`);
  });
});
