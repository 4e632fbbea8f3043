import type {FunctionDeclaration} from '../declaration.js';
import {Errno, NeverReturns} from '../errno.js';
import {renderConfig, renderDevice, renderRegions, renderResetMethods} from './function-files.js';
import {wholeNumber} from './input.js';
import type {SimulatedMachine} from './machine.js';
import type {Part} from './parts.js';

/** A function that is in the machine now. */
export interface LiveFunction {
  readonly declaration: FunctionDeclaration;
  readonly slot: string;
  readonly path: string;
  readonly group: string | undefined;
  /** The physical function whose virtual one it is. */
  readonly physical: string | undefined;
  driver: string | undefined;
  override: string | undefined;
  resetMethods: string[];
  virtualFunctions: number;
  virtualAutoprobe: boolean;
  /** Whether drivers may probe it: not yet while a virtual function is being added (match_driver in struct pci_dev). */
  probeable: boolean;
  parts: Part[];
  resets: number;
  /** Sizes of its memory regions. */
  regions: number[];
}

/** The PCI functions: how they come and go, and their own attributes. */
export class PciFunctions {
  readonly #machine: SimulatedMachine;
  /** What is declared for each slot, whether it is in it or not. */
  readonly declared = new Map<string, FunctionDeclaration>();
  readonly #functions = new Map<string, LiveFunction>();
  readonly #unplugged = new Set<string>();

  constructor(machine: SimulatedMachine) {
    this.#machine = machine;
  }

  /** A function that is in the machine. */
  device(slot: string): LiveFunction {
    const found = this.#functions.get(slot);
    if (found === undefined) throw new Error(`there is no ${slot} in the simulated machine`);
    return found;
  }

  /** Puts a card into its slot without an event: a later rescan finds it. */
  plug(device: string | FunctionDeclaration): void {
    const slot = typeof device === 'string' ? device : device.slot;
    if (typeof device !== 'string') this.declared.set(slot, device);
    if (!this.declared.has(slot)) throw new Error(`the machine declares no ${slot}`);
    this.#unplugged.delete(slot);
  }

