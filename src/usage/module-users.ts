import type {HostReader} from '../host/host.js';
import type {NodeUser} from './holder.js';
import {MountTypes} from './mounts.js';
import {otherProcesses, readDisplayManagers, readNodeUser} from './processes.js';
import {byNumber} from './scope.js';

/** A process that keeps a module loaded. */
export interface ModuleUser extends NodeUser {
  /** Which of the given modules, by their names in /sys/module. */
  readonly modules: readonly string[];
}

/** Nodes that belong to a module and not to a card, if neither their name nor /proc/devices shows it, by module. */
const sharedNodes: Readonly<Record<string, RegExp>> = {
  nvidia:
    /^\/dev\/(?:nvidia(?:\d+|ctl|-uvm|-uvm-tools|-modeset|-nvlink|-nvswitch.*|-vgpu.*)|nvidia-caps\/.+)$/,
  nvidia_uvm: /^\/dev\/nvidia-uvm(?:-tools)?$/,
  nvidia_modeset: /^\/dev\/nvidia-modeset$/,
  amdgpu: /^\/dev\/kfd$/,
  mpt3sas: /^\/dev\/mpt[23]ctl$/,
  megaraid_sas: /^\/dev\/megaraid_sas_ioctl(?:_node)?$/,
};

/** Where sysfs has the number of such a node. */
const numberFiles: Readonly<Record<string, readonly string[]>> = {
  amdgpu: ['/sys/class/kfd/kfd/dev'],
  mpt3sas: ['/sys/class/misc/mpt3ctl/dev', '/sys/class/misc/mpt2ctl/dev'],
};

/**
 * Processes that have a node of these modules open, including nodes that belong to no single card:
 * /dev/nvidiactl, /dev/kfd. An open node holds a reference to the module that made it (cdev_get in fs/char_dev.c), and
 * rmmod fails with EBUSY. Only root sees what processes of other users have open.
 * @param modules names as in /sys/module.
 */
export function readModuleUsers(host: HostReader, modules: readonly string[]): ModuleUser[] {
  if (modules.length === 0) return [];
  const majors = new Map(modules.map((module) => [module, majorsOf(host, module)]));
  const numbers = new Map(
    modules.map((module) => [
      module,
      (numberFiles[module] ?? []).map((file) => host.readText(file)).filter((number) => number !== undefined),
    ]),
  );
  const mounts = new MountTypes(host);
  const displayManagers = readDisplayManagers(host);
  const modulesOf = (pid: string, file: string, link: string) => {
    const path = link.replace(/ \(deleted\)$/, '');
    const named = modules.filter((module) => sharedNodes[module]?.test(path) === true);
    if (named.length > 0 || !path.includes('/dev/') || !mounts.isLocal(pid, file)) return named;
    const info = host.info(`/proc/${pid}/fd/${file}`);
    const number = info?.deviceNumber ?? '';
    const major = number.split(':')[0] ?? '';
    // A block device with that number does not belong to the module.
    if (number === '' || (host.exists(`/sys/dev/block/${number}`) && !host.exists(`/sys/dev/char/${number}`)))
      return [];
    return modules.filter(
      (module) => majors.get(module)?.has(major) === true || numbers.get(module)?.includes(number) === true,
    );
  };
  return otherProcesses(host).flatMap((pid) => {
    const paths = new Set<string>();
    const kept = new Set<string>();
    for (const file of host.list(`/proc/${pid}/fd`)) {
      const link = host.readLink(`/proc/${pid}/fd/${file}`);
      const found = link?.startsWith('/') === true ? modulesOf(pid, file, link) : [];
      if (link !== undefined && found.length > 0) paths.add(link);
      for (const module of found) kept.add(module);
    }
    const user =
      kept.size === 0 ? undefined : readNodeUser(host, pid, [...paths].sort(byNumber), displayManagers);
    return user === undefined ? [] : [{...user, modules: modules.filter((module) => kept.has(module))}];
  });
}

/**
 * The numbers of the character devices that a module has registered under its own name, or under one that begins with it:
 * `nvidia-uvm`, `megaraid_sas_ioctl` (/proc/devices, see proc(5)).
 */
function majorsOf(host: HostReader, module: string): ReadonlySet<string> {
  const majors = new Set<string>();
  const [characters = ''] = (host.readText('/proc/devices') ?? '').split('Block devices:');
  for (const line of characters.split('\n')) {
    const [, major, name = ''] = /^\s*(\d+) (\S+)$/.exec(line) ?? [];
    const own = name.replaceAll('-', '_');
    if (major !== undefined && (own === module || own.startsWith(`${module}_`))) majors.add(major);
  }
  return majors;
}
