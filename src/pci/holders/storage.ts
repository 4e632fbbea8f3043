import type {HostReader} from '../../host/host.js';
import type {MountHolder, StackHolder} from './holder.js';
import type {Slot} from '../slot.js';
import type {BlockDevice, Blocks} from './blocks.js';
import {readMounts, unescape} from './mounts.js';
import {lastPart} from './scope.js';

type StorageHolder = MountHolder | StackHolder;
/** A use of a block device, whichever PCI device it turns out to be on. */
type Use = Omit<MountHolder, 'slot'> | Omit<StackHolder, 'slot'>;

/**
 * Where the running system itself is: these cannot be unmounted, so the disk cannot be taken. /home, /srv and what
 * is below /var can, and are like any other mount.
 */
const systemTarget =
  /^\/(?:|usr|boot(?:\/.*)?|efi|etc|var|nix|nix\/store|sysroot|run\/live\/medium|run\/initramfs\/live)$/;

/**
 * Mounts, swap, and LVM, RAID, dm-crypt or other block devices on the devices' disks, from the topmost down, as
 * they would be undone. All of them are certain harm: the kernel lets the disk go all the same, and what was on it
 * is lost.
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
  readonly #known = new Map<BlockDevice, readonly Use[]>();

  constructor(host: HostReader, blocks: Blocks) {
    this.#host = host;
    this.#blocks = blocks;
    this.#direct = readDirectUses(host, blocks);
  }

  /** The uses of a block device and of all that is built on it; its partitions are block devices of their own. */
  usesOf(block: BlockDevice): readonly Use[] {
    const known = this.#known.get(block);
    if (known !== undefined) return known;
    const uses = new Set<Use>(this.#direct.get(block));
    for (const name of this.#host.list(`${block.path}/holders`)) {
      const upper = this.#blocks.named(name);
      if (upper !== undefined)
        for (const each of [upper, ...this.#blocks.partitionsOf(upper)])
          for (const use of this.usesOf(each)) uses.add(use);
      const by = upper?.mapped === undefined ? name : `${name} (${upper.mapped})`;
      uses.add({kind: 'stack', class: 'yields', harm: 'certain', source: block.node, by});
    }
    const result = [...uses];
    this.#known.set(block, result);
    return result;
  }

  /** The uses of a whole disk, and for it and its partitions those that only the kernel knows of. */
  usesOfDisk(disk: BlockDevice): readonly Use[] {
    const uses = this.usesOf(disk);
    const partitions = this.#blocks.partitionsOf(disk);
    // Opening the drive of a disc or floppy moves it, and nothing is built on those.
    if (uses.length > 0 || /^(?:sr|fd)\d/.test(disk.name)) return uses;
    const used = partitions.filter((partition) => this.usesOf(partition).length > 0);
    const claimed = partitions.filter(
      (partition) => !used.includes(partition) && this.#host.isClaimedByKernel(partition.node),
    );
    // While a partition is in use the kernel answers busy for the whole disk too.
    if (used.length === 0 && claimed.length === 0 && this.#host.isClaimedByKernel(disk.node))
      claimed.push(disk);
    return claimed.map(({node}) => ({
      kind: 'stack',
      class: 'yields',
      harm: 'certain',
      source: node,
      by: undefined,
    }));
  }
}

/** What is mounted or swapped on directly, by block device: /proc/self/mountinfo and /proc/swaps, see proc(5). */
function readDirectUses(host: HostReader, blocks: Blocks): Map<BlockDevice, Use[]> {
  const uses = new Map<BlockDevice, Use[]>();
  const add = (block: BlockDevice, use: Pick<MountHolder, 'kind' | 'target' | 'system'>) => {
    const known = uses.get(block) ?? [];
    if (known.every((one) => one.kind === 'stack' || one.target !== use.target))
      known.push({...use, class: 'yields', harm: 'certain', source: block.node});
    uses.set(block, known);
  };
  for (const {number, target, type, source} of readMounts(host)) {
    const block = blocks.numbered(number) ?? blocks.at(source);
    const members = type === 'btrfs' && block !== undefined ? btrfsMembers(host, blocks, block) : [block];
    for (const member of members)
      if (member !== undefined) add(member, {kind: 'mount', target, system: systemTarget.test(target)});
  }
  for (const line of lines(host.readText('/proc/swaps')).slice(1)) {
    const block = blocks.at(unescape(line.split(/\s+/)[0] ?? ''));
    if (block !== undefined) add(block, {kind: 'swap', target: 'swap', system: false});
  }
  return uses;
}

/** All disks of the btrfs that one of them was mounted by; the kernel lists them by file system in /sys/fs/btrfs. */
function btrfsMembers(host: HostReader, blocks: Blocks, block: BlockDevice): (BlockDevice | undefined)[] {
  const names = host
    .list('/sys/fs/btrfs')
    .map((id) => host.list(`/sys/fs/btrfs/${id}/devices`))
    .find((devices) => devices.includes(lastPart(block.path)));
  return names?.map((name) => blocks.named(name)) ?? [block];
}

function lines(text: string | undefined): string[] {
  return text === undefined || text === '' ? [] : text.split('\n');
}
