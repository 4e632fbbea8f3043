import type {Command} from '@oclif/core/command';
import {shellWord} from '../../host/shell.js';
import {settingKinds} from '../../state/records/device-settings.js';
import {deviceTypes} from '../../devices/pci/device-type.js';
import {classWords} from '../../devices/pci/device.js';
import {chainWords} from './chain-words.js';
import {name} from './version.js';

/** The shells with completion. */
export const shells = ['bash', 'zsh'] as const;
export type Shell = (typeof shells)[number];

/** Kinds of words in a command line; the script asks the kernel for them. */
const kinds = [
  'slot',
  'id',
  'device',
  'driver',
  'class',
  'group',
  'folder',
  'chain',
  'shell',
  'guest',
  'setting',
  'device-type',
  'user',
  'user-group',
  'switch',
] as const;
type Kind = (typeof kinds)[number];

/** The kind of an option's value or of an argument, by its name. */
const kindOfOption: Readonly<Record<string, Kind>> = {
  slot: 'slot',
  device: 'device',
  pid: 'id',
  id: 'id',
  driver: 'driver',
  class: 'class',
  group: 'group',
  root: 'folder',
  prefix: 'folder',
  mount: 'folder',
  set: 'setting',
  take: 'slot',
  user: 'user',
  'user-group': 'user-group',
};
const kindOfArgument: Readonly<Record<string, Kind>> = {
  device: 'device',
  driver: 'driver',
  guest: 'guest',
  pf: 'device',
  shell: 'shell',
  slot: 'slot',
  setting: 'setting',
  state: 'switch',
};

interface CompletedOption {
  readonly names: readonly string[];
  readonly summary: string;
  readonly takesValue: boolean;
  readonly kind: Kind | undefined;
}

interface CompletedCommand {
  readonly words: string;
  readonly summary: string;
  readonly options: readonly CompletedOption[];
  /** The kinds of its arguments; the last one repeats. */
  readonly places: readonly (Kind | undefined)[];
}

/**
 * The completion script for a shell, for a command line with these commands.
 * @param config the folder of settings and records.
 */
export async function completionScript(
  shell: Shell,
  commands: readonly Command.Loadable[],
  config: string,
): Promise<string> {
  const all = await Promise.all(
    commands
      .filter(({hidden}) => !hidden)
      .map(async (command) => describe(command.id, command.summary ?? '', await command.load())),
  );
  return shell === 'bash' ? bash(all, config) : zsh(all, config);
}

function describe(id: string, summary: string, command: Command.Class): CompletedCommand {
  const flags = Object.entries({...command.baseFlags, ...command.flags}).filter(
    ([, flag]) => flag.hidden !== true,
  );
  const places =
    id === 'pci' ? ['chain' as const] : Object.keys(command.args).map((arg) => kindOfArgument[arg]);
  return {
    words: id.replaceAll(':', ' '),
    summary,
    places,
    options: flags.map(([flag, {char, type, summary: text = '', ...rest}]) => ({
      names: [`--${flag}`, ...(char === undefined ? [] : [`-${char}`])],
      summary: text,
      takesValue: type === 'option',
      kind: type === 'option' ? kindOfValue(flag, rest) : undefined,
    })),
  };
}

/** Of several options with one name, such as `--type`, only one is for types of devices. */
function kindOfValue(flag: string, rest: object): Kind | undefined {
  return 'options' in rest && rest.options === deviceTypes ? 'device-type' : kindOfOption[flag];
}

/**
 * Shell functions for both shells. Names in folders may be chosen by others: they are printed one per line, and are
 * never part of text that a shell evaluates.
 */
