import {resolve} from 'node:path';
import {ExitCode, PearasysError, usageError} from '../../host/errors.js';
import type {Host} from '../../host/host.js';
import {defaultLayout} from '../../config/layout.js';
import {printable} from '../../host/printable.js';
import type {Log} from '../../host/log.js';
import {commands} from './command-table.js';
import type {Context} from './context.js';
import {DescriptorOutput, SafeOutput, tellLoss, type Ended, type Output} from './output.js';
import {hasSwitch, readCommandLine} from './prelude.js';
import {name, version} from './version.js';

/** The context of {@link main}; parts that are omitted are those of the process. */
export interface MainOptions extends Partial<Omit<Context, 'openHost' | 'message' | 'stdout' | 'stderr'>> {
  readonly stdout?: Output;
  readonly stderr?: Output;
  /** The host for a command line without `--root`. */
  readonly host?: Host;
}

/**
 * Runs a command line.
 * @param argv the words after the program's name.
 * @returns the exit code, for the result on the machine. Lost output makes it 1 only if nothing was changed.
 */
export async function main(argv: readonly string[], options: MainOptions = {}): Promise<ExitCode> {
  const log = await openLog(options);
  const context = makeContext(options, log);
  const json = hasSwitch(argv, '--json');
  let end: Ended;
  try {
    end = await run(argv, context);
  } catch (error) {
    const {printError} = await import('./report-error.js');
    const exitCode = printError(context, error, {json, debug: hasSwitch(argv, '--debug')});
    end = {exitCode, changed: true};
  }
  await log?.flush();
  return tellLoss(name, context, end, json);
}

async function run(argv: readonly string[], context: Context): Promise<Ended> {
  const ids = Object.keys(commands);
  const line = readCommandLine(argv, ids);
  switch (line.kind) {
    case 'version':
      context.stdout.write(`${name} ${version}\n`);
      return {exitCode: ExitCode.done, changed: false};
    case 'help': {
      const {showHelp} = await import('./help.js');
      await showHelp(context, line.words);
      return {exitCode: ExitCode.done, changed: false};
    }
    case 'unknown':
      throw await unknownCommand(line.words, ids);
    case 'run': {
      const {loadOclif} = await import('./oclif.js');
      await loadOclif();
      const {CliConfig} = await import('./config.js');
      const config = await CliConfig.open(context);
      await config.runCommand(line.id, [...line.argv]);
      return config;
    }
  }
}

async function unknownCommand(words: readonly string[], ids: readonly string[]): Promise<PearasysError> {
  const {suggest} = await import('./report-error.js');
  const known = ids.map((id) => id.replaceAll(':', ' '));
  // The words up to the first that is in no command; the rest are its arguments.
  let length = 1;
  while (length < words.length && known.some((one) => one.startsWith(`${words.slice(0, length).join(' ')} `)))
    length++;
  const typed = words.slice(0, length).join(' ');
  const nearest = suggest(typed, known) ?? suggest(words.slice(0, 2).join(' '), known);
  return new PearasysError({
    code: 'usage',
    exitCode: ExitCode.usage,
    message:
      words.length === 0
        ? 'there is no command after the options'
        : `unknown command '${typed}'${nearest === undefined ? '' : `, did you mean '${nearest}'?`}`,
    hint: nearest === undefined ? `${name} --help` : `${name} ${nearest} --help`,
  });
}

/** The log of a process that is a systemd service; undefined for a run by a user. */
async function openLog({environment = process.env, stderr}: MainOptions): Promise<Log | undefined> {
  if (environment['JOURNAL_STREAM'] === undefined) return undefined;
  const {createLog, isJournal} = await import('../../host/log.js');
  const output = stderr ?? new DescriptorOutput(2);
  return isJournal(environment, output.file)
    ? createLog({journal: true, least: 'debug', output: (text) => output.write(printable(text))})
    : undefined;
}

function makeContext(options: MainOptions, log: Log | undefined): Context {
  const {host} = options;
  const stderr = new SafeOutput(options.stderr ?? new DescriptorOutput(2));
  return {
    openHost: async (root) => {
      if (root === undefined && host !== undefined) return host;
      const {MachineHost} = await import('../../host/machine-host.js');
      const info = root === undefined ? undefined : new MachineHost().info(resolve(root));
      // A missing folder may be created: hooks can be written to a folder for inspection.
      if (root === '' || (info !== undefined && info.kind !== 'directory'))
        throw usageError(
          `--root: '${root ?? ''}' is not a folder`,
          '--root DIR, the root folder of an image',
          'bad-path',
        );
      return new MachineHost(root);
    },
    layout: options.layout ?? defaultLayout,
    stdout: new SafeOutput(options.stdout ?? new DescriptorOutput(1)),
    stderr,
    message: (level, text) => (log === undefined ? stderr.write(`${text}\n`) : log.write(level, text)),
    // Evaluated only if needed: Node creates these streams on first access.
    get interactive() {
      return options.interactive ?? (process.stdin.isTTY && process.stderr.isTTY);
    },
    terminal: options.terminal,
    environment: options.environment ?? process.env,
  };
}
