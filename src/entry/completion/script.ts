import {render} from '../../systemd/templates.js';

/** The shells with completion. */
export const shells = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof shells)[number];

/** Where the script finds what it runs, and what that reads. */
export interface CompletionPlaces {
  /** The folder of the bundle, with the folder `completion`. */
  readonly library: string;
  /** The folder of settings and records. */
  readonly config: string;
}

/**
 * The completion script of a program for a shell. It only passes the words to `completion/complete`, and offers what
 * that prints in the way of the shell.
 */
export function completionScript(shell: Shell, program: string, {library, config}: CompletionPlaces): string {
  return render(shell, {name: program, library, config});
}
