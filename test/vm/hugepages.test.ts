/** Huge pages on a machine with two NUMA nodes: now, after a reboot, and in use. */
import assert from 'node:assert/strict';
import type {HugePagesReport} from '../../src/operations/hugepages.js';
import {BOOT_LIMIT, type Machine} from './machine.js';
import {withOwnMachine, type Product} from './shared.js';

const file = '/etc/tmpfiles.d/pearasys-hugepages.conf';
const unit = 'mnt-huge.mount';
const megabyte = 1024 ** 2;
/** Megabytes of a node: less than a page of 1G. */
const half = 896;
const pool = (node: number): string => `/sys/devices/system/node/node${node}/hugepages/hugepages-2048kB`;

describe('huge pages on a real kernel', function () {
  this.timeout(400_000);
  let machine: Machine;
  let product: Product;

  withOwnMachine(
    this,
    {
      memory: 2 * half,
      extraArguments: [
        ...['-cpu', 'qemu64,+pdpe1gb'],
        ...[0, 1].flatMap((node) => [
          ...['-object', `memory-backend-ram,id=node${node},size=${half}M`],
          ...['-numa', `node,nodeid=${node},memdev=node${node}`],
        ]),
      ],
      // It would only move pages between the nodes, which are alike.
      kernelParameters: 'numa_balancing=disable',
    },
    (booted) => {
      product = booted;
      ({machine} = product);
    },
  );

  const pages = async () =>
    (await machine.sh(`cat ${pool(0)}/nr_hugepages ${pool(1)}/nr_hugepages`)).split('\n').map(Number);
  const clear = () => product.sh('hugepages', 'clear');

  it('are allocated on the node that is named, and shown', async () => {
    assert.equal(
      await product.sh('hugepages', 'set', '32M:2M', '--node', '1'),
      'NUMA node 1: 16 of 2M, 0 in use, 16 at boot',
    );
    assert.deepEqual(await pages(), [0, 16]);
    const {pools} = await product.json<HugePagesReport>('hugepages', 'show');
    assert.deepEqual(
      pools
        .filter(({pageSize}) => pageSize === 2 * megabyte)
        .map(({node, free, used, atBoot}) => [node, free, used, atBoot]),
      [
        [0, 0, 0, null],
        [1, 16, 0, 16],
      ],
    );
    await clear();
    assert.deepEqual(await pages(), [0, 0]);
    await machine.sh(`test ! -e ${file}`);
  });

  it('are there on each node after a reboot, before ordinary services, and mounted', async function () {
    this.timeout(BOOT_LIMIT);
    // What the first ordinary services see.
    await machine.writeFile(
      '/etc/systemd/system/sees-pages.service',
      `[Unit]
DefaultDependencies=no
After=sysinit.target
Before=basic.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'cat ${pool(0)}/nr_hugepages ${pool(1)}/nr_hugepages >/run/seen; findmnt -no FSTYPE /mnt/huge >>/run/seen'
[Install]
WantedBy=basic.target
`,
    );
    await machine.sh('systemctl enable sees-pages');
    await product.sh('hugepages', 'set', '64M:2M', '--mount', '/mnt/huge');
    assert.equal(await product.stateOf(unit), 'active');
    assert.match(await machine.sh('findmnt -no FSTYPE,OPTIONS /mnt/huge'), /^hugetlbfs .*pagesize=2M/);
    const verified = await machine.run(`systemd-analyze verify ${unit}`);
    // systemd-analyze calls man to check the documentation, which the machine does not have.
    assert.equal((verified.stdout + verified.stderr).replaceAll(/^.*Command 'man .*\n/gm, ''), '');
    await machine.reboot();
    assert.equal(await machine.sh('cat /run/seen'), '32\n32\nhugetlbfs');
    assert.deepEqual(await pages(), [32, 32]);
    assert.equal(await product.stateOf(unit), 'active');
    assert.doesNotMatch((await product.run('hugepages', 'show')).stderr, /warning/);
  });

  it('are not changed by a later run of systemd-tmpfiles', async () => {
    await product.sh('hugepages', 'set', '32M:2M', '--until-reboot');
    await machine.sh(`systemd-tmpfiles --create ${file}`);
    assert.deepEqual(await pages(), [16, 16]);
    assert.match(await machine.sh(`cat ${file}`), / - - - - 32$/m);
    await product.sh('hugepages', 'set', '64M:2M');
    assert.deepEqual(await pages(), [32, 32]);
  });

  it('in use are never freed', async () => {
    await product.sh('hugepages', 'set', '0:2M', '--node', '0');
    assert.deepEqual(await pages(), [0, 32]);
    await machine.sh('fallocate -l 40M /mnt/huge/file');
    const refused = await product.run('hugepages', 'set', '32M:2M', '--node', '1');
    assert.equal(refused.code, 3, refused.stderr);
    assert.match(refused.stderr, /NUMA node 1: 20 pages of 2M are in use, more than the 16/);
    assert.deepEqual(await pages(), [0, 32]);

    const held = await product.run('hugepages', 'clear');
    assert.equal(held.code, 3, held.stderr);
    assert.match(held.stderr, /\/mnt\/huge has files, which keep huge pages: file/);

    const {code, stderr} = await product.run('hugepages', 'clear', '--node', '1');
    assert.equal(code, 0, stderr);
    assert.match(stderr, /NUMA node 1: 20 pages of 2M stay/);
    assert.deepEqual(await pages(), [0, 20]);
    assert.equal(await machine.sh(`cat ${pool(1)}/surplus_hugepages`), '0');
    await machine.sh('rm /mnt/huge/file');
  });

  it('are all or none, and with --partial as many as there are', async () => {
    await clear();
    const request = ['hugepages', 'set', '1G:1G', '--node', '0'];
    const failed = await product.run(...request, '--mount', '/mnt/huge');
    assert.equal(failed.code, 1, failed.stderr);
    assert.match(failed.stderr, /NUMA node 0: 0 of 1 page of 1G/);
    await machine.sh(`test ! -e ${file} && test ! -e /etc/systemd/system/${unit} && ! findmnt /mnt/huge`);

    const partial = await product.run(...request, '--partial');
    assert.equal(partial.code, 0, partial.stderr);
    assert.match(partial.stderr, /NUMA node 0: 0 of 1 page of 1G/);
    assert.match(partial.stderr, /kernel command line: hugepagesz=1G hugepages=1/);
    assert.match((await product.run('hugepages', 'show')).stderr, /NUMA node 0 has 0 of the 1 page of 1G/);
    await clear();
  });

  it('belong to the user of their mount, at once and whenever it is mounted', async () => {
    const set = ['hugepages', 'set', '32M:2M', '--mount', '/mnt/huge'];
    const owner = () => machine.sh('stat -c "%U %G %a" /mnt/huge');
    await product.sh(...set);
    assert.equal(await owner(), 'root root 755');
    await product.sh(...set, '--user', 'nobody');
    assert.equal(await owner(), 'nobody root 770');
    await machine.sh(`systemctl restart ${unit}`);
    assert.equal(await owner(), 'nobody root 770');
    await machine.sh(
      'setpriv --reuid=nobody --clear-groups fallocate -l 2M /mnt/huge/file && rm /mnt/huge/file',
    );
    await clear();
  });

  it('leave nothing when they are cleared', async () => {
    await product.sh('hugepages', 'set', '32M:2M', '--mount', '/mnt/huge');
    await clear();
    assert.deepEqual(await pages(), [0, 0]);
    await machine.sh(
      `test ! -e ${file} && test ! -e /etc/systemd/system/${unit} && test ! -e /etc/systemd/system/local-fs.target.wants/${unit}`,
    );
    assert.equal((await machine.run('findmnt /mnt/huge')).code, 1);
    assert.equal(await product.stateOf(unit), 'inactive');
  });
});
