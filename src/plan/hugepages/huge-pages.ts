import {ExitCode} from '../../host/errors.js';
import type {FileOwner, HostReader} from '../../host/host.js';
import {shellWord} from '../../host/shell.js';
import {readGroups, readUsers, type Accounts} from '../../config/accounts.js';
import {
  pagesSet,
  readAvailable,
  readHugePages,
  readLargestBlock,
  readMemoryNodes,
  type HugePages,
  type PagePool,
} from '../../devices/memory/huge-pages.js';
import {parseSize, printSize} from '../../devices/memory/size.js';
import {
  bootPagesPath,
  pagesInWords,
  parseBootPages,
  printBootPages,
  withBootPages,
  type BootPages,
} from '../../state/hugepages/boot-pages.js';
import {
  mountUnitLink,
  mountUnitPath,
  parseMountUnit,
  printMountUnit,
  readPageMounts,
  type PageMount,
} from '../../state/hugepages/mount-units.js';
import {
  changeNodeAccess,
  folderMode,
  parseAccount,
  type NodeAccess,
  type NodeAccessChange,
} from '../../state/records/node-access.js';
import {mountUnitName} from '../../systemd/unit.js';
import {readMounts} from '../../usage/mounts.js';
import {readPageUsers, type PageUser} from '../../usage/page-users.js';
import {describePageUser} from '../../usage/words.js';
import {numberOf} from '../service/access.js';
import {
  makeLink,
  plan,
  readFileState,
  refuse,
  removeFile,
  removeLink,
  setOwner,
  systemctl,
  writeAttribute,
  writeFile,
  type ExpectHugePagesStep,
  type FileState,
  type PoolTarget,
  type Planned,
  type Refusal,
  type Step,
} from '../step.js';

/** The lock for huge pages: their numbers, the file for the boot, the mounts. */
export const hugePagesLock = 'hugepages';

/** How many pages a node shall have. */
export interface PageCount {
  /** A NUMA node; undefined for each node that has memory. */
  readonly node: number | undefined;
  readonly pages: number;
}

/** What `hugepages set` and `userspace config` want. */
export interface HugePagesRequest {
  /** Bytes of one page; undefined for the kernel's default. */
  readonly pageSize: number | undefined;
  /** Nodes that are not named stay as they are. */
  readonly counts: readonly PageCount[];
  /** Whether a node that has more pages keeps them. */
  readonly keepMore: boolean;
  /** Whether the unused pages of the kernel's default size are freed first, on all nodes: as with SPDK. */
  readonly clear: boolean;
  /** Whether it is enough to get some of the pages; otherwise the plan fails and is undone. */
  readonly partial: boolean;
  /** Whether the numbers apply at each boot too. */
  readonly persistent: boolean;
  /** Where the pages are mounted, at each boot; undefined for no mount. */
  readonly mount: string | undefined;
  /** Who may create files in that mount; default no change. */
  readonly mountAccess?: NodeAccessChange | undefined;
}

/** What `hugepages clear` frees. */
export interface ClearRequest {
  /** Bytes of one page; empty for all sizes. */
  readonly pageSizes: readonly number[];
  /** NUMA nodes; empty for all nodes and the mounts. */
  readonly nodes: readonly number[];
}

/** A mounted file system of huge pages. */
export interface MountedPages extends PageMount {
  /** Names of files in it, which keep pages whether or not a process uses them. */
  readonly files: readonly string[];
}

/** What the planners need to know. */
export interface HugePagesState {
  /** Whether this is the running machine; false for an image. */
  readonly running: boolean;
  readonly huge: HugePages;
  /** The NUMA nodes that have memory; empty on a kernel without nodes, and for an image. */
  readonly nodes: readonly number[];
  /** The processes that use huge pages; read only if some are in use. */
  readonly users: readonly PageUser[];
  /** Bytes that are available without swapping. */
  readonly available: number | undefined;
  /** Bytes of the largest block of the kernel's allocator; undefined if that is not known. */
  readonly largestBlock: number | undefined;
  /** The kernel's command line. */
  readonly commandLine: string;
  /** {@link bootPagesPath}; `foreign` if it is not a file of root. */
  readonly file: FileState | 'foreign' | undefined;
  readonly units: readonly {readonly mount: PageMount; readonly file: FileState; readonly linked: boolean}[];
  /** What is mounted now. */
  readonly mounted: readonly MountedPages[];
  /** The folder of the request's mount: what is there; undefined without such a request. */
  readonly target: MountTarget | undefined;
}

