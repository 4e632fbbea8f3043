/** Talks to the agent in the machine (`image/agent.pl`), which runs the commands. */
import {EventEmitter} from 'node:events';
import type {Socket} from 'node:net';
import {setTimeout as sleep} from 'node:timers/promises';
import {dial} from './dial.js';

/** The default time limit of a command. Generous, because the emulated processor is slow and may share the host. */
export const DEFAULT_TIMEOUT = 180_000;

/** Must be the same as in the agent. */
const MAGIC = Buffer.from('\0pearasys-agent\0\n');

/** How a command in the machine ended. */
export interface Result {
  /** The exit code; 128 and the signal's number for a command that a signal ended. */
  code: number;
  stdout: string;
  stderr: string;
}

export interface RunOptions {
  /** Milliseconds until the command is killed and {@link CommandError} is thrown; 180,000 by default. */
  timeout?: number;
  /** The command's standard input; empty by default. */
  input?: string | Uint8Array;
}

/** A command that failed, did not end in time, or was lost with its machine. Contains its output until then. */
export class CommandError extends Error {
  override name = 'CommandError';
  readonly command: string;
  /** undefined if it has not ended */
  readonly code: number | undefined;
  readonly stdout: string;
  readonly stderr: string;

  constructor(why: string, command: string, printed: {code?: number; stdout: string; stderr: string}) {
    const section = (title: string, text: string): string =>
      text ? `\n--- ${title}\n${text.trimEnd()}` : '';
    super(`${why}: ${command}${section('stdout', printed.stdout)}${section('stderr', printed.stderr)}`);
    this.command = command;
    this.code = printed.code;
    this.stdout = printed.stdout;
    this.stderr = printed.stderr;
  }
}

/** A command in the machine, from `Machine.start`. */
export class GuestProcess {
  readonly command: string;
  /** The PID of the shell that runs the command, and its process group. With `exec` the command replaces the shell. */
  pid = 0;
  /** Resolves when the command ends. Rejects with {@link CommandError} if the machine shuts down before. */
  readonly exited: Promise<Result>;
  readonly #output: Buffer[] = [];
  readonly #errors: Buffer[] = [];
  readonly #changed = new EventEmitter();
  readonly #signal: (name: string) => void;
  #finish!: (result: Result) => void;
  #fail!: (error: Error) => void;
  #ended = false;

  /** @internal */
  constructor(command: string, signal: (name: string) => void) {
    this.command = command;
    this.#signal = signal;
    this.exited = new Promise((resolve, reject) => {
      this.#finish = resolve;
      this.#fail = reject;
    });
    // A background process may be lost with its machine without an unhandled rejection.
    this.exited.catch(() => undefined);
  }

  /** The output so far. */
  get stdout(): string {
    return this.stdoutBytes.toString();
  }

