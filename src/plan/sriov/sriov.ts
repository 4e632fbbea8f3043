/** Plans for the number of virtual functions (VFs) of a physical function (PF). */
import {releasedMark} from '../switch/claim.js';
import {removeVirtualFunctions, virtualTime} from '../switch/leaving.js';
import {bringDriver, harmlessNotes, refuseHeld} from '../switch/refusals.js';
import {planSwitch, readSwitch, type Target} from '../switch/switch.js';
import {devicePath, type Device} from '../../devices/pci/device.js';
import {hasUserNodes, isStandIn, isVfio, noDriver, vfioPci} from '../../devices/pci/driver.js';
import type {Slot} from '../../devices/pci/slot.js';
import {virtualSlot, type Sriov} from '../../devices/pci/sriov.js';
import {ExitCode, type ErrorDetails} from '../../host/errors.js';
import type {HostReader} from '../../host/host.js';
import {recordName} from '../../state/records/record.js';
import {changeNodeAccess, type NodeAccessChange} from '../../state/records/node-access.js';
import {
  driverOf,
  driversIn,
  placesOf,
  printCopies,
  printSriov,
  sriovPath,
  type SriovContent,
  type VirtualFunctions,
} from '../../state/sriov/sriov-record.js';
import {
  accessNotes,
  granted,
  planAccess,
  refuseAccess,
  refuseWithoutNodes,
  type Grant,
} from '../service/access.js';
import {
  plan,
  probe,
  refuse,
  removeFile,
  systemctl,
  udevadm,
  writeAttribute,
  writeFile,
  type Planned,
  type Refusal,
  type Step,
} from '../step.js';
import type {SriovState} from './sriov-state.js';

/** The unit of a PF: active while its VFs have been created. */
export function sriovUnit(slot: Slot): string {
  return `pearasys-sriov@${slot}.target`;
}

/** What {@link planSriov} does besides the record. */
export interface SriovRequest {
  readonly wanted: VirtualFunctions;
  /** A change of who may open the nodes of VFs; undefined for none. */
  readonly access?: NodeAccessChange | undefined;
  /** `now`: the VFs are created and given to their drivers; `later`: at the next boot. */
  readonly when: 'now' | 'later';
}

/**
 * The plan that records a number of VFs, and creates them. The udev rule claims each VF as it appears, so the files that
 * it reads come before the number. Where the VFs exist already, each that is not on its driver is switched.
 */
export function planSriov(
  host: HostReader,
  {wanted, when, access: change}: SriovRequest,
  state: SriovState,
): Planned {
  const {device, layout, its, own, elsewhere, records, running} = state;
  const path = sriovPath(layout, device);
  const ignored = records.problems.find((problem) => problem.path === path);
  const problem = records.folderProblem ?? (state.files.has(path) ? undefined : ignored);
  if (problem !== undefined)
    return refuse({
      code: 'bad-record',
      exitCode: ExitCode.refused,
      message: `refusing to write the record ${path}: ${problem.path} is not trusted`,
      details: [problem.reason, 'nothing was changed'],
    });
  if (elsewhere !== undefined) return refuseToReplace(elsewhere, state);
  const refusal = running && 'classCode' in device ? refuseNumber(device, wanted, state) : undefined;
  if (refusal !== undefined) return refusal;
  const stale = own.filter((record) => record.path !== path);
  const access = changeNodeAccess(its?.access, change ?? {});
  const record: SriovContent = {
    ...wanted,
    slot: device.slot,
    id: device.id,
    identity: 'classCode' in device ? state.identity : (its?.identity ?? {}),
    ...(access === undefined ? {} : {access}),
    unknown: its?.unknown ?? [],
  };
  const granting = planGrants(record, change, state);
  if (granting.kind === 'refusal') return granting;
  const steps = [
    ...put(path, printSriov(record), state, ignored === undefined ? {} : {mode: 0o644}),
    ...stale.flatMap((one) => drop(one.path, state)),
  ];
  const notes = [
    ...(own.some((one) => one.path === path && one !== its)
      ? [`replacing the record of another card for ${device.slot}`]
      : []),
    ...stale.map((one) => `replacing the record of ${one.slot} (${one.id})`),
    ...(ignored === undefined ? [] : [`replacing ${path}, which was ignored: ${ignored.reason}`]),
    ...granting.notes,
  ];
  if (!running || !('classCode' in device)) return plan([...steps, ...granting.steps], {notes});
  const live = planLive(host, record, {device, when}, state);
  return live.kind === 'refusal'
    ? live
    : plan([...steps, ...planCopies(record, device, state), ...granting.steps, ...live.steps], {
        notes: [...notes, ...live.notes],
      });
}

