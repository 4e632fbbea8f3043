import type {HostReader} from '../host/host.js';
import type {Guest} from './name.js';

/** Where libvirt looks for hooks, see https://libvirt.org/hooks.html. */
export const hooksFolder = '/etc/libvirt/hooks';

/** The one hook of QEMU's that is somebody else's. */
export const qemuHook = `${hooksFolder}/qemu`;

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

/** How hooks are run: by what `hooks/qemu` says, if there is one that libvirt would run. */
export function readHookKind(host: HostReader): HookKind {
  const text = host.readText(qemuHook);
  if (text === undefined || ((host.info(qemuHook)?.mode ?? 0) & 0o111) === 0) return 'libvirt';
  const said = text.split('\n').map((line) => line.replace(/(?:^|\s)#.*$/, ''));
  return said.some((line) => /\bqemu\.d\b/.test(line)) ? 'dispatcher' : 'libvirt';
}

/** Whether a dispatcher's shell hands this name on as it is: VFIO-Tools' has it evaluated, without quotes. */
export function isPlainForShell(guest: Guest): boolean {
  return /^[A-Za-z0-9._+-]+$/.test(guest);
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
