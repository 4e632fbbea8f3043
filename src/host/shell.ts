import {isPrintableLine} from './printable.js';

/**
 * A word as a shell takes it: quoted only where needed. In single quotes nothing has a meaning but the quote. What a
 * terminal must not get, newlines among it, is quoted as bash(1), zsh(1) and POSIX since 2024 have it: `$'\\x1b'`.
 */
export function shellWord(text: string): string {
  if (/^[\w@%+=:,./-]+$/.test(text)) return text;
  return isPrintableLine(text) ? singleQuoted(text) : dollarQuoted(text);
}

/** In single quotes always, as any POSIX shell takes it. */
export function singleQuoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** Whole lines as one word, which spans as many lines. */
export function shellText(text: string): string {
  return text.split('\n').every((line) => isPrintableLine(line.replaceAll('\t', '')))
    ? singleQuoted(text)
    : dollarQuoted(text);
}

/** A line that prints the text and a newline, whatever the shell's echo takes for an option or an escape. */
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
