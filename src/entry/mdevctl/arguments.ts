import {distance} from 'fastest-levenshtein';
import {asUuid} from '../../devices/mdev/uuid.js';
import {allOptions, commandHelp, commandLine, programHelp, usageLine, versionLine} from './usage.js';
import {
  mdevctlCommands,
  optionWord,
  type CommandSpecification,
  type OptionSpecification,
} from './specification.js';

/** What the words of a command line mean. */
export type MdevctlLine =
  | {readonly kind: 'run'; readonly command: string; readonly values: MdevctlValues}
  | {readonly kind: 'print'; readonly text: string; readonly error: boolean; readonly exitCode: 0 | 2};

/** The options that were given, by name: their values, or an empty text for those that take none. */
export type MdevctlValues = ReadonlyMap<string, string>;

/** A command line that is wrong: exit code 2. */
class Mistake extends Error {}

/** Something that is printed instead of running a command. */
class Print extends Error {}

/** Reads the words after `mdevctl` as its own parser (clap 3) does. */
export function readMdevctlLine(words: readonly string[]): MdevctlLine {
  return answer(() => {
    const [first, ...rest] = words;
    if (first === undefined) return {kind: 'print', text: programHelp(), error: true, exitCode: 2};
    if (first === 'help') throw new Print(helpOn(rest));
    if (first.startsWith('-') && first !== '-') readProgramOption(first);
    const command = mdevctlCommands.find(({name}) => name === first);
    if (command === undefined) throw unknownCommand(first);
    return {kind: 'run', command: command.name, values: readWords(command, rest)};
  });
}

/** Reads the words after `lsmdev`. */
export function readLsmdevLine(command: CommandSpecification, words: readonly string[]): MdevctlLine {
  return answer(() => ({kind: 'run', command: 'list', values: readWords(command, words)}));
}

function answer(read: () => MdevctlLine): MdevctlLine {
  try {
    return read();
  } catch (error) {
    if (error instanceof Print) return {kind: 'print', text: error.message, error: false, exitCode: 0};
    if (error instanceof Mistake)
      return {
        kind: 'print',
        text: `error: ${error.message}\n\nFor more information try --help\n`,
        error: true,
        exitCode: 2,
      };
    throw error;
  }
}

function helpOn(words: readonly string[]): string {
  const [name, extra] = words;
  if (name === undefined) return programHelp();
  if (name === 'help')
    return 'mdevctl-help \nPrint this message or the help of the given subcommand(s)\n\nUSAGE:\n    mdevctl help [SUBCOMMAND]...\n\nARGS:\n    <SUBCOMMAND>...    The subcommand whose help message to display\n';
  const command = mdevctlCommands.find((one) => one.name === name);
  if (command === undefined || extra !== undefined)
    throw new Mistake(
      `The subcommand '${extra ?? name}' wasn't recognized\n\nUSAGE:\n    ${command === undefined ? 'mdevctl <SUBCOMMAND>' : usageLine(command)}`,
    );
  return commandHelp(command, true);
}

function readProgramOption(word: string): never {
  const [name, value] = splitLong(word);
  const option = word.startsWith('--') ? name : word.slice(0, 2);
  if (!['--help', '-h', '--version', '-V'].includes(option))
    throw new Mistake(unexpected(option, [], 'mdevctl <SUBCOMMAND>'));
  if (value !== undefined && word.startsWith('--'))
    throw new Mistake(tooManyValues(name, value, 'mdevctl <SUBCOMMAND>'));
  throw new Print(option === '--help' || option === '-h' ? programHelp() : `${versionLine()}\n`);
}

function unknownCommand(word: string): Mistake {
  const names = mdevctlCommands.filter(({about}) => about !== '').map(({name}) => name);
  const near = nearestWords(word, names);
  const usage = 'USAGE:\n    mdevctl <SUBCOMMAND>';
  if (near.length === 0) return new Mistake(`${notExpected(word)}\n\n${usage}`);
  return new Mistake(
    `The subcommand '${word}' wasn't recognized\n\n\tDid you mean ${near.map((one) => `'${one}'`).join(' or ')}?\n\n` +
      `If you believe you received this message in error, try re-running with 'mdevctl -- ${word}'\n\n${usage}`,
  );
}

/** One reading of a command's words. */
interface Reading {
  readonly command: CommandSpecification;
  readonly values: Map<string, string>;
}

