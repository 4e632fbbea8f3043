import {readGroups, readUsers, type Accounts} from '../../config/accounts.js';
import type {Slot} from '../../devices/pci/slot.js';
import {userNodes} from '../../devices/pci/user-nodes.js';
import type {HostReader} from '../../host/host.js';
import {printMode, type NodeAccess} from '../../state/records/node-access.js';

/** Who may open the nodes of a device, as `--json` prints it. */
export interface AccessReport {
  /** Null for root. */
  readonly user: string | null;
  /** Null for root's group. */
  readonly group: string | null;
  /** In octal: `0660`. */
  readonly mode: string;
}

/** A node through which a program can drive the device now. */
export interface NodeReport {
  readonly path: string;
  /** The name of its owner, or the number of one that is not in /etc/passwd. */
  readonly user: string;
  readonly group: string;
  readonly mode: string;
}

/** What is recorded, as it is reported; null if only root may open the nodes. */
export function reportAccess(access: NodeAccess | undefined): AccessReport | null {
  return access === undefined
    ? null
    : {user: access.user ?? null, group: access.group ?? null, mode: printMode(access.mode)};
}

/** `user alice, group vfio, mode 0660`, with what no longer exists. */
export function accessInWords(host: HostReader, {user, group, mode}: AccessReport): string {
  const missing = (name: string, accounts: Accounts) =>
    /^\d+$/.test(name) || accounts.has(name) ? '' : ' (does not exist)';
  return [
    ...(user === null ? [] : [`user ${user}${missing(user, readUsers(host))}`]),
    ...(group === null ? [] : [`group ${group}${missing(group, readGroups(host))}`]),
    `mode ${mode}`,
  ].join(', ');
}

/** The nodes of a device as they are. */
export function reportNodes(host: HostReader, slot: Slot): NodeReport[] {
  const paths = userNodes(host, slot);
  if (paths.length === 0) return [];
  const [users, groups] = [namesOf(readUsers(host)), namesOf(readGroups(host))];
  return paths.flatMap((path) => {
    const info = host.info(path);
    if (info === undefined) return [];
    const {uid, gid, mode} = info;
    return [
      {
        path,
        user: users.get(uid) ?? (uid === 0 ? 'root' : String(uid)),
        group: groups.get(gid) ?? (gid === 0 ? 'root' : String(gid)),
        mode: printMode(mode),
      },
    ];
  });
}

function namesOf(accounts: Accounts): ReadonlyMap<number, string> {
  return new Map([...accounts].reverse().map(([name, number]) => [number, name]));
}
