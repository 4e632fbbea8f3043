/** Gives the folders where huge pages are mounted to the users of devices, who need both. */
import {readGroups, readUsers, type Accounts} from '../../config/accounts.js';
import type {FileOwner, HostReader} from '../../host/host.js';
import {folderMode, type NodeAccess} from '../../state/records/node-access.js';
import {readMounts} from '../../usage/mounts.js';
import {numberOf} from '../service/access.js';
import {setOwner, type Step} from '../step.js';

/** A folder where huge pages are mounted now. */
interface PageFolder {
  readonly where: string;
  readonly owner: FileOwner;
  /** Permission bits. */
  readonly mode: number;
}

/** What {@link planMountAccess} needs to know. */
export interface MountAccessState {
  readonly folders: readonly PageFolder[];
  readonly users: Accounts;
  readonly groups: Accounts;
}

/** Reads {@link MountAccessState}. */
export function readMountAccess(host: HostReader): MountAccessState {
  const mounts = host.root === '/' ? readMounts(host) : [];
  // The last of several mounts on one folder is the visible one.
  const types = new Map(mounts.map(({target, type}) => [target, type]));
  const folders = [...types].flatMap(([where, type]): PageFolder[] => {
    const info = type === 'hugetlbfs' ? host.info(where) : undefined;
    return info === undefined ? [] : [{where, owner: {uid: info.uid, gid: info.gid}, mode: info.mode}];
  });
  return {folders, users: readUsers(host), groups: readGroups(host)};
}

/**
 * The steps that let these users create files in the folders, until the next boot. Nobody loses a right: guests may use
 * the same folder, and another user's folder stays as it is.
 */
export function planMountAccess(
  access: NodeAccess,
  {folders, users, groups}: MountAccessState,
): {readonly steps: readonly Step[]; readonly notes: readonly string[]} {
  const steps: Step[] = [];
  const notes: string[] = [];
  for (const {where, owner, mode} of folders) {
    const uid = numberOf(access.user, users) ?? owner.uid;
    const gid = numberOf(access.group, groups) ?? owner.gid;
    const others = [
      ...(owner.uid === 0 || owner.uid === uid ? [] : [`user ${nameOf(owner.uid, users)}`]),
      ...(owner.gid === 0 || owner.gid === gid ? [] : [`group ${nameOf(owner.gid, groups)}`]),
    ];
    const target = {owner: {uid, gid}, mode: mode | folderMode(access.mode)};
    if (others.length > 0) notes.push(`${where} belongs to ${others.join(' and ')} and is left unchanged`);
    else if (uid !== owner.uid || gid !== owner.gid || target.mode !== mode)
      steps.push(setOwner(where, target, {owner, mode}));
  }
  return {steps, notes};
}

function nameOf(number: number, accounts: Accounts): string {
  return [...accounts].find(([, one]) => one === number)?.[0] ?? String(number);
}