/** The refusal to write over the record of a card that is in another slot now. */
function refuseToReplace(elsewhere: Slot, {device: {slot, id}, its}: SriovState): Refusal {
  const first = `pearasys sriov set ${elsewhere} COUNT`;
  return refuse({
    code: 'identity-mismatch',
    exitCode: ExitCode.refused,
    message: `refusing to replace the record for ${slot} (${id}): its card is in ${elsewhere} now`,
    details: ['nothing was changed'],
    // The record of this card may be in the way of the other card's.
    hint: `record that card for its present slot first: ${its === undefined ? '' : `pearasys sriov unset ${slot} --later; `}${first}`,
  });
}

/** Who may open the nodes of the VFs: rules for their slots, and the owners of nodes that exist. */
function planGrants(record: SriovContent, change: NodeAccessChange | undefined, state: SriovState): Planned {
  const {device, sriov, running, access} = state;
  const drivers = driversIn(record);
  const suitable = drivers.find(hasUserNodes);
  const nodeless =
    suitable === undefined
      ? refuseWithoutNodes(drivers[0] ?? 'its default driver', record.access, change)
      : undefined;
  if (nodeless !== undefined) return nodeless;
  const places = sriov === undefined ? [] : placesOf(record, device.slot, sriov);
  if (change !== undefined && record.access !== undefined && !running)
    return refuse({
      code: 'bad-access',
      exitCode: ExitCode.refused,
      message: `the users of the virtual functions of ${device.slot} cannot be set in an image: the slots of the functions are known only on the machine`,
      details: ['nothing was changed'],
      hint: 'run the command with these options on the machine',
    });
  const wanted = places.flatMap(({slot, id, driver}) =>
    record.access === undefined || driver === undefined || !hasUserNodes(driver)
      ? []
      : [{slot, id, access: record.access, virtual: {record: recordName(record), bridge: state.bridge}}],
  );
  const grants = [...grantsOfOthers(state, places), ...wanted];
  const slots = change === undefined ? [] : wanted.map(({slot}) => slot);
  return (
    refuseAccess(grants, slots, access) ??
    plan(running ? planAccess(grants, access) : [], {notes: accessNotes(grants, slots, access)})
  );
}

/** What the rules grant of the VFs of other PFs. Rules of earlier versions do not name the record. */
function grantsOfOthers(
  {access, claimed, virtual, records, own, device, sriov}: SriovState,
  places: readonly {readonly slot: Slot}[],
): Grant[] {
  if (records.records.every((record) => own.includes(record))) return [];
  // The copies for the rule may be missing, after a run that was killed.
  const before = sriov === undefined ? [] : own.flatMap((record) => placesOf(record, device.slot, sriov));
  const its = new Set([...claimed, ...[...virtual, ...before, ...places].map(({slot}) => slot)]);
  const names = new Set<string>(own.map(recordName));
  return granted(access).filter(
    (grant) => !its.has(grant.slot) && (grant.virtual === undefined || !names.has(grant.virtual.record)),
  );
}

/** The plan of the unit of a PF: what {@link planSriov} does for an existing record, which stays as it is. */
export function planRepair(
  host: HostReader,
  record: SriovContent,
  device: Device,
  state: SriovState,
): Planned {
  const refusal = refuseNumber(device, record, state);
  if (refusal !== undefined) return refusal;
  // Without places, the grants would be taken away until the functions exist.
  const granting =
    record.access === undefined || state.sriov?.places === undefined
      ? plan([])
      : planGrants(record, undefined, state);
  if (granting.kind === 'refusal') return granting;
  const live = planLive(host, record, {device, when: 'unit'}, state);
  return live.kind === 'refusal'
    ? live
    : {...live, steps: [...planCopies(record, device, state), ...granting.steps, ...live.steps]};
}

