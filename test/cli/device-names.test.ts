import assert from 'node:assert/strict';
import type {MachineDeclaration} from '../simulated-host/declaration.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {run, typed} from './runs.js';

const net = '0000:05:00.0';
const card = ['0000:02:00.0', '0000:02:00.1'];

interface Shown {
  readonly devices: readonly {readonly slot: string}[];
}

describe('one device by each of its names', () => {
  const hosts: SimulatedHost[] = [];
  afterEach(() => {
    for (const host of hosts.splice(0)) host.dispose();
  });

  function made(tweak?: (declaration: MachineDeclaration) => void): SimulatedHost {
    const host = SimulatedHost.standard((declaration) => {
      declaration.processes = [];
      tweak?.(declaration);
    });
    hosts.push(host);
    return host;
  }

  async function json<T>(host: SimulatedHost, argv: readonly string[]): Promise<T> {
    const {exitCode, stdout, stderr} = await run(host, [...argv, '--json']);
    assert.equal(exitCode, 0, `${argv.join(' ')}\n${stderr}`);
    return JSON.parse(stdout) as T;
  }

  const names = [
    '0000:05:00.0',
    '05:00.0',
    '00000000:05:00.0',
    'pci_0000_05_00_0',
    'pci@0000:05:00.0',
    'PCI:5:0:0',
    'eth1',
    '/sys/class/net/eth1',
    '/sys/bus/pci/devices/0000:05:00.0',
    '/sys/devices/pci0000:00/0000:00:1d.0/0000:05:00.0',
  ];

  for (const name of names)
    it(`'${name}' in arguments and options`, async () => {
      const host = made();
      host.machine.tree.file('/etc/pearasys/guests/win11.conf', `${net}\n`);
      for (const argv of [
        ['show', name],
        ['-s', name, 'show'],
        ['bind', 'none', name, '--dry-run'],
        ['--slot', name, 'unbind', '--dry-run'],
        ['-s', name, 'pci', 'device', 'rescan', '--dry-run'],
        ['pci', 'device', '-s', name, 'rescan', '--dry-run'],
        ['-s', name, 'service', 'install', 'none', '--dry-run'],
        ['guest', 'setup', 'other', '--yes', '--device', name, '--dry-run'],
      ]) {
        const {devices} = await json<Shown>(host, argv);
        assert.deepEqual(
          devices.map(({slot}) => slot),
          [net],
          argv.join(' '),
        );
      }
      assert.deepEqual(await json(host, ['guest', 'of', name]), {slot: net, guests: ['win11']});
      assert.deepEqual(await json(host, ['guest', 'virsh-name', name]), {
        slot: net,
        name: 'pci_0000_05_00_0',
      });
      assert.deepEqual(
        (await json<{device_pci_id: string[]}>(host, ['guest', 'query', 'win11', name])).device_pci_id,
        [net],
      );
    });

  it('below --root, as on that machine or with the folder before it', async () => {
    const host = made();
    const {folder} = host.machine;
    for (const name of ['00000000:05:00.0', 'eth1', '/sys/class/net/eth1', `${folder}/sys/class/net/eth1`]) {
      const {devices} = await json<Shown>(host, ['--root', folder, 'show', name]);
      assert.deepEqual(
        devices.map(({slot}) => slot),
        [net],
        name,
      );
    }
  });

  it('any of them finds and removes a record', async () => {
    const host = made();
    assert.equal((await typed(host, `-s ${net} service install none`)).exitCode, 0);
    const {devices} = await json<Shown>(host, [
      '-s',
      'pci_0000_05_00_0',
      'service',
      'uninstall',
      '--dry-run',
    ]);
    assert.deepEqual(
      devices.map(({slot}) => slot),
      [net],
    );
  });

  it('in files: a guest’s, a record, what driverctl has saved', async () => {
    const host = made();
    const {tree} = host.machine;
    tree.file('/etc/pearasys/guests/win11.conf', 'pci_0000_02_00_0\n00000000:02:00.1 # sound\n');
    tree.file('/etc/driverctl.d/pci-00000000:05:00.0', 'none\n');
    tree.file('/etc/driverctl.d/pci-0000:05:00.0', 'none\n');
    assert.deepEqual((await json<{devices: string[]}>(host, ['guest', 'query', 'win11'])).devices, card);
    const {stdout, stderr} = await typed(host, 'service import --dry-run --json');
    const {units, left} = JSON.parse(stdout) as {units: string[]; left: {path: string}[]};
    assert.deepEqual(units, ['pearasys-0000:05:00.0@none.service'], stderr);
    assert.deepEqual(
      left.map(({path}) => path),
      ['/etc/driverctl.d/pci-0000:05:00.0'],
    );
  });

  for (const name of [
    '02:00',
    '0000:02:00.*',
    '00000000:02:00.*',
    '/dev/vfio/2',
    '/sys/kernel/iommu_groups/2',
  ])
    it(`'${name}' selects all functions of the card, and is refused where one is expected`, async () => {
      const host = made();
      for (const argv of [
        ['show', name],
        ['bind', 'none', name, '--dry-run'],
        ['-s', name, 'service', 'install', 'none', '--dry-run'],
      ])
        assert.deepEqual(
          (await json<Shown>(host, argv)).devices.map(({slot}) => slot),
          card,
          argv.join(' '),
        );
      for (const argv of [
        ['guest', 'of', name],
        ['guest', 'virsh-name', name],
        ['guest', 'query', 'win11', name],
      ]) {
        const {exitCode, stderr} = await run(host, argv);
        assert.equal(exitCode, 2, stderr);
        assert.match(
          stderr,
          /matches 2 devices, but only one is allowed here\ntry: name one of them: 0000:02:00\.0, /,
        );
      }
    });

  it('a card in a guest’s file is reported with what is expected', async () => {
    const host = made();
    host.machine.tree.file('/etc/pearasys/guests/win11.conf', '02:00.*\n');
    const {stderr} = await typed(host, 'guest list');
    assert.match(stderr, /line 1 is '02:00\.\*', expected one function, as in 0000:02:00\.0/);
  });

  for (const [argv, code, message] of [
    [['-s', 'zz:yy', 'pci', 'rescan'], 2, /'zz:yy' is neither a slot nor an id/],
    [['-s', '02:00.9', 'pci', 'rescan'], 2, /neither a slot nor an id.*\n.*the nearest is 0000:02:00\.\d/],
    [['-d', '02:00.0', 'pci', 'rescan'], 2, /'02:00\.0' is not an id\ntry: it is a slot: -s 02:00\.0/],
    [['-d', 'eth1', 'pci', 'driver', 'nvme', 'ls'], 2, /'eth1' is not an id/],
    [['-d', 'eth1', 'show'], 2, /'eth1' is not an id/],
    [['--id=x', 'bind', 'none'], 2, /'x' is not an id/],
    [['-s', '', 'pci', 'rescan'], 2, /'' is neither a slot nor an id/],
    [['-s', 'zz:yy', 'pci', 'driver', 'nvme', 'ls'], 2, /neither a slot nor an id/],
    [
      ['-s', '77:00.0', 'pci', 'driver', 'nvme', '-s', 'zz:yy', 'ls'],
      2,
      /'zz:yy' is neither a slot nor an id/,
    ],
    [['-s', 'zz:yy', 'list'], 2, /this command has no option -s\n/],
    [['--timeout', 'x', 'pci', 'rescan'], 2, /timeout|integer/i],
    [
      ['service', 'install', 'none', '-d', '10de:1b80', '--any-slot', '--prefix', '../x'],
      2,
      /'\.\.\/x' is not a folder for units/,
    ],
    [['--root', '/etc/passwd', 'guest', 'virsh-name', '02:00.0'], 2, /'\/etc\/passwd' is not a folder/],
    [['--root', '', 'list'], 2, /'' is not a folder/],
    [['--root', '/etc/passwd', 'guest', 'list'], 2, /'\/etc\/passwd' is not a folder/],
  ] as const)
    it(`a wrong option is an error, used or not: ${argv.join(' ')}`, async () => {
      const host = made();
      const {exitCode, stderr} = await run(host, argv);
      assert.equal(exitCode, code, stderr);
      assert.match(stderr, message);
      assert.deepEqual(host.effects(), []);
    });

  it('a slot without a device is accepted by a command that does not use it', async () => {
    const host = made();
    assert.equal((await typed(host, '-s 77:00.0 pci rescan')).exitCode, 0);
    assert.equal((await typed(host, '-d ffff:0001 pci rescan')).exitCode, 0);
  });
});
