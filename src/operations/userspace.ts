import {isBridge, readDevices, type Device} from '../devices/pci/device.js';
import type {DeviceType} from '../devices/pci/device-type.js';
import {spdkKindOf, typesOf, type SpdkKind} from '../devices/pci/device-types.js';
import {isForUserspace, noDriver} from '../devices/pci/driver.js';
import type {Slot} from '../devices/pci/slot.js';
import {carryOut, type CarryOutOptions, type Outcome} from '../engine/carry-out.js';
import type {Host, HostReader} from '../host/host.js';
import {bytesAfter, hugePagesLock, planHugePages, readHugePagesState} from '../plan/hugepages/huge-pages.js';
import {planMountAccess, readMountAccess} from '../plan/hugepages/mount-access.js';
import {
  accessNotes,
  granted,
  planAccess,
  readAccess,
  refuseAccess,
  refuseWithoutNodes,
} from '../plan/service/access.js';
import {plan, type Planned} from '../plan/step.js';
import {requestFor, type HugePageVariables} from '../plan/userspace/huge-variables.js';
import {
  decide,
  decideReset,
  devicesToSearch,
  planReset,
  planUserspace,
  readReset,
  readUserspace,
  withSkipped,
  type Decision,
  type UserspaceRequest,
} from '../plan/userspace/userspace.js';
import {changeNodeAccess, type NodeAccessChange} from '../state/records/node-access.js';
import {isVirtualClaim} from '../state/sriov/sriov-record.js';
import {readTakenParts} from '../state/userspace/taken.js';
import {hasUnits} from '../systemd/unit.js';
import {readContents, readDisks} from '../usage/contents.js';
import {reread, selectDevices} from './devices.js';

/** Which devices are meant. */
export interface UserspaceSelection {
  /** Names of devices; if there are any, nothing else selects. */
  readonly words: readonly string[];
  /** Types of devices; if there are any, instead of the default. */
  readonly types: readonly DeviceType[];
  /** The only ones that may be selected without a name; undefined for all. */
  readonly allowed: ReadonlySet<Slot> | undefined;
}

/** What a run has done. */
export interface UserspaceOutcome {
  readonly outcome: Outcome;
  readonly decision: Decision;
}

/**
 * The devices for `userspace config`: those that are named, or of these types; without either those that SPDK takes: NVMe
 * controllers, virtio disks and I/OAT, and DSA, IAA and VMD if they are allowed by name.
 */
export function selectForConfig(
  host: HostReader,
  {words, types, allowed}: UserspaceSelection,
): readonly Device[] {
  if (words.length > 0) return selectDevices(host, words, {all: true});
  return readDevices(host).filter((device) => {
    if (isBridge(device) || allowed?.has(device.slot) === false) return false;
    if (types.length > 0) return typesOf(device).some((type) => types.includes(type));
    const kind = spdkKindOf(device);
    return kind !== undefined && (!onlyByName.has(kind) || allowed !== undefined);
  });
}

/** All disks behind a VMD go away with it. Hosts use DSA and IAA engines themselves, which does not count as in use. */
const onlyByName: ReadonlySet<SpdkKind> = new Set(['vmd', 'dsa', 'iaa']);

/**
 * The devices for `userspace reset`: those that are named, or all on userspace drivers, of these types if there are any,
 * that no claim has put there: the next boot would put those there again.
 */
export function selectForReset(
  host: HostReader,
  {words, types, allowed}: UserspaceSelection,
): readonly Device[] {
  if (words.length > 0) return selectDevices(host, words, {all: true});
  return readDevices(host).filter(
    (device) =>
      // A run that was killed may have left one without a driver.
      (isForUserspace(device.driver) || readTakenParts(host, device) !== undefined) &&
      allowed?.has(device.slot) !== false &&
      !isClaimed(host, device.slot) &&
      (types.length === 0 || typesOf(device).some((type) => types.includes(type))),
  );
}

/** The devices for `userspace status`. */
export function selectForStatus(
  host: HostReader,
  {words, types}: Pick<UserspaceSelection, 'words' | 'types'>,
): readonly Device[] {
  if (words.length > 0) return selectDevices(host, words, {all: true});
  return readDevices(host).filter((device) => {
    const own = typesOf(device);
    return types.length === 0 ? own.length > 0 : own.some((type) => types.includes(type));
  });
}

/** Whether a record claims the device, also as a virtual function. */
function isClaimed(host: HostReader, slot: Slot): boolean {
  return hasUnits(host, slot) || isVirtualClaim(host, slot);
}

/** Settings of {@link configureUserspace}. */
export interface ConfigureOptions extends CarryOutOptions {
  /** Whether the user named the devices: then it is refused if all are skipped. */
  readonly named: boolean;
  /** The huge pages that are allocated in the same plan; undefined for none. */
  readonly hugePages: HugePageVariables | undefined;
  /** Who may open the devices; undefined to leave that as it is. */
  readonly access: NodeAccessChange | undefined;
}

/** The lock for what lasts until the next boot: who may open devices. */
const accessLock = 'userspace';

/**
 * Gives devices to userspace drivers, in one plan. Those that cannot be taken are skipped.
 * @throws PearasysError the refusal, or what failed.
 */
