import assert from 'node:assert/strict';
import {PassThrough} from 'node:stream';
import {main, type MainOptions} from '../../src/entry/cli/main.js';
import type {Output} from '../../src/entry/cli/output.js';
import type {SimulatedHost} from '../simulated-host/simulated-host.js';

/** What a command line left. */
export interface Run {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

class Collector implements Output {
  readonly isTerminal = false;
  readonly columns = 80;
  /** As a pipe has it; a test says with JOURNAL_STREAM whether it is the journal's. */
  readonly file = '8:1';
  text = '';

  write(text: string): void {
    this.text += text;
  }
}

/** What a person looks at. */
export class Terminal implements Output {
  readonly isTerminal = true;
  readonly columns: number;
  text = '';

  constructor(columns: number) {
    this.columns = columns;
  }

  write(text: string): void {
    this.text += text;
  }
}

/** Runs a command line in this process; each option and argument a word, as the shell would give them. */
export async function run(
  host: SimulatedHost,
  argv: readonly string[],
  options: Partial<MainOptions> = {},
): Promise<Run> {
  const stdout = new Collector();
  const stderr = new Collector();
  const exitCode = await main(argv, {
    host,
    stdout,
    stderr,
    interactive: false,
    environment: {},
    ...options,
  });
  return {exitCode, stdout: stdout.text, stderr: stderr.text};
}

/** Runs a command line without quotes, cut at its blanks. */
export function typed(host: SimulatedHost, line: string, options: Partial<MainOptions> = {}): Promise<Run> {
  return run(host, line.split(' '), options);
}

/** Runs a command line for a person at a terminal, who types at each question once it is on the screen. */
export async function answer(
  host: SimulatedHost,
  argv: readonly string[],
  ...keys: readonly [RegExp, string][]
): Promise<Run> {
  const input = new PassThrough();
  const output = new PassThrough();
  // Each question pipes to it, and the end of a question does not end a terminal.
  output.end = () => output;
  let screen = '';
  const left = [...keys];
  output.on('data', (data: Buffer) => {
    // Each picture begins where the one before it was erased.
    const pictures = (screen + data.toString()).split('\u001b[G');
    screen = pictures.at(-1) ?? '';
    // eslint-disable-next-line no-control-regex -- colors and movements of the cursor
    const text = screen.replaceAll(/\u001b\[[\d;?]*[A-Za-z]/g, '').replaceAll(/\s+/g, ' ');
    const [next] = left;
    if (next?.[0].test(text) !== true) return;
    left.shift();
    setImmediate(() => input.write(next[1]));
  });
  const result = await run(host, argv, {interactive: true, terminal: {input, output}});
  assert.deepEqual(left, [], screen);
  return result;
}

/** Like {@link typed}, for a command that must succeed; then waits for what udev and systemd do because of it. */
export async function succeeds(host: SimulatedHost, line: string): Promise<Run> {
  const run = await typed(host, line);
  assert.equal(run.exitCode, 0, run.stderr);
  await host.userland.idle();
  return run;
}