function common(all: readonly CompletedCommand[], config: string): string {
  const valued = optionPatterns(all, () => true);
  const known = unique(all.flatMap(({words}) => beginnings(words)));
  return `# Prints the names in folders, except those that begin like an option or that ls cannot show unchanged.
_${name}_entries() {
  local folder
  for folder in "$@"; do command ls -q -- "$folder"; done | sed '/^-/d; /?/d'
}

_${name}_words() {
  case $1 in
    slot) _${name}_entries /sys/bus/pci/devices ;;
    id) sed -n 's/^PCI_ID=//p' /sys/bus/pci/devices/*/uevent | tr A-F a-f | sort -u ;;
    device) _${name}_words slot; _${name}_words id; _${name}_entries /sys/class/net /sys/class/block ;;
    driver) _${name}_entries /sys/bus/pci/drivers; printf '%s\\n' none default vfio-pci ;;
    class) printf '%s\\n' ${[...Object.keys(classWords), 'all'].join(' ')} ;;
    group) _${name}_entries /sys/kernel/iommu_groups ;;
    chain) printf '%s\\n' ${chainWords.join(' ')} ;;
    setting) printf '%s\\n' ${settingKinds.map((kind) => `${kind.name}=`).join(' ')} ;;
    device-type) printf '%s\\n' ${deviceTypes.join(' ')} ;;
    user) cut -d: -f1 /etc/passwd ;;
    user-group) cut -d: -f1 /etc/group ;;
    switch) printf '%s\\n' on off ;;
    shell) printf '%s\\n' ${shells.join(' ')} ;;
    guest) _${name}_entries ${shellWord(`${config}/guests`)} /etc/libvirt/qemu | sed -n 's/\\.conf$//p; s/\\.xml$//p' | grep -v -e '-passthrough-guests$' | sort -u ;;
  esac 2>/dev/null
}

# Sets \`typed\` to the command that the words before the cursor name, and \`place\` to the number of its arguments.
_${name}_typed() {
  local word skip=
  typed= place=0
  for word in "$@"; do
    if [ -n "$skip" ]; then skip=; continue; fi
    case $typed:$word in
      ${valued}) skip=1; continue ;;
      *:-*) continue ;;
    esac
    case "$typed\${typed:+ }$word" in
      ${known.map(quoted).join('|')}) [ "$place" -gt 0 ] || { typed=$typed\${typed:+ }$word; continue; } ;;
    esac
    place=$((place + 1))
  done
}

# Sets \`kind\` to what the option before the cursor takes, or else the argument at \`place\`.
_${name}_kind() {
  kind=
  case $typed:$1 in
${optionKinds(all)
  .map(([patterns, kind]) => `    ${patterns}) kind=${kind}; return ;;`)
  .join('\n')}
    ${valued}) kind=other; return ;;
  esac
  case "$typed:$place" in
${all.flatMap(placeCases).join('\n')}
  esac
}
`;
}

function bash(all: readonly CompletedCommand[], config: string): string {
  return `# Completion of ${name} for bash.
${common(all, config)}
_${name}_options() {
  case $typed in
${all
  .map(
    ({words, options}) =>
      `    ${quoted(words)}) printf '%s\\n' ${options.flatMap(({names}) => names).join(' ')} ;;`,
  )
  .join('\n')}
    *) printf '%s\\n' --help --version --json --root --slot --id -s -d -v ;;
  esac
}

# Offers the lines that begin with what is typed, quoted as words of the command line. compgen -W would evaluate them.
_${name}_offer() {
  local word begun=$cur quote=
  case $cur in
    [\\'\\"]*) quote=\${cur:0:1} begun=\${cur:1} ;;
    *) begun=\${cur//\\\\/} ;;
  esac
  while IFS= read -r word; do
    [[ $word == "$begun"* ]] || continue
    case $quote in
      "'") [[ $word != *"'"* ]] || continue ;;
      '"') [[ $word != *[\\"\\$\\\`\\\\!]* ]] || continue ;;
      *) printf -v word %q "$word" ;;
    esac
    COMPREPLY+=("$word")
  done
}

_${name}() {
  local cur prev words cword typed place kind
  # A slot has colons, at which bash splits words.
  if declare -F _get_comp_words_by_ref >/dev/null; then
    _get_comp_words_by_ref -n : cur prev words cword
  else
    words=("\${COMP_WORDS[@]}") cword=$COMP_CWORD
    cur=\${words[cword]} prev=\${words[cword - 1]}
  fi
  _${name}_typed "\${words[@]:1:cword-1}"
  _${name}_kind "$prev"
  COMPREPLY=()
  case $kind in
    other) return ;;
    folder) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
  esac
  if [[ $cur == -* ]]; then
    _${name}_offer < <(_${name}_options)
  elif [[ -n $kind ]]; then
    _${name}_offer < <(_${name}_words "$kind")
  else
    case $typed:$place in
${subcommands(all)
  .map(
    ([words, next]) =>
      `      ${quoted(`${words}:0`)}) _${name}_offer < <(printf '%s\\n' ${next.join(' ')}) ;;`,
  )
  .join('\n')}
    esac
  fi
  if declare -F __ltrim_colon_completions >/dev/null; then __ltrim_colon_completions "$cur"; fi
}
complete -F _${name} ${name}
`;
}

