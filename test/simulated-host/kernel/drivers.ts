import type {DriverDeclaration, FunctionDeclaration} from '../declaration.js';
import {Errno, NeverReturns} from '../errno.js';
import {partsOf} from './parts.js';
import {isBridge, matchesPattern, modaliasOf, numbersOf} from './render.js';
import {renderUevent} from './function-files.js';
import type {SimulatedMachine} from './machine.js';
import type {LiveFunction} from './pci.js';

interface RefusedProbe {
  readonly slot: string;
  readonly driver: string;
  readonly errno: string;
  left: number;
}

/** The PCI drivers: which devices they match, take and release. */
export class Drivers {
  readonly #machine: SimulatedMachine;
  readonly #registered: string[] = [];
  readonly #dynamicIds = new Map<string, string[]>();
  readonly #refused: RefusedProbe[] = [];
  /** The devices that have a driver, in the order in which they were bound. */
  #bound: string[] = [];
  #autoprobe = true;

  constructor(machine: SimulatedMachine) {
    this.#machine = machine;
  }

  bind(driverName: string, slot: string): void {
    const device = this.#machine.functions.get(slot);
    const driver = this.named(driverName);
    // The match is asked first: a device that another driver has and this one does not know is ENODEV, not EBUSY.
    if (device === undefined || !this.#matches(driver, device)) throw new Errno('ENODEV');
    this.#machine.stuck.needLock(slot);
    if (device.driver !== undefined) throw new Errno('EBUSY');
    this.#probe(driver, device);
  }

  unbind(driverName: string, slot: string): void {
    const device = this.#machine.functions.get(slot);
    if (device?.driver !== driverName) throw new Errno('ENODEV');
    this.#machine.stuck.needLock(slot);
    this.detach(device);
  }

  /** `drivers_probe`: success also when no driver took the device, and when it has one. */
  probe(slot: string): void {
    const device = this.#machine.functions.get(slot);
    if (device === undefined) throw new Errno('ENODEV');
    this.#machine.stuck.needLock(slot);
    if (device.driver === undefined) this.attachAny(device);
  }

  addId(driverName: string, text: string): void {
    const fields = idFields(text);
    const driver = this.named(driverName);
    const known = this.#dynamicIds.get(driverName) ?? [];
    const [vendor = '', model = ''] = fields;
    const probe: FunctionDeclaration = {slot: '', id: `${vendor}:${model}`, class: fields[4] ?? '000000'};
    if (fields.length < 7 && (known.some((id) => sameId(id, fields)) || matchesStatic(driver, probe, false)))
      throw new Errno('EEXIST');
    if (driver.needsData === true && fields.length < 7) throw new Errno('EINVAL');
    this.#dynamicIds.set(driverName, [...known, fields.join(' ')]);
    // Every unbound device is offered, so twins are taken too; a probe's failure is not reported.
    for (const device of this.#machine.functions.values()) {
      if (!this.#matches(driver, device)) continue;
      this.#machine.stuck.needLock(device.slot);
      if (device.driver === undefined) this.#tryProbe(driver, device);
    }
  }

  removeId(driverName: string, text: string): void {
    const fields = idFields(text);
    const known = this.#dynamicIds.get(driverName) ?? [];
    const left = known.filter((id) => !sameId(id, fields));
    if (left.length === known.length) throw new Errno('ENODEV');
    this.#dynamicIds.set(driverName, left);
  }

  setOverride(slot: string, value: string): void {
    if (value.length >= 4095) throw new Errno('EINVAL');
    const device = this.#machine.pci.device(slot);
    this.#machine.stuck.needLock(slot);
    // Up to the first newline or NUL; nothing before it clears.
    const name = value.split(/[\n\0]/, 1)[0] ?? '';
    device.override = name === '' ? undefined : name;
    this.#machine.tree.file(`${device.path}/driver_override`, `${device.override ?? '(null)'}\n`, 0o644);
  }

  setAutoprobe(on: boolean): void {
    this.#autoprobe = on;
    this.#machine.tree.file('/sys/bus/pci/drivers_autoprobe', on ? '1\n' : '0\n', 0o644);
  }

  /** From now on (or `times` times) this driver's probe of this device fails: `bind` gives the errno, `drivers_probe` succeeds and binds nothing. */
  refuseProbe(slot: string, driver: string, errno = 'ENODEV', times = Infinity): void {
    this.#refused.push({slot, driver, errno, left: times});
  }

  named(name: string): DriverDeclaration {
    const driver = this.#machine.declaration.drivers.find((each) => each.name === name);
    if (driver === undefined || !this.#registered.includes(name))
      throw new Errno('ENOENT', `no driver ${name}`);
    return driver;
  }

  /** pci_match_device(): an override excludes all others and matches always; then dynamic ids; then the table. */
  #matches(driver: DriverDeclaration, device: LiveFunction): boolean {
    if (!device.probeable) return false;
    if (device.override !== undefined) return device.override === driver.name;
    const {vendor, model, subVendor, subModel, code} = numbersOf(device.declaration);
    const dynamic = (this.#dynamicIds.get(driver.name) ?? []).some((id) => {
      const [v, d, sv, sd, c, mask] = id.split(' ');
      const same = (one: string | undefined, other: string) =>
        one === undefined || one === 'ffffffff' || parseInt(one, 16) === parseInt(other, 16);
      const classMask = parseInt(mask ?? '0', 16);
      return (
        same(v, vendor) &&
        same(d, model) &&
        same(sv, subVendor) &&
        same(sd, subModel) &&
        ((parseInt(c ?? '0', 16) ^ parseInt(code, 16)) & classMask) === 0
      );
    });
    return dynamic || matchesStatic(driver, device.declaration, false);
  }

  #tryProbe(driver: DriverDeclaration, device: LiveFunction): boolean {
    try {
      this.#probe(driver, device);
      return true;
    } catch (error) {
      if (!(error instanceof Errno)) throw error;
      this.#machine.log.push(`${driver.name} ${device.slot}: probe failed: ${error.errno}`);
      return false;
    }
  }

