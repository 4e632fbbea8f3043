import assert from 'node:assert/strict';
import type {ShowResult, ShownDevice} from '../../src/entry/cli/commands/show.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {run, typed} from './runs.js';

describe('pearasys show', () => {
  let host: SimulatedHost;
  beforeEach(() => (host = SimulatedHost.standard()));
  afterEach(() => host.dispose());

  async function one(word: string): Promise<ShownDevice> {
    const [device] = await shown(word);
    assert.ok(device);
    return device;
  }

  async function shown(...words: string[]): Promise<ShownDevice[]> {
    const {exitCode, stdout, stderr} = await run(host, ['show', ...words, '--json']);
    assert.equal(exitCode, 0, stderr);
    return [...(JSON.parse(stdout) as ShowResult).devices];
  }

  it('describes one device', async () => {
    const device = await one('04:00.0');
    assert.deepEqual(device, {
      slot: '0000:04:00.0',
      id: '144d:a80a',
      subsystem: '144d:a801',
      class: '010802',
      className: 'Non-Volatile memory controller',
      vendorName: 'Samsung Electronics Co Ltd',
      deviceName: device.deviceName,
      driver: 'nvme',
      override: null,
      group: 10,
      numaNode: 0,
      physicalFunction: null,
      bootDisplay: false,
      vgpu: null,
      vgpuTypes: [],
      record: null,
      units: [],
      holders: [],
      name: `Samsung Electronics Co Ltd ${device.deviceName}`,
      module: 'nvme',
      modules: ['nvme', 'vfio_pci'],
      siblings: [],
      members: [],
      viable: false,
      locked: false,
      overrideState: 'known',
      responds: true,
      quarantined: null,
      unreadable: [],
      inTheWay: ['0000:04:00.0'],
      nodes: [],
      resetMethods: ['flr', 'bus'],
      power: {state: 'D0', control: 'on', d3coldAllowed: true},
    });
  });

  for (const word of ['0000:03:00.0', '03:00.0', '144d:a808', 'nvme0n1', 'nvme0n1p2'])
    it(`takes ${word}`, async () => {
      assert.deepEqual(
        (await shown(word)).map(({slot}) => slot),
        ['0000:03:00.0'],
      );
    });

  it('takes the name of an interface', async () => {
    assert.equal((await shown('eth1'))[0]?.slot, '0000:05:00.0');
  });

  it('names siblings and members of the group', async () => {
    const device = await one('01:00.0');
    assert.deepEqual(
      device.siblings.map(({slot, driver}) => [slot, driver]),
      [['0000:01:00.1', 'snd_hda_intel']],
    );
    assert.deepEqual(
      device.members.map(({slot, bridge}) => [slot, bridge]),
      [
        ['0000:00:01.0', true],
        ['0000:01:00.1', false],
      ],
    );
    assert.deepEqual(device.inTheWay, ['0000:01:00.0', '0000:01:00.1']);
  });

  it('knows when a group is viable', async () => {
    assert.equal((await typed(host, 'bind vfio-pci 02:00.0 --group')).exitCode, 0);
    const device = await one('02:00.1');
    assert.equal(device.viable, true);
    assert.deepEqual(device.inTheWay, []);
    assert.equal(device.driver, 'vfio-pci');
    assert.equal(device.module, 'vfio_pci');
  });

  it('requires a choice between two cards, or --all', async () => {
    const {exitCode, stderr} = await typed(host, 'show 10de:1b80');
    assert.equal(exitCode, 2);
    assert.match(stderr, /0000:01:00\.0, 0000:02:00\.0/);
    assert.equal((await shown('10de:1b80', '--all')).length, 2);
  });

  it('names the nearest slot for a missing device, with exit code 4', async () => {
    const {exitCode, stdout, stderr} = await typed(host, 'show 03:00.1');
    assert.equal(exitCode, 4);
    assert.equal(stdout, '');
    assert.match(stderr, /^pearasys: there is no device in slot 0000:03:00\.1\n/);
    assert.match(stderr, /the nearest is 0000:0\d:00\.\d/);
  });

  it('is readable', async () => {
    const {stdout} = await typed(host, 'show 01:00.0');
    assert.match(stdout, /^0000:01:00\.0 NVIDIA Corporation GP104 \[GeForce GTX 1080\]\n/);
    for (const line of [
      /^ {2}id {9}10de:1b80, subsystem 1043:8599$/m,
      /^ {2}driver {5}nouveau$/m,
      /^ {2}group {6}1, not viable for VFIO: 0000:01:00\.0 0000:01:00\.1 on a host driver$/m,
      /^ {2}reset {6}flr bus$/m,
      /^ {2}held by {4}process 901 \(Xorg\)/m,
    ])
      assert.match(stdout, line);
  });

  it('reads and changes nothing else', async () => {
    await typed(host, 'show 01:00.0');
    assert.deepEqual(host.effects(), []);
  });
});
