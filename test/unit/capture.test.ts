import assert from 'node:assert/strict';
import {spawnSync} from 'node:child_process';
import {join} from 'node:path';
import {hostOfTree, readTree, type CapturedTree} from '../simulated-host/captured-tree.js';
import type {SimulatedHost} from '../simulated-host/simulated-host.js';

const program = join(import.meta.dirname, '../simulated-host/capture.sh');

describe('capture.sh', () => {
  const hosts: SimulatedHost[] = [];
  afterEach(() => {
    for (const host of hosts.splice(0)) host.dispose();
  });

  async function made(tree: CapturedTree): Promise<SimulatedHost> {
    const host = await hostOfTree(tree);
    hosts.push(host);
    return host;
  }

  /** What it prints of the tree in a folder. */
  function capture(folder: string): CapturedTree {
    const {status, stdout, stderr} = spawnSync('sh', [program, folder], {encoding: 'utf8'});
    assert.deepEqual([status, stderr], [0, '']);
    return JSON.parse(stdout) as CapturedTree;
  }

  for (const name of [
    'desktop-amd-apu-and-card',
    'desktop-without-iommu',
    'laptop-thunderbolt-egpu',
    'notebook-dead-card',
    'server-64-virtual-functions',
    'server-two-sockets-mixed-nodes',
    'xen-dom0-with-pciback',
  ])
    it(`finds all of ${name} again`, async () => {
      const tree = readTree(name);
      const host = await made(tree);
      const captured = capture(host.machine.folder);
      // A node of -1 is none.
      const wanted = tree.devices.map((line) => line.replace(/^((?:\S+ ){5})-1 /, '$1- '));
      assert.deepEqual(captured.devices, wanted.toSorted());
      assert.deepEqual(captured.vfs ?? {}, tree.vfs ?? {});
      assert.equal(captured.iommu, tree.iommu ?? 'dmar0');
      assert.deepEqual((await made(captured)).machine.bindings(), host.machine.bindings());
    });

  it('says what an old kernel does not have', async () => {
    const tree = readTree('kernel-3.2-without-override');
    const captured = capture((await made(tree)).machine.folder);
    assert.equal(captured.release, tree.release);
    assert.deepEqual(captured.omit, tree.omit);
  });

  it('reads the machine that it runs on', () => {
    const {devices, release} = capture('');
    assert.match(release ?? '', /^\d/);
    for (const line of devices) assert.match(line, /^\S+ [0-9a-f]{4}:[0-9a-f]{4} [0-9a-f]{6} /);
  });
});
