import {CommandError, PearasysError} from '../../host/errors.js';
import type {CommandResult, Host, HostReader} from '../../host/host.js';
import {distrustPath} from '../../config/trust.js';
import {definitionsFolder, parseAttributes, type Attribute} from './definition.js';
import {scriptsFolderName, type ParentName, type TypeName} from '../../devices/mdev/name.js';
import type {Uuid} from '../../devices/mdev/uuid.js';

/** When a script is called, see mdevctl(8), EVENT SCRIPTS. */
export type CalloutEvent = 'pre' | 'post' | 'live' | 'notify' | 'get';

/** What is being done to the device. */
export type CalloutAction =
  'start' | 'stop' | 'define' | 'undefine' | 'modify' | 'attributes' | 'capabilities';

/** What has become of it so far. */
export type CalloutState = 'none' | 'success' | 'failure';

/** What a script is called about. */
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
  /** What it reads on standard input: the device's configuration in JSON; nothing where undefined. */
  readonly input: string | undefined;
}

/** A script that is not run. */
export interface SkippedScript {
  readonly path: string;
  readonly reason: string;
}

/** The scripts that are called about a device. */
export interface Callouts {
  /** Tried in this order, until one does not answer that the type is not its own. */
  readonly scripts: readonly string[];
  /** What the one script supports that has told so, which is then the only one of {@link scripts}. */
  readonly supports: Supported | undefined;
  /** All of them are told what became of a command. */
  readonly notifiers: readonly string[];
  readonly skipped: readonly SkippedScript[];
}

/** What a script says that it can do, in answer to `get capabilities`. */
export interface Supported {
  readonly events: readonly string[];
  readonly actions: readonly string[];
}

/** Where mdevctl has its scripts: its packages' first, then the administrator's. */
const scriptFolders = ['/usr/lib/mdevctl/scripts.d', `${definitionsFolder}/${scriptsFolderName}`];

/** The exit code by which a script says that the type is not its own. */
const notMine = 2;

/** What we support, in mdevctl's words of the second version of its protocol. */
const provides = {
  provides: {
    version: 2,
    actions: ['start', 'stop', 'define', 'undefine', 'modify', 'attributes', 'capabilities'],
    events: ['pre', 'post', 'notify', 'get', 'live'],
  },
};

/** Which scripts there are. Starts none. */
export function readCallouts(host: HostReader): Callouts {
  const skipped: SkippedScript[] = [];
  const scripts = readScripts(host, 'callouts', skipped);
  return {scripts, supports: undefined, notifiers: readScripts(host, 'notifiers', skipped), skipped};
}

/**
 * The callouts of one device. The scripts are asked for what they support: the first that tells so is the only one
 * that is called from then on. Older ones know no such question, and answer with something else. One that does not
 * end in time is skipped: it may be about other devices, all of which it would keep from being started and stopped.
 * @param limit milliseconds that each script may take.
 * @param callouts which scripts there are.
 */
export async function readCalloutsOf(
  host: Host,
  subject: CalloutSubject,
  limit: number,
  callouts: Callouts = readCallouts(host),
): Promise<Callouts> {
  const call: CalloutCall = {
    subject,
    event: 'get',
    action: 'capabilities',
    state: 'none',
    input: JSON.stringify(provides),
  };
  const skipped = [...callouts.skipped];
  const scripts: string[] = [];
  for (const path of callouts.scripts)
    try {
      const answer = await callFirst(host, [path], call, limit);
      const supports = answer === undefined ? undefined : parseSupported(answer.result.stdout);
      if (supports !== undefined) return {...callouts, skipped, scripts: [path], supports};
      scripts.push(path);
    } catch (error) {
      if (!(error instanceof CommandError)) throw error;
      skipped.push({path, reason: error.message});
    }
  return {...callouts, skipped, scripts};
}

/**
 * The attributes of a device that is there, from the script for its type; empty when no script tells any.
 * @throws CommandError when the script says that it failed.
 * @throws PearasysError `bad-definition` when what it prints is no list of attributes.
 */
export async function readCalloutAttributes(
  host: Host,
  callouts: Callouts,
  subject: CalloutSubject,
  limit: number,
): Promise<readonly Attribute[]> {
  return (await askAttributes(host, callouts, subject, limit)) ?? [];
}

/** As {@link readCalloutAttributes}; undefined when no script tells any. */
async function askAttributes(
  host: Host,
  callouts: Callouts,
  subject: CalloutSubject,
  limit: number,
): Promise<readonly Attribute[] | undefined> {
  if (!isSupported(callouts, 'get', 'attributes')) return undefined;
  const call: CalloutCall = {subject, event: 'get', action: 'attributes', state: 'none', input: undefined};
  const answer = await callFirst(host, callouts.scripts, call, limit, callouts.supports !== undefined);
  if (answer === undefined) return undefined;
  const {path, result} = answer;
  if (result.status !== 0) throw new CommandError(path, calloutArguments(call), result.status, result.stderr);
  // Some end it as C does.
  const text = result.stdout.replace(/\0+$/, '').trim();
  if (text === '') return undefined;
  if (text === '[{}]') return [];
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new CommandError(path, calloutArguments(call), 0, `it printed no JSON: ${text}`);
  }
  return parseAttributes(value);
}

