import {
  mdevctlCommands,
  mdevctlVersion,
  optionWord,
  program,
  type CommandSpecification,
  type OptionSpecification,
} from './specification.js';

const helpOption: OptionSpecification = {name: 'help', char: 'h', help: 'Print help information'};
const versionOption: OptionSpecification = {name: 'version', char: 'V', help: 'Print version information'};

/** All options of a command, including those for help and version. */
export function allOptions({options, versioned}: CommandSpecification): readonly OptionSpecification[] {
  return [...options, helpOption, ...(versioned === true ? [versionOption] : [])];
}

/** How the command is typed. */
export function commandLine({name, isProgram}: CommandSpecification): string {
  return isProgram === true ? name : `mdevctl ${name}`;
}

/** `mdevctl list [OPTIONS]`: the usage of the command, with its required options. */
export function usageLine(command: CommandSpecification): string {
  const {required = [], options, argument} = command;
  const must = options.filter(({name}) => required.includes(name));
  return [
    commandLine(command),
    ...(options.length > must.length ? ['[OPTIONS]'] : []),
    ...must.map(optionWord),
    ...(argument === undefined ? [] : [`<${argument}>`]),
  ].join(' ');
}

/** The version line of a program or of a command. */
export function versionLine({name, isProgram, versioned}: CommandSpecification): string {
  return `${isProgram === true ? name : `mdevctl-${name}`} ${versioned === true ? mdevctlVersion : ''}`;
}

/** What mdevctl prints without a command, and for its own help. */
export function programHelp(): string {
  const shown = mdevctlCommands.filter(({about}) => about !== '');
  const lines = [
    ...shown.map(({name, about}): [string, string] => [name, about]),
    ['help', 'Print this message or the help of the given subcommand(s)'] as [string, string],
  ].sort(([one], [other]) => (one < other ? -1 : 1));
  return [
    versionLine(program),
    program.about,
    '',
    'USAGE:',
    `    ${usageLine(program)}`,
    '',
    'OPTIONS:',
    ...columns(allOptions(program).map((option): [string, string] => [optionStart(option), option.help])),
    '',
    'SUBCOMMANDS:',
    ...columns(lines.map(([name, about]): [string, string] => [`    ${name}`, about])),
    '',
  ].join('\n');
}

/** The help of one command: with `long` as --help has it, else as -h has it. */
export function commandHelp(command: CommandSpecification, long: boolean): string {
  if (command === program) return programHelp();
  const options = [...allOptions(command)].sort((one, other) => (sortKey(one) < sortKey(other) ? -1 : 1));
  const full = long && command.long !== undefined;
  return [
    versionLine(command),
    ...(full ? [command.long] : command.about === '' ? [] : [command.about]),
    '',
    'USAGE:',
    `    ${usageLine(command)}`,
    '',
    ...(command.argument === undefined ? [] : ['ARGS:', `    <${command.argument}>    `, '']),
    'OPTIONS:',
    ...(full
      ? options
          .map((option) => `${optionStart(option)}\n            ${option.help}`)
          .join('\n\n')
          .split('\n')
      : columns(options.map((option): [string, string] => [optionStart(option), option.help]))),
    '',
  ].join('\n');
}

function optionStart(option: OptionSpecification): string {
  return `    ${option.char === undefined ? '   ' : `-${option.char},`} ${optionWord(option)}`;
}

function columns(rows: readonly (readonly [string, string])[]): string[] {
  const width = Math.max(...rows.map(([start]) => start.length)) + 4;
  return rows.map(([start, help]) => `${start.padEnd(width)}${help}`);
}

/** By the letter if there is one, lower case first. */
function sortKey({char, name}: OptionSpecification): string {
  if (char === undefined) return name;
  return `${char.toLowerCase()}${char === char.toLowerCase() ? '0' : '1'}`;
}