/** What is at the path of a mount. */
export interface MountTarget {
  /** The kind of file; undefined if nothing is there. */
  readonly kind: string | undefined;
  readonly empty: boolean;
  /** The type of the file system that is mounted exactly there. */
  readonly type: string | undefined;
  readonly owner: FileOwner;
  /** Permission bits. */
  readonly mode: number;
  /** The unit's file; `foreign` if pearasys did not write it. */
  readonly unit: FileState | 'foreign' | undefined;
  readonly linked: boolean;
  readonly users: Accounts;
  readonly groups: Accounts;
}

/** Reads {@link HugePagesState}. @param mount the folder of the request's mount. */
export function readHugePagesState(host: HostReader, mount?: string): HugePagesState {
  const running = host.root === '/';
  const mounted = running ? readMountedPages(host) : [];
  const huge: HugePages = running
    ? readHugePages(host)
    : {pools: [], defaultSize: undefined, reserved: new Map()};
  return {
    running,
    huge,
    users: isUsed(huge) ? readPageUsers(host) : [],
    nodes: running ? readMemoryNodes(host) : [],
    available: running ? readAvailable(host) : undefined,
    largestBlock: running ? readLargestBlock(host) : undefined,
    commandLine: running ? (host.readText('/proc/cmdline') ?? '') : '',
    file: readOwn(host, bootPagesPath),
    units: readPageMounts(host).flatMap((one) => {
      const file = readFileState(host, mountUnitPath(one));
      const linked = host.readLink(mountUnitLink(one)) !== undefined;
      return file === undefined ? [] : [{mount: one, file, linked}];
    }),
    mounted,
    target: mount === undefined ? undefined : readTarget(host, mount, running),
  };
}

/** Whether any page is in use or reserved. */
function isUsed({pools, reserved}: HugePages): boolean {
  return pools.some(({pages, free}) => pages > free) || [...reserved.values()].some((pages) => pages > 0);
}

function readOwn(host: HostReader, path: string): FileState | 'foreign' | undefined {
  const state = readFileState(host, path);
  return state === undefined && host.info(path, false) !== undefined ? 'foreign' : state;
}

/** The mounted file systems of huge pages. */
export function readMountedPages(host: HostReader): MountedPages[] {
  return readMounts(host)
    .filter(({type}) => type === 'hugetlbfs')
    .flatMap(({target, options}) => {
      const size = /(?:^|,)pagesize=(\d+[KMGT])/.exec(options)?.[1];
      return size === undefined ? [] : [{where: target, pageSize: parseSize(size), files: host.list(target)}];
    });
}

function readTarget(host: HostReader, where: string, running: boolean): MountTarget {
  const path = mountUnitPath({where});
  const unit = readOwn(host, path);
  const {kind, uid = 0, gid = 0, mode = 0} = host.info(where) ?? {};
  return {
    kind,
    owner: {uid, gid},
    mode,
    empty: host.list(where).length === 0,
    // The last of several mounts on one folder is the visible one.
    type: running
      ? readMounts(host)
          .filter(({target}) => target === where)
          .at(-1)?.type
      : undefined,
    unit:
      unit === undefined || unit === 'foreign' || parseMountUnit(unit.content) !== undefined
        ? unit
        : 'foreign',
    linked: host.readLink(mountUnitLink({where})) !== undefined,
    users: readUsers(host),
    groups: readGroups(host),
  };
}

/**
 * The plan that allocates huge pages, has them allocated at each boot, and mounts them. No page is taken from a process
 * that uses it or has reserved it.
 */
