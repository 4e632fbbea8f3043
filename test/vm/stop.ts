import {CHECKOUT, quote, type Machine} from './machine.js';

/** Where a run is stopped: immediately before or after it renames a complete new file to this path. */
export interface StopPoint {
  readonly when: 'before' | 'after';
  readonly path: string;
}

/**
 * Runs the installed pearasys up to this point and leaves it there. What it has done so far is written to the disk, so
 * that a power cut now leaves exactly that.
 * @throws CommandError if it ends without reaching the point
 */
export async function runUntil(machine: Machine, {when, path}: StopPoint, ...args: string[]): Promise<void> {
  const words = ['/usr/local/lib/pearasys/start.cjs', ...args].map(quote).join(' ');
  const run = await machine.start(
    `STOP=${quote(`${when} ${path}`)} exec node --import ${CHECKOUT}/test/vm/stop-at.mjs ${words}`,
  );
  const status = `/proc/${run.pid}/status`;
  await machine.waitUntil(`test ! -e ${status} || grep -q '^State:.T' ${status}`);
  const {code} = await machine.run(`test -e ${status}`);
  if (code !== 0) throw run.error('ended before it was stopped');
  await machine.sh('sync');
}