/** The PF, and what the plan is for: a command whose effect is now or later, or the unit. */
interface LivePurpose {
  readonly device: Device;
  readonly when: SriovRequest['when'] | 'unit';
}

/** The files for the rules. Those for users compare them, so they come first. */
function planCopies(record: SriovContent, device: Device, state: SriovState): Step[] {
  const {sriov, bridge} = state;
  if (sriov === undefined) return [];
  const copies = printCopies(record, device, sriov, bridge);
  const names = new Set(copies.map(({path}) => path));
  return [
    ...[...state.files.keys()]
      .filter((path) => path.startsWith('/run/') && !names.has(path))
      .flatMap((path) => drop(path, state)),
    ...copies.flatMap(({path, content}) => put(path, content, state)),
  ];
}

/** What makes the machine as recorded. */
function planLive(
  host: HostReader,
  record: SriovContent,
  {device, when}: LivePurpose,
  state: SriovState,
): Planned {
  const {sriov, off} = state;
  if (sriov === undefined) return plan([]);
  if (when === 'later')
    return plan([], {notes: ['takes effect at the next boot, or when the device gets its driver again']});
  if (off !== undefined)
    return plan([], {
      notes: [`recorded for later boots: ${off} on the kernel command line switches this off in this boot`],
    });
  return sriov.count === record.count
    ? planDrivers(host, record, {device, when}, state)
    : planNumber(record, {device, sriov}, state);
}

/** Creates the VFs, through 0 if there are some. */
function planNumber(
  record: SriovContent,
  {device, sriov}: {readonly device: Device; readonly sriov: Sriov},
  state: SriovState,
): Planned {
  const {slot} = device;
  const {virtual, holders, exempt, released} = state;
  const bringing: Step[] = [];
  for (const driver of driversIn(record)) {
    const source = state.sources.get(driver);
    const steps = driver === noDriver || source === undefined ? [] : bringDriver(driver, source);
    if ('kind' in steps) return steps;
    bringing.push(...steps);
  }
  const held = refuseHeld(virtual, holders, false);
  if (held !== undefined)
    return refuse({
      ...held.error,
      message: `cannot change the number of virtual functions of ${slot} (${device.id}): the kernel must first remove ${virtual.length === 1 ? 'the existing one' : `all ${virtual.length}`}, but ${held.error.message}`,
      hint: `${held.error.hint ?? ''}; or change the number at the next boot: --later`,
    });
  const path = devicePath(slot, 'sriov_numvfs');
  const extraTime = virtualTime(record.count);
  const created = writeAttribute(path, String(record.count), {
    slot,
    extraTime,
    hint: `the driver's reason is in the kernel's log: journalctl -k --grep '${slot}'`,
    hints: hintsFor(device),
    undo: [writeAttribute(path, '0', {slot, extraTime, accept: ['ENOENT']})],
  });
  const places = placesOf(record, slot, sriov);
  return plan(
    [
      ...bringing,
      ...removeVirtualFunctions(device, {virtual, below: [], autoprobe: sriov.autoprobe}),
      ...setAutoprobe(slot, sriov, record.autoprobe),
      created,
      // This waits only for the events of these interfaces, not for all that udev has queued at boot.
      ...(state.interfaces.length === 0
        ? []
        : [udevadm(['trigger', '--action=add', '--settle', ...state.interfaces])]),
      ...(places.length === 0
        ? []
        : [
            {
              kind: 'expect-virtual' as const,
              slot,
              virtual: places.map(({slot: own, driver}) => ({
                slot: own,
                driver: exempt.has(own) ? undefined : driver,
              })),
              extraTime,
              undo: [],
            },
          ]),
      ...[...released].map(([one, mark]) => removeFile(releasedMark(one), mark)),
    ],
    {notes: harmlessNotes(holders)},
  );
}

/**
 * Gives the VFs that exist to their drivers, and offers those without a recorded one to all drivers if the kernel has not
 * done so. Only a command does that also with those that were released by hand.
 */
