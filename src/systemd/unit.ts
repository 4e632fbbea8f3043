import type {HostQuery, HostReader} from '../host/host.js';
import {generatedUnits, systemdUnits} from '../config/layout.js';
import {parseDriver, type Driver} from '../devices/pci/driver.js';
import {asSlot, type Slot} from '../devices/pci/slot.js';

/** The slot and driver of a unit. */
export interface UnitIdentity {
  readonly slot: Slot;
  readonly driver: Driver;
}

/** A unit with its state in systemd. */
export interface UnitState extends UnitIdentity {
  readonly unit: string;
  /** Whether the device is claimed at boot and at each hot-add. */
  readonly enabled: boolean;
  /**
   * systemd's ActiveState (`active`, `inactive`, `failed`, …), `failed` also if the claim has failed; undefined if
   * systemd is not running.
   */
  readonly active: string | undefined;
}

/**
 * `pearasys-<slot>@<driver>.service`. Slot and driver need no escaping, see systemd.unit(5). In the unit, `%j` is the
 * slot and `%i` the driver.
 */
export function unitName({slot, driver}: UnitIdentity): string {
  return `pearasys-${slot}@${driver}.service`;
}

/** The claim unit, which the unit of {@link unitName} requires: it claims the device if it is not on the driver yet. */
export function claimUnitName({slot, driver}: UnitIdentity): string {
  return `pearasys-claim-${slot}@${driver}.service`;
}

/** The name of the template of a slot's claim units. */
export function claimTemplateName(slot: Slot): string {
  return `pearasys-claim-${slot}@.service`;
}

/** The name of the slot's template: a separate file for each slot, because an alias would lose `%j`. */
export function templateName(slot: Slot): string {
  return `pearasys-${slot}@.service`;
}

/** The slot's device unit, which the rule names with `SYSTEMD_ALIAS`. */
export function deviceUnit(slot: Slot): string {
  return `sys-bus-pci-devices-${slot}.device`;
}

/** The unit of a mediated device: active while the device exists, regardless of what created it. */
export function mdevUnit(uuid: string): string {
  return `mdev@${uuid}.service`;
}

/** The name of the unit that mounts something at this path, see systemd.unit(5), STRING ESCAPING FOR INCLUSION IN UNIT NAMES. */
export function mountUnitName(path: string): string {
  const words = path.split('/').filter((word) => word !== '');
  const escaped = words
    .join('/')
    .replaceAll(/^\.|[^A-Za-z0-9:_./]/g, (character) =>
      [...Buffer.from(character)].map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join(''),
    );
  return `${escaped.replaceAll('/', '-')}.mount`;
}

/** The unit of a virtual function with an NVIDIA vGPU: active while the function is there and has its type. */
export function vgpuUnit(slot: Slot): string {
  return `vgpu@${slot}.service`;
}

/** The link that `systemctl enable` creates and the rule checks: it alone decides about claims at boot and hot-add. */
export function enabledLink(unit: UnitIdentity, folder: string = systemdUnits): string {
  return `${folder}/${deviceUnit(unit.slot)}.wants/${unitName(unit)}`;
}

/** The folder of settings for one unit. */
export function dropInFolder(unit: UnitIdentity, folder: string = systemdUnits): string {
  return `${folder}/${unitName(unit)}.d`;
}

/** The slot and driver in a unit's name; undefined for other units. */
export function parseUnitName(name: string): UnitIdentity | undefined {
  const [, slotText, driverText] = /^pearasys-([^@]+)@(.+)\.service$/.exec(name) ?? [];
  const slot = slotText === undefined ? undefined : asSlot(slotText);
  if (slot === undefined || driverText === undefined) return undefined;
  try {
    return {slot, driver: parseDriver(driverText)};
  } catch {
    return undefined;
  }
}

/**
 * The installed units: those that have a folder of settings or are enabled. Sorted by name.
 * @param folders by default also that of the units that pearasys-generator has written for this boot.
 */
export function readUnits(
  host: HostReader,
  folders: readonly string[] = [systemdUnits, generatedUnits],
): UnitIdentity[] {
  const found = new Map<string, UnitIdentity>();
  for (const folder of folders)
    for (const name of host.list(folder)) {
      const dropIn = name.endsWith('.service.d') ? parseUnitName(name.slice(0, -'.d'.length)) : undefined;
      if (dropIn !== undefined) found.set(unitName(dropIn), dropIn);
      if (!/^sys-bus-pci-devices-.*\.device\.wants$/.test(name)) continue;
      for (const link of host.list(`${folder}/${name}`)) {
        const unit = parseUnitName(link);
        if (unit !== undefined) found.set(unitName(unit), unit);
      }
    }
  return [...found.values()].sort((a, b) => (unitName(a) < unitName(b) ? -1 : 1));
}

/** Whether the unit is enabled: only the link counts, as in the rule. */
export function isEnabled(host: HostReader, unit: UnitIdentity): boolean {
  return [systemdUnits, generatedUnits].some(
    (folder) => host.info(enabledLink(unit, folder), false) !== undefined,
  );
}

/** Whether the slot has units, regardless of their drivers. */
export function hasUnits(host: HostReader, slot: Slot): boolean {
  return [systemdUnits, generatedUnits].some((folder) => host.exists(`${folder}/${templateName(slot)}`));
}

/** Whether the administrator has masked the unit: then systemd never starts it. */
export function isMasked(host: HostReader, unit: UnitIdentity): boolean {
  return host.readLink(`${systemdUnits}/${unitName(unit)}`) === '/dev/null';
}

/**
 * The installed units with their states. Queries systemd once, and only if a unit is installed. A unit whose claim has
 * failed counts as failed, although to systemd it is only inactive.
 */
