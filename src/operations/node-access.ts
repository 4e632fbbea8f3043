import {parseAccountLine, readGroups, readGroupsOf, readUsers} from '../config/accounts.js';
import {printLimit, readMemlock, type MemoryLimit} from '../config/memlock.js';
import {readHugePages} from '../devices/memory/huge-pages.js';
import {CommandError, usageError} from '../host/errors.js';
import type {HostQuery} from '../host/host.js';
import {
  expectedAccount,
  parseAccount,
  readMode,
  type Account,
  type NodeAccessChange,
  type NodeAccessWords,
} from '../state/records/node-access.js';

/** A change of who may open the nodes of devices, with users and groups that exist. */
export interface ResolvedAccess {
  readonly change: NodeAccessChange;
  readonly notes: readonly string[];
}

/** The databases of getent(1) and the words for their entries. */
const databases = {user: 'passwd', group: 'group'} as const;

/**
 * The change that a user typed. A user or group that only a directory service knows (LDAP, SSSD) becomes its number,
 * because udev reads its rules before the network is up.
 * @throws PearasysError `usage` for a user or group that does not exist, or cannot be one, and for a wrong mode.
 */
export async function resolveAccess(host: HostQuery, words: NodeAccessWords): Promise<ResolvedAccess> {
  const notes: string[] = [];
  const change: {-readonly [Part in keyof NodeAccessChange]: NodeAccessChange[Part]} = {};
  if (words.mode !== undefined) change.mode = readMode(words.mode);
  for (const kind of ['user', 'group'] as const) {
    const word = words[kind];
    if (word !== undefined) change[kind] = word === '' ? undefined : await find(host, kind, word, notes);
  }
  return {change, notes: [...notes, ...(await noteOnSystemUsers(host, change))]};
}

/** The highest number of a system user or group, as systemd is built by the distributions. */
const lastSystemAccount = 999;

/** Versions of systemd whose udev ignores other users in rules (its pull requests 36123 and 40612). */
const strictVersions = /^(?:258|259)$/;

async function noteOnSystemUsers(host: HostQuery, {user, group}: NodeAccessChange): Promise<string[]> {
  const others = [
    ...(user !== undefined && !isSystem(user, readUsers(host)) ? [`user ${user}`] : []),
    ...(group !== undefined && !isSystem(group, readGroups(host)) ? [`group ${group}`] : []),
  ];
  if (others.length === 0 || host.root !== '/') return [];
  const {stdout} = await host.ask('udevadm', ['--version'], {accept: 'any'});
  const version = stdout.trim();
  if (!strictVersions.test(version)) return [];
  return [
    `${others.join(' and ')} may lose the nodes at the next boot: udev of systemd ${version} ignores users that are not system users; use a group made with groupadd --system`,
  ];
}

function isSystem(account: Account, accounts: ReadonlyMap<string, number>): boolean {
  return (/^\d/.test(account) ? Number(account) : (accounts.get(account) ?? 0)) <= lastSystemAccount;
}

async function find(
  host: HostQuery,
  kind: 'user' | 'group',
  word: string,
  notes: string[],
): Promise<Account> {
  const account = parseAccount(word);
  const isNumber = /^\d/.test(word);
  const local = kind === 'user' ? readUsers(host) : readGroups(host);
  if (account !== undefined && (isNumber || local.has(account))) return account;
  const number = isNumber ? undefined : (local.get(word) ?? (await lookUp(host, kind, word)));
  const parsed = number === undefined ? undefined : parseAccount(String(number));
  if (parsed === undefined)
    throw usageError(
      `there is no ${kind} '${word}'`,
      isNumber ? `expected ${expectedAccount}` : `\`getent ${databases[kind]}\` lists them`,
    );
  const reason = local.has(word) ? 'a udev rule cannot name it' : `it is not in /etc/${databases[kind]}`;
  notes.push(`${kind} ${word} is recorded by its number ${parsed}: ${reason}`);
  return parsed;
}

/** The number of a user or group of a directory service; undefined if there is none. An image has only its files. */
async function lookUp(host: HostQuery, kind: 'user' | 'group', word: string): Promise<number | undefined> {
  if (host.root !== '/' || !/^[^\s:-][^\s:]*$/.test(word)) return undefined;
  try {
    const {stdout} = await host.ask('getent', [databases[kind], '--', word], {accept: 'any', limit: 10_000});
    return parseAccountLine(stdout.split('\n')[0] ?? '')?.number;
  } catch (error) {
    // A machine without getent has no directory service. One that does not answer in time is not one without the user.
    if (error instanceof CommandError && error.ended === undefined) return undefined;
    throw error;
  }
}

/**
 * How much memory these users may lock, in sentences: VFIO locks all memory that the device may access, and a program of
 * a user fails with ENOMEM beyond the limit (RLIMIT_MEMLOCK).
 * @param pages bytes of huge pages after the command; default as many as now.
 */
export async function describeMemlock(
  host: HostQuery,
  {user, group}: NodeAccessChange,
  pages?: number,
): Promise<string[]> {
  // limits.conf has names.
  const [owner, members] = [nameOf(user, readUsers(host)), nameOf(group, readGroups(host))];
  const who = owner ?? (members === undefined ? undefined : `@${members}`);
  if (who === undefined) return [];
  const groups = owner === undefined ? [members ?? ''] : readGroupsOf(host, owner);
  const {limit, from} = readMemlock(host, owner, groups);
  const given = limit === undefined ? await readDefaultMemlock(host) : {limit, from: from ?? ''};
  const subject = owner === undefined ? `members of group ${members ?? ''}` : `user ${owner}`;
  if (given?.limit === 'unlimited') return [`${subject} may lock any amount of memory (${given.from})`];
  const has = given === undefined ? 'the default' : `${printLimit(given.limit)} (${given.from})`;
  return [
    `${subject} may lock ${has} of memory in a new session; VFIO locks all memory that the device may access: ` +
      `the whole memory of a guest, the huge pages of DPDK and SPDK${hugeWords(host, pages)}`,
    `to raise the limit: echo '${who} - memlock unlimited' > /etc/security/limits.d/90-vfio.conf, and log in again; ` +
      'for a service: LimitMEMLOCK=infinity in its unit',
  ];
}

/** The huge pages that there are, or will be. */
function hugeWords(host: HostQuery, after: number | undefined): string {
  const now = readHugePages(host).pools.reduce((sum, {pages, pageSize}) => sum + pages * pageSize, 0);
  if (after !== undefined && after !== now) return ` (${printLimit(after)} after this command)`;
  return now === 0 ? '' : ` (now ${printLimit(now)})`;
}

/** systemd's limit for services and sessions; undefined where systemd does not run. */
async function readDefaultMemlock(
  host: HostQuery,
): Promise<{readonly limit: MemoryLimit; readonly from: string} | undefined> {
  if (host.root !== '/') return undefined;
  const name = 'DefaultLimitMEMLOCK';
  const {stdout} = await host.ask('systemctl', ['show', `--property=${name}`, '--value'], {accept: 'any'});
  const text = stdout.trim();
  if (text === 'infinity') return {limit: 'unlimited', from: `${name} of systemd`};
  return /^\d+$/.test(text) ? {limit: Number(text), from: `${name} of systemd`} : undefined;
}

/** The name of a user or group that is given by number, if its file has one. */
function nameOf(account: Account | undefined, accounts: ReadonlyMap<string, number>): string | undefined {
  if (account === undefined || accounts.has(account)) return account;
  return [...accounts].find(([, number]) => String(number) === account)?.[0] ?? account;
}