/** The notes on scripts that are not run. */
export function skippedNotes({skipped}: Pick<Callouts, 'skipped'>): string[] {
  return skipped.map(({path, reason}) => `the script ${path} is not run: ${reason}`);
}

/**
 * The attributes of several devices that are there, by UUID, from their scripts; those of which no script tells are
 * left out. A script that fails tells nothing of its device, as mdevctl has it in lists.
 * @param onNote told what is not known, and why.
 */
export async function readMdevAttributes(
  host: Host,
  subjects: readonly CalloutSubject[],
  limit: number,
  onNote: (note: string) => void,
): Promise<ReadonlyMap<Uuid, readonly Attribute[]>> {
  const found = new Map<Uuid, readonly Attribute[]>();
  if (subjects.length === 0) return found;
  let all = readCallouts(host);
  // Starts nothing where there is no script.
  for (const subject of all.scripts.length === 0 ? [] : subjects)
    try {
      const callouts = await readCalloutsOf(host, subject, limit, all);
      // What does not answer is waited for once, not for each device.
      const slow = new Set(callouts.skipped.map(({path}) => path));
      all = {
        ...all,
        scripts: all.scripts.filter((path) => !slow.has(path)),
        skipped: callouts.skipped,
      };
      const told = await askAttributes(host, callouts, subject, limit);
      if (told !== undefined) found.set(subject.uuid, told);
    } catch (error) {
      if (!(error instanceof PearasysError)) throw error;
      onNote(`the attributes of ${subject.uuid} are not known: ${error.message}`);
    }
  for (const note of skippedNotes(all)) onNote(note);
  return found;
}

/** Whether the callouts are called for this: a script that told what it supports may not know it. */
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

/** A script's answer. */
export interface CalloutAnswer {
  readonly path: string;
  readonly result: CommandResult;
}

/**
 * Calls the scripts in order, until one does not answer that the type is not its own. One that cannot be started, or
 * was ended by a signal, is passed over, as by mdevctl.
 * @param claimed whether they have said before that the type is their own: then the first one answers for it.
 * @returns what that one answered; undefined when none did.
 * @throws CommandError when one did not end in time or printed too much, and was killed; with `claimed` also when it could not be
 * started.
 */
export async function callFirst(
  host: Host,
  scripts: readonly string[],
  call: CalloutCall,
  limit: number,
  claimed = false,
): Promise<CalloutAnswer | undefined> {
  for (const path of scripts)
    try {
      const result = await host.run(path, calloutArguments(call), {
        accept: 'any',
        inheritEnvironment: true,
        limit,
        input: call.input ?? '',
      });
      if (claimed || result.status !== notMine) return {path, result};
    } catch (error) {
      if (claimed || !(error instanceof CommandError) || error.ended !== undefined) throw error;
    }
  return undefined;
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
  // It may be meant for another release, and what it looks at is of this machine.
  if (host.root !== '/') return `it is in the image ${host.root}, and would run on this machine`;
  return distrustPath(host, folder, 'directory');
}

/** Why a script is not run as root; undefined when it may be. A link leads to what is looked at. */
function distrustScript(host: HostReader, path: string): string | undefined {
  const reason = distrustPath(host, path, 'file');
  if (reason !== undefined) return reason;
  if (((host.info(path)?.mode ?? 0) & 0o111) === 0) return `${path} is not executable: chmod +x ${path}`;
  if (!isProgram(host, path)) return `${path} has no interpreter line: its first line must be like #!/bin/sh`;
  return undefined;
}

/**
 * Whether the kernel can execute the file, see execve(2). execvp(3) would give any other one to a shell, which mdevctl
 * does not do, and which may do anything.
 */
function isProgram(host: HostReader, path: string): boolean {
  const start = host.readStart(path, 256)?.toString('latin1') ?? '';
  return start.startsWith('\x7fELF') || /^#![ \t]*[^ \t\n\0]/.test(start);
}

function parseSupported(text: string): Supported | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text.replace(/\0+$/, ''));
  } catch {
    // A script that does not know the question.
    return undefined;
  }
  const supports = (value as {supports?: {events?: unknown; actions?: unknown}} | null)?.supports;
  const words = (list: unknown) =>
    Array.isArray(list) ? list.filter((word) => typeof word === 'string') : undefined;
  const events = words(supports?.events);
  const actions = words(supports?.actions);
  return events === undefined || actions === undefined ? undefined : {events, actions};
}
