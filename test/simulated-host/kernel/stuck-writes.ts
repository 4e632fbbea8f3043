import {Errno, NeverReturns} from '../errno.js';
import type {SimulatedMachine} from './machine.js';

/** A write that is in the kernel and has not returned. */
export interface Stuck {
  readonly operation: string;
  /** Whether what it waited for has come. */
  readonly over: () => boolean;
  /** What the kernel does then. */
  readonly complete: () => void;
}

/** Writes that have not returned, by the slot or UUID whose lock they hold. */
export class StuckWrites {
  readonly #machine: SimulatedMachine;
  readonly #stuck = new Map<string, Stuck>();

  constructor(machine: SimulatedMachine) {
    this.#machine = machine;
  }

  /** Whether a write to this device is in the kernel and has not returned. */
  isStuck(slot: string): boolean {
    return this.#stuck.has(slot);
  }

  /** Makes a device's lock held, as by a write that never returns, until the function returned is called. */
  holdLock(slot: string, complete: () => void = () => undefined, operation = 'unbind'): () => void {
    let over = false;
    this.#stuck.set(slot, {operation, over: () => over, complete});
    return () => {
      over = true;
      this.wake();
    };
  }

  needLock(slot: string): void {
    if (this.#stuck.has(slot)) throw new NeverReturns(slot, `another write holds the lock of ${slot}`);
  }

  /** Removing and scanning exclude each other on the whole machine. */
  needScanLock(): void {
    for (const [slot, {operation}] of this.#stuck)
      if (operation === 'remove')
        throw new NeverReturns(slot, `the removal of ${slot} holds the lock of the PCI tree`);
  }

  /** The device whose lock a read of this attribute takes: it would not return while a write to the device is stuck. */
  takesLock(real: string): string | undefined {
    // uevent took it too in some kernels.
    const ueventToo = /^6\.1[0-2]\./.test(this.#machine.declaration.release);
    const [, slot, attribute] =
      /^\/sys\/devices\/pci.*\/([0-9a-f:.]{12})\/(driver_override|sriov_numvfs|uevent)$/.exec(real) ?? [];
    return attribute === 'uevent' && !ueventToo ? undefined : slot;
  }

  /** What a stuck write waited for may have come: it goes on. */
  wake(): void {
    for (const [slot, stuck] of [...this.#stuck]) {
      if (!stuck.over() || this.#stuck.get(slot) !== stuck) continue;
      this.#stuck.delete(slot);
      try {
        stuck.complete();
      } catch (error) {
        if (!(error instanceof Errno || error instanceof NeverReturns)) throw error;
      }
    }
  }

  get(name: string): Stuck | undefined {
    return this.#stuck.get(name);
  }

  set(name: string, stuck: Stuck): void {
    this.#stuck.set(name, stuck);
  }

  delete(name: string): void {
    this.#stuck.delete(name);
  }
}
