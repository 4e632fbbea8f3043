/**
 * Which devices go to userspace drivers, and which stay on theirs. It is a policy: how a device is switched, and what
 * stops that, is the same as for `bind`.
 */
import {ExitCode, type ErrorCode} from '../../host/errors.js';
import type {HostReader} from '../../host/host.js';
import {dependentsOf} from '../../devices/pci/dependents.js';
import {isBridge, type Device} from '../../devices/pci/device.js';
import {spdkKindOf, typesOf} from '../../devices/pci/device-types.js';
import {isForUserspace, isStandIn, isVfio, noDriver, vfioPci, type Driver} from '../../devices/pci/driver.js';
import {findDriver, preferredVariant} from '../../devices/pci/modules.js';
import {readNoIommuMode, type NoIommuMode} from '../../devices/pci/no-iommu.js';
import {readParts, type Parts} from '../../devices/pci/parts.js';
import type {Slot} from '../../devices/pci/slot.js';
import {printTakenParts, readTakenParts, takenPath} from '../../state/userspace/taken.js';
import {describeContents, readUnsearchable, type DiskContents} from '../../usage/contents.js';
import type {Holder} from '../../usage/holder.js';
import {readRisks} from '../../usage/risks.js';
import {adviseOnHolder, describeHolder} from '../../usage/words.js';
import {
  plan,
  readFileState,
  refuse,
  removeFile,
  writeFile,
  type ExpectDisksStep,
  type Plan,
  type Planned,
  type Step,
} from '../step.js';
import {markReleased} from '../switch/claim.js';
import {refuseRisks} from '../switch/refusals.js';
import {
  membersInTheWay,
  planSwitch,
  readSwitch,
  type SwitchInput,
  type SwitchRules,
  type Target,
} from '../switch/switch.js';

/** What `userspace config` is asked for. */
export interface UserspaceRequest {
  /** The driver for all devices; undefined to choose one for each. */
  readonly driver: Driver | undefined;
  /** Whether a variant driver of VFIO is used for a device that has one. */
  readonly variant: boolean;
  /** Disks that are taken although they carry data, or could not be searched for it. */
  readonly take: ReadonlySet<Slot>;
  /** Devices that are never touched. */
  readonly blocked: ReadonlySet<Slot>;
  /** Devices with a record that are not touched, because the user did not name them. */
  readonly claimed: ReadonlySet<Slot>;
}

/** Why a device stays on its driver. */
export interface Skip {
  readonly slot: Slot;
  readonly id: string;
  readonly code: ErrorCode;
  /** One or more facts. */
  readonly reasons: readonly string[];
  /** What to do about it. */
  readonly hint: string | undefined;
}

/** What is done with devices. */
export interface Decision {
  /** The devices that are switched, in order, with their drivers; undefined for the kernel's choice. */
  readonly switched: readonly {readonly device: Device; readonly driver: Driver | undefined}[];
  /** Devices that need no change. */
  readonly already: readonly Device[];
  readonly skipped: readonly Skip[];
}

/** The driver for a device, or why there is none. */
type Choice =
  | {
      readonly driver: Driver;
      /** The driver that needs no viable group, where that can work. */
      readonly otherwise?: Driver;
    }
  | {readonly skip: Reasons};

/** UIO's driver for any device. */
const uioPciGeneric = 'uio_pci_generic' as Driver;

/** No force: nothing that is in use is taken. The groups are checked for all devices together. */
const rules: SwitchRules = {force: false, wholeGroup: false};

/** The input of {@link decide}. */
export interface UserspaceInput {
  readonly devices: readonly Device[];
  readonly request: UserspaceRequest;
  readonly choices: ReadonlyMap<Slot, Choice>;
  /** A switch for each driver, of all devices that may get it. */
  readonly switches: ReadonlyMap<Driver, SwitchInput>;
  /** Devices without a driver that a run has searched and taken before: it may have been killed. */
  readonly begun: ReadonlySet<Slot>;
  /** What would be lost with single devices: the only display, all keyboards. */
  readonly risks: ReadonlyMap<Slot, readonly string[]>;
  /** For storage controllers: why their disks cannot be searched at all. */
  readonly unsearchable: ReadonlyMap<Slot, string>;
}

