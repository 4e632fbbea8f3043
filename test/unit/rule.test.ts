import assert from 'node:assert/strict';
import {execFileSync} from 'node:child_process';
import fs from 'node:fs';
import {tmpdir} from 'node:os';
import {dirname, join} from 'node:path';
import type {MachineDeclaration} from '../simulated-host/declaration.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {beforeUdev, functionOf} from '../simulated-host/standard-machine.js';
import type {UdevResult} from '../simulated-host/udev-rules.js';
import {typed} from '../cli/runs.js';
import {runUnits, shipped, withProduct, type UnitRuns} from './services.js';

const card = '0000:02:00.0';
const record = `/etc/pearasys/pci/${card}-0x10de-0x1b80`;
const unit = `pearasys-${card}@vfio-pci.service`;
const device = '/sys/devices/pci0000:00/0000:00:01.1/0000:02:00.0';
const override = `${device}/driver_override`;

describe('the udev rule', () => {
  const hosts: SimulatedHost[] = [];
  afterEach(() => {
    for (const host of hosts.splice(0)) host.dispose();
  });

  interface Installed {
    readonly host: SimulatedHost;
    readonly units: UnitRuns;
  }

  async function installed(
    driver = 'vfio-pci',
    tweak?: (declaration: MachineDeclaration) => void,
  ): Promise<Installed> {
    const host = SimulatedHost.standard((declaration) => {
      withProduct(declaration);
      tweak?.(declaration);
    });
    hosts.push(host);
    const units = runUnits(host);
    const {exitCode, stderr} = await typed(host, `-s ${card} service install ${driver}`);
    assert.equal(exitCode, 0, stderr);
    await host.userland.idle();
    host.userland.results.length = 0;
    return {host, units};
  }

  /** Takes the card out and puts it, or another one, back in; what the rules did with its add event. */
  async function replug({host}: Installed, id = '10de:1b80'): Promise<UdevResult> {
    host.machine.hotRemove(card);
    await host.userland.idle();
    host.machine.hotAdd({...functionOf(host.machine.declaration, card), id});
    await host.userland.idle();
    return eventOf(host, 'add');
  }

  function eventOf(host: SimulatedHost, action: string, slot = card): UdevResult {
    const found = host.userland.results.findLast(
      ({event}) => event.action === action && event.devpath.endsWith(slot),
    );
    assert.ok(found !== undefined, `there was no ${action} of ${slot}`);
    return found;
  }

  const driverOf = (host: SimulatedHost) => host.machine.device(card).driver;

  it('hands a hot-added card over, with no process, when the wanted driver is not loaded', async () => {
    const made = await installed();
    const {writes, builtins, processes, tags} = await replug(made);
    assert.equal(driverOf(made.host), 'vfio-pci');
    assert.deepEqual(writes, [
      `${override}=vfio-pci`,
      `${device}/driver/unbind=${card}`,
      `/sys/bus/pci/drivers_probe=${card}`,
    ]);
    assert.ok(builtins.includes('kmod load vfio-pci'));
    assert.deepEqual(processes, []);
    assert.ok(tags.has('systemd'));
    assert.equal(made.host.userland.state(unit), 'active');
    // The twin in the other slot is nobody's business.
    assert.equal(made.host.machine.device('0000:01:00.0').driver, 'nouveau');
    assert.deepEqual(made.host.machine.harm, []);
  });

  it('and when it is loaded', async () => {
    const made = await installed();
    await made.host.run('modprobe', ['vfio-pci']);
    await replug(made);
    assert.equal(driverOf(made.host), 'vfio-pci');
  });

  it('and when the default driver is not loaded', async () => {
    const made = await installed('vfio-pci', (declaration) => {
      for (const module of declaration.modules) if (module.name === 'nouveau') module.loaded = false;
      for (const each of declaration.functions) if (each.driver === 'nouveau') delete each.driver;
      declaration.processes = [];
    });
    const {writes} = await replug(made);
    assert.deepEqual(writes, [`${override}=vfio-pci`, `/sys/bus/pci/drivers_probe=${card}`]);
    assert.equal(driverOf(made.host), 'vfio-pci');
  });

  it('at boot it is ahead of the default driver, and the unit confirms without a write', async () => {
    const made = await installed('vfio-pci', beforeUdev);
    made.host.userland.coldplug();
    await made.host.userland.idle();
    assert.equal(driverOf(made.host), 'vfio-pci');
    assert.equal(made.host.machine.device('0000:01:00.0').driver, 'nouveau');
    assert.equal(made.host.userland.state(unit), 'active');
    assert.deepEqual(
      made.units.host.effects().filter((line) => !line.startsWith('systemctl show')),
      [],
    );
    assert.deepEqual(made.host.userland.processes, []);
  });

  it('keeps hands off when the unit is disabled', async () => {
    const made = await installed();
    await made.host.run('systemctl', ['disable', unit]);
    const {writes, tags} = await replug(made);
    assert.deepEqual(writes, []);
    assert.ok(tags.has('systemd'));
    assert.equal(driverOf(made.host), 'nouveau');
    assert.equal(made.host.userland.state(unit), 'inactive');
  });

  it('costs a device without a record nothing, and does not tag it', async () => {
    const made = await installed();
    made.host.machine.hotRemove('0000:04:00.0');
    made.host.machine.hotAdd('0000:04:00.0');
    await made.host.userland.idle();
    const {writes, tags, processes, properties} = eventOf(made.host, 'add', '0000:04:00.0');
    assert.deepEqual([writes, [...tags], processes], [[], [], []]);
    assert.equal(properties['SYSTEMD_ALIAS'], undefined);
  });

  it('does not touch another card in the slot; its unit says so', async () => {
    const made = await installed();
    const {writes, tags} = await replug(made, '10de:1b81');
    assert.deepEqual(writes, []);
    assert.ok(tags.has('systemd'));
    assert.equal(driverOf(made.host), 'nouveau');
    assert.equal(made.host.userland.state(unit), 'failed');
    assert.deepEqual(made.units.runs.get(unit), {
      exitCode: 3,
      journal: [
        `<3>${card} is left alone: the card there is 10de:1b81, the recorded one is 10de:1b80`,
        `<3>  try: if this card is to have the driver: pearasys -s ${card} service install DRIVER`,
      ],
    });
  });

  it('does not obey a record that others may write', async () => {
    const made = await installed();
    made.host.machine.tree.file(record, (made.host.readText(record) ?? '') + '\n', 0o664);
    const {writes} = await replug(made);
    assert.deepEqual(writes, []);
    assert.equal(driverOf(made.host), 'nouveau');
    assert.equal(made.units.runs.get(unit)?.exitCode, 1);
    assert.match(made.units.runs.get(unit)?.journal[1] ?? '', /is writable by others: chmod go-w/);
  });

  it('obeys no record in a folder that others may write to', async () => {
    const made = await installed();
    fs.chmodSync(made.host.machine.folder + dirname(record), 0o777);
    const {writes} = await replug(made);
    assert.deepEqual(writes, []);
    assert.equal(driverOf(made.host), 'nouveau');
    assert.equal(made.units.runs.get(unit)?.exitCode, 1);
  });

  for (const line of [`unbind ${card}`, `bind none ${card}`, `-s ${card} pci device unbind`])
    it(`leaves a device alone on a synthetic event after ${line.replace(` ${card}`, '')}`, async () => {
      const made = await installed();
      await made.host.run('systemctl', ['start', unit]);
      assert.equal((await typed(made.host, line)).exitCode, 0);
      await made.host.run('udevadm', ['trigger', '--action=add', `/sys/bus/pci/devices/${card}`]);
      assert.equal(driverOf(made.host), undefined);
      await made.host.run('systemctl', ['restart', unit]);
      assert.equal(driverOf(made.host), 'vfio-pci');
    });

  it('leaves a device that has a driver to the unit on a synthetic event', async () => {
    const made = await installed();
    await made.host.run('udevadm', ['trigger', '--action=add', `/sys/bus/pci/devices/${card}`]);
    assert.deepEqual(eventOf(made.host, 'add').writes, []);
    assert.equal(driverOf(made.host), 'nouveau');
  });

  it('claims a device without a driver on a synthetic event', async () => {
    const made = await installed();
    await made.host.writeAttribute('/sys/bus/pci/drivers/nouveau/unbind', card, 1000);
    await made.host.run('udevadm', ['trigger', '--action=add', `/sys/bus/pci/devices/${card}`]);
    assert.equal(driverOf(made.host), 'vfio-pci');
  });

  it('leaves a device that was released by hand alone on a synthetic event, not at a true hot-add', async () => {
    const made = await installed();
    const mark = `/run/pearasys/released/${card}`;
    await made.host.run('systemctl', ['start', unit]);
    await made.host.run('systemctl', ['stop', unit]);
    assert.equal(driverOf(made.host), undefined);
    assert.equal(made.host.exists(mark), true);
    await made.host.run('udevadm', ['trigger', '--action=add', `/sys/bus/pci/devices/${card}`]);
    assert.deepEqual(eventOf(made.host, 'add').writes, []);
    assert.equal(driverOf(made.host), undefined);
    await replug(made);
    assert.equal(driverOf(made.host), 'vfio-pci');
    assert.equal(made.host.exists(mark), false);
  });

  it('does nothing on remove, and tags on every other action', async () => {
    const made = await installed();
    await replug(made);
    await made.host.run('udevadm', ['trigger', '--action=change', `/sys/bus/pci/devices/${card}`]);
    for (const action of ['add', 'bind', 'unbind', 'change']) {
      const {tags, properties} = eventOf(made.host, action);
      assert.ok(tags.has('systemd'), action);
      assert.equal(properties['SYSTEMD_ALIAS'], `/sys/bus/pci/devices/${card}`);
      if (action !== 'add') assert.deepEqual(eventOf(made.host, action).writes, [], action);
    }
    const {tags, writes} = eventOf(made.host, 'remove');
    assert.deepEqual([[...tags], writes], [[], []]);
  });

  it('a daemon-reload does not stop the unit', async () => {
    const made = await installed();
    await replug(made);
    await made.host.run('systemctl', ['daemon-reload']);
    await made.host.userland.idle();
    assert.equal(made.host.userland.state(unit), 'active');
  });

  it('does nothing to a device that is right already', async () => {
    const made = await installed();
    await replug(made);
    await made.host.run('udevadm', ['trigger', '--action=add', `/sys/bus/pci/devices/${card}`]);
    assert.deepEqual(eventOf(made.host, 'add').writes, []);
  });

  it('with none keeps every driver off, without probing or loading', async () => {
    const made = await installed('none');
    const {writes, builtins} = await replug(made);
    assert.deepEqual(writes, [`${override}=none`, `${device}/driver/unbind=${card}`]);
    assert.ok(builtins.every((line) => !line.includes('none')));
    assert.equal(driverOf(made.host), undefined);
    assert.equal(made.host.userland.state(`pearasys-${card}@none.service`), 'active');
  });

  it('asks for the unit that records a card known by its id alone; at add only', async () => {
    const made = await installed();
    await typed(made.host, '-d 8086:10d3 service install vfio-pci --any-slot');
    made.host.machine.hotRemove('0000:05:00.0');
    made.host.machine.hotAdd('0000:05:00.0');
    made.host.userland.handleEvents();
    const {properties, writes, processes} = eventOf(made.host, 'add', '0000:05:00.0');
    assert.equal(properties['SYSTEMD_WANTS'], 'pearasys-record@0000:05:00.0.service');
    assert.deepEqual([writes, processes], [[], []]);
    await made.host.userland.idle();
    assert.deepEqual(made.units.runs.get('pearasys-record@0000:05:00.0.service')?.exitCode, 0);
    assert.equal(made.host.exists('/etc/pearasys/pci/0000:05:00.0-0x8086-0x10d3'), true);
  });
});

