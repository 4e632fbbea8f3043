import {readdirSync, readFileSync} from 'node:fs';
import {join} from 'node:path';
import type {FunctionDeclaration, MachineDeclaration} from './declaration.js';
import {SimulatedHost} from './simulated-host.js';
import {standardMachine} from './standard-machine.js';

/** A tree of test/fixtures/trees; its README says what the keys mean. */
export interface CapturedTree {
  readonly devices: readonly string[];
  readonly iommu?: string | false;
  readonly release?: string;
  readonly omit?: readonly string[];
  readonly omitGroups?: boolean;
  readonly noLinks?: boolean;
  readonly vfs?: Readonly<Record<string, number>>;
}

const folder = join(import.meta.dirname, '../fixtures/trees');

/** The names of all trees. */
export function capturedTrees(): string[] {
  return readdirSync(folder).map((name) => name.replace(/\.json$/, ''));
}

/** One tree, by its name. */
export function readTree(name: string): CapturedTree {
  return JSON.parse(readFileSync(join(folder, `${name}.json`), 'utf8')) as CapturedTree;
}

/** The machine of a tree; nobody uses its devices. */
export async function hostOfTree(tree: CapturedTree): Promise<SimulatedHost> {
  const host = SimulatedHost.standard((machine) => declare(machine, tree));
  for (const [slot, count] of Object.entries(tree.vfs ?? {}))
    await host.writeAttribute(`/sys/bus/pci/devices/${slot}/sriov_numvfs`, String(count), 1000);
  host.journal.length = 0;
  const files = host.machine.tree;
  for (const slot of host.machine.functions.keys()) {
    const device = `/sys/bus/pci/devices/${slot}`;
    for (const attribute of tree.omit ?? []) files.remove(`${device}/${attribute}`);
    if (tree.noLinks === true) files.remove(`${device}/driver`);
  }
  if (tree.omitGroups === true) files.remove('/sys/kernel/iommu_groups');
  return host;
}

function declare(machine: MachineDeclaration, tree: CapturedTree): void {
  const common = new Set(['pcieport', 'vfio-pci', 'uio_pci_generic', 'pci-stub']);
  const {drivers, modules} = standardMachine();
  const functions = tree.devices.map(functionIn);
  Object.assign(machine, {
    functions,
    drivers: drivers.filter(({name}) => common.has(name)),
    modules,
    processes: [{pid: 1, comm: 'systemd', cgroup: '/init.scope'}],
    mounts: [{source: 'sysfs', target: '/sys', type: 'sysfs'}],
    swaps: [],
    routes: [],
    iommu: tree.iommu ?? 'dmar0',
    release: tree.release ?? machine.release,
  });
  delete machine.displayManager;
  for (const {driver, id} of functions) {
    if (driver === undefined || common.has(driver)) continue;
    const [vendor = '', device = ''] = id.toUpperCase().split(':');
    const alias = `pci:v0000${vendor}d0000${device}sv*sd*bc*sc*i*`;
    const known = machine.drivers.find(({name}) => name === driver);
    if (known !== undefined) {
      known.aliases.push(alias);
      continue;
    }
    const module = driver.replaceAll('-', '_');
    machine.drivers.push({name: driver, module, aliases: [alias], configuresSriov: true});
    machine.modules = machine.modules.filter(({name}) => name !== module);
    machine.modules.push({name: module, loaded: true});
  }
  for (const module of machine.modules)
    if (/^vfio/.test(module.name) && functions.some(({driver}) => driver === 'vfio-pci'))
      module.loaded = true;
  const irqbypass = machine.modules.find(({name}) => name === 'irqbypass');
  if (irqbypass !== undefined) irqbypass.loaded = true;
}

function functionIn(line: string): FunctionDeclaration {
  const [slot = '', id = '', code = '', driver, group, node, behind, ...words] = line.split(' ');
  const word = (name: string) => words.find((one) => one.startsWith(`${name}=`))?.slice(name.length + 1);
  const [total, virtualId = '', offset, stride, first] = word('sriov')?.split(',') ?? [];
  const override = word('override');
  return {
    slot,
    id,
    class: code,
    ...(driver === '-' || driver === undefined ? {} : {driver}),
    ...(group === '-' ? {} : {group: Number(group)}),
    ...(node === '-' ? {} : {numaNode: Number(node)}),
    ...(behind === '-' || behind === undefined ? {} : {behind}),
    ...(words.includes('boot') ? {bootDisplay: true} : {}),
    ...(override === undefined ? {} : {override}),
    ...(words.includes('dead') ? {config: Array.from({length: 256}, () => 0xff)} : {}),
    ...(total === undefined
      ? {}
      : {
          sriov: {
            total: Number(total),
            virtualId,
            offset: Number(offset),
            stride: Number(stride),
            ...(first === undefined || first === '' ? {} : {group: Number(first)}),
          },
        }),
  };
}
