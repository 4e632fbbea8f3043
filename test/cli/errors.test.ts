import assert from 'node:assert/strict';
import {describeError, suggest, type ErrorDocument} from '../../src/entry/cli/report-error.js';
import {ExitCode, PearasysError} from '../../src/host/errors.js';
import {version} from '../../src/entry/cli/version.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {typed} from './runs.js';

describe('errors on the command line', () => {
  let host: SimulatedHost;
  before(() => (host = SimulatedHost.standard()));
  after(() => host.dispose());

  const usage: [line: string, message: string, hint: string][] = [
    ['lst', "unknown command 'lst', did you mean 'list'?", 'pearasys list --help'],
    ['bnd vfio-pci x', "unknown command 'bnd', did you mean 'bind'?", 'pearasys bind --help'],
    ['unbnd 02:00.0 --force', "unknown command 'unbnd', did you mean 'unbind'?", 'pearasys unbind --help'],
    [
      'service instal vfio-pci',
      "unknown command 'service instal', did you mean 'service install'?",
      'pearasys service install --help',
    ],
    [
      'mdev strt x y',
      "unknown command 'mdev strt', did you mean 'mdev start'?",
      'pearasys mdev start --help',
    ],
    ['frobnicate', "unknown command 'frobnicate'", 'pearasys --help'],
    ['frobnicate vfio-pci 02:00.0', "unknown command 'frobnicate'", 'pearasys --help'],
    ['list --jsn', 'this command has no option --jsn', '--json, or --help for all options'],
    ['list --frobnicate', 'this command has no option --frobnicate', 'the same command with --help'],
    ['-s 04:00.0 list', 'this command has no option -s', 'the same command with --help'],
    ['list extra', 'unexpected argument: extra', 'the same command with --help'],
    ['show', 'missing: DEVICE', 'the same command with --help'],
    ['list --group', 'flag --group expects a value', 'the same command with --help'],
    ['bind vfio-pci 04:00.0 --timeout soon', 'parsing --timeout', 'the same command with --help'],
    ['bind vfio-pci 04:00.0 --timeout 0', 'parsing --timeout', 'the same command with --help'],
  ];
  for (const [line, message, hint] of usage)
    it(`${line}: exit code 2`, async () => {
      const {exitCode, stdout, stderr} = await typed(host, line);
      assert.equal(exitCode, ExitCode.usage);
      assert.equal(stdout, '');
      const lines = stderr.trimEnd().split('\n');
      assert.equal(lines[0], `pearasys: ${message}`);
      assert.equal(lines.at(-1), `try: ${hint}`);
      assert.doesNotMatch(stderr, /\bat .*\.[jt]s:/);
      assert.deepEqual(host.effects(), []);
    });

  it('with --json it is a document on standard output too, and keeps its exit code', async () => {
    for (const [line, code, expected] of [
      ['show 03:00.7 --json', 'no-device', ExitCode.noDevice],
      ['--json lst', 'usage', ExitCode.usage],
      ['list --json --jsn', 'usage', ExitCode.usage],
      ['list --json --id 1', 'bad-id', ExitCode.usage],
    ] as const) {
      const {exitCode, stdout, stderr} = await typed(host, line);
      const {error} = JSON.parse(stdout) as ErrorDocument;
      assert.equal(exitCode, expected);
      assert.equal(error.exitCode, expected);
      assert.equal(error.code, code);
      assert.equal(stderr.split('\n')[0], `pearasys: ${error.message}`);
    }
  });

  it('--debug shows the stack', async () => {
    const {stderr} = await typed(host, 'show 03:00.7 --debug');
    assert.match(stderr, /\n {4}at /);
  });

  it('prints details indented, then the hint', () => {
    const error = new PearasysError({
      code: 'in-use',
      exitCode: ExitCode.refused,
      message: 'it is in use',
      details: ['by one', 'by two'],
      hint: 'end it',
    });
    assert.deepEqual(describeError(error), {
      error: {
        code: 'in-use',
        message: 'it is in use',
        details: ['by one', 'by two'],
        hint: 'end it',
        exitCode: 3,
      },
    });
  });

  it('treats anything else as an internal error', () => {
    const {error} = describeError(new TypeError('x is not a function'));
    assert.equal(error.code, 'internal');
    assert.equal(error.exitCode, ExitCode.failed);
    assert.equal(error.message, 'internal error: x is not a function');
  });

  it('suggests only near words', () => {
    assert.equal(suggest('lisst', ['list', 'show']), 'list');
    assert.equal(suggest('frobnicate', ['list', 'show']), undefined);
    assert.equal(suggest('x', []), undefined);
  });

  it('in a unit, lines carry the priority of the journal', async () => {
    const environment = {JOURNAL_STREAM: '8:1'};
    const {stderr} = await typed(host, 'show 03:00.7', {environment});
    for (const line of stderr.trimEnd().split('\n')) assert.match(line, /^<3>/);
  });
});

describe('help and version', () => {
  let host: SimulatedHost;
  before(() => (host = SimulatedHost.standard()));
  after(() => host.dispose());

  it('--version', async () => {
    const {exitCode, stdout} = await typed(host, '--version');
    assert.equal(exitCode, 0);
    assert.equal(stdout, `pearasys ${version}\n`);
  });

  it('--help names every command, and the exit codes', async () => {
    const {exitCode, stdout} = await typed(host, '--help');
    assert.equal(exitCode, 0);
    for (const word of ['list', 'show', 'bind', 'unbind', 'pci', 'service install', 'service uninstall'])
      assert.match(stdout, new RegExp(`^  ${word}  `, 'm'));
    assert.match(stdout, /^ {2}5 {2}stuck: a write to the kernel did not return$/m);
    for (const line of stdout.split('\n')) assert.ok(line.length <= 110, line);
  });

  it('help on a command names its flags', async () => {
    for (const line of ['list --help', 'help list', '--help list']) {
      const {exitCode, stdout} = await typed(host, line);
      assert.equal(exitCode, 0);
      assert.match(stdout, /--class=WORD/);
      assert.match(stdout, /GLOBAL FLAGS/);
    }
  });

  it('names of inherited properties are ordinary words', async () => {
    for (const word of ['constructor', '__proto__', 'toString'])
      for (const line of [
        `-s ${word}`,
        `--${word}`,
        word,
        `list --${word}`,
        `list --class ${word}`,
        `help ${word}`,
      ]) {
        const {exitCode, stderr} = await typed(host, line);
        assert.equal(exitCode, 2, line);
        assert.doesNotMatch(stderr, /internal error/);
      }
  });

  it('the beginning of commands lists them', async () => {
    const {exitCode, stdout} = await typed(host, 'service');
    assert.equal(exitCode, 0);
    assert.match(stdout, /service install/);
    assert.doesNotMatch(stdout, /^ {2}bind/m);
  });
});
