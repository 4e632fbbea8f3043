import type {HostReader} from '../../host/host.js';
import type {Guest} from './guest-name.js';

/** Where libvirt looks for hooks, see https://libvirt.org/hooks.html. */
export const hooksFolder = '/etc/libvirt/hooks';

/** libvirt's single hook for QEMU, which belongs to others. */
export const qemuHook = `${hooksFolder}/qemu`;

/** The line that identifies our hooks. */
const mark = '# Written by pearasys:';

/** The name of our file. */
const name = '50-pearasys';

/** How QEMU's hooks are run on this host. */
export type HookKind =
  /** libvirt (6.5 and later) runs each executable file in `qemu.d`, for all guests. */
  | 'libvirt'
  /** `hooks/qemu` runs what is in `qemu.d/<guest>/<operation>/<sub-operation>/`, as that of VFIO-Tools does. */
  | 'dispatcher';

/** The one hook for all guests. */
export const commonHook = `${hooksFolder}/qemu.d/${name}`;

/** How many folders above a guest's hook are there for it: up to `qemu.d/<guest>`. */
export const guestHookDepth = 3;

/** The hooks of one guest, below a dispatcher. */
export function guestHooks(guest: Guest): string[] {
  return ['prepare/begin', 'release/end'].map((when) => `${hooksFolder}/qemu.d/${guest}/${when}/${name}`);
}

/** Whether a dispatcher's shell hands this name on as it is: VFIO-Tools' has it evaluated, without quotes. */
export function isPlainForShell(guest: Guest): boolean {
  return /^[A-Za-z0-9._+-]+$/.test(guest);
}

/** Whether the text is that of one of our hooks. */
export function isOurHook(text: string): boolean {
  return text.split('\n', 3).some((line) => line.startsWith(mark));
}

/** Our installed hooks, in the order of their paths. */
export function readOurHooks(host: HostReader): string[] {
  const folder = `${hooksFolder}/qemu.d`;
  const places = host
    .list(folder)
    .flatMap((entry) =>
      entry === name ? [commonHook] : guestHooks(entry as Guest).filter((path) => host.exists(path)),
    );
  return places.filter((path) => isOurHook(host.readText(path) ?? ''));
}

/** Another program's hook that changes devices of a guest. */
export interface ForeignHook {
  readonly path: string;
  /** What in it does so: `virsh nodedev-detach`. */
  readonly does: string;
}

/** What hooks for passthrough have in them: libvirt's node devices, sysfs, the scripts of known collections. */
const deeds: readonly RegExp[] = [
  /\bnodedev-(?:detach|reattach|reset)\b/,
  /\bvfio-(?:startup|teardown)(?:\.sh)?\b/,
  /\bpitcrew\b/i,
  /\bdriver_override\b/,
  /\bdrivers\/[\w.${}-]+\/(?:un)?bind\b/,
  /\bdrivers\/[\w.${}-]+\/(?:new|remove)_id\b/,
  /\bdriver\/unbind\b/,
  /\bmodprobe\b[^\n;|&]*\bvfio[-_]pci\b/,
  /\bvtconsole\/vtcon\w*\/bind\b/,
  /\bdriverctl\b/,
];

/** How many folders below a guest's own are looked through: operation and sub-operation. */
const deepest = 3;

/**
 * Hooks of others that change devices when this guest starts or ends. A hook for all guests that names other guests of
 * libvirt's and not this one is left out.
 * @param others the names of libvirt's guests.
 */
export function readForeignHooks(host: HostReader, guest: Guest, others: readonly string[]): ForeignHook[] {
  const folder = `${hooksFolder}/qemu.d`;
  const names = others.filter((other) => other !== guest);
  const hooks = (path: string, own: boolean): ForeignHook[] => {
    const info = host.info(path);
    if (info?.kind !== 'file' || (info.mode & 0o111) === 0) return [];
    const text = host.readText(path) ?? '';
    const said = text.replaceAll(/(?:^|\s)#.*$/gm, '');
    const does = deeds.map((deed) => deed.exec(said)?.[0]).find((found) => found !== undefined);
    if (does === undefined || isOurHook(text)) return [];
    const isOthers = !own && !said.includes(guest) && names.some((name) => said.includes(name));
    return isOthers ? [] : [{path, does}];
  };
  const below = (path: string, depth: number): ForeignHook[] =>
    host.info(path)?.kind !== 'directory'
      ? hooks(path, true)
      : depth === 0
        ? []
        : host.list(path).flatMap((entry) => below(`${path}/${entry}`, depth - 1));
  return [
    ...hooks(qemuHook, false),
    ...host.list(folder).flatMap((entry) => hooks(`${folder}/${entry}`, false)),
    ...(host.info(`${folder}/${guest}`)?.kind === 'directory' ? below(`${folder}/${guest}`, deepest) : []),
  ];
}

/** The same as sentences. */
export function describeForeignHooks(hooks: readonly ForeignHook[], guest: Guest): string[] {
  return hooks.map(
    ({path, does}) =>
      `${path} also changes devices when guest ${guest} starts or ends (${does}): disable it, because the two conflict`,
  );
}
