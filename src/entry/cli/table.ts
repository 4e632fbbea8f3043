import {printableLine} from '../../host/printable.js';
import type {Output} from './output.js';

/** A column of a table for people. */
export interface Column {
  readonly head: string;
  /** Whether it gives way where the terminal is too narrow. */
  readonly shrinks?: boolean;
}

/** The narrowest that a column is made. */
const least = 8;

const gap = 2;

/** The rows below their heads, cut to the width of the terminal. What is in the rows cannot do anything to it. */
export async function printTable(
  output: Output,
  colours: boolean,
  columns: readonly Column[],
  texts: readonly (readonly string[])[],
): Promise<string> {
  const rows = texts.map((row) => row.map(printableLine));
  const {default: Table} = await import('cli-table3');
  const none = Object.fromEntries(
    [
      ...['top', 'top-mid', 'top-left', 'top-right', 'bottom', 'bottom-mid', 'bottom-left', 'bottom-right'],
      ...['left', 'left-mid', 'mid', 'mid-mid', 'right', 'right-mid', 'middle'],
    ].map((part) => [part, '']),
  );
  const table = new Table({
    // By ourselves: the library would look at the environment of the process for whether colours are wanted.
    head: columns.map(({head}) => (colours ? `\u001b[1m${head}\u001b[22m` : head)),
    colWidths: fit(output.columns, columns, rows),
    chars: none,
    style: {
      'padding-left': 0,
      'padding-right': gap,
      head: [],
      border: [],
      compact: true,
    },
  });
  table.push(...rows);
  return table
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n');
}

/** The columns' widths: what their widest cells need; the widest of those that may shrink give way. */
function fit(width: number, columns: readonly Column[], rows: readonly (readonly string[])[]): number[] {
  const widths = columns.map(({head}, index) =>
    rows.reduce((most, row) => Math.max(most, (row[index] ?? '').length), head.length),
  );
  const shrinking = columns.flatMap(({shrinks}, index) => (shrinks === true ? [index] : []));
  const total = () => widths.reduce((sum, one) => sum + one + gap, -gap);
  for (let over = total() - width; over > 0; over = total() - width) {
    const widest = shrinking.reduce(
      (a, b) => ((widths[a] ?? 0) >= (widths[b] ?? 0) ? a : b),
      shrinking[0] ?? 0,
    );
    if ((widths[widest] ?? 0) <= least || shrinking.length === 0) break;
    widths[widest] = (widths[widest] ?? 0) - 1;
  }
  return widths.map((one) => one + gap);
}
