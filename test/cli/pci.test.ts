import assert from 'node:assert/strict';
import {PassThrough} from 'node:stream';
import type {PciResult} from '../../src/entry/cli/commands/pci.js';
import type {MachineDeclaration} from '../simulated-host/declaration.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {addNvidia, functionOf, sriovCard} from '../simulated-host/standard-machine.js';
import {run, typed} from './runs.js';

const card = '0000:02:00.0';
const sound = '0000:02:00.1';
const net = '0000:05:00.0';
const drivers = '/sys/bus/pci/drivers';
const devices = '/sys/bus/pci/devices';

/** A machine with one graphics card, that nobody uses. */
function oneCard(declaration: MachineDeclaration): void {
  declaration.functions = declaration.functions.filter(({slot}) => !slot.startsWith('0000:01:00'));
  declaration.processes = [];
  addNvidia(declaration);
}

describe('pearasys pci', () => {
  const hosts: SimulatedHost[] = [];
  afterEach(() => {
    for (const host of hosts.splice(0)) host.dispose();
  });

  function made(tweak?: (declaration: MachineDeclaration) => void): SimulatedHost {
    const host = SimulatedHost.standard(tweak);
    hosts.push(host);
    return host;
  }

  const driverOf = (host: SimulatedHost, slot: string) => host.machine.functions.get(slot)?.driver;
  const warnings = (stderr: string) =>
    stderr
      .split('\n')
      .filter((line) => line.startsWith('pearasys: warning: '))
      .map((line) => line.slice('pearasys: warning: '.length));

  it('skips in later links what an earlier one has removed along with its PF', async () => {
    const host = made((machine) => machine.functions.push(sriovCard('0000:06:00.0')));
    host.machine.loadModule('igb');
    host.machine.sriov.setVirtualFunctions('0000:06:00.0', '2');
    const virtual = [...host.machine.functions.keys()].filter((slot) => slot.startsWith('0000:06:10'));
    const slots = ['0000:06:00.0', ...virtual].map((slot) => `-s ${slot}`).join(' ');
    const {exitCode, stderr} = await typed(host, `${slots} pci device unbind driver vfio-pci bind`);
    assert.equal(exitCode, 0, stderr);
    assert.equal(driverOf(host, '0000:06:00.0'), 'vfio-pci');
    for (const slot of virtual)
      assert.ok(warnings(stderr).includes(`Skipping device ${slot}, it went away with 0000:06:00.0`), stderr);
  });

  it('chains: from vfio-pci to the vendor’s driver by its ids, and back', async () => {
    const host = made(oneCard);
    await typed(host, '-d 10de:10f0 -d 10de:1b80 pci driver vfio-pci bind');
    host.journal.length = 0;
    const {exitCode, stderr} = await run(host, [
      ...['-d', '10de:1b80', 'pci', 'driver', 'vfio-pci', 'unbind'],
      ...['device', '--driver', '', 'driver-override', 'driver', 'nvidia', 'new-id'],
    ]);
    assert.equal(exitCode, 0, stderr);
    assert.equal(driverOf(host, card), 'nvidia');
  });

  it('the first example of the tool that it replaces, unchanged', async () => {
    const host = made(oneCard);
    await host.run('modprobe', ['vfio-pci']);
    for (const slot of [card, sound]) {
      const driver = driverOf(host, slot) ?? '';
      await host.writeAttribute(`${drivers}/${driver}/unbind`, slot, 1000);
    }
    await host.writeAttribute(`${drivers}/vfio-pci/new_id`, '10de 1b80', 1000);
    await host.writeAttribute(`${drivers}/vfio-pci/new_id`, '10de 10f0', 1000);
    host.journal.length = 0;
    const {exitCode, stderr} = await typed(
      host,
      '-v -d 10de:10f0 -d 10de:1b80 pci driver vfio-pci unbind driver nvidia new-id',
    );
    assert.equal(exitCode, 1);
    // The sound function is no card of nvidia's: told, and that link is undone.
    assert.match(stderr, new RegExp(`writing '${sound}' to ${drivers}/nvidia/bind failed: ENODEV`));
    assert.deepEqual(stderr.split('\n').slice(0, 5), [
      `echo '${card}' > ${drivers}/vfio-pci/unbind`,
      `echo '${sound}' > ${drivers}/vfio-pci/unbind`,
      'modprobe nvidia',
      `test -d ${drivers}/nvidia`,
      `echo '10de 1b80' > ${drivers}/nvidia/new_id || true`,
    ]);
  });

  it('the second example: removes the id, removes the device and finds it again', async () => {
    const host = made(oneCard);
    await host.run('modprobe', ['vfio-pci']);
    await host.writeAttribute(`${drivers}/snd_hda_intel/unbind`, sound, 1000);
    await host.writeAttribute(`${drivers}/vfio-pci/new_id`, '10de 10f0', 1000);
    assert.equal(driverOf(host, sound), 'vfio-pci');
    host.journal.length = 0;
    const {exitCode, stderr} = await typed(
      host,
      '-v -d 10de:10f0 pci driver vfio-pci remove-id device remove rescan',
    );
    assert.equal(exitCode, 0, stderr);
    assert.equal(
      stderr,
      `echo '10de 10f0' > ${drivers}/vfio-pci/remove_id\n` +
        `echo '1' > ${devices}/${sound}/remove\n` +
        "echo '1' > /sys/bus/pci/rescan\n",
    );
    assert.equal(driverOf(host, sound), 'snd_hda_intel');
  });

  it('binds with the driver of the option, and skips devices that are on it', async () => {
    const host = made();
    const first = await typed(host, `-v -s ${net} pci device --driver pci-stub bind`);
    assert.equal(first.exitCode, 0);
    assert.equal(
      first.stderr,
      `modprobe pci-stub\ntest -d ${drivers}/pci-stub\n` +
        `echo 'pci-stub' > ${devices}/${net}/driver_override\n` +
        `echo '${net}' > ${drivers}/e1000e/unbind\n` +
        `echo '${net}' > /sys/bus/pci/drivers_probe\n` +
        `test -e ${drivers}/pci-stub/${net}\n`,
    );
    const second = await typed(host, `-s ${net} -s 04:00.0 pci driver pci-stub bind`);
    assert.equal(second.exitCode, 0);
    assert.deepEqual(warnings(second.stderr), [`Skipping device ${net}, current driver is pci-stub`]);
    assert.equal(driverOf(host, '0000:04:00.0'), 'pci-stub');
  });

  it('unbinds, and skips devices without a driver', async () => {
    const host = made();
    const {exitCode, stderr} = await typed(host, `-s ${net} -s 00:14.2 pci device unbind`);
    assert.equal(exitCode, 0);
    assert.deepEqual(warnings(stderr), ['Skipping device 0000:00:14.2, no driver bound']);
    assert.equal(driverOf(host, net), undefined);
    assert.equal(host.machine.device(net).override, undefined);
  });

  it('a driver that does not have the device cannot unbind it: 3', async () => {
    const host = made();
    const {exitCode, stderr} = await typed(host, `-s ${net} pci driver vfio-pci unbind`);
    assert.equal(exitCode, 3);
    assert.match(stderr, /0000:05:00\.0 \(8086:10d3\) is on e1000e, not on vfio-pci/);
    assert.match(stderr, /nothing was changed/);
  });

  it('an unbind that fails leaves the devices before it as they were', async () => {
    const host = made();
    host.failWrite(`${drivers}/e1000e/unbind`, 'EIO');
    const before = host.machine.bindings();
    assert.equal((await typed(host, `-s ${card} -s ${net} pci device unbind`)).exitCode, 1);
    assert.deepEqual(host.machine.bindings(), before);
  });

  it('an empty driver clears the override', async () => {
    const host = made();
    await typed(host, `-s ${net} pci device --driver vfio-pci driver-override`);
    assert.equal(host.machine.device(net).override, 'vfio-pci');
    assert.equal(driverOf(host, net), 'e1000e');
    for (const words of [['--driver', ''], ['--driver=']]) {
      const {exitCode, stderr} = await run(host, [
        '-v',
        '-s',
        net,
        'pci',
        'device',
        ...words,
        'driver-override',
      ]);
      assert.equal(exitCode, 0);
      assert.equal(stderr, `echo '' > ${devices}/${net}/driver_override\n`);
      assert.equal(host.machine.device(net).override, undefined);
    }
  });

  it('new-id warns about other devices with the id, includes them, and returns all when it fails', async () => {
    const host = made((declaration) => {
      declaration.processes = [];
      for (const slot of ['0000:01:00.0', card]) delete functionOf(declaration, slot).driver;
    });
    const before = host.machine.bindings();
    host.refuseProbe(card, 'vfio-pci');
    const failed = await typed(host, `-s ${card} pci driver vfio-pci new-id`);
    assert.equal(failed.exitCode, 1);
    assert.deepEqual(warnings(failed.stderr), [
      'vfio-pci will also take 0000:01:00.0: it has the same id 10de:1b80 and no driver',
    ]);
    assert.deepEqual(host.machine.bindings(), before);
  });

  it('new-id of an id that the driver knows binds the device, and the id stays known when it fails', async () => {
    const host = made();
    await host.run('modprobe', ['vfio-pci']);
    await host.writeAttribute(`${drivers}/vfio-pci/new_id`, '8086 10d3', 1000);
    await host.writeAttribute(`${drivers}/e1000e/unbind`, net, 1000);
    host.refuseProbe(net, 'vfio-pci', 'ENODEV', 1);
    const line = `-s ${net} pci driver vfio-pci new-id`;
    assert.equal((await typed(host, line)).exitCode, 1);
    assert.ok(!host.effects().some((effect) => effect.includes('remove_id')));
    assert.equal((await typed(host, line)).exitCode, 0);
    assert.equal(driverOf(host, net), 'vfio-pci');
  });

  it('new-id by devices: missing drivers are loaded, bound devices keep theirs', async () => {
    const host = made();
    await host.writeAttribute(`${drivers}/nvme/unbind`, '0000:04:00.0', 1000);
    const {exitCode, stderr} = await typed(host, `-s ${card} -s 04:00.0 pci device --driver vfio-pci new-id`);
    assert.equal(exitCode, 0, stderr);
    assert.equal(driverOf(host, card), 'nouveau');
    assert.equal(driverOf(host, '0000:04:00.0'), 'vfio-pci');
    const alone = await typed(host, '-s 00:14.2 pci device new-id');
    assert.equal(alone.exitCode, 0);
    assert.deepEqual(warnings(alone.stderr), ['Skipping device 0000:00:14.2, no driver bound']);
  });

  it('remove-id of an unknown id is reported', async () => {
    const host = made();
    const {exitCode, stderr} = await typed(host, `-s ${net} pci device remove-id`);
    assert.equal(exitCode, 1);
    assert.match(stderr, /e1000e\/remove_id failed: ENODEV/);
  });

  it('resets, and skips devices without a reset method', async () => {
    const host = made();
    const {exitCode, stderr} = await typed(host, `-v -s ${net} -s 00:14.2 pci device reset`);
    assert.equal(exitCode, 0);
    assert.deepEqual(stderr.split('\n'), [
      'pearasys: warning: Skipping device 0000:00:14.2, no reset function',
      `echo '1' > ${devices}/${net}/reset`,
      '',
    ]);
    assert.equal(host.machine.device(net).resets, 1);
  });

  it('rescans a device’s bus, and all', async () => {
    const host = made();
    assert.equal((await typed(host, '-s 00:1c.4 pci device rescan')).exitCode, 0);
    const {exitCode, stderr} = await typed(host, '-v pci rescan');
    assert.deepEqual([exitCode, stderr], [0, "echo '1' > /sys/bus/pci/rescan\n"]);
  });

  it('lists the files of a driver’s folder, and with --json its devices too', async () => {
    const host = made();
    assert.deepEqual(await typed(host, 'pci driver nvme ls'), {
      exitCode: 0,
      stdout: `${host.list(`${drivers}/nvme`).join('\n')}\n`,
      stderr: '',
    });
    const {stdout} = await typed(host, 'pci driver nvme ls --json');
    const result = JSON.parse(stdout) as PciResult;
    assert.deepEqual(
      result.devices.map(({slot}) => slot),
      ['0000:03:00.0', '0000:04:00.0'],
    );
    assert.deepEqual(result.listed, [{driver: 'nvme', files: host.list(`${drivers}/nvme`)}]);
    assert.ok(result.listed[0]?.files.includes('new_id'));
  });

  for (const [name, message] of [
    ['nothing', /no PCI driver nothing is registered\ntry: ls \/sys\/bus\/pci\/drivers; the nearest is /],
    ['nvmee', /the nearest is nvme\n/],
    // Not loaded.
    ['vfio-pci', /no PCI driver vfio-pci is registered/],
    ['xhci_pci', /xhci_pci is a module; its PCI driver is called xhci_hcd\n/],
  ] as const)
    it(`a missing driver has nothing to list: ${name}`, async () => {
      const {exitCode, stdout, stderr} = await typed(made(), `pci driver ${name} ls`);
      assert.deepEqual([exitCode, stdout], [4, ''], stderr);
      assert.match(stderr, message);
    });

  it('the devices of a link replace the outer ones, only for that link', async () => {
    const host = made();
    const {exitCode, stderr} = await typed(
      host,
      `-s ${net} pci device -s 04:00.0 unbind driver -d 8086:10d3 e1000e unbind device --driver=pci-stub bind`,
    );
    assert.equal(exitCode, 0, stderr);
    assert.equal(driverOf(host, '0000:04:00.0'), undefined);
    assert.equal(driverOf(host, net), 'pci-stub');
  });

  it('accepts common options before it, and anywhere in it', async () => {
    for (const line of [
      `--slot=${net} -v pci device unbind`,
      `-vs ${net} pci device unbind`,
      `-s${net} pci device unbind -v`,
      `pci -v device --slot ${net} unbind`,
      `pci device -d8086:10d3 unbind --verbose`,
      `--pid 8086:10d3 pci device unbind --timeout 3 -v`,
    ]) {
      const host = made();
      const {exitCode, stderr} = await typed(host, line);
      assert.equal(exitCode, 0, `${line}\n${stderr}`);
      assert.equal(stderr, `echo '${net}' > ${drivers}/e1000e/unbind\n`, line);
    }
  });

  it('a chain ends with the link that fails; those before it stay done', async () => {
    const host = made();
    host.refuseProbe(net, 'pci-stub');
    const {exitCode} = await typed(host, `-s ${net} pci device unbind driver pci-stub bind rescan`);
    assert.equal(exitCode, 1);
    assert.equal(driverOf(host, net), undefined);
    assert.ok(!host.effects().some((line) => line.includes('rescan')));
  });

  it('a device that disappeared in an earlier link is 4', async () => {
    const host = made();
    const {exitCode, stderr} = await typed(host, `-s ${net} pci device remove device reset`);
    assert.equal(exitCode, 4);
    assert.match(stderr, /there is no device in slot 0000:05:00\.0/);
  });

  it('--dry-run shows all links and does nothing', async () => {
    const host = made();
    const {stdout} = await typed(host, `-s ${net} pci device unbind device remove rescan --dry-run`);
    assert.equal(
      stdout,
      `echo '${net}' > ${drivers}/e1000e/unbind\necho '1' > ${devices}/${net}/remove\necho '1' > /sys/bus/pci/rescan\n`,
    );
    assert.deepEqual(host.effects(), []);
  });

  it('refuses bridges and devices in use or locked, in every link that would unbind them', async () => {
    const host = made();
    for (const verb of ['unbind', 'remove', 'reset', '--driver pci-stub bind'])
      for (const slot of ['03:00.0', '00:1f.6', '00:1c.0']) {
        const {exitCode, stderr} = await typed(host, `-s ${slot} pci device ${verb}`);
        assert.equal(exitCode, 3, `${slot} ${verb}\n${stderr}`);
        assert.match(stderr, /nothing was changed/);
      }
    assert.deepEqual(host.effects(), []);
    host.machine.holdLock(net);
    for (const verb of ['unbind', 'remove', 'reset', 'new-id', '--driver pci-stub driver-override']) {
      const {exitCode, stderr} = await typed(host, `-s ${net} pci device ${verb}`);
      assert.equal(exitCode, 5, `${verb}\n${stderr}`);
    }
    assert.deepEqual(host.effects(), []);
  });

  it('wrong words are 2, with what is expected', async () => {
    const host = made();
    for (const [argv, message] of [
      [['pci'], /nothing to do\ntry: one of rescan, driver, device/],
      [['pci', 'devise', 'unbind'], /'devise' is not expected here\ntry: .*the nearest is device/],
      [['pci', 'device'], /missing: what to do/],
      [['pci', 'device', 'unbound'], /'unbound' is not expected here\ntry: .*the nearest is unbind/],
      [['pci', 'driver'], /missing: DRIVER/],
      [['pci', 'driver', 'vfio-pci'], /missing: what to do/],
      [['pci', 'driver', '../x', 'ls'], /is not a driver's name/],
      [['pci', 'driver', 'vfio-pci', 'reset'], /'reset' is not expected here/],
      [
        ['pci', 'driver', '--driver', 'x', 'vfio-pci', 'bind'],
        /pearasys pci driver has no option --driver\n/,
      ],
      [['pci', 'device', '-s'], /-s needs a value/],
      [['-s', net, 'pci', 'device', 'bind'], /needs a driver/],
      [['-s', net, 'pci', 'device', 'driver-override'], /missing: --driver DRIVER/],
      [['-s', net, 'pci', 'device', '--driver', '../x', 'driver-override'], /is not a driver's name/],
      [['-s', net, 'pci', 'driver', 'vfoi-pci', 'bind'], /the nearest is vfio-pci/],
      [['-s', net, 'pci', 'driver', 'vfoi-pci', 'new-id'], /the nearest is vfio-pci/],
      [['-s', 'nonsense:', 'pci', 'device', 'unbind'], /nonsense:/],
      [['pci', 'device', 'unbind'], /no device was named\ntry: name it by slot/],
    ] as const) {
      const {exitCode, stderr} = await run(host, argv);
      assert.equal(exitCode, 2, `${argv.join(' ')}\n${stderr}`);
      assert.match(stderr, message);
    }
    assert.deepEqual(host.effects(), []);
  });

  describe('at a terminal', () => {
    /** Types these keys when the question is there. */
    async function answering(host: SimulatedHost, argv: readonly string[], keys: readonly string[]) {
      const before = [
        ['stdin', Object.getOwnPropertyDescriptor(process, 'stdin')],
        ['stderr', Object.getOwnPropertyDescriptor(process, 'stderr')],
      ] as const;
      const input = new PassThrough();
      const output = new PassThrough();
      let shown = '';
      output.on('data', (data: Buffer) => {
        if (shown === '' && keys.length > 0)
          setTimeout(() => {
            for (const key of keys) input.write(key);
          }, 20);
        shown += data.toString();
      });
      Object.defineProperty(process, 'stdin', {configurable: true, value: input});
      Object.defineProperty(process, 'stderr', {configurable: true, value: output});
      try {
        return {...(await run(host, argv, {interactive: true})), shown};
      } finally {
        for (const [name, descriptor] of before)
          if (descriptor !== undefined) Object.defineProperty(process, name, descriptor);
      }
    }

    it('without a device: a list to choose from, without bridges', async () => {
      const host = made();
      // Up from the first to the last, which is the idle network card.
      const {exitCode, stderr, shown} = await answering(
        host,
        ['pci', 'device', 'unbind'],
        ['\u001B[A', ' ', '\r'],
      );
      assert.equal(exitCode, 0, stderr);
      assert.match(shown, /Which devices\?/);
      assert.doesNotMatch(shown, /0000:00:1c\.0/);
      assert.equal(driverOf(host, net), undefined);
    });

    it('an interrupted question is not an internal error, and nothing happens', async () => {
      const host = made();
      const {exitCode, stderr} = await answering(host, ['pci', 'device', 'unbind'], ['\u0003']);
      assert.equal(exitCode, 1);
      assert.match(stderr, /^pearasys: interrupted\n/);
      assert.deepEqual(host.effects(), []);
    });
  });
});
