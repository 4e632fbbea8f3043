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

/** The exit code of a script that does not handle the type. */
const notMine = 2;

/** The result of a script. */
export interface CalloutAnswer {
  readonly path: string;
  readonly result: CommandResult;
}

/**
 * Calls the scripts in order until one handles the type. One that cannot be started, or was killed by a signal, is
 * skipped, as by mdevctl.
 * @param claimed whether they have said before that they handle the type: then the result of the first one counts.
 * @returns the result of that script; undefined if there is none.
 * @throws CommandError when one took too long or printed too much, and was killed; with `claimed` also when it could
 * not be started.
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
 * The callouts of one device. The scripts are asked for their capabilities: the first that answers is the only one that
 * is called from then on. Older ones do not know this question, and answer something else. One that takes too long is
 * skipped: it may be for other devices, and would block the start and stop of all.
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
 * The attributes of an existing device, from the script for its type; empty if no script reports any.
 * @throws CommandError when the script fails.
 * @throws PearasysError `bad-definition` when its output is not a list of attributes.
 */
export async function readCalloutAttributes(
  host: Host,
  callouts: Callouts,
  subject: CalloutSubject,
  limit: number,
): Promise<readonly Attribute[]> {
  return (await askCalloutAttributes(host, callouts, subject, limit)) ?? [];
}

/** Like {@link readCalloutAttributes}; undefined if no script reports any. */
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
