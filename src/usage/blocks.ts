import {posix} from 'node:path';
import type {HostReader} from '../host/host.js';
import {absolute} from '../devices/pci/device.js';
import type {Slot} from '../devices/pci/slot.js';
import {lastPart, padded, ownersOf, type Scope} from './scope.js';

/** A disk, a partition, or a device built from them. */
export interface BlockDevice {
  /** The kernel's name: `nvme0n1p2`, `dm-0`. */
  readonly name: string;
  /** `major:minor` */
  readonly number: string;
  /** The usual node: `/dev/nvme0n1p2`, `/dev/mapper/vg-root`. */
  readonly node: string;
  /** Its folder in sysfs. */
  readonly path: string;
  /** The device mapper's name; undefined for everything else. */
  readonly mapped: string | undefined;
  /** The PCI devices that it depends on; none for a device built from others. */
  readonly owners: readonly Slot[];
}

/** How many links are followed from one path, as in the kernel: path_resolution(7). */
const mostLinks = 40;

/** Whether only root can have created what the path leads to, and the folders above it. */
function isRoots(path: string): boolean {
  return (
    path.startsWith('/dev/') &&
    !/^\/dev\/(?:shm|mqueue|hugepages|pts|fd|std\w+)(?:\/|$)/.test(path) &&
    !path.split('/').includes('..')
  );
}

/** All block devices of the machine, by node, by name and by number. */
export class Blocks {
  readonly all: readonly BlockDevice[];
  readonly #host: HostReader;
  readonly #byName: ReadonlyMap<string, BlockDevice>;
  readonly #byNumber: ReadonlyMap<string, BlockDevice>;
  readonly #byNode: ReadonlyMap<string, BlockDevice>;
  readonly #byFolder = new Map<string, BlockDevice[]>();

  constructor(host: HostReader, all: readonly BlockDevice[]) {
    this.#host = host;
    this.all = all;
    this.#byName = new Map(all.map((block) => [block.name, block]));
    this.#byNumber = new Map(all.map((block) => [block.number, block]));
    this.#byNode = new Map(
      all.flatMap((block) => [[block.node, block] as const, [`/dev/${block.name}`, block] as const]),
    );
    for (const block of all) {
      const folder = posix.dirname(block.path);
      this.#byFolder.set(folder, [...(this.#byFolder.get(folder) ?? []), block]);
    }
  }

  named(name: string): BlockDevice | undefined {
    return this.#byName.get(name);
  }

  numbered(number: string): BlockDevice | undefined {
    return this.#byNumber.get(number);
  }

  /**
   * The device of a path in /dev, also through a link such as /dev/disk/by-uuid/… or /dev/vg/root. The path may be text
   * that another user chose, such as the source of a FUSE mount: only files that root created in /dev are followed.
   */
  at(path: string): BlockDevice | undefined {
    let at = path;
    for (let links = 0; links < mostLinks; links++) {
      const known = this.#byNode.get(at);
      if (known !== undefined || !isRoots(at)) return known;
      const link = this.#host.readLink(at);
      if (link === undefined) return this.#byNumber.get(this.#host.info(at)?.deviceNumber ?? '');
      at = posix.resolve(posix.dirname(at), link);
    }
    return undefined;
  }

  partitionsOf(block: BlockDevice): readonly BlockDevice[] {
    return this.#byFolder.get(block.path) ?? [];
  }

  isPartition(block: BlockDevice): boolean {
    return this.#byName.has(lastPart(posix.dirname(block.path)));
  }
}

/** Reads /sys/dev/block (Documentation/ABI/testing/sysfs-dev): one link for each disk, partition and stack. */
export function readBlocks(scope: Scope): Blocks {
  const {host} = scope;
  const blocks: BlockDevice[] = [];
  for (const number of host.list('/sys/dev/block')) {
    const link = host.readLink(`/sys/dev/block/${number}`);
    if (link === undefined) continue;
    const path = absolute(link);
    const name = lastPart(path);
    const mapped = name.startsWith('dm-') ? host.readText(`${path}/dm/name`) : undefined;
    // A ! in the kernel's name stands for the / of the node's path, as in cciss!c0d0.
    const node = mapped === undefined ? `/dev/${name.replaceAll('!', '/')}` : `/dev/mapper/${mapped}`;
    blocks.push({name, number, node, path, mapped, owners: ownersOf(scope, link)});
  }
  // Like byNumber, with each name parsed once: there may be hundreds of disks.
  const placed = blocks.map((block) => ({block, place: padded(block.name)}));
  placed.sort((a, b) => (a.place < b.place ? -1 : a.place > b.place ? 1 : 0));
  return new Blocks(
    host,
    placed.map(({block}) => block),
  );
}
