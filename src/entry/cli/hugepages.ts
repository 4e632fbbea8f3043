import {integer} from '@oclif/core/flags';
import {printSize} from '../../devices/memory/size.js';
import type {Outcome} from '../../engine/carry-out.js';
import type {Host} from '../../host/host.js';
import {readHugePagesReport, type HugePagesReport} from '../../operations/hugepages.js';
import {changeFlags, type BaseCommand} from './base-command.js';
import {changeResult, type ChangeFlags, type ChangeResult} from './switching.js';

/** Flags of commands that change huge pages. */
export const pageFlags = {
  ...changeFlags,
  // The kernel moves other memory out of the way, which takes long for large pages.
  timeout: integer({
    summary: 'How long to wait for the kernel to allocate the pages of a node',
    helpValue: 'SECONDS',
    default: 120,
    min: 1,
    max: 3600,
  }),
};

/** What `--json` prints of a change. */
export interface HugePagesResult extends Omit<ChangeResult, 'devices'> {
  /** The pages afterwards. */
  readonly pools: HugePagesReport['pools'];
  readonly mounts: HugePagesReport['mounts'];
}

/** The result of a change. */
export function hugePagesResult(
  host: Host,
  outcome: Outcome,
  flags: ChangeFlags,
  notes: readonly string[],
): HugePagesResult {
  const {pools, mounts} = readHugePagesReport(host);
  const {changed, dryRun, steps} = changeResult(host, [outcome], flags, notes, []);
  return {changed, dryRun, steps, notes, pools, mounts};
}

/** Prints the pages after a change, or for a dry run what would be done. */
export function showHugePages(command: BaseCommand, {dryRun, changed, steps, pools}: HugePagesResult): void {
  if (dryRun) {
    for (const line of steps) command.log(line);
    if (steps.length === 0) command.note('nothing to do');
    return;
  }
  if (!changed) command.note('nothing to do');
  for (const {node, pageSize, pages, used, atBoot} of pools)
    if (pages > 0 || atBoot !== null)
      command.log(
        `${node === null ? 'huge pages' : `NUMA node ${node}`}: ${pages} of ${printSize(pageSize)}, ${used} in use` +
          (atBoot === null ? '' : `, ${atBoot} at boot`),
      );
}
