import fs from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import type {
  DriverDeclaration,
  FunctionDeclaration,
  MachineDeclaration,
  ModuleDeclaration,
  ProcessDeclaration,
} from './declaration.js';
import {Errno, NeverReturns} from './errno.js';
import {SimulatedMdevs, type MdevMachine} from './mdevs.js';
import {partsOf, vfioPart, type Part} from './parts.js';
import {
  configOf,
  driverRules,
  isBridge,
  matchesPattern,
  modaliasOf,
  mountLine,
  numbersOf,
  pciIds,
  resourceOf,
  route6Table,
  routeTable,
} from './render.js';
import {standardMachine} from './standard-machine.js';
import {Tree} from './tree.js';

/** What the kernel tells user space, see udev(7). */
export interface KernelEvent {
  readonly action: string;
  /** Without /sys. */
  readonly devpath: string;
  readonly subsystem: string;
  readonly properties: Readonly<Record<string, string>>;
}

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
  parts: Part[];
  resets: number;
}

/** A write that is in the kernel and has not returned. */
interface Stuck {
  readonly operation: string;
  /** Whether what it waited for has come. */
  readonly over: () => boolean;
  /** What the kernel does then. */
  readonly complete: () => void;
}

interface Process extends ProcessDeclaration {
  readonly descriptors: string[];
}

/** Input nodes nobody has to close, and a sound server closes a card's control node when the card goes. */
function keepsOpen(node: string): (process: Process) => boolean {
  const isControl = /^\/dev\/snd\/controlC\d+$/.test(node);
  const isInput = node.startsWith('/dev/input/');
  return ({comm}) => !isInput && !(isControl && /^(?:pipewire|wireplumber|pulseaudio)/.test(comm));
}

interface RefusedProbe {
  readonly slot: string;
  readonly driver: string;
  readonly errno: string;
  left: number;
}

/** The ID of the first mount, see mountinfo in proc(5). */
const firstMount = 22;

/**
 * A machine in a folder: the tree of /sys, /proc, /dev and /etc, and the kernel's state behind it. Only
 * {@link write} and the methods named after what happens to a machine (a card is pulled, a process ends) change it.
 */
export class SimulatedMachine {
  readonly tree: Tree;
  readonly declaration: MachineDeclaration;
  readonly mdevs: SimulatedMdevs;
  /** Milliseconds that calls would have waited; nothing here really waits. */
  elapsed = 0;
  /** What went wrong for the machine's users: a disk taken while mounted, an interface while routed. */
  readonly harm: string[] = [];
  /** The kernel's log. */
  readonly log: string[] = [];
  /** Locks of the product, by name; see `Host.lock`. */
  readonly locks = new Map<string, Promise<void>>();
  /** Owners of files that are not root's. */
  readonly owners = new Map<string, number>();
  /** The same for their groups. */
  readonly groups = new Map<string, number>();
  readonly #functions = new Map<string, LiveFunction>();
  readonly #declared = new Map<string, FunctionDeclaration>();
  readonly #unplugged = new Set<string>();
  readonly #registered: string[] = [];
  readonly #dynamicIds = new Map<string, string[]>();
  readonly #loaded = new Map<string, ModuleDeclaration>();
  readonly #processes = new Map<number, Process>();
  readonly #numbers = new Set<string>();
  readonly #addresses = new Map<string, readonly string[]>();
  readonly #stuck = new Map<string, Stuck>();
  readonly #refused: RefusedProbe[] = [];
  readonly #later: {readonly at: number; readonly happen: () => void}[] = [];
  readonly #listeners = new Set<(event: KernelEvent) => void>();
  #routes: MachineDeclaration['routes'];
  #mounts: MachineDeclaration['mounts'];
  #swaps: MachineDeclaration['swaps'];
  #nextInterface = 2;
  /** The framebuffer that has the console. */
  #consoleOn: string | undefined;
  /** When the next process is started, in clock ticks since the boot. */
  #ticks = 100;
  #sequence = 1000;
  #autoprobe = true;
  #booting = true;

