/** A word as any POSIX shell takes it: quoted only where needed. In single quotes nothing has a meaning but the quote. */
export function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : singleQuoted(text);
}

/** The same, quoted always. */
export function singleQuoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
