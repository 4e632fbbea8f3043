import type {HugePagesState, HugePagesRequest, PageCount} from '../hugepages/huge-pages.js';

/** What the variables of SPDK's scripts/setup.sh say about huge pages. */
export interface HugePageVariables {
  /** `HUGEMEM`: megabytes for each node. */
  readonly memory: number | undefined;
  /** `NRHUGE`: pages for each node, instead of the former. */
  readonly pages: number | undefined;
  /** `HUGEPGSZ`: bytes of a page; undefined for the kernel's default. */
  readonly pageSize: number | undefined;
  /** `HUGENODE`: nodes, some with a number of pages of their own, the last of which counts; empty for the first node. */
  readonly nodes: readonly {readonly node: number; readonly pages: number | undefined}[];
  /** `HUGE_EVEN_ALLOC=yes`: pages of the default size are spread over all nodes, after a clear. */
  readonly even: boolean;
  /** `CLEAR_HUGE=yes`: unused pages are freed first. */
  readonly clear: boolean;
  /** `SHRINK_HUGE=yes`: a node that has more pages loses them. */
  readonly shrink: boolean;
  /** `PERSIST_HUGE=yes`: at each boot too. */
  readonly persist: boolean;
}

/** What the variables mean on this machine, with notes on nodes that it does not have: they are ignored, as by SPDK. */
export function requestFor(
  variables: HugePageVariables,
  {nodes, huge}: Pick<HugePagesState, 'nodes' | 'huge'>,
): {readonly request: HugePagesRequest; readonly notes: readonly string[]} {
  const own = variables.even ? undefined : variables.pageSize;
  const pageSize = own ?? huge.defaultSize;
  const count =
    variables.pages ??
    (variables.memory === undefined || pageSize === undefined
      ? undefined
      : Math.ceil((variables.memory * 1024 * 1024) / pageSize));
  const [first] = nodes;
  const wanted: readonly {readonly node: number | undefined; readonly pages: number | undefined}[] =
    nodes.length === 0
      ? [{node: undefined, pages: undefined}]
      : variables.even
        ? nodes.map((node, index) => ({node, pages: share(count, nodes.length, index)}))
        : variables.nodes.length === 0
          ? [{node: first, pages: undefined}]
          : [...new Map(variables.nodes.map((one) => [one.node, one])).values()];
  const counts = wanted.flatMap(({node, pages = count}): PageCount[] =>
    pages === undefined || (node !== undefined && !nodes.includes(node)) ? [] : [{node, pages}],
  );
  return {
    request: {
      pageSize: own,
      counts,
      keepMore: variables.even || !variables.shrink,
      clear: variables.clear || variables.even,
      partial: false,
      persistent: variables.persist,
      mount: undefined,
    },
    notes: wanted
      .map(({node}) => node)
      .filter((node) => node !== undefined && !nodes.includes(node))
      .map((node) => `HUGENODE names node ${node ?? ''}, which this machine does not have: it is ignored`),
  };
}

/** The pages of one of several nodes. The first nodes get what cannot be divided. */
function share(pages: number | undefined, nodes: number, index: number): number | undefined {
  return pages === undefined ? undefined : Math.floor(pages / nodes) + (index < pages % nodes ? 1 : 0);
}
