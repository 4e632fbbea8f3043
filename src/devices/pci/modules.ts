import type {HostReader} from '../../host/host.js';
import {devicePath, modaliasOf, type Device} from './device.js';
import {driversFolder, isStandIn, noDriver, parseDriver, type Driver} from './driver.js';
import {asSlot, type Slot} from './slot.js';

/** Where a driver comes from: it is registered, a module provides it, or it is unknown. */
export type DriverSource =
  | {readonly kind: 'present'}
  | {
      readonly kind: 'module';
      readonly module: string;
      /** Whether that module is already loaded, without such a driver. */
      readonly loaded?: boolean;
    }
  | {
      readonly kind: 'unknown';
      /** Names of drivers: the registered ones, and those that known modules provide. */
      readonly known: readonly string[];
      /** Modules that are not loaded, whose drivers' names are unknown until then; most have the module's name. */
      readonly modules: readonly string[];
      /** Whether it is the name of a module whose drivers are known. */
      readonly isModule: boolean;
    };

/**
 * Modules whose PCI drivers have other names, from their sources (`.name` of struct pci_driver): no file says what a
 * module will register before it is loaded.
 */
const namesOfModules: Readonly<Record<string, string>> = {
  '8250_pci': 'serial',
  bochs: 'bochs-drm',
  dwc3_pci: 'dwc3-pci',
  ehci_pci: 'ehci-pci',
  i2c_designware_pci: 'i2c-designware-pci',
  i2c_i801: 'i801_smbus',
  i2c_nforce2: 'nForce2_smbus',
  i2c_piix4: 'piix4_smbus',
  intel_lpss_pci: 'intel-lpss',
  ohci_pci: 'ohci-pci',
  pci_stub: 'pci-stub',
  processor_thermal_device_pci: 'proc_thermal_pci',
  sdhci_pci: 'sdhci-pci',
  vfio_pci: 'vfio-pci',
  virtio_pci: 'virtio-pci',
  xen_pciback: 'pciback',
  xhci_pci: 'xhci_hcd',
};

/**
 * Where the driver would come from. A module with the driver's name is what modprobe would load; if the module tree
 * of the running kernel cannot be read, modprobe decides. In an image, one of its kernels must have the module.
 */
export function findDriver(host: HostReader, driver: Driver): DriverSource {
  if (driver === noDriver || host.exists(`${driversFolder}/${driver}`)) return {kind: 'present'};
  const registered = driversOfModule(host, driver);
  const ownName = Object.hasOwn(namesOfModules, driver) ? namesOfModules[driver] : undefined;
  const own = registered.length > 0 || ownName === undefined ? registered : [ownName];
  if (own.length > 0) return {kind: 'unknown', known: own, modules: [], isModule: true};
  const trees = moduleTrees(host);
  const known = trees.map((tree) => readModuleList(host, tree)).filter((list) => list !== undefined);
  // A library module may have the same name, such as xhci_hcd.
  const bringing = Object.keys(namesOfModules).find(
    (module) => namesOfModules[module] === driver && module !== underscored(driver),
  );
  if (bringing !== undefined && known.some((list) => isListed(list, bringing)))
    return {kind: 'module', module: bringing, loaded: host.exists(`/sys/module/${bringing}`)};
  if (known.length === 0 || known.some((list) => isListed(list, driver)))
    return {kind: 'module', module: driver, loaded: host.exists(`/sys/module/${underscored(driver)}`)};
  return {
    kind: 'unknown',
    ...knownDrivers(host, trees),
    isModule: false,
  };
}

/** Whether a module is loaded or can be; also true if the module tree of the running kernel cannot be read. */
export function hasModule(host: HostReader, module: string): boolean {
  if (host.exists(`/sys/module/${underscored(module)}`)) return true;
  // After an update that removed the running kernel, it has no modules until the next boot.
  const running = host.readText('/proc/sys/kernel/osrelease');
  if (running !== undefined && !host.exists(`/lib/modules/${running}`)) return false;
  const known = moduleTrees(host)
    .map((tree) => readModuleList(host, tree))
    .filter((list) => list !== undefined);
  return known.length === 0 || known.some((list) => isListed(list, module));
}

/**
 * The modules whose alias patterns match this device, as `modprobe <modalias>` would find them; VFIO's variant
 * drivers, which have separate aliases (`vfio_pci:`), come last.
 */
export function modulesFor(host: HostReader, device: Device): string[] {
  const [tree] = moduleTrees(host);
  const text = tree === undefined ? undefined : readIndex(host, `${tree}/modules.alias`);
  if (text === undefined) return [];
  const modalias = modaliasOf(device);
  return [...new Set(['pci', 'vfio_pci'].flatMap((bus) => matchingAliases(text, modalias, bus)))];
}

/**
 * The VFIO driver that the kernel's files prefer for a device: the one whose `vfio_pci:` alias has the fewest wildcards
 * (as in libvirt, virPCIDeviceFindBestVFIOVariant). Variant drivers have the names of their modules. Undefined if the
 * files name none.
 */