  /** Puts a card in while the machine runs, by slot or by a declaration (another card in that slot). */
  hotAdd(device: string | FunctionDeclaration): void {
    const slot = typeof device === 'string' ? device : device.slot;
    if (this.#functions.has(slot)) throw new Error(`${slot} is in the machine already`);
    this.plug(device);
    this.scan((each) => each.slot === slot);
  }

  /** Pulls a card out, as a hot-unplug does; it comes back only by {@link hotAdd} or {@link plug}. */
  hotRemove(slot: string): void {
    this.takeOut(this.device(slot), true);
    this.#unplugged.add(slot);
  }

  /** Takes a device out logically, with all below it; it stays in its slot. */
  remove(slot: string): void {
    this.#machine.stuck.needScanLock();
    const device = this.device(slot);
    for (const each of [...this.#below(device), device]) this.#machine.stuck.needLock(each.slot);
    this.takeOut(device, false);
  }

  /** Looks for what is in the slots and not known yet: everywhere, or on one bus (`0000:01`) and below it. */
  rescan(bus?: string): void {
    this.#machine.stuck.needScanLock();
    this.scan((device) => {
      for (let each: FunctionDeclaration | undefined = device; each !== undefined;) {
        if (bus === undefined || each.slot.startsWith(`${bus}:`)) return true;
        each = each.behind === undefined ? undefined : this.declared.get(each.behind);
      }
      return false;
    });
  }

  reset(slot: string): void {
    const device = this.device(slot);
    this.#machine.stuck.needLock(slot);
    if (device.resetMethods.length === 0) throw new Errno('ENOTTY');
    device.resets++;
    const [method = ''] = device.resetMethods;
    this.#machine.log.push(`${slot}: reset by ${method}`);
    if (device.declaration.diesOnUnbind?.revivedBy === method) renderConfig(this.#machine, device);
  }

  /** A driver has left the device: some do not survive that. */
  afterUnbind(device: LiveFunction): void {
    if (device.declaration.diesOnUnbind !== undefined) renderConfig(this.#machine, device, true);
  }

  /** `resourceN_resize`: only for a device without a driver. */
  resize(slot: string, bar: number, value: string): void {
    const size = wholeNumber(value);
    const device = this.device(slot);
    this.#machine.stuck.needLock(slot);
    if (device.driver !== undefined) throw new Errno('EBUSY');
    const {sizes = [], room = Infinity} = device.declaration.resizable?.[bar] ?? {};
    if (!sizes.includes(size)) throw new Errno('EINVAL');
    if (size > room) throw new Errno('ENOSPC');
    device.regions[bar] = 2 ** (size + 20);
    renderRegions(this.#machine, device);
    this.#machine.log.push(`${slot}: BAR ${bar} has ${2 ** size} MiB`);
  }

  setResetMethods(slot: string, value: string): void {
    const device = this.device(slot);
    const supported = device.declaration.resetMethods ?? [];
    const text = value.replace(/\n$/, '');
    const names = text === 'default' ? supported : text.split(' ').filter((name) => name.trim() !== '');
    if (!names.every((name) => supported.includes(name.trim()))) throw new Errno('EINVAL');
    device.resetMethods = names.map((name) => name.trim());
    renderResetMethods(this.#machine, device);
  }

  /** `enable`: only for a device without a driver. */
  enable(slot: string, value: string): void {
    const number = wholeNumber(value);
    const device = this.device(slot);
    this.#machine.stuck.needLock(slot);
    if (device.driver !== undefined) throw new Errno('EBUSY');
    this.#machine.tree.file(`${device.path}/enable`, number === 0 ? '0\n' : '1\n', 0o644);
  }

  setPowerControl(slot: string, value: string): void {
    const text = value.replace(/\n$/, '');
    if (text !== 'auto' && text !== 'on') throw new Errno('EINVAL');
    this.#machine.stuck.needLock(slot);
    this.#machine.tree.file(`${this.device(slot).path}/power/control`, `${text}\n`, 0o644);
  }

  scan(wanted: (device: FunctionDeclaration) => boolean): void {
    const found: LiveFunction[] = [];
    // A bridge is found before what is behind it, whatever the order of the declaration.
    for (let before = -1; before !== found.length;) {
      before = found.length;
      for (const declaration of this.declared.values()) {
        const {slot, behind} = declaration;
        if (this.#functions.has(slot) || this.#unplugged.has(slot) || !wanted(declaration)) continue;
        if (behind !== undefined && !this.#functions.has(behind)) continue;
        found.push(this.add(declaration));
      }
    }
    if (this.#machine.drivers.autoprobe) for (const device of found) this.#machine.drivers.attachAny(device);
  }

  add(declaration: FunctionDeclaration, physical?: LiveFunction): LiveFunction {
    const {slot} = declaration;
    const path =
      physical === undefined
        ? this.#pathOf(declaration)
        : `${physical.path.slice(0, physical.path.lastIndexOf('/'))}/${slot}`;
    const device: LiveFunction = {
      declaration,
      slot,
      path,
      group: this.#machine.declaration.iommu === false ? undefined : declaration.group?.toString(),
      physical: physical?.slot,
      driver: undefined,
      override: declaration.override,
      resetMethods: [...(declaration.resetMethods ?? [])],
      virtualFunctions: 0,
      virtualAutoprobe: true,
      probeable: physical === undefined,
      parts: [],
      resets: 0,
      regions: [...(declaration.regions ?? [])],
    };
    this.#functions.set(slot, device);
    renderDevice(this.#machine, device);
    this.#machine.events.emitDevice('add', device);
    return device;
  }

  takeOut(device: LiveFunction, pulled: boolean): void {
    // All lose their drivers before the first one is removed.
    for (const each of [...this.#below(device, true), device]) {
      if (!this.#functions.has(each.slot)) continue;
      try {
        this.#machine.drivers.detach(each);
      } catch (error) {
        // The remover waits with the lock of the tree in its hand.
        if (error instanceof NeverReturns)
          this.#machine.stuck.set(each.slot, {
            operation: 'remove',
            over: this.#machine.stuck.get(each.slot)?.over ?? (() => true),
            complete: () => this.takeOut(device, pulled),
          });
        throw error;
      }
    }
    for (const each of [...this.#below(device), device]) {
      const {slot} = each;
      this.#functions.delete(slot);
      this.#machine.stuck.delete(slot);
      if (each.physical !== undefined) this.#machine.sriov.forgetVirtual(each);
      this.#machine.tree.remove(`/sys/bus/pci/devices/${slot}`);
      this.#leaveGroup(each);
      for (const name of this.#machine.tree.list(`${each.path}/pci_bus`))
        this.#machine.tree.remove(`/sys/class/pci_bus/${name}`);
      this.#machine.events.emitDevice('remove', each);
      this.#machine.tree.remove(each.path);
    }
  }

  /** Everything below a bridge, and a physical function's virtual ones; the deepest first. */
  #below(device: LiveFunction, backwards = false): LiveFunction[] {
    const children = [...this.#functions.values()].filter(
      (each) => each.declaration.behind === device.slot || each.physical === device.slot,
    );
    if (backwards) children.reverse();
    return children.flatMap((each) => [...this.#below(each, backwards), each]);
  }

  #pathOf(declaration: FunctionDeclaration): string {
    const above = declaration.behind === undefined ? undefined : this.#functions.get(declaration.behind);
    return `${above?.path ?? `/sys/devices/pci${declaration.slot.slice(0, 7)}`}/${declaration.slot}`;
  }

  #leaveGroup(device: LiveFunction): void {
    if (device.group === undefined) return;
    const folder = `/sys/kernel/iommu_groups/${device.group}`;
    this.#machine.tree.remove(`${folder}/devices/${device.slot}`);
    this.#machine.tree.remove(
      `/sys/devices/virtual/iommu/${String(this.#machine.declaration.iommu)}/devices/${device.slot}`,
    );
    if (this.#machine.tree.list(`${folder}/devices`).length === 0) this.#machine.tree.remove(folder);
  }

  /** The functions that are in the machine now, by slot. */
  get functions(): ReadonlyMap<string, LiveFunction> {
    return this.#functions;
  }

  /** What may be found in a slot at the start. */
  declare(declaration: FunctionDeclaration): void {
    this.declared.set(declaration.slot, declaration);
    if (declaration.present === false) this.#unplugged.add(declaration.slot);
  }
}