export function planHugePages(request: HugePagesRequest, state: HugePagesState): Planned {
  const pageSize = request.pageSize ?? state.huge.defaultSize;
  if (pageSize === undefined)
    return refused(
      state.running ? 'this kernel has no huge pages' : 'the default page size of an image is not known',
      state.running ? undefined : 'name the size of the pages: 4G:2M',
    );
  const unknown = state.running ? refuseUnknown(request, pageSize, state) : undefined;
  if (unknown !== undefined) return unknown;
  const {cleared, before, targets} = changesOf(request, pageSize, state);
  const refusal =
    refuseInUse(targets, pageSize, state) ??
    (request.partial ? undefined : refuseWithoutMemory(targets, request, state));
  if (refusal !== undefined) return refusal;
  const changes = targets.filter(({pool, pages}) => pages !== (before.get(pool) ?? pagesSet(pool)));
  // Pages that are freed first can be allocated on another node, or in another size.
  const ordered = [...changes].sort((a, b) => growth(a) - growth(b));
  const writes = [
    ...cleared.steps.map(({pool, pages}) => setPages(pool, pages, pagesSet(pool))),
    ...ordered.map(({pool, pages}) => setPages(pool, pages, before.get(pool) ?? pagesSet(pool))),
  ];
  const grown = ordered.filter(({pool, pages}) => pages > (before.get(pool) ?? pagesSet(pool)));
  const file = request.persistent ? planFile(bootPagesOf(request, pageSize, state), state) : [];
  if ('kind' in file) return file;
  const mount =
    request.mount === undefined
      ? []
      : planMount({where: request.mount, pageSize}, request.mountAccess, state);
  if ('kind' in mount) return mount;
  return plan(
    [...writes, ...(grown.length === 0 ? [] : [expectPages(grown, request.partial)]), ...file, ...mount],
    {
      notes: [...keptNotes(cleared.kept), ...gigantic(request, pageSize, targets, state)],
      afterUndo: mount.length > 0 && state.running ? [systemctl(['daemon-reload'])] : [],
    },
  );
}

/**
 * The plan that frees unused huge pages, and undoes `hugepages set`. Pages in use stay, with a note; the kernel frees
 * them when nothing needs them any more only if they are surplus, so they count as set.
 */
export function planClearHugePages(request: ClearRequest, state: HugePagesState): Planned {
  const isMeant = (pageSize: number) =>
    request.pageSizes.length === 0 || request.pageSizes.includes(pageSize);
  const isMeantNode = (node: BootPages['node']) =>
    request.nodes.length === 0 || (typeof node === 'number' && request.nodes.includes(node));
  const unknown = state.running ? refuseUnknownNodes(request.nodes, state) : undefined;
  if (unknown !== undefined) return unknown;
  const {steps, kept} = clearSteps(
    state.huge.pools.filter(({node, pageSize}) => isMeant(pageSize) && isMeantNode(node)),
    state.huge,
  );
  const list = readList(state);
  if ('kind' in list) return list;
  const split = request.nodes.length === 0 ? list : splitNodes(list, state);
  if ('kind' in split) return split;
  const rest = split.filter(({node, pageSize}) => !isMeant(pageSize) || !isMeantNode(node));
  const mounts =
    request.nodes.length > 0
      ? []
      : planUnmounts(
          state.units.filter((one) => isMeant(one.mount.pageSize)),
          state,
        );
  if ('kind' in mounts) return mounts;
  const writes = steps.map(({pool, pages}) => setPages(pool, pages, pagesSet(pool)));
  const file = rest.length === split.length ? [] : rewrite(rest, state);
  return plan([...mounts, ...file, ...writes], {
    notes: keptNotes(kept),
    afterUndo: mounts.length > 0 && state.running ? [systemctl(['daemon-reload'])] : [],
  });
}

/** What is freed first, how many pages the pools have then, and how many they shall have in the end. */
function changesOf(request: HugePagesRequest, pageSize: number, state: HugePagesState) {
  const cleared = clearFirst(request, state.huge);
  const before = new Map(cleared.steps.map(({pool, pages}) => [pool, pages]));
  return {cleared, before, targets: targetsOf(request, pageSize, state, before)};
}

