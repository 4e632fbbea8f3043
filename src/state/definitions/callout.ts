import type {HostReader} from '../../host/host.js';
import {distrustPath} from '../../config/trust.js';
import {definitionsFolder} from './definition.js';
import {scriptsFolderName, type ParentName, type TypeName} from '../../devices/mdev/mdev-name.js';
import type {Uuid} from '../../devices/mdev/uuid.js';

/** When a script is called, see mdevctl(8), EVENT SCRIPTS. */
type CalloutEvent = 'pre' | 'post' | 'live' | 'notify' | 'get';

/** The action on the device. */
export type CalloutAction =
  'start' | 'stop' | 'define' | 'undefine' | 'modify' | 'attributes' | 'capabilities';

/** The state of the action. */
export type CalloutState = 'none' | 'success' | 'failure';

/** The device for which a script is called. */
export interface CalloutSubject {
  readonly uuid: Uuid;
  readonly parent: ParentName;
  readonly type: TypeName;
}

/** One call of a script. */
export interface CalloutCall {
  readonly subject: CalloutSubject;
  readonly event: CalloutEvent;
  readonly action: CalloutAction;
  readonly state: CalloutState;
  /** Standard input: the device's configuration in JSON; empty if undefined. */
  readonly input: string | undefined;
}

/** A script that is not run. */
interface SkippedScript {
  readonly path: string;
  readonly reason: string;
}

/** The scripts that are called for a device. */
export interface Callouts {
  /** Tried in this order until one handles the device's type. */
  readonly scripts: readonly string[];
  /** The capabilities of the script that reported them; it is then the only one of {@link scripts}. */
  readonly supports: Supported | undefined;
  /** All notifiers are called with the result of a command. */
  readonly notifiers: readonly string[];
  readonly skipped: readonly SkippedScript[];
}

/** The capabilities of a script, its answer to `get capabilities`. */
interface Supported {
  readonly events: readonly string[];
  readonly actions: readonly string[];
}

/** The folders of mdevctl's scripts: those of packages first, then the administrator's. */
const scriptFolders = ['/usr/lib/mdevctl/scripts.d', `${definitionsFolder}/${scriptsFolderName}`];

/** The capabilities of pearasys, in the second version of mdevctl's protocol. */
export const provides = {
  provides: {
    version: 2,
    actions: ['start', 'stop', 'define', 'undefine', 'modify', 'attributes', 'capabilities'],
    events: ['pre', 'post', 'notify', 'get', 'live'],
  },
};

/** Lists the scripts without starting any. */
export function readCallouts(host: HostReader): Callouts {
  const skipped: SkippedScript[] = [];
  const scripts = readScripts(host, 'callouts', skipped);
  return {scripts, supports: undefined, notifiers: readScripts(host, 'notifiers', skipped), skipped};
}

/** The notes on scripts that are not run. */
export function skippedNotes({skipped}: Pick<Callouts, 'skipped'>): string[] {
  return skipped.map(({path, reason}) => `the script ${path} is not run: ${reason}`);
}

/** Whether the callouts are called for this event and action: a script may report that it does not support them. */
export function isSupported(
  {supports}: Pick<Callouts, 'supports'>,
  event: CalloutEvent,
  action: CalloutAction,
): boolean {
  return supports === undefined || (supports.events.includes(event) && supports.actions.includes(action));
}

/** The arguments of a script. */
export function calloutArguments({subject, event, action, state}: CalloutCall): string[] {
  return [
    '-t',
    subject.type,
    '-e',
    event,
    '-a',
    action,
    '-s',
    state,
    '-u',
    subject.uuid,
    '-p',
    subject.parent,
  ];
}

function readScripts(host: HostReader, kind: 'callouts' | 'notifiers', skipped: SkippedScript[]): string[] {
  const scripts: string[] = [];
  for (const folder of scriptFolders.map((one) => `${one}/${kind}`)) {
    const names = host.list(folder);
    const untrusted = names.length === 0 ? undefined : distrustFolder(host, folder);
    for (const name of names) {
      const path = `${folder}/${name}`;
      const reason = untrusted ?? distrustScript(host, path);
      if (reason === undefined) scripts.push(path);
      else skipped.push({path, reason});
    }
  }
  return scripts;
}

/** Why no script of a folder is run. */
function distrustFolder(host: HostReader, folder: string): string | undefined {
  // The script may be for another release, and would inspect this machine instead of the image.
  if (host.root !== '/') return `it is in the image ${host.root}, and would run on this machine`;
  return distrustPath(host, folder, 'directory');
}

/** Why a script is not run as root; undefined if it can be trusted. Links are followed: their target is checked. */
function distrustScript(host: HostReader, path: string): string | undefined {
  const reason = distrustPath(host, path, 'file');
  if (reason !== undefined) return reason;
  if (((host.info(path)?.mode ?? 0) & 0o111) === 0) return `${path} is not executable: chmod +x ${path}`;
  if (!isProgram(host, path)) return `${path} has no interpreter line: its first line must be like #!/bin/sh`;
  return undefined;
}

/**
 * Whether the kernel can execute the file, see execve(2). execvp(3) would run any other file with a shell, which
 * mdevctl does not do, and which could have any effect.
 */
function isProgram(host: HostReader, path: string): boolean {
  const start = host.readStart(path, 256)?.toString('latin1') ?? '';
  return start.startsWith('\x7fELF') || /^#![ \t]*[^ \t\n\0]/.test(start);
}

/** The capabilities that a script reported; undefined if the script does not know `get capabilities`. */
export function parseSupported(text: string): Supported | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text.replace(/\0+$/, ''));
  } catch {
    return undefined;
  }
  const supports = (value as {supports?: {events?: unknown; actions?: unknown}} | null)?.supports;
  const words = (list: unknown) =>
    Array.isArray(list) ? list.filter((word) => typeof word === 'string') : undefined;
  const events = words(supports?.events);
  const actions = words(supports?.actions);
  return events === undefined || actions === undefined ? undefined : {events, actions};
}
