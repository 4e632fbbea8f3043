import {parseArgs} from 'node:util';
import {asUuid} from '../../devices/mdev/uuid.js';
import {allOptions, commandHelp, commandLine, programHelp, usageLine, versionLine} from './usage.js';
import {
  mdevctlCommands,
  optionWord,
  program,
  type CommandSpecification,
  type OptionSpecification,
} from './specification.js';

/** A parsed command line. */
type MdevctlLine =
  | {readonly kind: 'run'; readonly command: string; readonly values: MdevctlValues}
  | {readonly kind: 'print'; readonly text: string; readonly error: boolean; readonly exitCode: 0 | 2};

/** The given options by name, with their values, or with an empty text for those that take none. */
export type MdevctlValues = ReadonlyMap<string, string>;

/** A command line that is wrong: exit code 2. */
class Mistake extends Error {
  readonly command: CommandSpecification;

  constructor(command: CommandSpecification, message: string) {
    super(message);
    this.command = command;
  }
}

/** Something that is printed instead of running a command. */
class Print extends Error {}

/** Reads the words after `mdevctl`. What is accepted is what mdevctl's own parser accepts. */
export function readMdevctlLine(words: readonly string[]): MdevctlLine {
  const [first, ...rest] = words;
  if (first === undefined) return {kind: 'print', text: programHelp(), error: true, exitCode: 2};
  return answer(() => {
    if (first === 'help') throw new Print(helpOn(rest));
    const command = findCommand(first);
    if (command === undefined) {
      if (first.startsWith('-')) readWords(program, [first]);
      throw new Mistake(program, `unknown command '${first}'`);
    }
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
    if (!(error instanceof Mistake)) throw error;
    const {command, message} = error;
    const text = `error: ${message}\nusage: ${usageLine(command)}\ntry: ${commandLine(command)} --help\n`;
    return {kind: 'print', text, error: true, exitCode: 2};
  }
}

function findCommand(name: string): CommandSpecification | undefined {
  return mdevctlCommands.find((command) => command.name === name);
}

function helpOn([name, ...rest]: readonly string[]): string {
  if (name === undefined) return programHelp();
  if (name === 'help')
    return 'mdevctl-help \nPrint this message or the help of the given subcommand(s)\n\nUSAGE:\n    mdevctl help [SUBCOMMAND]...\n\nARGS:\n    <SUBCOMMAND>...    The subcommand whose help message to display\n';
  const command = findCommand(name);
  if (command === undefined || rest.length > 0)
    throw new Mistake(program, `unknown command '${[name, ...rest].join(' ')}'`);
  return commandHelp(command, true);
}

/**
 * Reads the options and the argument in the order of the words: a word that is wrong before `--help` is an error, but
 * words that do not fit each other are not.
 */
function readWords(command: CommandSpecification, words: readonly string[]): MdevctlValues {
  const options = new Map(allOptions(command).map((option) => [option.name, option]));
  const {tokens} = parseArgs({
    args: [...words],
    // In strict mode it throws its own messages, and does not stop at the first mistake.
    strict: false,
    allowPositionals: true,
    tokens: true,
    options: Object.fromEntries(
      [...options.values()].map(({name, char, value}) => [
        name,
        {type: value === undefined ? 'boolean' : 'string', ...(char === undefined ? {} : {short: char})},
      ]),
    ),
  });
  const values = new Map<string, string>();
  let repeated: string | undefined;
  for (const token of tokens)
    if (token.kind === 'positional') {
      const {argument} = command;
      if (argument === undefined || values.has(argument))
        throw new Mistake(command, `unexpected argument '${token.value}'`);
      values.set(argument, token.value);
    } else if (token.kind === 'option') {
      const option = options.get(token.name);
      if (option === undefined) throw new Mistake(command, `unknown option '${token.rawName}'`);
      const text = valueOf(command, option, token);
      if (option.name === 'help') throw new Print(commandHelp(command, token.rawName === '--help'));
      if (option.name === 'version') throw new Print(`${versionLine(command)}\n`);
      if (values.has(option.name)) repeated ??= option.name;
      values.set(option.name, text);
    }
  if (repeated !== undefined) throw new Mistake(command, `--${repeated} is given twice`);
  check(command, values);
  return values;
}

function valueOf(
  command: CommandSpecification,
  option: OptionSpecification,
  {
    rawName,
    value,
    inlineValue,
  }: {rawName: string; value?: string | undefined; inlineValue?: boolean | undefined},
): string {
  if (option.value === undefined) {
    if (value !== undefined) throw new Mistake(command, `--${option.name} takes no value`);
    return '';
  }
  if (value === undefined || (inlineValue !== true && /^-./s.test(value)))
    throw new Mistake(command, `--${option.name} needs a value: ${optionWord(option)}`);
  // `-u=UUID`
  return inlineValue === true && !rawName.startsWith('--') ? value.replace(/^=/, '') : value;
}

/** What can only be seen when all words are read. */
function check(command: CommandSpecification, values: MdevctlValues): void {
  const {required = [], oneOf = [], argument, options} = command;
  const wrong = (message: string) => new Mistake(command, message);
  const isMissing = (name: string) => !values.has(name);
  const used = options.filter(({name}) => values.has(name));
  for (const {name, conflicts = [], requires = []} of used) {
    const other = conflicts.find((one) => values.has(one));
    if (other !== undefined) throw wrong(`--${name} cannot be used with --${other}`);
    const needed = requires.find(isMissing);
    if (needed !== undefined) throw wrong(`--${name} needs --${needed}`);
  }
  const missing = required.find(isMissing);
  if (missing !== undefined) throw wrong(`--${missing} is missing`);
  if (oneOf.length > 0 && oneOf.every(isMissing))
    throw wrong(`${oneOf.map((name) => `--${name}`).join(' or ')} is missing`);
  if (argument !== undefined && isMissing(argument)) throw wrong(`${argument} is missing`);
  for (const {name, kind} of used) {
    const text = values.get(name) ?? '';
    if (kind === 'uuid' && asUuid(text) === undefined) throw wrong(`--${name}: '${text}' is not a UUID`);
    if (kind === 'index' && !isIndex(text))
      throw wrong(`--${name}: '${text}' is not a whole number of 0 or more`);
  }
}

/** Whether mdevctl's parser takes it for a number of 32 bits. */
function isIndex(text: string): boolean {
  return /^\+?\d+$/.test(text) && Number(text) <= 0xffff_ffff;
}
