import assert from 'node:assert/strict';
import fs from 'node:fs';
import {claim} from '../../src/entry/handlers/claim.js';
import {guestStart} from '../../src/entry/handlers/guest-start.js';
import {guestStop} from '../../src/entry/handlers/guest-stop.js';
import type {Handler} from '../../src/entry/handlers/handler.js';
import {mdevRecord} from '../../src/entry/handlers/mdev-record.js';
import {record} from '../../src/entry/handlers/record.js';
import {release} from '../../src/entry/handlers/release.js';
import {vfs} from '../../src/entry/handlers/vfs.js';
import type {MachineDeclaration} from '../simulated-host/declaration.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {addNvidia, addParents, sriovCard} from '../simulated-host/standard-machine.js';
import {runOn, runUnits, withProduct} from '../unit/services.js';
import {typed} from './runs.js';

const [card, sound] = ['0000:02:00.0', '0000:02:00.1'];
const [disk, net] = ['0000:04:00.0', '0000:05:00.0'];
const pf = '0000:06:00.0';
const uuid = '11111111-1111-4111-8111-111111111111';
const home = {HOME: '/home/u', SHELL: '/bin/bash'};

/** A command line, or a handler with its arguments. */
type Call = string | readonly [Handler, ...string[]];

/** One operation on the machine, from a state that other operations establish. */
interface Operation {
  readonly call: Call;
  /** The calls before it. */
  readonly first?: readonly Call[];
  readonly tweak?: (declaration: MachineDeclaration) => void;
  readonly prepare?: (host: SimulatedHost) => void;
  /** Makes the first run fail, so that it is also killed during its undo. */
  readonly fails?: (host: SimulatedHost) => void;
  /** The opposite call: it must lead to the same state after a killed run as after a complete run. */
  readonly inverse?: Call;
}

async function perform(host: SimulatedHost, call: Call): Promise<number> {
  if (typeof call === 'string') return (await typed(host, call, {environment: home})).exitCode;
  const [handler, ...args] = call;
  const {exitCode} = await runOn(host, handler, ...args);
  // The handlers run without the guest's unit, so systemd does not stop what is bound to it.
  if (handler === guestStop) await host.userland.systemd.stop('pearasys-awake@g.service');
  return exitCode;
}

interface MachineState {
  readonly files: Readonly<Record<string, string>>;
  readonly modules: readonly string[];
  readonly nodes: readonly (readonly unknown[])[];
  readonly [name: string]: unknown;
}

/** Everything of a machine that a run can change. */
function stateOf(host: SimulatedHost): MachineState {
  const {machine, userland} = host;
  const files: Record<string, string> = {};
  const look = (path: string): void => {
    if (path === '/run/udev/data') return;
    // The next run that takes this lock reads it. The comparison shows that it is harmless.
    if (path === '/run/pearasys/unfinished') return;
    const real = machine.tree.onDisk(path);
    const entries = fs.existsSync(real) ? fs.readdirSync(real, {withFileTypes: true}) : [];
    // Empty folders do not matter, except those of units.
    if (entries.length === 0 && path.startsWith('/etc/systemd/')) files[path] = 'empty';
    for (const entry of entries) {
      const own = `${path}/${entry.name}`;
      if (entry.isDirectory()) look(own);
      else
        files[own] = entry.isSymbolicLink()
          ? `-> ${fs.readlinkSync(machine.tree.onDisk(own))}`
          : `${fs.statSync(machine.tree.onDisk(own)).mode.toString(8)} ${fs.readFileSync(machine.tree.onDisk(own), 'utf8')}`;
    }
  };
  for (const folder of ['/etc', '/run', '/home', '/boot']) look(folder);
  return {
    files,
    bindings: machine.bindings(),
    attributes: ['reset_method', 'd3cold_allowed', 'power/control'].map((name) =>
      host.readText(`/sys/bus/pci/devices/${card}/${name}`),
    ),
    hugePages: [0, 1].map((node) =>
      host.readText(`/sys/devices/system/node/node${node}/hugepages/hugepages-2048kB/nr_hugepages`),
    ),
    mounts: host.readText('/proc/self/mountinfo'),
    vgpu: host.readText(`/sys/bus/pci/devices/${vgpu}/nvidia/current_vgpu_type`),
    virtual: ['sriov_numvfs', 'sriov_drivers_autoprobe'].map((name) =>
      host.readText(`/sys/bus/pci/devices/${pf}/${name}`),
    ),
    modules: host.list('/sys/module').filter((module) => machine.isLoaded(module)),
    mdevs: host.list('/sys/bus/mdev/devices').map((name) => {
      const folder = `/sys/bus/mdev/devices/${name}`;
      return [name, ...host.list(folder).map((one) => `${one}=${host.readLink(`${folder}/${one}`) ?? ''}`)];
    }),
    nodes: host
      .list('/dev/vfio')
      // That of the module itself: what is loaded is compared below.
      .filter((name) => name !== 'vfio')
      .map((name) => {
        const {uid, gid, mode} = host.info(`/dev/vfio/${name}`) ?? {};
        return [name, uid, gid, mode];
      }),
    processes: host.list('/proc').filter((name) => /^\d+$/.test(name)),
    consoles: host
      .list('/sys/class/vtconsole')
      .map((name) => host.readText(`/sys/class/vtconsole/${name}/bind`)),
    units: [...userland.units].filter(([, state]) => state !== 'inactive').sort(),
    needsReload: userland.systemd.files.needsReload,
    locks: [...machine.locks.keys()],
    harm: machine.harm,
  };
}

