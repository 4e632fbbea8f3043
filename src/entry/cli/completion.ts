import type {Command} from '@oclif/core/command';
import {classWords} from '../../devices/pci/device.js';
import {deviceVerbs} from '../../plan/switch/verbs.js';
import {settingKinds} from '../../state/records/device-settings.js';
import {shells} from '../completion/script.js';
import {
  anyValue,
  argumentStates,
  type CompletedCommand,
  type CompletedOption,
  type CompletedProgram,
  type CompletedState,
} from '../completion/table.js';
import {BaseCommand, switchFlags} from './base-command.js';
import {verbsOfDriver, type nouns} from './chain-words.js';
import {topics} from './command-table.js';
import {namingFlags} from './switching.js';

/** The kind of an option's value, by the option's name, and by its command where that matters. */
const kindOfOption: Readonly<Record<string, string>> = {
  slot: 'slot',
  'service uninstall slot': 'recorded',
  id: 'id',
  'service uninstall id': 'recorded-id',
  device: 'device',
  driver: 'driver',
  class: 'class',
  group: 'group',
  root: 'folder',
  prefix: 'folder',
  mount: 'folder',
  jsonfile: 'file',
  set: 'setting',
  take: 'slot',
  from: 'recorded',
  user: 'user',
  'user-group': 'user-group',
  node: 'node',
  parent: 'parent',
  type: 'type',
  uuid: 'uuid',
  'mdev undefine uuid': 'defined-uuid',
  'mdev start uuid': 'defined-uuid',
  'mdev stop uuid': 'active-uuid',
};

/** The same for arguments. */
const kindOfArgument: Readonly<Record<string, string>> = {
  device: 'device',
  driver: 'driver',
  'bind driver': 'target',
  guest: 'guest',
  pagesize: 'page-size',
  pf: 'pf',
  shell: 'shell',
  slot: 'slot',
  'service set slot': 'recorded',
  'service show slot': 'recorded',
  'vgpu set slot': 'vf',
  setting: 'setting',
  state: 'switch',
};

const drivers = {
  'vfio-pci': 'give the device to userspace through VFIO',
  none: 'keep all drivers off',
};

/** The fixed words of kinds. Those of options with a list of values are added. */
const choices: CompletedProgram['choices'] = {
  driver: drivers,
  target: {...drivers, default: 'the driver that the kernel chooses'},
  class: {
    ...Object.fromEntries(
      Object.entries(classWords).map(([word, code]) => [word, `class ${code.toString(16).padStart(2, '0')}`]),
    ),
    all: 'all devices',
  },
  setting: Object.fromEntries(settingKinds.map(({name, means}) => [`${name}=`, means])),
  switch: {on: '', off: ''},
  shell: Object.fromEntries(shells.map((shell) => [shell, ''])),
};

const meaningsOfVerbs: Readonly<
  Record<(typeof verbsOfDriver)[number] | (typeof deviceVerbs)[number], string>
> = {
  bind: 'Bind the devices to the driver',
  unbind: 'Unbind the devices from their driver',
  'new-id': 'Give the driver every device with the ids',
  'remove-id': 'Undo new-id',
  ls: "List the driver's folder",
  'driver-override': 'Set or clear the driver override',
  remove: 'Remove the devices from the bus',
  rescan: 'Rescan the bus of the devices',
  reset: 'Reset the devices',
};

/** The states of a `pci` chain, see chain-words.ts. */
const chain: CompletedCommand['states'] = {
  '0': {
    words: {
      rescan: {summary: 'Rescan all buses', next: '0'},
      driver: {summary: 'Operations of a driver', next: 'driver'},
      device: {summary: 'Operations of devices', next: 'device'},
    } satisfies Readonly<Record<(typeof nouns)[number], object>>,
  },
  driver: {value: {kind: 'driver', next: 'driver-verb'}},
  'driver-verb': verbs(verbsOfDriver),
  device: verbs(deviceVerbs),
};

function verbs(words: readonly (keyof typeof meaningsOfVerbs)[]): CompletedState {
  return {
    words: Object.fromEntries(words.map((word) => [word, {summary: meaningsOfVerbs[word], next: '0'}])),
  };
}

/** In a chain, a device may have a driver. */
const chainDriver: CompletedOption = {
  names: ['--driver'],
  summary: 'The driver, for devices that are not on it',
  kind: 'driver',
  repeats: true,
  state: 'device',
};

const helpOption: CompletedOption = {names: ['--help', '-h'], summary: 'Show help'};

/** The command line of pearasys with these commands, as completion needs it. */
export async function completedProgram(commands: readonly Command.Loadable[]): Promise<CompletedProgram> {
  const visible = await Promise.all(
    commands
      .filter(({hidden}) => !hidden)
      .map(async (loadable) => ({
        words: loadable.id.replaceAll(':', ' '),
        summary: loadable.summary ?? '',
        class: await loadable.load(),
      })),
  );
  const described = visible.map(({words, summary, class: command}): CompletedCommand => {
    const flags = {...command.baseFlags, ...command.flags};
    const names = Object.keys(command.args);
    return {
      words,
      summary,
      options: [...optionsOf(words, flags), ...(words === 'pci' ? [chainDriver] : []), helpOption],
      states:
        words === 'pci'
          ? chain
          : argumentStates(
              names.map((name) => kindOfArgument[`${words} ${name}`] ?? kindOfArgument[name] ?? anyValue),
              command.args[names.at(-1) ?? '']?.multiple === true,
            ),
    };
  });
  const allFlags = visible.flatMap(({class: command}) => Object.values({...command.flags}));
  return {
    topics,
    choices: {
      ...choices,
      ...Object.fromEntries(
        allFlags.flatMap((flag) => {
          const words = listedValues(flag);
          return words === undefined
            ? []
            : [[words.join('|'), Object.fromEntries(words.map((one) => [one, '']))]];
        }),
      ),
    },
    commands: [
      {
        words: '',
        summary: '',
        options: [
          ...optionsOf('', {...namingFlags, ...switchFlags, ...BaseCommand.baseFlags}),
          helpOption,
          {names: ['--version'], summary: 'Print the version'},
        ],
        states: {},
      },
      ...described,
      {words: 'help', summary: 'Show help on a command', options: [], states: {}},
    ],
  };
}

function optionsOf(words: string, flags: Command.Class['flags']): CompletedOption[] {
  const namesOf = (flag: string): string[] => {
    const char = flags[flag]?.char;
    return [`--${flag}`, ...(char === undefined ? [] : [`-${char}`])];
  };
  return Object.entries(flags)
    .filter(([, flag]) => flag.hidden !== true)
    .map(([name, flag]) => ({
      names: namesOf(name),
      aliases: (flag.aliases ?? []).map((alias) => `--${alias}`),
      summary: flag.summary ?? '',
      kind:
        flag.type === 'option'
          ? (listedValues(flag)?.join('|') ??
            kindOfOption[`${words} ${name}`] ??
            kindOfOption[name] ??
            anyValue)
          : undefined,
      repeats: flag.type === 'option' && flag.multiple === true,
      excludes: (flag.exclusive ?? []).flatMap(namesOf),
    }));
}

/** The values of an option that has a list of them. */
function listedValues(flag: Command.Class['flags'][string]): readonly string[] | undefined {
  return flag.type === 'option' ? flag.options : undefined;
}
