import {ExitCode} from '../../host/errors.js';
import type {HostReader} from '../../host/host.js';
import {carriersOf, readDependents, type Dependents} from '../../devices/pci/dependents.js';
import {
  isBridge,
  modaliasOf,
  readGroupMembers,
  readResponds,
  servesVfio,
  type Device,
} from '../../devices/pci/device.js';
import {isVfio, noDriver, type Driver} from '../../devices/pci/driver.js';
import {readHolders} from '../../usage/holders.js';
import type {Holder} from '../../usage/holder.js';
import {
  findDriver,
  readDefaultDrivers,
  type DefaultDriver,
  type DriverSource,
} from '../../devices/pci/modules.js';
import {noIommuParameter, readNoIommuMode, type NoIommuMode} from '../../devices/pci/no-iommu.js';
import type {Slot} from '../../devices/pci/slot.js';
import {appliedPath} from '../../state/applied-settings.js';
import {printQuarantine, quarantinePath, readQuarantine, type Quarantine} from '../../state/quarantine.js';
import {dependentNotes, goingSlots, leaveDriver, refuseDependents, withoutDependents} from './leaving.js';
import {
  bringDriver,
  harmlessNotes,
  refuseBridges,
  refuseHeld,
  refuseLocked,
  refuseVgpus,
  refuseOverride,
  refuseQuarantined,
  refuseSilent,
} from './refusals.js';
import {restoreSettings, type SettingSteps} from './settings.js';
import {
  bindTo,
  expectDefault,
  expectDriver,
  plan,
  probe,
  refuse,
  removeFile,
  setOverride,
  type Planned,
  type Refusal,
  type Step,
} from '../step.js';

/**
 * The target of a switch: claimed by a driver (`none` keeps every driver off), returned to the driver that the kernel
 * would choose, or released for binding by hand.
 */
export type Target =
  {readonly kind: 'claim'; readonly driver: Driver} | {readonly kind: 'default'} | {readonly kind: 'release'};

/** How strict a switch is. */
export interface SwitchRules {
  /** Continues despite holders for which harm is not certain, and despite a group that is not viable. */
  readonly force: boolean;
  /** Whether the user has agreed to lose the display or the last route to the machine; default: no. */
  readonly accepted?: boolean;
  /**
   * Whether a group that would not be viable is refused. A unit claims one function, its siblings' units the
   * others, so that the group becomes viable only with the last of them.
   */
  readonly wholeGroup: boolean;
  /** Whether each device must exist afterwards; default: those that disappear with another are left out. */
  readonly allStay?: boolean;
}

/** The input of {@link planSwitch}. */
export interface SwitchInput {
  readonly devices: readonly Device[];
  readonly target: Target;
  readonly rules: SwitchRules;
  /** The holders of these devices. */
  readonly holders: readonly Holder[];
  /** The members of the devices' groups, these devices included. */
  readonly members: readonly Device[];
  /** Where the claiming driver comes from. */
  readonly source: DriverSource;
  /** For a return to the default: what the kernel would choose for each device. */
  readonly defaults: ReadonlyMap<Slot, DefaultDriver>;
  /** What exists only through the present driver of each device that leaves it. */
  readonly dependents: ReadonlyMap<Slot, Dependents>;
  /** For members that make the group not viable: the devices that each of these devices needs to exist. */
  readonly carriers: ReadonlyMap<Slot, readonly Slot[]>;
  /** How VFIO treats devices without an IOMMU group; read only if there are any. */
  readonly noIommu?: NoIommuMode;
  /** Devices to be changed that do not respond; default none. */
  readonly silent?: ReadonlySet<Slot>;
  /** Devices to be changed that are quarantined; default none. */
  readonly quarantined?: readonly Quarantine[];
  /** Devices that another part of the same plan gives to VFIO; default none. */
  readonly elsewhere?: ReadonlySet<Slot>;
  /** The steps for the settings of each device: to apply those of a claim, or to restore what was before one. */
  readonly settings?: SettingsOf;
}

/** The steps for the settings of devices. */
type SettingsOf = ReadonlyMap<Slot, SettingSteps>;

/**
 * Reads the input of {@link planSwitch}.
 * @param claimed the settings of a claim; the other devices get back what was set before.
 */