/** Without the remains of a reversed operation: modules that were loaded for it, a list that has become empty. */
function withoutTraces(state: MachineState): object {
  const files = Object.entries(state.files).filter(
    ([path, text]) =>
      (!path.startsWith('/etc/pearasys/guests/') || !text.endsWith(' ')) &&
      // Without claims, it has only comments.
      !(path === '/etc/pearasys/initramfs-claims' && !/^[0-9]/m.test(text.replace(/^\d+ /, ''))),
  );
  // VFIO's own node comes with its module.
  const nodes = state.nodes.filter(([name]) => name !== 'vfio');
  return {...state, files: Object.fromEntries(files), modules: [], nodes};
}

async function machineFor({first = [], tweak, prepare}: Operation): Promise<SimulatedHost> {
  const host = SimulatedHost.standard((declaration) => {
    withProduct(declaration);
    addParents(declaration);
    tweak?.(declaration);
  });
  runUnits(host);
  for (const call of first) assert.equal(await perform(host, call), 0, String(call));
  await host.userland.idle();
  prepare?.(host);
  return host;
}

/** Runs a call to its end on a machine in any state. @returns the final state. */
async function finish(machine: SimulatedHost, call: Call): Promise<MachineState> {
  const host = new SimulatedHost(machine.machine);
  await perform(host, call);
  await host.userland.idle();
  const state = stateOf(host);
  machine.dispose();
  return state;
}

/** The effects, counted from 1, at which an operation can be killed; effects on files also in the middle. */
async function momentsOf(operation: Operation): Promise<[number, boolean][]> {
  const machine = await machineFor(operation);
  const host = new SimulatedHost(machine.machine);
  operation.fails?.(host);
  await perform(host, operation.call);
  await host.userland.idle();
  const moments = host.journal.flatMap(({kind}, index): [number, boolean][] => {
    const number = index + 1;
    return ['file', 'link', 'remove'].includes(kind)
      ? [
          [number, true],
          [number, false],
        ]
      : [[number, false]];
  });
  machine.dispose();
  return moments;
}

async function killed(
  operation: Operation,
  [effect, within]: [number, boolean],
): Promise<[SimulatedHost, string]> {
  const machine = await machineFor(operation);
  const host = new SimulatedHost(machine.machine);
  operation.fails?.(host);
  host.killAt(effect, within);
  await perform(host, operation.call);
  assert.ok(host.dead, 'it was not killed');
  await host.userland.idle();
  return [machine, `killed ${within ? 'in' : 'after'} effect ${effect}: ${host.effects().at(-1) ?? ''}`];
}

