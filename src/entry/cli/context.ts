import type {ExitCode} from '../../host/errors.js';
import type {Host} from '../../host/host.js';
import type {Layout} from '../../config/layout.js';
import type {LogLevel} from '../../host/log.js';
import type {Output, SafeOutput} from './output.js';

/** The context of a run of the command line. Commands get it from their Config; modules keep no state. */
export interface Context {
  /** The machine, or a replacement for tests. */
  readonly openHost: (root: string | undefined) => Host | Promise<Host>;
  readonly layout: Layout;
  readonly stdout: SafeOutput;
  readonly stderr: SafeOutput;
  /** Writes a message on standard error; in a unit with the journal's priority. */
  readonly message: (level: LogLevel, text: string) => void;
  /** Whether questions can be asked. */
  readonly interactive: boolean;
  /** Where they are asked; undefined for the process's terminal. */
  readonly terminal?:
    {readonly input: NodeJS.ReadableStream; readonly output: NodeJS.WritableStream} | undefined;
  readonly environment: NodeJS.ProcessEnv;
}

/** What a command's configuration has in addition to oclif's. */
export interface RunConfig {
  readonly context: Context;
  /** How the run ends when no error is thrown. */
  exitCode: ExitCode;
  /** Whether the machine or a file was changed. */
  changed: boolean;
}

/** Whether text for this output may have colors, see https://no-color.org. */
export function hasColors(output: Output, environment: NodeJS.ProcessEnv): boolean {
  const {NO_COLOR: noColor, TERM: terminal} = environment;
  return output.isTerminal && (noColor === undefined || noColor === '') && terminal !== 'dumb';
}
