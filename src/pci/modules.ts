import type {HostReader} from '../host/host.js';
import {modaliasOf, type Device} from './device.js';
import {driversFolder, noDriver, type Driver} from './driver.js';
import {asSlot} from './slot.js';

/** What it takes to have a driver: it is there, a module brings it, or nobody knows it. */
export type DriverSource =
  | {readonly kind: 'present'}
  | {
      readonly kind: 'module';
      readonly module: string;
      /** Whether that module is there already, without such a driver. */
      readonly loaded?: boolean;
    }
  | {readonly kind: 'unknown'; readonly known: readonly string[]};

/** Drivers without hardware of their own, whose names are not their modules'. */
const namesOfModules: Readonly<Record<string, string>> = {vfio_pci: 'vfio-pci', pci_stub: 'pci-stub'};

/**
 * Where the driver would come from. A module of the driver's own name is what modprobe would load; where the
 * module tree of the running kernel cannot be read, modprobe is left to decide. In an image, whose kernel is to be
 * seen, one of its kernels must have the module.
 */
export function findDriver(host: HostReader, driver: Driver): DriverSource {
  if (driver === noDriver || host.exists(`${driversFolder}/${driver}`)) return {kind: 'present'};
  const ownName = namesOfModules[driver];
  if (ownName !== undefined) return {kind: 'unknown', known: [ownName]};
  const trees = moduleTrees(host);
  const known = trees.map((tree) => moduleNames(host, tree)).filter((names) => names !== undefined);
  if (known.length === 0 || known.some((names) => names.has(underscored(driver))))
    return {kind: 'module', module: driver, loaded: host.exists(`/sys/module/${underscored(driver)}`)};
  return {
    kind: 'unknown',
    known: [...new Set([...host.list(driversFolder), ...trees.flatMap((tree) => pciModules(host, tree))])],
  };
}

/**
 * The modules whose alias patterns take this device, as `modprobe <modalias>` would find them; VFIO's variant
 * drivers, which have aliases of their own (`vfio_pci:`), come last.
 */
export function modulesFor(host: HostReader, device: Device): string[] {
  const [tree] = moduleTrees(host);
  const text = tree === undefined ? undefined : host.readText(`${tree}/modules.alias`);
  if (text === undefined) return [];
  const modalias = modaliasOf(device);
  const vendor = modalias.slice('pci:'.length, 'pci:v000010DE'.length);
  const found = new Set<string>();
  for (const bus of ['pci', 'vfio_pci'])
    // Patterns name one vendor or any; looking for these two beginnings skips the other ten thousand lines.
    for (const start of [`alias ${bus}:${vendor}`, `alias ${bus}:v*`])
      for (let at = text.indexOf(start); at >= 0; at = text.indexOf(start, at + 1)) {
        if (at > 0 && text[at - 1] !== '\n') continue;
        const end = text.indexOf('\n', at);
        const [, glob, module] = text.slice(at, end < 0 ? undefined : end).split(' ');
        if (glob !== undefined && module !== undefined && matchesGlob(modalias, glob.slice(bus.length - 3)))
          found.add(module);
      }
  return [...found];
}

/** The module that a loaded driver belongs to, as in /sys/module; undefined for a built-in one. */
export function moduleOfDriver(host: HostReader, driver: string): string | undefined {
  const link = host.readLink(`${driversFolder}/${driver}/module`);
  return link?.slice(link.lastIndexOf('/') + 1);
}

/** Whether a PCI driver of this loaded module has a device: these would lose it if the module were unloaded. */
export function hasDevices(host: HostReader, module: string): boolean {
  const folder = `/sys/module/${underscored(module)}/drivers`;
  return host
    .list(folder)
    .some((driver) => host.list(`${folder}/${driver}`).some((name) => asSlot(name) !== undefined));
}

/** The module tree of the running kernel, or those of all kernels of an image. */
function moduleTrees(host: HostReader): string[] {
  const running = host.readText('/proc/sys/kernel/osrelease');
  const releases = running === undefined ? host.list('/lib/modules') : [running];
  return releases.map((release) => `/lib/modules/${release}`).filter((tree) => host.exists(tree));
}

/** Every module of the tree and every one built in, by name with underscores; undefined when depmod was not run. */
function moduleNames(host: HostReader, tree: string): Set<string> | undefined {
  const lists = [`${tree}/modules.dep`, `${tree}/modules.builtin`].map((path) => host.readText(path));
  if (lists[0] === undefined) return undefined;
  const names = new Set<string>();
  for (const match of lists.join('\n').matchAll(/^[^:\n]*?([^/:\n]+)\.ko/gm))
    if (match[1] !== undefined) names.add(underscored(match[1]));
  return names;
}

function pciModules(host: HostReader, tree: string): string[] {
  const text = host.readText(`${tree}/modules.alias`) ?? '';
  return [...text.matchAll(/^alias (?:vfio_)?pci:\S+ (\S+)$/gm)].map(
    ([, module = '']) => namesOfModules[module] ?? module,
  );
}

/** modprobe takes - and _ for the same; /sys/module has the underscore. */
function underscored(name: string): string {
  return name.replaceAll('-', '_');
}

/** fnmatch(3) for what alias patterns use: `*`, `?` and `[0-9]`. */
function matchesGlob(text: string, glob: string): boolean {
  const pattern = glob
    .replace(/[.+^${}()|\\]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.');
  return new RegExp(`^${pattern}$`).test(text);
}
