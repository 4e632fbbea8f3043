import type {ModuleDeclaration} from '../declaration.js';
import {Errno} from '../errno.js';
import {matchesPattern} from './render.js';
import type {SimulatedMachine} from './machine.js';

/** The kernel's modules, /sys/module and /proc/modules. */
export class Modules {
  readonly #machine: SimulatedMachine;
  readonly #loaded = new Map<string, ModuleDeclaration>();

  constructor(machine: SimulatedMachine) {
    this.#machine = machine;
  }

  isLoaded(module: string): boolean {
    return this.#loaded.has(module);
  }

  /** Loads a module with those it needs; its drivers are registered, and each offered all unbound devices. */
  loadModule(name: string, parameters: Readonly<Record<string, string>> = {}): void {
    if (this.#loaded.has(name)) return;
    const module = this.#machine.declaration.modules.find((each) => each.name === name);
    if (module === undefined) throw new Errno('ENOENT', `no module ${name}`);
    if (module.builtin === true) return;
    for (const other of [...(module.depends ?? []), ...(module.softdepPre ?? [])]) this.loadModule(other);
    for (const key of Object.keys(parameters))
      if (module.parameters?.[key] === undefined)
        this.#machine.log.push(`${name}: unknown parameter '${key}' ignored`);
    this.insertModule({
      ...module,
      parameters: {...module.parameters, ...known(parameters, module.parameters)},
    });
    for (const driver of this.#machine.declaration.drivers)
      if (driver.module === name) {
        const ids = parameters['ids'] ?? '';
        this.#machine.drivers.addParameterIds(
          driver.name,
          ids.split(',').filter((each) => each !== ''),
        );
        this.#machine.drivers.register(driver);
      }
    for (const other of module.softdepPost ?? []) this.loadModule(other);
  }

  /** The loaded modules that need a module. */
  dependents(name: string): string[] {
    return [...this.#loaded.values()]
      .filter((each) => each.depends?.includes(name) === true)
      .map((each) => each.name);
  }

  /** How many use a module: modules, and open nodes of its drivers' devices. */
  moduleUsers(name: string): number {
    const modules = this.dependents(name).length;
    const nodes = [...this.#machine.functions.values()]
      .filter(({driver}) => driver !== undefined && this.#machine.drivers.named(driver).module === name)
      .flatMap((device) => this.#machine.processes.openers(device)).length;
    // The node may be gone while a process still has it open.
    const lost = this.#machine.processes.descriptors.filter(
      (path) => path.startsWith('/dev/dri/') && path.endsWith(' (deleted)'),
    ).length;
    const graphics = this.#machine.declaration.drivers.some(
      (each) => each.module === name && each.gives?.includes('drm'),
    );
    const shared = (this.#loaded.get(name)?.nodes ?? []).flatMap((node) =>
      this.#machine.processes.holders(node),
    ).length;
    return modules + nodes + (graphics ? lost : 0) + shared;
  }

  unloadModule(name: string): void {
    if (!this.#loaded.has(name)) throw new Errno('ENOENT');
    if (this.moduleUsers(name) > 0) throw new Errno('EBUSY');
    for (const driver of this.#machine.declaration.drivers)
      if (driver.module === name) this.#machine.drivers.unregister(driver);
    this.#loaded.delete(name);
    this.#machine.tree.remove(`/sys/module/${name}`);
    if (name === 'vfio') {
      this.#machine.tree.removeNode('/dev/vfio/vfio');
      this.#machine.tree.remove('/sys/devices/virtual/misc/vfio');
      this.#machine.tree.remove('/sys/class/misc/vfio');
    }
    this.#renderModules();
  }

  /** The modules that an alias, as udev loads them, stands for. */
  modulesFor(alias: string): string[] {
    const found: string[] = [];
    for (const driver of this.#machine.declaration.drivers)
      if (driver.module !== undefined && driver.aliases.some((pattern) => matchesPattern(pattern, alias)))
        found.push(driver.module);
    for (const module of this.#machine.declaration.modules)
      if (module.aliases?.some((pattern) => matchesPattern(pattern, alias)) === true) found.push(module.name);
    return [...new Set(found)];
  }

  insertModule(module: ModuleDeclaration): void {
    this.#loaded.set(module.name, module);
    const folder = `/sys/module/${module.name}`;
    this.#machine.tree.directory(folder);
    if (module.builtin !== true) {
      this.#machine.tree.file(`${folder}/initstate`, 'live\n');
      this.#machine.tree.file(`${folder}/uevent`, '', 0o200);
    }
    for (const [name, value] of Object.entries(module.parameters ?? {}))
      this.#machine.tree.file(`${folder}/parameters/${name}`, `${value}\n`, 0o644);
    if (module.name === 'vfio') {
      const device = '/sys/devices/virtual/misc/vfio';
      this.#machine.tree.file(`${device}/dev`, '10:196\n');
      this.#machine.tree.file(`${device}/uevent`, 'MAJOR=10\nMINOR=196\nDEVNAME=vfio/vfio\n', 0o644);
      this.#machine.tree.link('/sys/class/misc/vfio', device);
      this.#machine.tree.node('/dev/vfio/vfio', {type: 'character', number: '10:196', mode: 0o666}, device);
    }
    this.#renderModules();
  }

  #renderModules(): void {
    this.#machine.tree.file(
      '/proc/modules',
      [...this.#loaded.values()]
        .filter((each) => each.builtin !== true)
        .map((each) => {
          const users = [...this.#loaded.values()]
            .filter((other) => other.depends?.includes(each.name) === true)
            .map((other) => `${other.name},`);
          return `${each.name} 16384 ${users.length} ${users.length === 0 ? '-' : users.join('')} Live 0x0000000000000000\n`;
        })
        .join(''),
    );
    for (const each of this.#loaded.values())
      if (each.builtin !== true) {
        const users = [...this.#loaded.values()].filter(
          (other) => other.depends?.includes(each.name) === true,
        );
        this.#machine.tree.file(`/sys/module/${each.name}/refcnt`, `${users.length}\n`);
        this.#machine.tree.remove(`/sys/module/${each.name}/holders`);
        this.#machine.tree.directory(`/sys/module/${each.name}/holders`);
        for (const other of users)
          this.#machine.tree.link(
            `/sys/module/${each.name}/holders/${other.name}`,
            `/sys/module/${other.name}`,
          );
      }
  }
}

function known(given: Readonly<Record<string, string>>, all: Readonly<Record<string, string>> | undefined) {
  return Object.fromEntries(Object.entries(given).filter(([key]) => all?.[key] !== undefined));
}
