import type {HostReader} from '../../host/host.js';
import type {Guest} from './guest-name.js';

/** The folder of libvirt's hooks, see https://libvirt.org/hooks.html. */
export const hooksFolder = '/etc/libvirt/hooks';

/** libvirt's single hook for QEMU. pearasys does not write it. */
export const qemuHook = `${hooksFolder}/qemu`;

/** The line that identifies a hook of pearasys. */
const mark = '# Written by pearasys:';

/** The file name of our hooks. */
const name = '50-pearasys';

/** How the hooks for QEMU are run on this host. */
export type HookKind =
  /** libvirt (6.5 and later) runs each executable file in `qemu.d`, for all guests. */
  | 'libvirt'
  /** `hooks/qemu` runs the files in `qemu.d/<guest>/<operation>/<sub-operation>/`, as the hook of VFIO-Tools does. */
  | 'dispatcher';

/** The hook for all guests. */
export const commonHook = `${hooksFolder}/qemu.d/${name}`;

/** The number of folders above a guest's hook that exist only for this guest: up to `qemu.d/<guest>`. */
export const guestHookDepth = 3;

/** The hooks of one guest, for a dispatcher. */
export function guestHooks(guest: Guest): string[] {
  return ['prepare/begin', 'release/end'].map((when) => `${hooksFolder}/qemu.d/${guest}/${when}/${name}`);
}

/** Whether a dispatcher's shell passes this name on unchanged: the script of VFIO-Tools evaluates it without quotes. */
export function isPlainForShell(guest: Guest): boolean {
  return /^[A-Za-z0-9._+-]+$/.test(guest);
}

/** Whether this is the text of a hook of pearasys. */
export function isOurHook(text: string): boolean {
  return text.split('\n', 3).some((line) => line.startsWith(mark));
}

/** The installed hooks of pearasys, sorted by path. */
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
interface ForeignHook {
  readonly path: string;
  /** The text that does so: `virsh nodedev-detach`. */
  readonly does: string;
}

/** Typical content of hooks for passthrough: libvirt's node devices, sysfs, the scripts of known collections. */
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

/** The number of folder levels that are searched below a guest's own: operation and sub-operation. */
const deepest = 3;

/**
 * Hooks of other programs that change devices when this guest starts or ends. A hook for all guests is omitted if it
 * names other guests of libvirt but not this one.
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

/** These hooks as sentences. */
export function describeForeignHooks(hooks: readonly ForeignHook[], guest: Guest): string[] {
  return hooks.map(
    ({path, does}) =>
      `${path} also changes devices when guest ${guest} starts or ends (${does}): disable it, because the two conflict`,
  );
}
