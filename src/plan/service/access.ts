/** Gives the nodes of devices to their users: by udev rules for nodes that appear later, at once for those that exist. */
import {readGroups, readUsers, type Accounts} from '../../config/accounts.js';
import {devicePath, devicesFolder} from '../../devices/pci/device.js';
import {hasUserNodes} from '../../devices/pci/driver.js';
import {sysfsIds} from '../../devices/pci/id.js';
import type {Slot} from '../../devices/pci/slot.js';
import {userNodes} from '../../devices/pci/user-nodes.js';
import {ExitCode} from '../../host/errors.js';
import type {FileOwner, HostReader} from '../../host/host.js';
import {
  accessPath,
  accessSources,
  parseAccessRules,
  printAccessRules,
  proofOf,
  type AccessSource,
  type Grant,
} from '../../state/access-rules.js';
import type {RecordContent, RecordSource} from '../../state/records/record.js';
import {
  describeAccess,
  isSameAccess,
  type NodeAccess,
  type NodeAccessChange,
} from '../../state/records/node-access.js';
import {
  readFileState,
  refuse,
  removeFile,
  setOwner,
  udevadm,
  writeFile,
  type FileState,
  type Refusal,
  type Step,
} from '../step.js';

export type {AccessSource, Grant} from '../../state/access-rules.js';

/** What records grant. Those of this boot only grant nothing: the rules for records outlast the boot. */
export function grantsOf(records: readonly (RecordContent & {readonly source?: RecordSource})[]): Grant[] {
  return records.flatMap(({slot, id, access, source = 'record'}) =>
    slot === 'any' || access === undefined || source !== 'record' ? [] : [{slot, id, access}],
  );
}

/** A device as far as its nodes are concerned. */
interface Present {
  /** Vendor and device as in sysfs. */
  readonly ids: string;
  /** Its nodes now. */
  readonly nodes: readonly string[];
  /** The slots of its IOMMU group, itself included, without bridges, which no userspace driver takes. */
  readonly group: readonly string[];
}

/** What decides about the rules and the owners of nodes. */
export interface AccessState {
  readonly source: AccessSource;
  /** The rules; undefined if there are none. */
  readonly file: FileState | undefined;
  /** What the rules of the other sources grant; default nothing. */
  readonly others?: readonly Grant[];
  /**
   * Slots with rules for a virtual function of a card that is not there: another card may have the slot. Default none.
   */
  readonly strangers?: ReadonlySet<Slot>;
  /** The devices that are present, by slot. */
  readonly devices: ReadonlyMap<Slot, Present>;
  /** Owner and mode of the nodes of {@link devices}, by path. */
  readonly nodes: ReadonlyMap<string, {readonly owner: FileOwner; readonly mode: number}>;
  readonly users: Accounts;
  readonly groups: Accounts;
  /** Whether udev runs for this host; false for an image. */
  readonly running: boolean;
}

/**
 * Reads {@link AccessState}.
 * @param slots all slots that may be among the wanted ones. Those that have a rule are read too.
 */
export function readAccess(host: HostReader, source: AccessSource, slots: readonly Slot[]): AccessState {
  const file = readFileState(host, accessPath(source), false);
  const running = host.root === '/';
  const devices = new Map<Slot, Present>();
  const nodes = new Map<string, {readonly owner: FileOwner; readonly mode: number}>();
  const ruled = parseAccessRules(file?.content ?? '');
  const strangers = new Set(
    ruled.filter((grant) => !slots.includes(grant.slot) && !isProven(host, grant)).map(({slot}) => slot),
  );
  for (const slot of running ? new Set([...slots, ...ruled.map((grant) => grant.slot)]) : []) {
    const [vendor, device] = ['vendor', 'device'].map((name) => host.readText(devicePath(slot, name)));
    if (vendor === undefined || device === undefined) continue;
    const own = userNodes(host, slot);
    const group = host
      .list(devicePath(slot, 'iommu_group/devices'))
      .filter((member) => host.readText(`${devicesFolder}/${member}/class`)?.startsWith('0x0604') !== true);
    devices.set(slot, {ids: `${vendor} ${device}`, nodes: own, group});
    for (const path of own) {
      const info = host.info(path);
      if (info !== undefined) nodes.set(path, {owner: {uid: info.uid, gid: info.gid}, mode: info.mode});
    }
  }
  const others = accessSources
    .filter((one) => one !== source)
    .flatMap((one) => parseAccessRules(host.readText(accessPath(one)) ?? ''));
  const [users, groups] = [readUsers(host), readGroups(host)];
  return {source, file, others, strangers, devices, nodes, users, groups, running};
}

/** Whether a grant for a virtual function is for one of the recorded card, as the rules check it. */
function isProven(host: HostReader, grant: Grant): boolean {
  const proof = proofOf(grant);
  return proof === undefined || (host.readText(proof.path) ?? '').split('\n').includes(proof.line);
}

/** What the rules grant now. */
export function granted({file}: AccessState): Grant[] {
  return parseAccessRules(file?.content ?? '');
}

/** What the nodes of a device have when nobody is given them. */
const rootOnly = {owner: {uid: 0, gid: 0}, mode: 0o600};

/**
 * The steps that let exactly these users open the nodes of exactly these devices: first the nodes that are taken away
 * from a user, so that a run that is killed has the rules for the next one to see them by; then the rules; then the
 * nodes that exist.
 */
