import assert from 'node:assert/strict';
import {execFileSync} from 'node:child_process';
import fs from 'node:fs';
import {tmpdir} from 'node:os';
import {dirname, join} from 'node:path';
import {mdevCreate} from '../../src/entry/handlers/mdev-create.js';
import {mdevParent} from '../../src/entry/handlers/mdev-parent.js';
import {mdevRecord} from '../../src/entry/handlers/mdev-record.js';
import {mdevStop} from '../../src/entry/handlers/mdev-stop.js';
import type {MachineDeclaration} from '../simulated-host/declaration.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {addParents} from '../simulated-host/standard-machine.js';
import {parseParentName} from '../../src/devices/mdev/mdev-name.js';
import {parseUuid} from '../../src/devices/mdev/uuid.js';
import {MachineHost} from '../../src/host/machine-host.js';
import {distrustDefinition, readDefinitions} from '../../src/state/definitions/definition.js';
import {definitionCases, definitionPlace, definitionSubject} from '../corpus/definitions.js';
import {canTry, putFile} from '../corpus/files.js';
import type {UdevResult} from '../simulated-host/udev/worker.js';
import {nodeFlags, runOn, shipped} from './services.js';

const A = '11111111-1111-4111-8111-111111111111';
const B = '22222222-2222-4222-8222-222222222222';
const C = '33333333-3333-4333-8333-333333333333';
const types = '/sys/class/mdev_bus/mtty/mdev_supported_types';
const definitionOf = (uuid: string, parent = 'mtty') => `/etc/mdevctl.d/${parent}/${uuid}`;
const written = (start: string, type = 'mtty-1', attrs = '[]') =>
  `{\n  "mdev_type": "${type}",\n  "start": "${start}",\n  "attrs": ${attrs}\n}`;