const withGuest = (declaration: MachineDeclaration): void => {
  declaration.files['/etc/pearasys/guests/g.conf'] = `${card}\n${sound}\n`;
};
const withDisplayManager = (declaration: MachineDeclaration): void => {
  withGuest(declaration);
  declaration.files['/etc/pearasys/guests/g.settings'] = 'StopServices=gdm.service\n';
};
const withSriov = (declaration: MachineDeclaration): void => {
  declaration.functions.push({...sriovCard(pf), driver: 'igb'});
  for (const module of declaration.modules) if (module.name === 'igb') module.loaded = true;
};
const image = '/boot/initrd.img-6.1.0-18-amd64';
const withInitramfs = (declaration: MachineDeclaration): void => {
  for (const path of ['/usr/sbin/update-initramfs', '/usr/share/initramfs-tools/hook-functions', image])
    declaration.files[path] = '';
};
const withHugePages = (declaration: MachineDeclaration): void => {
  declaration.hugePages = [0, 1].map((node) => ({node, size: 2048}));
};
const vgpu = '0000:07:00.4';
const withVgpu = (declaration: MachineDeclaration): void => {
  addNvidia(declaration);
  const nvidia = declaration.modules.find(({name}) => name === 'nvidia');
  if (nvidia !== undefined) nvidia.loaded = true;
  declaration.functions.push({
    slot: vgpu,
    id: '10de:26b9',
    class: '030200',
    driver: 'nvidia',
    attributes: {
      'nvidia/current_vgpu_type': '0',
      'nvidia/creatable_vgpu_types': 'ID    : vGPU Name\n588   : NVIDIA L40-1B\n589   : NVIDIA L40-2B',
    },
  });
};
const withUsers = (declaration: MachineDeclaration): void => {
  declaration.files['/etc/passwd'] = 'root:x:0:0::/:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n';
  declaration.files['/etc/group'] = 'root:x:0:\nvfio:x:990:\n';
};
const installed = `-s ${card} service install vfio-pci --siblings`;
const withSettings = `${installed} --set reset=bus --set d3cold_allowed=0 --set power/control=on`;
const defined = `mdev define -u ${uuid} -p 0000:02:00.0 -t nvidia-1 --auto`;