export function planAccess(wanted: readonly Grant[], state: AccessState): Step[] {
  const grants = [...wanted].sort((one, other) => (one.slot < other.slot ? -1 : 1));
  // As with the rules, the last device of a group decides.
  const targets = new Map<string, NodeAccess>();
  for (const grant of grants) for (const path of nodesOf(grant, state)) targets.set(path, grant.access);
  const withdrawn = granted(state)
    .flatMap((grant) => nodesOf(grant, state))
    .filter((path) => !targets.has(path));
  return [
    ...[...new Set(withdrawn)].flatMap((path) => own(path, rootOnly, state)),
    ...planRules(grants, state),
    ...[...targets].flatMap(([path, {user, group, mode}]) => {
      const [uid, gid] = [numberOf(user, state.users), numberOf(group, state.groups)];
      // udev ignores users that do not exist, too.
      return own(path, {owner: {uid: uid ?? 0, gid: gid ?? 0}, mode}, state);
    }),
  ];
}

/** The nodes of the card, if it is the one that the grant is for. */
function nodesOf({slot, id}: Grant, {devices, strangers}: AccessState): readonly string[] {
  const device = devices.get(slot);
  return device === undefined ||
    strangers?.has(slot) === true ||
    (id !== undefined && device.ids !== sysfsIds(id).join(' '))
    ? []
    : device.nodes;
}

function own(
  path: string,
  target: {readonly owner: FileOwner; readonly mode: number},
  {nodes}: AccessState,
): Step[] {
  const now = nodes.get(path);
  if (now === undefined) return [];
  const same =
    now.owner.uid === target.owner.uid && now.owner.gid === target.owner.gid && now.mode === target.mode;
  return same ? [] : [setOwner(path, target, now)];
}

/** The number of a user or group; undefined for none, and for one that does not exist. */
export function numberOf(account: string | undefined, accounts: Accounts): number | undefined {
  if (account === undefined) return undefined;
  return /^\d+$/.test(account) ? Number(account) : accounts.get(account);
}

function planRules(grants: readonly Grant[], {source, file, running}: AccessState): Step[] {
  const path = accessPath(source);
  const text = grants.length === 0 ? undefined : printAccessRules(source, grants);
  if (text === file?.content) return [];
  const change =
    text === undefined
      ? file === undefined
        ? []
        : [removeFile(path, file, {prune: 0})]
      : [writeFile(path, text, file, {prune: 0})];
  // udev itself would look for changed rules only some seconds later. A node that has appeared since this was read has
  // its owner by the rules as they were.
  return running ? [...change, udevadm(['control', '--reload']), udevadm(triggerNodes)] : change;
}

/** Has udev apply the rules to all nodes of VFIO and UIO. */
const triggerNodes = [
  'trigger',
  '--action=change',
  ...['vfio', 'vfio-dev', 'uio'].map((subsystem) => `--subsystem-match=${subsystem}`),
];

/** Refuses a user for a driver that provides no nodes. */
export function refuseWithoutNodes(
  driver: string,
  access: NodeAccess | undefined,
  change: NodeAccessChange | undefined,
): Refusal | undefined {
  if (change === undefined || access === undefined || hasUserNodes(driver)) return undefined;
  return refuse({
    code: 'bad-access',
    exitCode: ExitCode.refused,
    message: `a device on ${driver} cannot be given to a user: ${driver} is not a userspace driver and provides no nodes`,
    details: ['nothing was changed'],
    hint: 'userspace drivers are vfio-pci and its variants, and uio_pci_generic',
  });
}

/**
 * Refuses to give the node of an IOMMU group to two users: each of its members opens it.
 * @param changed the slots whose access is set.
 */
export function refuseAccess(
  wanted: readonly Grant[],
  changed: readonly Slot[],
  {devices, others = []}: AccessState,
): Refusal | undefined {
  const all = [...wanted, ...others.filter(({slot}) => !wanted.some((one) => one.slot === slot))];
  for (const {slot, access} of wanted) {
    if (!changed.includes(slot)) continue;
    const group = devices.get(slot)?.group ?? [];
    const other = all.find(
      (one) => one.slot !== slot && group.includes(one.slot) && !isSameAccess(one.access, access),
    );
    if (other === undefined) continue;
    return refuse({
      code: 'bad-access',
      exitCode: ExitCode.refused,
      message: `${slot} and ${other.slot} are in one IOMMU group, which only one user can open`,
      details: [
        `${slot} would get ${describeAccess(access)}`,
        `${other.slot} would get ${describeAccess(other.access)}`,
        'nothing was changed',
      ],
      hint: `give both the same user: pearasys service set ${other.slot} --user USER --user-group GROUP`,
    });
  }
  return undefined;
}

/**
 * Which devices are opened together with those that are granted, because VFIO opens whole IOMMU groups.
 * @param changed the slots whose access is set.
 */
export function accessNotes(
  wanted: readonly Grant[],
  changed: readonly Slot[],
  {devices}: AccessState,
): string[] {
  return wanted.flatMap(({slot, access}) => {
    if (!changed.includes(slot)) return [];
    const others = (devices.get(slot)?.group ?? []).filter(
      (member) => member !== slot && !wanted.some((one) => one.slot === member),
    );
    return others.length === 0
      ? []
      : [
          `users of ${slot} (${describeAccess(access)}) can also use the other devices of its IOMMU group that are on VFIO drivers: ${others.join(' ')}`,
        ];
  });
}
