/** QEMU's machine protocol (QMP). */
import {EventEmitter} from 'node:events';
import type {Socket} from 'node:net';
import {dial} from './dial.js';

/** An event of QEMU, such as DEVICE_DELETED. */
export interface MachineEvent {
  event: string;
  data: Record<string, unknown>;
}

interface Message {
  id?: number;
  event?: string;
  data?: Record<string, unknown>;
  return?: unknown;
  error?: {desc: string};
}

export class Monitor {
  readonly #events = new EventEmitter().setMaxListeners(0);
  readonly #replies = new Map<number, (reply: Message) => void>();
  #socket: Socket | undefined;
  #number = 0;
  #closed: string | undefined;

  async connect(socket: string): Promise<void> {
    let rest = '';
    this.#socket = await dial(socket, (data) => {
      const lines = (rest + data.toString()).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) if (line.trim()) this.#heard(JSON.parse(line) as Message);
    });
    await this.command('qmp_capabilities');
  }

  /** Sends a command and returns its result. */
  async command(name: string, args: Record<string, unknown> = {}): Promise<unknown> {
    if (this.#closed !== undefined || !this.#socket) throw new Error(this.#closed ?? 'no monitor');
    const id = ++this.#number;
    const answered = new Promise<Message>((resolve) => this.#replies.set(id, resolve));
    this.#socket.write(`${JSON.stringify({execute: name, arguments: args, id})}\n`);
    const reply = await answered;
    if (reply.error) throw new Error(`${name} ${JSON.stringify(args)}: ${reply.error.desc}`);
    return reply.return;
  }

  /** Calls back at each event. */
  on(listener: (event: MachineEvent) => void): void {
    this.#events.on('event', listener);
  }

  /** The next event that matches. Never an unhandled rejection: it may be awaited late or not at all. */
  event(wanted: (event: MachineEvent) => boolean, timeout: number): Promise<MachineEvent> {
    const found = new Promise<MachineEvent>((resolve, reject) => {
      const stop = (): void => {
        clearTimeout(timer);
        this.#events.off('event', look);
        this.#events.off('closed', closed);
      };
      const look = (event: MachineEvent): void => {
        if (!wanted(event)) return;
        stop();
        resolve(event);
      };
      const closed = (): void => {
        stop();
        reject(new Error(this.#closed));
      };
      const timer = setTimeout(() => {
        stop();
        reject(new Error(`no such event in ${timeout / 1000} s`));
      }, timeout);
      this.#events.on('event', look).on('closed', closed);
      if (this.#closed !== undefined) closed();
    });
    found.catch(() => undefined);
    return found;
  }

  /** Closes the connection permanently: all pending waits fail with this reason. */
  close(why: string): void {
    this.#closed = why;
    for (const reply of this.#replies.values()) reply({error: {desc: why}});
    this.#replies.clear();
    this.#socket?.destroy();
    this.#events.emit('closed');
  }

  #heard(message: Message): void {
    if (message.event !== undefined) {
      this.#events.emit('event', {event: message.event, data: message.data ?? {}} satisfies MachineEvent);
    } else if (message.id !== undefined) {
      this.#replies.get(message.id)?.(message);
      this.#replies.delete(message.id);
    }
  }
}