export function readSwitch(
  host: HostReader,
  devices: readonly Device[],
  target: Target,
  rules: SwitchRules,
  claimed: SettingsOf = new Map(),
): SwitchInput {
  const defaults = target.kind === 'default' ? readDefaultDrivers(host, devices) : new Map<Slot, never>();
  const changing = devices.filter(
    (device) => !isRight(device, target, defaults) || claimed.get(device.slot)?.again === true,
  );
  const groups = new Map(devices.map((device) => [device.group ?? device.slot, device]));
  const members = [...groups.values()].flatMap((device) => readGroupMembers(host, device));
  const toVfio = target.kind === 'claim' && isVfio(target.driver);
  return {
    devices,
    target,
    rules,
    holders:
      changing.length === 0
        ? []
        : readHolders(
            host,
            // The firmware's framebuffer uses a boot display that has no driver yet.
            changing.filter((device) => device.driver !== undefined || device.bootDisplay),
          ),
    members,
    silent: new Set(changing.map(({slot}) => slot).filter((slot) => readResponds(host, slot) === false)),
    quarantined: changing
      .map((device) => readQuarantine(host, device))
      .filter((quarantine) => quarantine !== undefined),
    source: target.kind === 'claim' ? findDriver(host, target.driver) : {kind: 'present'},
    defaults,
    dependents: new Map(
      changing
        .filter((device) => !isBridge(device) && leavesDriver(device, {target, defaults, settings: claimed}))
        .map((device) => [device.slot, readDependents(host, device.slot)]),
    ),
    carriers: new Map(
      toVfio && members.length > devices.length
        ? changing.map((device) => [device.slot, carriersOf(host, device.slot)])
        : [],
    ),
    settings: new Map([
      // A run that was killed has unbound it, and has not restored what was set.
      ...devices
        .filter(
          (device) =>
            target.kind === 'release' && device.driver === undefined && host.exists(appliedPath(device.slot)),
        )
        .map((device) => [device.slot, restoreSettings(host, device)] as const),
      ...changing.map(
        (device) =>
          [
            device.slot,
            restoreSettings(host, device, target.kind === 'claim' ? target.driver : undefined),
          ] as const,
      ),
      ...claimed,
    ]),
    ...(toVfio && changing.some(({group}) => group === undefined) ? {noIommu: readNoIommuMode(host)} : {}),
  };
}

/**
 * The plan that brings all devices to the target, or the refusal. Devices that have reached it, and those that
 * disappear with the driver of another one, are not touched. The sequence for each device is the kernel's safe one
 * (Documentation/ABI/testing/sysfs-bus-pci, driver_override): override, unbind, probe, and a check of the driver link.
 */
export function planSwitch(input: SwitchInput): Planned {
  const {target, source, holders, rules, defaults, dependents, settings, quarantined = []} = input;
  const {silent = new Set<Slot>()} = input;
  const wrong = input.devices.filter(
    (device) =>
      device.locked || !isRight(device, target, defaults) || settings?.get(device.slot)?.again === true,
  );
  const changing = withoutDependents(wrong, dependents);
  const setting = input.devices
    .filter((device) => !wrong.includes(device))
    .flatMap(({slot}) => settingSteps(settings?.get(slot)));
  if (changing.length === 0) return plan(setting);
  const bringing = target.kind === 'claim' ? bringDriver(target.driver, source) : [];
  const refusal =
    refuseLocked(input.devices) ??
    refuseBridges(changing) ??
    refuseOverride(changing, target.kind === 'claim') ??
    (target.kind === 'release' ? undefined : refuseQuarantined(quarantined, rules.force)) ??
    (target.kind === 'release' ? undefined : refuseSilent(changing, silent, rules.force)) ??
    (rules.allStay === true ? refuseDependents(input.devices, dependents) : undefined) ??
    ('kind' in bringing ? bringing : undefined) ??
    refuseWithoutIommu(changing, input) ??
    refuseVgpus(
      changing.filter((device) => leavesDriver(device, input)),
      rules.force,
    ) ??
    refuseHeld(changing, holders, rules.force, rules.accepted) ??
    refuseGroup(input);
  if (refusal !== undefined || 'kind' in bringing) return refusal ?? plan([]);
  const switching = changing.flatMap((device) => stepsFor(device, input));
  const notes = [
    ...harmlessNotes(holders),
    ...changing
      .filter(({slot}) => silent.has(slot))
      .map(({slot, id}) => `${slot} (${id}) does not respond: its configuration space reads all ones`),
    ...noIommuNotes(changing, input),
    ...changing.flatMap((device) => dependentNotes(device, dependents.get(device.slot), input.devices)),
    ...groupNotes(input),
  ];
  // It works: the mark is not needed any more.
  const marks = quarantined
    .filter(() => target.kind !== 'release')
    .map((one) => removeFile(quarantinePath(one.slot), {content: printQuarantine(one), mode: 0o644}));
  return plan([...bringing, ...switching, ...setting, ...marks], {notes});
}