/** Reads {@link UserspaceInput}. */
export function readUserspace(
  host: HostReader,
  devices: readonly Device[],
  request: UserspaceRequest,
): UserspaceInput {
  const open = devices.filter(({slot}) => !request.blocked.has(slot) && !request.claimed.has(slot));
  const noIommu = open.some(({group}) => group === undefined) ? readNoIommuMode(host) : undefined;
  const choices = new Map(open.map((device) => [device.slot, chooseDriver(host, device, request, noIommu)]));
  const drivers = new Set(
    [...choices.values()].flatMap((choice) =>
      'driver' in choice
        ? [choice.driver, ...(choice.otherwise === undefined ? [] : [choice.otherwise])]
        : [],
    ),
  );
  const switches = new Map(
    [...drivers].map((driver) => {
      const its = open.filter(({slot}) => {
        const choice = choices.get(slot);
        return (
          choice !== undefined && 'driver' in choice && [choice.driver, choice.otherwise].includes(driver)
        );
      });
      return [driver, readSwitch(host, its, {kind: 'claim', driver}, rules)];
    }),
  );
  const holders = [...switches.values()].flatMap((one) => one.holders);
  return {
    devices,
    request,
    choices,
    switches,
    begun: new Set(open.filter((device) => isBegun(host, device)).map(({slot}) => slot)),
    risks: readRiskOfEach(host, open, holders),
    unsearchable: new Map(
      open.flatMap((device) => {
        const reason = readUnsearchable(host, device, goingWith(device, choices, switches));
        return reason === undefined ? [] : [[device.slot, reason] as const];
      }),
    ),
  };
}

/** What exists only through the driver that the device would leave. */
function goingWith(
  {slot}: Device,
  choices: UserspaceInput['choices'],
  switches: UserspaceInput['switches'],
): Device[] {
  const choice = choices.get(slot);
  const dependents =
    choice !== undefined && 'driver' in choice
      ? switches.get(choice.driver)?.dependents.get(slot)
      : undefined;
  return dependents === undefined ? [] : dependentsOf(dependents);
}

/**
 * Whether a run was killed while it took the device, or gave it back: then it has an override. Without one, the device was
 * given back since by other means, and may have been written to.
 */
function isBegun(host: HostReader, device: Device): boolean {
  const {driver, override} = device;
  return driver === undefined && override !== undefined && readTakenParts(host, device) !== undefined;
}

/** What is lost with each single device. The last route is among the holders already. */
function readRiskOfEach(
  host: HostReader,
  devices: readonly Device[],
  holders: readonly Holder[],
): Map<Slot, readonly string[]> {
  const own = (slot: Slot) => holders.filter((holder) => holder.slot === slot);
  if (readRisks(host, devices, holders).length === 0) return new Map();
  return new Map(
    devices
      .map((device) => [device.slot, readRisks(host, [device], own(device.slot))] as const)
      .filter(([, risks]) => risks.length > 0),
  );
}

/**
 * The driver for a device: vfio-pci or its variant, and without an IOMMU group the same in no-IOMMU mode if that is on,
 * otherwise uio_pci_generic.
 */
function chooseDriver(
  host: HostReader,
  device: Device,
  {driver, variant}: UserspaceRequest,
  noIommu: NoIommuMode | undefined,
): Choice {
  if (driver !== undefined) return {driver};
  const uio = findDriver(host, uioPciGeneric).kind === 'unknown' ? undefined : uioPciGeneric;
  if (device.group === undefined && noIommu !== 'on')
    return uio === undefined
      ? {
          skip: {
            code: 'no-iommu',
            reasons: ['it has no IOMMU group, no-IOMMU mode is off, and the kernel has no uio_pci_generic'],
            hint: 'enable the IOMMU in the firmware and boot with intel_iommu=on (AMD: enabled by default)',
          },
        }
      : {driver: uio};
  const vfio = variant
    ? isVfio(device.driver)
      ? (device.driver as Driver)
      : (preferredVariant(host, device) ?? vfioPci)
    : vfioPci;
  // With a translating IOMMU, a device on UIO could not reach the memory that its program tells it.
  const passes = device.group !== undefined && readDomain(host, device.group) === 'identity';
  return {driver: vfio, ...(passes && uio !== undefined ? {otherwise: uio} : {})};
}