  /** Builds the tree, in a new temporary folder. */
  constructor(declaration: MachineDeclaration = standardMachine()) {
    this.tree = new Tree(fs.mkdtempSync(join(temporaryFolder(), 'pearasys-machine-')));
    this.declaration = declaration;
    this.#routes = [...declaration.routes];
    this.#mounts = [...declaration.mounts];
    this.#swaps = [...declaration.swaps];
    this.#build();
    this.mdevs = new SimulatedMdevs(this.#forMdevs(), declaration.mdevParents);
    for (const [uuid, type] of Object.entries(declaration.mdevs)) this.#createMdev(uuid, type);
    this.#booting = false;
  }

  /** See {@link Tree.folder}. */
  get folder(): string {
    return this.tree.folder;
  }

  /** Removes the folder. */
  dispose(): void {
    this.tree.dispose();
  }

  // ---------------------------------------------------------------- looking

  /** The functions that are in the machine now, by slot. */
  get functions(): ReadonlyMap<string, LiveFunction> {
    return this.#functions;
  }

  /** A function that is in the machine. */
  device(slot: string): LiveFunction {
    const found = this.#functions.get(slot);
    if (found === undefined) throw new Error(`there is no ${slot} in the simulated machine`);
    return found;
  }

  /** Which driver has which function: `0000:01:00.0 nouveau`, with the override in brackets. For tests to compare whole. */
  bindings(): string[] {
    return [...this.#functions.values()]
      .sort((one, other) => one.slot.localeCompare(other.slot))
      .map(
        ({slot, driver, override}) =>
          `${slot} ${driver ?? '-'}${override === undefined ? '' : ` (${override})`}`,
      );
  }

  /** The processes that end with a unit: those in its control group, and what they started. */
  processesOf(unit: string): ProcessDeclaration[] {
    const found = new Map<number, Process>();
    for (let before = -1; before !== found.size;) {
      before = found.size;
      for (const process of this.#processes.values())
        if (process.cgroup?.includes(`/${unit}`) === true || found.has(process.parent ?? 0))
          found.set(process.pid, process);
    }
    return [...found.values()].map((process) => ({...process, holds: [...(process.holds ?? [])]}));
  }

  /** The processes whose control group is below one of these. */
  processesIn(groups: readonly string[]): ProcessDeclaration[] {
    return [...this.#processes.values()]
      .filter(({cgroup = ''}) => groups.some((group) => cgroup.startsWith(group)))
      .map((process) => ({...process, holds: [...(process.holds ?? [])]}));
  }

  /** The user ID of a process. */
  ownerOf(pid: number): number {
    return this.#process(pid).uid ?? 0;
  }

  isLoaded(module: string): boolean {
    return this.#loaded.has(module);
  }

  /** Addresses of each interface that is up. */
  addresses(): ReadonlyMap<string, readonly string[]> {
    return this.#addresses;
  }

  /** Whether open(2) with O_EXCL of this block device answers EBUSY: it, or for a disk one of its partitions, is claimed. */
  isClaimed(node: string): boolean {
    const name = node.slice('/dev/'.length);
    const claims = this.#claims();
    if (claims.has(node)) return true;
    return [...claims.keys()].some((claim) => {
      const real = this.tree.resolve(`/sys/class/block/${claim.slice('/dev/'.length)}`);
      return real?.split('/').at(-2) === name;
    });
  }

  subscribe(listener: (event: KernelEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  // ---------------------------------------------------------------- what happens to a machine

  /** Puts a card into its slot without an event: a later rescan finds it. */
  plug(device: string | FunctionDeclaration): void {
    const slot = typeof device === 'string' ? device : device.slot;
    if (typeof device !== 'string') this.#declared.set(slot, device);
    if (!this.#declared.has(slot)) throw new Error(`the machine declares no ${slot}`);
    this.#unplugged.delete(slot);
  }

  /** Puts a card in while the machine runs, by slot or by a declaration (another card in that slot). */
  hotAdd(device: string | FunctionDeclaration): void {
    const slot = typeof device === 'string' ? device : device.slot;
    if (this.#functions.has(slot)) throw new Error(`${slot} is in the machine already`);
    this.plug(device);
    this.#scan((each) => each.slot === slot);
  }

  /** Pulls a card out, as a hot-unplug does; it comes back only by {@link hotAdd} or {@link plug}. */
  hotRemove(slot: string): void {
    this.#remove(this.device(slot), true);
    this.#unplugged.add(slot);
  }

  addProcess(declaration: ProcessDeclaration): void {
    const process: Process = {...declaration, descriptors: [...(declaration.holds ?? [])]};
    this.#processes.set(process.pid, process);
    const folder = `/proc/${process.pid}`;
    const command = process.cmdline ?? [process.comm];
    const uid = process.uid ?? 0;
    this.tree.file(`${folder}/comm`, `${process.comm}\n`, 0o644);
    this.tree.file(`${folder}/cmdline`, command.map((word) => `${word}\0`).join(''));
    this.tree.file(`${folder}/cgroup`, `0::${process.cgroup ?? '/'}\n`);
    this.tree.file(
      `${folder}/status`,
      `Name:\t${process.comm}\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t${process.pid}\nPid:\t${process.pid}\n` +
        `PPid:\t${process.parent ?? 1}\nUid:\t${Array(4).fill(uid).join('\t')}\nGid:\t${Array(4).fill(uid).join('\t')}\n`,
    );
    this.tree.file(
      `${folder}/stat`,
      `${process.pid} (${process.comm}) S ${process.parent ?? 1} 0 0 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 ${this.#ticks++}\n`,
    );
    this.tree.file(
      `${folder}/maps`,
      ['/usr/lib/x86_64-linux-gnu/libc.so.6', ...(process.maps ?? [])]
        .map(
          (path, index) =>
            `7f00000${index}0000-7f00000${index}1000 rw-s 00000000 00:05 ${700 + index}                        ${path}\n`,
        )
        .join(''),
    );
    this.#renderDescriptors(process);
  }

  /** Lets a process open something: `/dev/dri/card1`, or `anon_inode:[vfio-device]`. */
  openFile(pid: number, path: string): void {
    const process = this.#process(pid);
    process.descriptors.push(path);
    this.#renderDescriptors(process);
  }

  closeFile(pid: number, path: string): void {
    const process = this.#process(pid);
    const at = process.descriptors.indexOf(path);
    if (at === -1) throw new Error(`process ${pid} does not hold ${path}`);
    process.descriptors.splice(at, 1);
    this.#renderDescriptors(process);
    this.#wake();
  }

  /** A signal that was sent to a process, see signal(7): it ends, unless its declaration says otherwise. */
  signal(pid: number, signal: 'SIGTERM' | 'SIGKILL'): void {
    const process = this.#process(pid);
    if (process.ignores?.includes(signal) === true) return;
    const {takes = 0} = process;
    if (signal === 'SIGKILL' || takes === 0) this.endProcess(pid);
    else this.after(takes, () => this.#processes.get(pid) === process && this.endProcess(pid));
  }

  /** Ends a process; a write that waited for it returns. */
  endProcess(pid: number): void {
    this.#process(pid);
    this.#processes.delete(pid);
    this.tree.remove(`/proc/${pid}`);
    this.#wake();
  }

  /** Time passes: what was to happen {@link after} a while does. */
  pass(milliseconds: number): void {
    this.elapsed += milliseconds;
    for (const each of [...this.#later].sort((one, other) => one.at - other.at)) {
      if (each.at > this.elapsed) break;
      this.#later.splice(this.#later.indexOf(each), 1);
      each.happen();
    }
  }

  /** Lets something happen once this much time has passed. */
  after(milliseconds: number, happen: () => void): void {
    this.#later.push({at: this.elapsed + milliseconds, happen});
  }

  mount(mount: MachineDeclaration['mounts'][number]): void {
    this.#mounts.push(mount);
    this.#renderMounts();
  }

  unmount(target: string): void {
    this.#mounts = this.#mounts.filter((mount) => mount.target !== target);
    this.#renderMounts();
  }

  /** From now on (or `times` times) this driver's probe of this device fails: `bind` gives the errno, `drivers_probe` succeeds and binds nothing. */
  refuseProbe(slot: string, driver: string, errno = 'ENODEV', times = Infinity): void {
    this.#refused.push({slot, driver, errno, left: times});
  }

  /** Makes a device's lock held, as by a write that never returns, until the function returned is called. */
  holdLock(slot: string, complete: () => void = () => undefined, operation = 'unbind'): () => void {
    let over = false;
    this.#stuck.set(slot, {operation, over: () => over, complete});
    return () => {
      over = true;
      this.#wake();
    };
  }

  /** Whether a write to this device is in the kernel and has not returned. */
  isStuck(slot: string): boolean {
    return this.#stuck.has(slot);
  }

  // ---------------------------------------------------------------- the kernel's answers

  /**
   * The kernel's answer to one write(2).
   * @throws Errno what it refuses with.
   * @throws NeverReturns
   */
  write(path: string, value: string, userId = 0): void {
    const real = this.tree.resolve(path);
    const stat = real === undefined ? undefined : this.tree.stat(real);
    if (real === undefined || stat === undefined) throw new Errno('ENOENT');
    if (stat.isDirectory()) throw new Errno('EISDIR');
    // sysfs checks the permission bits for root too.
    if ((stat.mode & 0o222) === 0 || userId !== 0) throw new Errno('EACCES');
    // A write of no bytes does not reach the attribute.
    if (value === '') return;
    for (const {path: expression, write} of answers) {
      const match = expression.exec(real);
      if (match === null) continue;
      write({machine: this, real, value, words: match.slice(1).map((each) => each as string | undefined)});
      return;
    }
    throw new Error(`the simulation has no answer to a write to ${real}: add one to the table in machine.ts`);
  }

  /** The device whose lock a read of this attribute takes: it would not return while a write to the device is stuck. */
  takesLock(real: string): string | undefined {
    // uevent took it too in some kernels.
    const ueventToo = /^6\.1[0-2]\./.test(this.declaration.release);
    const [, slot, attribute] =
      /^\/sys\/devices\/pci.*\/([0-9a-f:.]{12})\/(driver_override|sriov_numvfs|uevent)$/.exec(real) ?? [];
    return attribute === 'uevent' && !ueventToo ? undefined : slot;
  }

  bind(driverName: string, slot: string): void {
    const device = this.#functions.get(slot);
    const driver = this.#driver(driverName);
    // The match is asked first: a device that another driver has and this one does not know is ENODEV, not EBUSY.
    if (device === undefined || !this.#matches(driver, device)) throw new Errno('ENODEV');
    this.#needLock(slot);
    if (device.driver !== undefined) throw new Errno('EBUSY');
    this.#probe(driver, device);
  }

  unbind(driverName: string, slot: string): void {
    const device = this.#functions.get(slot);
    if (device?.driver !== driverName) throw new Errno('ENODEV');
    this.#needLock(slot);
    this.#detach(device);
  }

  /** `drivers_probe`: success also when no driver took the device, and when it has one. */
  probe(slot: string): void {
    const device = this.#functions.get(slot);
    if (device === undefined) throw new Errno('ENODEV');
    this.#needLock(slot);
    if (device.driver === undefined) this.#attachAny(device);
  }

  addId(driverName: string, text: string): void {
    const fields = idFields(text);
    const driver = this.#driver(driverName);
    const known = this.#dynamicIds.get(driverName) ?? [];
    const [vendor = '', model = ''] = fields;
    const probe: FunctionDeclaration = {slot: '', id: `${vendor}:${model}`, class: fields[4] ?? '000000'};
    if (fields.length < 7 && (known.some((id) => sameId(id, fields)) || matchesStatic(driver, probe, false)))
      throw new Errno('EEXIST');
    this.#dynamicIds.set(driverName, [...known, fields.join(' ')]);
    // Every unbound device is offered, so twins are taken too; a probe's failure is not reported.
    for (const device of this.#functions.values()) {
      if (!this.#matches(driver, device)) continue;
      this.#needLock(device.slot);
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
    const device = this.device(slot);
    this.#needLock(slot);
    // Up to the first newline or NUL; nothing before it clears.
    const name = value.split(/[\n\0]/, 1)[0] ?? '';
    device.override = name === '' ? undefined : name;
    this.tree.file(`${device.path}/driver_override`, `${device.override ?? '(null)'}\n`, 0o644);
  }

  /** Takes a device out logically, with all below it; it stays in its slot. */
  remove(slot: string): void {
    this.#needScanLock();
    const device = this.device(slot);
    for (const each of [...this.#below(device), device]) this.#needLock(each.slot);
    this.#remove(device, false);
  }

  /** Looks for what is in the slots and not known yet: everywhere, or on one bus (`0000:01`) and below it. */
  rescan(bus?: string): void {
    this.#needScanLock();
    this.#scan((device) => {
      for (let each: FunctionDeclaration | undefined = device; each !== undefined;) {
        if (bus === undefined || each.slot.startsWith(`${bus}:`)) return true;
        each = each.behind === undefined ? undefined : this.#declared.get(each.behind);
      }
      return false;
    });
  }

  reset(slot: string): void {
    const device = this.device(slot);
    this.#needLock(slot);
    if (device.resetMethods.length === 0) throw new Errno('ENOTTY');
    device.resets++;
    this.log.push(`${slot}: reset by ${device.resetMethods[0] ?? ''}`);
  }

  setResetMethods(slot: string, value: string): void {
    const device = this.device(slot);
    const supported = device.declaration.resetMethods ?? [];
    const text = value.replace(/\n$/, '');
    const names = text === 'default' ? supported : text.split(' ').filter((name) => name.trim() !== '');
    if (!names.every((name) => supported.includes(name.trim()))) throw new Errno('EINVAL');
    device.resetMethods = names.map((name) => name.trim());
    this.#renderResetMethods(device);
  }

  setVirtualFunctions(slot: string, value: string): void {
    const count = wholeNumber(value, 0xffff);
    const device = this.device(slot);
    const sriov = device.declaration.sriov;
    if (sriov === undefined) throw new Errno('ENOENT');
    if (count > sriov.total) throw new Errno('ERANGE');
    this.#needLock(slot);
    if (count === device.virtualFunctions) return;
    if (device.driver === undefined || this.#driver(device.driver).configuresSriov !== true)
      throw new Errno('ENOENT');
    this.#needScanLock();
    if (count === 0) this.#removeVirtualFunctions(device);
    else {
      if (device.virtualFunctions !== 0) throw new Errno('EBUSY');
      this.#addVirtualFunctions(device, count);
    }
  }

  setVirtualAutoprobe(slot: string, value: string): void {
    const device = this.device(slot);
    device.virtualAutoprobe = truth(value);
    this.tree.file(`${device.path}/sriov_drivers_autoprobe`, device.virtualAutoprobe ? '1\n' : '0\n', 0o644);
  }

  /** `enable`: only for a device without a driver. */
  enable(slot: string, value: string): void {
    const number = wholeNumber(value);
    const device = this.device(slot);
    this.#needLock(slot);
    if (device.driver !== undefined) throw new Errno('EBUSY');
    this.tree.file(`${device.path}/enable`, number === 0 ? '0\n' : '1\n', 0o644);
  }

  setPowerControl(slot: string, value: string): void {
    const text = value.replace(/\n$/, '');
    if (text !== 'auto' && text !== 'on') throw new Errno('EINVAL');
    this.#needLock(slot);
    this.tree.file(`${this.device(slot).path}/power/control`, `${text}\n`, 0o644);
  }

  setAutoprobe(on: boolean): void {
    this.#autoprobe = on;
    this.tree.file('/sys/bus/pci/drivers_autoprobe', on ? '1\n' : '0\n', 0o644);
  }

  /**
   * A driver gives the consoles to the other one, or takes them (`1`): from the system's own driver only, and where
   * there is none, from nobody.
   */
  bindConsole(number: string, on: boolean): void {
    const folder = '/sys/devices/virtual/vtconsole';
    const drivers = ['0', '1'].filter((each) => this.tree.has(`${folder}/vtcon${each}`));
    if (!drivers.includes(number)) throw new Errno('ENODEV');
    const isSystems = (each: string) =>
      this.tree.read(`${folder}/vtcon${each}/name`)?.startsWith('(S)') === true;
    if (on && !drivers.some(isSystems)) return;
    for (const each of drivers)
      this.tree.file(`${folder}/vtcon${each}/bind`, (each === number) === on ? '1\n' : '0\n', 0o644);
    this.#consoleOn = (number === '1') === on ? this.#firstFramebuffer() : undefined;
  }

  /** The firmware's framebuffer: a platform device, not a PCI one. */
  bindFirmwareFramebuffer(driver: string, device: string, on: boolean): void {
    if (device !== `${driver}.0`) throw new Errno('ENODEV');
    const bound = this.tree.has(`/sys/bus/platform/drivers/${driver}/${device}`);
    if (on && bound) throw new Errno('EBUSY');
    if (!on && !bound) throw new Errno('ENODEV');
    if (on) this.#addFirmwareFramebuffer(driver);
    else {
      this.tree.remove(`/sys/bus/platform/drivers/${driver}/${device}`);
      this.tree.remove(`/sys/devices/platform/${device}/driver`);
      this.#removeFramebufferPart(`/sys/devices/platform/${device}/graphics/fb0`);
      this.#renderFramebuffers();
    }
  }

  /** Keeps a value, for attributes that do nothing else here. */
  store(real: string, value: string): void {
    const mode = (this.tree.stat(real)?.mode ?? 0o644) & 0o777;
    this.tree.file(real, value.endsWith('\n') ? value : `${value}\n`, mode);
  }

  /** What a write to an `uevent` file, or `udevadm trigger`, makes: an event that says it is synthetic. */
  trigger(real: string, action: string, uuid = '0'): void {
    const folder = real.replace(/\/uevent$/, '');
    const subsystem = this.tree.resolve(`${folder}/subsystem`);
    if (subsystem === undefined) return;
    this.#emit(action, folder, subsystem.slice(subsystem.lastIndexOf('/') + 1), {SYNTH_UUID: uuid});
  }

  // ---------------------------------------------------------------- modules

  /** Loads a module with those it needs; its drivers are registered, and each offered all unbound devices. */
  loadModule(name: string, parameters: Readonly<Record<string, string>> = {}): void {
    if (this.#loaded.has(name)) return;
    const module = this.declaration.modules.find((each) => each.name === name);
    if (module === undefined) throw new Errno('ENOENT', `no module ${name}`);
    if (module.builtin === true) return;
    for (const other of [...(module.depends ?? []), ...(module.softdepPre ?? [])]) this.loadModule(other);
    for (const key of Object.keys(parameters))
      if (module.parameters?.[key] === undefined)
        this.log.push(`${name}: unknown parameter '${key}' ignored`);
    this.#insertModule({
      ...module,
      parameters: {...module.parameters, ...known(parameters, module.parameters)},
    });
    for (const driver of this.declaration.drivers)
      if (driver.module === name) {
        const ids = parameters['ids'] ?? '';
        for (const id of ids.split(',').filter((each) => each !== ''))
          this.#dynamicIds.set(driver.name, [
            ...(this.#dynamicIds.get(driver.name) ?? []),
            id.replaceAll(':', ' '),
          ]);
        this.#register(driver);
      }
    for (const other of module.softdepPost ?? []) this.loadModule(other);
  }

  /** How many use a module: modules, and open nodes of its drivers' devices. */
  moduleUsers(name: string): number {
    const modules = [...this.#loaded.values()].filter((each) => each.depends?.includes(name) === true).length;
    const nodes = [...this.#functions.values()]
      .filter(({driver}) => driver !== undefined && this.#driver(driver).module === name)
      .flatMap((device) => this.#openers(device)).length;
    // The node may be gone while a process still has it open.
    const lost = [...this.#processes.values()]
      .flatMap((process) => process.descriptors)
      .filter((path) => path.startsWith('/dev/dri/') && path.endsWith(' (deleted)')).length;
    const graphics = this.declaration.drivers.some(
      (each) => each.module === name && each.gives?.includes('drm'),
    );
    const shared = (this.#loaded.get(name)?.nodes ?? []).flatMap((node) => this.#holders(node)).length;
    return modules + nodes + (graphics ? lost : 0) + shared;
  }

  unloadModule(name: string): void {
    if (!this.#loaded.has(name)) throw new Errno('ENOENT');
    if (this.moduleUsers(name) > 0) throw new Errno('EBUSY');
    for (const driver of this.declaration.drivers) if (driver.module === name) this.#unregister(driver);
    this.#loaded.delete(name);
    this.tree.remove(`/sys/module/${name}`);
    if (name === 'vfio') {
      this.tree.removeNode('/dev/vfio/vfio');
      this.tree.remove('/sys/devices/virtual/misc/vfio');
      this.tree.remove('/sys/class/misc/vfio');
    }
    this.#renderModules();
  }

  /** The modules that an alias, as udev loads them, stands for. */
  modulesFor(alias: string): string[] {
    const found: string[] = [];
    for (const driver of this.declaration.drivers)
      if (driver.module !== undefined && driver.aliases.some((pattern) => matchesPattern(pattern, alias)))
        found.push(driver.module);
    for (const module of this.declaration.modules)
      if (module.aliases?.some((pattern) => matchesPattern(pattern, alias)) === true) found.push(module.name);
    return [...new Set(found)];
  }

  // ---------------------------------------------------------------- inside: drivers and devices

  #driver(name: string): DriverDeclaration {
    const driver = this.declaration.drivers.find((each) => each.name === name);
    if (driver === undefined || !this.#registered.includes(name))
      throw new Errno('ENOENT', `no driver ${name}`);
    return driver;
  }

  #process(pid: number): Process {
    const process = this.#processes.get(pid);
    if (process === undefined) throw new Error(`there is no process ${pid} in the simulated machine`);
    return process;
  }

  /** pci_match_device(): an override excludes all others and matches always; then dynamic ids; then the table. */
  #matches(driver: DriverDeclaration, device: LiveFunction): boolean {
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
      this.log.push(`${driver.name} ${device.slot}: probe failed: ${error.errno}`);
      return false;
    }
  }

  /** device_attach(): the first registered driver that matches and whose probe succeeds. */
  #attachAny(device: LiveFunction): boolean {
    return this.#registered.some((name) => {
      const driver = this.#driver(name);
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
    const physical = device.physical === undefined ? undefined : this.#functions.get(device.physical);
    if (physical?.virtualAutoprobe === false && device.override === undefined) throw new Errno('ENODEV');
    const {declaration} = device;
    if (driver.gives?.includes('vfio') === true) {
      if (isBridge(declaration)) throw new Errno('EINVAL', 'not a normal header');
      if (device.group === undefined && !this.#withoutIommu()) throw new Errno('EINVAL', 'no IOMMU group');
      if (device.virtualFunctions > 0) throw new Errno('EBUSY', 'virtual functions are enabled');
    } else if (driver.name !== 'pci-stub' && driver.name !== 'pcieport') {
      // A group that a guest has open is not given to a host driver.
      if (device.group !== undefined && this.#holders(`/dev/vfio/${device.group}`).length > 0)
        throw new Errno('EBUSY');
      if (!matchesStatic(driver, declaration, true) && !suits(driver, declaration)) throw new Errno('ENODEV');
    }
    this.#attach(driver, device);
  }

  #withoutIommu(): boolean {
    return this.tree.read('/sys/module/vfio/parameters/enable_unsafe_noiommu_mode')?.trim() === 'Y';
  }

  #attach(driver: DriverDeclaration, device: LiveFunction): void {
    const folder = `/sys/bus/pci/drivers/${driver.name}`;
    device.driver = driver.name;
    this.tree.link(`${device.path}/driver`, folder);
    this.tree.link(`${folder}/${device.slot}`, device.path);
    this.tree.file(`${device.path}/enable`, '1\n', 0o644);
    this.#renderUevent(device);
    if (driver.gives?.includes('vfio') === true) this.#openVfio(device);
    else
      for (const part of partsOf(device.declaration, device.path, driver, this.#allocate))
        this.#addPart(device, part);
    this.#consoleAppears(device);
    this.#emitDevice('bind', device);
  }

  #detach(device: LiveFunction): void {
    const {driver: name} = device;
    if (name === undefined) return;
    const driver = this.#driver(name);
    const waits = () => driver.waitsForClose === true && this.#openers(device).length > 0;
    if (waits()) {
      this.#stuck.set(device.slot, {
        operation: 'unbind',
        over: () => !waits(),
        complete: () => this.#detach(device),
      });
      throw new NeverReturns(
        device.slot,
        `${name} waits until ${this.#openers(device).join(', ')} is closed`,
      );
    }
    this.#noteHarm(device, `${name} lost ${device.slot}`);
    if (device.virtualFunctions > 0 && driver.leavesSriov !== true) this.#removeVirtualFunctions(device);
    this.#dropParts(device);
    this.tree.remove(`${device.path}/driver`);
    this.tree.remove(`/sys/bus/pci/drivers/${name}/${device.slot}`);
    this.tree.file(`${device.path}/enable`, '0\n', 0o644);
    device.driver = undefined;
    this.#renderUevent(device);
    this.#emitDevice('unbind', device);
  }

  #dropParts(device: LiveFunction): void {
    const console = device.parts.some((part) => part.subsystem === 'graphics');
    for (const part of [...device.parts].reverse()) this.#removePart(part);
    device.parts = [];
    if (console) this.#consoleGoes();
    if (device.driver !== undefined && this.#driver(device.driver).gives?.includes('vfio') === true)
      this.#closeVfio(device);
  }

  /** Who has a node of this device open, as `pid (command)`. For vfio: its group and a device of it. */
  #openers(device: LiveFunction): string[] {
    const nodes = device.parts.flatMap((part) => (part.node === undefined ? [] : [part.node.path]));
    if (device.driver !== undefined && this.#driver(device.driver).gives?.includes('vfio') === true)
      return this.#holders(`/dev/vfio/${this.#vfioGroup(device)}`)
        .filter((process) => process.descriptors.includes('anon_inode:[vfio-device]'))
        .map(describe);
    return nodes.flatMap((node) => this.#holders(node).filter(keepsOpen(node))).map(describe);
  }

  #holders(node: string): Process[] {
    return [...this.#processes.values()].filter((process) => process.descriptors.includes(node));
  }

  /** A device that is unbound while in use leaves its users with errors. The kernel does it all the same. */
  #noteHarm(device: LiveFunction, what: string): void {
    const claims = this.#claims();
    for (const part of device.parts) {
      const name = part.path.slice(part.path.lastIndexOf('/') + 1);
      const claim = part.node === undefined ? undefined : claims.get(part.node.path);
      if (claim !== undefined) this.harm.push(`${what}: ${claim}`);
      if (part.subsystem === 'net') {
        const routes = this.#routes.filter((route) => route.interface === name);
        for (const route of routes) this.harm.push(`${what}: route ${route.destination} by ${name}`);
        if (routes.length === 0 && (this.#addresses.get(name)?.length ?? 0) > 0)
          this.harm.push(`${what}: addresses of ${name}`);
        const upper = this.declaration.virtualInterfaces.find((each) => each.lower?.includes(name) === true);
        if (upper !== undefined) this.harm.push(`${what}: ${name} is part of ${upper.name}`);
      }
      if (part.node !== undefined)
        for (const process of this.#holders(part.node.path).filter(keepsOpen(part.node.path)))
          this.harm.push(`${what}: process ${describe(process)} had ${part.node.path} open`);
    }
  }

  /** Nodes that the kernel holds for itself, and what for. */
  #claims(): Map<string, string> {
    const claims = new Map<string, string>();
    for (const {source, target} of this.#mounts)
      if (source.startsWith('/dev/')) claims.set(this.tree.resolve(source) ?? source, `mounted on ${target}`);
    for (const {path} of this.#swaps) if (path.startsWith('/dev/')) claims.set(path, 'swap');
    for (const stack of this.declaration.stacks)
      for (const below of stack.on) claims.set(`/dev/${below}`, `part of ${stack.name}`);
    for (const node of this.declaration.claimed) claims.set(node, 'claimed');
    return claims;
  }

  // ---------------------------------------------------------------- inside: coming and going

  readonly #allocate = (kind: string, from = 0): number => {
    // Interface indexes are not used again.
    if (kind === 'ifindex') return this.#nextInterface++;
    const major = {'drm card': '/dev/dri/card', 'drm render': '/dev/dri/renderD'}[kind];
    for (let number = from; ; number++) {
      const held = major === undefined ? [] : this.#holders(`${major}${number} (deleted)`);
      if (this.#numbers.has(`${kind} ${number}`) || held.length > 0) continue;
      this.#numbers.add(`${kind} ${number}`);
      return number;
    }
  };

  #addPart(device: LiveFunction | undefined, part: Part): void {
    device?.parts.push(part);
    const name = part.path.slice(part.path.lastIndexOf('/') + 1);
    for (const [file, content] of Object.entries(part.files))
      if (file.endsWith('/.')) this.tree.directory(`${part.path}/${file.slice(0, -2)}`);
      else
        this.tree.file(
          `${part.path}/${file}`,
          content === '' ? '' : `${content}\n`,
          file === 'uevent' || part.writable?.includes(file) === true ? 0o644 : 0o444,
        );
    const bus = ['usb', 'scsi', 'pci', 'platform'].includes(part.subsystem) ? 'bus' : 'class';
    this.tree.directory(`/sys/${bus}/${part.subsystem}`);
    this.tree.link(`${part.path}/subsystem`, `/sys/${bus}/${part.subsystem}`);
    if (part.device !== undefined) this.tree.link(`${part.path}/device`, part.device);
    for (const [link, to] of Object.entries(part.links ?? {})) this.tree.link(`${part.path}/${link}`, to);
    for (const link of part.classLinks ?? [`/sys/class/${part.subsystem}/${name}`])
      this.tree.link(link, part.path);
    if (part.node !== undefined) this.tree.node(part.node.path, part.node, part.path);
    if (part.subsystem === 'net' && this.#booting) {
      const net = device?.declaration.net?.find((each) => each.name === name);
      if (net?.up === true) this.#addresses.set(name, net.addresses ?? []);
    } else if (part.subsystem === 'net' && device !== undefined) {
      // A new interface is down and has no addresses, whatever the one before it had.
      this.tree.file(`${part.path}/flags`, '0x1002\n', 0o644);
      this.tree.file(`${part.path}/operstate`, 'down\n');
      this.tree.file(`${part.path}/carrier`, '0\n');
    }
    if (part.subsystem === 'graphics') this.#renderFramebuffers();
    this.#emitPart('add', part);
  }

  #removePart(part: Part): void {
    const name = part.path.slice(part.path.lastIndexOf('/') + 1);
    this.#emitPart('remove', part);
    for (const link of part.classLinks ?? [`/sys/class/${part.subsystem}/${name}`]) this.tree.remove(link);
    if (part.node !== undefined) {
      for (const process of this.#holders(part.node.path)) {
        const path = part.node.path;
        process.descriptors.splice(process.descriptors.indexOf(path), 1, `${path} (deleted)`);
        this.#renderDescriptors(process);
      }
      this.tree.removeNode(part.node.path);
    }
    for (const number of part.numbers ?? []) this.#numbers.delete(number);
    this.tree.remove(part.path);
    this.tree.removeEmpty(part.path.slice(0, part.path.lastIndexOf('/')));
    if (part.subsystem === 'net') {
      this.#addresses.delete(name);
      this.#routes = this.#routes.filter((route) => route.interface !== name);
      this.#renderRoutes();
    }
    if (part.subsystem === 'graphics') this.#renderFramebuffers();
  }

  #vfioGroup(device: LiveFunction): string {
    return device.group ?? `noiommu-${device.slot.replace(/[^0-9a-f]/g, '')}`;
  }

  #openVfio(device: LiveFunction): void {
    const group = this.#vfioGroup(device);
    const folder = `/sys/devices/virtual/vfio/${group}`;
    if (!this.tree.has(folder)) {
      const minor = this.#allocate('vfio group');
      this.#addPart(undefined, {
        path: folder,
        subsystem: 'vfio',
        node: {path: `/dev/vfio/${group}`, type: 'character', number: `243:${minor}`, mode: 0o600},
        numbers: [`vfio group ${minor}`],
        files: {
          dev: `243:${minor}`,
          name: group.startsWith('noiommu') ? 'vfio-noiommu' : '',
          uevent: `MAJOR=243\nMINOR=${minor}\nDEVNAME=vfio/${group}`,
        },
      });
    }
    this.#addPart(device, vfioPart(device.path, this.#allocate));
  }

  /** The group's node goes with the last of its devices. */
  #closeVfio(device: LiveFunction): void {
    const group = this.#vfioGroup(device);
    const others = [...this.#functions.values()].some(
      (each) =>
        each !== device &&
        each.driver !== undefined &&
        this.#vfioGroup(each) === group &&
        this.#driver(each.driver).gives?.includes('vfio') === true,
    );
    if (others) return;
    const minor = this.tree.nodes.get(`/dev/vfio/${group}`)?.number.split(':')[1] ?? '';
    this.#removePart({
      path: `/sys/devices/virtual/vfio/${group}`,
      subsystem: 'vfio',
      node: {path: `/dev/vfio/${group}`, type: 'character', number: `243:${minor}`, mode: 0o600},
      numbers: [`vfio group ${minor}`],
      files: {},
    });
  }

  #forMdevs(): MdevMachine {
    return {
      tree: this.tree,
      allocate: this.#allocate,
      emit: (...event) => this.#emit(...event),
      addPart: (part) => this.#addPart(undefined, part),
      removePart: (part) => this.#removePart(part),
      isOpen: (node) => this.#holders(node).length > 0,
      isStuck: (uuid) => this.#stuck.has(uuid),
      wait: (uuid, operation, over, complete) => this.#stuck.set(uuid, {operation, over, complete}),
      pathOf: (slot) => this.device(slot).path,
    };
  }

  #createMdev(uuid: string, path: string): void {
    const type = this.tree.resolve(`/sys/class/mdev_bus/${path.replace('/', '/mdev_supported_types/')}`);
    if (type === undefined) throw new Error(`the simulated machine has no ${path} for ${uuid}`);
    this.write(`${type}/create`, uuid);
  }

  #pathOf(declaration: FunctionDeclaration): string {
    const above = declaration.behind === undefined ? undefined : this.#functions.get(declaration.behind);
    return `${above?.path ?? `/sys/devices/pci${declaration.slot.slice(0, 7)}`}/${declaration.slot}`;
  }

  #add(declaration: FunctionDeclaration, physical?: LiveFunction): LiveFunction {
    const {slot} = declaration;
    const path =
      physical === undefined
        ? this.#pathOf(declaration)
        : `${physical.path.slice(0, physical.path.lastIndexOf('/'))}/${slot}`;
    const device: LiveFunction = {
      declaration,
      slot,
      path,
      group: this.declaration.iommu === false ? undefined : declaration.group?.toString(),
      physical: physical?.slot,
      driver: undefined,
      override: declaration.override,
      resetMethods: [...(declaration.resetMethods ?? [])],
      virtualFunctions: 0,
      virtualAutoprobe: true,
      parts: [],
      resets: 0,
    };
    this.#functions.set(slot, device);
    this.#renderDevice(device);
    this.#emitDevice('add', device);
    return device;
  }

  /** Everything below a bridge, and a physical function's virtual ones; the deepest first. */
  #below(device: LiveFunction): LiveFunction[] {
    return [...this.#functions.values()]
      .filter((each) => each.declaration.behind === device.slot || each.physical === device.slot)
      .flatMap((each) => [...this.#below(each), each]);
  }

  #remove(device: LiveFunction, pulled: boolean): void {
    for (const each of [...this.#below(device), device]) {
      if (!this.#functions.has(each.slot)) continue;
      const {slot} = each;
      try {
        this.#detach(each);
      } catch (error) {
        // The remover waits with the lock of the tree in its hand.
        if (error instanceof NeverReturns)
          this.#stuck.set(slot, {
            operation: 'remove',
            over: this.#stuck.get(slot)?.over ?? (() => true),
            complete: () => this.#remove(device, pulled),
          });
        throw error;
      }
      this.#functions.delete(slot);
      this.#stuck.delete(slot);
      if (each.physical !== undefined) this.#forgetVirtual(each);
      this.tree.remove(`/sys/bus/pci/devices/${slot}`);
      this.#leaveGroup(each);
      for (const name of this.tree.list(`${each.path}/pci_bus`))
        this.tree.remove(`/sys/class/pci_bus/${name}`);
      this.#emitDevice('remove', each);
      this.tree.remove(each.path);
    }
  }

  #scan(wanted: (device: FunctionDeclaration) => boolean): void {
    const found: LiveFunction[] = [];
    // A bridge is found before what is behind it, whatever the order of the declaration.
    for (let before = -1; before !== found.length;) {
      before = found.length;
      for (const declaration of this.#declared.values()) {
        const {slot, behind} = declaration;
        if (this.#functions.has(slot) || this.#unplugged.has(slot) || !wanted(declaration)) continue;
        if (behind !== undefined && !this.#functions.has(behind)) continue;
        found.push(this.#add(declaration));
      }
    }
    if (this.#autoprobe) for (const device of found) this.#attachAny(device);
  }

  #addVirtualFunctions(device: LiveFunction, count: number): void {
    const sriov = device.declaration.sriov;
    if (sriov === undefined) return;
    const routing = routingId(device.slot) + (sriov.offset ?? 128);
    device.virtualFunctions = count;
    const made: LiveFunction[] = [];
    for (let index = 0; index < count; index++) {
      const slot = slotOf(device.slot, routing + index * (sriov.stride ?? 1));
      const virtual = this.#add(
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
      this.tree.link(`${virtual.path}/physfn`, device.path);
      this.tree.link(`${device.path}/virtfn${index}`, virtual.path);
      made.push(virtual);
    }
    if (this.#autoprobe) for (const virtual of made) this.#attachAny(virtual);
    this.#renderSriov(device);
    this.#emitDevice('change', device);
  }

  #removeVirtualFunctions(device: LiveFunction): void {
    for (const virtual of [...this.#functions.values()].filter(({physical}) => physical === device.slot)) {
      this.#needLock(virtual.slot);
      this.#remove(virtual, false);
    }
    device.virtualFunctions = 0;
    this.#renderSriov(device);
    this.#emitDevice('change', device);
  }

  #forgetVirtual(virtual: LiveFunction): void {
    const physical = virtual.physical === undefined ? undefined : this.#functions.get(virtual.physical);
    if (physical === undefined) return;
    for (const name of this.tree.list(physical.path))
      if (name.startsWith('virtfn') && this.tree.resolve(`${physical.path}/${name}`) === virtual.path)
        this.tree.remove(`${physical.path}/${name}`);
  }

  #leaveGroup(device: LiveFunction): void {
    if (device.group === undefined) return;
    const folder = `/sys/kernel/iommu_groups/${device.group}`;
    this.tree.remove(`${folder}/devices/${device.slot}`);
    this.tree.remove(`/sys/devices/virtual/iommu/${String(this.declaration.iommu)}/devices/${device.slot}`);
    if (this.tree.list(`${folder}/devices`).length === 0) this.tree.remove(folder);
  }

  // ---------------------------------------------------------------- inside: waiting

  #needLock(slot: string): void {
    if (this.#stuck.has(slot)) throw new NeverReturns(slot, `another write holds the lock of ${slot}`);
  }

  /** Removing and scanning exclude each other on the whole machine. */
  #needScanLock(): void {
    for (const [slot, {operation}] of this.#stuck)
      if (operation === 'remove')
        throw new NeverReturns(slot, `the removal of ${slot} holds the lock of the PCI tree`);
  }

  /** What a stuck write waited for may have come: it goes on. */
  #wake(): void {
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

  // ---------------------------------------------------------------- inside: events

  #emit(action: string, path: string, subsystem: string, more: Readonly<Record<string, string>>): void {
    if (this.#booting) return;
    const devpath = path.slice('/sys'.length);
    const properties: Record<string, string> = {ACTION: action, DEVPATH: devpath, SUBSYSTEM: subsystem};
    for (const line of (this.tree.read(`${path}/uevent`) ?? '').split('\n')) {
      const at = line.indexOf('=');
      if (at > 0) properties[line.slice(0, at)] = line.slice(at + 1);
    }
    Object.assign(properties, more, {SEQNUM: String(++this.#sequence)});
    if (properties['DEVNAME'] !== undefined) properties['DEVNAME'] = `/dev/${properties['DEVNAME']}`;
    const event: KernelEvent = {action, devpath, subsystem, properties};
    for (const listener of this.#listeners) listener(event);
  }

  #emitDevice(action: string, device: LiveFunction): void {
    this.#emit(action, device.path, 'pci', {});
  }

  #emitPart(action: string, part: Part): void {
    this.#emit(action, part.path, part.subsystem, part.devtype === undefined ? {} : {DEVTYPE: part.devtype});
  }

  // ---------------------------------------------------------------- inside: the tree

  #build(): void {
    const {tree, declaration} = this;
    for (const folder of [
      '/sys/bus/pci/devices',
      '/sys/bus/pci/drivers',
      '/sys/bus/pci/slots',
      '/sys/bus/usb/devices',
      '/sys/class/net',
      '/sys/class/block',
      '/sys/class/drm',
      '/sys/class/graphics',
      '/sys/class/sound',
      '/sys/class/vtconsole',
      '/sys/class/tty',
      '/sys/class/iommu',
      '/sys/block',
      '/sys/kernel/iommu_groups',
      '/sys/firmware',
      '/sys/dev/char',
      '/sys/dev/block',
      '/proc',
      '/dev',
      // sd_booted(3): systemd runs.
      '/run/systemd/system',
      '/tmp',
      '/etc/modprobe.d',
      '/etc/systemd/system',
      '/usr/lib/systemd/system',
      '/usr/lib/udev/rules.d',
    ])
      tree.directory(folder);
    // Distributions have one /lib in /usr.
    tree.directory(`/usr/lib/modules/${declaration.release}`);
    tree.textLink('/lib', 'usr/lib');
    tree.file('/sys/bus/pci/drivers_probe', '', 0o200);
    tree.file('/sys/bus/pci/rescan', '', 0o200);
    this.setAutoprobe(true);
    tree.file('/sys/bus/pci/uevent', '', 0o200);
    if (declaration.iommu !== false) {
      tree.directory(`/sys/devices/virtual/iommu/${declaration.iommu}/devices`);
      tree.link(`/sys/class/iommu/${declaration.iommu}`, `/sys/devices/virtual/iommu/${declaration.iommu}`);
    }
    this.#buildConsoles();
    for (const module of declaration.modules)
      if (module.builtin === true || module.loaded === true) this.#insertModule(module);
    for (const driver of declaration.drivers) {
      const module = declaration.modules.find(({name}) => name === driver.module);
      if (driver.module === undefined || module?.loaded === true || module?.builtin === true)
        this.#register(driver, false);
    }
    for (const each of declaration.functions) {
      this.#declared.set(each.slot, each);
      if (each.present === false) this.#unplugged.add(each.slot);
    }
    this.#autoprobe = false;
    this.#scan(() => true);
    this.#autoprobe = true;
    for (const device of this.#functions.values())
      if (device.declaration.driver !== undefined)
        this.#attach(this.#driver(device.declaration.driver), device);
    if (declaration.firmwareFramebuffer !== undefined) {
      tree.directory(`/sys/devices/platform/${declaration.firmwareFramebuffer}.0`);
      tree.textLink(
        `/sys/bus/platform/devices/${declaration.firmwareFramebuffer}.0`,
        `../../../devices/platform/${declaration.firmwareFramebuffer}.0`,
      );
      const folder = `/sys/bus/platform/drivers/${declaration.firmwareFramebuffer}`;
      tree.file(`${folder}/bind`, '', 0o200);
      tree.file(`${folder}/unbind`, '', 0o200);
      this.#addFirmwareFramebuffer(declaration.firmwareFramebuffer);
    }
    this.#buildInterfaces();
    this.#buildStacks();
    for (const process of declaration.processes) this.addProcess(process);
    this.#renderMounts();
    this.#renderRoutes();
    this.#buildFiles();
  }

  #buildConsoles(): void {
    const consoles: [string, string, string][] = [['0', '(S) dummy device', '1']];
    consoles.push(['1', '(M) frame buffer device', '0']);
    for (const [number, name, bound] of consoles) {
      const folder = `/sys/devices/virtual/vtconsole/vtcon${number}`;
      this.tree.file(`${folder}/name`, `${name}\n`);
      this.tree.file(`${folder}/bind`, `${bound}\n`, 0o644);
      this.tree.link(`/sys/class/vtconsole/vtcon${number}`, folder);
    }
    this.tree.file('/sys/devices/virtual/tty/tty0/active', 'tty1\n');
    this.tree.link('/sys/class/tty/tty0', '/sys/devices/virtual/tty/tty0');
    this.tree.file('/sys/devices/virtual/tty/console/active', 'tty0\n');
    this.tree.link('/sys/class/tty/console', '/sys/devices/virtual/tty/console');
    for (const [name, minor] of [
      ['tty0', 0],
      ['tty1', 1],
    ] as const)
      this.tree.node(`/dev/${name}`, {type: 'character', number: `4:${minor}`, mode: 0o620});
    this.tree.node('/dev/null', {type: 'character', number: '1:3', mode: 0o666});
  }

  #buildInterfaces(): void {
    const made = (name: string, flags: string, type: string) => {
      const folder = `/sys/devices/virtual/net/${name}`;
      const index = name === 'lo' ? 1 : this.#nextInterface++;
      for (const [file, value] of Object.entries({
        address: '00:00:00:00:00:00',
        flags,
        ifindex: String(index),
        mtu: '1500',
        operstate: name === 'lo' ? 'unknown' : 'up',
        type,
        uevent: `INTERFACE=${name}\nIFINDEX=${index}`,
      }))
        this.tree.file(`${folder}/${file}`, `${value}\n`, file === 'uevent' ? 0o644 : 0o444);
      this.tree.link(`${folder}/subsystem`, '/sys/class/net');
      this.tree.link(`/sys/class/net/${name}`, folder);
    };
    made('lo', '0x9', '772');
    this.#addresses.set('lo', ['127.0.0.1/8', '::1/128']);
    for (const each of this.declaration.virtualInterfaces) {
      const folder = `/sys/devices/virtual/net/${each.name}`;
      made(each.name, each.up === false ? '0x1002' : '0x1003', '1');
      if (each.up !== false) this.#addresses.set(each.name, each.addresses ?? []);
      if (each.kind === 'bridge') this.tree.directory(`${folder}/bridge`);
      if (each.kind === 'bond')
        this.tree.file(`${folder}/bonding/slaves`, `${(each.lower ?? []).join(' ')}\n`, 0o644);
      for (const lower of each.lower ?? []) {
        const below = this.tree.resolve(`/sys/class/net/${lower}`);
        if (below === undefined) throw new Error(`${each.name} is on ${lower}, which is not declared`);
        this.tree.link(`${folder}/lower_${lower}`, below);
        this.tree.link(`${below}/upper_${each.name}`, folder);
        if (each.kind === 'bridge' || each.kind === 'bond') this.tree.link(`${below}/master`, folder);
        if (each.kind === 'bridge') this.tree.link(`${folder}/brif/${lower}`, `${below}/brport`);
      }
    }
  }

  #buildStacks(): void {
    for (const stack of this.declaration.stacks) {
      const major = stack.dm === undefined ? 9 : 253;
      const minor = Number(/\d+$/.exec(stack.name)?.[0] ?? 0);
      const folder = `/sys/devices/virtual/block/${stack.name}`;
      this.#addPart(undefined, {
        path: folder,
        subsystem: 'block',
        devtype: 'disk',
        classLinks: [`/sys/class/block/${stack.name}`, `/sys/block/${stack.name}`],
        node: {path: `/dev/${stack.name}`, type: 'block', number: `${major}:${minor}`, mode: 0o660},
        files: {
          dev: `${major}:${minor}`,
          size: String(stack.size ?? 1_000_000),
          'holders/.': '',
          'slaves/.': '',
          ...(stack.dm === undefined
            ? {'md/level': 'raid1'}
            : {'dm/name': stack.dm.name, 'dm/uuid': stack.dm.uuid, 'dm/suspended': '0'}),
          uevent: `MAJOR=${major}\nMINOR=${minor}\nDEVNAME=${stack.name}\nDEVTYPE=disk`,
        },
      });
      if (stack.dm !== undefined) {
        this.tree.link(`/dev/mapper/${stack.dm.name}`, `/dev/${stack.name}`);
      }
      for (const name of stack.on) {
        const below = this.tree.resolve(`/sys/class/block/${name}`);
        if (below === undefined) throw new Error(`${stack.name} is on ${name}, which is not declared`);
        this.tree.link(`${folder}/slaves/${name}`, below);
        this.tree.link(`${below}/holders/${stack.name}`, folder);
      }
    }
  }

  #buildFiles(): void {
    const {tree, declaration} = this;
    tree.file('/proc/cmdline', `${declaration.cmdline}\n`);
    tree.file('/proc/sys/kernel/osrelease', `${declaration.release}\n`);
    tree.file('/proc/sys/kernel/random/boot_id', '11111111-2222-3333-4444-555555555555\n');
    tree.file('/proc/sys/vm/nr_hugepages', '0\n', 0o644);
    tree.file('/proc/uptime', '120.00 400.00\n');
    const modules = `/usr/lib/modules/${declaration.release}`;
    const lines: string[] = ['# Aliases extracted from modules themselves.'];
    const isBuiltin = (name: string) =>
      declaration.modules.find((each) => each.name === name)?.builtin === true;
    // Fields that end with a NUL each; what is built in is in no modules.alias.
    let builtinInfo = '';
    for (const {module, name, aliases} of declaration.drivers)
      for (const alias of aliases)
        if (module === undefined || isBuiltin(module))
          builtinInfo += `${(module ?? name).replaceAll('-', '_')}.alias=${alias}\0`;
        else lines.push(`alias ${alias} ${module}`);
    tree.file(`${modules}/modules.builtin.modinfo`, builtinInfo, 0o644);
    for (const module of declaration.modules)
      for (const alias of module.aliases ?? []) lines.push(`alias ${alias} ${module.name}`);
    tree.file(`${modules}/modules.alias`, `${lines.join('\n')}\n`, 0o644);
    const file = (name: string) => `kernel/drivers/${name}.ko`;
    tree.file(
      `${modules}/modules.dep`,
      declaration.modules
        .filter((each) => each.builtin !== true)
        .map(
          (each) => `${file(each.name)}:${(each.depends ?? []).map((name) => ` ${file(name)}`).join('')}\n`,
        )
        .join(''),
      0o644,
    );
    tree.file(
      `${modules}/modules.builtin`,
      declaration.modules
        .filter((each) => each.builtin === true)
        .map((each) => `${file(each.name)}\n`)
        .join(''),
      0o644,
    );
    // What systemd ships: load the modules that a device's alias stands for.
    tree.file('/usr/lib/udev/rules.d/80-drivers.rules', driverRules, 0o644);
    tree.file('/usr/share/misc/pci.ids', pciIds, 0o644);
    tree.file(
      '/etc/os-release',
      'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
      0o644,
    );
    if (declaration.displayManager !== undefined) {
      tree.file(
        `/usr/lib/systemd/system/${declaration.displayManager}`,
        '[Unit]\nDescription=Display Manager\n\n[Service]\nExecStart=/usr/sbin/gdm3\n\n[Install]\nAlias=display-manager.service\n',
        0o644,
      );
      tree.textLink(
        '/etc/systemd/system/display-manager.service',
        `/lib/systemd/system/${declaration.displayManager}`,
      );
    }
    for (const [path, content] of Object.entries(declaration.files)) tree.file(path, content, 0o644);
  }

  #renderDevice(device: LiveFunction): void {
    const {tree} = this;
    const {path, slot, declaration} = device;
    const {vendor, model, subVendor, subModel, code} = numbersOf(declaration);
    const readOnly: Record<string, string> = {
      vendor: `0x${vendor}`,
      device: `0x${model}`,
      subsystem_vendor: `0x${subVendor}`,
      subsystem_device: `0x${subModel}`,
      class: `0x${code.toLowerCase()}`,
      revision: `0x${declaration.revision ?? '00'}`,
      modalias: modaliasOf(declaration),
      irq: '16',
      local_cpus: 'ff',
      local_cpulist: '0-7',
      power_state: 'D0',
      ari_enabled: '0',
      dma_mask_bits: '32',
      resource: resourceOf(declaration),
      'power/runtime_status': 'active',
    };
    if (code.startsWith('0300')) readOnly['boot_vga'] = declaration.bootDisplay === true ? '1' : '0';
    const writable: Record<string, string> = {
      driver_override: device.override ?? '(null)',
      enable: '0',
      numa_node: String(declaration.numaNode ?? -1),
      msi_bus: '1',
      d3cold_allowed: '1',
      'power/control': 'on',
      ...declaration.attributes,
    };
    for (const [name, value] of Object.entries(readOnly)) tree.file(`${path}/${name}`, `${value}\n`);
    for (const [name, value] of Object.entries(writable)) tree.file(`${path}/${name}`, `${value}\n`, 0o644);
    tree.file(`${path}/remove`, '', 0o220);
    tree.file(`${path}/rescan`, '', 0o220);
    tree.file(`${path}/config`, configOf(declaration), 0o644);
    if (device.resetMethods.length > 0) {
      tree.file(`${path}/reset`, '', 0o200);
      this.#renderResetMethods(device);
    }
    this.#renderSriov(device);
    this.#renderUevent(device);
    tree.link(`${path}/subsystem`, '/sys/bus/pci');
    tree.link(`/sys/bus/pci/devices/${slot}`, path);
    if (device.group !== undefined) {
      const group = `/sys/kernel/iommu_groups/${device.group}`;
      tree.link(`${group}/devices/${slot}`, path);
      tree.file(`${group}/type`, 'DMA-FQ\n', 0o644);
      tree.file(`${group}/reserved_regions`, '0x00000000fee00000 0x00000000feefffff msi\n');
      tree.link(`${path}/iommu_group`, group);
      const iommu = `/sys/devices/virtual/iommu/${String(this.declaration.iommu)}`;
      tree.link(`${iommu}/devices/${slot}`, path);
      tree.link(`${path}/iommu`, iommu);
    }
    if (isBridge(declaration)) {
      const bus =
        [...this.#declared.values()].find(({behind}) => behind === slot)?.slot.slice(0, 7) ?? undefined;
      if (bus !== undefined) {
        tree.file(`${path}/pci_bus/${bus}/rescan`, '', 0o200);
        tree.link(`/sys/class/pci_bus/${bus}`, `${path}/pci_bus/${bus}`);
      }
    }
  }

  #renderUevent(device: LiveFunction): void {
    const {vendor, model, subVendor, subModel, code} = numbersOf(device.declaration);
    const id = (one: string, other: string) => `${one}:${other}`.toUpperCase();
    this.tree.file(
      `${device.path}/uevent`,
      `${device.driver === undefined ? '' : `DRIVER=${device.driver}\n`}PCI_CLASS=${code.replace(/^0{1,2}/, '')}\n` +
        `PCI_ID=${id(vendor, model)}\nPCI_SUBSYS_ID=${id(subVendor, subModel)}\nPCI_SLOT_NAME=${device.slot}\n` +
        `MODALIAS=${modaliasOf(device.declaration)}\n`,
      0o644,
    );
  }

  #renderResetMethods(device: LiveFunction): void {
    const names = device.resetMethods.join(' ');
    this.tree.file(`${device.path}/reset_method`, names === '' ? '' : `${names}\n`, 0o644);
  }

  #renderSriov(device: LiveFunction): void {
    const sriov = device.declaration.sriov;
    if (sriov === undefined || !this.tree.has(device.path)) return;
    const {path} = device;
    this.tree.file(`${path}/sriov_totalvfs`, `${sriov.total}\n`);
    this.tree.file(`${path}/sriov_numvfs`, `${device.virtualFunctions}\n`, 0o644);
    this.tree.file(`${path}/sriov_offset`, `${sriov.offset ?? 128}\n`);
    this.tree.file(`${path}/sriov_stride`, `${sriov.stride ?? 1}\n`);
    this.tree.file(`${path}/sriov_vf_device`, `${sriov.virtualId.split(':')[1] ?? ''}\n`);
    this.tree.file(`${path}/sriov_drivers_autoprobe`, device.virtualAutoprobe ? '1\n' : '0\n', 0o644);
  }