describe('events of mediated devices', () => {
  const hosts: SimulatedHost[] = [];
  afterEach(() => {
    for (const host of hosts.splice(0)) host.dispose();
  });

  function made(tweak: (declaration: MachineDeclaration) => void = () => undefined): SimulatedHost {
    const host = SimulatedHost.standard((declaration) => {
      addParents(declaration);
      declaration.files['/usr/lib/udev/rules.d/60-pearasys-mdev.rules'] = shipped(
        'udev/60-pearasys-mdev.rules',
      );
      tweak(declaration);
    });
    hosts.push(host);
    return host;
  }

  const write = (host: SimulatedHost, path: string, text: string, mode = 0o644) =>
    host.machine.tree.file(path, text, mode);
  const create = async (host: SimulatedHost, uuid = A, type = 'mtty-1') => {
    host.machine.write(`/sys/devices/virtual/mtty/mtty/mdev_supported_types/${type}/create`, uuid);
    await host.userland.idle();
  };

  describe('the rule', () => {
    const eventOf = (host: SimulatedHost, action: string, name: string): UdevResult => {
      const found = host.userland.results.findLast(
        ({event}) => event.action === action && event.devpath.endsWith(`/${name}`),
      );
      assert.ok(found !== undefined, `there was no ${action} of ${name}`);
      return found;
    };

    it('wants the units that follow and record an undefined new device, without a process', async () => {
      const host = made();
      await create(host);
      const {properties, tags, processes, writes, builtins} = eventOf(host, 'bind', A);
      assert.equal(properties['SYSTEMD_WANTS'], `mdev_there@${A}.target mdev_record@${A}.service`);
      assert.deepEqual([[...tags], processes, writes, builtins], [['systemd'], [], [], []]);
    });

    it('does not record a device that is defined on its parent', async () => {
      const host = made();
      write(host, definitionOf(A), written('manual'));
      await create(host);
      assert.equal(eventOf(host, 'bind', A).properties['SYSTEMD_WANTS'], `mdev_there@${A}.target`);
    });

    it("tags a device at every event from its driver's bind until it is removed", async () => {
      const host = made();
      write(host, definitionOf(A), written('manual'));
      await create(host);
      const path = `/sys/devices/virtual/mtty/mtty/${A}`;
      const first = eventOf(host, 'add', A);
      assert.deepEqual([[...first.tags], first.properties['SYSTEMD_WANTS']], [[], undefined]);
      for (const action of ['bind', 'change', 'add']) {
        if (action !== 'bind') host.machine.events.trigger(`${path}/uevent`, action);
        await host.userland.idle();
        const {properties, tags} = eventOf(host, action, A);
        assert.equal(properties['SYSTEMD_WANTS'], `mdev_there@${A}.target`, action);
        assert.ok(tags.has('systemd'), action);
      }
      host.machine.write(`/sys/bus/mdev/devices/${A}/remove`, '1');
      await host.userland.idle();
      const last = eventOf(host, 'remove', A);
      assert.deepEqual([[...last.tags], last.properties['SYSTEMD_WANTS']], [[], undefined]);
    });

    it('wants the unit of a parent that registers and has definitions', async () => {
      const host = made((declaration) => {
        declaration.mdevParents = declaration.mdevParents.map((each) => ({...each, registered: false}));
      });
      write(host, definitionOf(A), written('auto'));
      for (const parent of host.machine.declaration.mdevParents) host.machine.mdevs.register(parent);
      await host.userland.idle();
      assert.equal(eventOf(host, 'change', 'mtty').properties['SYSTEMD_WANTS'], 'mdev_parent@mtty.service');
      const other = eventOf(host, 'change', '0000:02:00.0');
      assert.deepEqual([other.properties['SYSTEMD_WANTS'], [...other.tags]], [undefined, []]);
    });

    it('wants the unit of a parent whose folder has another spelling, but of no other parent', async () => {
      const gpu = (name: string) => (declaration: MachineDeclaration) => {
        declaration.mdevParents = [
          {
            ...(declaration.mdevParents[0] ?? assert.fail()),
            name,
            path: `/sys/devices/virtual/x/${name}`,
            registered: false,
          },
        ];
      };
      for (const [name, folder, wanted] of [
        ['0000:2b:00.0', '0000:2B:00.0', true],
        ['0.0.26ab', '0.0.26AB', true],
        ['0000:02:00.0', '0000:03:00.0', false],
        ['mtty', 'MTTY', false],
      ] as const) {
        const host = made(gpu(name));
        write(host, definitionOf(A, folder), written('auto'));
        for (const parent of host.machine.declaration.mdevParents) host.machine.mdevs.register(parent);
        await host.userland.idle();
        const {properties, processes} = eventOf(host, 'change', name);
        assert.equal(properties['SYSTEMD_WANTS'], wanted ? `mdev_parent@${name}.service` : undefined, name);
        assert.deepEqual(processes, []);
      }
    });

    it('finds a parent at boot that had registered before', async () => {
      const host = made();
      write(host, definitionOf(A, '0000:02:00.0'), written('auto', 'vgpu-1'));
      host.userland.coldplug();
      await host.userland.idle();
      const {properties, processes} = eventOf(host, 'add', '0000:02:00.0');
      assert.equal(properties['SYSTEMD_WANTS'], 'mdev_parent@0000:02:00.0.service');
      assert.deepEqual(processes, []);
    });

    it('does nothing for other devices', async () => {
      const host = made();
      host.userland.coldplug();
      await host.userland.idle();
      const touched = host.userland.results.filter(
        ({properties, processes}) => properties['SYSTEMD_WANTS'] !== undefined || processes.length > 0,
      );
      assert.deepEqual(touched, []);
      assert.ok(host.userland.results.length > 5);
    });
  });

  describe('the start of a unit', () => {
    it('creates the device as it is defined', async () => {
      const host = made();
      write(host, definitionOf(A, '0000:02:00.0'), written('manual', 'vgpu-1', '[{"frame_rate": "60"}]'));
      const {exitCode, journal} = await runOn(host, mdevCreate, A);
      assert.deepEqual([exitCode, journal.at(-1)], [0, `<6>${A} was created`]);
      assert.deepEqual(host.machine.mdevs.list(), [`${A} 0000:02:00.0 vgpu-1`]);
      assert.equal(host.readText(`/sys/bus/mdev/devices/${A}/frame_rate`), '60');
    });

    it('succeeds if the device exists', async () => {
      const host = made();
      write(host, definitionOf(A), written('manual'));
      await create(host);
      assert.deepEqual(await runOn(host, mdevCreate, A), {
        exitCode: 0,
        journal: [`<6>${A} already exists`],
      });
    });

    it('succeeds if another program creates the device meanwhile, and writes its attributes once', async () => {
      const host = made();
      write(host, definitionOf(A, '0000:02:00.0'), written('auto', 'vgpu-1', '[{"frame_rate": "60"}]'));
      const path = '/sys/class/mdev_bus/0000:02:00.0/mdev_supported_types/vgpu-1/create';
      let created = false;
      host.beforeEffect((effect) => {
        if (created || effect.kind !== 'write' || effect.path !== path) return;
        created = true;
        host.machine.write(path, A);
        host.machine.write(`/sys/bus/mdev/devices/${A}/frame_rate`, '60');
      });
      const {exitCode, journal} = await runOn(host, mdevCreate, A);
      assert.deepEqual([exitCode, journal.at(-1)], [0, `<6>${A} already exists`]);
      assert.deepEqual(host.machine.mdevs.list(), [`${A} 0000:02:00.0 vgpu-1`]);
      assert.deepEqual(
        host.effects().filter((line) => line.includes('frame_rate')),
        [],
      );
    });

    it('fails if the device that appears meanwhile has another type', async () => {
      const host = made();
      write(host, definitionOf(A), written('auto'));
      let created = false;
      host.beforeEffect((effect) => {
        if (created || effect.kind !== 'write') return;
        created = true;
        host.machine.write(`${types}/mtty-2/create`, A);
      });
      const {exitCode, journal} = await runOn(host, mdevCreate, A);
      assert.equal(exitCode, 3);
      assert.match(journal.join('\n'), /mtty-2 on mtty/);
      assert.deepEqual(host.machine.mdevs.list(), [`${A} mtty mtty-2`]);
    });

    it('uses the parent on which the device is auto, otherwise the one that exists', async () => {
      const host = made();
      write(host, definitionOf(A), written('manual'));
      write(host, definitionOf(A, '0000:02:00.0'), written('auto', 'vgpu-1'));
      assert.equal((await runOn(host, mdevCreate, A)).exitCode, 0);
      assert.deepEqual(host.machine.mdevs.list(), [`${A} 0000:02:00.0 vgpu-1`]);
      write(host, definitionOf(B), written('manual'));
      write(host, definitionOf(B, 'elsewhere'), written('manual', 'vgpu-1'));
      assert.equal((await runOn(host, mdevCreate, B)).exitCode, 0);
      assert.deepEqual(host.machine.mdevs.list(), [`${A} 0000:02:00.0 vgpu-1`, `${B} mtty mtty-1`]);
    });

    it('ignores a definition that another user can write to', async () => {
      const host = made();
      const refused = async (reason: string) => {
        const {exitCode, journal} = await runOn(host, mdevCreate, A);
        assert.equal(exitCode, 3);
        assert.match(
          journal[0] ?? '',
          new RegExp(`^<4>the definition ${definitionOf(A)} is ignored: ${reason}`),
        );
        assert.match(
          journal[1] ?? '',
          new RegExp(`^<3>${A} was not created: its definition could have been written by another user`),
        );
        assert.deepEqual(host.machine.mdevs.list(), []);
      };
      write(host, definitionOf(A), written('auto'), 0o664);
      await refused(`${definitionOf(A)} is writable by others`);
      write(host, definitionOf(A), written('auto'));
      for (const path of [definitionOf(A), '/etc/mdevctl.d/mtty', '/etc/mdevctl.d']) {
        host.machine.owners.set(path, 1000);
        await refused(`${path} is owned by user 1000`);
        host.machine.owners.delete(path);
      }
      assert.equal((await runOn(host, mdevCreate, A)).exitCode, 0);
    });

    it('uses the definition of a UUID that can be trusted, and reports the other', async () => {
      const host = made();
      write(host, definitionOf(A), written('manual'));
      write(host, definitionOf(A, '0000:02:00.0'), written('auto', 'vgpu-1'), 0o666);
      const {exitCode, journal} = await runOn(host, mdevCreate, A);
      assert.equal(exitCode, 0);
      assert.match(
        journal[0] ?? '',
        /^<4>the definition \S+02:00\.0\S+ is ignored: .* is writable by others/,
      );
      assert.deepEqual(host.machine.mdevs.list(), [`${A} mtty mtty-1`]);
    });

    it('does not choose between two existing parents', async () => {
      const host = made();
      write(host, definitionOf(A), written('auto'));
      write(host, definitionOf(A, '0000:02:00.0'), written('auto', 'vgpu-1'));
      const {exitCode, journal} = await runOn(host, mdevCreate, A);
      assert.equal(exitCode, 2);
      assert.match(journal[0] ?? '', /^<3>.* is defined on several parents: 0000:02:00\.0, mtty$/);
      assert.deepEqual(host.machine.mdevs.list(), []);
    });

    it('undoes the creation if an attribute fails, and names it', async () => {
      const host = made();
      write(host, definitionOf(A, '0000:02:00.0'), written('auto', 'vgpu-1', '[{"frame_rate": "fast"}]'));
      const {exitCode, journal} = await runOn(host, mdevCreate, A);
      assert.equal(exitCode, 1);
      assert.match(journal.join('\n'), /writing 'fast' to \S+frame_rate failed: EINVAL/);
      assert.deepEqual(host.machine.mdevs.list(), []);
    });

    it('fails for an undefined device, and requires one UUID', async () => {
      const host = made();
      assert.equal((await runOn(host, mdevCreate, A)).exitCode, 2);
      assert.equal((await runOn(host, mdevCreate, '../x')).exitCode, 2);
      assert.equal((await runOn(host, mdevCreate)).exitCode, 2);
      assert.deepEqual(host.effects(), []);
    });
  });

  describe('the stop of a unit', () => {
    it('removes the device, and succeeds if it no longer exists', async () => {
      const host = made();
      await create(host);
      const first = await runOn(host, mdevStop, A);
      assert.deepEqual([first.exitCode, first.journal.at(-1)], [0, `<6>${A} was removed`]);
      assert.deepEqual(host.machine.mdevs.list(), []);
      assert.deepEqual(await runOn(host, mdevStop, A), {exitCode: 0, journal: [`<6>${A} no longer exists`]});
    });
  });

  describe('recording', () => {
    it('writes the same text as mdevctl, once', async () => {
      const host = made();
      await create(host, A, 'mtty-2');
      const {exitCode, journal} = await runOn(host, mdevRecord, A);
      assert.deepEqual([exitCode, journal.at(-1)], [0, `<6>${A} was recorded`]);
      assert.equal(host.machine.tree.read(definitionOf(A)), written('manual', 'mtty-2'));
      assert.deepEqual(await runOn(host, mdevRecord, A), {
        exitCode: 0,
        journal: [`<6>${A}: nothing to record`],
      });
    });

    it('does not record a device that is defined on another parent, or no longer exists', async () => {
      const host = made();
      write(host, definitionOf(A, 'elsewhere'), written('auto'));
      await create(host);
      assert.equal((await runOn(host, mdevRecord, A)).exitCode, 0);
      assert.equal((await runOn(host, mdevRecord, B)).exitCode, 0);
      assert.deepEqual([host.exists(definitionOf(A)), host.exists(definitionOf(B))], [false, false]);
    });

    it('is disabled by AutoRecord=no, and reports an invalid setting', async () => {
      const host = made();
      await create(host);
      write(host, '/etc/pearasys/pearasys.conf', 'AutoRecord=no\n');
      assert.deepEqual(await runOn(host, mdevRecord, A), {exitCode: 0, journal: []});
      assert.equal(host.exists(definitionOf(A)), false);
      write(host, '/etc/pearasys/pearasys.conf', 'AutoRecord=perhaps\n');
      const {journal} = await runOn(host, mdevRecord, A);
      assert.match(
        journal[0] ?? '',
        /^<4>\/etc\/pearasys\/pearasys\.conf, line 1: 'AutoRecord=perhaps' is ignored/,
      );
      assert.equal(host.exists(definitionOf(A)), true);
    });

    it('the shipped settings are the defaults', async () => {
      const host = made();
      await create(host);
      write(host, '/etc/pearasys/pearasys.conf', shipped('etc/pearasys.conf'));
      assert.deepEqual((await runOn(host, mdevRecord, A)).journal.at(-1), `<6>${A} was recorded`);
    });
  });

  describe('a parent', () => {
    it('starts the units of the auto definitions that are named, and reports invalid ones', async () => {
      const host = made();
      write(host, definitionOf(A), '{"start":"auto","mdev_type":"mtty-1"}');
      write(host, definitionOf(B), written('manual'));
      write(host, definitionOf(C), '{');
      write(host, definitionOf('44444444-4444-4444-8444-444444444444'), written('auto'));
      const {exitCode, journal} = await runOn(host, mdevParent, 'mtty', A, B, C);
      assert.equal(exitCode, 0);
      assert.match(journal[0] ?? '', /^<4>the definition \S+3333 is ignored: /);
      assert.deepEqual(
        host.effects().filter((line) => line.startsWith('systemctl')),
        [`systemctl start --no-block mdev@${A}.service`],
      );
    });

    it('does not start a definition that another user can write to', async () => {
      const host = made();
      write(host, definitionOf(A), written('auto'), 0o666);
      write(host, definitionOf(B), written('auto'));
      const {exitCode, journal} = await runOn(host, mdevParent, 'mtty', A, B);
      assert.equal(exitCode, 0);
      assert.match(journal[0] ?? '', /^<4>the definition \S+ is ignored: .* is writable by others/);
      assert.deepEqual(
        host.effects().filter((line) => line.startsWith('systemctl')),
        [`systemctl start --no-block mdev@${B}.service`],
      );
    });

    it('starts definitions in a folder with another spelling of its name', async () => {
      const host = made();
      write(host, definitionOf(A.toUpperCase(), '0000:2B:00.0'), written('auto'));
      const {exitCode} = await runOn(host, mdevParent, '0000:2b:00.0', A.toUpperCase(), 'no-uuid');
      assert.equal(exitCode, 0);
      assert.deepEqual(
        host.effects().filter((line) => line.startsWith('systemctl')),
        [`systemctl start --no-block mdev@${A}.service`],
      );
    });

    it('starts nothing without definitions', async () => {
      const host = made();
      assert.deepEqual(await runOn(host, mdevParent, 'mtty'), {
        exitCode: 0,
        journal: ['<6>no auto definitions on mtty'],
      });
    });
  });
});

