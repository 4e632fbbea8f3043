import assert from 'node:assert/strict';
import {pagesSet, readHugePages, readMemoryNodes} from '../../src/devices/memory/huge-pages.js';
import {parseSize, printSize} from '../../src/devices/memory/size.js';
import {
  planClearHugePages,
  planHugePages,
  readHugePagesState,
  type HugePagesState,
  type HugePagesRequest,
} from '../../src/plan/hugepages/huge-pages.js';
import {shellLine, type Planned} from '../../src/plan/step.js';
import {
  pagesAtBoot,
  parseBootPages,
  printBootPages,
  withBootPages,
} from '../../src/state/hugepages/boot-pages.js';
import {parseMountUnit, printMountUnit} from '../../src/state/hugepages/mount-units.js';
import {parseAccount} from '../../src/state/records/node-access.js';
import {mountUnitName} from '../../src/systemd/unit.js';
import type {HugePagesDeclaration} from '../simulated-host/declaration.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';

const small = 2 * 1024 ** 2;
const large = 1024 ** 3;
const folder = (node: number, kilobytes = 2048) =>
  `/sys/devices/system/node/node${node}/hugepages/hugepages-${kilobytes}kB`;

describe('sizes of memory', () => {
  for (const [text, bytes] of [
    ['2M', small],
    ['2m', small],
    ['1GiB', large],
    ['64KB', 65_536],
    ['1T', 1024 ** 4],
    ['0', 0],
  ] as const)
    it(`${text} is ${bytes} bytes`, () => assert.equal(parseSize(text), bytes));

  for (const text of ['', '2', '2048', 'M', '-2M', '1.5G', '2 M', '2MM', '2P', '9999999999999M'])
    it(`'${text}' is refused, with an example`, () =>
      assert.throws(() => parseSize(text), {code: 'usage', exitCode: 2}));

  it('are printed with the largest unit that leaves a whole number', () => {
    assert.deepEqual([0, 1024, 1536 * 1024 ** 2, large, 3 * large, 2048 * 1024 ** 4].map(printSize), [
      '0',
      '1K',
      '1536M',
      '1G',
      '3G',
      '2048T',
    ]);
  });
});

