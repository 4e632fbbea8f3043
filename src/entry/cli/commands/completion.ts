import {string} from '@oclif/core/args';
import {boolean} from '@oclif/core/flags';
import {usageError} from '../../../host/errors.js';
import {writeOwnFile} from '../../../operations/own-file.js';
import {completionScript, shells, type Shell} from '../../completion/script.js';
import {BaseCommand, changeFlags} from '../base-command.js';
import {changeResult, showChange, withChanges} from '../switching.js';

/** What `pearasys completion --json` prints. */
export interface CompletionResult {
  readonly shell: Shell;
  readonly script: string;
  /** Where it was written or already exists; null when it was only printed, and for a dry run. */
  readonly path: string | null;
}

/** `pearasys completion`: the script that completes this command line. */
export default class Completion extends BaseCommand {
  static override description =
    '`make install` installs the scripts for all users; use this command for a shell that does not look ' +
    'there. SHELL is bash, zsh or fish; the default is your own shell. With --install, the script is written to the ' +
    'folder where the shell looks for the scripts of the user.';
  static override examples = ['source <(<%= config.bin %> completion bash)'];
  static override args = {
    shell: string({description: 'bash, zsh or fish', ignoreStdin: true}),
  };
  static override flags = {
    ...changeFlags,
    install: boolean({summary: 'Write the script to your home folder'}),
  };

  async run(): Promise<CompletionResult> {
    const {args, flags} = await this.parse(Completion);
    const shell = this.#shell(args.shell);
    const script = completionScript(shell, this.config.bin, this.context.layout);
    if (!flags.install) {
      this.log(script.trimEnd());
      return {shell, script, path: null};
    }
    const path = this.#path(shell);
    const host = await this.openHost();
    const outcome = await withChanges(this, flags, [], (options) =>
      writeOwnFile(host, path, script, options),
    );
    if (flags['dry-run']) {
      showChange(this, changeResult(host, [outcome], flags, [], []));
      return {shell, script, path: null};
    }
    this.log(`Written to ${path}; new shells read it.`);
    if (shell === 'zsh') this.log('In ~/.zshrc, before compinit: fpath=(~/.zfunc $fpath)');
    return {shell, script, path};
  }

  #shell(word: string | undefined): Shell {
    const wanted = word ?? this.context.environment['SHELL']?.split('/').at(-1) ?? 'bash';
    const shell = shells.find((one) => one === wanted);
    if (shell === undefined)
      throw usageError(`there is no completion for the shell '${wanted}'`, `one of ${shells.join(', ')}`);
    return shell;
  }

  /** The folder of the user's completions: bash-completion's README, the custom of the zsh manual, complete(1) of fish. */
  #path(shell: Shell): string {
    const {HOME: home, XDG_CONFIG_HOME: config, XDG_DATA_HOME: data} = this.context.environment;
    if (home === undefined || !home.startsWith('/'))
      throw usageError('could not install the script: HOME is not set', 'pearasys completion > FILE');
    switch (shell) {
      case 'bash':
        return `${data ?? `${home}/.local/share`}/bash-completion/completions/pearasys`;
      case 'zsh':
        return `${home}/.zfunc/_pearasys`;
      case 'fish':
        return `${config ?? `${home}/.config`}/fish/completions/pearasys.fish`;
    }
  }
}