  get stdoutBytes(): Buffer {
    return Buffer.concat(this.#output);
  }

  get stderr(): string {
    return Buffer.concat(this.#errors).toString();
  }

  /** Whether it has ended, or was lost. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Sends a signal to the command and what it has started in its process group. */
  kill(signal = 'KILL'): void {
    if (!this.#ended) this.#signal(signal);
  }

  /** Waits until its standard output matches. Throws if the command ends before, or on a timeout. */
  async printed(pattern: RegExp, timeout = DEFAULT_TIMEOUT): Promise<void> {
    const until = Date.now() + timeout;
    while (!pattern.test(this.stdout)) {
      if (this.#ended) throw this.error(`ended without printing ${String(pattern)}`);
      if (Date.now() > until) throw this.error(`has not printed ${String(pattern)} in ${timeout / 1000} s`);
      await this.changed();
    }
  }

  /**
   * Waits for its end.
   * @throws CommandError if it has not ended in time; it is then killed if possible
   */
  async wait(timeout = DEFAULT_TIMEOUT): Promise<Result> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => {
        reject(this.error(`not ended in ${timeout / 1000} s`));
        this.kill();
      }, timeout);
    });
    try {
      return await Promise.race([this.exited, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** @internal Waits for the next change of its state, at most half a second. */
  async changed(): Promise<void> {
    await Promise.race([new Promise((wake) => this.#changed.once('change', wake)), sleep(500)]);
  }

  /** @internal */
  error(why: string, code?: number): CommandError {
    const {stdout, stderr} = this;
    return new CommandError(why, this.command, {stdout, stderr, ...(code === undefined ? {} : {code})});
  }

  /** @internal One of the agent's frames about this command. */
  frame(type: string, data: Buffer): void {
    if (type === 'P') this.pid = Number(data.toString());
    else if (type === 'O') this.#output.push(data);
    else if (type === 'E') this.#errors.push(data);
    else if (type === 'X') {
      const [code = -1, signal = 0] = data.toString().split(' ').map(Number);
      this.#ended = true;
      if (code < 0) this.#fail(this.error(`not started, ${data.toString().slice(3)}`));
      else this.#finish({code: signal ? 128 + signal : code, stdout: this.stdout, stderr: this.stderr});
    }
    this.#changed.emit('change');
  }

  /** @internal */
  lost(why: string): void {
    this.#ended = true;
    this.#fail(this.error(why));
    this.#changed.emit('change');
  }
}

/** The connection to the agent. It persists over reboots of the machine, each of which starts a new agent. */
export class Agent {
  readonly #commands = new Map<number, GuestProcess>();
  #socket: Socket | undefined;
  #input: Buffer = Buffer.alloc(0);
  /** Whether the magic was received since the last reset. After it, all input is frames. */
  #framed = false;
  #up = false;
  #number = 0;

  async connect(socket: string): Promise<void> {
    this.#socket = await dial(socket, (data) => {
      this.#input = this.#input.length > 0 ? Buffer.concat([this.#input, data]) : data;
      while (this.#parse());
    });
  }

  /** Whether an agent is running that accepts commands. */
  get up(): boolean {
    return this.#up;
  }

  /** Starts a command and returns it once it has a process id. */
  async start(command: string, input: string | Uint8Array = ''): Promise<GuestProcess> {
    if (!this.#up) throw new Error('the machine is not up');
    const id = ++this.#number;
    const process = new GuestProcess(command, (name) => this.#send('K', id, Buffer.from(name)));
    this.#commands.set(id, process);
    const text = Buffer.from(command);
    const length = Buffer.alloc(4);
    length.writeUInt32BE(text.length);
    this.#send('R', id, Buffer.concat([length, text, Buffer.from(input)]));
    const until = Date.now() + DEFAULT_TIMEOUT;
    while (process.pid === 0 && !process.ended) {
      if (Date.now() > until) throw process.error('the agent does not answer');
      await process.changed();
    }
    return process;
  }

  /** The agent has ended, with all commands; another may start. */
  reset(why: string): void {
    this.#up = false;
    this.#framed = false;
    this.#input = Buffer.alloc(0);
    for (const command of this.#commands.values()) command.lost(why);
    this.#commands.clear();
  }

  /** Closes the connection permanently. */
  close(why: string): void {
    this.reset(why);
    this.#socket?.destroy();
  }

  #send(type: 'R' | 'K', id: number, data: Buffer): void {
    const head = Buffer.alloc(9);
    head.write(type, 'latin1');
    head.writeUInt32BE(id, 1);
    head.writeUInt32BE(data.length, 5);
    this.#socket?.write(Buffer.concat([head, data]));
  }

  /** Parses the magic or one frame of the input. @returns whether it was complete */
  #parse(): boolean {
    // No frame begins with the first byte of the magic, so a new agent has started.
    if (!this.#framed || this.#input[0] === 0) {
      const at = this.#input.indexOf(MAGIC);
      if (at < 0) return false;
      const rest = this.#input.subarray(at + MAGIC.length);
      this.reset('the agent was started again');
      this.#input = rest;
      this.#framed = true;
    }
    if (this.#input.length < 9) return false;
    const end = 9 + this.#input.readUInt32BE(5);
    if (this.#input.length < end) return false;
    const type = this.#input.toString('latin1', 0, 1);
    const id = this.#input.readUInt32BE(1);
    // A copy, because a subarray would keep the whole buffer, which may be megabytes.
    const data = Buffer.from(this.#input.subarray(9, end));
    this.#input = this.#input.subarray(end);
    if (type === 'H') this.#up = true;
    this.#commands.get(id)?.frame(type, data);
    if (type === 'X') this.#commands.delete(id);
    return true;
  }
}
