import type {Host} from '../../host/host.js';
import {MachineHost} from '../../host/machine-host.js';
import {DescriptorOutput, SafeOutput, tellLoss, type Output} from '../cli/output.js';
import {readLsmdevLine, readMdevctlLine} from './arguments.js';
import {runMdevctl} from './subcommands.js';
import {lsmdev} from './specification.js';

/** The context of {@link mdevctl}; parts that are omitted are those of the process. */
interface MdevctlOptions {
  readonly host?: Host;
  readonly stdout?: Output;
  readonly stderr?: Output;
  /** Its MDEVCTL_LOG sets the level of messages on standard error. */
  readonly environment?: Readonly<Record<string, string | undefined>>;
}

/**
 * Runs a command line of mdevctl, or of lsmdev: with the arguments, standard output and exit codes of mdevctl 1.2.
 * @param name the name by which the program was called.
 * @returns the exit code: 0 done, 1 failed, 2 wrong usage.
 */
export async function mdevctl(
  name: string,
  words: readonly string[],
  options: MdevctlOptions = {},
): Promise<number> {
  const stdout = new SafeOutput(options.stdout ?? new DescriptorOutput(1));
  const stderr = new SafeOutput(options.stderr ?? new DescriptorOutput(2));
  const line = name === lsmdev.name ? readLsmdevLine(lsmdev, words) : readMdevctlLine(words);
  if (line.kind === 'print') {
    (line.error ? stderr : stdout).write(line.text);
    return tellLoss(name, {stdout, stderr}, {exitCode: line.exitCode, changed: false}, false);
  }
  const host = options.host ?? new MachineHost();
  try {
    const told = logLevel((options.environment ?? process.env)['MDEVCTL_LOG']);
    const log = (level: 'warn' | 'debug', text: string) => {
      if (levels.indexOf(level) <= told) stderr.write(`${level.toUpperCase()}: ${text}\n`);
    };
    const context = {host, stdout, stderr, log, changed: false};
    const exitCode = await runMdevctl(context, line.command, line.values);
    return tellLoss(name, context, {exitCode, changed: context.changed}, line.values.has('dumpjson'));
  } finally {
    await host.close();
  }
}

const levels = ['off', 'error', 'warn', 'info', 'debug', 'trace'];

/** The level of messages, as an index of {@link levels}: from `debug` or `mdevctl=debug`; the default is `warn`. */
function logLevel(setting = ''): number {
  const words = setting.split(',').map((word) => /^(?:mdevctl(?:::\w+)*=)?(\w+)$/.exec(word.trim())?.[1]);
  const found = words.map((word) => levels.indexOf(word?.toLowerCase() ?? '')).filter((at) => at >= 0);
  return found.at(-1) ?? levels.indexOf('warn');
}
