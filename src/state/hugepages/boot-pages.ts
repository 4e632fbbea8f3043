import {ExitCode, PearasysError} from '../../host/errors.js';
import {machinePools, pageSizeOf, poolFolder, type PoolNode} from '../../devices/memory/huge-pages.js';
import {printSize} from '../../devices/memory/size.js';

/** Which nodes a number of pages is for: `each` for each NUMA node that the machine has at boot. */
export type NodeChoice = PoolNode | 'each';

/** How many pages of one size are allocated at boot. */
export interface BootPages {
  readonly node: NodeChoice;
  /** Bytes of one page. */
  readonly pageSize: number;
  readonly pages: number;
}

/** The file that allocates the pages at boot, see tmpfiles.d(5). */
export const bootPagesPath = '/etc/tmpfiles.d/pearasys-hugepages.conf';

const header = [
  '# Written by `pearasys hugepages set`: allocates huge pages at boot, see tmpfiles.d(5).',
  '# w! applies only at boot: later runs of systemd-tmpfiles do not change the pages of a running system.',
  '# To undo: pearasys hugepages clear',
];

const line = /^w! (\/sys\/\S+)\/(hugepages-\d+kB)\/nr_hugepages - - - - (\d{1,12})$/;

/**
 * Reads {@link bootPagesPath}.
 * @throws PearasysError `bad-settings` for a line that this version did not write.
 */
export function parseBootPages(text: string): BootPages[] {
  return text.split('\n').flatMap((words, index): BootPages[] => {
    if (words === '' || words.startsWith('#')) return [];
    const [, folder = '', name = '', digits = ''] = line.exec(words) ?? [];
    const pageSize = pageSizeOf(name);
    const node = nodeOf(folder);
    if (pageSize === undefined || node === undefined)
      throw new PearasysError({
        code: 'bad-settings',
        exitCode: ExitCode.refused,
        message: `${bootPagesPath}: invalid line ${index + 1}: expected a line as pearasys writes it`,
        details: ['nothing was changed'],
        hint: `move what you have added to another file of /etc/tmpfiles.d, or remove ${bootPagesPath}`,
      });
    return [{node, pageSize, pages: Number(digits)}];
  });
}

function nodeOf(folder: string): NodeChoice | undefined {
  if (folder === machinePools) return 'machine';
  const digits = /^\/sys\/devices\/system\/node\/node(\*|\d{1,6})\/hugepages$/.exec(folder)?.[1];
  return digits === undefined ? undefined : digits === '*' ? 'each' : Number(digits);
}

/** The text of {@link bootPagesPath}. */
export function printBootPages(list: readonly BootPages[]): string {
  const lines = list.map(
    ({node, pageSize, pages}) => `w! ${poolFolder(node, pageSize)}/nr_hugepages - - - - ${pages}`,
  );
  return [...header, ...lines, ''].join('\n');
}

/** How many pages a pool gets at boot; undefined if nothing is set for it. */
export function pagesAtBoot(
  list: readonly BootPages[],
  {node, pageSize}: {readonly node: PoolNode; readonly pageSize: number},
): number | undefined {
  return list.find(
    (one) => one.pageSize === pageSize && (one.node === node || (one.node === 'each' && node !== 'machine')),
  )?.pages;
}

/**
 * The list with these numbers instead of the former ones of the same size and nodes. systemd-tmpfiles applies a pattern
 * after the paths without one, so a size has either a line for each node or one for all.
 * @param nodes the nodes that the machine has, for a size with one line for all of them.
 */
export function withBootPages(
  list: readonly BootPages[],
  changes: readonly BootPages[],
  nodes: readonly number[],
): BootPages[] {
  const result = changes.reduce<readonly BootPages[]>((all, change) => {
    if (change.node === 'each' || change.node === 'machine')
      return [...all.filter(({pageSize}) => pageSize !== change.pageSize), change];
    const others = all.flatMap((one) =>
      one.node === 'each' && one.pageSize === change.pageSize ? nodes.map((node) => ({...one, node})) : [one],
    );
    return [
      ...others.filter(({node, pageSize}) => pageSize !== change.pageSize || node !== change.node),
      change,
    ];
  }, list);
  return [...result].sort((a, b) => a.pageSize - b.pageSize || (Number(a.node) || 0) - (Number(b.node) || 0));
}

/** The number as text: `512 pages of 2M`. */
export function pagesInWords(pages: number, pageSize: number): string {
  return `${pages} ${pages === 1 ? 'page' : 'pages'} of ${printSize(pageSize)}`;
}
