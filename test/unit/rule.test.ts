import assert from 'node:assert/strict';
import {spawnSync} from 'node:child_process';
import fs from 'node:fs';
import {dirname, join} from 'node:path';
import {commandLineCases} from '../corpus/command-lines.js';
import type {MachineDeclaration} from '../simulated-host/declaration.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {beforeUdev, functionOf} from '../simulated-host/standard-machine.js';
import type {UdevResult} from '../simulated-host/udev/worker.js';
import {typed} from '../cli/runs.js';
import {canTry} from '../corpus/files.js';
import {putRecord, recordCases, subject, type RecordCase} from '../corpus/records.js';
import {putPrograms, runUnits, withProduct, type UnitRuns} from './services.js';

const card = '0000:02:00.0';
const record = `/etc/pearasys/pci/${card}-0x10de-0x1b80`;
const checked = `${record.replace('/etc/pearasys/pci', '/run/pearasys/checked')}@0000:00:01.1`;
const unit = `pearasys-${card}@vfio-pci.service`;
const claimUnit = `pearasys-claim-${card}@vfio-pci.service`;
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

  /** Removes the card and adds it, or another one, again. @returns what the rules did on its add event. */
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

  it('switches a hot-added card, without a process, when the recorded driver is not loaded', async () => {
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
    // The twin in the other slot has no record.
    assert.equal(made.host.machine.device('0000:01:00.0').driver, 'nouveau');
    assert.deepEqual(made.host.machine.harm, []);
  });

  it('switches it when the recorded driver is loaded', async () => {
    const made = await installed();
    await made.host.run('modprobe', ['vfio-pci']);
    await replug(made);
    assert.equal(driverOf(made.host), 'vfio-pci');
  });

  it('switches it when the default driver is not loaded', async () => {
    const made = await installed('vfio-pci', (declaration) => {
      for (const module of declaration.modules) if (module.name === 'nouveau') module.loaded = false;
      for (const each of declaration.functions) if (each.driver === 'nouveau') delete each.driver;
      declaration.processes = [];
    });
    const {writes} = await replug(made);
    assert.deepEqual(writes, [`${override}=vfio-pci`, `/sys/bus/pci/drivers_probe=${card}`]);
    assert.equal(driverOf(made.host), 'vfio-pci');
  });

  it('acts before the default driver at boot, and the unit has nothing to write', async () => {
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

  for (const {line, off} of commandLineCases)
    it(`${off ? 'leaves' : 'claims'} the card, at boot and at a hot-add, with: ${line}`, async () => {
      const made = await installed('vfio-pci', (declaration) => {
        beforeUdev(declaration);
        declaration.cmdline = line;
      });
      const {host, units} = made;
      // The file that early writes for each slot of the list.
      if (off && line.includes('skip')) host.machine.tree.file(`/run/pearasys/skipped/${card}`, '');
      host.userland.coldplug();
      await host.userland.idle();
      assert.equal(driverOf(host), off ? 'nouveau' : 'vfio-pci');
      const {tags} = await replug(made);
      assert.equal(driverOf(host), off ? 'nouveau' : 'vfio-pci');
      assert.equal(host.userland.state(unit), off ? 'inactive' : 'active');
      assert.ok(tags.has('systemd'));
      if (off) assert.equal(units.runs.has(claimUnit), false);
      assert.equal(host.machine.device('0000:01:00.0').driver, 'nouveau');
    });

  it('leaves the card alone when the unit is disabled', async () => {
    const made = await installed();
    await made.host.run('systemctl', ['disable', unit]);
    const {writes, tags} = await replug(made);
    assert.deepEqual(writes, []);
    assert.ok(tags.has('systemd'));
    assert.equal(driverOf(made.host), 'nouveau');
    assert.equal(made.host.userland.state(unit), 'inactive');
  });

  it('does nothing for a device without a record, and does not tag it', async () => {
    const made = await installed();
    made.host.machine.hotRemove('0000:04:00.0');
    made.host.machine.hotAdd('0000:04:00.0');
    await made.host.userland.idle();
    const {writes, tags, processes, properties} = eventOf(made.host, 'add', '0000:04:00.0');
    assert.deepEqual([writes, [...tags], processes], [[], [], []]);
    assert.equal(properties['SYSTEMD_ALIAS'], undefined);
  });

  it('does not change another card in the slot; the unit reports it', async () => {
    const made = await installed();
    const {writes, tags} = await replug(made, '10de:1b81');
    assert.deepEqual(writes, []);
    assert.ok(tags.has('systemd'));
    assert.equal(driverOf(made.host), 'nouveau');
    assert.equal(made.host.userland.state(unit), 'inactive');
    assert.equal(made.host.userland.state(claimUnit), 'failed');
    assert.deepEqual(made.units.runs.get(claimUnit), {
      exitCode: 3,
      journal: [
        `<3>${card} is not claimed: the card in the slot is 10de:1b81, the recorded one is 10de:1b80`,
        `<3>  try: to give the driver to this card: pearasys -s ${card} service install DRIVER`,
      ],
    });
  });

  it('ignores a record that is writable by others', async () => {
    const made = await installed();
    made.host.machine.tree.file(record, (made.host.readText(record) ?? '') + '\n', 0o664);
    const {writes} = await replug(made);
    assert.deepEqual(writes, []);
    assert.equal(driverOf(made.host), 'nouveau');
    assert.equal(made.units.runs.get(claimUnit)?.exitCode, 1);
    assert.match(made.units.runs.get(claimUnit)?.journal[1] ?? '', /is writable by others: chmod go-w/);
  });

  it('ignores all records in a folder that is writable by others', async () => {
    const made = await installed();
    fs.chmodSync(made.host.machine.tree.onDisk(dirname(record)), 0o777);
    const {writes} = await replug(made);
    assert.deepEqual(writes, []);
    assert.equal(driverOf(made.host), 'nouveau');
    assert.equal(made.units.runs.get(claimUnit)?.exitCode, 1);
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

  it('leaves a manually released device alone on a synthetic event, but claims it at a real hot-add', async () => {
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

  it('does nothing to a device that is already on its driver', async () => {
    const made = await installed();
    await replug(made);
    await made.host.run('udevadm', ['trigger', '--action=add', `/sys/bus/pci/devices/${card}`]);
    assert.deepEqual(eventOf(made.host, 'add').writes, []);
  });

  it('keeps all drivers off a device with the driver none, without probing or loading', async () => {
    const made = await installed('none');
    const {writes, builtins} = await replug(made);
    assert.deepEqual(writes, [`${override}=none`, `${device}/driver/unbind=${card}`]);
    assert.ok(builtins.every((line) => !line.includes('none')));
    assert.equal(driverOf(made.host), undefined);
    assert.equal(made.host.userland.state(`pearasys-${card}@none.service`), 'active');
  });

  it('leaves an unchecked record to the unit, but not the next time', async () => {
    const made = await installed();
    made.host.machine.tree.remove(checked);
    const first = await replug(made);
    assert.deepEqual(first.writes, []);
    assert.equal(driverOf(made.host), 'vfio-pci');
    assert.equal(made.units.runs.get(claimUnit)?.exitCode, 0);
    assert.equal(made.host.readText(checked), 'PEARASYS_DRIVER=vfio-pci');
    const second = await replug(made);
    assert.equal(second.writes[0], `${override}=vfio-pci`);
  });

  it('ignores the checked copy of a record that was removed', async () => {
    const made = await installed();
    made.host.machine.tree.remove(record);
    assert.deepEqual((await replug(made)).writes, []);
    assert.equal(driverOf(made.host), 'nouveau');
  });

  it('does not notice that a record has become invalid since it was checked', async () => {
    const made = await installed();
    made.host.machine.tree.file(record, 'PEARASYS_DRIVER=pci-stub\n', 0o644);
    await replug(made);
    assert.equal(driverOf(made.host), 'vfio-pci');
  });

  describe('a record', () => {
    let made: Installed;
    before(async () => {
      made = await installed();
      hosts.length = 0;
      putPrograms(made.host.machine.folder, '/bin/false');
    });
    after(() => made.host.dispose());

    /** Replaces the record while the card is removed. The new one is not checked yet. */
    async function replace(one: RecordCase): Promise<void> {
      const {host} = made;
      host.machine.hotRemove(card);
      await host.userland.idle();
      putRecord(host.machine.folder, one);
      for (const [path, kind] of [
        [record, 'file'],
        [dirname(record), 'folder'],
      ] as const)
        host.machine.owners.set(path, one.foreign === kind ? 65534 : 0);
      for (const name of host.machine.tree.list(dirname(checked)))
        host.machine.tree.remove(`${dirname(checked)}/${name}`);
    }

    /** Whether the rule binds the card to the driver when it is added again. */
    async function isObeyed(): Promise<boolean> {
      made.host.machine.hotAdd({...functionOf(made.host.machine.declaration, card), id: subject.id});
      made.host.userland.handleEvents();
      const {writes} = eventOf(made.host, 'add');
      await made.host.userland.idle();
      return writes.includes(`${override}=${subject.driver}`);
    }

    for (const one of recordCases)
      it(`${one.name} is ${one.obeyed ? 'used' : 'ignored'}`, async function () {
        if (!canTry(one)) this.skip();
        await replace(one);
        assert.equal(await isObeyed(), false, 'before it was checked');
        // The card was added, and its unit has checked the record.
        made.host.machine.hotRemove(card);
        assert.equal(await isObeyed(), one.obeyed, 'after the unit');
        await replace(one);
        spawnSync('/bin/sh', [join(made.host.machine.folder, 'early')]);
        assert.equal(await isObeyed(), one.obeyed, 'after the boot');
      });
  });

  it('wants the unit that records a card known by its id alone, on add events only', async () => {
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

  describe('a card', () => {
    const identity = (rest: string) =>
      `PEARASYS_SLOT=${card}\nPEARASYS_ID=10de:1b80\nPEARASYS_DRIVER=vfio-pci\n${rest}`;

    /** Replaces the record, runs early as at boot, and adds the card again. @returns what the rules did. */
    async function added(text: string): Promise<UdevResult> {
      const made = await installed();
      putPrograms(made.host.machine.folder, '/bin/false');
      made.host.machine.tree.file(record, text, 0o644);
      for (const name of made.host.machine.tree.list(dirname(checked)))
        made.host.machine.tree.remove(`${dirname(checked)}/${name}`);
      spawnSync('/bin/sh', [join(made.host.machine.folder, 'early')]);
      made.host.machine.hotRemove(card);
      made.host.machine.hotAdd({...functionOf(made.host.machine.declaration, card), id: subject.id});
      made.host.userland.handleEvents();
      return eventOf(made.host, 'add');
    }

    it('below the recorded bridge is claimed, without a process', async () => {
      const {writes, processes} = await added(identity('PEARASYS_PATH=0000:00/01.1/00.0\n'));
      assert.deepEqual([writes.includes(`${override}=vfio-pci`), processes], [true, []]);
    });

    it('below another bridge is left to its unit', async () => {
      const {writes, tags} = await added(identity('PEARASYS_PATH=0000:00/01.2/00.0\n'));
      assert.deepEqual([writes, tags.has('systemd')], [[], true]);
    });

    it('with a serial number is left to its unit, because no rule can read it', async () => {
      const {writes, tags} = await added(
        identity('PEARASYS_PATH=0000:00/01.1/00.0\nPEARASYS_SERIAL=pcie:00-11-22-33-44-55-66-77\n'),
      );
      assert.deepEqual([writes, tags.has('systemd')], [[], true]);
    });

    it('in a slot without a unit, below the root port of a record, is given to the unit that decides', async () => {
      const made = await installed();
      const disk = '0000:04:00.0';
      const {id} = functionOf(made.host.machine.declaration, disk);
      const [vendor, product] = id.split(':');
      const port = made.host.machine.declaration.functions.find(({slot}) => slot === disk)?.behind ?? '';
      made.host.machine.tree.file(
        `${dirname(checked)}/below-${port}-0-0x${vendor}-0x${product}`,
        `PEARASYS_RECORD=0000:09:00.0-0x${vendor}-0x${product}\n`,
        0o644,
      );
      made.host.machine.hotRemove(disk);
      made.host.machine.hotAdd(disk);
      made.host.userland.handleEvents();
      const {properties, writes} = eventOf(made.host, 'add', disk);
      assert.equal(properties['SYSTEMD_WANTS'], `pearasys-record@${disk}.service`);
      assert.deepEqual(writes, []);
    });
  });
});
