import assert from 'node:assert/strict';
import {spawnSync} from 'node:child_process';
import fs from 'node:fs';
import {join} from 'node:path';
import type {VgpuListResult} from '../../src/entry/cli/commands/vgpu/list.js';
import type {VgpuSetResult} from '../../src/entry/cli/commands/vgpu/set.js';
import {vgpuSet} from '../../src/entry/handlers/vgpu-set.js';
import {vgpuStop} from '../../src/entry/handlers/vgpu-stop.js';
import {defaultLayout} from '../../src/config/layout.js';
import {render} from '../../src/systemd/templates.js';
import type {MachineDeclaration} from '../simulated-host/declaration.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {addNvidia} from '../simulated-host/standard-machine.js';
import {runOn, shipped} from '../unit/services.js';
import {succeeds, typed} from './runs.js';

const first = '0000:07:00.4';
const second = '0000:07:00.5';
const unit = `vgpu@${first}.service`;
const record = `/etc/pearasys/vgpu/${first}-0x10de-0x26b9`;
const typePath = `/sys/bus/pci/devices/${first}/nvidia/current_vgpu_type`;
const offered = 'ID    : vGPU Name\n588   : NVIDIA L40-1B\n589   : NVIDIA L40-2B';
const own = (slot: string, type = '0') => ({
  slot,
  id: '10de:26b9',
  // Not a display, which nouveau would take when it is plugged in.
  class: '120000',
  driver: 'nvidia',
  group: slot === first ? 40 : 41,
  attributes: {
    'nvidia/current_vgpu_type': type,
    'nvidia/creatable_vgpu_types': type === '0' ? offered : 'ID    : vGPU Name',
  },
});

