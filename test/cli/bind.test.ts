import assert from 'node:assert/strict';
import type {ChangeResult} from '../../src/entry/cli/switching.js';
import type {MachineDeclaration} from '../simulated-host/declaration.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {functionOf} from '../simulated-host/standard-machine.js';
import {run, typed} from './runs.js';

const card = '0000:02:00.0';
const sound = '0000:02:00.1';

describe('pearasys bind', () => {
  const hosts: SimulatedHost[] = [];
  afterEach(() => {
    for (const host of hosts.splice(0)) host.dispose();
  });

  function made(tweak?: (declaration: MachineDeclaration) => void): SimulatedHost {
    const host = SimulatedHost.standard(tweak);
    hosts.push(host);
    return host;
  }

  const drivers = (host: SimulatedHost, ...slots: string[]) =>
    slots.map((slot) => host.machine.device(slot).driver);

  /** It ends with this code and text, and nothing is lost. */
  async function refused(
    host: SimulatedHost,
    argv: readonly string[],
    code: number,
    message: RegExp,
  ): Promise<string> {
    const before = host.machine.bindings();
    const {exitCode, stdout, stderr} = await run(host, argv);
    assert.equal(exitCode, code, `${argv.join(' ')}\n${stderr}`);
    assert.match(stderr, message);
    assert.equal(stdout, '');
    assert.deepEqual(host.machine.bindings(), before);
    assert.deepEqual(host.machine.harm, []);
    return stderr;
  }

  it('puts a card with all its functions on the driver, and back on the default one', async () => {
    const host = made();
    const before = host.machine.bindings();
    assert.deepEqual(await typed(host, 'bind vfio-pci 02:00.0 --siblings'), {
      exitCode: 0,
      stdout: `${card} (10de:1b80) is on vfio-pci\n${sound} (10de:10f0) is on vfio-pci\n`,
      stderr: '',
    });
    assert.deepEqual(await typed(host, 'bind vfio-pci 02:00.0 02:00.1'), {
      exitCode: 0,
      stdout: `${card} (10de:1b80) is already on vfio-pci\n${sound} (10de:10f0) is already on vfio-pci\n`,
      stderr: '',
    });
    assert.deepEqual(await typed(host, 'bind default --group 02:00.1'), {
      exitCode: 0,
      stdout: `${card} (10de:1b80) is on nouveau\n${sound} (10de:10f0) is on snd_hda_intel\n`,
      stderr: '',
    });
    assert.deepEqual(host.machine.bindings(), before);
  });

  it('none keeps every driver off', async () => {
    const host = made();
    assert.equal(
      (await typed(host, 'bind none nvme1n1')).stdout,
      '0000:04:00.0 (144d:a80a) has no driver, and all drivers are kept off\n',
    );
    assert.equal(host.machine.device('0000:04:00.0').override, 'none');
  });

  it('prints one shape as JSON', async () => {
    const host = made();
    const {stdout, stderr} = await typed(host, '--json bind vfio-pci eth1');
    assert.equal(stderr, '');
    assert.deepEqual(JSON.parse(stdout), {
      changed: true,
      dryRun: false,
      steps: [
        'modprobe vfio-pci',
        'test -d /sys/bus/pci/drivers/vfio-pci',
        "echo 'vfio-pci' > /sys/bus/pci/devices/0000:05:00.0/driver_override",
        "echo '0000:05:00.0' > /sys/bus/pci/drivers/e1000e/unbind",
        "echo '0000:05:00.0' > /sys/bus/pci/drivers_probe",
        'test -e /sys/bus/pci/drivers/vfio-pci/0000:05:00.0',
      ],
      notes: [],
      devices: [{slot: '0000:05:00.0', id: '8086:10d3', driver: 'vfio-pci', override: 'vfio-pci'}],
    } satisfies ChangeResult);
  });

  it('--dry-run shows the steps without being root, and does nothing', async () => {
    const host = made();
    host.userId = 1000;
    const {exitCode, stdout} = await typed(host, 'bind none eth1 --dry-run');
    assert.equal(exitCode, 0);
    assert.equal(
      stdout,
      "echo 'none' > /sys/bus/pci/devices/0000:05:00.0/driver_override\n" +
        "echo '0000:05:00.0' > /sys/bus/pci/drivers/e1000e/unbind\n" +
        'test ! -e /sys/bus/pci/devices/0000:05:00.0/driver\n',
    );
    assert.deepEqual(host.effects(), []);
    const nothing = await typed(host, 'bind e1000e eth1 --dry-run');
    assert.deepEqual(nothing, {exitCode: 0, stdout: '', stderr: 'nothing to do\n'});
  });

  it('-v prints each step before it is done, and what is undone', async () => {
    const host = made();
    host.refuseProbe('0000:05:00.0', 'vfio-pci');
    const {exitCode, stderr} = await typed(host, '-v bind vfio-pci eth1');
    assert.equal(exitCode, 1);
    assert.match(stderr, /^echo '0000:05:00\.0' > \/sys\/bus\/pci\/drivers\/e1000e\/unbind$/m);
    assert.match(
      stderr,
      /^echo '0000:05:00\.0' > \/sys\/bus\/pci\/drivers\/e1000e\/bind \|\| true {2}# undoing$/m,
    );
  });

  it('refuses wrong arguments with 2, and says what is expected', async () => {
    const host = made();
    for (const [argv, message] of [
      [['bind'], /missing: DRIVER/],
      [['bind', 'vfio-pci'], /no device was named/],
      [
        ['bind', 'vfio-pci', '02:0'],
        /'02:0' is neither a slot nor an id\ntry: a slot looks like .* the nearest is 0000:02:00\.0/,
      ],
      [['bind', 'vfio-pci', '2:0.0'], /neither a slot nor an id/],
      [['bind', 'vfio-pci', '02:00.8'], /neither a slot nor an id/],
      [['bind', 'vfio-pci', '0000:02:00.0:1'], /neither a slot nor an id/],
      [['bind', 'vfio-pci', '10de:1b8g'], /neither a slot nor an id/],
      [
        ['bind', '02:00.0', 'vfio-pci'],
        /'02:00\.0' is not a driver's name\ntry: it looks like a device: the driver comes first/,
      ],
      [['bind', '../../etc', '02:00.0'], /'\.\.\/\.\.\/etc' is not a driver's name/],
      [['bind', '', '02:00.0'], /is not a driver's name/],
      [['bind', 'a'.repeat(65), '02:00.0'], /is not a driver's name/],
      [['bind', 'vfio pci', '02:00.0'], /is not a driver's name/],
      [
        ['bind', 'vfio-pcii', '02:00.0', '--siblings'],
        /no PCI driver vfio-pcii, and no module of the running kernel provides one\n.*\n.*the nearest is vfio-pci\n/,
      ],
      [
        ['bind', 'vfio_pci', '02:00.0', '--siblings'],
        /vfio_pci is a module, not a driver\n.*\n.*its PCI driver is called vfio-pci\n/,
      ],
      [['bind', 'xhci_pci', '02:00.0', '--siblings'], /its PCI driver is called xhci_hcd\n/],
      [['bind', 'vfio-pci', 'lo'], /lo is not on the PCI bus/],
      [
        ['bind', 'vfio-pci', '10de:1b80'],
        /id 10de:1b80 matches 2 devices: 0000:01:00\.0, 0000:02:00\.0\n.*--all/,
      ],
      [['bind', 'vfio-pci', '02:00.0', '--timeout', '0'], /timeout/],
      [['bind', 'vfio-pci', '02:00.0', '--farce'], /this command has no option --farce\n.*--force/],
    ] as const)
      await refused(host, argv, 2, message);
    assert.deepEqual(host.effects(), []);
  });

  it('a missing device is 4, with the nearest one', async () => {
    const host = made();
    await refused(
      host,
      ['bind', 'vfio-pci', '02:00.2'],
      4,
      /no device in slot 0000:02:00\.2\n.*the nearest is 0000:02:00\.[01]/,
    );
    await refused(
      host,
      ['bind', 'vfio-pci', '10de:1b81'],
      4,
      /no device with id 10de:1b81\n.*the nearest is 10de:1b80/,
    );
    await refused(host, ['bind', 'vfio-pci', 'eth9'], 4, /called 'eth9'\n.*the nearest is eth0/);
    host.machine.hotRemove(sound);
    await refused(host, ['bind', 'vfio-pci', '02:00.1'], 4, /no device in slot/);
  });

  it('a device that disappears during the wait for its lock is 4, and the other one is not touched', async () => {
    const host = made();
    const other = new SimulatedHost(host.machine);
    const lock = await other.lock(card, 1000);
    const waiting = typed(host, 'bind vfio-pci 02:00.0 02:00.1');
    await new Promise((resolve) => setTimeout(resolve, 150));
    host.machine.hotRemove(sound);
    await lock.release();
    const {exitCode, stderr} = await waiting;
    assert.equal(exitCode, 4, stderr);
    assert.deepEqual(drivers(host, card), ['nouveau']);
    assert.deepEqual(host.effects(), []);
  });

  it('a device in use, a bridge, a group that is not viable: 3, and nothing is lost', async () => {
    const host = made();
    await refused(
      host,
      ['bind', 'vfio-pci', 'nvme0n1'],
      3,
      /0000:03:00\.0 \(144d:a808\) is in use\n(?:.*\n)*.*nothing was changed/,
    );
    await refused(host, ['bind', 'vfio-pci', 'nvme0n1', '--force'], 3, /is in use/);
    await refused(host, ['bind', 'vfio-pci', 'eth0'], 3, /carries the last route to this machine/);
    await refused(host, ['bind', 'vfio-pci', '01:00.0', '--siblings'], 3, /Xorg/);
    await refused(host, ['bind', 'vfio-pci', '00:01.0'], 3, /is a bridge/);
    await refused(host, ['bind', 'vfio-pci', '02:00.0'], 3, /group 2 would not be viable/);
    assert.deepEqual(host.effects(), []);
  });

  it('without an IOMMU vfio-pci is refused with 3, another driver is not', async () => {
    const host = made((declaration) => (declaration.iommu = false));
    await refused(
      host,
      ['bind', 'vfio-pci', 'eth1'],
      3,
      /has no IOMMU group, and vfio-pci needs one\n(?:.*\n)*.*intel_iommu=on/,
    );
    assert.equal((await typed(host, 'bind pci-stub eth1')).exitCode, 0);
  });

  it('without sysfs, and without being root: 1, clearly', async () => {
    const host = made();
    host.userId = 1000;
    const stderr = await refused(
      host,
      ['bind', 'pci-stub', 'eth1'],
      1,
      /^pearasys: changing a device needs root\n {2}nothing was changed\n/,
    );
    assert.match(stderr, /--dry-run/);
    await refused(host, ['bind', 'vfio-pci', '02:00.0'], 3, /would not be viable/);
    host.userId = 0;
    host.machine.tree.remove('/sys');
    const {exitCode, stderr: told} = await typed(host, 'bind pci-stub 05:00.0');
    assert.equal(exitCode, 1);
    assert.match(told, /sysfs is not mounted\ntry: mount sysfs with: mount -t sysfs sysfs \/sys\n$/);
  });

  it('a driver that rejects the device: 1, the device is back, and JSON has the error', async () => {
    const host = made();
    host.refuseProbe(sound, 'vfio-pci');
    const before = host.machine.bindings();
    const {exitCode, stdout} = await typed(host, 'bind vfio-pci 02:00.0 --siblings --json');
    assert.equal(exitCode, 1);
    const {error} = JSON.parse(stdout) as {error: {code: string; details: string[]}};
    assert.equal(error.code, 'not-bound');
    assert.ok(error.details.includes(`state of ${card}: on driver nouveau`));
    assert.deepEqual(host.machine.bindings(), before);
  });

  it('a write that does not return: 5; a second call is immediately refused with 5', async () => {
    const host = made();
    host.neverReturn('/sys/bus/pci/drivers/e1000e/unbind');
    const {exitCode, stderr} = await typed(host, 'bind pci-stub eth1 --timeout 3');
    assert.equal(exitCode, 5);
    assert.match(stderr, /did not return within 3 s/);
    assert.match(stderr, /state of 0000:05:00\.0: unknown until that write returns/);
    const writes = host.journal.length;
    const again = await typed(host, 'bind pci-stub 05:00.0');
    assert.equal(again.exitCode, 5);
    assert.match(again.stderr, /is locked by the kernel/);
    assert.equal(host.journal.length, writes);
  });

  it('a second call that waited for the first, whose write did not return, ends with 5 as well', async () => {
    const host = made();
    host.neverReturn('/sys/bus/pci/drivers/e1000e/unbind');
    // Each has read the device, and found nothing wrong, before either goes on.
    const asking: (() => void)[] = [];
    const lock = host.lock.bind(host);
    host.lock = async (...args) => {
      await new Promise<void>((resolve) => {
        asking.push(resolve);
        if (asking.length > 1) for (const go of asking) go();
      });
      return lock(...args);
    };
    const calls = await Promise.all([
      typed(host, 'bind pci-stub 05:00.0 --timeout 3'),
      typed(host, 'bind vfio-pci 05:00.0 --timeout 3'),
    ]);
    assert.deepEqual(
      calls.map(({exitCode}) => exitCode),
      [5, 5],
    );
    // One of them wrote, and the other one was kept from it.
    const telling = (what: RegExp) => calls.filter(({stderr}) => what.test(stderr)).length;
    assert.equal(telling(/did not return within 3 s/), 1);
    assert.equal(telling(/0000:05:00\.0 .*is locked by the kernel/), 1);
  });

  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    it(`undoes the switch on ${signal}`, async () => {
      const host = made();
      const before = host.machine.bindings();
      host.afterEffect((effect) => {
        if (effect.kind === 'write' && effect.path.endsWith('/nouveau/unbind')) process.emit(signal);
      });
      const {exitCode, stderr} = await typed(host, 'bind vfio-pci 02:00.0 --siblings');
      assert.equal(exitCode, 1);
      assert.match(stderr, /^pearasys: interrupted\n/);
      assert.deepEqual(host.machine.bindings(), before);
      assert.equal(process.listenerCount(signal), 0);
    });

  it('two concurrent runs on one card: one waits for the other, and the last one decides the state', async () => {
    const host = made();
    const other = new SimulatedHost(host.machine);
    const [one, two] = await Promise.all([
      typed(host, 'bind vfio-pci 02:00.0 02:00.1'),
      typed(other, 'bind pci-stub 02:00.1 02:00.0'),
    ]);
    assert.deepEqual([one.exitCode, two.exitCode], [0, 0]);
    const [first, second] = drivers(host, card, sound);
    assert.equal(first, second);
    assert.ok(first === 'vfio-pci' || first === 'pci-stub');
  });

  it('and is refused with 3 if the other takes too long', async () => {
    const host = made();
    host.lockPatience = 20;
    const lock = await new SimulatedHost(host.machine).lock(sound, 1000);
    await refused(
      host,
      ['bind', 'vfio-pci', '02:00.0', '--siblings'],
      3,
      /could not lock 0000:02:00\.1: another pearasys command is running \(waited 15 s\)/,
    );
    await lock.release();
    assert.equal((await typed(host, 'bind vfio-pci 02:00.0 --siblings')).exitCode, 0);
  });

  it('a device named twice, by slot, id and interface, is switched once', async () => {
    const host = made();
    const {stdout} = await typed(host, 'bind pci-stub eth1 05:00.0 8086:10d3 0000:05:00.0');
    assert.equal(stdout, '0000:05:00.0 (8086:10d3) is on pci-stub\n');
    assert.equal(host.effects().filter((line) => line.includes('/unbind')).length, 1);
  });

  it('with --all an id selects both cards', async () => {
    const host = made((declaration) => {
      declaration.processes = [];
      for (const slot of ['0000:01:00.0', '0000:02:00.0']) delete functionOf(declaration, slot).driver;
      delete functionOf(declaration, '0000:01:00.0').bootDisplay;
    });
    const {exitCode, stderr} = await typed(host, 'bind pci-stub 10de:1b80 --all');
    assert.equal(exitCode, 0, stderr);
    assert.deepEqual(drivers(host, '0000:01:00.0', card), ['pci-stub', 'pci-stub']);
  });
});
