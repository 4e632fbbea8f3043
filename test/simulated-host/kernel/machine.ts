import fs from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import type {FunctionDeclaration, MachineDeclaration, ProcessDeclaration} from '../declaration.js';
import {Errno} from '../errno.js';
import {standardMachine} from '../standard-machine.js';
import {Tree} from '../tree.js';
import {answers} from './attributes.js';
import {ClassDevices} from './class-devices.js';
import {Console} from './console.js';
import {Drivers} from './drivers.js';
import {Events, type KernelEvent} from './events.js';
import {HostUse} from './host-use.js';
import {HugePagePools} from './huge-pages.js';
import {build} from './initial-tree.js';
import {SimulatedMdevs, type MdevMachine} from './mdevs.js';
import {Modules} from './modules.js';
import {PciFunctions, type LiveFunction} from './pci.js';
import {Processes} from './processes.js';
import {VirtualFunctions} from './sriov.js';
import {StuckWrites} from './stuck-writes.js';

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
  readonly events: Events;
  readonly stuck: StuckWrites;
  readonly processes: Processes;
  readonly hostUse: HostUse;
  readonly modules: Modules;
  readonly drivers: Drivers;
  readonly pci: PciFunctions;
  readonly sriov: VirtualFunctions;
  readonly classDevices: ClassDevices;
  readonly console: Console;
  readonly hugePages: HugePagePools;
  /** While the tree is built: nobody is told of events, and interfaces are as declared. */
  booting = true;
  readonly #later: {readonly at: number; readonly happen: () => void}[] = [];

  /** Builds the tree, in a new temporary folder. */
  constructor(declaration: MachineDeclaration = standardMachine()) {
    this.tree = new Tree(fs.mkdtempSync(join(temporaryFolder(), 'pearasys-machine-')));
    this.declaration = declaration;
    this.events = new Events(this);
    this.stuck = new StuckWrites(this);
    this.processes = new Processes(this);
    this.hostUse = new HostUse(this);
    this.modules = new Modules(this);
    this.drivers = new Drivers(this);
    this.pci = new PciFunctions(this);
    this.sriov = new VirtualFunctions(this);
    this.classDevices = new ClassDevices(this);
    this.console = new Console(this);
    this.hugePages = new HugePagePools(this, declaration.hugePages ?? []);
    build(this);
    this.mdevs = new SimulatedMdevs(this.#forMdevs(), declaration.mdevParents);
    for (const [uuid, type] of Object.entries(declaration.mdevs)) this.#createMdev(uuid, type);
    this.booting = false;
  }

  /** See {@link Tree.folder}. */
  get folder(): string {
    return this.tree.folder;
  }

  /** Gives a node in /dev another owner, group or mode: what is undefined stays as it is. */
  setNodeOwner(
    path: string,
    {
      uid,
      gid,
      mode,
    }: {
      readonly uid?: number | undefined;
      readonly gid?: number | undefined;
      readonly mode?: number | undefined;
    },
  ): void {
    const node = this.tree.nodes.get(path);
    if (node === undefined) return;
    if (uid !== undefined) this.owners.set(path, uid);
    if (gid !== undefined) this.groups.set(path, gid);
    if (mode !== undefined) this.tree.nodes.set(path, {...node, mode});
  }

  /** Removes the folder. */
  dispose(): void {
    this.tree.dispose();
  }

  /** The functions that are in the machine now, by slot. */
  get functions(): ReadonlyMap<string, LiveFunction> {
    return this.pci.functions;
  }

  /** Which driver has which function: `0000:01:00.0 nouveau`, with the override in brackets. For tests to compare whole. */
  bindings(): string[] {
    return [...this.functions.values()]
      .sort((one, other) => one.slot.localeCompare(other.slot))
      .map(
        ({slot, driver, override}) =>
          `${slot} ${driver ?? '-'}${override === undefined ? '' : ` (${override})`}`,
      );
  }

  /** Addresses of each interface that is up. */
  addresses(): ReadonlyMap<string, readonly string[]> {
    return this.hostUse.addresses;
  }

  // ---------------------------------------------------------------- what happens to a machine

  /** A function that is in the machine. */
  device(slot: string): LiveFunction {
    return this.pci.device(slot);
  }

  subscribe(listener: (event: KernelEvent) => void): () => void {
    return this.events.subscribe(listener);
  }

  /** See {@link PciFunctions.plug}. */
  plug(device: string | FunctionDeclaration): void {
    this.pci.plug(device);
  }

  /** See {@link PciFunctions.hotAdd}. */
  hotAdd(device: string | FunctionDeclaration): void {
    this.pci.hotAdd(device);
  }

  /** See {@link PciFunctions.hotRemove}. */
  hotRemove(slot: string): void {
    this.pci.hotRemove(slot);
  }

  addProcess(declaration: ProcessDeclaration): void {
    this.processes.addProcess(declaration);
  }

  /** See {@link Processes.openFile}. */
  openFile(pid: number, path: string): void {
    this.processes.openFile(pid, path);
  }

  closeFile(pid: number, path: string): void {
    this.processes.closeFile(pid, path);
  }

  /** See {@link Processes.signal}. */
  signal(pid: number, signal: 'SIGTERM' | 'SIGKILL'): void {
    this.processes.signal(pid, signal);
  }

  /** See {@link Processes.endProcess}. */
  endProcess(pid: number): void {
    this.processes.endProcess(pid);
  }

  mount(mount: MachineDeclaration['mounts'][number]): void {
    this.hostUse.mount(mount);
  }

  loadModule(name: string, parameters?: Readonly<Record<string, string>>): void {
    this.modules.loadModule(name, parameters);
  }

  isLoaded(module: string): boolean {
    return this.modules.isLoaded(module);
  }

  /** See {@link Drivers.refuseProbe}. */
  refuseProbe(slot: string, driver: string, errno?: string, times?: number): void {
    this.drivers.refuseProbe(slot, driver, errno, times);
  }

  /** See {@link StuckWrites.holdLock}. */
  holdLock(slot: string, complete?: () => void, operation?: string): () => void {
    return this.stuck.holdLock(slot, complete, operation);
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
    throw new Error(
      `the simulation has no answer to a write to ${real}: add one to the table in kernel/attributes.ts`,
    );
  }

  /** Keeps a value, for attributes that do nothing else here. */
  store(real: string, value: string): void {
    const mode = (this.tree.stat(real)?.mode ?? 0o644) & 0o777;
    this.tree.file(real, value.endsWith('\n') ? value : `${value}\n`, mode);
  }

  #forMdevs(): MdevMachine {
    return {
      tree: this.tree,
      allocate: this.classDevices.allocate,
      emit: (...event) => this.events.emit(...event),
      addPart: (part) => this.classDevices.addPart(undefined, part),
      removePart: (part) => this.classDevices.removePart(part),
      isOpen: (node) => this.processes.holders(node).length > 0,
      wait: (uuid, operation, over, complete) => this.stuck.set(uuid, {operation, over, complete}),
      pathOf: (slot) => this.pci.device(slot).path,
    };
  }

  #createMdev(uuid: string, path: string): void {
    const type = this.tree.resolve(`/sys/class/mdev_bus/${path.replace('/', '/mdev_supported_types/')}`);
    if (type === undefined) throw new Error(`the simulated machine has no ${path} for ${uuid}`);
    this.write(`${type}/create`, uuid);
  }
}

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
