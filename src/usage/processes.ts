import {printableLine} from '../host/printable.js';
import {FileError} from '../host/errors.js';
import type {HostReader} from '../host/host.js';
import {harmOf, worstOf, type HolderClass, type NodeUser, type ProcessHolder} from './holder.js';
import type {Slot} from '../devices/pci/slot.js';
import type {Attached, Attachment, Node, Nodes} from './nodes.js';
import {byNumber, lastPart, type Scope} from './scope.js';
import {displayManagerAlias, unitFile} from '../systemd/unit-files.js';

/** How many ancestors are searched for the display manager; only a loop of reused PIDs is longer. */
const mostParents = 64;

/** Processes that have one of the nodes open, by /proc/<pid>/fd (proc(5)), and those attached to interfaces. */
export function readProcessHolders(
  scope: Scope,
  nodes: Nodes,
): {readonly holders: ProcessHolder[]; readonly attached: Attached} {
  const {host} = scope;
  const holders: ProcessHolder[] = [];
  const attached = new Map<string, {kind: Attachment['kind']; inode: string | undefined; user: NodeUser}[]>();
  // Without nodes there is no process to find, and /proc is by far the largest folder.
  if (nodes.empty) return {holders, attached};
  const displayManagers = readDisplayManagers(host);
  for (const pid of otherProcesses(host)) {
    const {owned, attachments} = openNodes(host, nodes, pid);
    for (const [slot, held] of owned) {
      const paths = held.map(({path}) => path);
      const user = readNodeUser(host, pid, paths, displayManagers);
      if (user === undefined) continue;
      const removal = classOf(scope, slot, {pid, command: user.command, held});
      holders.push({kind: 'process', slot, class: removal, harm: harmOf[removal], ...user});
    }
    for (const {path, attachment} of attachments) {
      const user = readNodeUser(host, pid, [path], displayManagers);
      const known = attached.get(attachment.interface) ?? [];
      if (user === undefined) continue;
      attached.set(attachment.interface, [...known, {kind: attachment.kind, inode: attachment.inode, user}]);
    }
  }
  return {holders, attached};
}

/** Processes that have one of these nodes open, regardless of the nodes' owners. */
export function readUsersOf(host: HostReader, nodes: Nodes): NodeUser[] {
  if (nodes.empty) return [];
  const displayManagers = readDisplayManagers(host);
  return otherProcesses(host).flatMap((pid) => {
    const paths = host.list(`/proc/${pid}/fd`).flatMap((file) => nodeOf(host, nodes, pid, file)?.path ?? []);
    return paths.length === 0 ? [] : (readNodeUser(host, pid, paths, displayManagers) ?? []);
  });
}

/** All processes except this one, in the order of their PIDs. */
export function otherProcesses(host: HostReader): string[] {
  return host
    .list('/proc')
    .filter((name) => /^\d+$/.test(name) && !(host.root === '/' && Number(name) === process.pid))
    .sort((a, b) => Number(a) - Number(b));
}

/** A process with what it has open; undefined when it has ended since, and holds nothing any more. */
export function readNodeUser(
  host: HostReader,
  pid: string,
  paths: readonly string[],
  displayManagers: ReadonlySet<string>,
): NodeUser | undefined {
  const command = commandOf(host, pid);
  if (command === undefined) return undefined;
  const {unit, user} = unitOf(host, pid);
  return {
    pid: Number(pid),
    command,
    unit,
    ...(user === undefined ? {} : {unitUser: user}),
    nodes: [...new Set(paths)].sort(byNumber),
    displayManager: isDisplayManager(host, pid, paths, displayManagers),
  };
}

/** The name that a process gives itself, which may be any text. */
function commandOf(host: HostReader, pid: string): string | undefined {
  return readOfProcess(host, pid, 'comm');
}

/**
 * Processes that have any device open through VFIO: the descriptor of a device does not say which device it is, and
 * the group's node may be closed by now. As text, for messages about a device that is already stuck.
 */
export function describeVfioUsers(host: HostReader): string[] {
  return host
    .list('/proc')
    .filter((name) => /^\d+$/.test(name))
    .sort((a, b) => Number(a) - Number(b))
    .filter((pid) =>
      host
        .list(`/proc/${pid}/fd`)
        .some((file) => host.readLink(`/proc/${pid}/fd/${file}`) === 'anon_inode:[vfio-device]'),
    )
    .map((pid) => {
      const {unit} = unitOf(host, pid);
      const where = unit === undefined ? '' : ` of ${unit}`;
      return printableLine(
        `process ${pid} (${commandOf(host, pid) ?? '?'})${where} has a device open through VFIO`,
      );
    });
}

interface OpenNodes {
  readonly owned: ReadonlyMap<Slot, OpenNode[]>;
  /** What is attached to interfaces, each once. */
  readonly attachments: readonly (Node & {readonly attachment: Attachment})[];
}

/** What a process has open, by device. Only root sees it for processes of other users. */
function openNodes(host: HostReader, nodes: Nodes, pid: string): OpenNodes {
  const owned = new Map<Slot, OpenNode[]>();
  const attachments = new Map<string, Node & {readonly attachment: Attachment}>();
  for (const file of host.list(`/proc/${pid}/fd`)) {
    const node = nodeOf(host, nodes, pid, file);
    if (node === undefined) continue;
    for (const slot of node.owners) owned.set(slot, [...(owned.get(slot) ?? []), {...node, file}]);
    const {attachment} = node;
    // A tap may have a descriptor for each of its queues.
    if (attachment !== undefined)
      attachments.set(`${attachment.kind} ${attachment.interface} ${attachment.inode ?? ''}`, {
        ...node,
        attachment,
      });
  }
  return {owned, attachments: [...attachments.values()]};
}

