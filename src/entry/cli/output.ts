import fs from 'node:fs';
import {explainErrno, type ExitCode} from '../../host/errors.js';
import {writeFully} from '../../host/descriptor.js';
import {printable} from '../../host/printable.js';

/** A stream of text for a person or a program. */
export interface Output {
  /** Whether it is a terminal: only then there are colors, tables, prompts and progress. */
  readonly isTerminal: boolean;
  /** The width of the terminal; 80 where there is none. */
  readonly columns: number;
  /** The device and inode of the file that it is, `8:1`; undefined where it is none. */
  readonly file?: string | undefined;
  /** The errno's name of the write that failed first; undefined when no output is lost that anyone would read. */
  readonly lost?: string | undefined;
  /** Never throws: the work on the machine must not depend on the output. */
  write(text: string): void;
}

/** An output whose text cannot change a terminal, even if others chose it; see {@link printable}. */
export class SafeOutput implements Output {
  readonly #output: Output;

  constructor(output: Output) {
    this.#output = output;
  }

  get isTerminal(): boolean {
    return this.#output.isTerminal;
  }

  get columns(): number {
    return this.#output.columns;
  }

  get file(): string | undefined {
    return this.#output.file;
  }

  get lost(): string | undefined {
    return this.#output.lost;
  }

  write(text: string): void {
    this.#output.write(printable(text));
  }

  /** Writes text unchanged: with our own colors, or data for programs that cannot contain control characters. */
  writeExact(text: string): void {
    this.#output.write(text);
  }
}

/** Standard output or standard error, written immediately, so that nothing is lost however the process ends. */
export class DescriptorOutput implements Output {
  readonly #descriptor: 1 | 2;
  /** The errno's name of the write that failed; nothing is written from then on. */
  #failure: string | undefined;

  constructor(descriptor: 1 | 2) {
    this.#descriptor = descriptor;
  }

  get isTerminal(): boolean {
    // Pipes and files are recognized without creating the stream, which is slow.
    return fs.fstatSync(this.#descriptor).isCharacterDevice() && this.#stream.isTTY;
  }

  get file(): string {
    const {dev, ino} = fs.fstatSync(this.#descriptor);
    return `${dev}:${ino}`;
  }

  /** A closed pipe is not an error: the reader has seen enough (`| head`). */
  get lost(): string | undefined {
    return this.#failure === 'EPIPE' ? undefined : this.#failure;
  }

  get columns(): number {
    const {columns} = this.#stream;
    return this.isTerminal && columns > 0 ? columns : 80;
  }

  get #stream(): NodeJS.WriteStream {
    return this.#descriptor === 1 ? process.stdout : process.stderr;
  }

  write(text: string): void {
    this.#failure ??= writeFully(this.#descriptor, text);
  }
}

/** How a run ended. */
export interface Ended {
  readonly exitCode: ExitCode;
  /** Whether the machine or a file was changed. */
  readonly changed: boolean;
}

/**
 * Reports on one output that the other could not be written.
 * @param isData whether standard output is for a program to read.
 * @returns the exit code, for the result on the machine; 1 for lost output only if nothing was changed.
 */
export function tellLoss<Code extends number>(
  name: string,
  {stdout, stderr}: {readonly stdout: Output; readonly stderr: Output},
  {exitCode, changed}: {readonly exitCode: Code; readonly changed: boolean},
  isData: boolean,
): Code | 1 {
  const tell = (to: Output, what: string, errno: string) =>
    to.write(`${name}: writing to standard ${what} failed: ${explainErrno(errno)}\n`);
  const {lost} = stdout;
  if (lost !== undefined) tell(stderr, 'output', lost);
  else if (stderr.lost !== undefined && !isData) tell(stdout, 'error', stderr.lost);
  const isLost = lost !== undefined || stderr.lost !== undefined;
  return isLost && exitCode === 0 && !changed ? 1 : exitCode;
}
