import type {SimulatedMachine} from './machine.js';
import type {LiveFunction} from './pci.js';
import type {Part} from './parts.js';

/** What the kernel tells user space, see udev(7). */
export interface KernelEvent {
  readonly action: string;
  /** Without /sys. */
  readonly devpath: string;
  readonly subsystem: string;
  readonly properties: Readonly<Record<string, string>>;
}

/** The kernel's events and who listens to them. */
export class Events {
  readonly #machine: SimulatedMachine;
  readonly #listeners = new Set<(event: KernelEvent) => void>();
  #sequence = 1000;

  constructor(machine: SimulatedMachine) {
    this.#machine = machine;
  }

  subscribe(listener: (event: KernelEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  emit(action: string, path: string, subsystem: string, more: Readonly<Record<string, string>>): void {
    if (this.#machine.booting) return;
    const devpath = path.slice('/sys'.length);
    const properties: Record<string, string> = {ACTION: action, DEVPATH: devpath, SUBSYSTEM: subsystem};
    for (const line of (this.#machine.tree.read(`${path}/uevent`) ?? '').split('\n')) {
      const at = line.indexOf('=');
      if (at > 0) properties[line.slice(0, at)] = line.slice(at + 1);
    }
    Object.assign(properties, more, {SEQNUM: String(++this.#sequence)});
    if (properties['DEVNAME'] !== undefined) properties['DEVNAME'] = `/dev/${properties['DEVNAME']}`;
    const event: KernelEvent = {action, devpath, subsystem, properties};
    for (const listener of this.#listeners) listener(event);
  }

  emitDevice(action: string, device: LiveFunction): void {
    this.emit(action, device.path, 'pci', {});
  }

  emitPart(action: string, part: Part): void {
    this.emit(action, part.path, part.subsystem, part.devtype === undefined ? {} : {DEVTYPE: part.devtype});
  }

  /** What a write to an `uevent` file, or `udevadm trigger`, makes: an event that says it is synthetic. */
  trigger(real: string, action: string, uuid = '0'): void {
    const folder = real.replace(/\/uevent$/, '');
    const subsystem = this.#machine.tree.resolve(`${folder}/subsystem`);
    if (subsystem === undefined) return;
    this.emit(action, folder, subsystem.slice(subsystem.lastIndexOf('/') + 1), {SYNTH_UUID: uuid});
  }
}