export function preferredVariant(host: HostReader, device: Device): Driver | undefined {
  const [tree] = moduleTrees(host);
  const text = tree === undefined ? undefined : readIndex(host, `${tree}/modules.alias`);
  const wildcards = ({glob}: Alias) => glob.split('*').length;
  const [best] = aliasesFor(text ?? '', modaliasOf(device), 'vfio_pci').sort(
    (a, b) => wildcards(a) - wildcards(b),
  );
  return best === undefined
    ? undefined
    : parseDriver(namesOfModules[underscored(best.module)] ?? best.module);
}

/** One line of modules.alias. */
interface Alias {
  readonly glob: string;
  readonly module: string;
}

/** The aliases in the text of a modules.alias whose patterns for this bus match. */
function aliasesFor(text: string, modalias: string, bus: string): Alias[] {
  return vendorPatterns(modalias, bus).flatMap((pattern) =>
    recordsWith(text, `alias ${pattern}`, '\n').flatMap((line) => {
      const [, glob, module] = line.split(' ');
      return glob !== undefined && module !== undefined && matchesGlob(modalias, glob.slice(bus.length - 3))
        ? [{glob, module}]
        : [];
    }),
  );
}

/** The modules in the text of a modules.alias whose patterns for this bus match. */
function matchingAliases(text: string, modalias: string, bus: string): string[] {
  return aliasesFor(text, modalias, bus).map(({module}) => module);
}

/** The modules in the text of a modules.builtin.modinfo whose patterns match: `<module>.alias=<pattern>`, each after a NUL. */
function matchingBuiltins(text: string, modalias: string): string[] {
  return vendorPatterns(modalias, 'pci').flatMap((pattern) =>
    recordsWith(text, `.alias=${pattern}`, '\0').flatMap((field) => {
      const [, module, glob] = /^\s*([^.]+)\.alias=(.*)$/.exec(field) ?? [];
      return module !== undefined && glob !== undefined && matchesGlob(modalias, glob) ? [module] : [];
    }),
  );
}

/** The beginnings of alias patterns that may match: they name one vendor or any. */
function vendorPatterns(modalias: string, bus: string): string[] {
  return [`${bus}:${modalias.slice('pci:'.length, 'pci:v000010DE'.length)}`, `${bus}:v*`];
}

/**
 * The records of a text that contain a word. The files of depmod have tens of thousands of records: only these few are
 * parsed.
 */
function recordsWith(text: string, word: string, separator: string): string[] {
  const found: string[] = [];
  for (let at = text.indexOf(word); at >= 0;) {
    const start = text.lastIndexOf(separator, at) + 1;
    const end = text.indexOf(separator, at);
    found.push(text.slice(start, end < 0 ? undefined : end));
    at = end < 0 ? -1 : text.indexOf(word, end);
  }
  return found;
}

/** What the kernel would choose for a device without an override. */
export interface DefaultDriver {
  /**
   * The modules whose id tables match the device, with underscores. Empty if none does, or if the files of the running
   * kernel do not say.
   */
  readonly modules: readonly string[];
  /** Whether modprobe finds one of them: it may not know the built-in ones. */
  readonly loads: boolean;
  /** The registered drivers of these modules. */
  readonly drivers: readonly string[];
  /** Whether no driver is to be expected: no id table matches, or the PF keeps drivers off its VFs. */
  readonly none: boolean;
  /** Whether the device is on a driver that the kernel would choose. */
  readonly bound: boolean;
}

/**
 * What the kernel would choose for each device, by its modalias: modules.alias for modules,
 * modules.builtin.modinfo (Linux 5.2 and later) for what is built in. The override does not help here: other tools
 * clear it after the bind, and `new_id` and `vfio-pci.ids=` never set it.
 */
export function readDefaultDrivers(host: HostReader, devices: readonly Device[]): Map<Slot, DefaultDriver> {
  const tables = devices.length === 0 ? undefined : readIdTables(host);
  return new Map(devices.map((device) => [device.slot, readDefaultDriver(host, device, tables)]));
}

/** The id tables of the running kernel's modules. */
interface IdTables {
  /** modules.alias */
  readonly modules: string;
  /** modules.builtin.modinfo; undefined for a kernel without it. */
  readonly builtin: string | undefined;
  /** modules.dep: modules whose aliases would be in {@link modules}. */
  readonly list: string;
  /** modules.builtin */
  readonly builtinList: string;
}

function readIdTables(host: HostReader): IdTables | undefined {
  const [tree] = moduleTrees(host);
  const modules = tree === undefined ? undefined : readIndex(host, `${tree}/modules.alias`);
  if (tree === undefined || modules === undefined) return undefined;
  return {
    modules,
    builtin: readIndex(host, `${tree}/modules.builtin.modinfo`),
    list: readIndex(host, `${tree}/modules.dep`) ?? '',
    builtinList: readIndex(host, `${tree}/modules.builtin`) ?? '',
  };
}

