import {explainErrno} from './errno.js';

export {errnoOf, explainErrno} from './errno.js';

/**
 * How a run ends. Scripts and units depend on these numbers.
 *
 * 0 done, or nothing to do; 1 failed, and everything done was undone; 2 wrong usage; 3 refused before any effect
 * (in use, group not viable, identity mismatch); 4 no such device; 5 a write to the kernel did not return.
 */
export const ExitCode = {
  done: 0,
  failed: 1,
  usage: 2,
  refused: 3,
  noDevice: 4,
  stuck: 5,
} as const;
export type ExitCode = (typeof ExitCode)[keyof typeof ExitCode];

/** What each exit code means, for help, manual pages and documents. */
export const exitCodeMeanings: Readonly<Record<ExitCode, string>> = {
  [ExitCode.done]: 'done, or nothing to do',
  [ExitCode.failed]: 'failed, and everything done was undone',
  [ExitCode.usage]: 'wrong usage',
  [ExitCode.refused]: 'refused before any change: in use, group not viable, not the recorded card',
  [ExitCode.noDevice]: 'no such device, or no such guest',
  [ExitCode.stuck]: 'stuck: a write to the kernel did not return',
};

/** Stable names of what can go wrong. Code checks these, never a message. */
export type ErrorCode =
  | 'usage'
  | 'bad-slot'
  | 'bad-id'
  | 'bad-driver'
  | 'bad-path'
  | 'bad-record'
  | 'boot-claim'
  | 'bad-guest'
  | 'bad-settings'
  | 'bad-access'
  | 'bad-uuid'
  | 'bad-parent'
  | 'bad-type'
  | 'bad-attribute'
  | 'bad-definition'
  | 'no-device'
  | 'no-guest'
  | 'ambiguous-device'
  | 'no-driver'
  | 'no-sysfs'
  | 'not-root'
  | 'in-use'
  | 'carries-data'
  | 'blocked'
  | 'other-devices'
  | 'group-not-viable'
  | 'no-iommu'
  | 'no-override'
  | 'no-answer'
  | 'identity-mismatch'
  | 'no-parent'
  | 'not-registered'
  | 'no-type'
  | 'no-instances'
  | 'no-memory'
  | 'uuid-in-use'
  | 'type-mismatch'
  | 'not-defined'
  | 'already-defined'
  | 'ambiguous-definition'
  | 'callout-failed'
  | 'not-switchable'
  | 'no-generator'
  | 'switched-off'
  | 'busy'
  | 'write-failed'
  | 'write-stuck'
  | 'file-failed'
  | 'command-failed'
  | 'not-bound'
  | 'quarantined'
  | 'interrupted';

/** What {@link PearasysError} is made from. */
export interface ErrorDetails {
  readonly code: ErrorCode;
  readonly exitCode: ExitCode;
  /** One sentence: what was tried on which device, and how it failed. */
  readonly message: string;
  /** Further lines: holders, steps undone, the current state. */
  readonly details?: readonly string[];
  /** What the user should do next. */
  readonly hint?: string;
  readonly cause?: unknown;
}

/** An error for users, at the terminal or in the journal. */
export class PearasysError extends Error {
  readonly code: ErrorCode;
  readonly exitCode: ExitCode;
  readonly details: readonly string[];
  readonly hint: string | undefined;

  constructor(error: ErrorDetails) {
    super(error.message, error.cause === undefined ? undefined : {cause: error.cause});
    this.name = 'PearasysError';
    this.code = error.code;
    this.exitCode = error.exitCode;
    this.details = error.details ?? [];
    this.hint = error.hint;
  }
}

/** An interrupt by the user or by systemd, or the answer no. */
export function interrupted(details: readonly string[] = [], message = 'interrupted'): PearasysError {
  return new PearasysError({
    code: 'interrupted',
    exitCode: ExitCode.failed,
    message,
    details,
  });
}

/** A wrong command line: exit code 2. */
export function usageError(message: string, hint?: string, code: ErrorCode = 'usage'): PearasysError {
  return new PearasysError({code, exitCode: ExitCode.usage, message, ...(hint === undefined ? {} : {hint})});
}

/** A write to a kernel attribute that failed. */
export class WriteError extends PearasysError {
  readonly path: string;
  readonly value: string;
  /** The errno's name, as in errno(3): `EBUSY`, `ENODEV`, … */
  readonly errno: string;

  constructor(path: string, value: string, errno: string, hint?: string) {
    super({
      code: 'write-failed',
      exitCode: ExitCode.failed,
      message: `writing ${quoteValue(value)} to ${path} failed: ${explainErrno(errno)}`,
      ...(hint === undefined ? {} : {hint}),
    });
    this.name = 'WriteError';
    this.path = path;
    this.value = value;
    this.errno = errno;
  }
}

/** A write to a kernel attribute that did not return within its limit. The kernel is still working on it. */
export class StuckError extends PearasysError {
  readonly path: string;
  readonly value: string;
  /** The process that is blocked in the write (state D in ps(1)); undefined on a simulated host. */
  readonly pid: number | undefined;

  constructor(path: string, value: string, limit: number, pid?: number) {
    super({
      code: 'write-stuck',
      exitCode: ExitCode.stuck,
      message: `writing ${quoteValue(value)} to ${path} did not return within ${limit / 1000} s`,
      details:
        pid === undefined ? [] : [`process ${pid} waits in the kernel for that write and cannot be killed`],
    });
    this.name = 'StuckError';
    this.path = path;
    this.value = value;
    this.pid = pid;
  }
}

/** Why a file cannot be used, with an errno's name as `code`; the cause of a {@link FileError}. */
export class FileFault extends Error {
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.name = 'FileFault';
    this.code = code;
  }
}

/** A file that could not be read, written or removed. */
export class FileError extends PearasysError {
  readonly path: string;
  readonly errno: string;

  constructor(action: string, path: string, errno: string, cause?: unknown) {
    super({
      code: 'file-failed',
      exitCode: ExitCode.failed,
      message: `${action} ${path} failed: ${cause instanceof FileFault ? cause.message : explainErrno(errno)}`,
      cause,
    });
    this.name = 'FileError';
    this.path = path;
    this.errno = errno;
  }
}

/** A program (modprobe, systemctl, udevadm) that failed or could not be started. */
export class CommandError extends PearasysError {
  readonly file: string;
  readonly args: readonly string[];
  /** The program's exit code; undefined when it could not be started or was ended by a signal. */
  readonly status: number | undefined;
  readonly stderr: string;
  /** Why it was killed: it took too long, or printed too much. Undefined when it exited normally. */
  readonly ended: 'late' | 'overflow' | undefined;

  constructor(
    file: string,
    args: readonly string[],
    status: number | undefined,
    stderr: string,
    ended?: 'late' | 'overflow',
  ) {
    const answer = stderr.trim();
    super({
      code: 'command-failed',
      exitCode: ExitCode.failed,
      message: `${[file, ...args].join(' ')} ${describeEnd(status, ended)}`,
      details: answer === '' ? [] : answer.split('\n'),
    });
    this.name = 'CommandError';
    this.file = file;
    this.args = args;
    this.status = status;
    this.stderr = stderr;
    this.ended = ended;
  }
}

function describeEnd(status: number | undefined, ended: 'late' | 'overflow' | undefined): string {
  if (ended !== undefined) return ended === 'late' ? 'did not end in time' : 'printed too much';
  return status === undefined ? 'could not be run' : `failed (exit code ${status})`;
}

function quoteValue(value: string): string {
  return `'${value.replaceAll('\n', '\\n')}'`;
}
