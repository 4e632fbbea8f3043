import {printableLine} from '../host/printable.js';
import {shellWord} from '../host/shell.js';
import {printSize} from '../devices/memory/size.js';
import {devicePath} from '../devices/pci/device.js';
import type {PageUser} from './page-users.js';
import type {DisplayHolder, Holder, InterfaceHolder, InterfaceUser, NodeUser, StackHolder} from './holder.js';

/** A holder as text, for a refusal: `process 812 (Xorg) of gdm.service has /dev/dri/card0 open`. */
export function describeHolder(holder: Holder): string {
  // A command or a mount point may contain newlines, which would start new lines.
  return printableLine(describe(holder));
}

function describe(holder: Holder): string {
  switch (holder.kind) {
    case 'process':
      return describeNodeUser(holder);
    case 'mount':
      return `${holder.source} is mounted at ${holder.target}${
        holder.namespaceOf === undefined ? '' : ` in the mount namespace of process ${holder.namespaceOf}`
      }`;
    case 'swap':
      return `${holder.source} is used as swap`;
    case 'stack':
      return `${holder.source} is ${holder.by === undefined ? 'in use by the kernel' : `${isBacking(holder.by) ? 'in use by' : 'part of'} ${holder.by}`}`;
    case 'interface':
      return describeInterface(holder);
    case 'network-namespace':
      return 'its network interface is in another network namespace, like that of a container';
    case 'framebuffer':
    case 'console':
      return `${holder.kind} ${holder.name} (${holder.description}) is shown on it`;
    case 'virtual-function':
      return `its virtual function ${holder.virtualFunction} is in use (driver ${holder.driver})`;
    case 'dependent':
      return `${holder.dependent}, which exists only through its driver, is in use (driver ${holder.driver})`;
  }
}

/** What ends this holder's use: `systemctl stop gdm.service`, `umount /mnt/data`. */
export function adviseOnHolder(holder: Holder): string {
  if (holder.harm === 'none') return 'nothing: it closes the device when the device goes away';
  switch (holder.kind) {
    case 'process':
      return adviseOnNodeUser(holder);
    case 'mount':
      return holder.system
        ? 'use another device: the system runs from it'
        : `${holder.namespaceOf === undefined ? '' : `nsenter --target ${holder.namespaceOf} --mount `}umount ${shellWord(holder.target)}`;
    case 'swap':
      return `swapoff ${shellWord(holder.source)}`;
    case 'stack':
      return adviseOnStack(holder);
    case 'interface':
      return holder.last
        ? 'without it this machine is cut off: give another interface a default route first'
        : adviseOnInterface(holder);
    case 'network-namespace':
      return '`lsns --type net` and `ip netns` show the namespaces: end what uses the interface, or move it back from there, as in `ip -n NAME link set eth0 netns 1`';
    case 'framebuffer':
      return adviseOnFramebuffer(holder);
    case 'console':
      return `echo 0 > /sys/class/vtconsole/${holder.name}/bind`;
    case 'virtual-function':
      return holder.harm === 'certain'
        ? `end the use of ${holder.virtualFunction} first`
        : `echo 0 > ${devicePath(holder.slot, 'sriov_numvfs')}`;
    case 'dependent':
      return `end the use of ${holder.dependent} first: pearasys show ${holder.dependent}`;
  }
}

/** A process that has nodes open, as text. */
export function describeNodeUser(user: NodeUser): string {
  return printableLine(
    `process ${user.pid} (${user.command})${unitInWords(user)} has ${shortList(user.nodes)} open`,
  );
}

/** A process that uses huge pages, as text. */
export function describePageUser(user: PageUser): string {
  return printableLine(
    `process ${user.pid} (${user.command})${unitInWords(user)} uses ${printSize(user.bytes)} in huge pages`,
  );
}

function unitInWords({unit, unitUser, displayManager}: NodeUser): string {
  const words = [
    ...(unit === undefined ? [] : [` of ${unit}`]),
    ...(unitUser === undefined ? [] : [` (user ${unitUser})`]),
    ...(displayManager ? [' (display manager)'] : []),
  ];
  return words.join('');
}

function describeInterface(holder: InterfaceHolder): string {
  const {name, addresses, routes, through, last, users = []} = holder;
  const way = through === undefined ? '' : ` through ${through}`;
  if (last) {
    const defaults = routes.filter((route) => route.startsWith('default'));
    const named = defaults.length > 0 ? defaults : [...addresses, ...routes];
    return `${name} carries the last route to this machine (${named.join(', ')})${way}`;
  }
  const uses = [
    ...(addresses.length === 0 ? [] : [`is up with ${shortList(addresses)}`]),
    ...(routes.length === 0
      ? []
      : [`carries the route${routes.length === 1 ? '' : 's'} ${shortList(routes)}`]),
  ];
  const used = users.length === 0 ? [] : [describeUsers(holder, users)];
  return [...(uses.length === 0 ? [] : [`${name} ${uses.join(' and ')}${way}`]), ...used].join('; ');
}

/** `eth1 is a port of bridge br0, which guest tap vnet3 (qemu-system-x86 1234) uses`. */
function describeUsers({name, stack = []}: InterfaceHolder, users: readonly InterfaceUser[]): string {
  const by = shortList(users.map(describeUser));
  if (stack.length === 0) return `${name} is used by ${by}`;
  const chain = stack.map(({name: upper, type}) => {
    const words = masters[type];
    return words === undefined
      ? `carries ${typeWords[type] ?? type} ${upper}`.replace(/ +/g, ' ')
      : `is a port of ${words} ${upper}`;
  });
  return `${name} ${chain.join(', which ')}, which ${by} use${users.length === 1 ? 's' : ''}`;
}