function planDrivers(
  host: HostReader,
  record: SriovContent,
  {device, when}: LivePurpose,
  state: SriovState,
): Planned {
  const {sriov, virtual, own, exempt, released} = state;
  const steps = sriov === undefined ? [] : setAutoprobe(device.slot, sriov, record.autoprobe);
  const isOffering = record.autoprobe && sriov?.autoprobe === false;
  const notes: string[] = [];
  const marks: Step[] = [];
  const targets = new Map<string, {target: Target; devices: Device[]}>();
  for (const [index, one] of virtual.entries()) {
    const mark = released.get(one.slot);
    const driver = driverOf(record, index);
    // The mark may be of a VF that had the slot before: the rule has claimed this one since, and cannot remove marks.
    const isReleased = mark !== undefined && (driver === undefined || one.override !== driver);
    if (exempt.has(one.slot) || (when === 'unit' && isReleased)) continue;
    // What the record gave it before is taken back.
    const before = own[0] === undefined ? undefined : driverOf(own[0], index);
    if (driver === undefined && (before === undefined || one.override !== before)) {
      if (isOffering && [one.driver, one.override, mark].every((each) => each === undefined))
        steps.push(probe(one.slot));
      continue;
    }
    if (driver !== undefined && mark !== undefined) marks.push(removeFile(releasedMark(one.slot), mark));
    const target: Target =
      driver !== undefined ? {kind: 'claim', driver} : {kind: record.autoprobe ? 'default' : 'release'};
    const key = driver ?? '';
    const known = targets.get(key);
    if (known === undefined) targets.set(key, {target, devices: [one]});
    else known.devices.push(one);
  }
  for (const {target, devices} of targets.values()) {
    const planned = planSwitch(readSwitch(host, devices, target, {force: false, wholeGroup: false}));
    if (planned.kind === 'refusal') return planned;
    steps.push(...planned.steps);
    notes.push(...planned.notes);
  }
  return plan([...steps, ...marks], {notes});
}

function setAutoprobe(slot: Slot, {autoprobe}: Sriov, wanted: boolean): Step[] {
  if (autoprobe === wanted) return [];
  const path = devicePath(slot, 'sriov_drivers_autoprobe');
  const text = (on: boolean) => (on ? '1' : '0');
  return [writeAttribute(path, text(wanted), {slot, undo: [writeAttribute(path, text(autoprobe), {slot})]})];
}

/** The plan that forgets a number of VFs and removes them. @param later whether they stay until the next boot. */
export function planUnset(state: SriovState, later: boolean): Planned {
  const {device, own, sriov, virtual, holders, running} = state;
  const {slot, id} = device;
  if (own.length === 0)
    return refuse({
      code: 'no-device',
      exitCode: ExitCode.noDevice,
      message: `no virtual functions are recorded for ${slot} (${id})`,
      hint:
        virtual.length === 0
          ? '`pearasys sriov list` lists the records'
          : `to remove the ${virtual.length} that exist: echo 0 > ${devicePath(slot, 'sriov_numvfs')}`,
    });
  const files = [
    ...(running ? planAccess(grantsOfOthers(state, []), state.access) : []),
    ...[...state.files.keys()]
      .filter((path) => path.startsWith('/run/'))
      .flatMap((path) => drop(path, state)),
    ...own.flatMap(({path}) => drop(path, state)),
  ];
  if (!running) return plan(files);
  // systemd does not know the unit of a PF that was absent since the boot.
  const stop = {
    ...systemctl(['stop', sriovUnit(slot)], [systemctl(['start', sriovUnit(slot)])]),
    accept: [0, 5],
  };
  if (later || sriov === undefined || !('classCode' in device)) return plan([stop, ...files]);
  const held = refuseHeld(virtual, holders, false);
  if (held !== undefined)
    return refuse({
      ...held.error,
      hint: `${held.error.hint ?? ''}; or remove only the record, and keep the functions until the next boot: --later`,
    });
  return plan(
    [
      ...removeVirtualFunctions(device, {virtual, below: [], autoprobe: sriov.autoprobe}),
      ...setAutoprobe(slot, sriov, true),
      stop,
      ...files,
    ],
    {notes: harmlessNotes(holders)},
  );
}

