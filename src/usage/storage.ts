import type {HostReader} from '../host/host.js';
import type {MountHolder, StackHolder} from './holder.js';
import type {Slot} from '../devices/pci/slot.js';
import {readBacked, type Backed} from './backing.js';
import type {BlockDevice, Blocks} from './blocks.js';
import {readMounts, unescape, type Mount} from './mounts.js';
import {lastPart} from './scope.js';

type StorageHolder = MountHolder | StackHolder;
/** A use of a block device, before its PCI device is known. */
type Use = Omit<MountHolder, 'slot'> | Omit<StackHolder, 'slot'>;

/**
 * Mount points of the running system: they cannot be unmounted, so the disk cannot be taken. /home, /srv and folders
 * below /var can, and are treated like any other mount.
 */
const systemTarget =
  /^\/(?:|usr|boot(?:\/.*)?|efi|etc|var|nix|nix\/store|sysroot|run\/live\/medium|run\/initramfs\/live)$/;

/**
 * Mounts, swap, and LVM, RAID, dm-crypt or other block devices on the devices' disks, from the topmost down, in
 * the order of undoing them. All of them are certain harm: the kernel removes the disk anyway, and unsaved data is
 * lost.
 */
export function readStorageHolders(host: HostReader, blocks: Blocks): StorageHolder[] {
  const owned = blocks.all.filter((block) => block.owners.length > 0);
  if (owned.length === 0) return [];
  const search = new Search(host, blocks);
  const found: StorageHolder[] = [];
  const seen = new Map<Slot, Set<Use>>();
  for (const block of owned) {
    const uses = blocks.isPartition(block) ? search.usesOf(block) : search.usesOfDisk(block);
    for (const slot of block.owners) {
      const known = seen.get(slot) ?? new Set();
      seen.set(slot, known);
      for (const use of uses) if (!known.has(use)) found.push({slot, ...use});
      for (const use of uses) known.add(use);
    }
  }
  return found;
}

class Search {
  readonly #host: HostReader;
  readonly #blocks: Blocks;
  readonly #direct: ReadonlyMap<BlockDevice, readonly Use[]>;
  readonly #backed: ReadonlyMap<BlockDevice, readonly Backed[]>;
  readonly #known = new Map<BlockDevice, readonly Use[]>();
  #elsewhere: readonly NamespaceMount[] | undefined;

  constructor(host: HostReader, blocks: Blocks) {
    this.#host = host;
    this.#blocks = blocks;
    this.#direct = readDirectUses(host, blocks);
    this.#backed = readBacked(host, blocks);
  }