/** The node that a descriptor of a process leads to. */
function nodeOf(host: HostReader, nodes: Nodes, pid: string, file: string): Node | undefined {
  const link = host.readLink(`/proc/${pid}/fd/${file}`);
  return link === undefined ? undefined : nodes.find(pid, file, link);
}

/** A node, and the descriptor by which a process has it open. */
interface OpenNode extends Node {
  readonly file: string;
}

interface Opener {
  readonly pid: string;
  readonly command: string;
  readonly held: readonly OpenNode[];
}

/** What the removal of the device's driver does while the process has these nodes open. */
function classOf({host, devices}: Scope, slot: Slot, {pid, command, held}: Opener): HolderClass {
  const worst = worstOf(
    held.map(({removal, file}) =>
      removal !== 'tells' ? removal : closesWhenTold(host, {pid, command, file}) ? 'harmless' : 'blocks',
    ),
  );
  // Without a driver no removal can block, for example for a member of an open group.
  return worst === 'blocks' && devices.get(slot)?.driver === undefined ? 'yields' : worst;
}

/**
 * Sound servers that close a card's control node when the card disappears. They wait for that with poll(2), which
 * /proc does not show. The kernel keeps the first 15 characters of a command.
 */
const soundServers = new Set(['pulseaudio', 'pipewire', 'wireplumber', 'pipewire-media-']);

/**
 * Whether the process waits for events of the node, and so notices immediately that the device disappears: one of its
 * epoll descriptors contains it (the `tfd` lines of /proc/<pid>/fdinfo, see proc(5)).
 */
function closesWhenTold(
  host: HostReader,
  {pid, command, file}: {readonly pid: string; readonly command: string; readonly file: string},
): boolean {
  if (soundServers.has(command)) return true;
  const watched = new RegExp(`^tfd:\\s*${file}\\s`, 'm');
  return host
    .list(`/proc/${pid}/fd`)
    .filter((other) => host.readLink(`/proc/${pid}/fd/${other}`) === 'anon_inode:[eventpoll]')
    .some((other) => watched.test(readOfProcess(host, pid, `fdinfo/${other}`) ?? ''));
}

/**
 * The systemd unit of a process by its control group (cgroups(7)): the first service or scope on the path, because
 * groups below belong to a container or service; below a user's manager, which is itself a service, that user's unit.
 */
export function unitOf(host: HostReader, pid: string): {unit: string | undefined; user: number | undefined} {
  const lines = (readOfProcess(host, pid, 'cgroup') ?? '').split('\n');
  const line =
    lines.find((one) => one.includes(':name=systemd:')) ?? lines.find((one) => one.startsWith('0::')) ?? '';
  const units = line.split('/').filter((part) => /\.(?:service|scope)$/.test(part));
  const user = /^user@(\d+)\.service$/.exec(units[0] ?? '')?.[1];
  return user === undefined || units[1] === undefined
    ? {unit: units[0], user: undefined}
    : {unit: units[1], user: Number(user)};
}

/** The names of the display manager's unit; display-manager.service is a link to it, see systemd.special(7). */
export function readDisplayManagers(host: HostReader): ReadonlySet<string> {
  const alias = unitFile(host, displayManagerAlias);
  if (alias === undefined) return new Set();
  const targets = [host.readLink(alias), host.realPath(alias)];
  return new Set(targets.filter((target) => target !== undefined).map(lastPart));
}

/**
 * Whether the process belongs to the display manager: it is in its unit, or is a display server that it started, which
 * runs in the session's scope. Other programs of a session do not open the card's primary node or framebuffer.
 */
function isDisplayManager(
  host: HostReader,
  pid: string,
  held: readonly string[],
  units: ReadonlySet<string>,
): boolean {
  const isIn = (one: string) => {
    const {unit, user} = unitOf(host, one);
    return unit !== undefined && user === undefined && units.has(unit);
  };
  if (units.size === 0) return false;
  if (isIn(pid)) return true;
  return held.some((path) => /^\/dev\/(?:dri\/card|fb)\d+$/.test(path)) && ancestorsOf(host, pid).some(isIn);
}

/** The PIDs of a process's ancestors, the nearest first. */
export function ancestorsOf(host: HostReader, pid: string): string[] {
  const found: string[] = [];
  let parent = parentOf(host, pid);
  while (found.length < mostParents && parent !== undefined) {
    found.push(parent);
    parent = parentOf(host, parent);
  }
  return found;
}

/** The parent's PID; undefined for a process without a parent, or one that the kernel started. */
function parentOf(host: HostReader, pid: string): string | undefined {
  const stat = readOfProcess(host, pid, 'stat') ?? '';
  // The command comes before it in parentheses, and may contain any character.
  const parent = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1];
  return parent === undefined || parent === '0' ? undefined : parent;
}

/** A file of a process; undefined when it has ended, or when proc(5) is mounted so that it is hidden. */
function readOfProcess(host: HostReader, pid: string, file: string): string | undefined {
  try {
    return host.readText(`/proc/${pid}/${file}`);
  } catch (error) {
    if (error instanceof FileError && ['EPERM', 'EACCES'].includes(error.errno)) return undefined;
    throw error;
  }
}
