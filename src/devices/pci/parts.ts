import type {HostReader} from '../../host/host.js';
import {absolute, devicePath} from './device.js';
import {slotsOfPath} from './find.js';
import type {Slot} from './slot.js';

/** The disks and network interfaces that the driver of a device provides. */
export interface Parts {
  /** Names such as `nvme0n1`, without partitions. */
  readonly disks: readonly string[];
  readonly interfaces: readonly string[];
  /** Those of both that udev has handled: links to them exist, and interfaces have their final names. */
  readonly handled: number;
}

/** Reads the parts of several devices, by slot. Devices without any have no entry. */
export function readParts(host: HostReader, slots: ReadonlySet<Slot>): Map<Slot, Parts> {
  const found = new Map<Slot, {disks: string[]; interfaces: string[]; handled: number}>();
  const add = (kind: 'disks' | 'interfaces', name: string, link: string, database: () => string) => {
    for (const slot of slotsOfPath(host, absolute(link))) {
      if (!slots.has(slot)) continue;
      const parts = found.get(slot) ?? {disks: [], interfaces: [], handled: 0};
      found.set(slot, parts);
      parts[kind].push(name);
      if (host.exists(`/run/udev/data/${database()}`)) parts.handled += 1;
    }
  };
  for (const name of host.list('/sys/class/net')) {
    const link = host.readLink(`/sys/class/net/${name}`);
    if (link !== undefined)
      add('interfaces', name, link, () => `n${host.readText(`/sys/class/net/${name}/ifindex`) ?? ''}`);
  }
  for (const name of host.list('/sys/block')) {
    const link = host.readLink(`/sys/block/${name}`);
    // A path of a multipath disk is hidden, and has no node.
    if (link !== undefined && host.readText(`/sys/block/${name}/hidden`) !== '1')
      add('disks', name, link, () => `b${host.readText(`/sys/block/${name}/dev`) ?? ''}`);
  }
  return found;
}

/**
 * The state of the NVMe controller in a slot, such as `live`, `connecting` or `dead`; undefined if its driver has none
 * there.
 */
export function readNvmeState(host: HostReader, slot: Slot): string | undefined {
  const name = readNvmeController(host, slot);
  return name === undefined ? undefined : host.readText(`${devicePath(slot, 'nvme')}/${name}/state`);
}

function readNvmeController(host: HostReader, slot: Slot): string | undefined {
  return host.list(devicePath(slot, 'nvme')).find((name) => /^nvme\d+$/.test(name));
}

/**
 * The namespaces of the NVMe controller in a slot that are no disks, such as `ng0n1`: the kernel gives a namespace whose
 * command set it does not know only a character device, and at most a hidden disk.
 */
export function readBareNamespaces(host: HostReader, slot: Slot): string[] {
  const controller = readNvmeController(host, slot);
  if (controller === undefined) return [];
  const subsystems = '/sys/class/nvme-subsystem';
  const folders = [
    `${devicePath(slot, 'nvme')}/${controller}`,
    ...host
      .list(subsystems)
      .map((name) => `${subsystems}/${name}`)
      .filter((folder) => host.exists(`${folder}/${controller}`)),
  ];
  return folders.flatMap((folder) => {
    const names = host.list(folder);
    const disks = names.filter(
      (name) => /^nvme\d+n\d+$/.test(name) && host.readText(`${folder}/${name}/hidden`) !== '1',
    );
    // With multipath, the first number of the two may differ.
    const numbers = new Set(disks.map((name) => name.replace(/^nvme\d+/, '')));
    return names.filter((name) => /^ng\d+n\d+$/.test(name) && !numbers.has(name.replace(/^ng\d+/, '')));
  });
}
