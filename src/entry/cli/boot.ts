import type {Outcome} from '../../engine/carry-out.js';
import {setParticipation} from '../../operations/initramfs.js';
import type {BaseCommand} from './base-command.js';
import {withChanges, type ChangeFlags} from './switching.js';
import type {Host} from '../../host/host.js';

/** What `--json` prints for `boot enable` and `boot disable`. */
export interface BootChangeResult {
  readonly changed: boolean;
  readonly dryRun: boolean;
  readonly steps: readonly string[];
  readonly notes: readonly string[];
}

/** Sets whether claims take effect in the initramfs, and prints what was done. */
export async function changeParticipation(
  command: BaseCommand,
  host: Host,
  enabled: boolean,
  flags: ChangeFlags,
): Promise<BootChangeResult> {
  const notes: string[] = [];
  const outcome: Outcome = await withChanges(command, flags, notes, (options) =>
    setParticipation(host, command.layout, enabled, options),
  );
  const dryRun = flags['dry-run'] === true;
  if (dryRun) for (const line of outcome.lines) command.log(line);
  if (dryRun && outcome.lines.length === 0) command.note('nothing to do');
  const already = outcome.changed ? '' : 'already ';
  const place = enabled ? 'in the initramfs' : 'only after the root file system is mounted';
  if (!dryRun) command.log(`claims ${already}take effect ${place}`);
  return {changed: outcome.changed, dryRun, steps: outcome.lines, notes};
}