/** Refuses what cannot work on this device, as far as that is known before the write. */
function refuseNumber(device: Device, wanted: VirtualFunctions, state: SriovState): Refusal | undefined {
  const {slot, id, driver} = device;
  const {sriov, isVirtual, lastBus, lacksSpace, noIommu} = state;
  const refused = (error: Pick<ErrorDetails, 'message' | 'hint'> & Partial<ErrorDetails>) =>
    refuse({code: 'not-switchable', exitCode: ExitCode.refused, details: ['nothing was changed'], ...error});
  if (isVirtual)
    return refused({
      message: `${slot} (${id}) is itself a virtual function: it cannot have any`,
      hint: '`pearasys sriov list` shows the device that it belongs to',
    });
  if (sriov === undefined)
    return refused({
      message: `${slot} (${id}) has no SR-IOV: ${devicePath(slot, 'sriov_totalvfs')} does not exist`,
      hint: 'if the device supports it, enable SR-IOV in the firmware of the machine and of the card; `pearasys sriov list` lists the devices that have it',
    });
  if (wanted.count > sriov.total)
    return refused({
      code: 'bad-settings',
      message: `${slot} (${id}) can have at most ${sriov.total} virtual functions, not ${wanted.count}`,
      hint: `pearasys sriov set ${slot} ${Math.max(sriov.total, 1)}`,
    });
  if (driver === undefined)
    return refused({
      message: `${slot} (${id}) has no driver: the driver of a device creates its virtual functions`,
      hint: `pearasys bind default ${slot}`,
    });
  if (isStandIn(driver) && !(driver === vfioPci && state.vfioCreates))
    return refused({
      message: `${slot} (${id}) is on ${driver}, which creates no virtual functions`,
      hint: `pearasys bind default ${slot}${driver === vfioPci ? '; or load vfio-pci with enable_sriov=1' : ''}`,
    });
  const fitting = countOnBuses(slot, wanted.count, sriov, lastBus);
  if (sriov.count !== wanted.count && fitting < wanted.count)
    return refused({
      code: 'bad-settings',
      message: `not enough bus numbers for ${wanted.count} virtual functions of ${slot} (${id}): the bridge above it has enough for ${fitting}`,
      hint: `boot with pci=assign-busses, or set fewer: pearasys sriov set ${slot} ${Math.max(fitting, 1)}`,
    });
  if (lacksSpace && sriov.count === 0)
    return refused({
      message: `no memory space for the BARs of the virtual functions of ${slot} (${id})`,
      hint: 'enable SR-IOV and "above 4G decoding" in the firmware, or boot with pci=realloc',
    });
  const vfio = driversIn(wanted).find(isVfio);
  if (vfio !== undefined && device.group === undefined && noIommu !== 'on')
    return refused({
      code: 'no-iommu',
      message: `${slot} (${id}) has no IOMMU group, and ${vfio} needs one for its virtual functions`,
      hint: 'enable the IOMMU in the firmware and boot with intel_iommu=on (AMD: enabled by default)',
    });
  return undefined;
}

/** How many of the VFs have a bus number. */
function countOnBuses(pf: Slot, count: number, {places}: Sriov, lastBus: number | undefined): number {
  if (places === undefined) return count;
  for (let index = 0; index < count; index++) {
    const slot = virtualSlot(pf, places, index);
    const bus = slot === undefined ? undefined : Number.parseInt(slot.slice(-7, -5), 16);
    if (bus === undefined || (lastBus !== undefined && bus > lastBus)) return index;
  }
  return count;
}

/** What the kernel's answers mean (sriov_numvfs_store and sriov_enable in drivers/pci). */
function hintsFor({slot, driver = 'its driver'}: Device): Record<string, string> {
  const space =
    'not enough bus numbers, or no memory space for the BARs: enable SR-IOV in the firmware, or boot with pci=realloc or pci=assign-busses';
  return {
    ENOENT: `${driver} cannot create virtual functions through sriov_numvfs: use an option of its module (such as max_vfs=), devlink(8), or another driver`,
    ENOMEM: space,
    ENOSPC: space,
    ERANGE: `set fewer; this prints how many ${driver} allows: cat ${devicePath(slot, 'sriov_totalvfs')}`,
  };
}

function put(
  path: string,
  content: string,
  {files}: SriovState,
  options: {readonly mode?: number} = {},
): Step[] {
  const previous = files.get(path);
  return previous?.content === content && options.mode === undefined
    ? []
    : [writeFile(path, content, previous, options)];
}

function drop(path: string, {files}: SriovState): Step[] {
  const previous = files.get(path);
  return previous === undefined ? [] : [removeFile(path, previous)];
}