export async function readUnitStates(host: HostQuery): Promise<UnitState[]> {
  const units = readUnits(host);
  const active = await readActiveStates(host, [...units.map(unitName), ...units.map(claimUnitName)]);
  return units.map((unit) => {
    const own = active.get(unitName(unit));
    const claim = active.get(claimUnitName(unit));
    return {
      ...unit,
      unit: unitName(unit),
      enabled: isEnabled(host, unit),
      active: own === 'inactive' && claim === 'failed' ? claim : own,
    };
  });
}

/** Whether systemd runs on this host, see sd_booted(3). */
function hasSystemd(host: HostReader): boolean {
  return host.root === '/' && host.exists('/run/systemd/system');
}

/** systemd's ActiveState of units, by name: one call for all of them, and none if systemd is not running. */
export async function readActiveStates(
  host: HostQuery,
  names: readonly string[],
): Promise<Map<string, string>> {
  const states = new Map<string, string>();
  for (const unit of await showUnits(host, names))
    for (const name of unit.names) states.set(name, unit.state);
  return states;
}

/** The units of devices that are active. */
export async function readActiveUnits(host: HostQuery): Promise<UnitIdentity[]> {
  return (await readUnitStates(host)).filter(({active}) => active === 'active');
}

/** systemd's states in which a unit must be stopped. */
const runs = new Set(['active', 'activating', 'reloading']);

/** States in which a queued job is a start. */
const rests = new Set(['inactive', 'failed']);

/** The states of services that may have to be stopped and started again. */
export interface ServiceStates {
  /** Services that run, are starting, or wait for other units before their start and are still inactive. */
  readonly running: ReadonlySet<string>;
  /** Services that cannot or must not be started again, and why. */
  readonly unstartable: ReadonlyMap<string, string>;
}

/** Which of these services run, and which could not be started again after a stop. Queries systemd once. */
export async function readServiceStates(host: HostQuery, names: readonly string[]): Promise<ServiceStates> {
  const running = new Set<string>();
  const unstartable = new Map<string, string>();
  for (const unit of await showUnits(host, names)) {
    const reason = unstartableBecause(unit);
    for (const name of unit.names) {
      if (runs.has(unit.state) || (unit.job && rests.has(unit.state))) running.add(name);
      if (reason !== undefined) unstartable.set(name, reason);
    }
  }
  return {running, unstartable};
}

/** Targets of boot and shutdown: a unit that only they want does not belong in a running system. */
const bootTarget =
  /^(?:sysinit|initrd(?:-[\w-]+)?|local-fs(?:-pre)?|cryptsetup(?:-pre)?|emergency|rescue|reboot|poweroff|halt|kexec|shutdown|final|umount)\.target$/;

function unstartableBecause({names, load, canStart, transient, wantedBy}: ShownUnit): string | undefined {
  if (load === 'not-found') return 'the unit no longer exists';
  if (load === 'masked') return 'it is masked';
  if (transient) return 'it is a transient unit, which no longer exists after it is stopped';
  if (!canStart) return 'it cannot be started manually (RefuseManualStart=)';
  // The boot splash: it would cover the display.
  const isBoot = names.some((name) => name.startsWith('plymouth-'));
  if (isBoot || (wantedBy.length > 0 && wantedBy.every((target) => bootTarget.test(target))))
    return 'it is only for the boot';
  return undefined;
}

interface ShownUnit {
  /** All names of the unit, including aliases. */
  readonly names: readonly string[];
  readonly state: string;
  /** Whether a job for it is queued or running. */
  readonly job: boolean;
  /** `loaded`, `not-found`, `masked`. */
  readonly load: string;
  readonly canStart: boolean;
  readonly transient: boolean;
  /** The units that want or require it. */
  readonly wantedBy: readonly string[];
}

async function showUnits(host: HostQuery, names: readonly string[]): Promise<ShownUnit[]> {
  if (names.length === 0 || !hasSystemd(host)) return [];
  const {stdout} = await host.ask('systemctl', [
    'show',
    '--property=Id,Names,ActiveState,Job,LoadState,CanStart,Transient,WantedBy,RequiredBy',
    ...names,
  ]);
  return stdout.split('\n\n').map((block) => {
    const valueOf = (key: string) => new RegExp(`^${key}=(.*)$`, 'm').exec(block)?.[1] ?? '';
    const all = [valueOf('Id'), ...valueOf('Names').split(' ')];
    return {
      names: [...new Set(all.filter((name) => name !== ''))],
      state: valueOf('ActiveState'),
      job: Number(valueOf('Job')) > 0,
      load: valueOf('LoadState'),
      canStart: valueOf('CanStart') !== 'no',
      transient: valueOf('Transient') === 'yes',
      wantedBy: `${valueOf('WantedBy')} ${valueOf('RequiredBy')}`.split(' ').filter((unit) => unit !== ''),
    };
  });
}

/** When each unit was started, by name, in microseconds since the boot. One call for all of them. */
export async function readStarts(
  host: HostQuery,
  units: readonly UnitIdentity[],
): Promise<ReadonlyMap<string, number>> {
  const property = 'InactiveExitTimestampMonotonic';
  const names = units.map(unitName);
  const {stdout} = await host.ask('systemctl', ['show', '--value', `--property=${property}`, ...names]);
  const values = stdout.split('\n').filter((line) => line !== '');
  return new Map(names.map((name, index) => [name, Number(values[index])]));
}

/** systemd's state of the whole system (`starting`, `running`, `stopping`, …), see systemctl(1), is-system-running. */
export async function readSystemState(host: HostQuery): Promise<string> {
  const {stdout} = await host.ask('systemctl', ['is-system-running'], {accept: [0, 1, 2, 3, 4]});
  return stdout.trim();
}
