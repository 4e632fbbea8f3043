import {EMPTY_PORTS, type EmptyPort} from './devices.js';
import type {Machine} from './machine.js';

/** Devices that QEMU 7.2 never reports as deleted: they stay in their port as long as the machine runs. */
const staying = new Set(['qemu-xhci']);

/** A hot-plug port that only one test uses. */
export class Port {
  /** The slot of a device that is plugged in. */
  readonly slot: string;
  readonly place: EmptyPort;
  readonly #machine: Machine;
  /** QEMU's name of the first function of the plugged device, with which the device is removed. */
  #plugged: string | undefined;
  #isFree = true;

  constructor(machine: Machine, place: EmptyPort) {
    this.#machine = machine;
    this.place = place;
    this.slot = place.slot;
  }

  /**
   * Plugs a device in and waits until the kernel and udev have handled it.
   * @param properties its properties in QEMU; other functions (`addr`) must be plugged before the first one.
   * @returns its name in QEMU.
   */
  async plug(driver: string, properties: Readonly<Record<string, unknown>> = {}): Promise<string> {
    const disk = driver === 'nvme' ? {drive: this.place.drive, serial: this.place.drive} : {};
    const id = await this.#machine.deviceAdd(driver, {bus: this.place.bus, ...disk, ...properties});
    this.#isFree = false;
    const {addr = '0.0'} = properties;
    if (addr !== '0.0') return id;
    if (!staying.has(driver)) this.#plugged = id;
    await this.#machine.waitUntil(`test -e /sys/bus/pci/devices/${this.slot}`);
    await this.#machine.sh('udevadm settle');
    return id;
  }

  /** Removes the device and waits until the kernel has handled it. Does nothing if the device cannot be removed. */
  async unplug(): Promise<void> {
    const id = this.#plugged;
    if (id === undefined) return;
    await this.#machine.deviceDel(id);
    this.#plugged = undefined;
    await this.#machine.waitUntil(`test ! -e /sys/bus/pci/devices/${this.slot}`);
    this.#isFree = true;
  }

  get isFree(): boolean {
    return this.#isFree;
  }
}

/** The free ports of a machine. */
export class Ports {
  readonly #free = [...EMPTY_PORTS];
  readonly #taken = new Set<Port>();
  readonly #machine: Machine;

  constructor(machine: Machine) {
    this.#machine = machine;
  }

  take(): Port {
    const place = this.#free.shift();
    if (place === undefined) throw new Error('no port of the machine is free: devices.ts can have more');
    const port = new Port(this.#machine, place);
    this.#taken.add(port);
    return port;
  }

  /** Removes the devices that tests have left in their ports, and frees the empty ports again. */
  async giveBack(): Promise<void> {
    for (const port of this.#taken) {
      this.#taken.delete(port);
      await port.unplug();
      if (port.isFree) this.#free.push(port.place);
    }
  }
}
