import {ExitCode} from '../host/errors.js';
import type {HostReader} from '../host/host.js';
import {systemdUnits, type Layout} from '../host/layout.js';
import {devicePath, type Device} from '../pci/device.js';
import type {Driver} from '../pci/driver.js';
import type {DeviceId} from '../pci/id.js';
import type {Slot} from '../pci/slot.js';
import type {DriverctlRecord} from '../record/driverctl.js';
import {
  isNamedFor,
  printRecord,
  readRecords,
  recordPath,
  type DeviceRecord,
  type RecordProblem,
  type Records,
} from '../record/record.js';
import {slotTemplate, unitSettings} from '../unit/files.js';
import {
  deviceUnit,
  dropInFolder,
  isEnabled,
  readUnits,
  templateName,
  unitName,
  type UnitIdentity,
} from '../unit/unit.js';
import {
  plan,
  refuse,
  removeFile,
  systemctl,
  udevadm,
  writeFile,
  readFileState,
  type FileState,
  type Planned,
  type Refusal,
  type Step,
} from './step.js';

/**
 * What is locked while records and units are written. Not the slots: a plan may start or stop a unit, whose own
 * program locks these.
 */
export const servicesLock = 'services';

/** A wish that is to last: these devices, together, on this driver. */
export interface ServiceWish {
  readonly devices: readonly Pick<Device, 'slot' | 'id'>[];
  readonly driver: Driver;
  /** The folder for the templates; {@link systemdUnits} unless the person chose another, which is linked then. */
  readonly folder: string;
  /**
   * Whether the units are started: at once and waited for, only queued (from within another unit's start, which
   * must not wait for the same manager's jobs), or not before the next boot or hot-add.
   */
  readonly start: 'now' | 'queue' | 'later';
}

/** Everything the planners of this file decide on. */
export interface ServiceState {
  readonly layout: Layout;
  readonly records: Records;
  readonly units: readonly UnitIdentity[];
  /** Names of the units of {@link units} that are enabled. */
  readonly enabled: ReadonlySet<string>;
  /** Names of the units of {@link units} that are active. */
  readonly active: ReadonlySet<string>;
  /** Each file that a plan may write or remove, by path; absent for a file that is not there. */
  readonly files: ReadonlyMap<string, FileState>;
  /** Where templates in {@link systemdUnits} that are links lead to, by path. */
  readonly links: ReadonlyMap<string, string>;
  /** Whether a systemd and a udev run that answer for this host; none does for an image. */
  readonly running: boolean;
  /** Slots of the wish whose device is there now. */
  readonly present: ReadonlySet<Slot>;
  /** Names for people, by slot. */
  readonly names: ReadonlyMap<Slot, string>;
}

/** The file of a unit's drop-in. Not beside a template elsewhere: systemd looks for it in its own folders only. */
function dropInPath(unit: UnitIdentity): string {
  return `${dropInFolder(unit)}/50-pearasys.conf`;
}

/** Where systemd finds the slot's template: the file, or a link to it. */
function templatePath(slot: Slot, folder: string = systemdUnits): string {
  return `${folder}/${templateName(slot)}`;
}

/** What {@link readServices} is told beside the slots. */
export interface ServiceHints extends Partial<Pick<ServiceState, 'names' | 'active'>> {
  /** As in {@link ServiceWish}. */
  readonly folder?: string;
}

/** Reads what the planners of this file need to know about these slots. */
export function readServices(
  host: HostReader,
  layout: Layout,
  slots: readonly Slot[],
  {names = new Map(), active = new Set(), folder = systemdUnits}: ServiceHints = {},
): ServiceState {
  const records = readRecords(host, layout);
  const units = readUnits(host);
  const templates = slots.map((slot) => templatePath(slot));
  const links = new Map<string, string>();
  for (const path of templates) {
    const target = host.readLink(path);
    if (target !== undefined) links.set(path, target);
  }
  const paths = [
    ...records.records.map((record) => recordPath(layout, record)),
    ...records.problems.map(({path}) => path),
    ...templates.filter((path) => !links.has(path)),
    ...links.values(),
    ...slots.map((slot) => templatePath(slot, folder)).filter((path) => !links.has(path)),
    ...units.map(dropInPath),
  ];
  const files = new Map<string, FileState>();
  for (const path of paths) {
    // What could not be put back as it was is not written over.
    const state = readFileState(host, path, !records.problems.some((problem) => problem.path === path));
    if (state !== undefined) files.set(path, state);
  }
  return {
    layout,
    records,
    units,
    enabled: new Set(units.filter((unit) => isEnabled(host, unit)).map(unitName)),
    active,
    files,
    links,
    running: host.root === '/',
    present: new Set(slots.filter((slot) => host.exists(devicePath(slot)))),
    names,
  };
}

/**
 * The plan that makes the wish last: records, units, the exclusion of other units of the same slots, enabling.
 * Files that are so already are not written again.
 */