/** The type of the default domain of an IOMMU group (Documentation/ABI/testing/sysfs-kernel-iommu_groups). */
function readDomain(host: HostReader, group: number): string | undefined {
  return host.readText(`/sys/kernel/iommu_groups/${group}/type`);
}

/** The devices whose disks must be searched before they can be taken: all that would be taken otherwise. */
export function devicesToSearch(input: UserspaceInput): Device[] {
  const {switched} = decide(input, []);
  return switched.map(({device}) => device).filter((device) => mustBeBlank(input, device));
}

function mustBeBlank(input: UserspaceInput, device: Device): boolean {
  return !input.request.take.has(device.slot) && mayHaveDisks(input, device);
}

/** Whether the device may have disks that the host could use. */
function mayHaveDisks({begun}: UserspaceInput, {slot, driver}: Device): boolean {
  return !isForUserspace(driver) && !begun.has(slot);
}

/**
 * Decides for each device.
 * @param contents what the disks of {@link devicesToSearch} carry.
 */
export function decide(input: UserspaceInput, contents: readonly DiskContents[]): Decision {
  const {devices, request, choices, switches, risks} = input;
  const drivers = new Map<Slot, Driver>();
  const already: Device[] = [];
  const skipped = new Map<Slot, Reasons>();
  for (const device of devices) {
    const {slot} = device;
    const choice = choices.get(slot);
    const risk = risks.get(slot);
    if (choice === undefined) skipped.set(slot, request.blocked.has(slot) ? isBlocked : hasClaim(device));
    else if ('skip' in choice) skipped.set(slot, choice.skip);
    else {
      const stops =
        whyNot(switches.get(choice.driver), device) ??
        whyXen(device) ??
        whyDependents(input, device) ??
        (risk === undefined ? undefined : {code: 'in-use' as const, reasons: risk, hint: undefined}) ??
        whyData(input, device, contents);
      if (stops === 'already') already.push(device);
      else if (stops === undefined) drivers.set(slot, choice.driver);
      else skipped.set(slot, stops);
    }
  }
  settleGroups(input, drivers, skipped);
  return {
    switched: devices
      .filter(({slot}) => drivers.has(slot))
      .map((device) => ({device, driver: drivers.get(device.slot)})),
    already,
    skipped: withSlots(devices, skipped),
  };
}

type Reasons = Omit<Skip, 'slot' | 'id'>;

const isBlocked: Reasons = {code: 'blocked', reasons: ['PCI_BLOCKED names it'], hint: undefined};

/** Its record says which driver it gets and who may open it, also at the next boot. */
function hasClaim({slot}: Device): Reasons {
  return {
    code: 'blocked',
    reasons: ['it is permanently claimed'],
    hint: `to change it until the next boot, name it: userspace config ${slot}`,
  };
}

/** Which guest has a device, and whether one has it, only Xen knows. */
function whyXen({slot, driver}: Device): Reasons | undefined {
  return driver === 'pciback'
    ? {
        code: 'in-use',
        reasons: ['it is on pciback, so a Xen guest may have it'],
        hint: `detach it from the guest, then: xl pci-assignable-remove ${slot}`,
      }
    : undefined;
}

/** Why what goes away with a device must stay. What the host knows to be in use is among the holders of the device. */
function whyDependents({request, choices, switches}: UserspaceInput, device: Device): Reasons | undefined {
  for (const one of goingWith(device, choices, switches)) {
    const stops = request.blocked.has(one.slot) ? isBlocked : whyXen(one);
    if (stops !== undefined)
      return {...stops, reasons: stops.reasons.map((reason) => `${one.slot} goes away with it: ${reason}`)};
  }
  return undefined;
}

