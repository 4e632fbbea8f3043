import {anyValue, argumentStates, type CompletedCommand, type CompletedProgram} from '../completion/table.js';
import {
  lsmdev,
  mdevctlCommands,
  program,
  type CommandSpecification,
  type OptionSpecification,
} from './specification.js';
import {allOptions} from './usage.js';

/** The kind of an option's value, by the option's name, and by its command where that matters. */
const kinds: Readonly<Record<string, string>> = {
  uuid: 'uuid',
  'start uuid': 'defined-uuid',
  'stop uuid': 'active-uuid',
  'undefine uuid': 'defined-uuid',
  parent: 'parent',
  type: 'type',
  jsonfile: 'file',
};

/** The command line of mdevctl, as completion needs it. */
export function completedMdevctl(): CompletedProgram {
  return {
    topics: {},
    choices: {},
    commands: [
      {...described(program, ''), states: {}},
      ...mdevctlCommands.filter(({about}) => about !== '').map((command) => described(command, command.name)),
      {words: 'help', summary: 'Print help', options: [], states: {}},
    ],
  };
}

/** The command line of lsmdev. */
export function completedLsmdev(): CompletedProgram {
  return {topics: {}, choices: {}, commands: [described(lsmdev, '')]};
}

function described(command: CommandSpecification, words: string): CompletedCommand {
  const options = allOptions(command);
  return {
    words,
    summary: command.about,
    states: argumentStates(command.argument === undefined ? [] : [anyValue], false),
    options: options.map(({value, help, conflicts, ...option}) => ({
      names: namesOf(option),
      summary: help,
      kind:
        value === undefined
          ? undefined
          : (kinds[`${words} ${option.name}`] ?? kinds[option.name] ?? anyValue),
      excludes: options.filter((other) => conflicts?.includes(other.name)).flatMap(namesOf),
    })),
  };
}

function namesOf({name, char}: Pick<OptionSpecification, 'name' | 'char'>): string[] {
  return [`--${name}`, ...(char === undefined ? [] : [`-${char}`])];
}
