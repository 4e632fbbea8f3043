import type {MdevTypeDeclaration, ParentDeclaration} from '../declaration.js';
import {Errno, NeverReturns} from '../errno.js';
import {vfioPart, type Allocate, type Part} from './parts.js';
import type {Tree} from '../tree.js';

/** What mediated devices need of the machine they are in. */
export interface MdevMachine {
  readonly tree: Tree;
  readonly allocate: Allocate;
  readonly emit: (
    action: string,
    path: string,
    subsystem: string,
    more: Readonly<Record<string, string>>,
  ) => void;
  readonly addPart: (part: Part) => void;
  readonly removePart: (part: Part) => void;
  /** Whether a process has this open. */
  readonly isOpen: (node: string) => boolean;
  /** Lets a write wait in the kernel until this is over, and do what is left then. */
  readonly wait: (uuid: string, operation: string, over: () => boolean, complete: () => void) => void;
  /** The folder of a PCI function. */
  readonly pathOf: (slot: string) => string;
}

interface LiveMdev {
  readonly uuid: string;
  readonly parent: ParentDeclaration;
  readonly type: MdevTypeDeclaration;
  readonly path: string;
  readonly group: string;
  readonly parts: Part[];
}

/** The folder that all mediated devices are listed in. */
const bus = '/sys/bus/mdev';
const uuidPattern = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** The kernel's mediated devices, see Documentation/driver-api/vfio-mediated-device.rst. */
export class SimulatedMdevs {
  readonly #machine: MdevMachine;
  readonly #parents = new Map<string, ParentDeclaration>();
  readonly #mdevs = new Map<string, LiveMdev>();

  constructor(machine: MdevMachine, parents: readonly ParentDeclaration[]) {
    this.#machine = machine;
    for (const parent of parents) if (parent.registered !== false) this.register(parent);
  }