  /** The uses of a block device and of all devices built on it; its partitions are separate block devices. */
  usesOf(block: BlockDevice): readonly Use[] {
    const known = this.#known.get(block);
    if (known !== undefined) return known;
    const uses = new Set<Use>(this.#direct.get(block));
    // A loop device whose file is on the device itself would recurse forever.
    this.#known.set(block, [...uses]);
    for (const {upper, by} of this.#builtOn(block)) {
      if (upper !== undefined)
        for (const each of [upper, ...this.#blocks.partitionsOf(upper)])
          for (const use of this.usesOf(each)) uses.add(use);
      uses.add({kind: 'stack', class: 'yields', harm: 'certain', source: block.node, by});
    }
    const result = [...uses];
    this.#known.set(block, result);
    return result;
  }

  #builtOn(block: BlockDevice): Backed[] {
    const linked = this.#host.list(`${block.path}/holders`).map((name) => {
      const upper = this.#blocks.named(name);
      return {upper, by: upper?.mapped === undefined ? name : `${name} (${upper.mapped})`};
    });
    return [...linked, ...(this.#backed.get(block) ?? [])];
  }

  /** The uses of a whole disk, including claims on it and its partitions that only the kernel knows. */
  usesOfDisk(disk: BlockDevice): readonly Use[] {
    const uses = this.usesOf(disk);
    const partitions = this.#blocks.partitionsOf(disk);
    // Opening the drive of a disc or floppy moves it, and nothing is built on them.
    if (uses.length > 0 || /^(?:sr|fd)\d/.test(disk.name)) return uses;
    const used = partitions.filter((partition) => this.usesOf(partition).length > 0);
    const claimed = partitions.filter(
      (partition) => !used.includes(partition) && this.#host.isClaimedByKernel(partition.node),
    );
    // While a partition is in use, the whole disk is busy too.
    if (used.length === 0 && claimed.length === 0 && this.#host.isClaimedByKernel(disk.node))
      claimed.push(disk);
    return claimed.flatMap((block) => {
      const mounts = this.#mountedElsewhere(block);
      return mounts.length > 0
        ? mounts
        : [{kind: 'stack', class: 'yields', harm: 'certain', source: block.node, by: undefined}];
    });
  }

  /** Where a block device that the kernel has claimed is mounted in other namespaces, such as a container's. */
  #mountedElsewhere(block: BlockDevice): Use[] {
    this.#elsewhere ??= readMountsElsewhere(this.#host);
    return this.#elsewhere
      .filter(({mount}) => isOf(this.#blocks, mount).includes(block))
      .map(({mount, pid}) => ({
        kind: 'mount',
        class: 'yields',
        harm: 'certain',
        source: block.node,
        target: mount.target,
        system: false,
        namespaceOf: pid,
      }));
  }
}

/** A mount that only processes of another mount namespace see. */
interface NamespaceMount {
  readonly mount: Mount;
  /** One of these processes. */
  readonly pid: number;
}

/** The mounts of all other mount namespaces, by the first process of each (namespaces(7)). */
function readMountsElsewhere(host: HostReader): NamespaceMount[] {
  const seen = new Set([host.readLink('/proc/self/ns/mnt')]);
  const found: NamespaceMount[] = [];
  for (const pid of host.list('/proc').filter((name) => /^\d+$/.test(name))) {
    const namespace = host.readLink(`/proc/${pid}/ns/mnt`);
    if (namespace === undefined || seen.has(namespace)) continue;
    seen.add(namespace);
    for (const mount of readMounts(host, pid)) found.push({mount, pid: Number(pid)});
  }
  return found;
}

/** The block devices that a mount names; bcachefs names all of its own, with colons between. */
function isOf(blocks: Blocks, {number, type, source}: Mount): BlockDevice[] {
  const numbered = blocks.numbered(number);
  const sources = type === 'bcachefs' ? source.split(':') : [source];
  return numbered === undefined
    ? sources.map((path) => blocks.at(path)).filter((block) => block !== undefined)
    : [numbered];
}

/** Mounts and swap by block device: /proc/self/mountinfo and /proc/swaps, see proc(5). */
function readDirectUses(host: HostReader, blocks: Blocks): Map<BlockDevice, Use[]> {
  const uses = new Map<BlockDevice, Use[]>();
  const add = (block: BlockDevice, use: Pick<MountHolder, 'kind' | 'source' | 'target' | 'system'>) => {
    const known = uses.get(block) ?? [];
    const same = (one: Use) =>
      one.kind === use.kind &&
      one.target === use.target &&
      (one.kind === 'mount' || one.source === use.source);
    if (!known.some(same)) known.push({...use, class: 'yields', harm: 'certain'});
    uses.set(block, known);
  };
  const membersOf = (mount: Mount) =>
    isOf(blocks, mount).flatMap((block) =>
      mount.type === 'btrfs' ? btrfsMembers(host, blocks, block) : [block],
    );
  const mounts = readMounts(host);
  for (const mount of mounts) {
    const {target} = mount;
    for (const member of membersOf(mount))
      add(member, {kind: 'mount', source: member.node, target, system: systemTarget.test(target)});
  }
  for (const line of lines(host.readText('/proc/swaps')).slice(1)) {
    const path = unescape(line.split(/\s+/)[0] ?? '');
    const block = blocks.at(path);
    const use = {kind: 'swap', target: 'swap', system: false} as const;
    if (block !== undefined) add(block, {...use, source: block.node});
    else {
      const mount = mountOf(mounts, path);
      if (mount !== undefined) for (const member of membersOf(mount)) add(member, {...use, source: path});
    }
  }
  return uses;
}

/** The mount that a path is on: the last one of the deepest, because it covers the others. */
function mountOf(mounts: readonly Mount[], path: string): Mount | undefined {
  let found: Mount | undefined;
  for (const mount of mounts) {
    const isAbove = mount.target === '/' || path === mount.target || path.startsWith(`${mount.target}/`);
    if (isAbove && mount.target.length >= (found?.target.length ?? 0)) found = mount;
  }
  return found;
}

/** All disks of a btrfs that was mounted by one of them; the kernel lists them by file system in /sys/fs/btrfs. */
function btrfsMembers(host: HostReader, blocks: Blocks, block: BlockDevice): BlockDevice[] {
  const names = host
    .list('/sys/fs/btrfs')
    .map((id) => host.list(`/sys/fs/btrfs/${id}/devices`))
    .find((devices) => devices.includes(lastPart(block.path)));
  return names?.map((name) => blocks.named(name)).filter((one) => one !== undefined) ?? [block];
}

function lines(text: string | undefined): string[] {
  return text === undefined || text === '' ? [] : text.split('\n');
}
