import {Errno} from '../errno.js';
import {renderSriov} from './function-files.js';
import {truth, wholeNumber} from './input.js';
import type {SimulatedMachine} from './machine.js';
import type {LiveFunction} from './pci.js';

/** Virtual functions of those that have SR-IOV. */
export class VirtualFunctions {
  readonly #machine: SimulatedMachine;

  constructor(machine: SimulatedMachine) {
    this.#machine = machine;
  }

  setVirtualFunctions(slot: string, value: string): void {
    const count = wholeNumber(value);
    // The kernel does not pass on why it could not read the number.
    if (count > 0xffff) throw new Errno('EINVAL');
    const device = this.#machine.pci.device(slot);
    const sriov = device.declaration.sriov;
    if (sriov === undefined) throw new Errno('ENOENT');
    if (count > sriov.total) throw new Errno('ERANGE');
    this.#machine.stuck.needLock(slot);
    if (count === device.virtualFunctions) return;
    if (device.driver === undefined || this.#machine.drivers.named(device.driver).configuresSriov !== true)
      throw new Errno('ENOENT');
    this.#machine.stuck.needScanLock();
    if (count === 0) this.removeVirtualFunctions(device);
    else {
      if (device.virtualFunctions !== 0) throw new Errno('EBUSY');
      this.#addVirtualFunctions(device, count);
    }
  }

  setVirtualAutoprobe(slot: string, value: string): void {
    const device = this.#machine.pci.device(slot);
    device.virtualAutoprobe = truth(value);
    this.#machine.tree.file(
      `${device.path}/sriov_drivers_autoprobe`,
      device.virtualAutoprobe ? '1\n' : '0\n',
      0o644,
    );
  }

  #addVirtualFunctions(device: LiveFunction, count: number): void {
    const sriov = device.declaration.sriov;
    if (sriov === undefined) return;
    const routing = routingId(device.slot) + (sriov.offset ?? 128);
    const lastBus = Number(
      this.#machine.tree.read(
        `${device.path.slice(0, device.path.lastIndexOf('/'))}/subordinate_bus_number`,
      ) ?? 0xff,
    );
    const last = routing + (count - 1) * (sriov.stride ?? 1);
    if (last >> 8 > lastBus || sriov.noSpace === true) throw new Errno('ENOMEM');
    device.virtualFunctions = count;
    for (let index = 0; index < count; index++) {
      const slot = slotOf(device.slot, routing + index * (sriov.stride ?? 1));
      const virtual = this.#machine.pci.add(
        {
          slot,
          id: sriov.virtualId,
          class: device.declaration.class,
          ...(device.declaration.subsystem === undefined ? {} : {subsystem: device.declaration.subsystem}),
          revision: device.declaration.revision ?? '00',
          resetMethods: ['flr'],
          ...(sriov.group === undefined ? {} : {group: sriov.group + index}),
          ...(device.declaration.net === undefined
            ? {}
            : {
                net: [
                  {
                    name: `${device.declaration.net[0]?.name ?? 'eth'}v${index}`,
                    address: `52:54:00:01:00:${index.toString(16).padStart(2, '0')}`,
                  },
                ],
              }),
        },
        device,
      );
      this.#machine.tree.link(`${virtual.path}/physfn`, device.path);
      this.#machine.tree.link(`${device.path}/virtfn${index}`, virtual.path);
      this.#machine.events.emitDevice('change', virtual);
      virtual.probeable = true;
      if (this.#machine.drivers.autoprobe) this.#machine.drivers.attachAny(virtual);
    }
    renderSriov(this.#machine, device);
    this.#machine.events.emitDevice('change', device);
  }

  removeVirtualFunctions(device: LiveFunction): void {
    for (const virtual of [...this.#machine.functions.values()].filter(
      ({physical}) => physical === device.slot,
    )) {
      this.#machine.stuck.needLock(virtual.slot);
      this.#machine.pci.takeOut(virtual, false);
    }
    device.virtualFunctions = 0;
    renderSriov(this.#machine, device);
  }

  forgetVirtual(virtual: LiveFunction): void {
    const physical =
      virtual.physical === undefined ? undefined : this.#machine.functions.get(virtual.physical);
    if (physical === undefined) return;
    for (const name of this.#machine.tree.list(physical.path))
      if (
        name.startsWith('virtfn') &&
        this.#machine.tree.resolve(`${physical.path}/${name}`) === virtual.path
      )
        this.#machine.tree.remove(`${physical.path}/${name}`);
  }
}

/** Bus, device and function as the sixteen bits that SR-IOV counts with. */
function routingId(slot: string): number {
  const [, bus = '0', rest = '0.0'] = slot.split(':');
  const [number = '0', fn = '0'] = rest.split('.');
  return (parseInt(bus, 16) << 8) | (parseInt(number, 16) << 3) | Number(fn);
}

function slotOf(like: string, routing: number): string {
  const hex = (number: number) => number.toString(16).padStart(2, '0');
  return `${like.slice(0, 4)}:${hex(routing >> 8)}:${hex((routing >> 3) & 0x1f)}.${routing & 7}`;
}
