/**
 * What must not reach a terminal or the journal from text that others chose, such as the names of processes, units,
 * interfaces and guests: control characters, invisible ones, those that change the direction of text, and lone
 * surrogates. Newlines and tabs are kept here; {@link printableLine} escapes them too.
 */
const unprintable = /(?![\n\t])[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;

/** The same, and newlines and tabs. */
const unprintableInLine = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;

/** Most texts are plain: this check is fast. */
const plain = /^[\n\t\x20-\x7e]*$/;

/** Characters of one line: as long as the longest path, PATH_MAX. */
const longestLine = 4096;

/**
 * The text with escapes, `\x1b` and `\u202e`, for what must not be printed. JSON keeps its meaning: the output of
 * `JSON.stringify` has no control characters below U+0020 except newlines, and above that these are JSON's escapes.
 */
export function printable(text: string): string {
  return plain.test(text) ? text : text.replace(unprintable, escape);
}

/** The same for a text that must stay in one line: with escapes for newlines too, and cut where it is very long. */
export function printableLine(text: string): string {
  const cut = text.length > longestLine ? `${text.slice(0, longestLine)}… (${text.length} characters)` : text;
  return cut.replace(unprintableInLine, escape);
}

/** Whether {@link printableLine} would leave the text as it is, except for its length. */
export function isPrintableLine(text: string): boolean {
  return text.search(unprintableInLine) < 0;
}

/** Each UTF-16 unit by its number. */
function escape(character: string): string {
  return Array.from({length: character.length}, (_, at) => {
    const code = character.charCodeAt(at);
    return code < 0x20
      ? `\\x${code.toString(16).padStart(2, '0')}`
      : `\\u${code.toString(16).padStart(4, '0')}`;
  }).join('');
}
