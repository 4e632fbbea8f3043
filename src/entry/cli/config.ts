import {Config} from '@oclif/core/config';
import type {Logger, PJSON, Plugin, Theme} from '@oclif/core/interfaces';
import type {Command} from '@oclif/core/command';
import {ExitCode} from '../../host/errors.js';
import {commands, topics, type CommandEntry} from './command-table.js';
import type {Context, RunConfig} from './context.js';
import {description, name, version} from './version.js';

/**
 * oclif's configuration of this program: made from the table of commands without searching for files, and with the
 * context of the run.
 */
export class CliConfig extends Config implements RunConfig {
  readonly context: Context;
  exitCode: ExitCode = ExitCode.done;
  changed = false;

  private constructor(context: Context) {
    super({root: import.meta.dirname, plugins: new Map([[name, plugin()]]), logger: quiet});
    this.context = context;
  }

  static async open(context: Context): Promise<CliConfig> {
    const config = new CliConfig(context);
    await config.load();
    return config;
  }

  /** No theme file of the user is read, because this runs as root. */
  override loadTheme(): Promise<Theme | undefined> {
    return Promise.resolve(undefined);
  }
}

/** oclif's tracing, which the environment could turn on. */
const quiet: Logger = {
  namespace: name,
  child: () => quiet,
  debug: () => undefined,
  error: () => undefined,
  info: () => undefined,
  trace: () => undefined,
  warn: () => undefined,
};

const pjson: PJSON = {
  name,
  version,
  description,
  oclif: {
    bin: name,
    topicSeparator: ' ',
    commands: {strategy: 'explicit', target: './command-table.js', identifier: 'commands'},
  },
};

/** All commands in oclif's form, each loaded when it runs. */
export function loadableCommands(): Command.Loadable[] {
  return Object.entries(commands).map(([id, entry]) => loadableCommand(id, entry));
}

/** The one plugin, which has all commands. */
function plugin(): Plugin {
  const loadable = loadableCommands();
  const find = (id: string) => loadable.find((command) => command.id === id)?.load();
  return {
    _base: '',
    alias: name,
    commandIDs: Object.keys(commands),
    commands: loadable,
    commandsDir: undefined,
    findCommand: find as Plugin['findCommand'],
    hasManifest: false,
    hooks: {},
    isRoot: true,
    load: () => Promise.resolve(),
    moduleType: 'commonjs',
    name,
    options: {root: import.meta.dirname},
    pjson,
    root: import.meta.dirname,
    topics: Object.entries(topics).map(([topic, text]) => ({name: topic, description: text})),
    type: 'core',
    valid: true,
    version,
  };
}

function loadableCommand(id: string, entry: CommandEntry): Command.Loadable {
  return {
    id,
    summary: entry.summary,
    hidden: entry.hidden === true,
    aliases: [],
    hiddenAliases: [],
    args: {},
    flags: {},
    pluginName: name,
    load: async () => {
      const {default: command} = await entry.load();
      command.id = id;
      command.summary = entry.summary;
      return command;
    },
  };
}
