/** What a command line may be, for completion: described once, for all shells. `completion/complete` reads the table. */
export interface CompletedProgram {
  /** Each command; the one without words has the options that may come before the command. */
  readonly commands: readonly CompletedCommand[];
  /** Summaries of the beginnings of commands. */
  readonly topics: Readonly<Record<string, string>>;
  /** The fixed words of kinds of values, with what they mean. A kind that the machine has values of may have none. */
  readonly choices: Readonly<Record<string, Readonly<Record<string, string>>>>;
}

/** A command, its options and arguments. */
export interface CompletedCommand {
  /** `service install`; empty for the program itself. */
  readonly words: string;
  readonly summary: string;
  readonly options: readonly CompletedOption[];
  /** What may follow, by state; the first state is called 0. */
  readonly states: Readonly<Record<string, CompletedState>>;
}

/** An option of a command. */
export interface CompletedOption {
  /** Those that are offered: `--slot`, `-s`. */
  readonly names: readonly string[];
  /** Other names, which are not offered. */
  readonly aliases?: readonly string[];
  readonly summary: string;
  /** The kind of its value; undefined for an option that takes none. */
  readonly kind?: string | undefined;
  /** Whether it may be given several times. */
  readonly repeats?: boolean;
  /** Options with which it cannot be combined; these need not say it, too. */
  readonly excludes?: readonly string[];
  /** The only state in which it is offered. */
  readonly state?: string;
}

/** What a word that is no option may be. */
export interface CompletedState {
  /** Fixed words, each with the state after it. */
  readonly words?: Readonly<Record<string, {readonly summary: string; readonly next: string}>>;
  /** A value of this kind, and the state after it, which is the same for an argument that may be repeated. */
  readonly value?: {readonly kind: string; readonly next: string};
}

/** A value that cannot be completed. */
export const anyValue = 'any';

/** The states of a command with these arguments, by their kinds; the last one may be repeated. */
export function argumentStates(kinds: readonly string[], repeats: boolean): CompletedCommand['states'] {
  return Object.fromEntries(
    kinds.map((kind, at) => {
      const next = repeats && at === kinds.length - 1 ? at : at + 1;
      return [`${at}`, {value: {kind, next: `${next}`}}];
    }),
  );
}

/** The table as the text that `completion/complete` reads. */
export function completionTable({commands, topics, choices}: CompletedProgram): string {
  const lines: string[][] = [];
  for (const [words, summary] of Object.entries(topics)) lines.push(['command', words, summary]);
  for (const {words, summary, options, states} of commands) {
    if (words !== '') lines.push(['command', words, summary]);
    for (const {
      names,
      aliases = [],
      kind,
      repeats = false,
      excludes = [],
      state = '',
      ...option
    } of options) {
      const excluding = options.filter(({excludes: others = []}) =>
        others.some((one) => names.includes(one)),
      );
      const excluded = [...excludes, ...excluding.flatMap((other) => other.names)];
      lines.push([
        ...['option', words, names.join(','), aliases.join(','), kind ?? '-', repeats ? 'repeats' : ''],
        ...[[...new Set(excluded)].join(','), state, option.summary],
      ]);
    }
    for (const [state, {words: fixed = {}, value}] of Object.entries(states)) {
      for (const [word, {summary: means, next}] of Object.entries(fixed))
        lines.push(['word', words, state, word, next, means]);
      if (value !== undefined) lines.push(['value', words, state, value.kind, value.next]);
    }
  }
  for (const [kind, words] of Object.entries(choices))
    for (const [word, means] of Object.entries(words)) lines.push(['choice', kind, word, means]);
  return lines.map((line) => `${line.map(field).join('\t')}\n`).join('');
}

/** A tab or newline would begin another field or line. */
function field(text: string): string {
  return text.replaceAll(/\s+/g, ' ');
}
