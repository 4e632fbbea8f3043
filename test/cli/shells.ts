/** The three shells on a terminal of tmux(1), with the completion of what is built. */
import assert from 'node:assert/strict';
import {execFileSync, spawnSync} from 'node:child_process';
import fs from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {setTimeout as wait} from 'node:timers/promises';
import {shells, type Shell} from '../../src/entry/completion/script.js';
import {singleQuoted} from '../../src/host/shell.js';

const dist = join(import.meta.dirname, '../../dist');

/** Programs whose completion is tested, each with where the shells look for its script. */
const programs = ['pearasys', 'mdevctl', 'lsmdev'] as const;
const places: Readonly<Record<Shell, (program: string) => string>> = {
  bash: (program) => `bash-completion/completions/${program}`,
  zsh: (program) => `zsh/site-functions/_${program}`,
  fish: (program) => `fish/vendor_completions.d/${program}.fish`,
};

/** What starts each shell without anything of its user's. */
const starts: Readonly<Record<Shell, string>> = {
  bash: 'bash --noprofile --rcfile "$HOME/bashrc" -i',
  zsh: 'zsh -d -i',
  fish: 'fish -i',
};

/** The package bash-completion, which finds the scripts for bash. */
const bashCompletion = '/usr/share/bash-completion/bash_completion';

/** Packages that these tests need and that are not here. */
export function missingPackages(): string[] {
  return [
    ...[...shells, 'tmux'].filter((program) => spawnSync(program, ['-c', ':']).error !== undefined),
    ...(fs.existsSync(bashCompletion) ? [] : ['bash-completion']),
  ];
}

/**
 * Lays the completion out as `make install` does.
 * @param root the machine whose values it offers, in place of this one.
 */
export function layOutCompletion(prefix: string, root: string): void {
  const library = join(prefix, 'lib/pearasys');
  fs.cpSync(join(dist, 'completion'), join(library, 'completion'), {recursive: true});
  const helper = join(library, 'completion/complete');
  const text = fs.readFileSync(helper, 'utf8');
  const line = 'next; root=$line\n';
  assert.ok(text.includes(line));
  fs.writeFileSync(
    helper,
    text.replace(line, () => `${line}root=\${root:-${singleQuoted(root)}}\n`),
  );
  for (const shell of shells)
    for (const program of programs) {
      const path = join(prefix, 'share', places[shell](program));
      fs.mkdirSync(join(path, '..'), {recursive: true});
      const script = fs.readFileSync(join(dist, 'share/completion', `${program}.${shell}`), 'utf8');
      fs.writeFileSync(path, script.replaceAll('@LIBDIR@', library).replaceAll('@SYSCONFDIR@', '/etc'));
    }
}

/** A shell on a terminal. The programs that it completes write the words that they get into a file. */
export class ShellOnTerminal {
  readonly shell: Shell;
  /** The present folder of the shell. */
  readonly folder: string;
  readonly #tmux: (...words: readonly string[]) => string;
  readonly #words: string;

  private constructor(shell: Shell, home: string) {
    this.shell = shell;
    this.folder = join(home, 'folder');
    this.#words = join(home, 'words');
    const environment = {
      HOME: home,
      LC_ALL: 'C.UTF-8',
      PATH: `${join(home, 'bin')}:${process.env['PATH'] ?? ''}`,
      SHELL: '/bin/sh',
      TERM: 'xterm',
      TMUX_TMPDIR: home,
      WORDS: this.#words,
      XDG_DATA_DIRS: `${join(home, 'prefix/share')}:/usr/share`,
      ZDOTDIR: home,
    };
    this.#tmux = (...words) =>
      execFileSync('tmux', ['-L', 'shell', '-f', '/dev/null', ...words], {
        cwd: this.folder,
        encoding: 'utf8',
        env: environment,
      });
  }

  /** Starts a shell that completes with the values of the machine in this folder. */
  static async start(shell: Shell, root: string): Promise<ShellOnTerminal> {
    const home = fs.mkdtempSync(join(tmpdir(), `pearasys-${shell}-`));
    const prefix = join(home, 'prefix');
    layOutCompletion(prefix, root);
    // With the last one, fish does not begin to make completions from all manual pages.
    for (const folder of ['bin', 'folder', '.config/fish', '.local/share/fish/generated_completions'])
      fs.mkdirSync(join(home, folder), {recursive: true});
    for (const program of programs)
      // The file is complete when it has its name.
      fs.writeFileSync(
        join(home, 'bin', program),
        '#!/bin/sh\nprintf "%s\\0" "${0##*/}" "$@" >"$WORDS.new" && mv "$WORDS.new" "$WORDS"\n',
        {mode: 0o755},
      );
    fs.writeFileSync(join(home, 'bin/sudo'), '#!/bin/sh\nexec "$@"\n', {mode: 0o755});
    fs.writeFileSync(join(home, 'bashrc'), `. ${bashCompletion}\nPS1='ready> '\nHISTFILE=\n`);
    fs.writeFileSync(
      join(home, '.zshrc'),
      `fpath=(${join(prefix, 'share/zsh/site-functions')} $fpath)\nautoload -Uz compinit\ncompinit -D -u\nPS1='ready> '\n`,
    );
    fs.writeFileSync(
      join(home, '.config/fish/config.fish'),
      'set -g fish_greeting\nset -g fish_history ""\nfunction fish_prompt; echo -n "ready> "; end\n',
    );
    const started = new ShellOnTerminal(shell, home);
    started.#tmux('new-session', '-d', '-x', '180', '-y', '50', starts[shell]);
    await started.screen(/^ready> $/m);
    return started;
  }

  /** Types text; a tab completes, a newline ends the line. */
  type(text: string): void {
    for (const part of text.split(/(?=[\t\n])|(?<=[\t\n])/))
      if (part === '\t') this.#tmux('send-keys', 'Tab');
      else if (part === '\n') this.#tmux('send-keys', 'Enter');
      else this.#tmux('send-keys', '-l', '--', part);
  }

  /** The words that a program gets when this and a newline are typed. */
  async wordsOf(typed: string): Promise<string[]> {
    fs.rmSync(this.#words, {force: true});
    this.type(`${typed}\n`);
    await this.#until(() => fs.existsSync(this.#words), `the program was not started by: ${typed}`);
    return fs.readFileSync(this.#words, 'utf8').split('\0').slice(0, -1);
  }

  /** What is on the screen once it matches. */
  async screen(expected: RegExp): Promise<string> {
    let text = '';
    await this.#until(
      () => {
        text = this.#tmux('capture-pane', '-p').replace(/\s+$/, ' ');
        return expected.test(text);
      },
      `${String(expected)} is not on the screen`,
    );
    return text;
  }

  /** Leaves the line that is typed, and clears the screen. */
  async clear(): Promise<void> {
    // Keys wait for their turn; an interrupt could end a completion that is in progress, and nothing else.
    this.#tmux('send-keys', 'C-u', 'C-l');
    await this.screen(/^ready> $/);
  }

  /** Ends the shell, and removes its files. */
  end(): void {
    this.#tmux('kill-server');
    // Until it has ended, the shell may write there.
    fs.rmSync(join(this.folder, '..'), {recursive: true, maxRetries: 10, retryDelay: 20});
  }

  async #until(isDone: () => boolean, what: string): Promise<void> {
    const limit = Date.now() + 10_000;
    while (!isDone()) {
      if (Date.now() > limit)
        assert.fail(`${this.shell}: ${what}:\n${this.#tmux('capture-pane', '-p').trimEnd()}`);
      await wait(10);
    }
  }
}