function zsh(all: readonly CompletedCommand[], config: string): string {
  return `#compdef ${name}
# Completion of ${name} for zsh.
${common(all, config)}
_${name}() {
  local typed place kind
  local -a found
  _${name}_typed "\${(@)words[2,CURRENT-1]}"
  _${name}_kind "$words[CURRENT-1]"
  case $kind in
    other) return 1 ;;
    folder) _files -/; return ;;
  esac
  if [[ $words[CURRENT] == -* ]]; then
    case $typed in
${all
  .map(
    ({words, options}) =>
      `      ${quoted(words)}) found=(${options.flatMap(({names, summary}) => names.map((one) => described(one, summary))).join(' ')}) ;;`,
  )
  .join('\n')}
      *) found=(--help --version --json --root --slot --id -s -d -v) ;;
    esac
    _describe -o option found
  elif [[ -n $kind ]]; then
    found=(\${(f)"$(_${name}_words $kind)"})
    compadd -a -- found
  else
    case $typed:$place in
${subcommands(all)
  .map(([words, next]) => {
    const entries = next.map((word) =>
      described(word, summaryOf(all, words === '' ? word : `${words} ${word}`)),
    );
    return `      ${quoted(`${words}:0`)}) found=(${entries.join(' ')}) ;;`;
  })
  .join('\n')}
    esac
    _describe command found
  fi
}
# Read by compinit, the file is the function's body; sourced, it defines it.
if [ "$funcstack[1]" = _${name} ]; then _${name} "$@"; else compdef _${name} ${name}; fi
`;
}

/** The words that may follow the beginning of a command, by that beginning. */
function subcommands(all: readonly CompletedCommand[]): [words: string, next: string[]][] {
  const next = new Map<string, string[]>();
  for (const {words} of all)
    for (const beginning of beginnings(words)) {
      const cut = beginning.lastIndexOf(' ');
      const before = cut < 0 ? '' : beginning.slice(0, cut);
      next.set(before, unique([...(next.get(before) ?? []), beginning.slice(cut + 1)]));
    }
  return [...next];
}

/** \`service\`, \`service install\`. */
function beginnings(words: string): string[] {
  const parts = words.split(' ');
  return parts.map((_, index) => parts.slice(0, index + 1).join(' '));
}

function optionKinds(all: readonly CompletedCommand[]): [patterns: string, kind: Kind][] {
  return kinds.flatMap((kind): [string, Kind][] => {
    const patterns = optionPatterns(all, (option) => option.kind === kind);
    return patterns === '' ? [] : [[patterns, kind]];
  });
}

/**
 * Patterns for `command:option`, for the options that take a value and are wanted. An option that takes a value in
 * all its commands may come before the command too.
 */
function optionPatterns(
  all: readonly CompletedCommand[],
  isWanted: (option: CompletedOption) => boolean,
): string {
  const options = all.flatMap(({words, options: own}) =>
    own.flatMap((option) => option.names.map((one) => ({words, one, option}))),
  );
  const patterns = options
    .filter(({option}) => option.takesValue && isWanted(option))
    .map(({words, one, option}) => {
      const others = options.filter((other) => other.one === one).map((other) => other.option);
      const same = others.every(({takesValue, kind}) => takesValue && kind === option.kind);
      return same ? `*:${one}` : `${quoted(`${words}:`)}${one}`;
    });
  return unique(patterns).join('|');
}

function placeCases({words, places}: CompletedCommand): string[] {
  return places.flatMap((kind, index) => {
    // The last argument may be given several times.
    const place = index === places.length - 1 ? '*' : `${index}`;
    return kind === undefined ? [] : [`    ${quoted(`${words}:`)}${place}) kind=${kind} ;;`];
  });
}

function summaryOf(all: readonly CompletedCommand[], words: string): string {
  return all.find((command) => command.words === words)?.summary ?? '';
}

function described(word: string, summary: string): string {
  return quoted(summary === '' ? word : `${word}:${summary}`);
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function unique<T>(list: readonly T[]): T[] {
  return [...new Set(list)];
}
