import {isPrintableLine} from './printable.js';

/**
 * A word for a shell, quoted only where needed. In single quotes only the quote itself is special. What must not
 * reach a terminal, including newlines, is quoted as in bash(1), zsh(1) and POSIX since 2024: `$'\\x1b'`.
 */
export function shellWord(text: string): string {
  if (/^[\w@%+=:,./-]+$/.test(text)) return text;
  return isPrintableLine(text) ? singleQuoted(text) : dollarQuoted(text);
}

/** Always in single quotes, which any POSIX shell accepts. */
export function singleQuoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** Several lines as one word, which spans as many lines. */
export function shellText(text: string): string {
  return text.split('\n').every((line) => isPrintableLine(line.replaceAll('\t', '')))
    ? singleQuoted(text)
    : dollarQuoted(text);
}

/** A line that prints the text and a newline, regardless of what the shell's echo treats as an option or escape. */
export function echoLine(text: string): string {
  if (/^-|\\/.test(text)) return `printf '%s\\n' ${shellWord(text)}`;
  return `echo ${isPrintableLine(text) ? singleQuoted(text) : dollarQuoted(text)}`;
}

function dollarQuoted(text: string): string {
  const escaped = Array.from(text, (character) => {
    if (character === '\n') return '\\n';
    if (isPrintableLine(character)) return character.replace(/['\\]/, '\\$&');
    const code = character.codePointAt(0) ?? 0;
    if (code < 0x80) return `\\x${code.toString(16).padStart(2, '0')}`;
    return code < 0x10000
      ? `\\u${code.toString(16).padStart(4, '0')}`
      : `\\U${code.toString(16).padStart(8, '0')}`;
  });
  return `$'${escaped.join('')}'`;
}
