import assert from 'node:assert/strict';
import {PearasysError} from '../../src/host/errors.js';
import {readDevices} from '../../src/pci/device.js';
import {findDevices, slotInPath, slotsOfName, type FindOptions} from '../../src/pci/find.js';
import type {MachineDeclaration} from '../simulated-host/declaration.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {functionOf} from '../simulated-host/standard-machine.js';

describe('findDevices', () => {
  const hosts: SimulatedHost[] = [];
  afterEach(() => {
    for (const host of hosts.splice(0)) host.dispose();
  });

  function made(tweak?: (declaration: MachineDeclaration) => void): SimulatedHost {
    const host = SimulatedHost.standard(tweak);
    hosts.push(host);
    return host;
  }

  const find = (host: SimulatedHost, words: readonly string[], options?: FindOptions) =>
    findDevices(host, readDevices(host), words, options).map(({slot}) => slot);

  function refusal(host: SimulatedHost, word: string): PearasysError {
    try {
      find(host, [word]);
    } catch (error) {
      assert.ok(error instanceof PearasysError);
      return error;
    }
    assert.fail(`${word} was found`);
  }

  it('by slot, short or long, in slot order and each once', () => {
    const host = made();
    assert.deepEqual(find(host, ['0000:05:00.0', '02:00.1', '02:00.0', '05:00.0']), [
      '0000:02:00.0',
      '0000:02:00.1',
      '0000:05:00.0',
    ]);
    assert.deepEqual(find(host, []), []);
  });

  it('by id, which must mean one device, or all be meant', () => {
    const host = made();
    assert.deepEqual(find(host, ['8086:10D3']), ['0000:05:00.0']);
    const error = refusal(host, '10de:1b80');
    assert.deepEqual([error.code, error.exitCode], ['ambiguous-device', 2]);
    assert.match(error.hint ?? '', /--all/);
    assert.deepEqual(find(host, ['10de:1b80'], {all: true}), ['0000:01:00.0', '0000:02:00.0']);
  });

  it('by the name of an interface, a disk or a partition; each device once, however it is named', () => {
    const host = made();
    assert.deepEqual(find(host, ['eth1', '05:00.0', '8086:10d3']), ['0000:05:00.0']);
    assert.deepEqual(find(host, ['nvme0n1', 'nvme0n1p2', 'nvme1n1']), ['0000:03:00.0', '0000:04:00.0']);
  });

  it('by a disk that has several paths', () => {
    const host = made((declaration) => {
      functionOf(declaration, '0000:03:00.0').nvme!.multipath = true;
    });
    assert.deepEqual(find(host, ['nvme0n1']), ['0000:03:00.0']);
    assert.deepEqual(slotsOfName(host, 'nvme0n1'), ['0000:03:00.0']);
  });

  it('is the device as it was read, not another reading of it', () => {
    const host = made();
    const devices = readDevices(host);
    assert.ok(devices.includes(findDevices(host, devices, ['eth1'])[0]!));
  });

  for (const [word, code, exitCode, message, hint] of [
    ['77:00.0', 'no-device', 4, 'there is no device in slot 0000:77:00.0', /the nearest is 0000:/],
    ['10de:1b81', 'no-device', 4, 'there is no device with id 10de:1b81', /the nearest is 10de:1b80$/],
    [
      'nvme0n2',
      'no-device',
      4,
      "there is no device, interface or disk called 'nvme0n2'",
      /the nearest is nvme0n1$/,
    ],
    ['../net/eth0', 'no-device', 4, "there is no device, interface or disk called '../net/eth0'", /nearest/],
    ['10de:zzzz', 'bad-slot', 2, "'10de:zzzz' is neither a slot nor an id", /10de:1b80/],
    ['..', 'bad-slot', 2, "'..' is neither a slot nor an id", /0000:04:00\.0/],
    ['', 'no-device', 4, "there is no device, interface or disk called ''", /nearest/],
    ['lo', 'usage', 2, 'lo is not on the PCI bus', /only PCI devices/],
    ['02:00', 'bad-slot', 2, "'02:00' is neither a slot nor an id", /the nearest is 0000:02:00\.0$/],
  ] as const)
    it(`not by '${word}'`, () => {
      const error = refusal(made(), word);
      assert.deepEqual([error.code, error.exitCode, error.message], [code, exitCode, message]);
      assert.match(error.hint ?? '', hint);
    });

  it('the deepest slot of a path counts', () => {
    assert.equal(slotInPath('/sys/devices/pci0000:00/0000:00:01.1/0000:02:00.0/net/eth0'), '0000:02:00.0');
    assert.equal(slotInPath('/sys/devices/virtual/net/lo'), undefined);
  });
});
