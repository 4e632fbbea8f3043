import type {SimulatedMachine} from './machine.js';
import {vfioPart, type Part} from './parts.js';
import type {LiveFunction} from './pci.js';

/** What drivers make for their devices: interfaces, cards, disks, nodes. */
export class ClassDevices {
  readonly #machine: SimulatedMachine;
  readonly #numbers = new Set<string>();
  /** The groups of devices without an IOMMU that VFIO has, by slot. */
  readonly #withoutIommu = new Map<string, number>();
  #nextInterface = 2;

  constructor(machine: SimulatedMachine) {
    this.#machine = machine;
  }

  readonly allocate = (kind: string, from = 0): number => {
    // Interface indexes are not used again.
    if (kind === 'ifindex') return this.#nextInterface++;
    const major = {'drm card': '/dev/dri/card', 'drm render': '/dev/dri/renderD'}[kind];
    for (let number = from; ; number++) {
      const held = major === undefined ? [] : this.#machine.processes.holders(`${major}${number} (deleted)`);
      if (this.#numbers.has(`${kind} ${number}`) || held.length > 0) continue;
      this.#numbers.add(`${kind} ${number}`);
      return number;
    }
  };

  addPart(device: LiveFunction | undefined, part: Part): void {
    device?.parts.push(part);
    const name = part.path.slice(part.path.lastIndexOf('/') + 1);
    for (const [file, content] of Object.entries(part.files))
      if (file.endsWith('/.')) this.#machine.tree.directory(`${part.path}/${file.slice(0, -2)}`);
      else
        this.#machine.tree.file(
          `${part.path}/${file}`,
          content === '' ? '' : `${content}\n`,
          file === 'uevent' || part.writable?.includes(file) === true ? 0o644 : 0o444,
        );
    const bus = ['usb', 'scsi', 'pci', 'platform'].includes(part.subsystem) ? 'bus' : 'class';
    this.#machine.tree.directory(`/sys/${bus}/${part.subsystem}`);
    this.#machine.tree.link(`${part.path}/subsystem`, `/sys/${bus}/${part.subsystem}`);
    if (part.device !== undefined) this.#machine.tree.link(`${part.path}/device`, part.device);
    for (const [link, to] of Object.entries(part.links ?? {}))
      this.#machine.tree.link(`${part.path}/${link}`, to);
    for (const link of part.classLinks ?? [`/sys/class/${part.subsystem}/${name}`])
      this.#machine.tree.link(link, part.path);
    if (part.node !== undefined) this.#machine.tree.node(part.node.path, part.node, part.path);
    if (part.subsystem === 'net' && this.#machine.booting) {
      const net = device?.declaration.net?.find((each) => each.name === name);
      if (net?.up === true) this.#machine.hostUse.addresses.set(name, net.addresses ?? []);
    } else if (part.subsystem === 'net' && device !== undefined) {
      // A new interface is down and has no addresses, whatever the one before it had.
      this.#machine.tree.file(`${part.path}/flags`, '0x1002\n', 0o644);
      this.#machine.tree.file(`${part.path}/operstate`, 'down\n');
      this.#machine.tree.file(`${part.path}/carrier`, '0\n');
    }
    if (part.subsystem === 'graphics') this.#machine.console.renderFramebuffers();
    this.#machine.events.emitPart('add', part);
  }

  removePart(part: Part): void {
    const name = part.path.slice(part.path.lastIndexOf('/') + 1);
    this.#machine.events.emitPart('remove', part);
    for (const link of part.classLinks ?? [`/sys/class/${part.subsystem}/${name}`])
      this.#machine.tree.remove(link);
    if (part.node !== undefined) {
      this.#machine.processes.loseNode(part.node.path);
      this.#machine.tree.removeNode(part.node.path);
      // A new node is root's again.
      this.#machine.owners.delete(part.node.path);
      this.#machine.groups.delete(part.node.path);
    }
    for (const number of part.numbers ?? []) this.#numbers.delete(number);
    this.#machine.tree.remove(part.path);
    this.#machine.tree.removeEmpty(part.path.slice(0, part.path.lastIndexOf('/')));
    if (part.subsystem === 'net') {
      this.#machine.hostUse.loseInterface(name);
    }
    if (part.subsystem === 'graphics') this.#machine.console.renderFramebuffers();
  }

  vfioGroup(device: LiveFunction): string {
    return device.group ?? `noiommu-${this.#withoutIommu.get(device.slot) ?? ''}`;
  }

  /** In no-IOMMU mode, VFIO makes a group for each device (vfio_noiommu_group_alloc in drivers/vfio/group.c). */
  #joinGroup(device: LiveFunction): void {
    if (device.group !== undefined) return;
    const number = this.allocate('iommu group');
    const {tree} = this.#machine;
    const folder = `/sys/kernel/iommu_groups/${number}`;
    this.#withoutIommu.set(device.slot, number);
    tree.link(`${folder}/devices/${device.slot}`, device.path);
    tree.file(`${folder}/name`, 'vfio-noiommu\n');
    tree.link(`${device.path}/iommu_group`, folder);
  }

  #leaveGroup(device: LiveFunction): void {
    const number = this.#withoutIommu.get(device.slot);
    if (number === undefined) return;
    this.#withoutIommu.delete(device.slot);
    this.#numbers.delete(`iommu group ${number}`);
    this.#machine.tree.remove(`${device.path}/iommu_group`);
    this.#machine.tree.remove(`/sys/kernel/iommu_groups/${number}`);
  }

  openVfio(device: LiveFunction): void {
    this.#joinGroup(device);
    const group = this.vfioGroup(device);
    const folder = `/sys/devices/virtual/vfio/${group}`;
    if (!this.#machine.tree.has(folder)) {
      const minor = this.allocate('vfio group');
      this.addPart(undefined, {
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
    this.addPart(device, vfioPart(device.path, this.allocate));
  }

  /** The group's node goes with the last of its devices. */
  closeVfio(device: LiveFunction): void {
    const group = this.vfioGroup(device);
    const others = [...this.#machine.functions.values()].some(
      (each) =>
        each !== device &&
        each.driver !== undefined &&
        this.vfioGroup(each) === group &&
        this.#machine.drivers.named(each.driver).gives?.includes('vfio') === true,
    );
    if (others) return;
    const minor = this.#machine.tree.nodes.get(`/dev/vfio/${group}`)?.number.split(':')[1] ?? '';
    this.removePart({
      path: `/sys/devices/virtual/vfio/${group}`,
      subsystem: 'vfio',
      node: {path: `/dev/vfio/${group}`, type: 'character', number: `243:${minor}`, mode: 0o600},
      numbers: [`vfio group ${minor}`],
      files: {},
    });
    this.#leaveGroup(device);
  }
}
