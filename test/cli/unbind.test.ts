import assert from 'node:assert/strict';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {typed} from './runs.js';

describe('pearasys unbind', () => {
  let host: SimulatedHost;
  beforeEach(() => {
    host = SimulatedHost.standard();
  });
  afterEach(() => host.dispose());

  it('leaves the device without driver and override', async () => {
    await typed(host, 'bind pci-stub eth1');
    assert.deepEqual(await typed(host, 'unbind 05:00.0'), {
      exitCode: 0,
      stdout: '0000:05:00.0 (8086:10d3) has no driver\n',
      stderr: '',
    });
    const {driver, override} = host.machine.device('0000:05:00.0');
    assert.deepEqual([driver, override], [undefined, undefined]);
    assert.equal(
      (await typed(host, 'unbind 05:00.0')).stdout,
      '0000:05:00.0 (8086:10d3) already has no driver\n',
    );
  });

  it('all of them or none', async () => {
    host.failWrite('/sys/bus/pci/drivers/nvme/unbind', 'EBUSY');
    const before = host.machine.bindings();
    const {exitCode, stderr} = await typed(host, 'unbind 02:00.0 04:00.0');
    assert.equal(exitCode, 1);
    assert.match(stderr, /EBUSY/);
    assert.deepEqual(host.machine.bindings(), before);
  });

  it('refuses devices in use, and missing ones', async () => {
    const before = host.machine.bindings();
    for (const [line, code] of [
      ['unbind nvme0n1', 3],
      ['unbind nvme0n1 --force', 3],
      ['unbind eth0', 3],
      ['unbind 00:1c.0', 3],
      ['unbind 77:00.0', 4],
      ['unbind nonsense', 4],
      ['unbind', 2],
      ['unbind --', 2],
    ] as const)
      assert.equal((await typed(host, line)).exitCode, code, line);
    assert.deepEqual(host.machine.bindings(), before);
    assert.deepEqual(host.effects(), []);
  });

  it('reports a device that disappears during the switch', async () => {
    host.afterEffect((effect) => {
      if (effect.kind === 'write' && effect.path.endsWith('/e1000e/unbind'))
        host.machine.hotRemove('0000:05:00.0');
    });
    const {exitCode, stderr} = await typed(host, 'unbind eth1');
    assert.equal(exitCode, 4);
    assert.match(stderr, /^pearasys: 0000:05:00\.0 went away while its driver was changed\n/);
    assert.match(stderr, /state of 0000:05:00\.0: the device no longer exists/);
  });
});
