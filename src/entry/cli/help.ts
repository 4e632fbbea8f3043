import type {Command} from '@oclif/core/command';
import type {Config} from '@oclif/core/config';
import {exitCodeMeanings} from '../../host/errors.js';
import {commands} from './command-table.js';
import {hasColors, type Context} from './context.js';
import {description, name, version} from './version.js';

/** Shows the general help, or help on the command that the words name or on the commands that begin with them. */
export async function showHelp(context: Context, words: readonly string[]): Promise<void> {
  const id = words.join(':');
  const text = Object.hasOwn(commands, id) ? await commandHelp(context, id) : overview(words);
  context.stdout.writeExact(`${text}\n`);
}

/** The commands that begin with these words, or all of them and their common options. */
function overview(words: readonly string[]): string {
  const prefix = words.map((word) => `${word}:`).join('');
  const rows = Object.entries(commands)
    .filter(([id, {hidden}]) => id.startsWith(prefix) && hidden !== true)
    .map(([id, {summary}]) => [id.replaceAll(':', ' '), summary] as const);
  if (words.length > 0)
    return [
      `Commands of ${name} ${words.join(' ')}`,
      '',
      ...table(rows),
      '',
      moreHelp(`${words.join(' ')} `),
      `\`man ${name}-${words.join('-')}\` shows all of it.`,
    ].join('\n');
  return [
    `${name} ${version}: ${lowerFirst(description)}.`,
    '',
    'USAGE',
    `  ${name} [OPTIONS] COMMAND [ARGUMENTS]`,
    '',
    'COMMANDS',
    ...table(rows),
    '',
    'OPTIONS, before or after the command',
    ...table([
      ['-s, --slot SLOT', 'A device by slot: 0000:04:00.0, or 04:00.0; may be given several times'],
      ['-d, --id ID', 'Devices by vendor:device, as in 10de:1b80; may be given several times'],
      ['--json', 'Print the result as JSON'],
      ['--dry-run', 'Show what would be done without doing it'],
      ['-v, --verbose', 'Print each step as an equivalent shell line'],
      ['--root DIR', 'Work on the image or simulated host in DIR'],
      ['--version', 'Print the version'],
    ]),
    '',
    'EXIT CODES',
    ...table(Object.entries(exitCodeMeanings)),
    '',
    moreHelp(''),
  ].join('\n');
}

function moreHelp(words: string): string {
  return `\`${name} help ${words}COMMAND\` shows more.`;
}

/** oclif's help on one command. */
async function commandHelp(context: Context, id: string): Promise<string> {
  const [{CommandHelp}, {CliConfig}] = await Promise.all([import('@oclif/core/help'), import('./config.js')]);
  const config = await CliConfig.open(context);
  const text = new CommandHelp(await describedCommand(config, id), config, {
    maxWidth: Math.min(context.stdout.columns, 110),
  }).generate();
  return hasColors(context.stdout, context.environment) ? text : stripColors(text);
}

/** A command with all that its help and its manual page say of it, as oclif's help takes it. */
export async function describedCommand(config: Config, id: string): Promise<Command.Loadable> {
  const entry = config.findCommand(id, {must: true});
  const command = await entry.load();
  return {
    ...entry,
    id: id.replaceAll(':', ' '),
    description: command.description,
    examples: command.examples,
    usage: command.usage,
    strict: command.strict,
    args: Object.fromEntries(Object.entries(command.args).map(([key, arg]) => [key, {...arg, name: key}])),
    flags: Object.fromEntries(
      Object.entries({...command.baseFlags, ...command.flags}).map(([key, flag]) => [
        key,
        {...flag, name: key},
      ]),
    ),
  };
}

/** Removes the colors that oclif's help has. */
export function stripColors(text: string): string {
  // eslint-disable-next-line no-control-regex -- that is what colors are
  return text.replaceAll(/\u001b\[[\d;]*m/g, '');
}

function table(rows: readonly (readonly [string, string])[]): string[] {
  const width = Math.max(...rows.map(([left]) => left.length));
  return rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`);
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}
