/** Who may open the device nodes of a claimed device, as records keep it. */
import {usageError} from '../../host/errors.js';

/**
 * A user or group in a record: a name in /etc/passwd or /etc/group, or a number. udev starts before the network, so
 * users of a directory service are recorded by number. It becomes part of a udev rule: only {@link parseAccount} makes it.
 */
export type Account = string & {readonly __brand: 'Account'};

/** Who may open the nodes of a device: `/dev/vfio/<group>`, `/dev/vfio/devices/vfio<N>`, `/dev/uio<N>`. */
export interface NodeAccess {
  /** Their owner; default root. */
  readonly user?: Account;
  /** Their group; default root's. */
  readonly group?: Account;
  /** Their permission bits. */
  readonly mode: number;
}

/** A change of {@link NodeAccess}. What is absent stays as it is. */
export interface NodeAccessChange {
  /** Undefined for root. */
  readonly user?: Account | undefined;
  /** Undefined for root's group. */
  readonly group?: Account | undefined;
  /** Undefined for {@link defaultMode}. */
  readonly mode?: number | undefined;
}

/** The mode of nodes with an owner if nothing else is recorded: for owner and group, as VFIO needs both rights. */
export const defaultMode = 0o660;

/** The mode of a folder whose files these users may use and create: who may read may also enter. */
export function folderMode(mode: number): number {
  return mode | ((mode & 0o444) >> 2);
}

/** The keys in a record, and in every other file that has the access to a device. */
export const nodeAccessKeys = {
  user: 'PEARASYS_USER',
  group: 'PEARASYS_GROUP',
  mode: 'PEARASYS_MODE',
} as const;

/** What a user's or group's name may be; libexec/records.sh has the same rule. */
export const expectedAccount =
  'a name of letters, digits, dots, underscores and dashes that begins with a letter or underscore, or a number';

const expectedMode = 'a mode such as 0660: the owner may read and write, others may read, write or both';

/** Whether this key is one of {@link nodeAccessKeys}. */
export function isNodeAccessKey(key: string): boolean {
  return Object.values<string>(nodeAccessKeys).includes(key);
}

/** The user or group with this name; undefined if it cannot be one, or could mean more than a name in a udev rule. */
export function parseAccount(text: string): Account | undefined {
  const isNumber = /^(?:0|[1-9]\d{0,9})$/.test(text);
  // The last number means "no user".
  const valid = isNumber ? Number(text) < 0xffffffff : /^[A-Za-z_][A-Za-z0-9_.-]{0,31}$/.test(text);
  return valid ? (text as Account) : undefined;
}

/** The mode in octal: `660`, `0660`; undefined if it is none that makes sense for a device. */
export function parseMode(text: string): number | undefined {
  return /^0?6[0246][0246]$/.test(text) ? parseInt(text, 8) : undefined;
}

/** The mode as records and rules have it: `0660`. */
export function printMode(mode: number): string {
  return mode.toString(8).padStart(4, '0');
}

/**
 * The access among the lines of a record; undefined if it has none.
 * @param onBad is called with the reason why the record is ignored; it returns the error.
 */
export function parseNodeAccess(
  values: ReadonlyMap<string, string>,
  onBad: (reason: string) => Error,
): NodeAccess | undefined {
  const account = (key: string): Account | undefined => {
    const value = values.get(key);
    if (value === undefined) return undefined;
    const parsed = parseAccount(value);
    if (parsed === undefined) throw onBad(`${key}=${value} is invalid: expected ${expectedAccount}`);
    return parsed;
  };
  const user = account(nodeAccessKeys.user);
  const group = account(nodeAccessKeys.group);
  const text = values.get(nodeAccessKeys.mode);
  // To the shell, 660 is another text than 0660.
  const mode = text?.length === 4 ? parseMode(text) : undefined;
  if (text !== undefined && mode === undefined)
    throw onBad(`${nodeAccessKeys.mode}=${text} is invalid: expected ${expectedMode}`);
  if (user === undefined && group === undefined && mode === undefined) return undefined;
  return nodeAccess(user, group, mode);
}

/** The lines of a record for this access. */
export function printNodeAccess(access: NodeAccess | undefined): string[] {
  if (access === undefined) return [];
  const {user, group, mode} = access;
  return [
    ...(user === undefined ? [] : [`${nodeAccessKeys.user}=${user}`]),
    ...(group === undefined ? [] : [`${nodeAccessKeys.group}=${group}`]),
    `${nodeAccessKeys.mode}=${printMode(mode)}`,
  ];
}

/** The access after a change; undefined if nothing of it is left. */
export function changeNodeAccess(
  access: NodeAccess | undefined,
  change: NodeAccessChange,
): NodeAccess | undefined {
  const user = 'user' in change ? change.user : access?.user;
  const group = 'group' in change ? change.group : access?.group;
  const mode = 'mode' in change ? change.mode : access?.mode;
  // A mode that was recorded with an owner means nothing without one.
  if (user === undefined && group === undefined && change.mode === undefined) return undefined;
  return nodeAccess(user, group, mode);
}

function nodeAccess(user: Account | undefined, group: Account | undefined, mode = defaultMode): NodeAccess {
  return {...(user === undefined ? {} : {user}), ...(group === undefined ? {} : {group}), mode};
}

/** Whether both give the same rights to the same users. */
export function isSameAccess(one: NodeAccess | undefined, other: NodeAccess | undefined): boolean {
  return one?.user === other?.user && one?.group === other?.group && one?.mode === other?.mode;
}

/** `user alice, group vfio, mode 0660`. */
export function describeAccess({user, group, mode}: NodeAccess): string {
  return [
    ...(user === undefined ? [] : [`user ${user}`]),
    ...(group === undefined ? [] : [`group ${group}`]),
    `mode ${printMode(mode)}`,
  ].join(', ');
}

/** What a user typed for {@link NodeAccess}; an empty text removes that part. `resolveAccess` makes a change of it. */
export interface NodeAccessWords {
  readonly user?: string | undefined;
  readonly group?: string | undefined;
  readonly mode?: string | undefined;
}

/**
 * The mode that a user typed; undefined for an empty text.
 * @throws PearasysError `usage`: what was expected.
 */
export function readMode(text: string): number | undefined {
  if (text === '') return undefined;
  const mode = parseMode(text);
  if (mode === undefined)
    throw usageError(`'${text}' is not a mode for a device`, `expected ${expectedMode}`);
  return mode;
}

/** The words of a change, for a file. */
export function printAccessWords(change: NodeAccessChange): NodeAccessWords {
  return {
    ...('user' in change ? {user: change.user ?? ''} : {}),
    ...('group' in change ? {group: change.group ?? ''} : {}),
    ...('mode' in change ? {mode: change.mode === undefined ? '' : printMode(change.mode)} : {}),
  };
}

/** The change that {@link printAccessWords} has written; undefined for any other words. */
export function parseAccessWords({user, group, mode}: NodeAccessWords): NodeAccessChange | undefined {
  const [own, shared] = [user, group].map((word) => (word === undefined ? undefined : parseAccount(word)));
  const bits = mode === undefined ? undefined : parseMode(mode);
  const wrong = [
    [user, own],
    [group, shared],
    [mode, bits],
  ].some(([word, parsed]) => word !== undefined && word !== '' && parsed === undefined);
  if (wrong) return undefined;
  return {
    ...(user === undefined ? {} : {user: own}),
    ...(group === undefined ? {} : {group: shared}),
    ...(mode === undefined ? {} : {mode: bits}),
  };
}
