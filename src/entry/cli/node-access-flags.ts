import {string} from '@oclif/core/flags';
import type {Host} from '../../host/host.js';
import {describeMemlock, resolveAccess} from '../../operations/node-access.js';
import type {NodeAccessChange, NodeAccessWords} from '../../state/records/node-access.js';
import type {BaseCommand} from './base-command.js';

/**
 * Flags that say who may open the nodes of a device. It is not called `--group`, which includes the members of the IOMMU
 * group. An empty value removes that part.
 */
export const nodeAccessFlags = {
  user: string({summary: "The owner of the device's nodes in /dev", helpValue: 'USER'}),
  'user-group': string({summary: "The group of the device's nodes in /dev", helpValue: 'GROUP'}),
  mode: string({summary: "The mode of the device's nodes in /dev; default 0660", helpValue: 'MODE'}),
};

/** What the flags say; undefined without any of them. */
export function accessWords(flags: {
  readonly user?: string | undefined;
  readonly 'user-group'?: string | undefined;
  readonly mode?: string | undefined;
}): NodeAccessWords | undefined {
  const {user, 'user-group': group, mode} = flags;
  return user === undefined && group === undefined && mode === undefined ? undefined : {user, group, mode};
}

/**
 * The change that the words mean; undefined without any. Says how much memory the users may lock.
 * @param notes gets what is said, for `--json`.
 * @param pages bytes of huge pages after the command; default as many as now.
 * @throws PearasysError `usage` for a user or group that does not exist, and for a wrong mode.
 */
export async function readAccessChange(
  command: BaseCommand,
  host: Host,
  words: NodeAccessWords | undefined,
  notes: string[],
  pages?: number,
): Promise<NodeAccessChange | undefined> {
  if (words === undefined) return undefined;
  const {change, notes: said} = await resolveAccess(host, words);
  for (const note of [...said, ...(await describeMemlock(host, change, pages))]) {
    notes.push(note);
    command.note(note);
  }
  return change;
}