describe('the huge pages that are set for the boot', () => {
  const each = {node: 'each', pageSize: small, pages: 512} as const;

  it('are read as they are printed', () => {
    const list = [
      each,
      {node: 1, pageSize: large, pages: 4},
      {node: 'machine', pageSize: 65_536, pages: 0},
    ] as const;
    assert.deepEqual(parseBootPages(printBootPages(list)), list);
    assert.match(
      printBootPages(list),
      /^w! \/sys\/devices\/system\/node\/node\*\/hugepages\/hugepages-2048kB\/nr_hugepages - - - - 512$/m,
    );
    assert.match(printBootPages(list), /# To undo: pearasys hugepages clear/);
  });

  for (const line of [
    'w /sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages - - - - 5',
    'w! /sys/kernel/mm/transparent_hugepage/hugepages-2048kB/nr_hugepages - - - - 5',
    'w! /sys/devices/system/node/node0/hugepages/hugepages-0kB/nr_hugepages - - - - 5',
    'w! /sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages - - - - many',
    'd /run/other',
  ])
    it(`are not rewritten with a line that pearasys did not write: ${line}`, () =>
      assert.throws(() => parseBootPages(`# by hand\n${line}\n`), /invalid line 2/));

  it('for a node take precedence over those for each node, which become lines for each other node', () => {
    const list = withBootPages([each], [{node: 1, pageSize: small, pages: 7}], [0, 1, 2]);
    assert.deepEqual(list, [
      {node: 0, pageSize: small, pages: 512},
      {node: 1, pageSize: small, pages: 7},
      {node: 2, pageSize: small, pages: 512},
    ]);
    assert.equal(pagesAtBoot(list, {node: 1, pageSize: small}), 7);
    assert.equal(pagesAtBoot(list, {node: 1, pageSize: large}), undefined);
  });

  it('for each node replace all lines of their size, and no other', () => {
    const other = {node: 0, pageSize: large, pages: 1};
    assert.deepEqual(withBootPages([{node: 0, pageSize: small, pages: 3}, other], [each], [0, 1]), [
      each,
      other,
    ]);
  });
});

describe('units of mounts', () => {
  for (const [path, name] of [
    ['/mnt/huge', 'mnt-huge.mount'],
    ['/mnt/huge-1G', 'mnt-huge\\x2d1G.mount'],
    ['/srv/a b/.c', 'srv-a\\x20b-.c.mount'],
    ['/é', '\\xc3\\xa9.mount'],
  ] as const)
    it(`${path} is mounted by ${name}`, () => assert.equal(mountUnitName(path), name));

  it('are read as they are printed', () => {
    for (const mount of [
      {where: '/mnt/huge', pageSize: small},
      {where: '/mnt/100%', pageSize: large},
      {where: '/mnt/huge', pageSize: small, access: {user: parseAccount('991')!, mode: 0o660}},
      {where: '/mnt/huge', pageSize: small, access: {group: parseAccount('992')!, mode: 0o640}},
    ]) {
      assert.deepEqual(parseMountUnit(printMountUnit(mount)), mount);
      assert.match(printMountUnit(mount), /# To undo: pearasys hugepages clear/);
    }
  });

  it('of others are none of ours', () =>
    assert.equal(
      parseMountUnit('[Mount]\nWhat=hugetlbfs\nWhere=/mnt/huge\nOptions=pagesize=2M\n'),
      undefined,
    ));
});

describe('the plan for huge pages', () => {
  const hosts: SimulatedHost[] = [];
  afterEach(() => {
    for (const host of hosts.splice(0)) host.dispose();
  });
  /** A machine with two nodes; node 1 has what is said. */
  const machine = (...changes: Partial<HugePagesDeclaration>[]): SimulatedHost => {
    const host = SimulatedHost.standard((declaration) => {
      declaration.hugePages = [0, 1].flatMap((node) =>
        [2048, 1_048_576].map((size) => ({
          node,
          size,
          ...changes.find((one) => (one.node ?? 0) === node && (one.size ?? 2048) === size),
        })),
      );
    });
    hosts.push(host);
    return host;
  };
  const request = (change: Partial<HugePagesRequest> = {}): HugePagesRequest => ({
    pageSize: small,
    counts: [{node: undefined, pages: 16}],
    keepMore: false,
    clear: false,
    partial: false,
    persistent: false,
    mount: undefined,
    ...change,
  });
  const lines = (planned: Planned): string[] => {
    assert.equal(planned.kind, 'plan', planned.kind === 'refusal' ? planned.error.message : '');
    return planned.steps.map(shellLine);
  };
  const refusal = (planned: Planned) => {
    assert.equal(planned.kind, 'refusal');
    return planned.error;
  };
  const planned = (host: SimulatedHost, change?: Partial<HugePagesRequest>) =>
    planHugePages(request(change), readHugePagesState(host, change?.mount));

  it('reads the pools, the nodes with memory and what is reserved', () => {
    const host = machine({pages: 9, used: 2, surplus: 1, reserved: 3});
    const {pools, reserved, defaultSize} = readHugePages(host);
    assert.deepEqual(
      pools.map(({node, pageSize, pages, free}) => [node, pageSize, pages, free]),
      [
        [0, small, 9, 7],
        [1, small, 0, 0],
        [0, large, 0, 0],
        [1, large, 0, 0],
      ],
    );
    assert.equal(pagesSet(pools[0]!), 8);
    assert.equal(reserved.get(small), 3);
    assert.equal(defaultSize, small);
    host.machine.tree.file('/sys/devices/system/node/has_memory', '1-3\n');
    assert.deepEqual(readMemoryNodes(host), [1]);
  });

  it('sets each node, and checks what the kernel could do', () => {
    assert.deepEqual(lines(planned(machine({pages: 16}))), [
      `echo '16' > ${folder(1)}/nr_hugepages`,
      `test "$(cat ${folder(1)}/nr_hugepages)" -ge 16`,
    ]);
    assert.deepEqual(lines(planned(machine({pages: 16}, {node: 1, pages: 16}))), []);
  });

  it('sets only the nodes that are named, and frees pages before it allocates others', () => {
    const host = machine({pages: 3}, {node: 1, pages: 40});
    const counts = [
      {node: 0, pages: 20},
      {node: 1, pages: 5},
    ];
    assert.deepEqual(lines(planned(host, {counts})).slice(0, 2), [
      `echo '5' > ${folder(1)}/nr_hugepages`,
      `echo '20' > ${folder(0)}/nr_hugepages`,
    ]);
    assert.deepEqual(lines(planned(host, {counts: [counts[1]!]})), [`echo '5' > ${folder(1)}/nr_hugepages`]);
  });

  it('counts surplus pages as not set: the kernel frees them by itself', () => {
    const host = machine({pages: 10, used: 10, surplus: 4});
    assert.deepEqual(lines(planned(host, {counts: [{node: 0, pages: 6}]})), []);
    assert.deepEqual(lines(planned(host, {counts: [{node: 0, pages: 8}]})).slice(0, 1), [
      `echo '8' > ${folder(0)}/nr_hugepages`,
    ]);
  });

  it('takes no page from a process that uses it, or has reserved it', () => {
    const used = refusal(planned(machine({pages: 30, used: 20}), {counts: [{node: 0, pages: 19}]}));
    assert.equal(used.code, 'in-use');
    assert.equal(used.exitCode, 3);
    assert.match(used.message, /NUMA node 0: 20 pages of 2M are in use, more than the 19/);
    const reserved = machine({pages: 30, used: 20, reserved: 4});
    assert.match(
      refusal(planned(reserved, {counts: [{node: 0, pages: 20}]})).message,
      /only 6 pages of 2M can be freed, not 10/,
    );
    assert.equal(planned(reserved, {counts: [{node: 0, pages: 24}]}).kind, 'plan');
  });

  it('with keepMore never reduces a node, as SPDK', () => {
    const host = machine({pages: 30});
    assert.deepEqual(lines(planned(host, {keepMore: true})).slice(0, 1), [
      `echo '16' > ${folder(1)}/nr_hugepages`,
    ]);
  });

  it('with clear frees unused pages of the default size on all nodes first, as SPDK', () => {
    const host = machine(
      {pages: 30, used: 2},
      {node: 1, pages: 4},
      {node: 0, size: 1_048_576, pages: 2},
      {node: 1, size: 1_048_576, pages: 1},
    );
    const cleared = [`echo '2' > ${folder(0)}/nr_hugepages`, `echo '0' > ${folder(1)}/nr_hugepages`];
    assert.deepEqual(lines(planned(host, {clear: true, counts: [{node: 0, pages: 16}]})), [
      ...cleared,
      `echo '16' > ${folder(0)}/nr_hugepages`,
      `test "$(cat ${folder(0)}/nr_hugepages)" -ge 16`,
    ]);
    const large1 = {clear: true, pageSize: large, counts: [{node: 0, pages: 3}]};
    assert.deepEqual(lines(planned(host, large1)).slice(0, 3), [
      ...cleared,
      `echo '3' > ${folder(0, 1_048_576)}/nr_hugepages`,
    ]);
  });

  it('is refused without enough memory, unless some pages are enough', () => {
    const much = {counts: [{node: undefined, pages: 4000}]};
    assert.equal(refusal(planned(machine(), much)).code, 'no-memory');
    assert.equal(planned(machine(), {...much, partial: true}).kind, 'plan');
    // What is freed on one node can be used on the other.
    const full = machine({pages: 4000});
    const moved = [
      {node: 0, pages: 0},
      {node: 1, pages: 4000},
    ];
    assert.equal(planned(full, {counts: moved}).kind, 'plan');
  });

  it('is refused for a size or node that the machine does not have', () => {
    assert.match(refusal(planned(machine(), {pageSize: 4 * 1024 ** 2})).hint ?? '', /2M, 1G/);
    assert.match(refusal(planned(machine(), {counts: [{node: 7, pages: 1}]})).hint ?? '', /0, 1/);
    const none = SimulatedHost.standard();
    hosts.push(none);
    assert.match(refusal(planned(none, {pageSize: undefined})).message, /no huge pages/);
  });

  it('says that pages of 1G belong on the kernel command line, unless they are there', () => {
    const notes = (host: SimulatedHost, change: Partial<HugePagesRequest>) => {
      const answer = planned(host, change);
      return answer.kind === 'plan' ? answer.notes : [];
    };
    const ask = {pageSize: large, counts: [{node: undefined, pages: 2}]};
    assert.match(notes(machine(), ask).join(), /hugepagesz=1G hugepages=4/);
    const reserved = machine();
    reserved.machine.tree.file('/proc/cmdline', 'quiet hugepagesz=1G hugepages=4\n');
    assert.deepEqual(notes(reserved, ask), []);
    assert.deepEqual(notes(machine(), {}), []);
  });

  describe('on arm64', () => {
    const kilobytes = 1024;
    const megabytes = 1024 ** 2;

    /** A kernel with pages of these sizes; its allocator has blocks of up to 2^order base pages. */
    function arm(base: number, order: number, sizes: readonly number[], usual: number): SimulatedHost {
      const host = SimulatedHost.standard((declaration) => {
        declaration.hugePages = sizes.map((size) => ({node: 0, size: size / kilobytes}));
      });
      hosts.push(host);
      const {tree} = host.machine;
      const meminfo = host.readText('/proc/meminfo') ?? '';
      tree.file(
        '/proc/meminfo',
        `${meminfo.replace(/(?<=Hugepagesize: +)\d+/, String(usual / kilobytes))}\n`,
      );
      const counts = Array.from({length: order + 1}, () => ' 1').join('');
      tree.file('/proc/buddyinfo', `Node 0, zone      DMA ${counts}\nNode 0, zone   Normal ${counts}\n`);
      const auxv = new BigUint64Array([16n, 255n, 6n, BigInt(base), 0n, 0n]);
      tree.file('/proc/self/auxv', new Uint8Array(auxv.buffer));
      return host;
    }

    const small4 = () =>
      arm(4096, 10, [64 * kilobytes, 2 * megabytes, 32 * megabytes, 1024 * megabytes], 2 * megabytes);
    const small64 = () =>
      arm(65_536, 13, [2 * megabytes, 512 * megabytes, 16 * 1024 * megabytes], 512 * megabytes);

    for (const [name, host, usual, size, count, folderName] of [
      ['64K', small4, '2M', 64 * kilobytes, 1024, 'hugepages-64kB'],
      ['32M', small4, '2M', 32 * megabytes, 2, 'hugepages-32768kB'],
      ['512M', small64, '512M', 512 * megabytes, 1, 'hugepages-524288kB'],
      ['16G', small64, '512M', 16 * 1024 * megabytes, 0, 'hugepages-16777216kB'],
    ] as const)
      it(`sets pages of ${name}, where ${usual} is the default`, () => {
        const machine = host();
        assert.equal(printSize(readHugePages(machine).defaultSize ?? 0), usual);
        const wanted = {pageSize: size, counts: [{node: 0, pages: count}], persistent: true};
        const path = `/sys/devices/system/node/node0/hugepages/${folderName}/nr_hugepages`;
        const said = lines(planned(machine, wanted));
        assert.equal(said.includes(`echo '${count}' > ${path}`), count > 0);
        assert.match(said.join('\n'), new RegExp(`^w! ${path} - - - - ${count}$`, 'm'));
        assert.equal(parseMountUnit(printMountUnit({where: '/mnt/huge', pageSize: size}))?.pageSize, size);
      });

    it('says which sizes there are', () =>
      assert.match(
        refusal(planned(small64(), {pageSize: large})).hint ?? '',
        /it has pages of 2M, 512M, 16G/,
      ));

    it('advises the command line for pages that are larger than the blocks of the allocator', () => {
      const advised = (host: SimulatedHost) =>
        readHugePages(host)
          .pools.map(({pageSize}) => pageSize)
          .filter((pageSize) => {
            const answer = planned(host, {pageSize, counts: [{node: 0, pages: 1}], partial: true});
            return answer.kind === 'plan' && answer.notes.join().includes('kernel command line');
          })
          .map(printSize);
      assert.deepEqual(advised(small4()), ['32M', '1G']);
      assert.deepEqual(advised(small64()), ['16G']);
    });

    it('knows a reservation on the command line in any unit', () => {
      const host = small4();
      host.machine.tree.file('/proc/cmdline', 'quiet hugepagesz=32768K hugepages=2\n');
      const answer = planned(host, {pageSize: 32 * megabytes, counts: [{node: 0, pages: 1}]});
      assert.deepEqual(answer.kind === 'plan' && answer.notes, []);
    });
  });

  it('without NUMA nodes uses the pools of the machine', () => {
    const host = SimulatedHost.standard((declaration) => {
      declaration.hugePages = [{size: 2048, pages: 1}];
    });
    hosts.push(host);
    const path = '/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages';
    const [write, , file] = lines(planned(host, {persistent: true}));
    assert.equal(write, `echo '16' > ${path}`);
    assert.match(file ?? '', new RegExp(`^w! ${path} - - - - 16$`, 'm'));
    assert.match(refusal(planned(host, {counts: [{node: 0, pages: 1}]})).hint ?? '', /omit --node/);
  });

  describe('clear', () => {
    const state = (change: Partial<HugePagesState>): HugePagesState => ({
      ...readHugePagesState(machine({pages: 30, used: 2, reserved: 5}, {node: 1, pages: 4})),
      ...change,
    });
    const everything = {pageSizes: [], nodes: []};

    it('leaves what is in use or reserved, and says so', () => {
      const answer = planClearHugePages(everything, state({}));
      // Of 32 free pages, 5 are reserved.
      assert.deepEqual(lines(answer), [`echo '3' > ${folder(0)}/nr_hugepages`]);
      assert.match(answer.kind === 'plan' ? answer.notes.join('\n') : '', /NUMA node 0: 3 pages of 2M stay/);
    });

    it('of one node or size leaves the others', () => {
      assert.deepEqual(lines(planClearHugePages({pageSizes: [], nodes: [1]}, state({}))), [
        `echo '0' > ${folder(1)}/nr_hugepages`,
      ]);
      assert.deepEqual(lines(planClearHugePages({pageSizes: [large], nodes: []}, state({}))), []);
    });

    it('of one node keeps the lines of the others', () => {
      const text = printBootPages([{node: 'each', pageSize: small, pages: 8}]);
      const answer = planClearHugePages(
        {pageSizes: [], nodes: [1]},
        state({file: {content: text, mode: 0o644}}),
      );
      const written =
        answer.kind === 'plan' ? answer.steps.find(({kind}) => kind === 'write-file') : undefined;
      assert.deepEqual(parseBootPages(written?.kind === 'write-file' ? written.content : ''), [
        {node: 0, pageSize: small, pages: 8},
      ]);
    });

    it('refuses a file that pearasys did not write', () => {
      assert.equal(refusal(planClearHugePages(everything, state({file: 'foreign'}))).code, 'bad-path');
    });
  });
});