/** How many bytes of huge pages there are when {@link planHugePages} is carried out; undefined if it is refused. */
export function bytesAfter(request: HugePagesRequest, state: HugePagesState): number | undefined {
  const pageSize = request.pageSize ?? state.huge.defaultSize;
  if (pageSize === undefined || planHugePages(request, state).kind === 'refusal') return undefined;
  const {before, targets} = changesOf(request, pageSize, state);
  const changed = new Map([...before, ...targets.map(({pool, pages}) => [pool, pages] as const)]);
  return state.huge.pools.reduce(
    (sum, pool) =>
      sum + (pool.pages + (changed.get(pool) ?? pagesSet(pool)) - pagesSet(pool)) * pool.pageSize,
    0,
  );
}

/** A pool, and how many pages it shall have. */
interface Target {
  readonly pool: PagePool;
  readonly pages: number;
}

/** @param before how many pages the pools have that are cleared first. */
function targetsOf(
  request: HugePagesRequest,
  pageSize: number,
  {huge}: HugePagesState,
  before: ReadonlyMap<PagePool, number>,
): Target[] {
  return huge.pools
    .filter((pool) => pool.pageSize === pageSize)
    .flatMap((pool) => {
      const count =
        request.counts.find(({node}) => node === pool.node) ??
        request.counts.find(({node}) => node === undefined);
      if (count === undefined) return [];
      const least = request.keepMore ? (before.get(pool) ?? pagesSet(pool)) : 0;
      return [{pool, pages: Math.max(count.pages, least)}];
    });
}

function growth({pool, pages}: Target): number {
  return pages - pagesSet(pool);
}

function refused(message: string, hint?: string): Refusal {
  return refuse({
    code: 'bad-settings',
    exitCode: ExitCode.refused,
    message,
    details: ['nothing was changed'],
    ...(hint === undefined ? {} : {hint}),
  });
}

function refuseUnknown(
  request: HugePagesRequest,
  pageSize: number,
  state: HugePagesState,
): Refusal | undefined {
  const {pools} = state.huge;
  if (!pools.some((pool) => pool.pageSize === pageSize)) {
    const sizes = [...new Set(pools.map((pool) => printSize(pool.pageSize)))].join(', ');
    return refused(
      `this machine has no huge pages of ${printSize(pageSize)}`,
      sizes === '' ? 'its kernel has no huge pages' : `it has pages of ${sizes}`,
    );
  }
  return refuseUnknownNodes(
    request.counts.flatMap(({node}) => (node === undefined ? [] : [node])),
    state,
  );
}

function refuseUnknownNodes(named: readonly number[], {nodes}: HugePagesState): Refusal | undefined {
  const unknown = named.find((node) => !nodes.includes(node));
  return unknown === undefined
    ? undefined
    : refused(
        `there is no NUMA node ${unknown} with memory`,
        nodes.length === 0 ? 'omit --node' : `the nodes with memory are ${nodes.join(', ')}`,
      );
}

/** What a request frees before it allocates. */
function clearFirst({clear}: HugePagesRequest, huge: HugePages): ReturnType<typeof clearSteps> {
  return clearSteps(
    huge.pools.filter(({pageSize}) => clear && pageSize === huge.defaultSize),
    huge,
  );
}

/**
 * How far pools can be reduced: a page in use would turn into a surplus page, which the process could not get again,
 * and a reserved page would be missing when its process first writes to it.
 */
function clearSteps(
  pools: readonly PagePool[],
  huge: HugePages,
): {readonly steps: readonly Target[]; readonly kept: readonly Target[]} {
  const unused = new Map(huge.pools.map(({pageSize}) => [pageSize, unusedPages(huge, pageSize)]));
  const floors = pools.map((pool): Target => {
    const left = unused.get(pool.pageSize) ?? 0;
    const freed = Math.min(pool.free, pagesSet(pool), left);
    unused.set(pool.pageSize, left - freed);
    return {pool, pages: pagesSet(pool) - freed};
  });
  return {
    steps: floors.filter(({pool, pages}) => pages !== pagesSet(pool)),
    kept: floors.filter(({pages}) => pages > 0),
  };
}