function withSlots(devices: readonly Device[], skipped: ReadonlyMap<Slot, Reasons>): Skip[] {
  return devices.flatMap(({slot, id}) => {
    const reasons = skipped.get(slot);
    return reasons === undefined ? [] : [{slot, id, ...reasons}];
  });
}

/** Why a device cannot be switched, whatever becomes of the others; `already` if it need not be. */
function whyNot(input: SwitchInput | undefined, device: Device): Reasons | 'already' | undefined {
  if (input === undefined) return undefined;
  const planned = planSwitch(only(input, [device]));
  if (planned.kind === 'plan') return planned.steps.length === 0 ? 'already' : undefined;
  const {code, message, hint} = planned.error;
  const users = input.holders.filter(({slot, harm}) => slot === device.slot && harm !== 'none');
  if (code === 'in-use')
    return {
      code,
      reasons: users.map(describeHolder),
      hint: [...new Set(users.map(adviseOnHolder))].join('; '),
    };
  const name = `${device.slot} (${device.id}) `;
  return {
    code,
    reasons: [message.startsWith(name) ? message.slice(name.length) : message],
    hint: hint?.replace('; or override with --force', ''),
  };
}

/** The part of a switch that is about these devices. */
function only(
  input: SwitchInput,
  devices: readonly Device[],
  elsewhere: ReadonlySet<Slot> = new Set(),
): SwitchInput {
  const slots = new Set(devices.map(({slot}) => slot));
  return {
    ...input,
    devices,
    holders: input.holders.filter(({slot}) => slots.has(slot)),
    dependents: new Map([...input.dependents].filter(([slot]) => slots.has(slot))),
    quarantined: (input.quarantined ?? []).filter(({slot}) => slots.has(slot)),
    elsewhere,
  };
}

function whyData(
  input: UserspaceInput,
  device: Device,
  contents: readonly DiskContents[],
): Reasons | undefined {
  if (!mustBeBlank(input, device)) return undefined;
  const unsearchable = input.unsearchable.get(device.slot);
  const reasons = [
    ...(unsearchable === undefined ? [] : [unsearchable]),
    ...contents
      .filter(({slots}) => slots.includes(device.slot))
      .map(describeContents)
      .filter((text) => text !== undefined),
  ];
  return reasons.length === 0
    ? undefined
    : {code: 'carries-data', reasons, hint: `to take it anyway, add: --take ${device.slot}`};
}

/**
 * Leaves out the devices whose groups VFIO could not use, or gives them the driver that needs no group. Each device that
 * is left out may be what another group member needed.
 */
function settleGroups(
  {devices, choices, switches}: UserspaceInput,
  drivers: Map<Slot, Driver>,
  skipped: Map<Slot, Reasons>,
): void {
  for (let changed = true; changed;) {
    changed = false;
    for (const device of devices) {
      const inTheWay = membersAgainst(device, {devices, switches}, drivers);
      if (inTheWay.length === 0) continue;
      changed = true;
      const choice = choices.get(device.slot);
      const otherwise = choice !== undefined && 'driver' in choice ? choice.otherwise : undefined;
      if (otherwise !== undefined && whyNot(switches.get(otherwise), device) === undefined) {
        drivers.set(device.slot, otherwise);
        continue;
      }
      drivers.delete(device.slot);
      skipped.set(device.slot, {
        code: 'group-not-viable',
        reasons: inTheWay.map(
          (member) =>
            `IOMMU group ${member.group ?? '?'} would not be viable for VFIO: ${member.slot} (${member.id}) is on ${member.driver ?? 'no driver'}`,
        ),
        hint: `name the whole group: ${[device, ...inTheWay].map(({slot}) => slot).join(' ')}`,
      });
    }
  }
}

/** The members of a device's group that keep VFIO from using it when these drivers get their devices. */
function membersAgainst(
  device: Device,
  {devices, switches}: Pick<UserspaceInput, 'devices' | 'switches'>,
  drivers: ReadonlyMap<Slot, Driver>,
): Device[] {
  const driver = drivers.get(device.slot);
  const input = driver === undefined ? undefined : switches.get(driver);
  if (input === undefined) return [];
  const same = devices.filter(({slot}) => drivers.get(slot) === driver);
  return membersInTheWay(only(input, same, forVfio(drivers))).filter(({group}) => group === device.group);
}