/** Whether this driver has already claimed the device. */
export function isClaimed(device: Device, driver: Driver): boolean {
  return driver === noDriver
    ? device.driver === undefined && device.override === noDriver
    : device.driver === driver && (device.override ?? driver) === driver;
}

/** Whether the device has already reached the target. */
function isRight(device: Device, target: Target, defaults: SwitchInput['defaults']): boolean {
  switch (target.kind) {
    case 'claim':
      return isClaimed(device, target.driver);
    case 'default': {
      const choice = defaults.get(device.slot);
      if (device.override !== undefined || choice === undefined) return false;
      return device.driver === undefined ? choice.none : choice.bound;
    }
    case 'release':
      return device.driver === undefined && device.override === undefined;
  }
}

/** Whether a device that has not reached the target must be unbound from its present driver. */
function leavesDriver(
  device: Device,
  {target, defaults, settings}: Pick<SwitchInput, 'target' | 'defaults' | 'settings'>,
): boolean {
  if (device.driver === undefined) return false;
  switch (target.kind) {
    case 'claim':
      return device.driver !== target.driver || settings?.get(device.slot)?.again === true;
    case 'default':
      return defaults.get(device.slot)?.bound !== true;
    case 'release':
      return true;
  }
}

/** The steps for settings of a device that stays on its driver. */
function settingSteps(steps: SettingSteps | undefined): Step[] {
  return steps === undefined ? [] : [...steps.first, ...steps.without, ...steps.after];
}

function stepsFor(device: Device, input: SwitchInput): Step[] {
  const {target, defaults, dependents} = input;
  const settings = input.settings?.get(device.slot);
  const override = target.kind === 'claim' ? target.driver : undefined;
  const wanted = target.kind === 'claim' && target.driver !== noDriver ? target.driver : undefined;
  const leaves = leavesDriver(device, input);
  const steps: Step[] = [...(settings?.first ?? [])];
  if (device.override !== override) steps.push(setOverride(device.slot, override, device.override));
  if (leaves) steps.push(...leaveDriver(device, dependents.get(device.slot)));
  else if (device.driver !== undefined) return steps;
  steps.push(...(settings?.without ?? []));
  if (target.kind === 'default') {
    const choice = defaults.get(device.slot);
    const required = choice !== undefined && choice.modules.length > 0;
    steps.push(
      ...(choice?.loads === true ? [loadDefault(device)] : []),
      // By name first, because another driver with this id may have been registered before.
      ...(choice?.drivers ?? []).map((driver) =>
        bindTo(device.slot, driver, settings?.revival !== undefined),
      ),
      probe(device.slot),
      expectDefault(device.slot, required, device.driver, settings?.revival),
    );
  } else {
    if (wanted !== undefined) steps.push(probe(device.slot));
    steps.push(expectDriver(device.slot, wanted));
  }
  return [...steps, ...(settings?.after ?? [])];
}

/** By modalias, as udev does, so that modprobe.d applies to the device's modules. Not undone, because the host would load it too. */
export function loadDefault(device: Device): Step {
  return {kind: 'load-module', module: modaliasOf(device), undo: []};
}