/** Free pages of a size that no process has reserved. */
function unusedPages({pools, reserved}: HugePages, pageSize: number): number {
  const free = pools.filter((pool) => pool.pageSize === pageSize).reduce((sum, pool) => sum + pool.free, 0);
  return Math.max(0, free - (reserved.get(pageSize) ?? 0));
}

function keptNotes(kept: readonly Target[]): string[] {
  return kept.map(
    ({pool, pages}) =>
      `${nodeInWords(pool)}: ${pagesInWords(pages, pool.pageSize)} stay, because they are in use or reserved`,
  );
}

/** A pool's node, for messages. */
export function nodeInWords({node}: Pick<PagePool, 'node'>): string {
  return node === 'machine' ? 'this machine' : `NUMA node ${node}`;
}

function refuseInUse(
  targets: readonly Target[],
  pageSize: number,
  {huge, users}: HugePagesState,
): Refusal | undefined {
  const lowered = targets.filter((target) => growth(target) < 0);
  const taken = lowered.find((target) => -growth(target) > target.pool.free);
  const hint = 'end the processes that use them, or set at least as many';
  if (taken !== undefined) {
    const {pool} = taken;
    return refuseUse(
      `${nodeInWords(pool)}: ${pagesInWords(pool.pages - pool.free, pageSize)} are in use, more than the ${taken.pages} requested`,
      hint,
      users,
    );
  }
  const unused = unusedPages(huge, pageSize);
  const freed = lowered.reduce((sum, target) => sum - growth(target), 0);
  if (freed <= unused) return undefined;
  return refuseUse(
    `only ${pagesInWords(unused, pageSize)} can be freed, not ${freed}: processes have reserved the others`,
    hint,
    users,
  );
}

function refuseUse(message: string, hint: string, users: readonly PageUser[] = []): Refusal {
  return refuse({
    code: 'in-use',
    exitCode: ExitCode.refused,
    message,
    details: [...users.map(describePageUser), 'nothing was changed'],
    hint,
  });
}

function refuseWithoutMemory(
  targets: readonly Target[],
  request: HugePagesRequest,
  {available, huge}: HugePagesState,
): Refusal | undefined {
  const final = new Map<PagePool, number>(
    [...clearFirst(request, huge).steps, ...targets].map(({pool, pages}) => [pool, pages] as const),
  );
  const needed = [...final].reduce((sum, [pool, pages]) => sum + (pages - pagesSet(pool)) * pool.pageSize, 0);
  if (available === undefined || needed <= available) return undefined;
  return refuse({
    code: 'no-memory',
    exitCode: ExitCode.refused,
    message: `these huge pages need ${inMegabytes(needed)} more memory, but only ${inMegabytes(available)} is available`,
    details: ['nothing was changed'],
    hint: 'fewer nodes or a smaller SIZE, which is per node; --partial allocates what is possible',
  });
}

function inMegabytes(bytes: number): string {
  return `${Math.ceil(bytes / 1024 ** 2)}M`;
}

function setPages(pool: PagePool, pages: number, previous: number): Step {
  const path = `${pool.folder}/nr_hugepages`;
  const restored = {pool, pages: previous};
  return writeAttribute(path, String(pages), {
    undo: [
      writeAttribute(path, String(previous)),
      // The memory of freed pages may be in use, or in pieces, by then.
      ...(pages < previous ? [expectPages([restored], false)] : []),
    ],
  });
}

function expectPages(targets: readonly Target[], partial: boolean): ExpectHugePagesStep {
  const wanted = targets.map(({pool: {node, pageSize, folder}, pages}): PoolTarget => ({
    node,
    pageSize,
    folder,
    pages,
  }));
  return {kind: 'expect-huge-pages', wanted, partial, undo: []};
}

/** The smallest size of pages that no kernel's usual allocator has blocks for. */
const giganticSize = 1024 ** 3;

