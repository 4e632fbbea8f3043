import {printableLine} from '../../host/printable.js';
import type {Output} from './output.js';

/** A column of a table for people. */
export interface Column {
  readonly head: string;
  /** Whether its cells are cut where the terminal is too narrow. */
  readonly shrinks?: boolean;
}

/** How many columns of the terminal a text takes. */
type Measure = (text: string) => number;

/** The narrowest that a column is made. */
const least = 8;

const gap = '  ';

/**
 * The rows below their heads, in plain columns that fit the terminal. The widest cells of the columns that shrink are
 * cut, and where that is not enough, the ends of lines. Nothing in the rows can change the terminal.
 */
export async function printTable(
  output: Output,
  colors: boolean,
  columns: readonly Column[],
  texts: readonly (readonly string[])[],
): Promise<string> {
  const {default: measure} = await import('string-width');
  const rows = [columns.map(({head}) => head), ...texts.map((row) => row.map(printableLine))];
  const widths = fit(output.columns, columns, rows, measure);
  const lines = rows.map((row) => {
    const cells = row.map((text, index) => {
      const width = widths[index] ?? 0;
      const shown = cut(text, width, measure);
      return shown + ' '.repeat(width - measure(shown));
    });
    return cut(cells.join(gap).trimEnd(), output.columns, measure);
  });
  return lines.map((line, index) => (colors && index === 0 ? `\u001b[1m${line}\u001b[22m` : line)).join('\n');
}

/** The columns' widths: what their widest cells need, or less for the widest of those that shrink. */
function fit(
  width: number,
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
  measure: Measure,
): number[] {
  const needed = columns.map((_, index) =>
    rows.reduce((most, row) => Math.max(most, measure(row[index] ?? '')), 0),
  );
  const limited = (limit: number) =>
    needed.map((one, index) => (columns[index]?.shrinks === true ? Math.min(one, limit) : one));
  const total = (widths: readonly number[]) =>
    widths.reduce((sum, one) => sum + one, gap.length * (widths.length - 1));
  let limit = Math.max(...needed);
  while (limit > least && total(limited(limit)) > width) limit--;
  return limited(limit);
}

/** The text, or its beginning and an ellipsis if it is wider. Before a wide character one column may be left free. */
function cut(text: string, width: number, measure: Measure): string {
  if (measure(text) <= width) return text;
  let beginning = '';
  for (const character of text) {
    if (measure(beginning + character) >= width) break;
    beginning += character;
  }
  return `${beginning}…`;
}