  /** The mediated devices that are there: `<uuid> <parent> <type>`, sorted. */
  list(): string[] {
    return [...this.#mdevs.values()]
      .map(({uuid, parent, type}) => `${uuid} ${parent.name} ${type.name}`)
      .sort();
  }

  /** A parent registers: its driver was loaded. */
  register(parent: ParentDeclaration): void {
    const {tree} = this.#machine;
    const path = this.#pathOf(parent);
    this.#parents.set(parent.name, parent);
    tree.directory(`${bus}/devices`);
    tree.directory(`${bus}/drivers/${parent.driver}`);
    if (!tree.has(`${path}/uevent`)) tree.file(`${path}/uevent`, '', 0o644);
    if (!tree.has(`${path}/subsystem`)) {
      const subsystem = `/sys/class/${parentSubsystem(parent)}`;
      tree.link(`${subsystem}/${parent.name}`, path);
      tree.link(`${path}/subsystem`, subsystem);
    }
    for (const type of parent.types) {
      const folder = `${path}/mdev_supported_types/${type.name}`;
      tree.directory(`${folder}/devices`);
      tree.file(`${folder}/create`, '', 0o200);
      tree.file(`${folder}/device_api`, `${type.deviceApi ?? 'vfio-pci'}\n`);
      if (type.title !== undefined) tree.file(`${folder}/name`, `${type.title}\n`);
      if (type.description !== undefined) tree.file(`${folder}/description`, type.description);
    }
    this.#renderAvailable(parent);
    tree.link(`/sys/class/mdev_bus/${parent.name}`, path);
    this.#machine.emit('change', path, parentSubsystem(parent), {MDEV_STATE: 'registered'});
  }

  /** A parent goes, with all its devices: its driver was unloaded. */
  unregister(name: string): void {
    const parent = this.#parent(name);
    const path = this.#pathOf(parent);
    this.#machine.emit('change', path, parentSubsystem(parent), {MDEV_STATE: 'unregistered'});
    for (const mdev of [...this.#mdevs.values()]) if (mdev.parent === parent) this.#remove(mdev);
    this.#parents.delete(name);
    this.#machine.tree.remove(`/sys/class/mdev_bus/${name}`);
    this.#machine.tree.remove(`${path}/mdev_supported_types`);
  }

  /** A write to `create` of a type. */
  create(parentPath: string, typeName: string, value: string): void {
    const parent = [...this.#parents.values()].find((each) => this.#pathOf(each) === parentPath);
    const type = parent?.types.find((each) => each.name === typeName);
    if (parent === undefined || type === undefined) throw new Errno('ENOENT');
    const uuid = value.replace(/\n$/, '').toLowerCase();
    if (!uuidPattern.test(uuid)) throw new Errno('EINVAL');
    if (this.#mdevs.has(uuid)) throw new Errno('EEXIST');
    if (this.#available(parent, type) === 0) throw new Errno('ENOSPC');
    this.#add(parent, type, uuid);
  }

  /** A write to `remove` of a device: it waits for whoever has the device open. */
  remove(uuid: string): void {
    const mdev = this.#mdevs.get(uuid);
    if (mdev === undefined) throw new Errno('ENODEV');
    const node = `/dev/vfio/${mdev.group}`;
    if (this.#machine.isOpen(node)) {
      // The attribute goes with the first write to it, and the device is off its bus before its driver releases it.
      this.#machine.tree.remove(`${mdev.path}/remove`);
      this.#machine.tree.remove(`${bus}/devices/${uuid}`);
      this.#machine.wait(
        uuid,
        'remove of a mediated device',
        () => !this.#machine.isOpen(node),
        () => this.#remove(mdev),
      );
      throw new NeverReturns(undefined, `${uuid} is open`);
    }
    this.#remove(mdev);
  }

  /** A write to another attribute of a device. */
  setAttribute(uuid: string, name: string, value: string): void {
    const mdev = this.#mdevs.get(uuid);
    const values = mdev?.type.attributes?.[name];
    if (mdev === undefined || values === undefined) throw new Errno('EACCES');
    const text = value.replace(/\n$/, '');
    if (!values.test(text)) throw new Errno('EINVAL');
    this.#machine.tree.file(`${mdev.path}/${name}`, `${text}\n`, 0o644);
  }

  #add(parent: ParentDeclaration, type: MdevTypeDeclaration, uuid: string): void {
    const {tree, emit, addPart, allocate} = this.#machine;
    const above = this.#pathOf(parent);
    const path = `${above}/${uuid}`;
    const group = String(allocate('mdev group', 100));
    const mdev: LiveMdev = {uuid, parent, type, path, group, parts: []};
    this.#mdevs.set(uuid, mdev);
    tree.file(`${path}/uevent`, '', 0o644);
    tree.file(`${path}/remove`, '', 0o200);
    for (const name of Object.keys(type.attributes ?? {})) tree.file(`${path}/${name}`, '\n', 0o644);
    tree.link(`${path}/subsystem`, bus);
    tree.link(`${bus}/devices/${uuid}`, path);
    emit('add', path, 'mdev', {});
    // The type is linked after the event.
    tree.link(`${path}/mdev_type`, `${above}/mdev_supported_types/${type.name}`);
    tree.link(`${above}/mdev_supported_types/${type.name}/devices/${uuid}`, path);
    this.#renderAvailable(parent);
    tree.link(`/sys/kernel/iommu_groups/${group}/devices/${uuid}`, path);
    tree.link(`${path}/iommu_group`, `/sys/kernel/iommu_groups/${group}`);
    tree.link(`${path}/driver`, `${bus}/drivers/${parent.driver}`);
    tree.link(`${bus}/drivers/${parent.driver}/${uuid}`, path);
    tree.file(`${path}/uevent`, `DRIVER=${parent.driver}\n`, 0o644);
    const minor = allocate('vfio group');
    mdev.parts.push(
      {
        path: `/sys/devices/virtual/vfio/${group}`,
        subsystem: 'vfio',
        node: {path: `/dev/vfio/${group}`, type: 'character', number: `243:${minor}`, mode: 0o600},
        numbers: [`vfio group ${minor}`],
        files: {dev: `243:${minor}`, uevent: `MAJOR=243\nMINOR=${minor}\nDEVNAME=vfio/${group}`},
      },
      vfioPart(path, allocate),
    );
    for (const part of mdev.parts) addPart(part);
    emit('bind', path, 'mdev', {});
  }

  #remove(mdev: LiveMdev): void {
    const {uuid, path, parent, group} = mdev;
    const {tree, emit, removePart} = this.#machine;
    if (!this.#mdevs.delete(uuid)) return;
    for (const part of [...mdev.parts].reverse()) removePart(part);
    tree.file(`${path}/uevent`, '', 0o644);
    emit('unbind', path, 'mdev', {});
    tree.remove(`${bus}/devices/${uuid}`);
    tree.remove(`${bus}/drivers/${parent.driver}/${uuid}`);
    tree.remove(`${this.#pathOf(parent)}/mdev_supported_types/${mdev.type.name}/devices/${uuid}`);
    tree.remove(`/sys/kernel/iommu_groups/${group}`);
    emit('remove', path, 'mdev', {});
    tree.remove(path);
    this.#renderAvailable(parent);
  }

  #parent(name: string): ParentDeclaration {
    const parent = this.#parents.get(name);
    if (parent === undefined) throw new Error(`there is no parent ${name} in the simulated machine`);
    return parent;
  }

  #pathOf({name, path}: ParentDeclaration): string {
    return path ?? this.#machine.pathOf(name);
  }

  /** All types of a parent share what it has. */
  #available(parent: ParentDeclaration, type: MdevTypeDeclaration): number {
    const used = [...this.#mdevs.values()]
      .filter((mdev) => mdev.parent === parent)
      .reduce((sum, mdev) => sum + mdev.type.units, 0);
    return Math.floor((parent.units - used) / type.units);
  }

  #renderAvailable(parent: ParentDeclaration): void {
    for (const type of parent.types)
      this.#machine.tree.file(
        `${this.#pathOf(parent)}/mdev_supported_types/${type.name}/available_instances`,
        `${this.#available(parent, type)}\n`,
      );
  }
}

function parentSubsystem({path}: ParentDeclaration): string {
  return path === undefined ? 'pci' : (path.split('/').at(-2) ?? '');
}
