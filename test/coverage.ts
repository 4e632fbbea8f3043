import {readFileSync} from 'node:fs';
import {join, relative} from 'node:path';

/** What c8 writes of a file, or of all of them. */
type Summary = Record<'lines' | 'branches' | 'functions', {readonly total: number; readonly covered: number}>;

const root = join(import.meta.dirname, '..');

/** Prints how much of each room of src the last `make coverage` has run. */
const files = JSON.parse(readFileSync(join(root, 'coverage/coverage-summary.json'), 'utf8')) as Record<
  string,
  Summary
>;
const rooms = new Map<string, Summary[]>();
for (const [path, summary] of Object.entries(files)) {
  const [, room = ''] = path === 'total' ? ['', 'all'] : relative(root, path).split('/');
  rooms.set(room, [...(rooms.get(room) ?? []), summary]);
}

function percent(summaries: readonly Summary[], of: keyof Summary): string {
  const [covered, total] = (['covered', 'total'] as const).map((name) =>
    summaries.reduce((sum, each) => sum + each[of][name], 0),
  );
  return (((covered ?? 0) / (total ?? 1)) * 100).toFixed(1);
}

const kinds = ['lines', 'branches', 'functions'] as const;
const line = (room: string, cells: readonly string[]) =>
  [room.padEnd(12), ...cells.map((each) => each.padStart(9))].join(' ');
console.log(line('coverage (%)', kinds));
for (const [room, summaries] of [...rooms].sort(([one], [other]) => order(one).localeCompare(order(other))))
  console.log(
    line(
      room,
      kinds.map((kind) => percent(summaries, kind)),
    ),
  );

/** All of them last. */
function order(room: string): string {
  return `${room === 'all' ? 1 : 0}${room}`;
}
