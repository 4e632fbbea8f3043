import assert from 'node:assert/strict';
import type {ShowResult} from '../../src/entry/cli/commands/show.js';
import {devicePath} from '../../src/devices/pci/device.js';
import {parseSlot} from '../../src/devices/pci/slot.js';
import type {MachineDeclaration} from '../simulated-host/declaration.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {functionOf} from '../simulated-host/standard-machine.js';
import {typed} from './runs.js';

const net = parseSlot('0000:05:00.0');
const override = devicePath(net, 'driver_override');

describe('unusual devices', () => {
  const hosts: SimulatedHost[] = [];
  afterEach(() => {
    for (const host of hosts.splice(0)) host.dispose();
  });

  function made(tweak?: (declaration: MachineDeclaration) => void): SimulatedHost {
    const host = SimulatedHost.standard((declaration) => {
      declaration.processes = [];
      functionOf(declaration, net).net = [{name: 'eth1', address: '52:54:00:00:00:02'}];
      tweak?.(declaration);
    });
    hosts.push(host);
    return host;
  }

  async function shown(host: SimulatedHost) {
    const {exitCode, stdout, stderr} = await typed(host, 'show 05:00.0 --json');
    assert.equal(exitCode, 0, stderr);
    const [device] = (JSON.parse(stdout) as ShowResult).devices;
    assert.ok(device !== undefined);
    return device;
  }

  describe('without driver_override: a kernel before 3.16, a captured tree', () => {
    const old = () => {
      const host = made();
      host.machine.tree.remove(override);
      return host;
    };

    it('is listed and shown, and is not reported as locked', async () => {
      const host = old();
      const {locked, overrideState, driver} = await shown(host);
      assert.deepEqual([locked, overrideState, driver], [false, 'missing', 'e1000e']);
      assert.match(
        (await typed(host, 'show 05:00.0')).stdout,
        /override +there is no driver_override: the kernel/,
      );
      assert.equal((await typed(host, 'list')).exitCode, 0);
    });

    for (const line of [
      'bind vfio-pci 05:00.0 --group',
      'bind none 05:00.0',
      '-s 05:00.0 pci driver vfio-pci bind',
      '-s 05:00.0 pci device --driver vfio-pci driver-override',
      '-s 05:00.0 service install vfio-pci',
    ])
      it(`is refused, and the message names the alternative on such a kernel: ${line}`, async () => {
        const host = old();
        const {exitCode, stderr} = await typed(host, `${line} --dry-run`);
        assert.equal(exitCode, 3, stderr);
        assert.match(stderr, /has no driver_override.*\n {2}nothing was changed\ntry: .*new-id/);
        assert.deepEqual(host.effects(), []);
      });

    it('commands that need no override work: unbind, and back to the default', async () => {
      const host = old();
      assert.equal((await typed(host, 'unbind 05:00.0 --force')).exitCode, 0);
      assert.equal(host.machine.functions.get(net)?.driver, undefined);
      const {exitCode, stderr} = await typed(host, 'bind default 05:00.0');
      assert.equal(exitCode, 0, stderr);
      assert.equal(host.machine.functions.get(net)?.driver, 'e1000e');
    });
  });

  for (const errno of ['EACCES', 'EIO'])
    it(`driver_override that cannot be read (${errno}) is reported, and nothing is changed`, async () => {
      const host = made();
      host.failRead(/0000:05:00\.0\/driver_override$/, errno);
      const {locked, overrideState, unreadable} = await shown(host);
      assert.deepEqual([locked, overrideState, unreadable], [false, 'unreadable', ['driver_override']]);
      for (const line of ['bind none 05:00.0', 'unbind 05:00.0', 'bind vfio-pci 05:00.0']) {
        const {exitCode, stderr} = await typed(host, line);
        assert.equal(exitCode, 3, stderr);
        assert.match(
          stderr,
          /driver_override of 0000:05:00\.0 \(8086:10d3\) could not be read: its state is unknown/,
        );
      }
      assert.deepEqual(host.effects(), []);
    });

  it('other attributes that cannot be read are reported', async () => {
    const host = made();
    host.failRead(/0000:05:00\.0\/(?:power_state|reset_method)$/, 'EIO');
    assert.deepEqual((await shown(host)).unreadable.toSorted(), ['power_state', 'reset_method']);
    assert.match(
      (await typed(host, 'show 05:00.0')).stdout,
      /unreadable reset_method power_state|unreadable power_state/,
    );
  });

  it('list reports a device that cannot be read at all, and does not call it absent', async () => {
    const host = made();
    host.failRead(/0000:05:00\.0\/[^/]+$/, 'EACCES');
    const {exitCode, stdout, stderr} = await typed(host, 'list');
    assert.equal(exitCode, 0);
    assert.doesNotMatch(stdout, /0000:05:00\.0/);
    assert.match(stderr, /the device 0000:05:00\.0 is not listed: reading .* failed: EACCES/);
    for (const line of ['show 05:00.0', 'bind none 05:00.0']) {
      const result = await typed(host, line);
      assert.equal(result.exitCode, 1, line);
      assert.match(result.stderr, /failed: EACCES/);
    }
  });

  for (const attribute of ['uevent', 'driver_override'])
    it(`a device that is removed after its ${attribute} was read counts as missing`, async () => {
      const host = made();
      const read = host.readText.bind(host);
      host.readText = (path) => {
        const text = read(path);
        if (path.endsWith(`/${net}/${attribute}`) && host.machine.functions.has(net))
          host.machine.hotRemove(net);
        return text;
      };
      const {exitCode, stderr} = await typed(host, 'bind none 05:00.0');
      assert.equal(exitCode, 4, stderr);
      assert.deepEqual(host.effects(), []);
    });

  describe('that does not respond: its configuration space reads all ones', () => {
    const dead = () =>
      made((declaration) => {
        functionOf(declaration, net).config = Array.from({length: 256}, () => 0xff);
      });

    it('is marked by show and list', async () => {
      const host = dead();
      assert.equal((await shown(host)).responds, false);
      assert.match(
        (await typed(host, 'show 05:00.0')).stdout,
        /state +does not respond: its configuration space/,
      );
      const {devices} = JSON.parse((await typed(host, 'list --json')).stdout) as ShowResult;
      assert.deepEqual(
        devices.filter(({responds}) => responds === false).map(({slot}) => slot),
        [net],
      );
    });

    for (const line of ['bind none 05:00.0', 'bind default 05:00.0', 'bind vfio-pci 05:00.0 --group'])
      it(`is refused unless forced: ${line}`, async () => {
        const host = dead();
        if (line.includes('default')) await host.writeAttribute(override, 'none', 1000);
        host.journal.length = 0;
        const {exitCode, stderr} = await typed(host, `${line} --dry-run`);
        assert.equal(exitCode, 3, stderr);
        assert.match(stderr, /0000:05:00\.0 \(8086:10d3\) does not respond.*\n.*\ntry: .*remove rescan/);
        const forced = await typed(host, `${line} --dry-run --force`);
        assert.equal(forced.exitCode, 0, forced.stderr);
        assert.match(forced.stderr, /does not respond/);
        assert.deepEqual(host.effects(), []);
      });

    it('may be unbound, with a note, because nothing else is possible', async () => {
      const host = dead();
      const {exitCode, stderr} = await typed(host, 'unbind 05:00.0');
      assert.equal(exitCode, 0, stderr);
      assert.match(stderr, /does not respond/);
    });
  });
});
