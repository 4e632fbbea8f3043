import {spawn, type ChildProcess, type SpawnOptions} from 'node:child_process';
import {setTimeout as wait} from 'node:timers/promises';
import {CommandError, errnoOf, explainErrno} from './errors.js';

/** Settings of {@link runProgram}. */
export interface ProgramOptions {
  readonly env: NodeJS.ProcessEnv;
  /** What it reads on standard input; nothing where undefined. */
  readonly input: string | undefined;
  /** Milliseconds after which it is ended. */
  readonly limit: number;
  /** Bytes that it may print on each of its outputs. */
  readonly outputLimit: number;
}

/** What became of a program. */
export interface ProgramResult {
  /** Undefined when it was ended by a signal. */
  readonly status: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
  /** Why it was ended by us; undefined when it ended by itself. */
  readonly ended?: 'late' | 'overflow';
}

/** Milliseconds that a program has to end by itself, to be killed, and for what it has started to close its output. */
const delay = 1000;

/**
 * Starts a program, without a shell.
 * @throws CommandError when it cannot be started: missing, not executable, no memory, too many files or processes.
 */
export async function startProgram(
  file: string,
  args: readonly string[],
  options: SpawnOptions,
): Promise<ChildProcess> {
  let child: ChildProcess;
  try {
    // It throws some errors and tells others as an event; after EMFILE the child has no streams either.
    child = spawn(file, args, options);
    await new Promise((resolve, reject) => {
      child.once('spawn', resolve);
      child.once('error', reject);
    });
  } catch (error) {
    throw new CommandError(file, args, undefined, explainErrno(errnoOf(error)));
  }
  return child;
}

/**
 * Runs a program to its end, without a shell, in a session of its own: an interrupt at the terminal is for us, who
 * must undo; the program that runs finishes its work. When it does not end in time or prints too much, all of its
 * group of processes is ended. This returns in time whatever it does: a process that ignores signals, waits in the
 * kernel, or has left the group is left behind with its output closed.
 * @throws CommandError when it cannot be started.
 */
export async function runProgram(
  file: string,
  args: readonly string[],
  {env, input, limit, outputLimit}: ProgramOptions,
): Promise<ProgramResult> {
  const child = await startProgram(file, args, {
    detached: true,
    env,
    stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
  });
  // One that does not read all of it is no failure.
  child.stdin?.on('error', () => undefined);
  child.stdin?.end(input);
  const exit = new Promise((resolve) => child.once('exit', resolve));
  const closed = new Promise((resolve) => child.once('close', resolve));
  const outputs = [child.stdout, child.stderr].map((stream) => collect(stream, outputLimit));
  const patience = new AbortController();
  let why = await Promise.race([
    exit.then(() => undefined),
    wait(limit, 'late' as const, {signal: patience.signal}).catch(() => undefined),
    ...outputs.map(({overflow}) => overflow),
  ]);
  patience.abort();
  if (why === undefined) {
    await within(closed);
    if (outputs.some(({isFull}) => isFull())) why = 'overflow';
  } else {
    signalGroup(child, 'SIGTERM');
    await within(exit);
    // What it has started may live on, ignoring the first signal.
    signalGroup(child, 'SIGKILL');
    await within(exit);
  }
  for (const stream of [child.stdin, child.stdout, child.stderr]) stream?.destroy();
  child.unref();
  const [stdout = '', stderr = ''] = outputs.map(({text}) => text());
  return {
    status: child.exitCode ?? undefined,
    stdout,
    stderr,
    ...(why === undefined ? {} : {ended: why}),
  };
}

interface Collected {
  /** Resolves when there is more than the limit. */
  readonly overflow: Promise<'overflow'>;
  readonly isFull: () => boolean;
  /** Without its last newline. */
  readonly text: () => string;
}

function collect(stream: NodeJS.ReadableStream | null, limit: number): Collected {
  const chunks: Buffer[] = [];
  let total = 0;
  const overflow = new Promise<'overflow'>((resolve) => {
    stream?.on('data', (chunk: Buffer) => {
      total += chunk.length;
      if (total <= limit) {
        chunks.push(chunk);
        return;
      }
      stream.pause();
      resolve('overflow');
    });
  });
  return {
    overflow,
    isFull: () => total > limit,
    text: () => Buffer.concat(chunks).toString().replace(/\n$/, ''),
  };
}

/** Waits for something that may not come. */
async function within(event: Promise<unknown>): Promise<void> {
  const patience = new AbortController();
  await Promise.race([event, wait(delay, undefined, {signal: patience.signal}).catch(() => undefined)]);
  patience.abort();
}

/** Signals all processes of the group that a program leads. */
function signalGroup({pid}: ChildProcess, signal: 'SIGTERM' | 'SIGKILL'): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, signal);
  } catch (error) {
    // None is left, or only processes of somebody else: nothing more can be done.
    if (errnoOf(error) !== 'ESRCH' && errnoOf(error) !== 'EPERM') throw error;
  }
}
