import type {MachineDeclaration} from '../declaration.js';
import {mountLine, route6Table, routeTable} from './render.js';
import type {SimulatedMachine} from './machine.js';
import type {LiveFunction} from './pci.js';
import {describe, keepsOpen} from './processes.js';

/** The ID of the first mount, see mountinfo in proc(5). */
const firstMount = 22;

/** What the host itself does with its devices: mounts, swap, routes, addresses. */
export class HostUse {
  readonly #machine: SimulatedMachine;
  /** Addresses of each interface that is up. */
  readonly addresses = new Map<string, readonly string[]>();
  /** The folders where huge pages are mounted: the file system keeps their owner and mode. */
  readonly pageFolders = new Map<
    string,
    {readonly uid: number; readonly gid: number; readonly mode: number}
  >();
  #routes: MachineDeclaration['routes'];
  #mounts: MachineDeclaration['mounts'];
  #swaps: MachineDeclaration['swaps'];

  constructor(machine: SimulatedMachine) {
    this.#machine = machine;
    const {routes, mounts, swaps} = machine.declaration;
    this.#routes = [...routes];
    this.#mounts = [...mounts];
    this.#swaps = [...swaps];
  }

  mount(mount: MachineDeclaration['mounts'][number]): void {
    this.#mounts.push(mount);
    if (mount.type === 'hugetlbfs') {
      const number = (key: string, radix: number, usual: number) =>
        parseInt(
          new RegExp(`(?:^|,)${key}=(\\d+)`).exec(mount.options ?? '')?.[1] ?? usual.toString(radix),
          radix,
        );
      this.#machine.tree.directory(mount.target);
      this.pageFolders.set(mount.target, {
        uid: number('uid', 10, 0),
        gid: number('gid', 10, 0),
        mode: number('mode', 8, 0o755),
      });
    }
    this.renderMounts();
  }

  unmount(target: string): void {
    this.#mounts = this.#mounts.filter((mount) => mount.target !== target);
    this.pageFolders.delete(target);
    this.renderMounts();
  }

  /** Whether open(2) with O_EXCL of this block device answers EBUSY: it, or for a disk one of its partitions, is claimed. */
  isClaimed(node: string): boolean {
    const name = node.slice('/dev/'.length);
    const claims = this.#claims();
    if (claims.has(node)) return true;
    return [...claims.keys()].some((claim) => {
      const real = this.#machine.tree.resolve(`/sys/class/block/${claim.slice('/dev/'.length)}`);
      return real?.split('/').at(-2) === name;
    });
  }

  /** A device that is unbound while in use leaves its users with errors. The kernel does it all the same. */
  noteHarm(device: LiveFunction, what: string): void {
    const claims = this.#claims();
    for (const part of device.parts) {
      const name = part.path.slice(part.path.lastIndexOf('/') + 1);
      const claim = part.node === undefined ? undefined : claims.get(part.node.path);
      if (claim !== undefined) this.#machine.harm.push(`${what}: ${claim}`);
      if (part.subsystem === 'net') {
        const routes = this.#routes.filter((route) => route.interface === name);
        for (const route of routes) this.#machine.harm.push(`${what}: route ${route.destination} by ${name}`);
        if (routes.length === 0 && (this.addresses.get(name)?.length ?? 0) > 0)
          this.#machine.harm.push(`${what}: addresses of ${name}`);
        const upper = this.#machine.declaration.virtualInterfaces.find(
          (each) => each.lower?.includes(name) === true,
        );
        if (upper !== undefined) this.#machine.harm.push(`${what}: ${name} is part of ${upper.name}`);
      }
      if (part.node !== undefined)
        for (const process of this.#machine.processes
          .holders(part.node.path)
          .filter(keepsOpen(part.node.path)))
          this.#machine.harm.push(`${what}: process ${describe(process)} had ${part.node.path} open`);
    }
  }

  /** Nodes that the kernel holds for itself, and what for. */
  #claims(): Map<string, string> {
    const claims = new Map<string, string>();
    for (const {source, target} of this.#mounts)
      if (source.startsWith('/dev/'))
        claims.set(this.#machine.tree.resolve(source) ?? source, `mounted on ${target}`);
    for (const {path} of this.#swaps) if (path.startsWith('/dev/')) claims.set(path, 'swap');
    for (const stack of this.#machine.declaration.stacks)
      for (const below of stack.on) claims.set(`/dev/${below}`, `part of ${stack.name}`);
    for (const node of this.#machine.declaration.claimed) claims.set(node, 'claimed');
    return claims;
  }

  /** The ID of the mount that a path is on; what is no path is on one that mountinfo does not list. */
  mountOf(path: string): number {
    let found = -1;
    for (const [index, {target}] of this.#mounts.entries()) {
      const folder = target === '/' ? '/' : `${target}/`;
      const best = this.#mounts[found]?.target.length ?? 0;
      if (path.startsWith(folder) && target.length >= best) found = index;
    }
    return found < 0 ? 15 : firstMount + found;
  }

  renderMounts(): void {
    let anonymous = 20;
    const lines = this.#mounts.map((mount, index) => {
      const node = this.#machine.tree.nodes.get(this.#machine.tree.resolve(mount.source) ?? '');
      return mountLine(mount, firstMount + index, mount.device ?? node?.number ?? `0:${anonymous++}`);
    });
    const text = lines.map((line) => `${line}\n`).join('');
    this.#machine.tree.file('/proc/self/mountinfo', text);
    this.#machine.tree.file('/proc/1/mountinfo', text);
    const table = this.#mounts.map(
      ({source, target, type, options}) => `${source} ${target} ${type} ${options ?? 'rw,relatime'} 0 0\n`,
    );
    this.#machine.tree.file('/proc/self/mounts', table.join(''));
    this.#machine.tree.textLink('/proc/mounts', 'self/mounts');
    this.#machine.tree.file(
      '/proc/swaps',
      'Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n' +
        this.#swaps
          .map(
            ({path, size}) =>
              `${path.padEnd(39)} ${path.startsWith('/dev/') ? 'partition' : 'file     '}\t${size ?? 1_048_572}\t\t0\t\t-2\n`,
          )
          .join(''),
    );
  }

  renderRoutes(): void {
    this.#machine.tree.file('/proc/net/route', routeTable(this.#routes));
    this.#machine.tree.file('/proc/net/ipv6_route', route6Table(this.#routes));
  }

  /** An interface goes, with its addresses and routes. */
  loseInterface(name: string): void {
    this.addresses.delete(name);
    this.#routes = this.#routes.filter((route) => route.interface !== name);
    this.renderRoutes();
  }
}
