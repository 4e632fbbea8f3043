import assert from 'node:assert/strict';
import {PearasysError} from '../../src/host/errors.js';
import {readDevices} from '../../src/devices/pci/device.js';
import {
  findDevices,
  findSlot,
  slotInPath,
  slotsOfName,
  type FindOptions,
} from '../../src/devices/pci/find.js';
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

  it('by id, which must match one device unless all are wanted', () => {
    const host = made();
    assert.deepEqual(find(host, ['8086:10D3']), ['0000:05:00.0']);
    const error = refusal(host, '10de:1b80');
    assert.deepEqual([error.code, error.exitCode], ['ambiguous-device', 2]);
    assert.match(error.hint ?? '', /--all/);
    assert.deepEqual(find(host, ['10de:1b80'], {all: true}), ['0000:01:00.0', '0000:02:00.0']);
  });

  it('by the name of an interface, a disk or a partition; each device once, under any names', () => {
    const host = made();
    assert.deepEqual(find(host, ['eth1', '05:00.0', '8086:10d3']), ['0000:05:00.0']);
    assert.deepEqual(find(host, ['nvme0n1', 'nvme0n1p2', 'nvme1n1']), ['0000:03:00.0', '0000:04:00.0']);
  });

  for (const [word, slots] of [
    ['00000000:02:00.1', ['0000:02:00.1']],
    ['pci_0000_02_00_1', ['0000:02:00.1']],
    ['pci@0000:02:00.1', ['0000:02:00.1']],
    ['PCI:2:0:1', ['0000:02:00.1']],
    ['02:00', ['0000:02:00.0', '0000:02:00.1']],
    ['0000:02:00.*', ['0000:02:00.0', '0000:02:00.1']],
    ['0x10DE:0x10F0', ['0000:01:00.1', '0000:02:00.1']],
    ['nvme1', ['0000:04:00.0']],
    ['/dev/nvme1', ['0000:04:00.0']],
    ['/dev/nvme1n1', ['0000:04:00.0']],
    ['/dev/nvme0n1p2', ['0000:03:00.0']],
    ['card0', ['0000:01:00.0']],
    ['/dev/dri/card1', ['0000:02:00.0']],
    ['renderD129', ['0000:02:00.0']],
    ['/dev/dri/renderD128', ['0000:01:00.0']],
    ['/dev/snd/controlC0', ['0000:01:00.1']],
    ['usb1', ['0000:00:14.0']],
    ['/dev/bus/usb/001/001', ['0000:00:14.0']],
    ['/sys/class/net/eth1', ['0000:05:00.0']],
    ['/sys/bus/pci/devices/0000:05:00.0/net/eth1', ['0000:05:00.0']],
    ['/sys/kernel/iommu_groups/2', ['0000:02:00.0', '0000:02:00.1']],
  ] as const)
    it(`another spelling of the same: '${word}'`, () => {
      assert.deepEqual(find(made(), [word], {all: true}), slots);
    });

  it('another spelling of the same: links in /dev, also without nodes', () => {
    const host = made((declaration) => {
      declaration.files['/dev/disk/by-id/README'] = '';
    });
    const link = (path: string, target: string) => host.machine.tree.link(path, target);
    link('/dev/disk/by-id/nvme-Samsung_1', '/dev/nvme1n1');
    link('/dev/disk/by-path/pci-0000:09:00.0-nvme-1', '/dev/nvme9n1');
    assert.deepEqual(find(host, ['/dev/disk/by-id/nvme-Samsung_1']), ['0000:04:00.0']);
    assert.deepEqual(refusal(host, '/dev/disk/by-path/pci-0000:09:00.0-nvme-1').exitCode, 4);
  });

  it('a VFIO group means all its members', () => {
    const host = made();
    assert.deepEqual(find(host, ['/dev/vfio/2']), ['0000:02:00.0', '0000:02:00.1']);
  });

  it('one where only one is allowed; a slot need not exist', () => {
    const host = made();
    const one = (word: string) => findSlot(host, () => readDevices(host), word);
    assert.equal(one('00000000:77:00.0'), '0000:77:00.0');
    assert.equal(one('eth1'), '0000:05:00.0');
    assert.throws(() => one('02:00.*'), {code: 'ambiguous-device', exitCode: 2});
    assert.throws(() => one('eth9'), {code: 'no-device', exitCode: 4});
  });

  it('by a disk that has several paths', () => {
    const host = made((declaration) => {
      functionOf(declaration, '0000:03:00.0').nvme!.multipath = true;
    });
    assert.deepEqual(find(host, ['nvme0n1']), ['0000:03:00.0']);
    assert.deepEqual(slotsOfName(host, 'nvme0n1'), ['0000:03:00.0']);
  });

  it('returns the device that was read, without reading it again', () => {
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
    ['', 'bad-slot', 2, "'' is neither a slot nor an id", /nearest/],
    ['/home', 'bad-slot', 2, "'/home' is not the path of a device", /findmnt/],
    ['/dev/null', 'usage', 2, '/dev/null is not on the PCI bus', /only PCI devices/],
    [
      '/dev/vfio/999',
      'no-device',
      4,
      "there is no device, interface or disk called '/dev/vfio/999'",
      /nearest/,
    ],
    ['/sys/class/net/lo', 'usage', 2, '/sys/class/net/lo is not on the PCI bus', /only PCI devices/],
    ['07:00.*', 'no-device', 4, 'there is no device in slot 0000:07:00', /the nearest is 0000:/],
    ['pci_0000_77_00_0', 'no-device', 4, 'there is no device in slot 0000:77:00.0', /nearest/],
    ['02:00.8', 'bad-slot', 2, "'02:00.8' is neither a slot nor an id", /the nearest is 0000:02:00\.\d$/],
    ['eth 0', 'bad-slot', 2, "'eth 0' is neither a slot nor an id", /nearest/],
    ['eth\u001b[31m', 'bad-slot', 2, "'eth\u001b[31m' is neither a slot nor an id", /nearest/],
    ['lo', 'usage', 2, 'lo is not on the PCI bus', /only PCI devices/],
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
