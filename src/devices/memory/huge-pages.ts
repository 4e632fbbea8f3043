import type {HostReader} from '../../host/host.js';

/** A NUMA node; `machine` on a kernel without nodes, whose huge pages belong to the whole machine. */
export type PoolNode = number | 'machine';

/** The kernel's huge pages of one size on one NUMA node. */
export interface PagePool {
  readonly node: PoolNode;
  /** Bytes of one page. */
  readonly pageSize: number;
  /** The folder of its attributes. */
  readonly folder: string;
  /** All pages that exist, including {@link surplus}. */
  readonly pages: number;
  readonly free: number;
  /** Pages beyond the number that was set: the kernel frees each of them when its process does. */
  readonly surplus: number;
}

/** All huge pages. */
export interface HugePages {
  /** By page size, then by node. Empty on a kernel without huge pages. */
  readonly pools: readonly PagePool[];
  /** Bytes of a page for whoever names no size; undefined on a kernel without huge pages. */
  readonly defaultSize: number | undefined;
  /** Free pages that processes have reserved and not used yet, by page size. The kernel counts them for all nodes together. */
  readonly reserved: ReadonlyMap<number, number>;
}

/** The kernel's folder of all huge pages, without regard to nodes. */
export const machinePools = '/sys/kernel/mm/hugepages';

const nodesFolder = '/sys/devices/system/node';

/** The folder of a pool. @param node `each` makes a pattern, see glob(7). */
export function poolFolder(node: PoolNode | 'each', pageSize: number): string {
  const name = `hugepages-${pageSize / 1024}kB`;
  if (node === 'machine') return `${machinePools}/${name}`;
  return `${nodesFolder}/node${node === 'each' ? '*' : node}/hugepages/${name}`;
}

/** Bytes of a page, from the name of a pool's folder. */
export function pageSizeOf(name: string): number | undefined {
  const kilobytes = /^hugepages-([1-9]\d{0,9})kB$/.exec(name)?.[1];
  return kilobytes === undefined ? undefined : Number(kilobytes) * 1024;
}

/** The NUMA nodes that have memory, in order; empty on a kernel without nodes. */
export function readMemoryNodes(host: HostReader): number[] {
  const nodes = host
    .list(nodesFolder)
    .map((name) => /^node(\d+)$/.exec(name)?.[1])
    .filter((digits) => digits !== undefined)
    .map(Number)
    .filter((node) => host.exists(`${nodesFolder}/node${node}/hugepages`))
    .sort((a, b) => a - b);
  const listed = host.readText(`${nodesFolder}/has_memory`);
  if (listed === undefined) return nodes;
  const ranges = listed.split(',').map((range) => range.split('-').map(Number));
  return nodes.filter((node) => ranges.some(([first = -1, last = first]) => first <= node && node <= last));
}

/** Reads all huge pages. */
export function readHugePages(host: HostReader): HugePages {
  const nodes: readonly PoolNode[] = readMemoryNodes(host);
  const sizes = host
    .list(machinePools)
    .map(pageSizeOf)
    .filter((size) => size !== undefined)
    .sort((a, b) => a - b);
  const pools = sizes.flatMap((pageSize) =>
    (nodes.length === 0 ? ['machine' as const] : nodes).flatMap((node) => {
      const pool = readPool(host, node, pageSize);
      return pool === undefined ? [] : [pool];
    }),
  );
  return {
    pools,
    defaultSize: readDefaultPageSize(host),
    reserved: new Map(
      sizes.map((size) => [size, readNumber(host, `${poolFolder('machine', size)}/resv_hugepages`) ?? 0]),
    ),
  };
}

/** Bytes of a page for whoever names no size; undefined on a kernel without huge pages, and for an image. */
export function readDefaultPageSize(host: HostReader): number | undefined {
  return readMemory(host, 'Hugepagesize');
}

/** One pool; undefined if there is none. */
export function readPool(host: HostReader, node: PoolNode, pageSize: number): PagePool | undefined {
  const folder = poolFolder(node, pageSize);
  const pages = readNumber(host, `${folder}/nr_hugepages`);
  if (pages === undefined) return undefined;
  return {
    node,
    pageSize,
    folder,
    pages,
    free: readNumber(host, `${folder}/free_hugepages`) ?? 0,
    surplus: readNumber(host, `${folder}/surplus_hugepages`) ?? 0,
  };
}

/** The pages that were set, without those that the kernel frees by itself. */
export function pagesSet({pages, surplus}: PagePool): number {
  return Math.max(0, pages - surplus);
}

/** Bytes that the kernel can give to a process without swapping; undefined where it does not tell. */
export function readAvailable(host: HostReader): number | undefined {
  return readMemory(host, 'MemAvailable');
}

/**
 * Bytes of the largest block that the kernel's allocator keeps: /proc/buddyinfo has a column for each power of two of base
 * pages. Larger pages are put together from free memory that happens to be contiguous. Undefined if that is not known.
 */
export function readLargestBlock(host: HostReader): number | undefined {
  const columns = /^Node +\d+, +zone +\S+((?: +\d+)+)/m.exec(host.readText('/proc/buddyinfo') ?? '')?.[1];
  const base = readBasePageSize(host);
  if (columns === undefined || base === undefined) return undefined;
  return base * 2 ** (columns.trim().split(/ +/).length - 1);
}

/** AT_PAGESZ, see getauxval(3). */
const pageSizeEntry = 6n;

/** Bytes of an ordinary page, from the entries that the kernel gives each process: a type and a value each. */
function readBasePageSize(host: HostReader): number | undefined {
  const bytes = host.readBytes('/proc/self/auxv') ?? Buffer.alloc(0);
  for (let at = 0; at + 16 <= bytes.length; at += 16)
    if (bytes.readBigUInt64LE(at) === pageSizeEntry) return Number(bytes.readBigUInt64LE(at + 8));
  return undefined;
}

function readMemory(host: HostReader, key: string): number | undefined {
  const text = host.readText('/proc/meminfo') ?? '';
  const kilobytes = new RegExp(`^${key}:\\s*(\\d+) kB$`, 'm').exec(text)?.[1];
  return kilobytes === undefined ? undefined : Number(kilobytes) * 1024;
}

function readNumber(host: HostReader, path: string): number | undefined {
  const text = host.readText(path)?.trim() ?? '';
  return /^\d+$/.test(text) ? Number(text) : undefined;
}
