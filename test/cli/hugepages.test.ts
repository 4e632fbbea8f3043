import assert from 'node:assert/strict';
import type {HugePagesReport} from '../../src/operations/hugepages.js';
import type {HugePagesResult} from '../../src/entry/cli/hugepages.js';
import type {HugePagesDeclaration} from '../simulated-host/declaration.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {Terminal, run, succeeds, typed} from './runs.js';

const file = '/etc/tmpfiles.d/pearasys-hugepages.conf';
const unit = '/etc/systemd/system/mnt-huge.mount';
const link = '/etc/systemd/system/local-fs.target.wants/mnt-huge.mount';
const pool = (node: number, size = 2048) =>
  `/sys/devices/system/node/node${node}/hugepages/hugepages-${size}kB`;

describe('pearasys hugepages', () => {
  const hosts: SimulatedHost[] = [];
  afterEach(() => {
    for (const host of hosts.splice(0)) host.dispose();
  });
  /** A machine with two nodes and pages of two sizes; the first pool is as said. */
  function machine(first: Partial<HugePagesDeclaration> = {}): SimulatedHost {
    const host = SimulatedHost.standard((declaration) => {
      declaration.hugePages = [
        {node: 0, size: 2048, ...first},
        {node: 1, size: 2048},
        {node: 0, size: 1_048_576},
        {node: 1, size: 1_048_576},
      ];
    });
    hosts.push(host);
    return host;
  }
  const pagesOf = (host: SimulatedHost, node: number, size?: number) =>
    Number(host.readText(`${pool(node, size)}/nr_hugepages`));
  const numbers = (host: SimulatedHost) => [pagesOf(host, 0), pagesOf(host, 1)];
  const show = async (host: SimulatedHost) =>
    JSON.parse((await succeeds(host, 'hugepages show --json')).stdout) as HugePagesReport;

  describe('set', () => {
    it('allocates the pages on each node, and at each boot', async () => {
      const host = machine();
      const {stdout} = await succeeds(host, 'hugepages set 64M');
      assert.equal(
        stdout,
        'NUMA node 0: 32 of 2M, 0 in use, 32 at boot\nNUMA node 1: 32 of 2M, 0 in use, 32 at boot\n',
      );
      assert.deepEqual(numbers(host), [32, 32]);
      assert.match(
        host.readText(file) ?? '',
        /^w! \/sys\/devices\/system\/node\/node\*\/hugepages\/hugepages-2048kB\/nr_hugepages - - - - 32$/m,
      );
      assert.equal(host.info(file)?.mode, 0o644);
      const again = await succeeds(host, 'hugepages set 64M');
      assert.match(again.stderr, /nothing to do/);
    });

    it('sets only what is named: a node, a size', async () => {
      const host = machine();
      await succeeds(host, 'hugepages set 64M');
      await succeeds(host, 'hugepages set 8M:2M --node 1');
      const {stderr} = await succeeds(host, 'hugepages set 2G:1G -n 0');
      assert.match(stderr, /hugepagesz=1G hugepages=2/);
      assert.deepEqual(
        (await show(host)).pools.map(({node, pageSize, pages, atBoot}) => [node, pageSize, pages, atBoot]),
        [
          [0, 2 * 1024 ** 2, 32, 32],
          [1, 2 * 1024 ** 2, 4, 4],
          [0, 1024 ** 3, 2, 2],
          [1, 1024 ** 3, 0, null],
        ],
      );
    });

    it('with --until-reboot sets nothing for the boot', async () => {
      const host = machine();
      await succeeds(host, 'hugepages set 64M --until-reboot');
      assert.deepEqual(numbers(host), [32, 32]);
      assert.equal(host.exists(file), false);
    });

    it('mounts the pages, now and at each boot', async () => {
      const host = machine();
      await succeeds(host, 'hugepages set 64M --mount /mnt/huge');
      const text = host.readText(unit) ?? '';
      assert.match(text, /^# To undo: pearasys hugepages clear$/m);
      assert.match(text, /^Where=\/mnt\/huge$/m);
      assert.match(text, /^Options=nosuid,nodev,pagesize=2M$/m);
      assert.equal(host.readLink(link), unit);
      assert.deepEqual((await show(host)).mounts, [
        {where: '/mnt/huge', pageSize: 2 * 1024 ** 2, mounted: true, unit: 'mnt-huge.mount'},
      ]);
      assert.match((await succeeds(host, 'hugepages set 64M --mount /mnt/huge')).stderr, /nothing to do/);
    });

    describe('gives the mounted folder to a user', () => {
      const withUsers = () => {
        const host = machine();
        host.machine.tree.file('/etc/passwd', 'root:x:0:0::/:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n', 0o644);
        host.machine.tree.file('/etc/group', 'root:x:0:\nvfio:x:990:\n', 0o644);
        return host;
      };
      const optionsIn = (host: SimulatedHost) => /^Options=(.*)$/m.exec(host.readText(unit) ?? '')?.[1];
      const ownerOf = (host: SimulatedHost) => {
        const {uid, gid, mode} = host.info('/mnt/huge') ?? {};
        return `${uid ?? ''}:${gid ?? ''} ${mode?.toString(8) ?? ''}`;
      };
      const set = 'hugepages set 64M --mount /mnt/huge';

      it('now and at each boot', async () => {
        const host = withUsers();
        await succeeds(host, `${set} --user alice`);
        assert.equal(optionsIn(host), 'nosuid,nodev,pagesize=2M,uid=1000,mode=0770');
        assert.equal(ownerOf(host), '1000:0 770');
        await host.setOwner('/mnt/huge', {uid: 1001, gid: 0}, 0o700);
        assert.match((await succeeds(host, set)).stderr, /nothing to do/);
        assert.equal(ownerOf(host), '1001:0 700');
        await succeeds(host, 'hugepages clear');
        assert.equal(host.exists(unit), false);
      });

      it('also if it is mounted already; what is not said stays as it is', async () => {
        const host = withUsers();
        await succeeds(host, set);
        assert.equal(ownerOf(host), '0:0 755');
        await succeeds(host, `${set} --user-group vfio --mode 0640`);
        assert.equal(optionsIn(host), 'nosuid,nodev,pagesize=2M,gid=990,mode=0750');
        assert.equal(ownerOf(host), '0:990 750');
        await succeeds(host, `${set} --user alice`);
        assert.equal(optionsIn(host), 'nosuid,nodev,pagesize=2M,uid=1000,gid=990,mode=0750');
        assert.equal(ownerOf(host), '1000:990 750');
        await succeeds(host, `${set} --user= --user-group= --mode 0666`);
        assert.equal(optionsIn(host), 'nosuid,nodev,pagesize=2M,mode=0777');
        assert.match((await succeeds(host, set)).stderr, /nothing to do/);
        await succeeds(host, `${set} --mode=`);
        assert.equal(optionsIn(host), 'nosuid,nodev,pagesize=2M');
        assert.equal(ownerOf(host), '0:0 755');
      });

      it('but not one that others mount, which they would own again at the next boot', async () => {
        const host = withUsers();
        host.machine.mount({
          source: 'hugetlbfs',
          target: '/dev/hugepages',
          type: 'hugetlbfs',
          options: 'rw,pagesize=2M',
        });
        const {exitCode, stderr} = await typed(host, 'hugepages set 64M --mount /dev/hugepages --user alice');
        assert.equal(exitCode, 3);
        assert.match(
          stderr,
          /\/dev\/hugepages is mounted by another unit.*systemctl edit dev-hugepages\.mount/s,
        );
        assert.equal(host.info('/dev/hugepages')?.uid, 0);
        assert.deepEqual(numbers(host), [0, 0]);
      });

      it('if there is one, and such a user', async () => {
        const host = withUsers();
        const noMount = await typed(host, 'hugepages set 64M --user alice');
        assert.equal(noMount.exitCode, 2);
        assert.match(noMount.stderr, /--mount/);
        const noUser = await typed(host, `${set} --user mallory`);
        assert.equal(noUser.exitCode, 2);
        assert.match(noUser.stderr, /there is no user 'mallory'/);
      });
    });

    it('leaves a folder alone where others have mounted pages of this size', async () => {
      const host = machine();
      host.machine.mount({
        source: 'hugetlbfs',
        target: '/dev/hugepages',
        type: 'hugetlbfs',
        options: 'rw,pagesize=2M',
      });
      await succeeds(host, 'hugepages set 64M --mount /dev/hugepages');
      assert.deepEqual(
        host.list('/etc/systemd/system').filter((name) => name.endsWith('.mount')),
        [],
      );
      const other = await typed(host, 'hugepages set 1G:1G --mount /dev/hugepages');
      assert.equal(other.exitCode, 3);
      assert.match(other.stderr, /\/dev\/hugepages already has huge pages of 2M/);
      assert.equal(pagesOf(host, 0, 1_048_576), 0);
    });

    it('refuses a folder with files, a file, and a unit that it did not write', async () => {
      const host = machine();
      host.machine.tree.file('/mnt/full/file', '');
      for (const [folder, reason] of [
        ['/mnt/full', /not empty/],
        ['/mnt/full/file', /not a folder/],
      ] as const) {
        const refused = await typed(host, `hugepages set 64M --mount ${folder}`);
        assert.equal(refused.exitCode, 3);
        assert.match(refused.stderr, reason);
      }
      host.machine.tree.file(unit, '[Mount]\nWhere=/mnt/huge\nWhat=tmpfs\n', 0o644);
      const refused = await typed(host, 'hugepages set 64M --mount /mnt/huge');
      assert.equal(refused.exitCode, 3);
      assert.match(refused.stderr, /refusing to overwrite .*mnt-huge\.mount/);
      assert.deepEqual(host.effects(), []);
    });

    it('undoes everything if the kernel cannot allocate all pages, and says how many it could', async () => {
      const host = machine({room: 20, pages: 3});
      const {exitCode, stderr} = await typed(host, 'hugepages set 64M --mount /mnt/huge');
      assert.equal(exitCode, 1);
      assert.match(stderr, /NUMA node 0: 20 of 32 pages of 2M/);
      assert.match(stderr, /NUMA node 1: 32 of 32 pages of 2M/);
      assert.match(stderr, /--partial/);
      assert.deepEqual(numbers(host), [3, 0]);
      for (const path of [file, unit, link]) assert.equal(host.exists(path), false);
    });

    it('with --partial keeps what could be allocated, and sets all of it for the boot', async () => {
      const host = machine({room: 20});
      const {exitCode, stdout} = await typed(host, 'hugepages set 64M --partial --json');
      assert.equal(exitCode, 0);
      const result = JSON.parse(stdout) as HugePagesResult;
      assert.match(result.notes.join(), /NUMA node 0: 20 of 32 pages of 2M/);
      assert.deepEqual(
        result.pools.slice(0, 2).map(({pages, atBoot}) => [pages, atBoot]),
        [
          [20, 32],
          [32, 32],
        ],
      );
      assert.match(
        (await succeeds(host, 'hugepages show')).stderr,
        /NUMA node 0 has 20 of the 32 pages of 2M/,
      );
    });

    it('counts freed pages when it restores them: the kernel may have given the memory away', async () => {
      const host = machine({pages: 40, room: 20});
      host.failFile(file, 'ENOSPC');
      const {exitCode, stderr} = await typed(host, 'hugepages set 32M');
      assert.equal(exitCode, 1);
      assert.deepEqual(numbers(host), [20, 0]);
      assert.match(stderr, /could not be undone: .*NUMA node 0: 20 of 40 pages of 2M/);
    });

    it('undoes the numbers if a later step fails', async () => {
      const host = machine();
      host.failFile(file, 'ENOSPC');
      assert.equal((await typed(host, 'hugepages set 64M')).exitCode, 1);
      assert.deepEqual(numbers(host), [0, 0]);
    });

    it('refuses to free pages in use, before any change, and names who uses them', async () => {
      const host = machine({pages: 40, used: 33});
      host.machine.addProcess({
        pid: 812,
        comm: 'qemu',
        cgroup: '/machine.slice/guest.service',
        hugePages: 33 * 2048,
      });
      const {exitCode, stderr} = await typed(host, 'hugepages set 64M');
      assert.equal(exitCode, 3);
      assert.match(stderr, /33 pages of 2M are in use/);
      const user = /process 812 \(qemu\) of guest\.service uses 66M in huge pages/;
      assert.match(stderr, user);
      assert.match((await succeeds(host, 'hugepages show')).stderr, user);
      assert.deepEqual(host.effects(), []);
      host.machine.hugePages.use(0, 2048, -1);
      await succeeds(host, 'hugepages set 64M');
      assert.deepEqual(numbers(host), [32, 32]);
    });

    it('with --dry-run prints the steps, and changes nothing', async () => {
      const host = machine();
      const {stdout} = await succeeds(host, 'hugepages set 64M --mount /mnt/huge --dry-run');
      assert.match(stdout, new RegExp(`^echo '32' > ${pool(0)}/nr_hugepages$`, 'm'));
      assert.match(stdout, /^systemctl start mnt-huge\.mount$/m);
      assert.deepEqual(host.effects(), []);
    });

    it('with --root writes only the files of the image', async () => {
      const host = machine();
      const root = `--root ${host.machine.folder}`;
      await succeeds(host, `${root} hugepages set 64M:2M --mount /mnt/huge`);
      assert.deepEqual(numbers(host), [0, 0]);
      assert.match(host.readText(file) ?? '', /node\*.* - - - - 32$/m);
      assert.equal(host.readLink(link), unit);
      assert.equal(host.exists(unit), true);
      assert.deepEqual(
        (await show(host)).mounts.map(({mounted}) => mounted),
        [false],
      );
      const noSize = await typed(host, `${root} hugepages set 64M`);
      assert.equal(noSize.exitCode, 3);
      assert.match(noSize.stderr, /name the size of the pages/);
      const node = await typed(host, `${root} hugepages set 64M:2M --node 0`);
      assert.equal(node.exitCode, 3);
      assert.match(node.stderr, /nodes of an image are not known/);
      await succeeds(host, `${root} hugepages clear`);
      for (const path of [file, unit, link]) assert.equal(host.info(path, false), undefined, path);
    });

    for (const [words, reason] of [
      ['5M', /not a multiple of the page size 2M.*6M/s],
      ['64', /not a size/],
      ['64M:', /SIZE\[:PAGESIZE\]/],
      ['64M:2M:0', /SIZE\[:PAGESIZE\]/],
      ['64M:0', /cannot be 0/],
      ['64M --mount mnt', /full path/],
      ['64M --mount /', /full path/],
      ['64M --mount /mnt/../etc', /full path/],
      ['64M --until-reboot --mount /mnt/huge', /omit one of them/],
    ] as const)
      it(`refuses \`set ${words}\``, async () => {
        const {exitCode, stderr} = await typed(machine(), `hugepages set ${words}`);
        assert.equal(exitCode, 2, stderr);
        assert.match(stderr, reason);
      });

    it('needs root', async () => {
      const host = machine();
      host.userId = 1000;
      assert.match((await typed(host, 'hugepages set 64M')).stderr, /needs root/);
    });
  });

  describe('clear', () => {
    it('leaves nothing of what was set', async () => {
      const host = machine();
      await succeeds(host, 'hugepages set 64M --mount /mnt/huge');
      await succeeds(host, 'hugepages set 1G:1G');
      const {stderr} = await succeeds(host, 'hugepages clear');
      assert.equal(stderr, '');
      assert.deepEqual(
        (await show(host)).pools.map(({pages, atBoot}) => [pages, atBoot]),
        Array.from({length: 4}, () => [0, null]),
      );
      for (const path of [file, unit, link]) assert.equal(host.info(path, false), undefined, path);
      assert.deepEqual((await show(host)).mounts, []);
      assert.match((await succeeds(host, 'hugepages clear')).stderr, /nothing to do/);
    });

    it('of a size or node leaves the rest', async () => {
      const host = machine();
      await succeeds(host, 'hugepages set 64M --mount /mnt/huge');
      await succeeds(host, 'hugepages set 1G:1G');
      await succeeds(host, 'hugepages clear 1G');
      assert.deepEqual([...numbers(host), pagesOf(host, 0, 1_048_576)], [32, 32, 0]);
      await succeeds(host, 'hugepages clear --node 1');
      assert.deepEqual(numbers(host), [32, 0]);
      assert.equal(host.exists(unit), true);
      assert.deepEqual(
        (await show(host)).pools.map(({atBoot}) => atBoot),
        [32, null, null, null],
      );
    });

    it('leaves pages in use, says so, and succeeds', async () => {
      const host = machine({pages: 40, used: 30, reserved: 2});
      const {stderr} = await succeeds(host, 'hugepages clear');
      assert.match(stderr, /NUMA node 0: 32 pages of 2M stay/);
      assert.deepEqual(numbers(host), [32, 0]);
      assert.equal((await show(host)).pools[0]?.surplus, 0);
    });

    it('refuses to unmount a folder with files', async () => {
      const host = machine();
      await succeeds(host, 'hugepages set 64M --mount /mnt/huge');
      host.machine.tree.file('/mnt/huge/rtemap_0', '');
      const before = numbers(host);
      const {exitCode, stderr} = await typed(host, 'hugepages clear');
      assert.equal(exitCode, 3);
      assert.match(stderr, /rtemap_0/);
      assert.deepEqual(numbers(host), before);
      assert.equal(host.exists(unit), true);
    });

    it('undoes the unmount if a later step fails', async () => {
      const host = machine();
      await succeeds(host, 'hugepages set 64M --mount /mnt/huge');
      host.failWrite(`${pool(1)}/nr_hugepages`, 'EIO', 1);
      assert.equal((await typed(host, 'hugepages clear')).exitCode, 1);
      assert.equal((await show(host)).mounts[0]?.mounted, true);
      assert.deepEqual(numbers(host), [32, 32]);
    });
  });

  describe('show', () => {
    it('prints a line for each pool', async () => {
      const host = machine({pages: 8, used: 3, surplus: 1, reserved: 2});
      const {stdout, stderr} = await succeeds(host, 'hugepages show');
      assert.equal(
        stdout,
        '0\t2M\t8\t5\t3\t1\t-\t16M\n1\t2M\t0\t0\t0\t0\t-\t0\n0\t1G\t0\t0\t0\t0\t-\t0\n1\t1G\t0\t0\t0\t0\t-\t0\n',
      );
      assert.match(stderr, /reserved 2 pages of 2M/);
    });

    it('prints a table on a terminal', async () => {
      const stdout = new Terminal(80);
      assert.equal(await run(machine(), ['hugepages', 'show'], {stdout}).then(({exitCode}) => exitCode), 0);
      assert.match(stdout.text, /NODE +SIZE +PAGES +FREE +USED +SURPLUS +AT BOOT +TOTAL/);
    });

    it('warns of settings for nodes that the machine does not have', async () => {
      const host = machine();
      host.machine.tree.file(
        file,
        'w! /sys/devices/system/node/node5/hugepages/hugepages-2048kB/nr_hugepages - - - - 3\n',
        0o644,
      );
      assert.match(
        (await succeeds(host, 'hugepages show')).stderr,
        /3 pages of 2M are set for NUMA node 5, but this machine has no such node with memory/,
      );
      host.machine.tree.file(
        file,
        'w! /sys/devices/system/node/node*/hugepages/hugepages-64kB/nr_hugepages - - - - 1\n',
        0o644,
      );
      assert.match(
        (await succeeds(host, 'hugepages show')).stderr,
        /1 page of 64K is set for each NUMA node, but this machine has no huge pages of 64K/,
      );
    });

    it('says that a kernel has no huge pages', async () => {
      const host = SimulatedHost.standard();
      hosts.push(host);
      assert.match((await succeeds(host, 'hugepages show')).stderr, /no huge pages/);
    });
  });

  it('is refused for a file that has lines of others', async () => {
    const host = machine();
    host.machine.tree.file(file, 'd /run/other\n', 0o644);
    for (const command of ['hugepages set 64M', 'hugepages clear', 'hugepages show']) {
      const {exitCode, stderr} = await typed(host, command);
      assert.equal(exitCode, 3, command);
      assert.match(stderr, /invalid line 1/);
    }
    assert.deepEqual(host.effects(), []);
  });
});
