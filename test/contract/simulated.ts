/** The contract's cases on the simulated machine. */
import assert from 'node:assert/strict';
import {posix} from 'node:path';
import {FileError, StuckError, WriteError} from '../../src/host/errors.js';
import type {FunctionDeclaration, MachineDeclaration} from '../simulated-host/declaration.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {DEVICES} from '../vm/devices.js';
import {eventText, type ContractMachine, type Ended, type Gate, type StuckWrite} from './machine.js';

/** The simulated machine, with the devices of the virtual one; a new one for each case. */
export class SimulatedContractMachine implements ContractMachine {
  readonly #host = SimulatedHost.standard(asVirtual);
  readonly #events: string[] = [];
  readonly #gates = new Map<string, Promise<void>>();
  #pid = 5000;

  constructor() {
    const {machine, userland} = this.#host;
    // This kind of bridge is not a port. The table of pcieport does not exclude it.
    machine.refuseProbe(DEVICES.legacyBridge.slot, 'pcieport');
    machine.subscribe(({action, devpath, subsystem, properties}) =>
      this.#events.push(
        ...eventText(
          action,
          devpath,
          subsystem,
          properties['SYNTH_UUID'] !== undefined,
          properties['MDEV_STATE'],
        ),
      ),
    );
    const {execute} = userland;
    userland.execute = async (unit, argv) => {
      const gate = this.#gates.get(argv.join(' '));
      if (gate === undefined) return await execute(unit, argv);
      await gate;
      return 0;
    };
  }

  dispose(): void {
    this.#host.dispose();
  }

  read(path: string): Promise<string | undefined> {
    return answer(() => {
      try {
        return this.#host.readText(path);
      } catch (error) {
        if (error instanceof FileError) throw new Error(`reading ${path}: ${error.errno}`, {cause: error});
        throw error;
      }
    });
  }

  exists(path: string): Promise<boolean> {
    return answer(
      () => this.#host.exists(path) || this.#host.machine.tree.resolve(path, false) !== undefined,
    );
  }

  list(path: string): Promise<string[]> {
    return answer(() => this.#host.list(path));
  }

  link(path: string): Promise<string | undefined> {
    return answer(() => this.#host.readLink(path)?.split('/').at(-1));
  }

  async write(path: string, text: string): Promise<string> {
    try {
      await this.#host.writeAttribute(path, text, 1000);
      return 'ok';
    } catch (error) {
      if (error instanceof WriteError) return error.errno;
      throw error;
    }
  }

  async writeForever(path: string, text: string): Promise<StuckWrite> {
    await assert.rejects(this.#host.writeAttribute(path, text, 1000), StuckError);
    return {returned: () => Promise.resolve('ok')};
  }

  async run(program: string, ...args: string[]): Promise<Ended> {
    const {status, stdout, stderr} = await this.#host.run(program, args, {accept: 'any'});
    return {code: status, stdout: stdout.trimEnd(), stderr: stderr.trimEnd()};
  }

  async put(path: string, text: string): Promise<void> {
    await this.#host.writeFile(path, text);
  }

  async remove(path: string): Promise<void> {
    await this.#host.removeFile(path);
  }

  async settle(): Promise<void> {
    await this.#host.userland.idle();
  }

  events(): Promise<string[]> {
    return answer(() => this.#events.splice(0));
  }

  hold(device: string): Promise<() => Promise<void>> {
    return answer(() => {
      const bus = device.includes(':') ? 'pci' : 'mdev';
      const group = this.#host.readLink(`/sys/bus/${bus}/devices/${device}/iommu_group`) ?? '';
      const pid = this.#pid++;
      this.#host.machine.addProcess({
        pid,
        comm: 'qemu-system-x86',
        holds: [`/dev/vfio/${posix.basename(group)}`, 'anon_inode:[vfio-device]'],
      });
      return () => answer(() => this.#host.machine.endProcess(pid));
    });
  }

  gate(): Promise<Gate> {
    return answer(() => {
      const command = `/usr/bin/cat /run/contract-gate-${this.#gates.size}`;
      let release: () => void = () => undefined;
      this.#gates.set(command, new Promise((resolve) => (release = resolve)));
      return {command, open: () => answer(release)};
    });
  }
}

function answer<T>(work: () => T): Promise<T> {
  return Promise.resolve().then(work);
}

/** Gives a machine the devices and modules of the virtual machine. */
function asVirtual(machine: MachineDeclaration): void {
  delete machine.displayManager;
  const shared = new Set([
    ...['pcieport', 'snd_hda_intel', 'nvme', 'ahci', 'e1000e'],
    ...['vfio-pci', 'uio_pci_generic', 'pci-stub'],
  ]);
  const ids = (id: string) => `pci:v0000${id.toUpperCase().replace(':', 'd0000')}sv*sd*bc*sc*i*`;
  Object.assign(machine, {
    processes: [{pid: 1, comm: 'systemd', cgroup: '/init.scope'}],
    mounts: [{source: 'sysfs', target: '/sys', type: 'sysfs'}],
    swaps: [],
    routes: [],
    drivers: [
      ...machine.drivers.filter(({name}) => shared.has(name)),
      {name: 'bochs-drm', module: 'bochs', aliases: [ids('1234:1111')], gives: ['drm']},
      {name: 'e1000', module: 'e1000', aliases: [ids('8086:100e')], gives: ['net'], refusal: 'EIO'},
      {
        name: 'virtio-pci',
        module: 'virtio_pci',
        aliases: ['pci:v00001AF4d*sv*sd*bc*sc*i*'],
        refusal: 'ENODEV',
      },
    ],
    mdevParents: [
      {
        name: 'mtty',
        path: '/sys/devices/virtual/mtty/mtty',
        driver: 'mtty',
        units: 24,
        types: [
          {name: 'mtty-1', units: 1, title: 'Single port serial'},
          {name: 'mtty-2', units: 2, title: 'Dual port serial'},
        ],
      },
    ],
    functions: functions(),
  } satisfies Partial<MachineDeclaration>);
  for (const driver of machine.drivers) {
    if (driver.name === 'nvme') Object.assign(driver, {configuresSriov: true, leavesSriov: true});
    if (driver.name === 'snd_hda_intel') {
      driver.aliases.push(ids('8086:293e'));
      driver.needsData = true;
    }
    if (driver.name === 'e1000e') driver.refusal = 'EIO';
    if (driver.name === 'ahci') driver.refusal = 'EINVAL';
  }
  machine.modules.push({name: 'drm_kms_helper', loaded: true, depends: ['drm']});
  machine.modules.push({name: 'bochs', loaded: true, depends: ['drm_kms_helper', 'drm']});
  for (const name of ['e1000', 'virtio_pci', 'mtty']) machine.modules.push({name, loaded: true});
}

/** The functions that the cases use, see the table in `test/vm/devices.ts`. */
function functions(): FunctionDeclaration[] {
  const port = (slot: string, group: number): FunctionDeclaration => ({
    slot,
    id: '1b36:000c',
    class: '060400',
    driver: 'pcieport',
    group,
  });
  const made = (
    name: keyof typeof DEVICES,
    code: string,
    group: number,
    more: Partial<FunctionDeclaration> = {},
  ): FunctionDeclaration => {
    const {slot, id, driver} = DEVICES[name];
    return {slot, id, class: code, group, ...(driver === undefined ? {} : {driver}), ...more};
  };
  const disk = (name: 'disk0' | 'disk1' | 'sriov', group: number, behind: string) =>
    made(name, '010802', group, {behind, resetMethods: ['flr', 'bus'], nvme: {model: 'QEMU', serial: name}});
  const net = (name: string, last: string) => ({net: [{name, address: `52:54:00:12:34:${last}`}]});
  return [
    {slot: '0000:00:00.0', id: '8086:29c0', class: '060000', group: 0},
    made('bootDisplay', '030000', 1, {bootDisplay: true, drm: {framebuffer: true}}),
    made('virtioNet', '020000', 5),
    made('network', '020000', 6, {resetMethods: ['pm'], ...net('enp0s6', '56')}),
    made('edu0', '00ff00', 7),
    made('edu1', '00ff00', 8),
    made('display', '038000', 9, {drm: {framebuffer: true}}),
    made('displayAudio', '040300', 9, {sound: true}),
    port('0000:00:10.0', 10),
    port('0000:00:11.0', 11),
    port('0000:00:12.0', 12),
    port('0000:00:13.0', 13),
    made('legacyBridge', '060400', 16, {resetMethods: ['pm']}),
    made('spareNetwork', '020000', 18, {
      behind: '0000:00:10.0',
      resetMethods: ['pm', 'bus'],
      ...net('enp1s0', '58'),
    }),
    disk('disk0', 19, '0000:00:11.0'),
    disk('disk1', 20, '0000:00:12.0'),
    {
      ...disk('sriov', 21, '0000:00:13.0'),
      sriov: {total: 4, virtualId: '1b36:0010', offset: 1, stride: 1, group: 22},
    },
    made('legacy0', '020000', 16, {
      behind: DEVICES.legacyBridge.slot,
      resetMethods: ['bus'],
      ...net('ens1', '59'),
    }),
    made('legacy1', '020000', 16, {behind: DEVICES.legacyBridge.slot, ...net('ens2', '5a')}),
  ];
}