function readWords(command: CommandSpecification, words: readonly string[]): MdevctlValues {
  const reading: Reading = {command, values: new Map()};
  const left = [...words];
  let optionsEnd = false;
  for (let word = left.shift(); word !== undefined; word = left.shift())
    if (!optionsEnd && word === '--') optionsEnd = true;
    else if (optionsEnd || !word.startsWith('-') || word === '-') readArgument(reading, word);
    else if (word.startsWith('--')) readLong(reading, word, left);
    else readShort(reading, word, left);
  checkValues(reading);
  return reading.values;
}

function readArgument({command, values}: Reading, word: string): void {
  const {argument} = command;
  if (argument === undefined || values.has(argument))
    throw new Mistake(
      word.startsWith('-')
        ? unexpected(word, [], usageLine(command))
        : `${notExpected(word)}\n\nUSAGE:\n    ${usageLine(command)}`,
    );
  values.set(argument, word);
}

function readLong(reading: Reading, word: string, left: string[]): void {
  const [name, value] = splitLong(word);
  const option = allOptions(reading.command).find((one) => `--${one.name}` === name);
  if (option === undefined) {
    const known = allOptions(reading.command).map((one) => `--${one.name}`);
    const near = nearestWords(name, known).at(-1);
    const meant = allOptions(reading.command).find((one) => `--${one.name}` === near);
    const used = usedOptions(reading);
    const usage =
      meant === undefined && used.length === 0
        ? usageLine(reading.command)
        : smartUsage(reading.command, [...used, ...(meant === undefined ? [] : [meant])]);
    throw new Mistake(unexpected(name, near === undefined ? [] : [near], usage));
  }
  take(reading, option, value, left, name);
}

function readShort(reading: Reading, word: string, left: string[]): void {
  for (let at = 1; at < word.length; at++) {
    const char = word.charAt(at);
    const option = allOptions(reading.command).find((one) => one.char === char);
    if (option === undefined) throw new Mistake(unexpected(`-${char}`, [], usageLine(reading.command)));
    const rest = word.slice(at + 1);
    if (option.value !== undefined) {
      take(reading, option, rest === '' ? undefined : rest.replace(/^=/, ''), left, `-${char}`);
      return;
    }
    take(reading, option, undefined, left, `-${char}`);
  }
}

function take(
  {command, values}: Reading,
  option: OptionSpecification,
  value: string | undefined,
  left: string[],
  written: string,
): void {
  if (option.value === undefined && value !== undefined)
    throw new Mistake(tooManyValues(`--${option.name}`, value, usageLine(command)));
  if (option.name === 'help') throw new Print(commandHelp(command, written === '--help'));
  if (option.name === 'version') throw new Print(`${versionLine(command)}\n`);
  let text = value ?? '';
  if (option.value !== undefined && value === undefined) {
    const next = left[0];
    // What begins like an option is one, unless nothing knows it: then it is told as unknown.
    if (next === undefined || isOption(command, next))
      throw new Mistake(`The argument '${optionWord(option)}' requires a value but none was supplied`);
    if (next.startsWith('-') && next !== '-')
      throw new Mistake(unexpected(next.startsWith('--') ? next : next.slice(0, 2), [], usageLine(command)));
    text = next;
    left.shift();
  }
  if (values.has(option.name)) {
    checkValue(option, values.get(option.name) ?? '');
    throw new Mistake(
      `The argument '${optionWord(option)}' was provided more than once, but cannot be used multiple times\n\nUSAGE:\n    ${usageLine(command)}`,
    );
  }
  values.set(option.name, text);
}

function isOption(command: CommandSpecification, word: string): boolean {
  const [name] = splitLong(word);
  return allOptions(command).some(
    (one) => name === `--${one.name}` || (one.char !== undefined && word.slice(0, 2) === `-${one.char}`),
  );
}