/** Types of interfaces that have ports, by {@link StackedInterface.type}. */
const masters: Readonly<Record<string, string>> = {
  bridge: 'bridge',
  bond: 'bond',
  team: 'team',
  openvswitch: 'Open vSwitch',
};

/** Types of interfaces on top of one other, where the kernel's name is not the usual one. */
const typeWords: Readonly<Record<string, string>> = {vlan: 'VLAN', vxlan: 'VXLAN', ppp: 'PPP link'};

function describeUser({kind, interface: name, process}: InterfaceUser): string {
  const who = process === undefined ? undefined : `${process.command} ${process.pid}${unitInWords(process)}`;
  switch (kind) {
    case 'tap':
    case 'macvtap': {
      const guest =
        process !== undefined && /^(?:qemu|kvm|cloud-hyper|firecracker|crosvm)/.test(process.command);
      return `${guest ? 'guest ' : ''}${kind} ${name}${who === undefined ? '' : ` (${who})`}`;
    }
    case 'packet-socket':
      return who === undefined ? 'a packet socket' : `${who} by a packet socket`;
    case 'xdp':
      return who === undefined ? 'an XDP program' : `${who} by an XDP program`;
    case 'namespace':
      return name === '' ? 'another network namespace' : `another network namespace through ${name}`;
    case 'port':
      return `the network behind ${name}`;
    case 'pppoe':
      return 'a PPPoE session';
  }
}

function adviseOnInterface({name, users = []}: InterfaceHolder): string {
  const ends = users.map(({process}) => (process === undefined ? undefined : adviseOnNodeUser(process)));
  const down = `ip link set ${shellWord(name)} down`;
  return [...new Set(ends.map((end) => end ?? down)), ...(users.length === 0 ? [down] : [])].join('; ');
}

/** Units that must not be stopped for one device, and what ends their use instead. */
const unitAdvice: Readonly<Record<string, string>> = {
  'init.scope': 'it is the service manager itself: see RuntimeWatchdogSec= in systemd-system.conf(5)',
  'systemd-logind.service': 'end the session for which it opened the device: loginctl list-sessions',
  'systemd-udevd.service': 'udevadm settle',
};

/** What ends a process's use of the nodes it has open. */
export function adviseOnNodeUser({unit, unitUser, displayManager, pid}: NodeUser): string {
  const kill = `kill ${pid}`;
  if (unitUser !== undefined)
    return unit?.endsWith('.service') === true
      ? `systemctl --user --machine=${unitUser}@ stop ${shellWord(unit)}`
      : kill;
  const service = unit?.endsWith('.service') === true ? unit : undefined;
  if (displayManager) return `systemctl stop ${shellWord(service ?? 'display-manager.service')}`;
  const special = unit !== undefined && Object.hasOwn(unitAdvice, unit) ? unitAdvice[unit] : undefined;
  if (special !== undefined) return special;
  const guest = /^machine-qemu\\x2d\d+\\x2d(.+)\.scope$/.exec(unit ?? '')?.[1];
  if (guest !== undefined) return `virsh shutdown ${shellWord(unescapeUnit(guest))}`;
  // A user's manager is a service too, but stopping it would end everything that the user runs.
  return service === undefined || service.startsWith('user@') ? kill : `systemctl stop ${shellWord(service)}`;
}

/** Whether it is not part of another device: it has the block device open as a file. */
function isBacking(by: string): boolean {
  return /^(?:loop\d|zram\d|NVMe target |SCSI target )/.test(by);
}

function adviseOnStack({source, by}: StackHolder): string {
  if (by === undefined)
    return `lsblk ${shellWord(source)}, zpool status and btrfs filesystem show what is using it`;
  const mapped = /^dm-\d+ \((.+)\)$/.exec(by)?.[1];
  if (mapped !== undefined) return `dmsetup remove ${shellWord(mapped)}`;
  if (/^md\d/.test(by)) return `mdadm --stop ${shellWord(`/dev/${by}`)}`;
  if (/^loop\d+$/.test(by)) return `losetup --detach /dev/${by}`;
  if (/^zram\d+$/.test(by)) return `zramctl --reset /dev/${by}`;
  const served = /^NVMe target (.+), namespace (\d+)$/.exec(by);
  if (served !== null)
    return `echo 0 > ${shellWord(`/sys/kernel/config/nvmet/subsystems/${served[1] ?? ''}/namespaces/${served[2] ?? ''}/enable`)}`;
  const target = /^SCSI target [^/]+\/(.+)$/.exec(by)?.[1];
  if (target !== undefined) return `targetcli ls /backstores shows ${target}: delete it there`;
  if (by.startsWith('bcache')) return `echo 1 > /sys/block/${by}/bcache/stop`;
  return `stop ${by}`;
}

function adviseOnFramebuffer({name, description}: DisplayHolder): string {
  const driver = /^((?:efi|simple|vesa)-framebuffer)\.\d+$/.exec(description)?.[1];
  return driver === undefined
    ? `make sure that the display of ${name} is not needed: it is off until a driver has the device again`
    : `echo ${shellWord(description)} > /sys/bus/platform/drivers/${driver}/unbind`;
}

/** The first few of a list, and the number of the rest. */
function shortList(list: readonly string[]): string {
  const most = 3;
  return list.length <= most + 1
    ? list.join(', ')
    : `${list.slice(0, most).join(', ')} and ${list.length - most} more`;
}

/** `\x2d` and the like in a unit's name, see systemd.unit(5). */
function unescapeUnit(text: string): string {
  const bytes = text.replace(/\\x([0-9a-f]{2})|[^\\]/giu, (all, digits?: string) =>
    digits === undefined ? encodeURIComponent(all) : `%${digits}`,
  );
  try {
    return decodeURIComponent(bytes);
  } catch {
    return text;
  }
}