export function planInstall(wish: ServiceWish, state: ServiceState): Planned {
  const slots = wish.devices.map((device) => device.slot);
  const installed = wish.devices.map(({slot}) => ({slot, driver: wish.driver}));
  const own = new Set(installed.map(unitName));
  const units = [...state.units.filter((unit) => !own.has(unitName(unit))), ...installed];
  const stale = state.records.records.filter((record) =>
    wish.devices.some((device) => device.slot === record.slot && device.id !== record.id),
  );
  const ignored = problemsAt(
    wish.devices.map((device) => recordPath(state.layout, device)),
    state,
  );
  const refusal = refuseRecords(ignored, state);
  if (refusal !== undefined) return refusal;
  const notes = [
    ...stale.map((record) => `the record for the card ${record.id} in slot ${record.slot} is replaced`),
    ...ignored.map(({path, reason}) => `the record ${path}, which was ignored, is replaced: ${reason}`),
  ];

  const files: Step[] = [];
  const put = (path: string, content: string): void => {
    const previous = state.files.get(path);
    // What was ignored for its mode would be again.
    if (ignored.some((problem) => problem.path === path))
      files.push(writeFile(path, content, previous, {mode: 0o644}));
    else if (previous?.content !== content) files.push(writeFile(path, content, previous));
  };
  for (const record of stale) files.push(...dropFile(recordPath(state.layout, record), state));
  for (const {slot, id} of wish.devices) {
    const record = {slot, id, driver: wish.driver, together: slots};
    put(recordPath(state.layout, record), printRecord(record));
    const template = templatePath(slot);
    const chosen = templatePath(slot, wish.folder);
    if (chosen === template ? state.links.has(template) : state.links.get(template) !== chosen)
      files.push(...dropTemplate(slot, state));
    put(chosen, slotTemplate(slot, slots, state.layout));
  }
  for (const unit of units.filter((one) => slots.includes(one.slot)))
    put(
      dropInPath(unit),
      unitSettings(unit, {
        name: state.names.get(unit.slot) ?? 'Device',
        rivals: units.filter((rival) => rival.slot === unit.slot),
        together: unit.driver === wish.driver ? slots : togetherOf(unit, state.records.records),
      }),
    );

  const rivals = units.filter((unit) => slots.includes(unit.slot) && !own.has(unitName(unit))).map(unitName);
  const disable = rivals.filter((unit) => state.enabled.has(unit));
  const enable = [...own].filter((unit) => !state.enabled.has(unit));
  const unlinked =
    wish.folder === systemdUnits
      ? []
      : slots.filter((slot) => state.links.get(templatePath(slot)) !== templatePath(slot, wish.folder));
  const tagged = slots.filter((slot) => state.present.has(slot));
  const steps: Step[] = [...files];
  if (unlinked.length > 0)
    steps.push(
      systemctl(
        ['link', ...unlinked.map((slot) => templatePath(slot, wish.folder))],
        unlinked.map((slot) => ({kind: 'remove-file', path: templatePath(slot), undo: []})),
      ),
    );
  if (state.running && files.length > 0) {
    steps.push(systemctl(['daemon-reload']));
    // The rule now tags the device, so that systemd knows it; the start of a device unit is the wait for that. It
    // comes before the enabling: a device unit that appears starts what is enabled for it, and that is for --now
    // alone to say. From within an add event the device is tagged already.
    if (tagged.length > 0 && wish.start !== 'queue') {
      steps.push(udevadm(['trigger', '--action=change', ...tagged.map((slot) => devicePath(slot))]));
      steps.push(systemctl(['start', ...tagged.map(deviceUnit)]));
    }
  }
  if (disable.length > 0) steps.push(systemctl(['disable', ...disable], [systemctl(['enable', ...disable])]));
  if (enable.length > 0) steps.push(systemctl(['enable', ...enable], [systemctl(['disable', ...enable])]));
  if (wish.start === 'now') steps.push(systemctl(['start', ...own], restoreActive(own, rivals, state)));
  if (wish.start === 'queue') steps.push(systemctl(['start', '--no-block', ...own]));
  return plan(steps, {notes, afterUndo: state.running ? [systemctl(['daemon-reload'])] : []});
}

/** The plan that makes a wish that driverctl has saved ours, and removes its file: only one of the two is to act. */
export function planImport(saved: DriverctlRecord, wish: ServiceWish, state: ServiceState): Planned {
  const planned = planInstall(wish, state);
  if (planned.kind === 'refusal') return planned;
  // The folder is its package's.
  return {...planned, steps: [...planned.steps, removeFile(saved.path, saved, {prune: 0})]};
}

