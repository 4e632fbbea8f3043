import {CommandError} from '../host/errors.js';
import type {CommandResult, HostQuery, HostReader} from '../host/host.js';
import type {Device} from '../devices/pci/device.js';
import {typesOf} from '../devices/pci/device-types.js';
import {isForUserspace, isStandIn} from '../devices/pci/driver.js';
import {readBareNamespaces, readNvmeState} from '../devices/pci/parts.js';
import type {Slot} from '../devices/pci/slot.js';
import {readBlocks, type BlockDevice, type Blocks} from './blocks.js';

/**
 * What a disk carries, as libblkid finds it. `data`: a partition table or the signature of a file system, of RAID, LVM,
 * ZFS, LUKS, swap or others; `blank`: it was searched completely, and nothing was found; `unknown`: it was not.
 */
export type Contents =
  | {readonly kind: 'blank'}
  | {
      readonly kind: 'data';
      /** libblkid's name, such as `ext4`, `LVM2_member`, `crypto_LUKS`; undefined without a signature. */
      readonly type: string | undefined;
      /** `filesystem`, `raid`, `crypto` or `other`; undefined without a signature. */
      readonly usage: string | undefined;
      /** `gpt`, `dos` and others; undefined without a partition table. */
      readonly partitionTable: string | undefined;
    }
  | {readonly kind: 'unknown'; readonly reason: string};

/** A disk of a device, with what it carries. */
export interface DiskContents {
  /** The devices that it depends on; several for a multipath disk. */
  readonly slots: readonly Slot[];
  /** `/dev/nvme0n1` */
  readonly node: string;
  readonly contents: Contents;
}

/** A disk of devices, before it is searched. */
export interface Disk {
  readonly slots: readonly Slot[];
  readonly node: string;
  /** `major:minor` */
  readonly number: string;
  /** Bytes. */
  readonly size: number;
  /** Whether the kernel has found partitions on it. */
  readonly partitioned: boolean;
}

const sector = 512;

/** The disks of these devices, without partitions and without devices that are built on disks. */
export function readDisks(host: HostQuery, devices: readonly Device[]): Disk[] {
  const blocks = readBlocks({host, devices: new Map(devices.map((device) => [device.slot, device]))});
  return blocks.all
    .filter((block) => block.owners.length > 0 && !blocks.isPartition(block))
    .map((block) => diskOf(host, blocks, block));
}

function diskOf(host: HostQuery, blocks: Blocks, block: BlockDevice): Disk {
  const sectors = Number(host.readText(`${block.path}/size`) ?? 0);
  return {
    slots: block.owners,
    node: block.node,
    number: block.number,
    size: Number.isSafeInteger(sectors) ? sectors * sector : 0,
    partitioned: blocks.partitionsOf(block).length > 0,
  };
}

/**
 * Why disks that go away with a device cannot be searched: a disk behind a storage controller that provides none now is
 * not known to be blank. Undefined if they can be searched, or if there can be none.
 * @param dependents what exists only through its driver, such as the disks behind Intel VMD.
 */
export function readUnsearchable(
  host: HostReader,
  device: Device,
  dependents: readonly Device[],
): string | undefined {
  const own = readUnsearchableController(host, device);
  if (own !== undefined) return own;
  for (const one of dependents) {
    const reason = readUnsearchableController(host, one);
    if (reason !== undefined) return `${one.slot} goes away with it: ${reason}`;
  }
  return undefined;
}

function readUnsearchableController(host: HostReader, device: Device): string | undefined {
  const {slot, driver} = device;
  if (!typesOf(device).includes('storage') || isForUserspace(driver)) return undefined;
  const tail = 'so its disks cannot be searched for data';
  if (driver === undefined) return `it has no driver, ${tail}`;
  if (isStandIn(driver)) return `it is on ${driver}, ${tail}`;
  const state = readNvmeState(host, slot);
  if (state !== undefined && state !== 'live') return `its controller is in state ${state}, ${tail}`;
  const bare = readBareNamespaces(host, slot);
  return bare.length === 0
    ? undefined
    : `${bare.join(', ')} cannot be searched for data: the kernel has no disk for it`;
}

/** How many disks are searched at a time. */
const together = 16;

/** Milliseconds that a search may take: a disk that has failed may answer late, or never. */
const searchLimit = 10_000;