function readDefaultDriver(host: HostReader, device: Device, tables: IdTables | undefined): DefaultDriver {
  // Then the kernel matches no driver, unless an override names one (pci_device_can_probe in pci-driver.c).
  const keptOff = host.readText(devicePath(device.slot, 'physfn/sriov_drivers_autoprobe')) === '0';
  const modalias = modaliasOf(device);
  const loadable = keptOff ? [] : matchingAliases(tables?.modules ?? '', modalias, 'pci').map(underscored);
  const builtin = keptOff ? [] : matchingBuiltins(tables?.builtin ?? '', modalias).map(underscored);
  const modules = [...new Set([...loadable, ...builtin])];
  return {
    modules,
    loads: loadable.length > 0,
    drivers: modules.flatMap((module) => driversOfModule(host, module)),
    none: keptOff || (modules.length === 0 && tables?.builtin !== undefined),
    bound: isChosen(host, device, modules, keptOff ? undefined : tables),
  };
}

/** Whether the kernel would choose the driver that the device is on. */
function isChosen(
  host: HostReader,
  {driver, override}: Device,
  modules: readonly string[],
  tables: IdTables | undefined,
): boolean {
  if (driver === undefined || isStandIn(driver)) return false;
  const module = underscored(moduleOfDriver(host, driver) ?? driver);
  if (modules.includes(module)) return true;
  // Only an override can have caused that.
  if (override === driver) return false;
  // With new_id: if no id table matches the device, there is no other driver that it could return to.
  if (modules.length === 0 || tables === undefined) return true;
  const known =
    isListed(tables.list, module) || (tables.builtin !== undefined && isListed(tables.builtinList, module));
  return !known;
}

/** The PCI drivers that a module has registered. */
export function driversOfModule(host: HostReader, name: string): string[] {
  const module = underscored(name);
  const registered = host
    .list(`/sys/module/${module}/drivers`)
    .filter((entry) => entry.startsWith('pci:'))
    .map((entry) => entry.slice('pci:'.length));
  if (registered.length > 0) return registered;
  // A built-in module has no such folder unless it has parameters.
  return [...new Set([module, module.replaceAll('_', '-')])].filter((entry) =>
    host.exists(`${driversFolder}/${entry}`),
  );
}

/** The module that a loaded driver belongs to, as in /sys/module; undefined for a built-in one. */
export function moduleOfDriver(host: HostReader, driver: string): string | undefined {
  const link = host.readLink(`${driversFolder}/${driver}/module`);
  return link?.slice(link.lastIndexOf('/') + 1);
}

/** Whether a PCI driver of this loaded module has a device, which would lose its driver if the module were unloaded. */
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

/** The modules of a tree and the built-in ones, for {@link isListed}; undefined when depmod was not run. */
function readModuleList(host: HostReader, tree: string): string | undefined {
  const dependencies = readIndex(host, `${tree}/modules.dep`);
  if (dependencies === undefined) return undefined;
  return `${dependencies}\n${readIndex(host, `${tree}/modules.builtin`) ?? ''}`;
}

/** Bytes that a file of depmod(8) may have: a distribution's modules.alias has some 1.5 MiB. */
const mostIndexBytes = 64 << 20;

/** A file that depmod(8) has written; undefined when it does not exist. @throws FileError when it cannot be read. */
function readIndex(host: HostReader, path: string): string | undefined {
  return host.readBytes(path, mostIndexBytes)?.toString();
}

/** Whether a modules.dep or modules.builtin has a module, at the beginning of a line; it may be compressed. */
function isListed(list: string, module: string): boolean {
  const name = underscored(module)
    .replaceAll(/[.+^${}()|\\*?[\]]/g, '\\$&')
    .replaceAll('_', '[-_]');
  return new RegExp(`^(?:[^:\\n]*/)?${name}\\.ko`, 'm').test(list);
}

/** The names of drivers, and of modules that are not loaded and whose drivers are unknown. */
function knownDrivers(
  host: HostReader,
  trees: readonly string[],
): {readonly known: readonly string[]; readonly modules: readonly string[]} {
  const known = new Set(host.list(driversFolder));
  const modules = new Set<string>();
  for (const tree of trees) {
    const text = readIndex(host, `${tree}/modules.alias`) ?? '';
    for (const [, module = ''] of text.matchAll(/^alias (?:vfio_)?pci:\S+ (\S+)$/gm)) {
      const name = Object.hasOwn(namesOfModules, module) ? namesOfModules[module] : undefined;
      if (name !== undefined) known.add(name);
      // The drivers of a loaded module are registered.
      else if (!host.exists(`/sys/module/${underscored(module)}`)) modules.add(module);
    }
  }
  return {known: [...known], modules: [...modules]};
}

/** modprobe treats - and _ as the same; /sys/module has the underscore. */
function underscored(name: string): string {
  return name.replaceAll('-', '_');
}

/** fnmatch(3) for what alias patterns use: `*`, `?` and `[0-9]`. */
function matchesGlob(text: string, glob: string): boolean {
  // A vendor may have thousands of patterns, nearly all for other devices: no expression is compiled for those.
  const wildcard = glob.search(/[*?[]/);
  if (!text.startsWith(wildcard < 0 ? glob : glob.slice(0, wildcard))) return false;
  const pattern = glob
    .replace(/[.+^${}()|\\]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.');
  return new RegExp(`^${pattern}$`).test(text);
}