function gigantic(
  request: HugePagesRequest,
  pageSize: number,
  targets: readonly Target[],
  {commandLine, largestBlock}: HugePagesState,
): string[] {
  const size = printSize(pageSize);
  const wanted = request.counts.some(({pages}) => pages > 0);
  const isGigantic = largestBlock === undefined ? pageSize >= giganticSize : pageSize > largestBlock;
  const isReserved = sizesOn(commandLine).includes(pageSize);
  const changes = request.persistent || targets.some((target) => growth(target) > 0);
  if (!isGigantic || !wanted || isReserved || !changes) return [];
  const total = targets.reduce((sum, {pages}) => sum + pages, 0);
  return [
    `pages of ${size} need contiguous memory, which a running system may not have; ` +
      `reserve them on the kernel command line: hugepagesz=${size} hugepages=${total === 0 ? 'N' : total}`,
  ];
}

/** The sizes of pages that the kernel's command line reserves. */
function sizesOn(commandLine: string): number[] {
  return [...commandLine.matchAll(/(?:^|\s)hugepagesz=(\d{1,9}[KM]|\d{1,6}G)(?=\s|$)/gi)].map(
    ([, size = '']) => parseSize(size),
  );
}

function bootPagesOf(
  request: HugePagesRequest,
  pageSize: number,
  {running, nodes}: HugePagesState,
): BootPages[] {
  const all = running && nodes.length === 0 ? 'machine' : 'each';
  return request.counts.map(({node, pages}) => ({node: node ?? all, pageSize, pages}));
}

function readList({file}: HugePagesState): BootPages[] | Refusal {
  if (file === 'foreign') return refuseForeign(bootPagesPath);
  return file === undefined ? [] : parseBootPages(file.content);
}

function refuseForeign(path: string): Refusal {
  return refuse({
    code: 'bad-path',
    exitCode: ExitCode.refused,
    message: `refusing to overwrite ${path}: it was not created by pearasys`,
    details: ['nothing was changed'],
    hint: `move it away: mv ${shellWord(path)} ${shellWord(`${path}.old`)}`,
  });
}

/** The list with a line for each node instead of one for all. */
function splitNodes(list: readonly BootPages[], {nodes}: HugePagesState): readonly BootPages[] | Refusal {
  if (!list.some(({node}) => node === 'each')) return list;
  if (nodes.length === 0)
    return refused(
      `${bootPagesPath} allocates pages on each node, and the nodes of an image are not known`,
      'omit --node',
    );
  return list.flatMap((one) => (one.node === 'each' ? nodes.map((node) => ({...one, node})) : [one]));
}

function planFile(changes: readonly BootPages[], state: HugePagesState): readonly Step[] | Refusal {
  const list = readList(state);
  if ('kind' in list) return list;
  const sizes = new Set(changes.filter(({node}) => typeof node === 'number').map(({pageSize}) => pageSize));
  const split = splitNodes(
    list.filter(({pageSize}) => sizes.has(pageSize)),
    state,
  );
  if ('kind' in split) return split;
  return rewrite(withBootPages(list, changes, state.nodes), state);
}

function rewrite(list: readonly BootPages[], {file}: HugePagesState): Step[] {
  if (file === 'foreign') throw new Error(`${bootPagesPath} is not to be overwritten`);
  if (list.length === 0) return file === undefined ? [] : [removeFile(bootPagesPath, file, {prune: 0})];
  const text = printBootPages(list);
  return text === file?.content ? [] : [writeFile(bootPagesPath, text, file)];
}

/** The mount on a folder: the last of several is the visible one. */
function mountAt(mounted: HugePagesState['mounted'], where: string) {
  return mounted.filter((one) => one.where === where).at(-1);
}