  #renderDescriptors(process: Process): void {
    const folder = `/proc/${process.pid}`;
    for (const name of ['fd', 'fdinfo']) {
      this.tree.remove(`${folder}/${name}`);
      this.tree.directory(`${folder}/${name}`);
    }
    ['/dev/null', '/dev/null', '/dev/null', ...process.descriptors].forEach((path, index) => {
      this.tree.textLink(`${folder}/fd/${index}`, path);
      const mount = this.#mountOf(path);
      this.tree.file(`${folder}/fdinfo/${index}`, `pos:\t0\nflags:\t0100002\nmnt_id:\t${mount}\nino:\t321\n`);
    });
  }

  /** The ID of the mount that a path is on; what is no path is on one that mountinfo does not list. */
  #mountOf(path: string): number {
    let found = -1;
    for (const [index, {target}] of this.#mounts.entries()) {
      const folder = target === '/' ? '/' : `${target}/`;
      const best = this.#mounts[found]?.target.length ?? 0;
      if (path.startsWith(folder) && target.length >= best) found = index;
    }
    return found < 0 ? 15 : firstMount + found;
  }

  #renderMounts(): void {
    let anonymous = 20;
    const lines = this.#mounts.map((mount, index) => {
      const node = this.tree.nodes.get(this.tree.resolve(mount.source) ?? '');
      return mountLine(mount, firstMount + index, mount.device ?? node?.number ?? `0:${anonymous++}`);
    });
    const text = lines.map((line) => `${line}\n`).join('');
    this.tree.file('/proc/self/mountinfo', text);
    this.tree.file('/proc/1/mountinfo', text);
    const table = this.#mounts.map(
      ({source, target, type, options}) => `${source} ${target} ${type} ${options ?? 'rw,relatime'} 0 0\n`,
    );
    this.tree.file('/proc/self/mounts', table.join(''));
    this.tree.textLink('/proc/mounts', 'self/mounts');
    this.tree.file(
      '/proc/swaps',
      'Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n' +
        this.#swaps
          .map(
            ({path, size}) =>
              `${path.padEnd(39)} ${path.startsWith('/dev/') ? 'partition' : 'file     '}\t${size ?? 1_048_572}\t\t0\t\t-2\n`,
          )
          .join(''),
    );
  }

  #renderRoutes(): void {
    this.tree.file('/proc/net/route', routeTable(this.#routes));
    this.tree.file('/proc/net/ipv6_route', route6Table(this.#routes));
  }

  #renderModules(): void {
    this.tree.file(
      '/proc/modules',
      [...this.#loaded.values()]
        .filter((each) => each.builtin !== true)
        .map((each) => {
          const users = [...this.#loaded.values()]
            .filter((other) => other.depends?.includes(each.name) === true)
            .map((other) => `${other.name},`);
          return `${each.name} 16384 ${users.length} ${users.length === 0 ? '-' : users.join('')} Live 0x0000000000000000\n`;
        })
        .join(''),
    );
    for (const each of this.#loaded.values())
      if (each.builtin !== true) {
        const users = [...this.#loaded.values()].filter(
          (other) => other.depends?.includes(each.name) === true,
        );
        this.tree.file(`/sys/module/${each.name}/refcnt`, `${users.length}\n`);
        this.tree.remove(`/sys/module/${each.name}/holders`);
        this.tree.directory(`/sys/module/${each.name}/holders`);
        for (const other of users)
          this.tree.link(`/sys/module/${each.name}/holders/${other.name}`, `/sys/module/${other.name}`);
      }
  }

  // ---------------------------------------------------------------- inside: modules, drivers, console

  #insertModule(module: ModuleDeclaration): void {
    this.#loaded.set(module.name, module);
    const folder = `/sys/module/${module.name}`;
    this.tree.directory(folder);
    if (module.builtin !== true) {
      this.tree.file(`${folder}/initstate`, 'live\n');
      this.tree.file(`${folder}/uevent`, '', 0o200);
    }
    for (const [name, value] of Object.entries(module.parameters ?? {}))
      this.tree.file(`${folder}/parameters/${name}`, `${value}\n`, 0o644);
    if (module.name === 'vfio') {
      const device = '/sys/devices/virtual/misc/vfio';
      this.tree.file(`${device}/dev`, '10:196\n');
      this.tree.file(`${device}/uevent`, 'MAJOR=10\nMINOR=196\nDEVNAME=vfio/vfio\n', 0o644);
      this.tree.link('/sys/class/misc/vfio', device);
      this.tree.node('/dev/vfio/vfio', {type: 'character', number: '10:196', mode: 0o666}, device);
    }
    this.#renderModules();
  }

  #register(driver: DriverDeclaration, attach = this.#autoprobe): void {
    if (this.#registered.includes(driver.name)) return;
    if (attach)
      for (const device of this.#functions.values())
        if (this.#matchesUnregistered(driver, device)) this.#needLock(device.slot);
    this.#registered.push(driver.name);
    const folder = `/sys/bus/pci/drivers/${driver.name}`;
    for (const file of ['bind', 'unbind', 'new_id', 'remove_id', 'uevent'])
      this.tree.file(`${folder}/${file}`, '', 0o200);
    if (driver.module !== undefined) {
      this.tree.link(`${folder}/module`, `/sys/module/${driver.module}`);
      this.tree.link(`/sys/module/${driver.module}/drivers/pci:${driver.name}`, folder);
    }
    if (attach)
      for (const device of this.#functions.values())
        if (device.driver === undefined && this.#matches(driver, device)) this.#tryProbe(driver, device);
  }

  #matchesUnregistered(driver: DriverDeclaration, device: LiveFunction): boolean {
    return this.#stuck.has(device.slot) && this.#matches(driver, device);
  }

  #unregister(driver: DriverDeclaration): void {
    for (const device of [...this.#functions.values()])
      if (device.driver === driver.name) this.#detach(device);
    const at = this.#registered.indexOf(driver.name);
    if (at !== -1) this.#registered.splice(at, 1);
    this.#dynamicIds.delete(driver.name);
    this.tree.remove(`/sys/bus/pci/drivers/${driver.name}`);
  }

  #addFirmwareFramebuffer(driver: string): void {
    const device = `/sys/devices/platform/${driver}.0`;
    this.tree.link(`/sys/bus/platform/drivers/${driver}/${driver}.0`, device);
    this.tree.link(`${device}/driver`, `/sys/bus/platform/drivers/${driver}`);
    const number = this.#allocate('framebuffer');
    this.#addPart(undefined, {
      path: `${device}/graphics/fb${number}`,
      subsystem: 'graphics',
      device,
      numbers: [`framebuffer ${number}`],
      node: {path: `/dev/fb${number}`, type: 'character', number: `29:${number}`, mode: 0o660},
      files: {name: 'EFI VGA', dev: `29:${number}`, uevent: `MAJOR=29\nMINOR=${number}\nDEVNAME=fb${number}`},
    });
    this.bindConsole('1', true);
  }

  #removeFramebufferPart(path: string): void {
    const number = path.slice(path.lastIndexOf('fb') + 2);
    this.#removePart({
      path,
      subsystem: 'graphics',
      numbers: [`framebuffer ${number}`],
      node: {path: `/dev/fb${number}`, type: 'character', number: `29:${number}`, mode: 0o660},
      files: {},
    });
    this.#consoleGoes();
  }

  /** A driver's own framebuffer takes the console by itself, and gives it back when it goes. */
  #consoleAppears(device: LiveFunction): void {
    if (device.parts.some((part) => part.subsystem === 'graphics')) this.bindConsole('1', true);
  }

  /** To the dummy, even when another framebuffer is there: nobody takes it over by itself. */
  #consoleGoes(): void {
    if (this.#consoleOn !== undefined && !this.tree.has(`/sys/class/graphics/${this.#consoleOn}`))
      this.bindConsole('1', false);
  }

  #firstFramebuffer(): string | undefined {
    return this.tree.list('/sys/class/graphics').find((name) => /^fb\d+$/.test(name));
  }

  #renderFramebuffers(): void {
    const lines = this.tree
      .list('/sys/class/graphics')
      .filter((name) => name.startsWith('fb'))
      .map(
        (name) => `${name.slice(2)} ${(this.tree.read(`/sys/class/graphics/${name}/name`) ?? '').trim()}\n`,
      );
    this.tree.file('/proc/fb', lines.join(''));
  }
}