function forVfio(drivers: ReadonlyMap<Slot, Driver | undefined>): Set<Slot> {
  return new Set([...drivers].filter(([, driver]) => isVfio(driver)).map(([slot]) => slot));
}

/** Adds what was decided about others. */
export function withSkipped(
  planned: Planned,
  {switched, already, skipped}: Decision,
  named: boolean,
): Planned {
  if (planned.kind === 'refusal') return planned;
  const [first, ...more] = skipped;
  // Whoever names devices and gets none of them must notice.
  if (named && first !== undefined && switched.length === 0 && already.length === 0)
    return refuse({
      code: first.code,
      exitCode: ExitCode.refused,
      message:
        more.length === 0
          ? `${first.slot} (${first.id}) cannot be taken: ${first.reasons.join('; ')}`
          : 'none of these devices can be switched',
      details: [
        ...(more.length === 0
          ? []
          : skipped.map(({slot, id, reasons}) => `${slot} (${id}): ${reasons.join('; ')}`)),
        'nothing was changed',
      ],
      ...(first.hint === undefined || first.hint === '' ? {} : {hint: first.hint}),
    });
  return {...planned, notes: [...skipped.map(describeSkip), ...planned.notes]};
}

/** A skipped device in one line. */
export function describeSkip({slot, id, reasons, hint}: Skip): string {
  const advice = hint === undefined || hint === '' ? '' : `; ${hint}`;
  return `${slot} (${id}) is skipped: ${reasons.join('; ')}${advice}`;
}

/** Plans what was decided: one plan, which is undone as a whole. */
export function planUserspace(
  host: HostReader,
  input: UserspaceInput,
  {switched}: Decision,
  contents: readonly DiskContents[],
): Planned {
  const devices = switched.map(({device}) => device);
  const holders = [...input.switches.values()].flatMap((one) => one.holders);
  const risks = readRisks(
    host,
    devices,
    holders.filter(({slot}) => devices.some((device) => device.slot === slot)),
  );
  // Each is harmless alone: for example two cards, each with one of two keyboards.
  const refusal = refuseRisks(risks, 'name fewer devices');
  if (refusal !== undefined) return refusal;
  const elsewhere = forVfio(new Map(switched.map(({device, driver}) => [device.slot, driver])));
  const parts: Plan[] = [];
  for (const [driver, all] of input.switches) {
    const its = switched.filter((one) => one.driver === driver).map(({device}) => device);
    const planned = planSwitch(only(all, [...its].sort(bySlowness), elsewhere));
    if (planned.kind === 'refusal') return planned;
    parts.push(planned);
    if (driver === noDriver) parts.push(plan(markReleased(host, its)));
  }
  const checks = new Map(
    devices
      .filter((device) => mayHaveDisks(input, device))
      .flatMap((device): [Slot, ExpectDisksStep][] => {
        const {slot} = device;
        const blank = mustBeBlank(input, device);
        const nodes = contents.filter(({slots}) => slots.includes(slot)).map(({node}) => node);
        // A disk may appear long after its controller is live.
        return blank && nodes.length === 0 && !typesOf(device).includes('storage')
          ? []
          : [[slot, {kind: 'expect-disks', slot, blank, nodes, undo: []}]];
      }),
  );
  const steps = parts.flatMap((part) => withChecks(part.steps, checks));
  return plan([...rememberParts(host, devices), ...inLanes(steps, devices)], {
    notes: parts.flatMap(({notes}) => notes),
  });
}

/** Puts the check of each device before the first step that changes the device. */
function withChecks(steps: readonly Step[], checks: ReadonlyMap<Slot, ExpectDisksStep>): Step[] {
  const left = new Map(checks);
  return steps.flatMap((step) => {
    const check = step.slot === undefined ? undefined : left.get(step.slot);
    if (check === undefined) return [step];
    left.delete(check.slot);
    return [check, step];
  });
}