describe('the programs in libexec for mediated devices', () => {
  let folder: string;
  const device = `sys/bus/mdev/devices/${A}`;
  beforeEach(() => {
    folder = fs.mkdtempSync(join(tmpdir(), 'pearasys-libexec-'));
    for (const name of [
      'mdev-create',
      'mdev-stop',
      'mdev-record',
      'mdev-parent',
      'trust.sh',
      'rescue.sh',
      'node.sh',
    ])
      put(
        name,
        shipped(`libexec/${name}`)
          .replaceAll('/usr/local/libexec/pearasys', folder)
          .replaceAll('/usr/bin/node', `${folder}/node`)
          .replaceAll('$libdir/cache', `${folder}/cache`)
          .replaceAll('/etc/mdevctl.d', `${folder}/etc/mdevctl.d`)
          .replaceAll('/usr/lib/mdevctl', `${folder}/usr/lib/mdevctl`)
          .replaceAll('/etc/systemd', `${folder}/etc/systemd`)
          .replaceAll('/run/systemd', `${folder}/run/systemd`)
          .replaceAll('/sys/', `${folder}/sys/`),
        0o755,
      );
    put('node', '#!/bin/sh\necho "node $*" >>"${0%/*}/called"\nexit 7\n', 0o755);
    // Prints the file that is named after its last argument.
    put(
      'systemctl',
      `#!/bin/sh
for last; do :; done
case $1 in
  show) property=\${3#--property=}; cat "\${0%/*}/$property.$last" 2>/dev/null || echo 0 ;;
  list-jobs) cat "\${0%/*}/jobs" 2>/dev/null || : ;;
  *) echo "systemctl $*" >>"\${0%/*}/called" ;;
esac
`,
      0o755,
    );
  });
  afterEach(() => fs.rmSync(folder, {recursive: true, force: true}));

  function put(path: string, text: string, mode = 0o644): void {
    fs.mkdirSync(dirname(join(folder, path)), {recursive: true, mode: 0o755});
    fs.writeFileSync(join(folder, path), text, {mode});
    fs.chmodSync(join(folder, path), mode);
  }

  /** How a program ended, and the programs it started. */
  function started(program: string, ...args: string[]): {status: number; called: string[]} {
    let status = 0;
    try {
      execFileSync('/bin/sh', [join(folder, program), ...args], {
        stdio: 'pipe',
        env: {PATH: `${folder}:/usr/bin:/bin`},
        timeout: 10_000,
      });
    } catch (error) {
      status = (error as {status: number}).status;
    }
    const path = join(folder, 'called');
    const called = fs.existsSync(path) ? fs.readFileSync(path, 'utf8').trim().split('\n') : [];
    return {status, called};
  }

  const node = (name: string, argument = A) =>
    `node ${nodeFlags} /usr/local/lib/pearasys/${name}.cjs ${argument}`;
  const times = (appeared: number, inactive: number, created: number) => {
    put(`ActiveEnterTimestampMonotonic.mdev_there@${A}.target`, String(appeared));
    put(`ActiveExitTimestampMonotonic.mdev@${A}.service`, String(inactive));
    put(`InactiveEnterTimestampMonotonic.mdev_create@${A}.service`, String(created));
  };

  it('mdev-parent starts Node for another spelling of the parent or of a UUID', () => {
    const upper = 'AAAAAAAA-1111-4111-8111-111111111111';
    put(`etc/mdevctl.d/0000:2b:00.0/${A}`, written('auto'));
    put(`etc/mdevctl.d/0000:2b:00.0/${upper}`, written('auto'));
    put('etc/mdevctl.d/0000:2b:00.0/notes', '');
    put(`etc/mdevctl.d/0000:2B:00.0/${B}`, written('auto'));
    put(`etc/mdevctl.d/0000:2c:00.0/${C}`, written('auto'));
    put('sys/class/mdev_bus/0000:2b:00.0/mdev_supported_types/mtty-1/create', '');
    const {called} = started('mdev-parent', '0000:2b:00.0');
    assert.deepEqual(called, [node('mdev-parent', `0000:2b:00.0 ${upper} ${B}`)]);
    assert.equal(
      fs.readFileSync(
        join(folder, 'sys/class/mdev_bus/0000:2b:00.0/mdev_supported_types/mtty-1/create'),
        'utf8',
      ),
      `${A}\n`,
    );
  });

  it('mdev-parent starts Node if only a folder with another spelling exists', () => {
    put(`etc/mdevctl.d/0000:2B:00.0/${B}`, written('auto'));
    assert.deepEqual(started('mdev-parent', '0000:2b:00.0').called, [
      node('mdev-parent', `0000:2b:00.0 ${B}`),
    ]);
  });

  it('mdev-create starts Node for a requested start', () => {
    assert.deepEqual(started('mdev-create', A), {status: 7, called: [node('mdev-create')]});
  });

  for (const [what, appeared, inactive, created] of [
    ['after its unit was stopped', 5, 9, 0],
    ['after a start that failed', 5, 0, 9],
    ['after both', 5, 9, 9],
  ] as const)
    it(`mdev-create starts Node for a start ${what}`, () => {
      times(appeared, inactive, created);
      assert.deepEqual(started('mdev-create', A), {status: 7, called: [node('mdev-create')]});
    });

  it('mdev-create does nothing after an event of a device that no longer exists', () => {
    times(9, 5, 3);
    assert.deepEqual(started('mdev-create', A), {status: 0, called: []});
  });

  it('mdev-stop starts Node for an existing device, and does nothing for a missing one', () => {
    assert.deepEqual(started('mdev-stop', A), {status: 0, called: []});
    put(`${device}/remove`, '');
    assert.deepEqual(started('mdev-stop', A), {status: 7, called: [node('mdev-stop')]});
  });

  it('mdev-stop leaves a device that was created again alone, and starts the target that follows it', () => {
    put(`${device}/remove`, '');
    put('jobs', `12 mdev_gone@${A}.target start waiting\n`);
    assert.deepEqual(started('mdev-stop', A), {
      status: 0,
      called: [`systemctl start --no-block mdev_there@${A}.target`],
    });
  });

  it('mdev-record always starts Node', () => {
    assert.deepEqual(started('mdev-record', A), {status: 7, called: [node('mdev-record')]});
  });

  describe('mdev-parent', () => {
    const createFile = (type = 'mtty-1') => `${types.slice(1)}/${type}/create`;
    const wrote = (type?: string) => fs.readFileSync(join(folder, createFile(type)), 'utf8');
    beforeEach(() => {
      put(createFile(), '');
      put(createFile('mtty-2'), '');
    });
    const define = (text: string, uuid = A) => put(definitionOf(uuid).slice(1), text);

    it('creates devices that are defined without attributes, without starting a process', () => {
      define(written('auto'));
      define(written('auto', 'mtty-2'), B);
      define(written('manual'), C);
      assert.deepEqual(started('mdev-parent', 'mtty'), {status: 0, called: []});
      assert.deepEqual(
        [wrote(), wrote('mtty-2')],
        [
          `${A}
`,
          `${B}
`,
        ],
      );
    });

    it('does not create an existing device', () => {
      define(written('auto'));
      put(`sys/class/mdev_bus/mtty/${A}/remove`, '');
      assert.deepEqual(started('mdev-parent', 'mtty'), {status: 0, called: []});
      assert.equal(wrote(), '');
    });

    const others: readonly [what: string, prepare: () => void][] = [
      ['with attributes', () => define(written('auto', 'mtty-1', '[\n    {\n      "a": "b"\n    }\n  ]'))],
      ['of a missing type', () => define(written('auto', 'mtty-9'))],
      ['of a type that is a path', () => define(written('auto', '../mtty-1'))],
      ['with more after it', () => define(`${written('auto')}\n{}`)],
      [
        'while a callout script is installed',
        () => {
          define(written('auto'));
          put('etc/mdevctl.d/scripts.d/callouts/script', '', 0o755);
        },
      ],
      ...[
        `etc/systemd/system/mdev@${A}.service`,
        `etc/systemd/system/mdev@${A}.service.d/override.conf`,
        `etc/systemd/system.control/mdev@${A}.service.d/50-Slice.conf`,
        `etc/systemd/system/mdev_create@${A}.service.d/override.conf`,
        'etc/systemd/system/mdev@.service.d/override.conf',
        `run/systemd/system/mdev@${A}.service`,
        'run/systemd/system/mdev_create@.service',
      ].map((path): [string, () => void] => [
        `whose unit is changed by ${path}`,
        () => {
          define(written('auto'));
          put(path, '[Service]\n');
        },
      ]),
    ];
    for (const [what, prepare] of others)
      it(`leaves a definition ${what} to its unit`, () => {
        prepare();
        assert.deepEqual(started('mdev-parent', 'mtty'), {
          status: 0,
          called: [`systemctl start --no-block mdev@${A}.service`],
        });
        assert.equal(wrote(), '');
      });

    for (const unit of ['mdev', 'mdev_create'])
      it(`starts no definition whose ${unit}@.service is masked`, () => {
        define(written('auto'));
        define('{"mdev_type": "mtty-1", "start": "auto"}', B);
        for (const [path, uuid] of [
          ['etc/systemd/system', A],
          ['run/systemd/system', B],
        ] as const) {
          fs.mkdirSync(join(folder, path), {recursive: true});
          fs.symlinkSync('/dev/null', join(folder, path, `${unit}@${uuid}.service`));
        }
        assert.deepEqual(started('mdev-parent', 'mtty'), {status: 0, called: []});
        assert.equal(wrote(), '');
      });

    it('ignores the changed unit of another device', () => {
      put(`etc/systemd/system/mdev@${B}.service`, '[Service]\n');
      define(written('auto'));
      assert.deepEqual(started('mdev-parent', 'mtty'), {status: 0, called: []});
      assert.equal(wrote(), `${A}\n`);
    });

    it('leaves definitions in another form to Node, and no others', () => {
      define('{"mdev_type": "mtty-1", "start": "auto"}');
      define(written('auto'), B);
      define('{', C);
      assert.deepEqual(started('mdev-parent', 'mtty'), {
        status: 7,
        called: [node('mdev-parent', `mtty ${A} ${C}`)],
      });
      assert.equal(wrote(), `${B}\n`);
    });

    for (const [what, open] of [
      ['which others can write to', (path: string) => fs.chmodSync(path, 0o777)],
      ['of another user', (path: string) => fs.chownSync(path, 1000, 1000)],
    ] as const)
      for (const path of [definitionOf(A), '/etc/mdevctl.d/mtty', '/etc/mdevctl.d'])
        it(`starts Node for ${path} ${what}`, function () {
          // Only root can give files away.
          if (process.getuid?.() !== 0 && what === 'of another user') this.skip();
          define(written('auto'));
          open(join(folder, path));
          assert.deepEqual(started('mdev-parent', 'mtty'), {
            status: 7,
            called: [node('mdev-parent', `mtty ${A}`)],
          });
          assert.equal(wrote(), '');
        });

    it('starts all others if systemd refuses some, and fails', () => {
      put('systemctl', '#!/bin/sh\necho "systemctl $*" >>"${0%/*}/called"\nexit 5\n', 0o755);
      define(written('auto', 'mtty-1', '[\n    {\n      "a": "b"\n    }\n  ]'));
      define('{"mdev_type": "mtty-1", "start": "auto"}', B);
      define(written('auto'), C);
      assert.deepEqual(started('mdev-parent', 'mtty'), {
        status: 7,
        called: [`systemctl start --no-block mdev@${A}.service`, node('mdev-parent', `mtty ${B}`)],
      });
      assert.equal(wrote(), `${C}\n`);
      fs.rmSync(join(folder, definitionOf(B)));
      assert.equal(started('mdev-parent', 'mtty').status, 5);
    });

    it('does not delay other devices while the creation of one waits in its driver', () => {
      fs.rmSync(join(folder, createFile('mtty-2')));
      // Opening a FIFO for writing waits for a reader.
      execFileSync('mkfifo', [join(folder, createFile('mtty-2'))]);
      define(written('auto', 'mtty-2'));
      define(written('auto'), B);
      define('{"mdev_type": "mtty-1", "start": "auto"}', C);
      // The reader starts after all others are created.
      put(
        'node',
        `#!/bin/sh
until [ -s '${join(folder, createFile())}' ]; do sleep 0.01; done
echo "node $*" >>"\${0%/*}/called"
cat '${join(folder, createFile('mtty-2'))}' >"\${0%/*}/late" &
`,
        0o755,
      );
      assert.deepEqual(started('mdev-parent', 'mtty'), {
        status: 0,
        called: [node('mdev-parent', `mtty ${C}`)],
      });
      assert.equal(wrote(), `${B}\n`);
    });

    for (const one of definitionCases)
      it(`a definition ${one.name} is ${one.answer}, to the shell and to Node`, function () {
        if (!canTry(one)) this.skip();
        putFile(folder, definitionPlace, one);
        const {uuid, parent} = definitionSubject;
        const host = new MachineHost(folder);
        const [definition] = readDefinitions(host, {
          uuid: parseUuid(uuid),
          parent: parseParentName(parent),
        }).definitions;
        const answer =
          definition === undefined || distrustDefinition(host, definition) !== undefined
            ? 'ignored'
            : definition.start;
        assert.equal(answer, one.answer, 'TypeScript');
        const {status, called} = started('mdev-parent', parent);
        assert.notEqual(status, null, 'it does not end');
        const isCreated = wrote() !== '';
        if (isCreated) assert.deepEqual([wrote(), called, one.answer], [`${uuid}\n`, [], 'auto']);
        // Otherwise it is not started, or left to Node or its unit.
        else if (called.length === 0) assert.notEqual(one.answer, 'auto');
        if (one.quick === true) assert.deepEqual([isCreated, called], [one.answer === 'auto', []]);
      });

    it('ignores files whose names are not UUIDs', () => {
      define(written('auto'), 'notes');
      define(written('auto'), `${A}.new`);
      assert.deepEqual(started('mdev-parent', 'mtty'), {status: 0, called: []});
    });
  });

  it('fail without their arguments, and start nothing', () => {
    for (const program of ['mdev-create', 'mdev-stop', 'mdev-record', 'mdev-parent']) {
      const {status, called} = started(program);
      assert.notEqual(status, 0, program);
      assert.deepEqual(called, []);
    }
  });
});
