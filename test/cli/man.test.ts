/** Manual pages say of each command what its help says. */
import assert from 'node:assert/strict';
import {manualPages} from '../../build/man.js';
import {overview, pages} from '../../build/man-pages.js';
import {commands} from '../../src/entry/cli/command-table.js';
import {main} from '../../src/entry/cli/main.js';
import {Terminal} from './runs.js';

/** Words as a reader sees them, without the spaces between them and without marks of code. */
const flat = (text: string) => text.replaceAll('`', '').replaceAll(/\s+/g, ' ');

/** A page's source as a reader sees it. */
const shown = (source: string) =>
  flat(
    source
      .replaceAll(/^\.(?:TP|PP|RS|RE|EX|EE|br|IP).*$/gm, '')
      .replaceAll(/\\f[BIR]/g, '')
      .replaceAll(/^\\&/gm, '')
      .replaceAll('\\(ga', '')
      .replaceAll('\\(aq', "'")
      .replaceAll('\\(ha', '^')
      .replaceAll('\\(ti', '~')
      .replaceAll('\\-', '-')
      .replaceAll('\\e', '\\'),
  ).toLowerCase();

/** The sections of a command's help: each entry of a list, paragraph or example. */
function statements(help: string): string[] {
  return help.split(/\n(?=[A-Z])/).flatMap((section) => {
    const [heading = '', ...lines] = section.split('\n');
    const text = lines.join('\n');
    if (/^(?:ARGUMENTS|FLAGS|GLOBAL FLAGS)$/.test(heading)) return text.split(/\n(?= {2,6}\S)/);
    if (heading === 'USAGE') return [text.replace('$ ', '')];
    return text.split('\n\n').map((each) => each.replace(/^ *\$ /, ''));
  });
}

describe('manual pages', () => {
  let sources: ReadonlyMap<string, string>;
  before(async () => {
    sources = new Map((await manualPages('/etc/pearasys')).map(({file, text}) => [file, shown(text)]));
  });

  for (const [id, {hidden}] of Object.entries(commands)) {
    if (hidden === true) continue;
    const page = [overview, ...pages].find(({commands: words}) =>
      words?.some((word) => id === word || id.startsWith(`${word}:`)),
    );

    it(`${page?.name ?? 'none'}: says what \`pearasys help ${id.replaceAll(':', ' ')}\` says`, async () => {
      const stdout = new Terminal(80);
      await main(['help', ...id.split(':')], {stdout, environment: {NO_COLOR: '1'}});
      const source = sources.get(`${page?.name ?? ''}.8`) ?? '';
      const found = statements(stdout.text).map((each) => flat(each).trim().toLowerCase());
      assert.ok(found.length > 5, stdout.text);
      for (const each of found) assert.ok(source.includes(each), each);
    });
  }

  it('name only pages that there are', () => {
    const known = new Set([overview, ...pages].map(({name, section}) => `${name}(${section})`));
    for (const source of sources.values())
      for (const [reference] of source.matchAll(/\bpearasys[a-z@.-]*\(\d\)/g))
        assert.ok(known.has(reference), reference);
  });
});
