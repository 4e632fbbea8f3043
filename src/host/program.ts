import {spawn, type ChildProcess, type SpawnOptions} from 'node:child_process';
import {closeSync, openSync} from 'node:fs';
import {setTimeout as wait} from 'node:timers/promises';
import {CommandError, errnoOf, explainErrno} from './errors.js';

/** Settings of {@link runProgram}. */
interface ProgramOptions {
  readonly env: NodeJS.ProcessEnv;
  /** What it reads on standard input; undefined for nothing. */
  readonly input: string | undefined;
  /** Milliseconds after which it is killed. */
  readonly limit: number;
  /** Bytes that it may print on each of its outputs. */
  readonly outputLimit: number;
}

/** How a program ended. */
interface ProgramResult {
  /** Undefined when it was killed by a signal. */
  readonly status: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
  /** Why it was killed here; undefined when it exited normally. */
  readonly ended?: 'late' | 'overflow';
}

/** Milliseconds for a program to exit after SIGTERM, to be killed, and for its children to close its output. */
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
    // It throws some errors and emits others as events; after EMFILE the child has no streams either.
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
 * Runs a program to its end, without a shell, in its own session: an interrupt at the terminal reaches only this
 * process, which undoes its steps, while the program finishes its work. If it takes too long or prints too much, its
 * process group is killed. This returns in time in any case: a process that ignores signals, is blocked in the
 * kernel, or has left the group is left behind with its output closed.
 * @throws CommandError when it cannot be started.
 */
export async function runProgram(
  file: string,
  args: readonly string[],
  {env, input, limit, outputLimit}: ProgramOptions,
): Promise<ProgramResult> {
  // Slow to load, and most runs of a handler start no program.
  const {execa} = await import('execa');
  // Without free descriptors Node's child has no streams, which execa does not expect.
  requireDescriptors(file, args);
  const running = execa(file, args, {
    reject: false,
    extendEnv: false,
    env,
    ...(input === undefined ? {stdin: 'ignore' as const} : {input}),
    timeout: limit,
    forceKillAfterDelay: delay,
    // maxBuffer counts bytes only of output that is not decoded.
    encoding: 'buffer',
    maxBuffer: outputLimit,
    detached: true,
    cleanup: false,
  });
  const closeOutput = () => {
    running.stdout.destroy();
    running.stderr.destroy();
  };
  // Processes in the background may keep the output open.
  running.once('exit', () => setTimeout(closeOutput, delay).unref());
  // A signal does not end a program that is blocked in the kernel, such as modprobe in a driver's probe.
  const patience = new AbortController();
  const result = await Promise.race([
    running,
    wait(limit + 3 * delay, undefined, {signal: patience.signal}).catch(() => undefined),
  ]);
  patience.abort();
  if (result === undefined || result.timedOut || result.isMaxBuffer) {
    killGroup(running);
    closeOutput();
    running.unref();
  } else if (result.exitCode === undefined && result.signal === undefined)
    throw new CommandError(file, args, undefined, explainErrno(result.code ?? 'EUNKNOWN'));
  const text = (bytes: Uint8Array | undefined) => Buffer.from(bytes ?? []).toString();
  return {
    status: result?.exitCode,
    stdout: text(result?.stdout),
    stderr: text(result?.stderr),
    ...(result === undefined || result.timedOut
      ? {ended: 'late' as const}
      : result.isMaxBuffer
        ? {ended: 'overflow' as const}
        : {}),
  };
}

/** Descriptors that a start needs for a moment: two for each pipe, and those of the new process. */
const startDescriptors = 12;

/** @throws CommandError when this process or the machine has too few descriptors left to start a program. */
function requireDescriptors(file: string, args: readonly string[]): void {
  const taken: number[] = [];
  try {
    for (let left = startDescriptors; left > 0; left--) taken.push(openSync('/dev/null', 'r'));
  } catch (error) {
    throw new CommandError(file, args, undefined, explainErrno(errnoOf(error)));
  } finally {
    for (const each of taken) closeSync(each);
  }
}

/** Kills the process group of a program. */
function killGroup({pid}: {readonly pid?: number | undefined}): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch (error) {
    // None is left, or only processes of other users: nothing more can be done.
    if (errnoOf(error) !== 'ESRCH' && errnoOf(error) !== 'EPERM') throw error;
  }
}
