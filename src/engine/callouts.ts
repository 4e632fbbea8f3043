import {CommandError} from '../host/errors.js';
import type {CommandResult, Host} from '../host/host.js';
import {
  calloutArguments,
  isSupported,
  parseSupported,
  provides,
  readCallouts,
  type CalloutCall,
  type Callouts,
  type CalloutSubject,
} from '../state/definitions/callout.js';
import {parseAttributes, type Attribute} from '../state/definitions/definition.js';

/** The exit code by which a script says that the type is not its own. */
const notMine = 2;

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
  return (await askCalloutAttributes(host, callouts, subject, limit)) ?? [];
}

/** As {@link readCalloutAttributes}; undefined when no script tells any. */
export async function askCalloutAttributes(
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
    throw new CommandError(path, calloutArguments(call), 0, `its output is not JSON: ${text}`);
  }
  return parseAttributes(value);
}
