/** How severe a line is, in the words of pino. */
export type LogLevel = 'error' | 'warn' | 'info' | 'debug';

/** Lines for the administrator, at the terminal or in the journal. */
export interface Log {
  write(level: LogLevel, text: string): void;
  /** Resolves when every line is written. */
  flush(): Promise<void>;
}

/** Settings of {@link createLog}. */
interface LogOptions {
  /** Whether the journal reads what is written; see {@link isJournal}. */
  readonly journal: boolean;
  /** Lines below this level are left out. */
  readonly least: LogLevel;
  /** Takes whole lines; standard error. */
  readonly output: (text: string) => void;
}

/** The priorities of sd-daemon(3). pino gets them as its levels, where less is more severe. */
const priorities = {error: 3, warn: 4, info: 6, debug: 7} as const satisfies Record<LogLevel, number>;

/**
 * Whether what is written to a file goes to the journal. A service's children have its environment as well, and
 * what they write may go elsewhere: JOURNAL_STREAM says which file is the journal's, see systemd.exec(5).
 * @param file the file's device and inode, `8:1`; undefined for none.
 */
export function isJournal(environment: NodeJS.ProcessEnv, file: string | undefined): boolean {
  return file !== undefined && environment['JOURNAL_STREAM'] === file;
}

/**
 * A log on pino, which is loaded with the first line: most runs write none. Lines written until then wait for it, so
 * {@link Log.flush} belongs at the end of a run.
 */
export function createLog({journal, least, output}: LogOptions): Log {
  let loading: Promise<(level: LogLevel, text: string) => void> | undefined;
  let written = Promise.resolve();
  const load = async () => {
    const {default: pino} = await import('pino');
    // A destination with metadata is told the level and the message of each line, so it does not need pino's JSON.
    const destination = {
      [pino.symbols.needsMetadataGsym]: true as const,
      lastLevel: 0,
      lastMsg: '',
      write() {
        output(journal ? journalLines(this.lastLevel, this.lastMsg) : `${this.lastMsg}\n`);
      },
    };
    const logger = pino(
      {level: least, customLevels: priorities, useOnlyCustomLevels: true, levelComparison: 'DESC'},
      destination,
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

/** Each line with the priority in front, because the journal reads a message line by line. */
export function journalLines(priority: number, text: string): string {
  return text
    .split('\n')
    .map((line) => `<${priority}>${line}\n`)
    .join('');
}
