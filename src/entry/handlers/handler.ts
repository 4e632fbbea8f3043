import {writeFully} from '../../host/descriptor.js';
import {ExitCode, PearasysError, usageError} from '../../host/errors.js';
import type {Host} from '../../host/host.js';
import {readLayout, type Layout} from '../../config/layout.js';
import {journalLines} from '../../host/log.js';
import {MachineHost} from '../../host/machine-host.js';
import {printable, printableLine} from '../../host/printable.js';
import type {CarryOutOptions, Outcome} from '../../engine/carry-out.js';
import type {JournalLog} from '../../operations/turns.js';

/** The context of a handler. */
export interface HandlerContext {
  readonly host: Host;
  readonly layout: Layout;
  readonly log: JournalLog;
  /** systemd has ended this run: it must undo its steps. */
  readonly signal?: AbortSignal;
}

/** A handler: the work of a program of libexec when its fast path could not decide. */
export type Handler = (context: HandlerContext, args: readonly string[]) => Promise<void>;

/** Milliseconds that one write may take, well below the unit's TimeoutSec, so that the reason can still be logged. */
const writeLimit = 15_000;

/**
 * Milliseconds to wait for another run that works on the device: the unit's time limit (TimeoutSec=), less the time to
 * log the reason.
 */
export const unitPatience = 90_000;

/** Runs the handler on this machine, with the arguments of the process, and sets the exit code. */
export async function runHandler(handler: Handler): Promise<void> {
  const host = new MachineHost();
  const log: JournalLog = (priority, text) => {
    // Not process.stderr: Node is slow to make that stream, and loading pino would take longer than most handlers.
    // If the write fails, there is nowhere to report that, and the work goes on.
    writeFully(2, journalLines(priority, printable(text)));
  };
  const controller = new AbortController();
  process.once('SIGTERM', () => controller.abort());
  try {
    await host.findLocked(writeLimit);
    await handler(
      {host, layout: readLayout(import.meta.dirname), log, signal: controller.signal},
      process.argv.slice(2),
    );
  } catch (error) {
    process.exitCode = report(error, log);
  } finally {
    await host.close();
  }
}

/** Logs an error to the journal. @returns its exit code. */
export function report(error: unknown, log: JournalLog): ExitCode {
  if (!(error instanceof PearasysError)) {
    log(
      3,
      `internal error in pearasys: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`,
    );
    return ExitCode.failed;
  }
  log(3, printableLine(error.message));
  for (const line of error.details) log(3, printableLine(`  ${line}`));
  if (error.hint !== undefined) log(3, printableLine(`  try: ${error.hint}`));
  return error.exitCode;
}

/** The arguments of a handler. @throws PearasysError `usage` when there are more or fewer. */
export function takeArguments<const Names extends readonly string[]>(
  args: readonly string[],
  names: Names,
): {[Index in keyof Names]: string} {
  if (args.length !== names.length)
    throw usageError(`expected ${names.join(' ')}, got ${args.length === 0 ? 'nothing' : args.join(' ')}`);
  return args as unknown as {[Index in keyof Names]: string};
}

/** The options with which handlers carry out plans: steps and notes go to the journal. */
export function handlerOptions({log, signal}: HandlerContext): CarryOutOptions {
  return {
    limit: writeLimit,
    ...(signal === undefined ? {} : {signal}),
    dryRun: false,
    onStep: (line, undoing) => log(undoing ? 4 : 7, undoing ? `undoing: ${line}` : line),
    onNote: (note) => log(4, printableLine(note)),
  };
}

/** Logs the result of a plan to the journal. */
export function logOutcome(log: JournalLog, outcome: Outcome, done: string, nothing: string): void {
  log(6, outcome.changed ? done : nothing);
}