  /** device_attach(): the first registered driver that matches and whose probe succeeds. */
  attachAny(device: LiveFunction): boolean {
    return this.#registered.some((name) => {
      const driver = this.named(name);
      return this.#matches(driver, device) && this.#tryProbe(driver, device);
    });
  }

  #probe(driver: DriverDeclaration, device: LiveFunction): void {
    const refusal = this.#refused.find(
      (each) => each.slot === device.slot && each.driver === driver.name && each.left > 0,
    );
    if (refusal !== undefined) {
      refusal.left--;
      throw new Errno(refusal.errno);
    }
    const physical = device.physical === undefined ? undefined : this.#machine.functions.get(device.physical);
    if (physical?.virtualAutoprobe === false && device.override === undefined) throw new Errno('ENODEV');
    const {declaration} = device;
    if (driver.gives?.includes('vfio') === true) {
      if (isBridge(declaration)) throw new Errno('EINVAL', 'not a normal header');
      if (device.group === undefined && !this.#withoutIommu()) throw new Errno('EINVAL', 'no IOMMU group');
      if (device.virtualFunctions > 0) throw new Errno('EBUSY', 'virtual functions are enabled');
    } else if (driver.name !== 'pci-stub' && driver.name !== 'pcieport') {
      // A group that a guest has open is not given to a host driver.
      if (
        device.group !== undefined &&
        this.#machine.processes.holders(`/dev/vfio/${device.group}`).length > 0
      )
        throw new Errno('EBUSY');
      if (!matchesStatic(driver, declaration, true) && !suits(driver, declaration))
        throw new Errno(driver.refusal ?? 'ENODEV');
    }
    this.attach(driver, device);
  }

  #withoutIommu(): boolean {
    return this.#machine.tree.read('/sys/module/vfio/parameters/enable_unsafe_noiommu_mode')?.trim() === 'Y';
  }

  attach(driver: DriverDeclaration, device: LiveFunction): void {
    const folder = `/sys/bus/pci/drivers/${driver.name}`;
    device.driver = driver.name;
    this.#bound.push(device.slot);
    this.#machine.tree.link(`${device.path}/driver`, folder);
    this.#machine.tree.link(`${folder}/${device.slot}`, device.path);
    this.#machine.tree.file(`${device.path}/enable`, '1\n', 0o644);
    renderUevent(this.#machine, device);
    if (driver.gives?.includes('vfio') === true) {
      this.#machine.classDevices.openVfio(device);
      // vfio_pci_core_register_device(): the idle device may be suspended.
      this.#machine.pci.setPowerControl(device.slot, 'auto');
    } else
      for (const part of partsOf(
        device.declaration,
        device.path,
        driver,
        this.#machine.classDevices.allocate,
      ))
        this.#machine.classDevices.addPart(device, part);
    this.#machine.console.consoleAppears(device);
    this.#machine.events.emitDevice('bind', device);
  }

  detach(device: LiveFunction): void {
    const {driver: name} = device;
    if (name === undefined) return;
    const driver = this.named(name);
    const waits = () => driver.waitsForClose === true && this.#machine.processes.openers(device).length > 0;
    if (waits()) {
      // The links go first: the kernel waits in the driver.
      this.#removeLinks(device, name);
      this.#machine.stuck.set(device.slot, {
        operation: 'unbind',
        over: () => !waits(),
        complete: () => this.detach(device),
      });
      throw new NeverReturns(
        device.slot,
        `${name} waits until ${this.#machine.processes.openers(device).join(', ')} is closed`,
      );
    }
    this.#machine.hostUse.noteHarm(device, `${name} lost ${device.slot}`);
    if (device.virtualFunctions > 0 && driver.leavesSriov !== true)
      this.#machine.sriov.removeVirtualFunctions(device);
    this.#dropParts(device);
    this.#removeLinks(device, name);
    this.#machine.tree.file(`${device.path}/enable`, '0\n', 0o644);
    if (driver.gives?.includes('vfio') === true)
      this.#machine.tree.file(`${device.path}/power/control`, 'on\n', 0o644);
    device.driver = undefined;
    this.#machine.pci.afterUnbind(device);
    this.#bound = this.#bound.filter((slot) => slot !== device.slot);
    renderUevent(this.#machine, device);
    this.#machine.events.emitDevice('unbind', device);
  }

  #removeLinks(device: LiveFunction, name: string): void {
    this.#machine.tree.remove(`${device.path}/driver`);
    this.#machine.tree.remove(`/sys/bus/pci/drivers/${name}/${device.slot}`);
  }

  #dropParts(device: LiveFunction): void {
    const console = device.parts.some((part) => part.subsystem === 'graphics');
    for (const part of [...device.parts].reverse()) this.#machine.classDevices.removePart(part);
    device.parts = [];
    if (console) this.#machine.console.consoleGoes();
    if (device.driver !== undefined && this.named(device.driver).gives?.includes('vfio') === true)
      this.#machine.classDevices.closeVfio(device);
  }

  register(driver: DriverDeclaration, attach = this.#autoprobe): void {
    if (this.#registered.includes(driver.name)) return;
    if (attach)
      for (const device of this.#machine.functions.values())
        if (this.#matchesUnregistered(driver, device)) this.#machine.stuck.needLock(device.slot);
    this.#registered.push(driver.name);
    const folder = `/sys/bus/pci/drivers/${driver.name}`;
    for (const file of ['bind', 'unbind', 'new_id', 'remove_id', 'uevent'])
      this.#machine.tree.file(`${folder}/${file}`, '', 0o200);
    if (driver.module !== undefined) {
      this.#machine.tree.link(`${folder}/module`, `/sys/module/${driver.module}`);
      this.#machine.tree.link(`/sys/module/${driver.module}/drivers/pci:${driver.name}`, folder);
    }
    if (attach)
      for (const device of this.#machine.functions.values())
        if (device.driver === undefined && this.#matches(driver, device)) this.#tryProbe(driver, device);
  }

  #matchesUnregistered(driver: DriverDeclaration, device: LiveFunction): boolean {
    return this.#machine.stuck.isStuck(device.slot) && this.#matches(driver, device);
  }

  unregister(driver: DriverDeclaration): void {
    // The last bound is released first.
    for (const slot of this.#bound.toReversed())
      if (this.#machine.functions.get(slot)?.driver === driver.name) this.detach(this.#machine.device(slot));
    const at = this.#registered.indexOf(driver.name);
    if (at !== -1) this.#registered.splice(at, 1);
    this.#dynamicIds.delete(driver.name);
    this.#machine.tree.remove(`/sys/bus/pci/drivers/${driver.name}`);
  }

  /** Whether new devices are offered to drivers. */
  get autoprobe(): boolean {
    return this.#autoprobe;
  }

  /** Ids that a driver's module was loaded with. */
  addParameterIds(driver: string, ids: readonly string[]): void {
    const known = this.#dynamicIds.get(driver) ?? [];
    this.#dynamicIds.set(driver, [...known, ...ids.map((id) => id.replaceAll(':', ' '))]);
  }

  /** The devices are found while nothing is offered to drivers: those that have one are declared. */
  withoutAutoprobe(work: () => void): void {
    this.#autoprobe = false;
    work();
    this.#autoprobe = true;
  }
}

/** `10de 1b80 [subvendor subdevice class mask data]` */
function idFields(text: string): string[] {
  const fields: string[] = [];
  for (const field of text.trim().split(/\s+/)) {
    if (!/^(0x)?[0-9a-f]{1,8}$/i.test(field)) break;
    fields.push(field.toLowerCase().replace(/^0x/, ''));
  }
  if (fields.length < 2) throw new Errno('EINVAL');
  return fields.slice(0, 7);
}

function sameId(known: string, fields: readonly string[]): boolean {
  const [vendor = '', model = ''] = known.split(' ');
  return (
    parseInt(vendor, 16) === parseInt(fields[0] ?? '', 16) &&
    parseInt(model, 16) === parseInt(fields[1] ?? '', 16)
  );
}

/** The driver's own table; entries for vfio count only under an override. */
function matchesStatic(driver: DriverDeclaration, device: FunctionDeclaration, overridden: boolean): boolean {
  const alias = modaliasOf(device);
  return driver.aliases.some((pattern) => {
    if (pattern.startsWith('vfio_pci:'))
      return overridden && matchesPattern(pattern.replace('vfio_pci:', 'pci:'), alias);
    return pattern.startsWith('pci:') && matchesPattern(pattern, alias);
  });
}

/** Whether a driver can work with hardware that is not in its table: for a stub always, for others when it finds what it drives. */
function suits(driver: DriverDeclaration, device: FunctionDeclaration): boolean {
  const gifts = driver.gives ?? [];
  if (driver.refusal === undefined && (gifts.length === 0 || gifts.includes('uio'))) return true;
  return gifts.some((gift) => gift !== 'vfio' && gift !== 'uio' && device[gift] !== undefined);
}