const operations: Record<string, Operation> = {
  'bind vfio-pci': {
    call: `bind vfio-pci ${card} ${sound}`,
    inverse: `bind default ${card} ${sound}`,
  },
  'bind none': {call: `bind none ${card} --siblings`, first: [installed]},
  'bind default': {call: `bind default ${card} ${sound}`, first: [`bind vfio-pci ${card} ${sound}`]},
  unbind: {call: `unbind ${card} ${sound}`, first: [`${installed} --now`]},
  'bind that fails': {
    call: `bind vfio-pci ${card} ${sound}`,
    fails: (host) => host.failWrite('*/snd_hda_intel/unbind', 'EIO'),
  },
  'a chain of the kernel’s own verbs': {
    call: `-s ${sound} pci driver snd_hda_intel unbind driver vfio-pci new-id driver vfio-pci remove-id`,
  },
  'a chain that sets an override': {
    call: `-s ${sound} pci device unbind device --driver vfio-pci driver-override device --driver vfio-pci bind`,
  },
  'service install': {
    call: installed,
    inverse: `-s ${card} -s ${sound} service uninstall`,
  },
  'service install --now': {call: `${installed} --now`},
  'service install that fails': {
    call: installed,
    fails: (host) => host.failCommand('systemctl daemon-reload', 1),
  },
  'service install with an initramfs': {call: installed, tweak: withInitramfs},
  'service uninstall that leaves the initramfs': {
    call: `-s ${card} -s ${sound} service uninstall --no-initramfs`,
    first: [`${installed} --now`],
    tweak: withInitramfs,
    inverse: `${installed} --now`,
  },
  'service install with a user': {
    call: `${installed} --user alice`,
    tweak: withUsers,
    inverse: `-s ${card} -s ${sound} service uninstall`,
  },
  'service install --now with a user': {call: `${installed} --user alice --now`, tweak: withUsers},
  'service set of a user, and back': {
    call: `service set ${card} --user alice --user-group vfio`,
    first: [`-s ${card} service install vfio-pci --group --now`],
    tweak: withUsers,
    inverse: `service set ${card} --user= --user-group=`,
  },
  'driver new-id': {call: 'driver new-id vfio-pci 10de:1b80 --force', first: [`unbind ${card}`]},
  'driver no-iommu on': {
    call: 'driver no-iommu on --permanent --force',
    tweak: (declaration) => (declaration.iommu = false),
    inverse: 'driver no-iommu off --force',
  },
  'boot disable': {call: 'boot disable', first: [installed], tweak: withInitramfs},
  'service uninstall': {
    call: `-s ${card} -s ${sound} service uninstall`,
    first: [`${installed} --now`],
    inverse: `${installed} --now`,
  },
  'service install --any-slot': {
    call: '-d 10de:1b80 service install vfio-pci --any-slot',
    inverse: '-d 10de:1b80 service uninstall --any-slot',
  },
  'service set': {
    call: `service set ${card} reset_method=bus d3cold_allowed=0`,
    first: [installed],
    inverse: `service set ${card} reset_method= d3cold_allowed=`,
  },
  'the claim handler with settings': {call: [claim, card, 'vfio-pci'], first: [withSettings]},
  'the release handler with settings': {
    call: [release, card, 'vfio-pci'],
    first: [`${withSettings} --now`],
  },
  'bind default after a claim with settings': {
    call: `bind default ${card} ${sound}`,
    first: [`${withSettings} --now`],
  },
  'userspace config': {
    call: `userspace config ${disk} ${net}`,
    inverse: `userspace reset ${disk} ${net}`,
  },
  'userspace config that gives the devices to a user': {
    call: `userspace config ${disk} ${net} --user 1000`,
    inverse: `userspace reset ${disk} ${net}`,
  },
  'userspace config that fails': {
    call: `userspace config ${disk} ${net}`,
    fails: (host) => host.failWrite('*/e1000e/unbind', 'EIO'),
  },
  'userspace reset': {call: 'userspace reset', first: [`userspace config ${disk} ${net}`]},
  'the record handler': {
    call: [record, card],
    first: ['-d 10de:1b80 service install vfio-pci --any-slot'],
  },
  'the claim handler': {call: [claim, card, 'vfio-pci'], first: [installed]},
  'the release handler': {call: [release, card, 'vfio-pci'], first: [`${installed} --now`]},
  'sriov set': {
    call: `sriov set ${pf} 2 --driver vfio-pci`,
    tweak: withSriov,
    inverse: `sriov unset ${pf}`,
  },
  'sriov set with users': {
    call: `sriov set ${pf} 2 --driver vfio-pci --user-group 990`,
    tweak: withSriov,
    inverse: `sriov unset ${pf}`,
  },
  'sriov set with another number': {
    call: `sriov set ${pf} 1 --driver igbvf`,
    first: [`sriov set ${pf} 2 --driver vfio-pci`],
    tweak: withSriov,
    inverse: `sriov set ${pf} 2 --driver vfio-pci`,
  },
  'sriov set that fails': {
    call: `sriov set ${pf} 1 --driver vfio-pci`,
    first: [`sriov set ${pf} 2 --driver vfio-pci`],
    tweak: withSriov,
    fails: (host) => host.failWrite('*/sriov_numvfs', 'EIO', 1),
  },
  'sriov unset': {
    call: `sriov unset ${pf}`,
    first: [`sriov set ${pf} 2 --driver vfio-pci`],
    tweak: withSriov,
    inverse: `sriov set ${pf} 2 --driver vfio-pci`,
  },
  'the handler for virtual functions': {
    call: [vfs, pf],
    first: [`sriov set ${pf} 2 --driver vfio-pci`],
    tweak: withSriov,
    prepare: ({machine}) => {
      machine.write(`/sys/bus/pci/devices/${pf}/sriov_numvfs`, '0');
      for (const folder of ['sriov', 'vfs']) machine.tree.remove(`/run/pearasys/${folder}`);
    },
  },
  'guest setup': {call: `guest setup g --device ${card} --device ${sound}`, inverse: 'guest remove g'},
  'guest remove': {
    call: 'guest remove g --yes',
    first: [`guest setup g --device ${card} --device ${sound}`],
    inverse: `guest setup g --device ${card} --device ${sound}`,
  },
  'guest install-hooks': {
    call: 'guest install-hooks g',
    tweak: withGuest,
    inverse: 'guest remove-hooks',
  },
  'guest remove-hooks': {
    call: 'guest remove-hooks',
    tweak: withGuest,
    first: ['guest install-hooks g'],
  },
  'the start of a guest': {call: [guestStart, 'g'], tweak: withGuest, inverse: [guestStop, 'g']},
  'the start of a guest that stops the display manager temporarily': {
    call: [guestStart, 'g'],
    tweak: withDisplayManager,
    inverse: [guestStop, 'g'],
  },
  'the stop of a guest': {call: [guestStop, 'g'], tweak: withDisplayManager, first: [[guestStart, 'g']]},
  'the start of a guest that fails': {
    call: [guestStart, 'g'],
    tweak: withDisplayManager,
    fails: (host) => host.failWrite('*/snd_hda_intel/unbind', 'EIO'),
  },
  'mdev define': {call: defined, inverse: `mdev undefine -u ${uuid}`},
  'mdev modify': {call: `mdev modify -u ${uuid} --manual`, first: [defined]},
  'mdev undefine': {
    call: `mdev undefine -u ${uuid}`,
    first: [defined, `mdev define -u ${uuid} -p mtty -t mtty-1`],
  },
  'mdev start': {
    call: `mdev start -u ${uuid}`,
    first: [`mdev define -u ${uuid} -p mtty -t mtty-1`],
    inverse: `mdev stop -u ${uuid}`,
  },
  'mdev stop': {call: `mdev stop -u ${uuid}`, first: [`mdev start -u ${uuid} -p mtty -t mtty-1`]},
  'the record of a new mediated device': {
    call: [mdevRecord, uuid],
    first: [`mdev start -u ${uuid} -p mtty -t mtty-1`],
  },
  'hugepages set': {
    call: 'hugepages set 8M --mount /mnt/huge',
    tweak: withHugePages,
    inverse: 'hugepages clear',
  },
  'hugepages set that fails': {
    call: 'hugepages set 8M --mount /mnt/huge',
    tweak: withHugePages,
    fails: (host) => host.failCommand('systemctl start *', 1),
  },
  'hugepages clear': {
    call: 'hugepages clear',
    tweak: withHugePages,
    first: ['hugepages set 8M --mount /mnt/huge'],
    inverse: 'hugepages set 8M --mount /mnt/huge',
  },
  'vgpu set': {call: `vgpu set ${vgpu} 588`, tweak: withVgpu, inverse: `vgpu set ${vgpu} 0`},
  'vgpu set of another type': {
    call: `vgpu set ${vgpu} 589`,
    tweak: withVgpu,
    first: [`vgpu set ${vgpu} 588`],
    inverse: `vgpu set ${vgpu} 588`,
  },
  'completion --install': {call: 'completion bash --install'},
};

/** The remains of a killed run do not change the result of the next run. */
describe('a run that is killed', function () {
  // Some tests run a hundred command lines.
  this.timeout(120_000);

  for (const [name, operation] of Object.entries(operations)) {
    it(`and run again: ${name}`, async () => {
      const wanted = await finish(await machineFor(operation), operation.call);
      const moments = await momentsOf(operation);
      assert.notDeepEqual(moments, [], 'it has no effect');
      for (const moment of moments) {
        const [machine, where] = await killed(operation, moment);
        assert.deepEqual(await finish(machine, operation.call), wanted, where);
      }
    });

    const {inverse} = operation;
    if (inverse === undefined) continue;
    it(`and reversed: ${name}`, async () => {
      const whole = await machineFor(operation);
      await perform(new SimulatedHost(whole.machine), operation.call);
      await whole.userland.idle();
      const wanted = withoutTraces(await finish(whole, inverse));
      for (const moment of await momentsOf(operation)) {
        const [machine, where] = await killed(operation, moment);
        assert.deepEqual(withoutTraces(await finish(machine, inverse)), wanted, where);
      }
    });
  }
});