describe('pearasys vgpu', () => {
  const hosts: SimulatedHost[] = [];
  afterEach(() => {
    for (const host of hosts.splice(0)) host.dispose();
  });

  function machine(tweak: (declaration: MachineDeclaration) => void = () => undefined): SimulatedHost {
    const host = SimulatedHost.standard((declaration) => {
      addNvidia(declaration);
      const nvidia = declaration.modules.find(({name}) => name === 'nvidia');
      if (nvidia !== undefined) nvidia.loaded = true;
      declaration.drivers
        .find(({name}) => name === 'nvidia')
        ?.aliases.push('pci:v000010DEd000026B9sv*sd*bc*sc*i*');
      declaration.functions.push(own(first), own(second, '588'));
      declaration.files['/usr/lib/udev/rules.d/60-pearasys-vgpu.rules'] = shipped(
        'udev/60-pearasys-vgpu.rules',
      );
      for (const name of ['vgpu@.service', 'vgpu_set@.service'])
        declaration.files[`/usr/lib/systemd/system/${name}`] = render(name, defaultLayout);
      tweak(declaration);
    });
    hosts.push(host);
    runPrograms(host);
    return host;
  }

  /** The units run sh on the machine's files, and the handlers in this process. */
  function runPrograms(host: SimulatedHost): void {
    const process = new SimulatedHost(host.machine);
    host.userland.execute = async (_unit, [program = '', slot = '']) => {
      const name = program.replace(`${defaultLayout.libexec}/`, '');
      const shell = runShell(host, name, slot);
      if (shell.status !== 99) return shell.status;
      return (await runOn(process, name === 'vgpu-set' ? vgpuSet : vgpuStop, slot)).exitCode;
    };
  }

  /** @returns 99 as the status if it starts Node. */
  function runShell(host: SimulatedHost, name: string, slot: string): {readonly status: number} {
    const {folder} = host.machine;
    const path = join(folder, 'tmp', name);
    const text = shipped(`libexec/${name}`)
      .replaceAll('/sys/bus', `${folder}/sys/bus`)
      .replaceAll('/etc/', `${folder}/etc/`)
      .replaceAll(/^\. .*\/node\.sh"\nrun_node .*$/gm, 'exit 99');
    fs.writeFileSync(path, text);
    const {status, stderr} = spawnSync('sh', [path, slot], {encoding: 'utf8'});
    assert.equal(stderr, '');
    return {status: status ?? 255};
  }

  /** What was done, without the question for the unit's state. */
  const effects = (host: SimulatedHost) =>
    host.effects().filter((line) => !line.startsWith('systemctl show '));
  const typeOf = (host: SimulatedHost) => host.readText(typePath);
  const list = async (host: SimulatedHost) =>
    JSON.parse((await succeeds(host, 'vgpu list --json')).stdout) as VgpuListResult;

  describe('types', () => {
    it('prints what each function can have, and why another has none', async () => {
      const {stdout, stderr} = await succeeds(machine(), 'vgpu types');
      assert.equal(stdout, `${first}\t588\tNVIDIA L40-1B\n${first}\t589\tNVIDIA L40-2B\n`);
      assert.match(stderr, new RegExp(`${second} has type 588`));
    });

    it('of one function, as JSON', async () => {
      const {stdout} = await succeeds(machine(), `vgpu types ${second} --json`);
      assert.deepEqual(JSON.parse(stdout), {
        vgpus: [{slot: second, id: '10de:26b9', type: 588, creatable: []}],
      });
    });

    it('says where there is none', async () => {
      const host = SimulatedHost.standard();
      hosts.push(host);
      for (const command of ['vgpu types', 'vgpu list'])
        assert.match((await succeeds(host, command)).stderr, /no virtual function for NVIDIA vGPUs/);
    });
  });

  describe('set', () => {
    for (const type of ['588', 'NVIDIA L40-1B'])
      it(`sets and records the type ${type}, and starts the unit, which runs nothing but its condition`, async () => {
        const host = machine();
        const line = `vgpu set ${first} TYPE`.split(' ').map((word) => (word === 'TYPE' ? type : word));
        const {run} = await import('./runs.js');
        const {exitCode, stdout, stderr} = await run(host, line);
        assert.equal(exitCode, 0, stderr);
        await host.userland.idle();
        assert.equal(stdout, `${first} has vGPU type 588\n`);
        assert.equal(typeOf(host), '588');
        assert.match(host.readText(record) ?? '', /^PEARASYS_VGPU_TYPE=588$/m);
        assert.equal(host.userland.state(unit), 'active');
        assert.deepEqual(host.userland.jobs, [`start ${unit}`]);
        assert.match((await succeeds(host, `vgpu set ${first} 588`)).stdout, /already has vGPU type 588/);
      });

    it('replaces a type by way of 0', async () => {
      const host = machine();
      await succeeds(host, `vgpu set ${first} 588`);
      host.journal.splice(0);
      await succeeds(host, `vgpu set ${first} 589`);
      assert.deepEqual(effects(host).slice(0, 3), [
        `echo '0' > ${typePath}`,
        `echo '589' > ${typePath}`,
        `write ${record}`,
      ]);
      assert.equal(typeOf(host), '589');
    });

    it('restores the former type if the new one is refused, and records nothing', async () => {
      const host = machine();
      await succeeds(host, `vgpu set ${first} 588`);
      const before = host.readText(record);
      const {exitCode, stderr} = await typed(host, `vgpu set ${first} 777`);
      assert.equal(exitCode, 1, stderr);
      assert.equal(typeOf(host), '588');
      assert.equal(host.readText(record), before);
    });

    it('0 clears the type, removes the record and stops the unit', async () => {
      const host = machine();
      await succeeds(host, `vgpu set ${first} 588`);
      const {stdout} = await succeeds(host, `vgpu set ${first} 0`);
      assert.equal(stdout, `${first} has no vGPU type\n`);
      assert.equal(typeOf(host), '0');
      assert.equal(host.exists(record), false);
      assert.equal(host.userland.state(unit), 'inactive');
      assert.match((await succeeds(host, `vgpu set ${first} 0`)).stdout, /already has no vGPU type/);
    });

    it('0 removes the record of an absent function', async () => {
      const host = machine();
      await succeeds(host, `vgpu set ${first} 588`);
      host.machine.hotRemove(first);
      await host.userland.idle();
      await succeeds(host, `vgpu set ${first} 0`);
      assert.equal(host.exists(record), false);
      assert.equal((await typed(host, `vgpu set ${first} 0`)).exitCode, 4);
    });

    it('does not change a vGPU that a guest uses', async () => {
      const host = machine();
      host.machine.tree.node('/dev/vfio/41', {type: 'character', number: '511:41', mode: 0o600});
      host.machine.addProcess({pid: 4711, comm: 'qemu', holds: ['/dev/vfio/41']});
      for (const type of ['0', '589']) {
        const {exitCode, stderr} = await typed(host, `vgpu set ${second} ${type}`);
        assert.equal(exitCode, 3, stderr);
        assert.match(stderr, /process 4711 \(qemu\)/);
      }
      assert.deepEqual(effects(host), []);
    });

    for (const [words, exitCode, reason] of [
      [`${first} 777`, 4, /can have 588 \(NVIDIA L40-1B\), 589/],
      [`${first} L40`, 4, /cannot have the vGPU type 'L40'/],
      ['0000:02:00.0 588', 3, /not a virtual function for NVIDIA vGPUs/],
      ['0000:02:00.0 0', 3, /not a virtual function for NVIDIA vGPUs/],
      ['0000:0f:00.0 588', 4, /--id VENDOR:DEVICE/],
    ] as const)
      it(`refuses \`set ${words}\` before any change`, async () => {
        const host = machine();
        const run = await typed(host, `vgpu set ${words}`);
        assert.equal(run.exitCode, exitCode, run.stderr);
        assert.match(run.stderr, reason);
        assert.deepEqual(effects(host), []);
      });

    it('records a type for a function that is absent, and sets it when the function appears', async () => {
      const host = machine((declaration) => {
        const found = declaration.functions.find(({slot}) => slot === first);
        if (found !== undefined) found.present = false;
      });
      assert.match(
        (await succeeds(host, `vgpu set ${first} 588 --id 10de:26b9`)).stdout,
        /record is written/,
      );
      host.machine.hotAdd(first);
      await host.userland.idle();
      assert.equal(typeOf(host), '588');
      assert.equal(host.userland.state(unit), 'active');
      assert.deepEqual(host.userland.jobs, [`start vgpu_set@${first}.service`, `start ${unit}`]);
    });

    it('with --dry-run prints the steps, with --root writes only the record', async () => {
      const host = machine();
      const {stdout} = await succeeds(host, `vgpu set ${first} 588 --dry-run --json`);
      const result = JSON.parse(stdout) as VgpuSetResult;
      assert.equal(result.steps[0], `echo '588' > ${typePath}`);
      assert.deepEqual([result.dryRun, result.changed, result.type], [true, false, 0]);
      assert.deepEqual(effects(host), []);
      await succeeds(host, `--root ${host.machine.folder} vgpu set ${first} 588 -d 10de:26b9`);
      assert.equal(typeOf(host), '0');
      assert.match(host.readText(record) ?? '', /^PEARASYS_VGPU_TYPE=588$/m);
    });
  });

  describe('the unit', () => {
    it('sets the recorded type at boot, and is skipped where it is right', async () => {
      const host = machine();
      await succeeds(host, `vgpu set ${first} 588`);
      for (const [type, jobs] of [
        ['0', [`start vgpu_set@${first}.service`, `start ${unit}`]],
        ['588', [`start ${unit}`]],
      ] as const) {
        await host.userland.systemd.stop(unit);
        host.machine.write(typePath, type);
        host.userland.jobs.splice(0);
        host.userland.coldplug();
        await host.userland.idle();
        assert.equal(typeOf(host), '588');
        assert.equal(host.userland.state(unit), 'active');
        assert.deepEqual(host.userland.jobs, jobs);
      }
    });

    it('stops with the function, and starts when it is back', async () => {
      const host = machine();
      await succeeds(host, `vgpu set ${first} 588`);
      host.machine.hotRemove(first);
      await host.userland.idle();
      assert.equal(host.userland.state(unit), 'inactive');
      host.machine.hotAdd(own(first));
      await host.userland.idle();
      assert.equal(typeOf(host), '588');
      assert.equal(host.userland.state(unit), 'active');
    });

    for (const folder of ['/etc/systemd/system', '/run/systemd/generator'])
      it(`keeps the device unit of a function with a claim in ${folder}, without NVIDIA's driver`, async () => {
        const host = machine();
        await succeeds(host, `vgpu set ${first} 588`);
        const readyOf = async () => {
          await host.run('udevadm', ['trigger', '--action=change', `/sys/bus/pci/devices/${first}`]);
          const {properties} =
            host.userland.results.findLast(({event}) => event.devpath.endsWith(first)) ?? {};
          return properties?.['SYSTEMD_READY'];
        };
        host.machine.tree.remove(typePath);
        assert.equal(await readyOf(), '0');
        host.machine.tree.file(`${folder}/pearasys-${first}@.service`, '[Unit]\n');
        assert.equal(await readyOf(), undefined);
      });

    it('clears the type when it is stopped', async () => {
      const host = machine();
      await succeeds(host, `vgpu set ${first} 588`);
      await succeeds(host, 'vgpu list');
      assert.equal((await host.userland.systemd.stop(unit)).status, 0);
      assert.equal(typeOf(host), '0');
      assert.equal(host.exists(record), true);
    });

    it('waits until the driver offers the type', async () => {
      const host = machine();
      await succeeds(host, `vgpu set ${first} 588`);
      await host.userland.systemd.stop(unit);
      const types = typePath.replace('current_vgpu_type', 'creatable_vgpu_types');
      host.machine.tree.file(types, 'ID    : vGPU Name\n');
      host.machine.after(5000, () => host.machine.tree.file(types, `${offered}\n`));
      assert.equal((await host.userland.systemd.start(unit)).status, 0);
      assert.equal(typeOf(host), '588');
    });

    for (const word of ['pearasys=off', 'pearasys.skip=07:00.4'])
      it(`refuses with ${word}, also if no file in /run says so`, async () => {
        const host = machine((declaration) => (declaration.cmdline += ` ${word}`));
        await succeeds(host, `vgpu set ${first} 588`);
        host.machine.write(typePath, '0');
        const {exitCode, journal} = await runOn(host, vgpuSet, first);
        assert.equal(exitCode, 3);
        assert.match(
          journal[0] ?? '',
          /^<3>0000:07:00\.4 gets no vGPU type: pearasys\S+ on the kernel command line/,
        );
        assert.equal(typeOf(host), '0');
      });

    it('is preceded by the service that saves the skipped slots, also if there are only records of vGPUs', () => {
      const {config} = defaultLayout;
      assert.match(
        render('pearasys-early.service', defaultLayout),
        new RegExp(`^ConditionDirectoryNotEmpty=\\|${config}/vgpu$`, 'm'),
      );
    });

    it("fails if the type cannot be set, or the record is another user's", async () => {
      const host = machine();
      await succeeds(host, `vgpu set ${first} 588`);
      await host.userland.systemd.stop(unit);
      host.machine.owners.set(record, 1000);
      assert.equal((await host.userland.systemd.start(unit)).status, 1);
      assert.equal(typeOf(host), '0');
      assert.match(
        (await succeeds(host, 'vgpu list')).stderr,
        /the vGPU record .* is ignored: .*owned by user 1000/,
      );
    });
  });

  it('list shows functions and records, absent ones too', async () => {
    const host = machine();
    await succeeds(host, `vgpu set ${first} 588`);
    await succeeds(host, 'vgpu set 0000:07:00.6 589 --id 10de:26b9');
    assert.equal(
      (await succeeds(host, 'vgpu list')).stdout,
      `${first}\t10de:26b9\t-\t588\t588\tactive\n` +
        `${second}\t10de:26b9\t-\t588\t-\t-\n` +
        '0000:07:00.6\t10de:26b9\t-\tabsent\t589\tinactive\n',
    );
    const {vgpus, problems} = await list(host);
    assert.deepEqual(
      vgpus.map(({slot, present, type, recorded, unitState}) => [slot, present, type, recorded, unitState]),
      [
        [first, true, 588, 588, 'active'],
        [second, true, 588, null, null],
        ['0000:07:00.6', false, null, 589, 'inactive'],
      ],
    );
    assert.deepEqual(problems, []);
  });
});
