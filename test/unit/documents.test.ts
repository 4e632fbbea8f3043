/** The documents: their links lead somewhere, and their command lines exist. */
import assert from 'node:assert/strict';
import {existsSync, readdirSync, readFileSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {BaseCommand} from '../../src/entry/cli/base-command.js';
import {commands} from '../../src/entry/cli/command-table.js';
import {exitCodeMeanings} from '../../src/host/errors.js';

const repository = join(import.meta.dirname, '../..');
const documents = [
  ...readdirSync(repository).filter((name) => name.endsWith('.md')),
  ...readdirSync(join(repository, 'docs'))
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
];

/** The text without what is in code. */
const prose = (text: string) => text.replace(/^```[^]*?^```$/gm, '').replace(/`[^`\n]*`/g, '');

/** The anchors of headings, as GitHub makes them. */
const anchors = (text: string) =>
  [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-'),
  );

/** The command lines that begin with `pearasys`, in code blocks and in code within a line. */
function commandLines(text: string): string[] {
  const blocks = [...text.matchAll(/^```\w*\n([^]*?)^```$/gm)].flatMap(([, block = '']) => block.split('\n'));
  const spans = [...text.replace(/^```[^]*?^```$/gm, '').matchAll(/`([^`\n]+)`/g)].map(
    ([, span = '']) => span,
  );
  return [...blocks, ...spans].flatMap((line) => {
    const [, command] = /(?:^|[(]|\$ |sudo )pearasys( [^#|>;)]*)?/.exec(line.trim()) ?? [];
    return command === undefined ? [] : [command.trim()];
  });
}

/** The rows of the tables that begin with a number, as `0 | done`. */
const numberedRows = (text: string) =>
  [...text.matchAll(/^\| (\d) +\| (.*?) +\|$/gm)].map(([, number = '', words = '']) => `${number} ${words}`);

const options = new Set(['-h', '--help', '--version', '-s', '-d', '--slot', '--id', '--pid']);

describe('the documents', () => {
  it('exit codes mean what the program says, on the one page that lists them', () => {
    const listing = documents
      .map((name) => ({name, rows: numberedRows(readFileSync(join(repository, name), 'utf8'))}))
      .filter(({rows}) => rows.length > 0);
    const rows = Object.entries(exitCodeMeanings).map((row) => row.join(' '));
    assert.deepEqual(listing, [{name: 'docs/commands.md', rows}]);
  });

  for (const name of documents) {
    const text = readFileSync(join(repository, name), 'utf8');

    it(`${name}: links lead to a file or a heading that is there`, () => {
      for (const [, target = ''] of prose(text).matchAll(/\]\(([^)]+)\)/g)) {
        if (/^https?:/.test(target)) continue;
        const [path = '', anchor] = target.split('#');
        const file = path === '' ? join(repository, name) : join(repository, dirname(name), path);
        assert.ok(existsSync(file), target);
        if (anchor !== undefined) assert.ok(anchors(readFileSync(file, 'utf8')).includes(anchor), target);
      }
    });

    it(`${name}: command lines name commands and options that exist`, async () => {
      for (const line of commandLines(text)) {
        const words = line.split(/\s+/).map((word) => word.replace(/^["'[]|["'\].,:]+$/g, ''));
        const verbs = words.filter((word) => /^[a-z][a-z-]*$/.test(word));
        const [first = '', second = ''] = verbs;
        if (first === 'help' || first === '') continue;
        const id = [`${first}:${second}`, first].find((each) => each in commands);
        const isTopic = Object.keys(commands).some((each) => each.startsWith(`${first}:`));
        assert.ok(id !== undefined || (isTopic && second === ''), `pearasys ${line}`);
        if (id === undefined) continue;
        const {default: command} = (await commands[id]?.load()) ?? {};
        const flags = {...BaseCommand.baseFlags, ...command?.flags};
        const known = new Set([
          ...options,
          ...Object.entries(flags).flatMap(([flag, {char, aliases = []}]) => [
            `--${flag}`,
            ...aliases.map((alias) => `--${alias}`),
            ...(char === undefined ? [] : [`-${char}`]),
          ]),
        ]);
        // A chain's own options are its links'.
        if (id === 'pci') known.add('--driver');
        for (const word of words.filter((each) => each.startsWith('-')))
          assert.ok(known.has(word.replace(/=.*/, '')), `${word} of pearasys ${line}`);
      }
    });
  }
});