/** Searches disks for signatures. */
export async function readContents(host: HostQuery, disks: readonly Disk[]): Promise<DiskContents[]> {
  const found: DiskContents[] = [];
  for (let at = 0; at < disks.length; at += together) {
    const some = disks.slice(at, at + together);
    found.push(
      ...(await Promise.all(
        some.map(async (disk) => ({
          slots: disk.slots,
          node: disk.node,
          contents: await search(host, disk),
        })),
      )),
    );
  }
  return found;
}

/** blkid(8) exits with these. */
const exits = {found: 0, nothing: 2, ambiguous: 8};

/**
 * Has blkid(8) search one disk. It stops at the first disk of several on which it finds nothing, skips a node that is
 * missing, and is silent about a read error: in all three cases it would exit as for a blank disk. So what it has read
 * is read again.
 */
async function search(host: HostQuery, {node, number, size, partitioned}: Disk): Promise<Contents> {
  const unknown = (reason: string): Contents => ({kind: 'unknown', reason});
  if (host.root !== '/') return unknown('the disks of an image cannot be searched');
  if (host.info(node)?.deviceNumber !== number) return unknown(`${node} is not its node`);
  if (size === 0) return unknown('it has no size yet');
  if (host.userId !== 0) return unknown('only root can search it');
  const ask = (program: string, args: readonly string[]) =>
    host.ask(program, args, {accept: 'any', limit: searchLimit});
  try {
    const found = contentsFrom(await ask('blkid', ['-p', '-o', 'export', '--', node]), partitioned);
    if (found.kind !== 'blank') return found;
    for (const range of signatureRanges(size)) {
      const {status} = await ask('dd', [`if=${node}`, 'of=/dev/null', 'bs=1M', ...range, 'status=none']);
      if (status !== 0) return unknown('it cannot be read');
    }
    return found;
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    return unknown([error.message, ...error.details].join(': '));
  }
}

/** Mebibytes at each end of a disk that have all that libblkid reads: LUKS has headers up to 4 MiB, RAID near the end. */
const searched = 8;

/** The operands of dd(1) for these parts of a disk, in blocks of 1 MiB. @param size bytes. */
function signatureRanges(size: number): string[][] {
  const blocks = Math.floor(size / 1024 ** 2);
  return blocks <= 2 * searched ? [[]] : [[`count=${searched}`], [`skip=${blocks - searched}`]];
}

/** What blkid's answer means. */
function contentsFrom({status, stdout, stderr}: CommandResult, partitioned: boolean): Contents {
  const values = new Map(
    stdout.split('\n').map((line): [string, string] => {
      const [key = '', value = ''] = line.split(/=(.*)/s);
      return [key, value];
    }),
  );
  const data: Contents = {
    kind: 'data',
    type: values.get('TYPE'),
    usage: values.get('USAGE'),
    partitionTable: values.get('PTTYPE') ?? (partitioned ? 'unknown' : undefined),
  };
  if (status === exits.found || status === exits.ambiguous || partitioned) return data;
  const [problem = ''] = stderr.trim().split('\n');
  return status === exits.nothing && problem === ''
    ? {kind: 'blank'}
    : {kind: 'unknown', reason: problem === '' ? `blkid ended with exit code ${status}` : problem};
}

/** What a disk carries, as text: `/dev/nvme1n1 carries a file system (ext4)`. Undefined for a blank disk. */
export function describeContents({
  node,
  contents,
}: Pick<DiskContents, 'node' | 'contents'>): string | undefined {
  switch (contents.kind) {
    case 'blank':
      return undefined;
    case 'unknown':
      return `${node} could not be searched for data: ${contents.reason}`;
    case 'data': {
      const {type, usage, partitionTable} = contents;
      const parts = [
        ...(partitionTable === undefined
          ? []
          : [`a partition table${partitionTable === 'unknown' ? '' : ` (${partitionTable})`}`]),
        ...(type === undefined ? [] : [`${usageWords[usage ?? ''] ?? 'data'} (${type})`]),
      ];
      return `${node} carries ${parts.length === 0 ? 'several signatures' : parts.join(' and ')}`;
    }
  }
}

/** libblkid's usages in words. */
const usageWords: Readonly<Record<string, string>> = {
  filesystem: 'a file system',
  raid: 'a part of RAID, LVM or ZFS',
  crypto: 'encrypted data',
};