/**
 * An NVMe disk may take seconds to shut down: such devices leave their driver at the same time. The kernel does not
 * survive that with every driver (ioatdma: https://bugzilla.kernel.org/show_bug.cgi?id=209041).
 */
function isSlow({driver}: Device): boolean {
  return driver === 'nvme';
}

/** The slow ones follow each other, to be done at the same time. */
function bySlowness(one: Device, other: Device): number {
  return Number(isSlow(other)) - Number(isSlow(one));
}

function inLanes(steps: readonly Step[], devices: readonly Device[]): Step[] {
  const slow = new Set(devices.filter(isSlow).map(({slot}) => slot));
  return steps.map((step) => {
    const {slot} = step;
    return slot !== undefined && slow.has(slot) ? {...step, lane: slot} : step;
  });
}

/** Notes what each device provides, for its reset. */
function rememberParts(host: HostReader, devices: readonly Device[]): Step[] {
  const leaving = devices.filter(({driver}) => driver !== undefined && !isStandIn(driver));
  const parts = readParts(host, new Set(leaving.map(({slot}) => slot)));
  return leaving.map(({slot, id}) => {
    const {disks = [], interfaces = []}: Partial<Parts> = parts.get(slot) ?? {};
    const text = printTakenParts({id, disks: disks.length, interfaces: interfaces.length});
    return writeFile(takenPath(slot), text, readFileState(host, takenPath(slot)));
  });
}

/** The input of {@link decideReset}. */
export interface ResetInput {
  readonly devices: readonly Device[];
  /** Devices that are never touched. */
  readonly blocked: ReadonlySet<Slot>;
  readonly input: SwitchInput;
}

/** Reads {@link ResetInput}. */
export function readReset(
  host: HostReader,
  devices: readonly Device[],
  blocked: ReadonlySet<Slot>,
): ResetInput {
  const target: Target = {kind: 'default'};
  const open = devices.filter(({slot}) => !blocked.has(slot));
  return {devices, blocked, input: readSwitch(host, open, target, rules)};
}

/** Decides which devices go back to the drivers that the kernel chooses. */
export function decideReset({devices, blocked, input}: ResetInput): Decision {
  const skipped = new Map<Slot, Reasons>();
  const already: Device[] = [];
  const switched: Device[] = [];
  for (const device of devices) {
    const stops = blocked.has(device.slot) ? isBlocked : whyNot(input, device);
    if (stops === undefined) switched.push(device);
    else if (stops === 'already') already.push(device);
    else skipped.set(device.slot, stops);
  }
  return {
    switched: switched.map((device) => ({device, driver: undefined})),
    already,
    skipped: withSlots(devices, skipped),
  };
}

/** Plans a reset, which ends when the disks and interfaces of the devices are there. */
export function planReset(host: HostReader, {input}: ResetInput, {switched, already}: Decision): Planned {
  const devices = switched.map(({device}) => device);
  const planned = planSwitch(only(input, devices));
  if (planned.kind === 'refusal') return planned;
  const waits = devices.flatMap((device): Step[] => {
    const {slot} = device;
    const choice = input.defaults.get(slot);
    if (choice === undefined || choice.modules.length === 0) return [];
    const {disks, interfaces} = readTakenParts(host, device) ?? usualParts(device);
    return disks + interfaces === 0
      ? []
      : [{kind: 'expect-parts', slot, disks, interfaces, lane: slot, undo: []}];
  });
  const marks = [...devices, ...already].flatMap(({slot}) => {
    const file = readFileState(host, takenPath(slot));
    return file === undefined ? [] : [removeFile(takenPath(slot), file)];
  });
  return {...planned, steps: [...planned.steps, ...waits, ...marks]};
}

/** What a device of this type has, if nothing was noted about it. */
function usualParts(device: Device): {readonly disks: number; readonly interfaces: number} {
  const types = typesOf(device);
  return {
    disks: spdkKindOf(device) === 'nvme' ? 1 : 0,
    interfaces: types.includes('net') && !isBridge(device) ? 1 : 0,
  };
}
