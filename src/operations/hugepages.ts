import {pagesSet, readHugePages, type PoolNode} from '../devices/memory/huge-pages.js';
import {carryOut, type CarryOutOptions, type Outcome} from '../engine/carry-out.js';
import type {Host, HostReader} from '../host/host.js';
import {
  bytesAfter,
  hugePagesLock,
  nodeInWords,
  planClearHugePages,
  planHugePages,
  readHugePagesState,
  readMountedPages,
  type ClearRequest,
  type HugePagesRequest,
} from '../plan/hugepages/huge-pages.js';
import {
  bootPagesPath,
  pagesAtBoot,
  pagesInWords,
  parseBootPages,
  type BootPages,
} from '../state/hugepages/boot-pages.js';
import {readPageMounts} from '../state/hugepages/mount-units.js';
import {mountUnitName} from '../systemd/unit.js';
import {readPageUsers} from '../usage/page-users.js';
import {describePageUser} from '../usage/words.js';

/**
 * Allocates huge pages, for now or for each boot, and mounts them.
 * @throws PearasysError `in-use` if pages in use would have to be freed; `no-memory`; `bad-settings`; what failed.
 */
export async function setHugePages(
  host: Host,
  request: HugePagesRequest,
  options: CarryOutOptions,
): Promise<Outcome> {
  return await carryOut(
    host,
    [hugePagesLock],
    () => planHugePages(request, readHugePagesState(host, request.mount)),
    options,
  );
}

/** How many bytes of huge pages there will be; undefined if the request is refused. */
export function readBytesAfter(host: HostReader, request: HugePagesRequest): number | undefined {
  return bytesAfter(request, readHugePagesState(host, request.mount));
}

/**
 * Frees unused huge pages, and removes what {@link setHugePages} has set for the boot.
 * @throws PearasysError `in-use` if files in a mount keep pages; what failed.
 */
export async function clearHugePages(
  host: Host,
  request: ClearRequest,
  options: CarryOutOptions,
): Promise<Outcome> {
  return await carryOut(
    host,
    [hugePagesLock],
    () => planClearHugePages(request, readHugePagesState(host)),
    options,
  );
}

/** The huge pages of one size on one node. */
export interface PoolReport {
  /** The NUMA node; null on a kernel without nodes. */
  readonly node: number | null;
  /** Bytes of one page. */
  readonly pageSize: number;
  readonly pages: number;
  readonly free: number;
  /** Pages in use. */
  readonly used: number;
  /** Pages that the kernel frees when their process does. */
  readonly surplus: number;
  /** How many are allocated at boot; null if nothing is set. */
  readonly atBoot: number | null;
}

/** A folder where huge pages are mounted. */
export interface PageMountReport {
  readonly where: string;
  /** Bytes of one page. */
  readonly pageSize: number;
  readonly mounted: boolean;
  /** The unit that pearasys has written for it; null if it was mounted by other means. */
  readonly unit: string | null;
}

/** A process that uses huge pages. */
export interface PageUserReport {
  readonly pid: number;
  readonly command: string;
  /** The systemd unit it runs in; null outside of one. */
  readonly unit: string | null;
  /** Of all sizes and nodes together. */
  readonly bytes: number;
  /** All of this in words. */
  readonly text: string;
}

/** All huge pages, and what is set for the boot. */
export interface HugePagesReport {
  readonly pools: readonly PoolReport[];
  /** Free pages that processes have reserved, by page size: the kernel counts them for all nodes together. */
  readonly reserved: readonly {readonly pageSize: number; readonly pages: number}[];
  readonly mounts: readonly PageMountReport[];
  /** The processes that use huge pages; other users' only for root. */
  readonly users: readonly PageUserReport[];
  /** Settings for nodes or sizes that this machine does not have. */
  readonly elsewhere: readonly BootPages[];
  /** What differs from the settings. */
  readonly notes: readonly string[];
}

/** Reads all huge pages, and what is set for the boot. */
export function readHugePagesReport(host: HostReader): HugePagesReport {
  const {pools, reserved} = readHugePages(host);
  const text = host.readText(bootPagesPath);
  const list = text === undefined ? [] : parseBootPages(text);
  const units = readPageMounts(host);
  const mounted = readMountedPages(host);
  const unitOf = (path: string) => units.find(({where}) => where === path);
  const numberOf = (node: PoolNode) => (node === 'machine' ? null : node);
  return {
    pools: pools.map(({node, pageSize, pages, free, surplus}) => ({
      node: numberOf(node),
      pageSize,
      pages,
      free,
      used: pages - free,
      surplus,
      atBoot: pagesAtBoot(list, {node, pageSize}) ?? null,
    })),
    reserved: [...reserved].map(([pageSize, pages]) => ({pageSize, pages})),
    mounts: [
      ...mounted.map(({where, pageSize}) => ({
        where,
        pageSize,
        mounted: true,
        unit: unitOf(where) === undefined ? null : mountUnitName(where),
      })),
      ...units
        .filter(({where}) => !mounted.some((one) => one.where === where))
        .map(({where, pageSize}) => ({where, pageSize, mounted: false, unit: mountUnitName(where)})),
    ],
    users: readPageUsers(host).map((user) => ({
      pid: user.pid,
      command: user.command,
      unit: user.unit ?? null,
      bytes: user.bytes,
      text: describePageUser(user),
    })),
    elsewhere: list.filter((one) => !pools.some((pool) => pagesAtBoot([one], pool) !== undefined)),
    notes: pools.flatMap((pool) => {
      const wanted = pagesAtBoot(list, pool);
      return wanted === undefined || pagesSet(pool) >= wanted
        ? []
        : [
            `${nodeInWords(pool)} has ${pagesSet(pool)} of the ${pagesInWords(wanted, pool.pageSize)} that are set for each boot`,
          ];
    }),
  };
}
