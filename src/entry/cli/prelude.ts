/**
 * From the words of the command line to a command: translates leading options, commands of several words, and the
 * chains of `pci` to what oclif supports.
 */

import {parseId} from '../../devices/pci/id.js';

/** What a command line asks for. */
export type CommandLine =
  | {readonly kind: 'version'}
  /** Help on everything, on a command, or on the commands that begin with these words. */
  | {readonly kind: 'help'; readonly words: readonly string[]}
  | {
      readonly kind: 'run';
      /** The command, its words joined by colons. */
      readonly id: string;
      /** Options and arguments as oclif parses them. */
      readonly argv: readonly string[];
    }
  /** There is no such command; without words, none was named. */
  | {readonly kind: 'unknown'; readonly words: readonly string[]};

/** Options before the command that take a value. */
const valued = new Set(['-s', '--slot', '-d', '--id', '--pid', '--pid', '--root', '--timeout']);

/** Options with the same meaning anywhere in a `pci` chain, because no word of a chain begins with a dash. */
const anywhere = new Set([
  '-v',
  '--verbose',
  '--json',
  '--dry-run',
  '--force',
  '--debug',
  '--root',
  '--timeout',
]);

/** Options of the first pearasys that are commands here. */
const optionCommands: Readonly<Record<string, readonly string[]>> = {
  '--install-completion': ['completion', '--install'],
  '--show-completion': ['completion'],
};

/** Commands whose arguments are devices: a device of -s or -d before the command is one more argument. */
const takesDevices = new Set(['bind', 'unbind', 'show']);

/** The command whose arguments are a chain of links, each with its own options. */
const chained = 'pci';

/**
 * Reads the words after the program's name.
 * @param ids every command's id, words joined by colons: `list`, `service:install`.
 */
export function readCommandLine(words: readonly string[], ids: readonly string[]): CommandLine {
  const [leading, rest] = takeLeading(words);
  if (leading.includes('--version')) return {kind: 'version'};
  const optionCommand = leading.find((word) => Object.hasOwn(optionCommands, word));
  if (optionCommand !== undefined) {
    const others = leading.filter((word) => word !== optionCommand);
    return readCommandLine([...(optionCommands[optionCommand] ?? []), ...others, ...rest], ids);
  }
  const [first] = rest;
  if (first === 'help' && !ids.includes(first)) return helpOn(rest.slice(1), ids);
  if (asksForHelp(leading)) return helpOn(rest, ids);
  if (first === undefined)
    return leading.every((word) => anywhere.has(word)) ? helpOn(rest, ids) : {kind: 'unknown', words: []};
  const id = findCommand(rest, ids);
  if (id === undefined) return asksForHelp(rest) || isTopic(rest, ids) ? helpOn(rest, ids) : unknown(rest);
  const own = rest.slice(id.split(':').length);
  if (asksForHelp(own)) return {kind: 'help', words: id.split(':')};
  if (id === chained) return {kind: 'run', id, argv: readChain(leading, own)};
  return {kind: 'run', id, argv: takesDevices.has(id) ? nameDevices(leading, own) : [...leading, ...own]};
}

/** Whether a long option without a value is among the words before any `--`. */
export function hasSwitch(words: readonly string[], name: string): boolean {
  const end = words.indexOf('--');
  return words.slice(0, end < 0 ? undefined : end).includes(name);
}

/** Splits off the options before the command. */
function takeLeading(words: readonly string[]): [leading: string[], rest: string[]] {
  let end = 0;
  for (let word = words[0]; word !== undefined && isOption(word); word = words[end])
    end += takesValue(word) ? 2 : 1;
  return [words.slice(0, end), words.slice(end)];
}

/** The devices of leading options come after the command's own words. */
function nameDevices(leading: readonly string[], own: readonly string[]): string[] {
  const options: string[] = [];
  const devices: string[] = [];
  for (let at = 0; at < leading.length; at++) {
    const word = leading[at] ?? '';
    const [, name = '', attached] = /^(-[sd]|--(?:slot|id|pid)=)(.+)$/s.exec(word) ?? [];
    const alone = /^(?:-[sd]|--(?:slot|id|pid))$/.test(word);
    if (attached === undefined && !alone) {
      options.push(word);
      continue;
    }
    const value = attached ?? leading[++at] ?? '';
    devices.push(/^(?:-s|--slot)/.test(alone ? word : name) ? value : parseId(value));
  }
  return [...options, ...own, ...devices];
}

/** Common options go before the `--`; the rest is the chain. */
function readChain(leading: readonly string[], words: readonly string[]): string[] {
  const options = [...leading];
  const chain: string[] = [];
  for (let at = 0; at < words.length; at++) {
    const word = words[at] ?? '';
    if (!anywhere.has(word.split('=')[0] ?? '')) chain.push(word);
    else options.push(...words.slice(at, takesValue(word) ? ++at + 1 : at + 1));
  }
  return [...options, '--', ...chain];
}

function isOption(word: string): boolean {
  return word.startsWith('-') && word !== '-' && word !== '--';
}

/** Whether the next word is this option's value: `-s`, `--slot`, and `-vs`, but neither `-s04:00.0` nor `--slot=…`. */
function takesValue(word: string): boolean {
  return valued.has(word) || (/^-[a-z]{2,}$/.test(word) && /^-[^sd]*[sd]$/.test(word));
}

function asksForHelp(words: readonly string[]): boolean {
  return hasSwitch(words, '--help') || hasSwitch(words, '-h');
}

function helpOn(words: readonly string[], ids: readonly string[]): CommandLine {
  const named = words.filter((word) => !isOption(word));
  const id = findCommand(named, ids);
  if (id !== undefined) return {kind: 'help', words: id.split(':')};
  return named.length === 0 || isTopic(named, ids) ? {kind: 'help', words: named} : unknown(named);
}

function unknown(words: readonly string[]): CommandLine {
  return {kind: 'unknown', words: words.filter((word) => !isOption(word))};
}

/** The command with the most words at the beginning. */
function findCommand(words: readonly string[], ids: readonly string[]): string | undefined {
  for (let length = Math.min(words.length, 3); length > 0; length--) {
    const id = words.slice(0, length).join(':');
    if (ids.includes(id)) return id;
  }
  return undefined;
}

function isTopic(words: readonly string[], ids: readonly string[]): boolean {
  const named = words.filter((word) => !isOption(word));
  return named.length > 0 && ids.some((id) => id.startsWith(`${named.join(':')}:`));
}
