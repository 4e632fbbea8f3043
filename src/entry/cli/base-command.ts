import type {Layout} from '../../config/layout.js';
import {Command} from '@oclif/core/command';
import type {Config} from '@oclif/core/config';
import {boolean, integer, string} from '@oclif/core/flags';
import type {Interfaces} from '@oclif/core';
import {usageError, type ExitCode} from '../../host/errors.js';
import {printableLine} from '../../host/printable.js';
import type {Host} from '../../host/host.js';
import type {Context, RunConfig} from './context.js';

/** Milliseconds to wait until a device's attributes can be read; a driver's probe may be in progress. */
const lockPatience = 2000;

/** Flags of commands that change something. */
export const changeFlags = {
  'dry-run': boolean({summary: 'Show what would be done without doing it'}),
};

/** Flags of commands that write to the kernel. */
export const writeFlags = {
  ...changeFlags,
  timeout: integer({
    summary: 'How long to wait for a write to the kernel to return',
    helpValue: 'SECONDS',
    default: 15,
    min: 1,
    max: 3600,
  }),
};

/** Flags of commands that ask on a terminal before they affect further devices. */
export const forceFlags = {
  ...writeFlags,
  force: boolean({summary: 'Continue without a question if other devices are affected'}),
};

/** Flags of commands that switch drivers. */
export const switchFlags = {
  ...writeFlags,
  force: boolean({
    summary:
      'Continue even if a device is in use or its IOMMU group is not viable; refused if data would be lost',
  }),
};

/**
 * What all commands share: the flags, the host, and output to the streams of the run.
 *
 * A command's `run` returns its result, whose type is the shape that `--json` prints, and prints it for people
 * with {@link log}, which `--json` silences. Errors are thrown; `main` prints them.
 */
export abstract class BaseCommand extends Command {
  static override readonly enableJsonFlag = true;

  static override readonly baseFlags = {
    json: boolean({summary: 'Print the result as JSON', helpGroup: 'GLOBAL'}),
    root: string({
      summary: 'Work on the image or simulated host in this folder',
      helpGroup: 'GLOBAL',
      helpValue: 'DIR',
    }),
    verbose: boolean({
      char: 'v',
      summary: 'Print each step as an equivalent shell line',
      helpGroup: 'GLOBAL',
    }),
    debug: boolean({summary: 'Print where in the program an error comes from', helpGroup: 'GLOBAL'}),
  };

  declare readonly config: Config & RunConfig;

  #root: string | undefined;
  #verbose = false;
  #host: Host | undefined;

  /** Runs the command with the given configuration; oclif's method would load it again. */
  static override async run<T extends Command>(
    this: new (argv: string[], config: Config) => T,
    argv?: string[],
    config?: unknown,
  ): Promise<ReturnType<T['run']>> {
    const command = new this(argv ?? [], config as Config);
    return (command as unknown as BaseCommand)._run<ReturnType<T['run']>>();
  }

  protected get context(): Context {
    return this.config.context;
  }

  /** Where things are on this machine. */
  get layout(): Layout {
    return this.context.layout;
  }

  /** Whether `-v` was given. */
  protected get isVerbose(): boolean {
    return this.#verbose;
  }

  /** The machine, or the folder of `--root`. */
  protected async openHost(): Promise<Host> {
    if (this.#host === undefined) {
      this.#host = await this.context.openHost(this.#root);
      await this.#host.findLocked(lockPatience);
    }
    return this.#host;
  }

  /** Asks on a terminal whether to continue despite these risks; false without a terminal. */
  async accepts(risks: readonly string[]): Promise<boolean> {
    if (!this.context.interactive) return false;
    for (const risk of risks) this.warn(risk);
    const {confirm} = await import('./choose.js');
    return confirm(this.context, 'Continue?', {default: false});
  }

  /** Text for people on standard output; nothing with `--json`. */
  override log(text = ''): void {
    if (!this.jsonEnabled()) this.context.stdout.write(`${text}\n`);
  }

  /** The same for the result of {@link printTable}, which has colors on a terminal. */
  protected logTable(table: string): void {
    if (!this.jsonEnabled()) this.context.stdout.writeExact(`${table}\n`);
  }

  /** A line for a shell or program: exact, except on a terminal. */
  protected logData(text: string): void {
    const {stdout} = this.context;
    if (stdout.isTerminal) this.log(text);
    else if (!this.jsonEnabled()) stdout.writeExact(`${text}\n`);
  }

  /** A line on standard error, for anything but results. */
  note(text: string): void {
    this.context.message('info', printableLine(text));
  }

  /**
   * Says on standard error that something takes minutes; on a terminal, with the time since then.
   * @returns ends it.
   */
  progress(what: string): () => void {
    this.note(`${what} (this may take some minutes)`);
    const {stderr} = this.context;
    if (!stderr.isTerminal) return () => undefined;
    const started = Date.now();
    const timer = setInterval(() => {
      stderr.writeExact(`\r${Math.round((Date.now() - started) / 1000)} s `);
    }, 1000);
    return () => {
      clearInterval(timer);
      stderr.writeExact('\r\u001b[K');
    };
  }

  /** A step as a shell line, on standard error; only with `-v`. */
  trace(line: string): void {
    if (this.#verbose) this.context.message('debug', line);
  }

  override warn(input: Error | string): Error | string {
    const text = input instanceof Error ? input.message : input;
    this.context.message('warn', printableLine(`pearasys: warning: ${text}`));
    return input;
  }

  /** Notes that something was changed: then lost output does not count as a failure. */
  noteChange(): void {
    this.config.changed = true;
  }

  /** Sets the exit code of the process unless an error is thrown, for a result that is not a success. */
  protected endWith(exitCode: ExitCode): void {
    this.config.exitCode = exitCode;
  }

  override jsonEnabled(): boolean {
    // Not from the environment as in oclif: as root, only the command line decides.
    const end = this.argv.indexOf('--');
    return this.argv.slice(0, end < 0 ? undefined : end).includes('--json');
  }

  protected override async parse<
    F extends Interfaces.OutputFlags<Interfaces.FlagInput>,
    B extends Interfaces.OutputFlags<Interfaces.FlagInput>,
    A extends Interfaces.OutputArgs<Interfaces.ArgInput>,
  >(options?: Interfaces.Input<F, B, A>, argv?: string[]): Promise<Interfaces.ParserOutput<F, B, A>> {
    refuseInherited(this.argv);
    const parsed = await super.parse(options, argv);
    const {root, verbose} = parsed.flags as {readonly root?: string; readonly verbose?: boolean};
    this.#root = root;
    this.#verbose = verbose === true;
    return parsed;
  }

  protected override logJson(json: unknown): void {
    this.context.stdout.write(`${JSON.stringify(json, null, 2)}\n`);
  }

  protected override catch(error: Error): Promise<never> {
    return Promise.reject(error);
  }

  protected override async finally(error: Error | undefined): Promise<unknown> {
    await this.#host?.close();
    return await super.finally(error);
  }
}

/** oclif looks options up in an object, and would find inherited properties such as --toString. */
function refuseInherited(words: readonly string[]): void {
  const end = words.indexOf('--');
  for (const word of words.slice(0, end < 0 ? undefined : end)) {
    const [, name = ''] = /^--([^=]*)/s.exec(word) ?? [];
    if (Object.hasOwn(Object.prototype, name))
      throw usageError(`this command has no option --${name}`, 'the same command with --help');
  }
}