/** The plan that takes the lasting wish for these slots back: units are stopped, disabled and removed with the records. */
export function planUninstall(slots: readonly Slot[], state: ServiceState): Planned {
  const units = state.units.filter((unit) => slots.includes(unit.slot));
  const records = state.records.records.filter(
    (record) => record.slot !== 'any' && slots.includes(record.slot),
  );
  const files = [
    ...[...records.map((record) => recordPath(state.layout, record)), ...units.map(dropInPath)].flatMap(
      (path) => dropFile(path, state),
    ),
    ...slots.flatMap((slot) => [
      ...dropTemplate(slot, state),
      ...dropFile(state.links.get(templatePath(slot)) ?? '', state),
    ]),
  ];
  const left = state.records.problems
    .filter(({path}) => slots.some((slot) => isNamedFor(slot, path)))
    .map(({path, reason}) => `the record ${path} is ignored and left as it is: ${reason}`);
  if (files.length === 0 && units.length === 0)
    return refuse({
      code: 'no-device',
      exitCode: ExitCode.noDevice,
      message: `nothing is installed for ${slots.join(', ')}`,
      details: left,
      hint: '`pearasys service list` shows what is',
    });
  const names = units.map(unitName);
  const enabled = names.filter((name) => state.enabled.has(name));
  const active = names.filter((name) => state.active.has(name));
  const steps: Step[] = [];
  if (state.running && names.length > 0) {
    steps.push(systemctl(['stop', ...names], active.length > 0 ? [systemctl(['start', ...active])] : []));
    // A unit that could not be stopped counts as stopped. Nothing is taken back of what may still be in force.
    const present = slots.filter((slot) => state.present.has(slot));
    if (active.length > 0 && present.length > 0)
      steps.push({kind: 'expect-unlocked', slots: present, undo: []});
  }
  if (enabled.length > 0) steps.push(systemctl(['disable', ...enabled], [systemctl(['enable', ...enabled])]));
  steps.push(...files);
  if (state.running) steps.push(systemctl(['daemon-reload']));
  return plan(steps, {notes: left, afterUndo: state.running ? [systemctl(['daemon-reload'])] : []});
}

/** The plan that records a driver for each card with this id, in whatever slot it appears. */
export function planInstallAnySlot(id: DeviceId, driver: Driver, state: ServiceState): Planned {
  const record: DeviceRecord = {slot: 'any', id, driver, together: []};
  const path = recordPath(state.layout, record);
  const ignored = problemsAt([path], state);
  const refusal = refuseRecords(ignored, state);
  if (refusal !== undefined) return refusal;
  const previous = state.files.get(path);
  const content = printRecord(record);
  return plan(
    previous?.content === content && ignored.length === 0
      ? []
      : [writeFile(path, content, previous, ignored.length === 0 ? {} : {mode: 0o644})],
  );
}

/** The plan that takes a record by id alone back. Slots that it has recorded meanwhile keep their records. */
export function planUninstallAnySlot(id: DeviceId, state: ServiceState): Planned {
  const path = recordPath(state.layout, {slot: 'any', id});
  const steps = dropFile(path, state);
  if (steps.length === 0)
    return refuse({
      code: 'no-device',
      exitCode: ExitCode.noDevice,
      message: `there is no record for id ${id} in any slot`,
      hint: '`pearasys service list` shows what is recorded',
    });
  const recorded = state.records.records.filter((one) => one.id === id && one.slot !== 'any');
  return plan(steps, {
    notes: recorded.map(
      (one) =>
        `slot ${one.slot} keeps its own record for this card: pearasys -s ${one.slot} service uninstall`,
    ),
  });
}

/** A start that fails has stopped the other units of the slots before: those that were active are started again. */
function restoreActive(own: ReadonlySet<string>, rivals: readonly string[], state: ServiceState): Step[] {
  const stop = [...own].filter((unit) => !state.active.has(unit));
  const start = rivals.filter((unit) => state.active.has(unit));
  return [
    ...(stop.length === 0 ? [] : [systemctl(['stop', ...stop])]),
    ...(start.length === 0 ? [] : [systemctl(['start', ...start])]),
  ];
}

/** The files at these paths that are not obeyed. */
function problemsAt(paths: readonly string[], state: ServiceState): RecordProblem[] {
  return state.records.problems.filter(({path}) => paths.includes(path));
}

/** Refuses to write records that nobody would obey, and over what is no file. */
function refuseRecords(ignored: readonly RecordProblem[], state: ServiceState): Refusal | undefined {
  const problem = state.records.folderProblem ?? ignored.find(({path}) => !state.files.has(path));
  if (problem === undefined) return undefined;
  return refuse({
    code: 'bad-record',
    exitCode: ExitCode.refused,
    message: `no record is written: ${problem.path} is not trusted`,
    details: [problem.reason, 'nothing was changed'],
  });
}

/** Takes the slot's template from systemd's folder: the file, or the link to it. */
function dropTemplate(slot: Slot, state: ServiceState): Step[] {
  const path = templatePath(slot);
  const target = state.links.get(path);
  if (target === undefined) return dropFile(path, state);
  return [{kind: 'remove-file', path, undo: [systemctl(['link', target])]}];
}

function dropFile(path: string, state: ServiceState): Step[] {
  const previous = state.files.get(path);
  return previous === undefined ? [] : [removeFile(path, previous)];
}

function togetherOf(unit: UnitIdentity, records: readonly DeviceRecord[]): readonly Slot[] {
  return records.find((record) => record.slot === unit.slot && record.driver === unit.driver)?.together ?? [];
}
