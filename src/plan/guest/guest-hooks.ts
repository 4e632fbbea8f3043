import {ExitCode} from '../../host/errors.js';
import type {HostReader} from '../../host/host.js';
import {shellWord} from '../../host/shell.js';
import type {Layout} from '../../config/layout.js';
import {
  commonHook,
  guestHookDepth,
  guestHooks,
  hooksFolder,
  isOurHook,
  readOurHooks,
  type HookKind,
} from '../../state/guests/hooks.js';
import type {Guest} from '../../state/guests/guest-name.js';
import {render} from '../../systemd/templates.js';
import {
  plan,
  readFileState,
  refuse,
  removeFile,
  writeFile,
  type FileState,
  type Planned,
  type Step,
} from '../step.js';

/** The input of the planners in this file. */
interface HooksState {
  readonly kind: HookKind;
  /** Notes for the user about other hooks, in sentences. */
  readonly notes: readonly string[];
  /** The hook's text. */
  readonly hook: string;
  /** The existing files at the paths of our hooks. */
  readonly files: ReadonlyMap<string, FileState>;
  /** Whether the path of a guest's folder of hooks is something other than a folder. */
  readonly blocked: string | undefined;
  /** Our installed hooks. */
  readonly ours: readonly string[];
}

/** Reads the input of the planners in this file. */
export function readHooks(
  host: HostReader,
  layout: Layout,
  guest: Guest | undefined,
  {kind, notes}: Pick<HooksState, 'kind' | 'notes'> = {kind: 'libvirt', notes: []},
): HooksState {
  const own = guest === undefined ? [] : guestHooks(guest);
  const ours = readOurHooks(host);
  const files = new Map<string, FileState>();
  for (const path of [commonHook, ...own, ...ours]) {
    const state = readFileState(host, path);
    if (state !== undefined) files.set(path, state);
    // A file of another user, or a link to one, is not ours whatever it contains.
    else if (host.info(path, false) !== undefined) files.set(path, {content: '', mode: 0o644});
  }
  const folders = own.flatMap((path) => {
    const folder = path.slice(0, path.lastIndexOf('/'));
    return [folder, folder.slice(0, folder.lastIndexOf('/'))];
  });
  return {
    kind,
    notes,
    hook: render('qemu-hook', {config: layout.config}),
    files,
    blocked: folders.find((path) => {
      const info = host.info(path);
      return info !== undefined && info.kind !== 'directory';
    }),
    ours,
  };
}

/** The plan that has libvirt run our hook for a guest. */
export function planInstallHooks(guest: Guest, state: HooksState): Planned {
  const {kind, notes, hook, files, blocked} = state;
  if (kind === 'dispatcher' && blocked !== undefined)
    return refuse({
      code: 'bad-path',
      exitCode: ExitCode.refused,
      message: `could not add a hook: ${blocked} is not a folder`,
      details: ['nothing was changed'],
      hint: `make it a folder and move the file into it: ${hooksFolder}/qemu runs each executable there`,
    });
  const paths = kind === 'dispatcher' ? guestHooks(guest) : [commonHook];
  const taken = paths.find((path) => !isOurHook(files.get(path)?.content ?? hook));
  if (taken !== undefined)
    return refuse({
      code: 'bad-path',
      exitCode: ExitCode.refused,
      message: `refusing to overwrite ${taken}: it was not created by pearasys`,
      details: ['nothing was changed'],
      hint: 'rename it: libvirt still runs it',
    });
  return plan(
    paths.flatMap((path): Step[] => {
      const previous = files.get(path);
      // libvirt runs what its user, root, may execute; other permissions are up to the administrator.
      const mode = previous === undefined ? 0o755 : (previous.mode | 0o100) & ~0o022;
      if (previous?.content === hook && previous.mode === mode) return [];
      return [writeFile(path, hook, previous, {mode, prune: pruneOf(path)})];
    }),
    {notes},
  );
}

/**
 * The plan that removes our hooks: those of one guest, or all of them. Other files stay.
 * @param others other guests that are set up and may need the shared hook.
 */
export function planRemoveHooks(
  guest: Guest | undefined,
  others: readonly Guest[],
  {ours, files}: HooksState,
): Planned {
  const own = new Set(guest === undefined ? ours : [...guestHooks(guest), commonHook]);
  if (guest !== undefined && ours.includes(commonHook) && others.length > 0)
    return refuse({
      code: 'in-use',
      exitCode: ExitCode.refused,
      message: `not removing ${commonHook}: it also serves ${others.length === 1 ? 'guest' : 'guests'} ${others.join(', ')}`,
      details: ['nothing was changed'],
      hint: `pearasys guest remove ${shellWord(guest)} makes it ignore that guest; pearasys guest remove-hooks removes it for all`,
    });
  const steps = ours
    .filter((path) => own.has(path))
    .map((path) => removeFile(path, files.get(path) ?? {content: '', mode: 0o755}, {prune: pruneOf(path)}));
  return plan(steps);
}

/** `qemu.d` itself stays: it may belong to libvirt's package. */
function pruneOf(path: string): number {
  return path === commonHook ? 0 : guestHookDepth;
}