export async function configureUserspace(
  host: Host,
  devices: readonly Device[],
  choice: Omit<UserspaceRequest, 'claimed'>,
  options: ConfigureOptions,
): Promise<UserspaceOutcome> {
  const {named, hugePages, access} = options;
  const kept = named ? [] : devices.map(({slot}) => slot).filter((slot) => isClaimed(host, slot));
  const request = {...choice, claimed: new Set(kept)};
  const early = readUserspace(host, devices, request);
  const contents = await readContents(host, readDisks(host, devicesToSearch(early)));
  const first = decide(early, contents);
  let decision = first;
  const chosen = first.switched.map(({device}) => device);
  const outcome = await carryOut(
    host,
    [
      ...chosen.map(({slot}) => slot),
      ...(hugePages === undefined && access === undefined ? [] : [hugePagesLock]),
      ...(access === undefined ? [] : [accessLock]),
    ],
    (when) => {
      const finish = (planned: Planned) =>
        withPages(host, withAccess(host, withSkipped(planned, decision, named), decision, access), hugePages);
      if (when === 'early') return finish(planUserspace(host, early, first, contents));
      // Only these are locked.
      const input = readUserspace(host, reread(host, chosen), request);
      decision = after(first, decide(input, contents));
      return finish(planUserspace(host, input, decision, contents));
    },
    options,
  );
  return {outcome, decision};
}

/**
 * Adds who may open the devices to a plan, before the devices are switched: udev applies the rules to the nodes that
 * appear then. The same users get the mounted huge pages, as with SPDK.
 */
function withAccess(
  host: HostReader,
  planned: Planned,
  {switched, already}: Decision,
  change: NodeAccessChange | undefined,
): Planned {
  const access = change === undefined ? undefined : changeNodeAccess(undefined, change);
  if (planned.kind === 'refusal' || access === undefined) return planned;
  const devices = [...switched.map(({device}) => device), ...already];
  const slots = devices.map(({slot}) => slot);
  const state = readAccess(host, 'boot', slots);
  const wanted = [
    ...granted(state).filter(({slot}) => !slots.includes(slot)),
    ...devices.map(({slot, id}) => ({slot, id, access})),
  ];
  const refusal =
    switched
      .map(({driver}) => refuseWithoutNodes(driver ?? noDriver, access, change))
      .find((one) => one !== undefined) ?? refuseAccess(wanted, slots, state);
  if (refusal !== undefined) return refusal;
  const mounts = planMountAccess(access, readMountAccess(host));
  return {
    ...planned,
    steps: [...planAccess(wanted, state), ...mounts.steps, ...planned.steps],
    notes: [...planned.notes, ...accessNotes(wanted, slots, state), ...mounts.notes],
  };
}

/** Adds to the plan of a reset that nobody is given these devices any more. */
function withoutAccess(host: HostReader, planned: Planned, {switched, already}: Decision): Planned {
  if (planned.kind === 'refusal') return planned;
  const slots = [...switched.map(({device}) => device), ...already].map(({slot}) => slot);
  const state = readAccess(host, 'boot', []);
  const left = granted(state).filter(({slot}) => !slots.includes(slot));
  return {...planned, steps: [...planned.steps, ...planAccess(left, state)]};
}

/** How many bytes of huge pages there will be; undefined if they cannot be set. */
export function readBytesAfterConfig(host: HostReader, variables: HugePageVariables): number | undefined {
  const state = readHugePagesState(host);
  return bytesAfter(requestFor(variables, state).request, state);
}

/** Adds the huge pages to a plan: after the devices, as with SPDK. */
function withPages(host: HostReader, planned: Planned, variables: HugePageVariables | undefined): Planned {
  if (planned.kind === 'refusal' || variables === undefined) return planned;
  const state = readHugePagesState(host);
  const {request, notes} = requestFor(variables, state);
  const pages = planHugePages(request, state);
  if (pages.kind === 'refusal') return pages;
  return plan([...planned.steps, ...pages.steps], {
    afterUndo: [...planned.afterUndo, ...pages.afterUndo],
    notes: [...planned.notes, ...notes, ...pages.notes],
  });
}

/**
 * Returns devices to the drivers that the kernel chooses, in one plan, and waits for their disks and interfaces.
 * @param named as for {@link configureUserspace}.
 * @throws PearasysError the refusal, or what failed.
 */
export async function resetUserspace(
  host: Host,
  devices: readonly Device[],
  blocked: ReadonlySet<Slot>,
  named: boolean,
  options: CarryOutOptions,
): Promise<UserspaceOutcome> {
  const early = readReset(host, devices, blocked);
  const first = decideReset(early);
  let decision = first;
  const chosen = [...first.switched.map(({device}) => device), ...first.already];
  const outcome = await carryOut(
    host,
    [...chosen.map(({slot}) => slot), accessLock],
    (when) => {
      const finish = (planned: Planned) =>
        withoutAccess(host, withSkipped(planned, decision, named), decision);
      if (when === 'early') return finish(planReset(host, early, first));
      const input = readReset(host, reread(host, chosen), blocked);
      decision = after({...first, already: []}, decideReset(input));
      return finish(planReset(host, input, decision));
    },
    options,
  );
  return {outcome, decision};
}

/** What was decided under the locks about some of the devices, with what was decided before about the others. */
function after(first: Decision, second: Decision): Decision {
  return {
    switched: second.switched,
    already: [...first.already, ...second.already],
    skipped: [...first.skipped, ...second.skipped],
  };
}
