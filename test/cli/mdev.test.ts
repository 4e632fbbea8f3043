import assert from 'node:assert/strict';
import {mkdtempSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import type {MdevChangeResult} from '../../src/entry/cli/mdevs.js';
import type {MdevReports} from '../../src/entry/cli/mdev-report.js';
import type {MdevTypesResult} from '../../src/entry/cli/commands/mdev/types.js';
import {asUuid} from '../../src/devices/mdev/uuid.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {addParents} from '../simulated-host/standard-machine.js';
import {run, typed} from './runs.js';

const one = '11111111-1111-4111-8111-111111111111';
const two = '22222222-2222-4222-8222-222222222222';
const mttyFile = `/etc/mdevctl.d/mtty/${one}`;
const gpuFile = `/etc/mdevctl.d/0000:02:00.0/${two}`;

describe('pearasys mdev', () => {
  let host: SimulatedHost;
  let folder: string;
  beforeEach(() => {
    host = SimulatedHost.standard(addParents);
    folder = mkdtempSync(join(tmpdir(), 'pearasys-mdev-'));
  });
  afterEach(() => {
    host.dispose();
    rmSync(folder, {recursive: true});
  });

  /** Runs a command line that must succeed. */
  async function done(line: string): Promise<string> {
    const {exitCode, stdout, stderr} = await typed(host, line);
    assert.equal(exitCode, 0, `${line}: ${stderr}`);
    return stdout;
  }

  const json = async <T>(line: string) => JSON.parse(await done(`${line} --json`)) as T;
  const config = (path: string) => JSON.parse(host.readText(path) ?? 'null') as Record<string, unknown>;
  const jsonFile = (text: string) => {
    const path = join(folder, 'config.json');
    writeFileSync(path, text);
    return path;
  };

  it('modify --live: not of a device on another parent than the named one', async () => {
    await done(`mdev start -u ${one} -p mtty -t mtty-1`);
    const file = jsonFile('{"mdev_type":"mtty-1","start":"manual"}');
    const {exitCode, stderr} = await typed(
      host,
      `mdev modify -u ${one} -p 02:00.0 --live --jsonfile ${file}`,
    );
    assert.equal(exitCode, 4);
    assert.match(stderr, new RegExp(`there is no mediated device ${one} on 0000:02:00\\.0`));
    assert.match(stderr, /it is on mtty/);
  });

  it('list and start: report definitions that others can write to', async () => {
    host.machine.tree.file(mttyFile, '{"mdev_type":"mtty-1","start":"auto"}', 0o666);
    for (const line of ['mdev list -d', 'mdev list -d --json', `mdev start -u ${one}`, 'mdev list']) {
      const {exitCode, stderr} = await typed(host, line);
      assert.equal(exitCode, 0);
      assert.match(
        stderr,
        new RegExp(`the definition ${mttyFile} is ignored by units: .* is writable by others`),
      );
    }
    await done(`mdev stop -u ${one}`);
    const {stderr} = await typed(host, `mdev start -u ${one} -p mtty -t mtty-1 --dry-run`);
    assert.match(stderr, /is ignored by units/);
  });

  it('list: reports scripts that are not run', async () => {
    await done(`mdev start -u ${one} -p mtty -t mtty-1`);
    host.machine.tree.file('/etc/mdevctl.d/scripts.d/callouts/a', '#!/bin/sh\n', 0o775);
    const {stdout, stderr} = await typed(host, 'mdev list -v');
    assert.equal(stdout, `${one} mtty mtty-1 manual\n`);
    assert.match(stderr, /callouts\/a is not run: .* is writable by others/);
  });

  it('start-mdev and create-mdev wait for a parent that is still registering', async () => {
    const parent = host.machine.declaration.mdevParents.find(({name}) => name === 'mtty');
    assert.ok(parent !== undefined);
    let pauses = 0;
    /** It is listed, without its types. */
    const registering = () => {
      host.machine.mdevs.unregister('mtty');
      host.machine.tree.directory('/sys/class/mdev_bus/mtty');
      pauses = 0;
    };
    registering();
    host.pause = (milliseconds) => {
      pauses += 1;
      if (pauses === 3) {
        host.machine.tree.remove('/sys/class/mdev_bus/mtty');
        host.machine.mdevs.register(parent);
      }
      host.machine.elapsed += milliseconds;
      return Promise.resolve();
    };
    const dry = await typed(host, `mdev create-mdev ${one} mtty mtty-1 --dry-run`);
    assert.deepEqual([dry.exitCode, pauses], [3, 0]);
    await done(`mdev create-mdev ${one} mtty mtty-1`);
    assert.equal(pauses, 3);
    await done(`mdev stop-mdev ${one}`);
    registering();
    assert.equal((await typed(host, `mdev start-mdev ${one} --dry-run`)).exitCode, 3);
    assert.equal(pauses, 0);
    await done(`mdev start-mdev ${one}`);
    assert.equal(pauses, 3);
    assert.deepEqual(host.machine.mdevs.list(), [`${one} mtty mtty-1`]);
  });

  it('types: in mdevctl’s lines, in its JSON, and in ours', async () => {
    assert.equal(
      await done('mdev types --parent 02:00.0'),
      [
        '0000:02:00.0',
        '  vgpu-1',
        '    Available instances: 2',
        '    Device API: vfio-pci',
        '    Name: Small',
        '    Description: memory: 1024MB, resolution: 1920x1200',
        '  vgpu-2',
        '    Available instances: 1',
        '    Device API: vfio-pci',
        '    Description: memory: 2048MB',
        '',
      ].join('\n'),
    );
    assert.deepEqual(JSON.parse(await done('mdev types -p mtty --dumpjson')), [
      {
        mtty: [
          {'mtty-1': {available_instances: 22, device_api: 'vfio-pci', name: 'Single port serial'}},
          {'mtty-2': {available_instances: 11, device_api: 'vfio-pci', name: 'Dual port serial'}},
        ],
      },
    ]);
    const {parents} = await json<MdevTypesResult>('mdev types');
    assert.deepEqual(
      parents.map(({parent, slot, registered}) => [parent, slot, registered]),
      [
        ['0000:02:00.0', '0000:02:00.0', true],
        ['mtty', null, true],
      ],
    );
    const nothing = await typed(host, 'mdev types -p nosuch');
    assert.deepEqual(nothing, {exitCode: 0, stdout: '', stderr: 'there is no parent nosuch\n'});
  });

  it('start and stop: a new device and its state', async () => {
    assert.equal(await done(`mdev start -u ${one} -p mtty -t mtty-1`), `${one} exists, mtty-1 on mtty\n`);
    assert.deepEqual(host.machine.mdevs.list(), [`${one} mtty mtty-1`]);
    assert.equal(await done('mdev list'), `${one} mtty mtty-1 manual\n`);
    assert.equal(await done(`mdev stop -u ${one}`), `${one} was removed\n`);
    assert.deepEqual(host.machine.mdevs.list(), []);
    assert.equal(host.exists('/etc/mdevctl.d'), false);
  });

  it('start without a UUID generates one and prints only it', async () => {
    const uuid = (await done('mdev start -p mtty -t mtty-2')).trimEnd();
    assert.equal(asUuid(uuid), uuid);
    assert.deepEqual(host.machine.mdevs.list(), [`${uuid} mtty mtty-2`]);
  });

  it('define, modify, start, undefine: mdevctl’s file, byte for byte', async () => {
    assert.equal(await done(`mdev define -u ${two} -p 02:00.0 -t vgpu-1 --auto`), `${two} is defined\n`);
    assert.equal(
      host.machine.tree.read(gpuFile),
      '{\n  "mdev_type": "vgpu-1",\n  "start": "auto",\n  "attrs": []\n}',
    );
    await done(`mdev modify -u ${two} --addattr licence --value abc`);
    await done(`mdev modify -u ${two} --addattr frame_rate --value 60 --index 0`);
    await done(`mdev modify -u ${two} --manual`);
    assert.deepEqual(config(gpuFile), {
      mdev_type: 'vgpu-1',
      start: 'manual',
      attrs: [{frame_rate: '60'}, {licence: 'abc'}],
    });
    await done(`mdev start -u ${two}`);
    assert.equal(host.readText(`/sys/bus/mdev/devices/${two}/frame_rate`), '60');
    assert.equal(
      await done('mdev list --defined -v'),
      `${two} 0000:02:00.0 vgpu-1 manual (active)\n  Attrs:\n    @{0}: {"frame_rate":"60"}\n    @{1}: {"licence":"abc"}\n`,
    );
    assert.equal(await done(`mdev modify -u ${two} --manual`), `${two} is unchanged\n`);
    assert.equal(await done(`mdev undefine -u ${two}`), `${two} is no longer defined\n`);
    assert.equal(host.exists(gpuFile), false);
    assert.deepEqual(host.machine.mdevs.list(), [`${two} 0000:02:00.0 vgpu-1`]);
  });

  it('define of an existing device needs only its UUID', async () => {
    await done(`mdev start -u ${one} -p mtty -t mtty-2`);
    await done(`mdev define -u ${one}`);
    assert.deepEqual(config(mttyFile), {mdev_type: 'mtty-2', start: 'manual', attrs: []});
    const {exitCode, stderr} = await typed(host, `mdev define -u ${one}`);
    assert.equal(exitCode, 3);
    assert.match(stderr, /is already defined on mtty/);
  });

  it('list and show tell what a newer mdevctl has written', async () => {
    const text = '{"mdev_type": "mtty-1", "start": "manual", "numa": {"node": 1e2}}';
    host.machine.tree.file(mttyFile, text, 0o644);
    const note = `pearasys: warning: ${mttyFile}: numa is not known to this version: it is kept, and has no effect\n`;
    for (const line of ['mdev list', 'mdev list --defined', 'mdev list-saved', `show ${one}`])
      assert.equal((await typed(host, line)).stderr, note, line);
    const {mdevs} = await json<MdevReports>('mdev list --defined');
    assert.deepEqual(mdevs[0]?.definition?.unknown, [{key: 'numa', value: '{"node":1e2}'}]);
  });

  it('modify and --jsonfile keep what a newer mdevctl has written', async () => {
    const unknown = {numa: {node: 1}, color: 'red'};
    const first = {mdev_type: 'mtty-1', start: 'manual', ...unknown};
    host.machine.tree.file(mttyFile, JSON.stringify(first), 0o644);
    await done(`mdev modify -u ${one} --auto --addattr licence --value abc`);
    assert.deepEqual(config(mttyFile), {
      mdev_type: 'mtty-1',
      start: 'auto',
      attrs: [{licence: 'abc'}],
      ...unknown,
    });
    await done(`mdev modify -u ${one} --jsonfile ${jsonFile('{"mdev_type": "mtty-2", "start": "auto"}')}`);
    assert.deepEqual(config(mttyFile), {mdev_type: 'mtty-2', start: 'auto', attrs: [], ...unknown});
  });

  it('--jsonfile: to define, to start, to modify; mistakes in it are reported before any change', async () => {
    const file = jsonFile('{"mdev_type": "vgpu-1", "start": "auto", "attrs": [{"frame_rate": "30"}]}');
    const uuid = (await done(`mdev define -p 0000:02:00.0 --jsonfile ${file}`)).trimEnd();
    assert.equal(config(`/etc/mdevctl.d/0000:02:00.0/${uuid}`)['start'], 'auto');
    await done(`mdev start -u ${two} -p 02:00.0 --jsonfile ${file}`);
    assert.equal(host.readText(`/sys/bus/mdev/devices/${two}/frame_rate`), '30');
    await done(`mdev modify -u ${uuid} --jsonfile ${jsonFile('{"mdev_type": "vgpu-1", "start": "manual"}')}`);
    assert.deepEqual(config(`/etc/mdevctl.d/0000:02:00.0/${uuid}`), {
      mdev_type: 'vgpu-1',
      start: 'manual',
      attrs: [],
    });
    const before = host.effects().length;
    const bad = await typed(host, `mdev define -p mtty --jsonfile ${jsonFile('{')}`);
    assert.equal(bad.exitCode, 2);
    assert.match(bad.stderr, /config\.json is not used: it is not JSON/);
    assert.equal((await typed(host, `mdev define -p mtty --jsonfile ${folder}/missing`)).exitCode, 1);
    assert.equal((await typed(host, `mdev start -p mtty -t mtty-1 --jsonfile ${file}`)).exitCode, 2);
    assert.equal(host.effects().length, before);
  });

  it('an attribute that is not accepted undoes the creation, and is named with value and errno', async () => {
    await done(`mdev define -u ${two} -p 02:00.0 -t vgpu-1`);
    await done(`mdev modify -u ${two} --addattr frame_rate --value 60`);
    await done(`mdev modify -u ${two} --addattr licence --value 1234`);
    const {exitCode, stderr} = await typed(host, `mdev start -u ${two}`);
    assert.equal(exitCode, 1);
    assert.match(
      stderr,
      /writing '1234' to \/sys\/bus\/mdev\/devices\/2222[0-9-]+\/licence failed: EINVAL .*\n {2}undone: .*\n {2}state of 2222[0-9-]+: there is no such device\ntry: check which attributes and values .* attribute 1, as/,
    );
    assert.deepEqual(host.machine.mdevs.list(), []);
  });

  it('no attribute leads out of the device’s folder: neither by its name nor by a link', async () => {
    await done(`mdev define -u ${two} -p 02:00.0 -t vgpu-1`);
    const effects = host.effects().length;
    for (const name of ['../../x', '/etc/passwd', 'a/../../b', ''])
      assert.equal(
        (await run(host, ['mdev', 'modify', '-u', two, '--addattr', name, '--value', '1'])).exitCode,
        2,
        name,
      );
    assert.equal(host.effects().length, effects);
    host.machine.tree.file(
      gpuFile,
      '{"mdev_type": "vgpu-1", "start": "manual", "attrs": [{"../x": "1"}]}',
      0o644,
    );
    assert.equal((await typed(host, `mdev start -u ${two}`)).exitCode, 3);
    assert.equal(host.effects().length, effects);
    host.machine.tree.file(
      gpuFile,
      '{"mdev_type": "vgpu-1", "start": "manual", "attrs": [{"mdev_type/create": "1"}]}',
      0o644,
    );
    const {exitCode, stderr} = await typed(host, `mdev start -u ${two}`);
    assert.equal(exitCode, 1);
    assert.match(
      stderr,
      /^pearasys: refusing to write .*mdev_type\/create: it leads to .*, outside the device's folder/,
    );
    assert.deepEqual(host.machine.mdevs.list(), []);
  });

  it('what the kernel would refuse is reported before the write', async () => {
    await done(`mdev start -u ${one} -p mtty -t mtty-1`);
    await done(`mdev start -u ${two} -p 02:00.0 -t vgpu-2`);
    const effects = host.effects();
    for (const [line, code, words] of [
      [`mdev start -u ${one} -p mtty -t mtty-1`, 3, 'already exists, of type mtty-1'],
      [`mdev start -u ${one} -p 02:00.0 -t vgpu-1`, 3, 'of type mtty-1 on mtty'],
      ['mdev start -p mtty -t mtty-3', 4, 'the nearest is mtty-'],
      ['mdev start -p mtyt -t mtty-1', 4, 'the nearest is mtty'],
      ['mdev start -p 02:00.0 -t vgpu-1', 3, 'no instances of vgpu-1 left'],
      ['mdev start -p mtty', 2, 'its type was not named'],
      ['mdev start -t mtty-1', 2, 'neither a device nor a parent'],
      ['mdev start -p ../.. -t mtty-1', 2, 'not the name of a parent'],
      ['mdev start -p mtty -t ../x', 2, 'not the name of a type'],
      ['mdev start -u 1234', 2, 'not a UUID'],
      ['mdev stop -u 33333333-3333-4333-8333-333333333333', 4, 'there is no mediated device'],
      ['mdev stop', 2, 'uuid'],
      [`mdev undefine -u ${one}`, 4, 'is not defined'],
      [`mdev modify -u ${one} --auto`, 4, 'is not defined'],
      [`mdev modify -u ${one} --auto --manual`, 2, ''],
      [`mdev modify -u ${one} --live`, 2, 'jsonfile'],
      [`mdev modify -u ${one} --addattr x`, 2, 'value'],
      [`mdev modify -u ${one}`, 2, 'no changes specified'],
      ['mdev define -p mtty', 2, 'no type was named'],
      ['mdev define', 2, 'neither a device nor a parent'],
    ] as const) {
      const {exitCode, stderr} = await typed(host, line);
      assert.equal(exitCode, code, `${line}: ${stderr}`);
      assert.ok(stderr.includes(words), `${line}: ${stderr}`);
    }
    assert.deepEqual(host.effects(), effects);
  });

  it('a UUID that is defined on several parents', async () => {
    await done(`mdev define -u ${one} -p mtty -t mtty-1`);
    await done(`mdev define -u ${one} -p absent -t other`);
    const ambiguous = await typed(host, `mdev start -u ${one}`);
    assert.equal(ambiguous.exitCode, 2);
    assert.match(
      ambiguous.stderr,
      /on several parents: absent, mtty\ntry: --parent absent, or --parent mtty/,
    );
    const mismatch = await typed(host, `mdev start -u ${one} -p mtty -t mtty-2`);
    assert.equal(mismatch.exitCode, 3);
    await done(`mdev start -u ${one} -p mtty`);
    assert.equal(
      await done('mdev list -d'),
      `${one} absent other manual\n${one} mtty mtty-1 manual (active)\n`,
    );
    await done(`mdev undefine -u ${one} -p absent`);
    assert.equal(await done('mdev list -d'), `${one} mtty mtty-1 manual (active)\n`);
  });

  it('a parent that is still registering is waited for, within the limit', async () => {
    const parent = host.machine.declaration.mdevParents.find(({name}) => name === '0000:02:00.0');
    assert.ok(parent);
    host.machine.mdevs.unregister(parent.name);
    host.machine.after(2000, () => host.machine.mdevs.register(parent));
    assert.equal((await typed(host, 'mdev start -p 02:00.0 -t vgpu-1 --wait 1')).exitCode, 4);
    assert.equal((await typed(host, 'mdev start -p 02:00.0 -t vgpu-1 --wait 5')).exitCode, 0);
  });

  it('stop of a device in use names its user, and does not write', async () => {
    await done(`mdev start -u ${one} -p mtty -t mtty-1`);
    const effects = host.effects().length;
    const group = host.readLink(`/sys/bus/mdev/devices/${one}/iommu_group`)?.split('/').at(-1) ?? '';
    host.machine.addProcess({
      pid: 812,
      comm: 'qemu-system-x86',
      cgroup: '/machine.slice/machine-qemu\\x2d1\\x2dwin11.scope',
      holds: [`/dev/vfio/${group}`],
    });
    for (const line of [`mdev stop -u ${one}`, `mdev stop -u ${one} --force`]) {
      const {exitCode, stderr} = await typed(host, line);
      assert.equal(exitCode, 3);
      assert.match(stderr, /process 812 \(qemu-system-x86\) of .* has \/dev\/vfio\/\d+ open/);
      assert.match(stderr, /try: virsh shutdown win11/);
    }
    assert.equal(host.effects().length, effects);
    const {mdevs} = await json<MdevReports>('mdev list');
    assert.deepEqual(
      mdevs[0]?.holders.map(({pid, command, advice}) => [pid, command, advice]),
      [[812, 'qemu-system-x86', 'virsh shutdown win11']],
    );
  });

  it('a removal that does not return is left behind with exit code 5', async () => {
    await done(`mdev start -u ${one} -p mtty -t mtty-1`);
    host.neverReturn('*/remove');
    const {exitCode, stderr} = await typed(host, `mdev stop -u ${one}`);
    assert.equal(exitCode, 5);
    assert.match(stderr, /did not return within 15 s/);
    assert.match(stderr, /state of 1111[0-9-]+: unknown until that write returns/);
  });

  it('a removal for which the kernel is not ready is retried', async () => {
    await done(`mdev start -u ${one} -p mtty -t mtty-1`);
    host.failWrite('*/remove', 'EAGAIN', 3);
    await done(`mdev stop -u ${one}`);
    assert.deepEqual(host.machine.mdevs.list(), []);
    await done(`mdev start -u ${one} -p mtty -t mtty-1`);
    host.failWrite('*/remove', 'EAGAIN');
    const {exitCode, stderr} = await typed(host, `mdev stop -u ${one} --timeout 2`);
    assert.equal(exitCode, 1);
    assert.match(stderr, /EAGAIN/);
  });

  it('a retried removal says for how long', async () => {
    await done(`mdev start -u ${one} -p mtty -t mtty-1`);
    host.failWrite('*/remove', 'EAGAIN', 1);
    const {exitCode, stderr} = await typed(host, `mdev stop -u ${one} --timeout 7`);
    assert.equal(exitCode, 0);
    assert.match(stderr, /remove: the kernel answered EAGAIN \(.*\); trying again for up to 7 s/);
  });

  it('a definition in another case is started, changed and undefined by the kernel’s name', async () => {
    const file = `/etc/mdevctl.d/0000:2B:00.0/${one.toUpperCase()}`;
    host.machine.tree.file(file, '{"mdev_type": "mtty-1", "start": "auto"}', 0o644);
    const gpu = host.machine.declaration.mdevParents.find(({name}) => name === 'mtty') ?? assert.fail();
    host.machine.mdevs.register({...gpu, name: '0000:2b:00.0', path: '/sys/devices/virtual/x/0000:2b:00.0'});
    assert.equal(await done('mdev list -d'), `${one} 0000:2b:00.0 mtty-1 auto\n`);
    await done(`mdev start -u ${one}`);
    assert.deepEqual(host.machine.mdevs.list(), [`${one} 0000:2b:00.0 mtty-1`]);
    assert.equal(await done('mdev list'), `${one} 0000:2b:00.0 mtty-1 auto (defined)\n`);
    await done(`mdev modify -u ${one} -p 2B:00.0 --manual`);
    assert.equal(config(file)['start'], 'manual');
    await done(`mdev undefine -u ${one} -p 0000:2B:00.0`);
    assert.equal(host.exists(file), false);
  });

  it('a broken definition is listed as broken and not changed', async () => {
    host.machine.tree.file(mttyFile, '{"mdev_type": ', 0o644);
    host.machine.tree.file('/etc/mdevctl.d/mtty/readme', 'x', 0o644);
    assert.match(
      await done('mdev list --defined'),
      new RegExp(`^${one} mtty broken: it is not JSON.*\nreadme mtty broken: its name is not a UUID\n$`),
    );
    for (const [line, code] of [
      [`mdev undefine -u ${one}`, 3],
      [`mdev modify -u ${one} --auto`, 3],
      [`mdev define -u ${one} -p mtty -t mtty-1`, 3],
      [`mdev start -u ${one}`, 3],
    ] as const) {
      const {exitCode, stderr} = await typed(host, line);
      assert.equal(exitCode, code, line);
      assert.match(stderr, /^pearasys: the definition \S+ is broken\n/);
    }
    assert.equal(host.machine.tree.read(mttyFile), '{"mdev_type": ');
    const {broken} = await json<MdevReports>('mdev list -d');
    assert.deepEqual(
      broken.map(({uuid, parent}) => [uuid, parent]),
      [
        [one, 'mtty'],
        [null, 'mtty'],
      ],
    );
    assert.deepEqual(host.effects(), []);
  });

  it('--json: the steps and the new state; --dry-run: no change', async () => {
    const dry = await json<MdevChangeResult>(`mdev start -u ${one} -p mtty -t mtty-1 --dry-run`);
    assert.deepEqual([dry.changed, dry.dryRun, dry.mdevs], [false, true, []]);
    assert.deepEqual(dry.steps, [
      `echo '${one}' > /sys/class/mdev_bus/mtty/mdev_supported_types/mtty-1/create`,
      `test -e /sys/bus/mdev/devices/${one}`,
    ]);
    assert.deepEqual(host.effects(), []);
    const started = await json<MdevChangeResult>(`mdev start -u ${one} -p mtty -t mtty-1`);
    assert.deepEqual(
      [started.changed, started.dryRun, started.uuid, started.steps],
      [true, false, one, dry.steps],
    );
    const [mdev] = started.mdevs;
    assert.deepEqual(mdev, {
      uuid: one,
      parent: 'mtty',
      type: 'mtty-1',
      active: true,
      definition: null,
      driver: 'mtty',
      group: 100,
      unit: 'inactive',
      holders: [],
    });
  });

  it('needs root to change devices, but not to list them', async () => {
    host.userId = 1000;
    for (const line of [`mdev start -p mtty -t mtty-1`, 'mdev define -p mtty -t mtty-1']) {
      const {exitCode, stderr} = await typed(host, line);
      assert.equal(exitCode, 1);
      assert.match(stderr, /needs root/);
    }
    assert.deepEqual(host.effects(), []);
    await done('mdev types');
    await done('mdev list');
  });

  describe('in the words of the first mdevctl', () => {
    it('create-mdev defines and starts, remove-mdev removes both', async () => {
      await done(`mdev create-mdev ${one} mtty mtty-1`);
      assert.deepEqual(config(mttyFile), {mdev_type: 'mtty-1', start: 'auto', attrs: []});
      assert.deepEqual(host.machine.mdevs.list(), [`${one} mtty mtty-1`]);
      assert.equal(await done('mdev list-mdevs'), `${one} mtty mtty-1\n`);
      assert.equal(await done('mdev list-saved'), `${one} mtty mtty-1\n`);
      await done(`mdev stop-mdev ${one}`);
      assert.deepEqual(host.machine.mdevs.list(), []);
      assert.equal(await done('mdev list-mdevs'), '');
      await done(`mdev start-mdev ${one}`);
      await done(`mdev start-mdev ${one}`);
      assert.deepEqual(host.machine.mdevs.list(), [`${one} mtty mtty-1`]);
      await done(`mdev remove-mdev ${one}`);
      assert.deepEqual([host.machine.mdevs.list(), host.exists(mttyFile)], [[], false]);
      assert.equal((await typed(host, `mdev remove-mdev ${one}`)).exitCode, 4);
    });

    it('create-mdev leaves nothing if the device cannot be created', async () => {
      host.failWrite('*/create', 'ENOSPC');
      const {exitCode, stderr} = await typed(host, `mdev create-mdev ${one} mtty mtty-1`);
      assert.equal(exitCode, 1);
      assert.match(stderr, /ENOSPC/);
      assert.equal(host.exists(mttyFile), false);
    });

    it('remove-mdev of a device in use removes nothing', async () => {
      await done(`mdev create-mdev ${one} mtty mtty-1`);
      host.machine.addProcess({pid: 5, comm: 'qemu', holds: ['/dev/vfio/100']});
      assert.equal((await typed(host, `mdev remove-mdev ${one}`)).exitCode, 3);
      assert.equal(host.exists(mttyFile), true);
    });

    it('list-all and list-available print what the script printed', async () => {
      await done(`mdev start -u ${two} -p 02:00.0 -t vgpu-1`);
      const gpu =
        '0000:02:00.0\n  vgpu-1\n    Available instances: 1\n    Device API: vfio-pci\n    Description: memory: 1024MB resolution: 1920x1200 \n';
      const full =
        '  vgpu-2\n    Available instances: 0\n    Device API: vfio-pci\n    Description: memory: 2048MB \n';
      const mtty =
        'mtty\n  mtty-1\n    Available instances: 22\n    Device API: vfio-pci\n  mtty-2\n    Available instances: 11\n    Device API: vfio-pci\n';
      assert.equal(await done('mdev list-all'), gpu + full + mtty);
      assert.equal(await done('mdev list-available'), gpu + mtty);
    });
  });
});

describe('pearasys list and show', () => {
  let host: SimulatedHost;
  beforeEach(() => {
    host = SimulatedHost.standard((machine) => {
      addParents(machine);
      machine.mdevs = {[one]: 'mtty/mtty-1', [two]: '0000:02:00.0/vgpu-1'};
    });
    host.machine.addProcess({pid: 812, comm: 'qemu', holds: ['/dev/vfio/100']});
  });
  afterEach(() => host.dispose());

  const linesOf = async (line: string) =>
    (await typed(host, line)).stdout.split('\n').filter((text) => /\tmdev(?:-parent)?\t/.test(text));

  it('list the parents and mediated devices after the PCI devices, with as many fields', async () => {
    assert.deepEqual(await linesOf('list'), [
      '0000:02:00.0\t-\tmdev-parent\t-\t-\t-\t-\t-\t-\t-\tvgpu-1:1,vgpu-2:0\t-',
      'mtty\t-\tmdev-parent\t-\t-\t-\t-\t-\t-\t-\tmtty-1:21,mtty-2:10\t-',
      `${two}\tvgpu-1\tmdev\tvgpu_vfio\t-\t101\t-\t-\tinactive\t-\t0000:02:00.0\t-`,
      `${one}\tmtty-1\tmdev\tmtty\t-\t100\t-\t-\tinactive\tprocess:qemu[812]\tmtty\t-`,
    ]);
    const {stdout} = await typed(host, 'list');
    assert.deepEqual(
      new Set(
        stdout
          .trimEnd()
          .split('\n')
          .map((text) => text.split('\t').length),
      ),
      new Set([12]),
    );
  });

  it('with a filter, only those of matching devices', async () => {
    assert.deepEqual(
      (await linesOf('list --id 10de')).map((text) => text.split('\t')[0]),
      ['0000:02:00.0', two],
    );
    assert.deepEqual(await linesOf('list --class network'), []);
  });

  it('--json has them in addition to the devices', async () => {
    const {stdout} = await typed(host, 'list --json');
    const {parents, mdevs} = JSON.parse(stdout) as {
      parents: {parent: string}[];
      mdevs: {uuid: string; holders: object[]}[];
    };
    assert.deepEqual(
      [parents.map(({parent}) => parent), mdevs.map(({uuid, holders}) => [uuid, holders.length])],
      [
        ['0000:02:00.0', 'mtty'],
        [
          [two, 0],
          [one, 1],
        ],
      ],
    );
  });

  it('the table for people has one for the types, and one for the devices', async () => {
    let text = '';
    const stdout = {isTerminal: true, columns: 200, write: (part: string) => (text += part)};
    await run(host, ['list'], {stdout, environment: {NO_COLOR: '1'}});
    assert.match(text, /PARENT +TYPE +LEFT +API +NAME/);
    assert.match(text, /mtty +mtty-2 +10 +vfio-pci +Dual port serial/);
    assert.match(text, new RegExp(`${one} +mtty +mtty-1 +mtty +100 +- +qemu\\[812\\]`));
  });

  it('show describes a mediated device, a parent, and a function that is a parent', async () => {
    assert.equal(
      (await typed(host, `show ${one}`)).stdout,
      [
        `${one} mediated device`,
        '  parent     mtty',
        '  type       mtty-1',
        '  driver     mtty',
        '  group      100',
        '  defined    no',
        `  unit       mdev@${one}.service (inactive)`,
        '  held by    process 812 (qemu) has /dev/vfio/100 open',
        '               to end it: kill 812',
        '',
      ].join('\n'),
    );
    assert.match(
      (await typed(host, 'show mtty')).stdout,
      /^mtty parent of mediated devices\n {2}types {6}mtty-1: 21 left/,
    );
    assert.match(
      (await typed(host, 'show 02:00.0')).stdout,
      /\n\n0000:02:00\.0 parent of mediated devices\n/,
    );
    const {stdout} = await typed(host, `show ${two} --json`);
    const shown = JSON.parse(stdout) as {devices: object[]; parents: object[]; mdevs: {uuid: string}[]};
    assert.deepEqual([shown.devices, shown.parents, shown.mdevs.map(({uuid}) => uuid)], [[], [], [two]]);
    assert.equal((await typed(host, 'show 33333333-3333-4333-8333-333333333333')).exitCode, 4);
  });

  it('show says if a device is only defined', async () => {
    host.machine.tree.file(
      '/etc/mdevctl.d/mtty/33333333-3333-4333-8333-333333333333',
      '{"mdev_type": "mtty-1", "start": "auto", "attrs": [{"a": "1"}]}',
      0o644,
    );
    const {stdout, exitCode} = await typed(host, 'show 33333333-3333-4333-8333-333333333333');
    assert.equal(exitCode, 0);
    assert.match(
      stdout,
      /mediated device, defined but not active\n[^]* {2}defined {4}auto\n {2}attributes a=1\n/,
    );
  });
});
