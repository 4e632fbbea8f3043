import fs from 'node:fs';
import {errnoOf, FileError} from '../host/errors.js';

/** A stream of text for a person or a program. */
export interface Output {
  /** Whether a person looks at it: only then there are colours, tables, prompts and progress. */
  readonly isTerminal: boolean;
  /** The width of the terminal; 80 where there is none. */
  readonly columns: number;
  /** The device and inode of the file that it is, `8:1`; undefined where it is none. */
  readonly file?: string | undefined;
  write(text: string): void;
}

/** Standard output or standard error, written at once: nothing is lost when the process ends, however it ends. */
export class DescriptorOutput implements Output {
  readonly #descriptor: 1 | 2;
  #closed = false;

  constructor(descriptor: 1 | 2) {
    this.#descriptor = descriptor;
  }

  get isTerminal(): boolean {
    // A pipe or file is told without making the stream, which takes a while.
    return fs.fstatSync(this.#descriptor).isCharacterDevice() && this.#stream.isTTY;
  }

  get file(): string {
    const {dev, ino} = fs.fstatSync(this.#descriptor);
    return `${dev}:${ino}`;
  }

  get columns(): number {
    const {columns} = this.#stream;
    return this.isTerminal && columns > 0 ? columns : 80;
  }

  get #stream(): NodeJS.WriteStream {
    return this.#descriptor === 1 ? process.stdout : process.stderr;
  }

  write(text: string): void {
    const bytes = Buffer.from(text);
    for (let at = 0; at < bytes.length && !this.#closed;) {
      try {
        at += fs.writeSync(this.#descriptor, bytes, at);
      } catch (error) {
        const code = errnoOf(error);
        // Whoever read us has seen enough (`| head`): that is no error of ours.
        if (code === 'EPIPE') this.#closed = true;
        // Somebody made the pipe non-blocking, and it is full.
        else if (code === 'EAGAIN') Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
        else
          throw new FileError(
            'writing to',
            this.#descriptor === 1 ? 'standard output' : 'standard error',
            code,
            error,
          );
      }
    }
  }
}