function planMount(
  {where, pageSize}: PageMount,
  change: NodeAccessChange | undefined,
  {running, mounted, target}: HugePagesState,
): readonly Step[] | Refusal {
  const unit = mountUnitName(where);
  const path = mountUnitPath({where});
  const now = mountAt(mounted, where);
  const isMounted = target?.type === 'hugetlbfs' && now?.pageSize === pageSize;
  // Such as systemd's own dev-hugepages.mount.
  if (isMounted && target.unit === undefined)
    return change === undefined
      ? []
      : refuseUse(
          `${where} is mounted by another unit, which gives it its owner at each boot`,
          `name another folder, or add uid= and gid= to the options of that mount: systemctl edit ${shellWord(unit)}`,
        );
  if (target?.unit === 'foreign') return refuseForeign(path);
  if (!isMounted && target?.type !== undefined)
    return refuseUse(
      `${where} already has ${now === undefined ? `a mount of type ${target.type}` : `huge pages of ${printSize(now.pageSize)}`}`,
      'name another folder',
    );
  if (!isMounted && target?.kind !== undefined && (target.kind !== 'directory' || !target.empty))
    return refuseUse(
      target.kind === 'directory'
        ? `${where} is not empty: a mount would hide its files`
        : `${where} is not a folder`,
      'name another folder',
    );
  const access = mountAccess(change, target);
  const mount: PageMount = {where, pageSize, ...(access === undefined ? {} : {access})};
  const text = printMountUnit(mount);
  const files = [
    ...(target?.unit?.content === text ? [] : [writeFile(path, text, target?.unit)]),
    ...(target?.linked === true ? [] : [makeLink(mountUnitLink(mount), path)]),
  ];
  if (!running) return files;
  const start = systemctl(['start', unit], [systemctl(['stop', unit])], `journalctl -b -u '${unit}'`);
  return [
    ...files,
    ...(files.length === 0 ? [] : [systemctl(['daemon-reload'])]),
    ...(isMounted ? (change === undefined ? [] : ownFolder(where, access, target)) : [start]),
  ];
}

/** Who may use the mount: what the unit says, with the change, by number. */
function mountAccess(
  change: NodeAccessChange | undefined,
  target: MountTarget | undefined,
): NodeAccess | undefined {
  const text = typeof target?.unit === 'object' ? target.unit.content : '';
  const before = parseMountUnit(text)?.access;
  const access = change === undefined ? before : changeNodeAccess(before, change);
  if (access === undefined) return undefined;
  const [user, group] = [
    numberOf(access.user, target?.users ?? new Map<string, number>()),
    numberOf(access.group, target?.groups ?? new Map<string, number>()),
  ].map((number) => (number === undefined ? undefined : parseAccount(String(number))));
  return {
    ...(user === undefined ? {} : {user}),
    ...(group === undefined ? {} : {group}),
    mode: access.mode,
  };
}

/** What a new mount would get from its options: the mount that exists does not read them again. */
function ownFolder(where: string, access: NodeAccess | undefined, {owner, mode}: MountTarget): Step[] {
  const wanted = {
    owner: {uid: Number(access?.user ?? 0), gid: Number(access?.group ?? 0)},
    mode: access === undefined ? usualFolderMode : folderMode(access.mode),
  };
  const same = wanted.owner.uid === owner.uid && wanted.owner.gid === owner.gid && wanted.mode === mode;
  return same ? [] : [setOwner(where, wanted, {owner, mode})];
}

/** The mode of a mount whose options name none. */
const usualFolderMode = 0o755;

function planUnmounts(
  units: HugePagesState['units'],
  {running, mounted}: HugePagesState,
): readonly Step[] | Refusal {
  const steps: Step[] = [];
  for (const {mount, file, linked} of units) {
    const path = mountUnitPath(mount);
    const unit = mountUnitName(mount.where);
    const now = mountAt(mounted, mount.where);
    if (now !== undefined && now.files.length > 0)
      return refuseUse(
        `${mount.where} has files, which keep huge pages: ${now.files.slice(0, 5).map(shellWord).join(' ')}${now.files.length > 5 ? ' …' : ''}`,
        'remove them when no program needs them; --node N frees only pages',
      );
    if (running && now !== undefined)
      steps.push(
        systemctl(
          ['stop', unit],
          [systemctl(['start', unit])],
          `fuser -vm ${shellWord(mount.where)} shows what uses it`,
        ),
      );
    if (linked) steps.push(removeLink(mountUnitLink(mount), path));
    steps.push(removeFile(path, file, {prune: 0}));
  }
  return steps.length > 0 && running ? [...steps, systemctl(['daemon-reload'])] : steps;
}