function refuseWithoutIommu(
  changing: readonly Device[],
  {target, noIommu}: SwitchInput,
): Refusal | undefined {
  if (target.kind !== 'claim' || !isVfio(target.driver) || noIommu === 'on') return undefined;
  const alone = changing.find((device) => device.group === undefined);
  if (alone === undefined) return undefined;
  const state = {
    off: `no-IOMMU mode is off (${noIommuParameter} is N)`,
    'not-loaded': 'the vfio module is not loaded, and no-IOMMU mode is not configured',
    unsupported: 'this kernel has no no-IOMMU mode (CONFIG_VFIO_NOIOMMU is not set)',
  }[noIommu ?? 'off'];
  const cost = 'without DMA isolation: the device can then write to all memory, and the kernel is tainted';
  const ways = {
    off: [`pearasys driver no-iommu on (echo 1 > ${noIommuParameter}), ${cost}`],
    'not-loaded': [
      `modprobe vfio enable_unsafe_noiommu_mode=1, or for each boot \`options vfio enable_unsafe_noiommu_mode=1\` in /etc/modprobe.d/vfio.conf, ${cost}`,
    ],
    unsupported: [],
  }[noIommu ?? 'off'];
  return refuse({
    code: 'no-iommu',
    exitCode: ExitCode.refused,
    message: `${alone.slot} (${alone.id}) has no IOMMU group, and ${target.driver} needs one`,
    details: [state, 'nothing was changed'],
    hint: [
      'enable the IOMMU in the firmware and boot with intel_iommu=on (AMD: enabled by default)',
      ...ways,
      `or use uio_pci_generic: pearasys bind uio_pci_generic ${alone.slot}`,
    ].join('; '),
  });
}

function noIommuNotes(changing: readonly Device[], {noIommu, target}: SwitchInput): string[] {
  if (noIommu !== 'on' || target.kind !== 'claim') return [];
  return changing
    .filter(({group}) => group === undefined)
    .map(
      ({slot, id}) =>
        `${slot} (${id}) has no IOMMU group: ${target.driver} takes it in no-IOMMU mode, without DMA isolation; the device can write to all memory`,
    );
}

/**
 * The members that keep a group from VFIO when these devices are switched: a group is viable when each member
 * except bridges is on a vfio driver, on pci-stub, or on none (Documentation/driver-api/vfio.rst).
 */
export function membersInTheWay(input: SwitchInput): Device[] {
  const {devices, members, target, dependents, elsewhere = []} = input;
  if (target.kind !== 'claim' || !isVfio(target.driver)) return [];
  // Devices that disappear with these devices' drivers do not count; if they are in use, they are among the holders.
  const switched = new Set([
    ...devices.map((device) => device.slot),
    ...goingSlots(dependents),
    ...elsewhere,
  ]);
  return members.filter((member) => !switched.has(member.slot) && !leavesGroupViable(member));
}

/** Whether this member in its present state allows VFIO to use the group. */
export function leavesGroupViable(member: Device): boolean {
  return (
    isBridge(member) || member.driver === undefined || member.driver === 'pci-stub' || servesVfio(member)
  );
}

function refuseGroup(input: SwitchInput): Refusal | undefined {
  if (input.rules.force || !input.rules.wholeGroup) return undefined;
  const inTheWay = membersInTheWay(input);
  if (inTheWay.length === 0) return undefined;
  return refuse({
    code: 'group-not-viable',
    exitCode: ExitCode.refused,
    message: `${groupsOf(inTheWay)} would not be viable for VFIO: another member is on a host driver`,
    details: [
      ...inTheWay.map((member) => `${member.slot} (${member.id}) is on ${member.driver ?? 'no driver'}`),
      'nothing was changed',
    ],
    hint: hintForGroup(inTheWay, input),
  });
}

function hintForGroup(inTheWay: readonly Device[], {carriers}: SwitchInput): string {
  for (const [slot, above] of carriers) {
    const carrier = inTheWay.find((member) => above.includes(member.slot));
    if (carrier !== undefined)
      return `${slot} exists only while ${carrier.slot} is on ${carrier.driver ?? 'its driver'}, so the two cannot be switched together; switch only ${slot} with --force`;
  }
  return 'switch the whole group with --group (or the card with --siblings), or only this device with --force';
}

function groupNotes(input: SwitchInput): string[] {
  return membersInTheWay(input).map(
    (member) =>
      `group ${member.group ?? '?'} is not viable for VFIO while ${member.slot} (${member.id}) is on ${member.driver ?? 'no driver'}`,
  );
}

function groupsOf(devices: readonly Device[]): string {
  const groups = [...new Set(devices.map((device) => device.group))].sort();
  return `IOMMU group${groups.length === 1 ? '' : 's'} ${groups.join(', ')}`;
}
