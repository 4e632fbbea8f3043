import {closest, distance} from 'fastest-levenshtein';
import {ExitCode, PearasysError, type ErrorCode} from '../../host/errors.js';
import {printableLine} from '../../host/printable.js';
import type {Context} from './context.js';

/** What `--json` prints on standard output when a command fails. */
export interface ErrorDocument {
  readonly error: {
    /** `internal` is a bug in this program. */
    readonly code: ErrorCode | 'internal';
    readonly message: string;
    readonly details: readonly string[];
    readonly hint: string | null;
    readonly exitCode: ExitCode;
  };
}

/** How errors are shown, as the command line says. */
interface ErrorStyle {
  readonly json: boolean;
  /** Whether the stack is shown. */
  readonly debug: boolean;
}

/** Prints an error on standard error, and with `--json` on standard output too. @returns its exit code. */
export function printError(context: Context, error: unknown, style: ErrorStyle): ExitCode {
  const {error: document} = describeError(error);
  const lines = [
    `pearasys: ${document.message}`,
    ...document.details.map((detail) => `  ${detail}`),
    ...(document.hint === null ? [] : [`try: ${document.hint}`]),
  ];
  context.message('error', lines.map(printableLine).join('\n'));
  if (style.debug) for (const stack of stacksOf(error)) context.message('debug', stack);
  if (style.json)
    context.stdout.write(`${JSON.stringify({error: document} satisfies ErrorDocument, null, 2)}\n`);
  return document.exitCode;
}

/** The description of any error, for people and programs. */
export function describeError(error: unknown): ErrorDocument {
  if (error instanceof PearasysError) {
    const {code, message, details, hint = null, exitCode} = error;
    return {error: {code, message, details, hint, exitCode}};
  }
  if (isParseError(error)) return describeParseError(error);
  return {
    error: {
      code: 'internal',
      message: `internal error: ${error instanceof Error ? error.message : String(error)}`,
      details: [],
      hint: 'run it again with --debug, and report the output',
      exitCode: ExitCode.failed,
    },
  };
}

/** `did you mean X?` for the nearest of the known words; undefined without a near one. */
export function suggest(word: string, known: readonly string[]): string | undefined {
  if (known.length === 0) return undefined;
  const nearest = closest(word, known);
  return distance(word, nearest) <= Math.max(2, Math.floor(word.length / 2)) ? nearest : undefined;
}

/** What oclif's parser throws, recognized by its shape, so that the parser need not be loaded. */
interface ParseError extends Error {
  readonly oclif: object;
  /** The unknown flags. */
  readonly flags?: readonly string[];
  /** The superfluous or missing arguments. */
  readonly args?: readonly (string | {readonly name: string})[];
  readonly parse?: {readonly input?: {readonly flags?: Readonly<Record<string, {readonly char?: string}>>}};
}

function isParseError(error: unknown): error is ParseError {
  return error instanceof Error && 'oclif' in error;
}

function describeParseError(error: ParseError): ErrorDocument {
  const known = Object.entries(error.parse?.input?.flags ?? {}).flatMap(([name, {char}]) => [
    `--${name}`,
    ...(char === undefined ? [] : [`-${char}`]),
  ]);
  const [flag] = error.flags ?? [];
  const missing = (error.args ?? []).filter((arg) => typeof arg === 'object').map((arg) => arg.name);
  const [summary = '', ...lines] = error.message
    .replace(/\nSee more help with --help$/, '')
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
  let message = lowerFirst(summary);
  let details = lines;
  let nearest: string | undefined;
  if (flag !== undefined && /^nonexistent/i.test(summary)) {
    message = `this command has no option ${flag}`;
    // All options with one letter are near each other.
    nearest = flag.startsWith('--') ? suggest(flag, known) : undefined;
  } else if (missing.length > 0) {
    message = `missing: ${missing.map((name) => name.toUpperCase()).join(' ')}`;
    details = [];
  } else if (/^The following errors? occurred:$/.test(summary)) {
    [message = '', ...details] = lines.map(lowerFirst);
  }
  return {
    error: {
      code: 'usage',
      message,
      details,
      hint: nearest === undefined ? 'the same command with --help' : `${nearest}, or --help for all options`,
      exitCode: ExitCode.usage,
    },
  };
}

function lowerFirst(text: string): string {
  return /^[A-Z][a-z]/.test(text) ? text.charAt(0).toLowerCase() + text.slice(1) : text;
}

function stacksOf(error: unknown): string[] {
  const stacks: string[] = [];
  for (let at = error; at instanceof Error; at = at.cause) stacks.push(at.stack ?? at.message);
  return stacks;
}