// -------------------------------------------------------------------- the table of answers

/** One write as the table sees it. */
interface Write {
  readonly machine: SimulatedMachine;
  /** The attribute's path without links. */
  readonly real: string;
  readonly value: string;
  /** What the groups of the path's expression matched. */
  readonly words: readonly (string | undefined)[];
}

/** A kind of attribute and the kernel's answer to a write to it. */
interface Answer {
  readonly path: RegExp;
  readonly write: (write: Write) => void;
}

const device = (attribute: string) =>
  new RegExp(`^/sys/devices/pci[^/]+/(?:[^/]+/)*([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\\.[0-7])/${attribute}$`);
const uuidText = '[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}';
const word = (write: Write, index = 0) => write.words[index] ?? '';
/** A value that names a device or a state may end with one newline. */
const name = ({value}: Write) => value.replace(/\n$/, '');

const answers: readonly Answer[] = [
  {path: /^\/sys\/bus\/pci\/drivers\/([^/]+)\/bind$/, write: (w) => w.machine.bind(word(w), name(w))},
  {path: /^\/sys\/bus\/pci\/drivers\/([^/]+)\/unbind$/, write: (w) => w.machine.unbind(word(w), name(w))},
  {path: /^\/sys\/bus\/pci\/drivers\/([^/]+)\/new_id$/, write: (w) => w.machine.addId(word(w), w.value)},
  {
    path: /^\/sys\/bus\/pci\/drivers\/([^/]+)\/remove_id$/,
    write: (w) => w.machine.removeId(word(w), w.value),
  },
  {path: /^\/sys\/bus\/pci\/drivers_probe$/, write: (w) => w.machine.probe(name(w))},
  {
    path: /^\/sys\/bus\/pci\/drivers_autoprobe$/,
    write: (w) => w.machine.setAutoprobe(!w.value.startsWith('0')),
  },
  {
    path: /^\/sys\/bus\/pci\/rescan$/,
    write: ({machine, value}) => {
      if (wholeNumber(value) !== 0) machine.rescan();
    },
  },
  {
    path: /\/pci_bus\/([^/]+)\/rescan$/,
    write: (w) => {
      if (wholeNumber(w.value) !== 0) w.machine.rescan(word(w));
    },
  },
  {
    // The bus the device is on, not the one behind it.
    path: device('rescan'),
    write: (w) => {
      if (wholeNumber(w.value) !== 0) w.machine.rescan(word(w).slice(0, 7));
    },
  },
  {
    path: device('remove'),
    write: (w) => {
      if (wholeNumber(w.value) !== 0) w.machine.remove(word(w));
    },
  },
  {
    path: device('reset'),
    write: (w) => {
      if (wholeNumber(w.value) !== 1) throw new Errno('EINVAL');
      w.machine.reset(word(w));
    },
  },
  {path: device('driver_override'), write: (w) => w.machine.setOverride(word(w), w.value)},
  {path: device('reset_method'), write: (w) => w.machine.setResetMethods(word(w), w.value)},
  {path: device('sriov_numvfs'), write: (w) => w.machine.setVirtualFunctions(word(w), w.value)},
  {path: device('sriov_drivers_autoprobe'), write: (w) => w.machine.setVirtualAutoprobe(word(w), w.value)},
  {path: device('enable'), write: (w) => w.machine.enable(word(w), w.value)},
  {path: device('power/control'), write: (w) => w.machine.setPowerControl(word(w), w.value)},
  {
    path: device('(?:d3cold_allowed|msi_bus)'),
    write: ({machine, real, value}) => machine.store(real, wholeNumber(value) === 0 ? '0' : '1'),
  },
  {
    path: /^\/sys\/devices\/virtual\/vtconsole\/vtcon(\d+)\/bind$/,
    write: (w) => w.machine.bindConsole(word(w), wholeNumber(w.value) !== 0),
  },
  {
    path: /^\/sys\/bus\/platform\/drivers\/([^/]+)\/(bind|unbind)$/,
    write: (w) => w.machine.bindFirmwareFramebuffer(word(w), name(w), word(w, 1) === 'bind'),
  },
  {
    path: /^\/sys\/devices\/.*\/uevent$/,
    write: (w) => {
      const [action = '', uuid] = name(w).split(' ');
      if (!['add', 'remove', 'change', 'move', 'online', 'offline', 'bind', 'unbind'].includes(action))
        throw new Errno('EINVAL');
      w.machine.trigger(w.real, action, uuid);
    },
  },
  {
    path: /^(\/sys\/devices\/.+)\/mdev_supported_types\/([^/]+)\/create$/,
    write: (w) => w.machine.mdevs.create(word(w), word(w, 1), w.value),
  },
  {
    path: new RegExp(`^/sys/devices/.+/(${uuidText})/remove$`),
    write: (w) => {
      if (wholeNumber(w.value) !== 0) w.machine.mdevs.remove(word(w));
    },
  },
  {
    path: new RegExp(`^/sys/devices/.+/(${uuidText})/([^/]+)$`),
    write: (w) => w.machine.mdevs.setAttribute(word(w), word(w, 1), w.value),
  },
  {path: /^\/(?:sys\/module\/[^/]+\/parameters|proc\/sys)\//, write: (w) => w.machine.store(w.real, w.value)},
  {
    path: device('(.+)'),
    write: (w) => {
      const declared = w.machine.functions.get(word(w))?.declaration.attributes ?? {};
      if (declared[word(w, 1)] === undefined)
        throw new Error(
          `the simulation has no answer to a write to ${w.real}: add one to the table in machine.ts`,
        );
      w.machine.store(w.real, w.value);
    },
  },
];

// -------------------------------------------------------------------- small things

/** Many small files: in memory they take a tenth of the time, where there is such a folder. */
function temporaryFolder(): string {
  const shared = '/dev/shm';
  try {
    if (process.env['TMPDIR'] !== undefined) return fs.realpathSync(tmpdir());
    fs.accessSync(shared, fs.constants.W_OK);
    return shared;
  } catch {
    return fs.realpathSync(tmpdir());
  }
}

/** kstrtoul() with base 0: decimal, 0x hexadecimal or 0 octal, one newline at most. */
function wholeNumber(text: string, most = Number.MAX_SAFE_INTEGER): number {
  const match = /^\+?(0x[0-9a-f]+|\d+)\n?$/i.exec(text);
  const digits = match?.[1];
  if (digits === undefined) throw new Errno('EINVAL');
  const octal = /^0[0-7]+$/.test(digits);
  if (!octal && /^0\d/.test(digits)) throw new Errno('EINVAL');
  const number = octal ? parseInt(digits, 8) : Number(digits);
  if (number > most) throw new Errno('ERANGE');
  return number;
}

/** kstrtobool() */
function truth(text: string): boolean {
  if (/^([yYtT1]|[oO][nN])/.test(text)) return true;
  if (/^([nNfF0]|[oO][fF])/.test(text)) return false;
  throw new Errno('EINVAL');
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
  if (gifts.length === 0 || gifts.includes('uio')) return true;
  return gifts.some((gift) => gift !== 'vfio' && gift !== 'uio' && device[gift] !== undefined);
}

function known(given: Readonly<Record<string, string>>, all: Readonly<Record<string, string>> | undefined) {
  return Object.fromEntries(Object.entries(given).filter(([key]) => all?.[key] !== undefined));
}

function describe(process: ProcessDeclaration): string {
  return `${process.pid} (${process.comm})`;
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
