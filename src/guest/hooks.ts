import type {HostReader} from '../host/host.js';
import type {Guest} from './name.js';

/** Where libvirt looks for hooks, see https://libvirt.org/hooks.html. */
export const hooksFolder = '/etc/libvirt/hooks';

/** The line by which a hook of ours is known. */
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

/** How hooks are run: by what `hooks/qemu` says, if there is one. */
export function readHookKind(host: HostReader): HookKind {
  const text = host.readText(`${hooksFolder}/qemu`);
  return text !== undefined && /\bqemu\.d\//.test(text) ? 'dispatcher' : 'libvirt';
}

/** Whether the text is that of a hook of ours. */
export function isOurHook(text: string): boolean {
  return text.split('\n', 3).some((line) => line.startsWith(mark));
}

/** The hooks of ours that are there, in the order of their paths. */
export function readOurHooks(host: HostReader): string[] {
  const folder = `${hooksFolder}/qemu.d`;
  const places = host
    .list(folder)
    .flatMap((entry) =>
      entry === name ? [commonHook] : guestHooks(entry as Guest).filter((path) => host.exists(path)),
    );
  return places.filter((path) => isOurHook(host.readText(path) ?? ''));
}