/** What only all words together show: in clap's order. */
function checkValues(reading: Reading): void {
  const {command, values} = reading;
  const used = usedOptions(reading);
  for (const option of used) {
    const other = used.find(
      (one) =>
        one !== option &&
        (option.conflicts?.includes(one.name) === true || one.conflicts?.includes(option.name) === true),
    );
    if (other === undefined) continue;
    // Of two that exclude each other only the first one stays in the usage.
    const left = used.filter(
      (one) =>
        one === option ||
        !(option.conflicts?.includes(one.name) === true || one.conflicts?.includes(option.name) === true),
    );
    throw new Mistake(
      `The argument '${optionWord(option)}' cannot be used with '${optionWord(other)}'\n\nUSAGE:\n    ${smartUsage(command, left)}`,
    );
  }
  const {required = [], oneOf = [], argument, options} = command;
  const byName = (name: string) => options.filter((option) => option.name === name);
  const needed = used.flatMap(({requires = []}) => requires).filter((name) => !values.has(name));
  const alternatives = oneOf.some((name) => values.has(name)) ? [] : oneOf;
  const missing = [...required.filter((name) => !values.has(name)), ...needed, ...alternatives].flatMap(
    byName,
  );
  const missingWords = [
    ...missing.map(optionWord),
    ...(argument === undefined || values.has(argument) ? [] : [`<${argument}>`]),
  ];
  if (missingWords.length > 0) {
    const usage =
      used.length === 0 && alternatives.length === 0
        ? usageLine(command)
        : smartUsage(command, [...needed.flatMap(byName), ...used, ...alternatives.flatMap(byName)]);
    throw new Mistake(
      `The following required arguments were not provided:\n${missingWords.map((word) => `    ${word}\n`).join('')}\nUSAGE:\n    ${usage}`,
    );
  }
  for (const option of used) checkValue(option, values.get(option.name) ?? '');
}

function checkValue(option: OptionSpecification, text: string): void {
  const reason =
    option.kind === 'uuid' ? uuidProblem(text) : option.kind === 'index' ? indexProblem(text) : undefined;
  if (reason !== undefined)
    throw new Mistake(`Invalid value ${JSON.stringify(text)} for '${optionWord(option)}': ${reason}`);
}

/** In the words of Rust's uuid. */
function uuidProblem(text: string): string | undefined {
  if (asUuid(text) !== undefined) return undefined;
  const bare = text.replace(/^urn:uuid:/i, '').replace(/^\{(.*)\}$/s, '$1');
  const wrong = /[^0-9a-fA-F-]/u.exec(bare);
  if (wrong !== null)
    return `invalid character: expected an optional prefix of \`urn:uuid:\` followed by [0-9a-zA-Z], found \`${wrong[0]}\` at ${wrong.index + 1}`;
  const groups = bare.split('-');
  if (groups.length === 1 && bare === text)
    return `invalid length: expected length 32 for simple format, found ${bare.length}`;
  if (groups.length !== 5) return `invalid group count: expected 5, found ${groups.length}`;
  const lengths = [8, 4, 4, 4, 12];
  const at = groups.findIndex((group, index) => group.length !== lengths[index]);
  return `invalid group length in group ${at}: expected ${lengths[at] ?? 0}, found ${groups[at]?.length ?? 0}`;
}

/** In the words of Rust's u32. */
function indexProblem(text: string): string | undefined {
  if (text === '') return 'cannot parse integer from empty string';
  if (!/^\+?\d+$/.test(text)) return 'invalid digit found in string';
  return Number(text) > 0xffff_ffff ? 'number too large to fit in target type' : undefined;
}

function usedOptions({command, values}: Reading): OptionSpecification[] {
  return [...values.keys()].flatMap((name) => command.options.filter((option) => option.name === name));
}

/** The usage with the options that were given, those that must be first. */
function smartUsage(command: CommandSpecification, options: readonly OptionSpecification[]): string {
  const {required = []} = command;
  const must = command.options.filter(({name}) => required.includes(name));
  return [commandLine(command), ...new Set([...must, ...options].map(optionWord))].join(' ');
}

function notExpected(word: string): string {
  return `Found argument '${word}' which wasn't expected, or isn't valid in this context`;
}

function unexpected(word: string, near: readonly string[], usage: string): string {
  const meant = near.map((one) => `\tDid you mean '${one}'?\n\n`).join('');
  return `${notExpected(word)}\n\n${meant}\tIf you tried to supply \`${word}\` as a value rather than a flag, use \`-- ${word}\`\n\nUSAGE:\n    ${usage}`;
}

function tooManyValues(name: string, value: string, usage: string): string {
  return `The value '${value}' was provided to '${name}' but it wasn't expecting any more values\n\n${usage}`;
}

function splitLong(word: string): [name: string, value: string | undefined] {
  const at = word.indexOf('=');
  return at < 0 ? [word, undefined] : [word.slice(0, at), word.slice(at + 1)];
}

/** Known words that are near to this one, or go on as it begins; the nearest last, as clap names them. */
function nearestWords(word: string, known: readonly string[]): string[] {
  const bare = (text: string) => text.replace(/^--/, '');
  const far = (one: string) => distance(bare(word), bare(one));
  return known
    .filter((one) => (bare(word).length > 1 && bare(one).startsWith(bare(word))) || far(one) <= 2)
    .sort((one, other) => far(other) - far(one));
}