describe('the programs in libexec', () => {
  let folder: string;
  beforeEach(() => {
    folder = fs.mkdtempSync(join(tmpdir(), 'pearasys-libexec-'));
    put('node', '#!/bin/sh\necho "$@" >>"$0.called"\nexit 7\n', 0o755);
    for (const name of ['claim', 'release', 'record'])
      put(
        name,
        shipped(`libexec/${name}`)
          .replaceAll('/usr/bin/node', `${folder}/node`)
          .replaceAll('/etc/pearasys', `${folder}/etc/pearasys`)
          .replaceAll('/sys/bus', `${folder}/sys/bus`)
          .replaceAll('/run/pearasys', `${folder}/run/pearasys`),
        0o755,
      );
  });
  afterEach(() => fs.rmSync(folder, {recursive: true, force: true}));

  function put(path: string, text: string, mode = 0o644): void {
    fs.mkdirSync(dirname(join(folder, path)), {recursive: true});
    fs.writeFileSync(join(folder, path), text, {mode});
  }

  function show(driver: string | undefined, id = '0x1b80', overridden = '(null)'): void {
    const own = `sys/bus/pci/devices/${card}`;
    put(`${own}/vendor`, '0x10de\n');
    put(`${own}/device`, `${id}\n`);
    put(`${own}/driver_override`, `${overridden}\n`);
    if (driver === undefined) return;
    put(`sys/bus/pci/drivers/${driver}/${card}`, '');
    put(`${own}/driver`, '');
  }

  const recordFile = `etc/pearasys/pci/${card}-0x10de-0x1b80`;
  const text = (driver = 'vfio-pci') =>
    `# a comment\nPEARASYS_SLOT=${card}\nPEARASYS_ID=10de:1b80\nPEARASYS_DRIVER=${driver}\n`;
  const recorded = (driver?: string) => put(recordFile, text(driver));

  /** How a program ended, and what it started Node with. */
  function started(program: string, ...args: string[]): {status: number; node: string | undefined} {
    let status = 0;
    try {
      execFileSync('/bin/sh', [join(folder, program), ...args], {stdio: 'pipe', env: {PATH: '/nowhere'}});
    } catch (error) {
      status = (error as {status: number}).status;
    }
    const called = join(folder, 'node.called');
    const node = fs.existsSync(called) ? fs.readFileSync(called, 'utf8').trim() : undefined;
    fs.rmSync(called, {force: true});
    return {status, node};
  }

  const fast = {status: 0, node: undefined};
  const claims = {status: 7, node: `--no-rehash-snapshot /usr/local/lib/pearasys/claim.cjs ${card} vfio-pci`};

  it('claim: the recorded card on the driver needs no Node, and no program at all', () => {
    show('vfio-pci');
    recorded();
    assert.deepEqual(started('claim', card, 'vfio-pci'), fast);
  });

  const others: readonly [what: string, prepare: () => void][] = [
    ['on another driver', () => show('nouveau')],
    ['without a driver', () => show(undefined)],
    ['that is gone', () => undefined],
    ['without a record', () => fs.rmSync(join(folder, 'etc'), {recursive: true})],
    ['that is another one', () => show('vfio-pci', '0x1b81')],
    ['that was released by hand', () => put(`run/pearasys/released/${card}`, '')],
    ['whose record has a line that is none', () => put(recordFile, `${text()}nonsense\n`)],
    ['whose record has lost its end', () => put(recordFile, text().slice(0, -1))],
    ['whose record says nothing', () => put(recordFile, '')],
    ['whose record is for another driver', () => recorded('pci-stub')],
    ["whose record is another user's", () => fs.chownSync(join(folder, recordFile), 65534, 65534)],
    [
      "whose records' folder is another user's",
      () => fs.chownSync(dirname(join(folder, recordFile)), 65534, 65534),
    ],
    [
      'whose record is a link',
      () => {
        fs.renameSync(join(folder, recordFile), join(folder, 'elsewhere'));
        fs.symlinkSync(join(folder, 'elsewhere'), join(folder, recordFile));
      },
    ],
  ];
  for (const [what, prepare] of others)
    it(`claim: a card ${what} is Node's, whose exit code counts`, function () {
      if (what.includes('another user') && process.getuid?.() !== 0) this.skip();
      recorded();
      if (what !== 'that is gone' && what !== 'on another driver' && what !== 'without a driver')
        show('vfio-pci');
      prepare();
      assert.deepEqual(started('claim', card, 'vfio-pci'), claims);
    });

  it('claim none: an override and no driver', () => {
    recorded('none');
    show(undefined, '0x1b80', 'none');
    assert.deepEqual(started('claim', card, 'none'), fast);
    show(undefined);
    assert.equal(started('claim', card, 'none').status, 7);
    show('nouveau', '0x1b80', 'none');
    assert.equal(started('claim', card, 'none').status, 7);
  });

  it('release: of a device that has gone there is nothing to do', () => {
    assert.deepEqual(started('release', card, 'vfio-pci'), fast);
    show('vfio-pci');
    assert.deepEqual(started('release', card, 'vfio-pci'), {
      status: 7,
      node: `--no-rehash-snapshot /usr/local/lib/pearasys/release.cjs ${card} vfio-pci`,
    });
  });

  it('record is always Node’s', () => {
    assert.deepEqual(started('record', card), {
      status: 7,
      node: `--no-rehash-snapshot /usr/local/lib/pearasys/record.cjs ${card}`,
    });
  });

  it('without their arguments they fail, and start nothing', () => {
    for (const program of ['claim', 'release', 'record']) {
      const {status, node} = started(program);
      assert.notEqual(status, 0);
      assert.equal(node, undefined);
    }
  });
});
