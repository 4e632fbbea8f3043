/** How grave a line is, in the words of pino. */
export type LogLevel = 'error' | 'warn' | 'info' | 'debug';

/** Lines for whoever looks after the machine: at the terminal, or in the journal. */
export interface Log {
  write(level: LogLevel, text: string): void;
  /** Resolves when every line is written. */
  flush(): Promise<void>;
}

/** Settings of {@link createLog}. */
export interface LogOptions {
  /** Whether the journal reads what is written; see {@link isJournal}. */
  readonly journal: boolean;
  /** Lines below this level are left out. */
  readonly least: LogLevel;
  /** Takes whole lines; standard error. */
  readonly output: (text: string) => void;
}

/** Priorities that the journal takes from the beginning of a line, see sd-daemon(3). */
const priorities: Readonly<Record<LogLevel, number>> = {error: 3, warn: 4, info: 6, debug: 7};

/**
 * Whether what is written to a file goes to the journal. A service's children have its environment as well, and
 * what they write may go elsewhere: JOURNAL_STREAM says which file is the journal's, see systemd.exec(5).
 * @param file the file's device and inode, `8:1`; undefined for none.
 */
export function isJournal(environment: NodeJS.ProcessEnv, file: string | undefined): boolean {
  return file !== undefined && environment['JOURNAL_STREAM'] === file;
}

/**
 * A log on pino, which is loaded with the first line: most runs write none. Lines written until it is there wait
 * for it, so that {@link Log.flush} belongs at the end of a run.
 */
export function createLog({journal, least, output}: LogOptions): Log {
  const print = (json: string) => {
    const {level, msg} = JSON.parse(json) as {level: LogLevel; msg: string};
    output(journal ? journalLines(level, msg) : `${msg}\n`);
  };
  let loading: Promise<(level: LogLevel, text: string) => void> | undefined;
  let written = Promise.resolve();
  const load = async () => {
    const {default: pino} = await import('pino');
    const logger = pino(
      {level: least, base: null, timestamp: false, formatters: {level: (label) => ({level: label})}},
      {write: print},
    );
    return (level: LogLevel, text: string) => logger[level](text);
  };
  return {
    write: (level, text) => {
      loading ??= load();
      const logger = loading;
      written = written.then(async () => (await logger)(level, text));
    },
    flush: () => written,
  };
}

/** Each line with the priority in front: the journal reads it line by line. */
function journalLines(level: LogLevel, text: string): string {
  return text
    .split('\n')
    .map((line) => `<${priorities[level]}>${line}\n`)
    .join('');
}
