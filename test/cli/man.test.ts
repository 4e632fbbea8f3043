/** Manual pages say of each command what its help says. */
import assert from 'node:assert/strict';
import {readdirSync, readFileSync} from 'node:fs';
import {join} from 'node:path';
import {manualPages} from '../../build/man.js';
import {overview, pages} from '../../build/man-pages.js';
import {body, parts} from '../../build/man-text.js';
import {commands, topics} from '../../src/entry/cli/command-table.js';
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

  it('are there for each topic of the command line, whose help names it', async () => {
    for (const topic of Object.keys(topics)) {
      const stdout = new Terminal(80);
      await main(['help', topic], {stdout, environment: {NO_COLOR: '1'}});
      const [, page = ''] = /`man (.*)`/.exec(stdout.text) ?? [];
      assert.equal(page, `pearasys-${topic}`);
      assert.ok(sources.has(`${page}.8`), page);
    }
  });

  it('are there where pages, units, rules and settings name them', () => {
    const known = new Set([overview, ...pages].map(({name, section}) => `${name}(${section})`));
    const repository = join(import.meta.dirname, '../..');
    const shipped = ['etc', 'initramfs', 'libexec', 'systemd-generators', 'systemd-templates', 'udev']
      .flatMap((folder) =>
        readdirSync(join(repository, folder), {recursive: true, withFileTypes: true}).filter((entry) =>
          entry.isFile(),
        ),
      )
      .map((entry) => readFileSync(join(entry.parentPath, entry.name), 'utf8'));
    const named = new Set(
      [...shipped, ...sources.values()].flatMap((text) =>
        [...text.matchAll(/\bpearasys[a-z@.-]*\(\d\)/g)].map(([reference]) => reference),
      ),
    );
    assert.ok(named.has('pearasys.conf(5)') && named.has('pearasys-guest@.service(8)'));
    assert.deepEqual(
      [...named].filter((reference) => !known.has(reference)),
      [],
    );
  });

  it('have the text of a document in the form of man(7)', () => {
    const lines = (markdown: string) =>
      body(parts(markdown)[0]?.tokens ?? [], (target, words) => `${words}<${target}>`);
    assert.deepEqual(lines("# T\n\n.a 'b' `c-d` [e](f.md)\n\n'g\n"), [
      '\\&.a \\(aqb\\(aq \\fBc\\-d\\fR e<f.md>',
      '.PP',
      '\\(aqg',
    ]);
    assert.deepEqual(lines('# T\n\n1. a\n\n   ```sh\n   b\\c\n   .d\n   ```\n\n2. **e**: é\n'), [
      '.IP 1. 4',
      'a',
      '.RS',
      '.PP',
      '.RS 4',
      '.EX',
      'b\\ec',
      '\\&.d',
      '.EE',
      '.RE',
      '.RE',
      '.IP 2. 4',
      '\\fBe\\fR: \\[u00E9]',
    ]);
    assert.deepEqual(lines('# T\n\n| a | b | c |\n| - | - | - |\n| `x\\|y` | 1 | 2 |\n'), [
      '.TP',
      '\\fBx|y\\fR',
      '1',
      '.br',
      'C: 2',
    ]);
    assert.throws(() => lines('# T\n\n> quoted\n'), /no form for the Markdown of a manual page: blockquote/);
  });
});
