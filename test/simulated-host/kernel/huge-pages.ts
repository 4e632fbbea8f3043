import type {HugePagesDeclaration} from '../declaration.js';
import {Errno} from '../errno.js';
import {wholeNumber} from './input.js';
import type {SimulatedMachine} from './machine.js';

/** Pages of one size on one node. */
interface Pool {
  readonly folder: string;
  readonly node: number | undefined;
  readonly size: number;
  readonly room: number;
  pages: number;
  used: number;
  surplus: number;
  reserved: number;
}

const machineFolder = '/sys/kernel/mm/hugepages';

/** The kernel's huge pages, as mm/hugetlb.c counts them. */
export class HugePagePools {
  readonly #machine: SimulatedMachine;
  readonly #pools: readonly Pool[];

  constructor(machine: SimulatedMachine, declared: readonly HugePagesDeclaration[]) {
    this.#machine = machine;
    this.#pools = declared.map(
      ({node, size, pages = 0, used = 0, surplus = 0, reserved = 0, room = Infinity}) => ({
        folder: `${node === undefined ? machineFolder : `/sys/devices/system/node/node${node}/hugepages`}/hugepages-${size}kB`,
        node,
        size,
        room,
        pages,
        used,
        surplus,
        reserved,
      }),
    );
  }

  /** Builds the files; nothing for a kernel without huge pages. */
  build(): void {
    const {tree} = this.#machine;
    if (this.#pools.length === 0) return;
    const nodes = [...new Set(this.#pools.flatMap(({node}) => (node === undefined ? [] : [node])))];
    if (nodes.length > 0) tree.file('/sys/devices/system/node/has_memory', `${nodes.join(',')}\n`);
    tree.file(
      '/proc/meminfo',
      `MemTotal:       16384000 kB\nMemFree:        12288000 kB\nMemAvailable:   14336000 kB\nHugepagesize:       2048 kB\n`,
    );
    this.#render();
  }

  /** A process takes free pages, or returns pages for a negative number. */
  use(node: number, size: number, pages: number): void {
    const pool = this.#pools.find((one) => one.node === node && one.size === size);
    if (pool === undefined || pool.pages - pool.used < pages) throw new Error('no such free pages');
    pool.used += pages;
    // Surplus pages are freed with their last use.
    const freed = pages < 0 ? Math.min(pool.surplus, -pages) : 0;
    pool.surplus -= freed;
    pool.pages -= freed;
    this.#render();
  }

  /** set_max_huge_pages(): success, however many it could allocate. */
  setPages(folder: string, value: string): void {
    const pool = this.#pools.find((one) => one.folder === folder);
    // Of all nodes together: nothing that is tested writes it.
    if (pool === undefined) throw new Errno('EINVAL');
    const wanted = wholeNumber(value);
    const set = () => pool.pages - pool.surplus;
    if (wanted > set()) {
      const adopted = Math.min(pool.surplus, wanted - set());
      pool.surplus -= adopted;
      pool.pages += Math.max(0, Math.min(wanted - set(), pool.room - pool.pages));
    } else {
      const alike = this.#pools.filter(({size}) => size === pool.size);
      const free = alike.reduce((sum, one) => sum + one.pages - one.used - one.reserved, 0);
      const freed = Math.max(0, Math.min(set() - wanted, pool.pages - pool.used, free));
      pool.pages -= freed;
      pool.surplus += set() - wanted;
    }
    this.#render();
  }

  #render(): void {
    const {tree} = this.#machine;
    const put = (folder: string, pools: readonly Pool[]) => {
      const sum = (of: (pool: Pool) => number) => pools.reduce((total, pool) => total + of(pool), 0);
      tree.file(`${folder}/nr_hugepages`, `${sum(({pages}) => pages)}\n`, 0o644);
      tree.file(`${folder}/free_hugepages`, `${sum(({pages, used}) => pages - used)}\n`);
      tree.file(`${folder}/surplus_hugepages`, `${sum(({surplus}) => surplus)}\n`);
      return sum;
    };
    for (const size of new Set(this.#pools.map((pool) => pool.size))) {
      const alike = this.#pools.filter((pool) => pool.size === size);
      const folder = `${machineFolder}/hugepages-${size}kB`;
      const sum = put(folder, alike);
      tree.file(`${folder}/resv_hugepages`, `${sum(({reserved}) => reserved)}\n`);
    }
    for (const pool of this.#pools) if (pool.node !== undefined) put(pool.folder, [pool]);
  }
}
