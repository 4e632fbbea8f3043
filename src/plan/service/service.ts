import {posix} from 'node:path';
import {ExitCode} from '../../host/errors.js';
import {systemdUnits} from '../../config/layout.js';
import {devicePath} from '../../devices/pci/device.js';
import type {Driver} from '../../devices/pci/driver.js';
import type {DeviceId} from '../../devices/pci/id.js';
import type {Slot} from '../../devices/pci/slot.js';
import type {DriverctlRecord} from '../../state/records/driverctl.js';
import {
  checkedFolder,
  checkedPath,
  isNamedFor,
  printChecked,
  printRecord,
  recordPath,
  type DeviceRecord,
  type RecordContent,
} from '../../state/records/record.js';
import {mergeUnknown, type IgnoredFile} from '../../state/desired.js';
import {claimTemplate, slotTemplate, unitSettings} from '../../systemd/unit-texts.js';
import {
  claimUnitName,
  deviceUnit,
  enabledLink,
  parseUnitName,
  unitName,
  type UnitIdentity,
} from '../../systemd/unit.js';
import {
  makeLink,
  plan,
  refuse,
  removeFile,
  removeLink,
  systemctl,
  udevadm,
  writeFile,
  type Planned,
  type Refusal,
  type Step,
} from '../step.js';
import {
  dropInPath,
  templatePath,
  templatePaths,
  type ServiceState,
  type WishedClaim,
} from './service-state.js';

/**
 * What is locked while records and units are written. Not the slots: a plan may start or stop a unit, whose own
 * program locks these.
 */
export const servicesLock = 'services';

/** Claims that are to last. */
export interface ServiceWish {
  readonly claims: readonly WishedClaim[];
  /** The folder for the templates; {@link systemdUnits} unless the person chose another, which is linked then. */
  readonly folder: string;
  /**
   * Whether the units are started: at once and waited for, only queued (from within another unit's start, which
   * must not wait for the same manager's jobs), or not before the next boot or hot-add.
   */
  readonly start: 'now' | 'queue' | 'later';
}

/**
 * The plan that makes the wish last: records, units, the exclusion of other units of the same slots, and the links
 * that enable them. What is so already is not written again. Whatever the number, systemd and udev are asked once:
 * each `systemctl enable` and each daemon-reload has systemd read all of its files.
 */
export function planInstall(wish: ServiceWish, state: ServiceState): Planned {
  const {claims} = wish;
  const slots = claims.map((claim) => claim.slot);
  const own = new Set(claims.map(unitName));
  const units = [...state.units.filter((unit) => !own.has(unitName(unit))), ...claims];
  const stale = state.records.records.filter((record) =>
    claims.some((claim) => claim.slot === record.slot && claim.id !== record.id),
  );
  const ignored = problemsAt(
    claims.map((claim) => recordPath(state.layout, claim)),
    state,
  );
  const refusal = refuseRecords(ignored, state);
  if (refusal !== undefined) return refusal;
  const notes = [
    ...stale.map((record) => `replacing the record for the card ${record.id} in slot ${record.slot}`),
    ...ignored.map(({path, reason}) => `replacing the record ${path}, which was ignored: ${reason}`),
  ];

  const files: Step[] = [];
  const put = (path: string, content: string): void => {
    const previous = state.files.get(path);
    // What was ignored for its mode would be again.
    if (ignored.some((problem) => problem.path === path))
      files.push(writeFile(path, content, previous, {mode: 0o644}));
    else if (previous?.content !== content) files.push(writeFile(path, content, previous));
  };
  for (const record of stale)
    files.push(...dropFile(checkedPath(record), state), ...dropFile(recordPath(state.layout, record), state));
  for (const claim of claims) {
    put(recordPath(state.layout, claim), printRecord(recordOf(claim, state.records.records)));
    const texts = [
      claimTemplate(claim.slot, state.layout),
      slotTemplate(claim.slot, claim.together, state.layout),
    ];
    const chosen = templatePaths(claim.slot, wish.folder);
    for (const [index, template] of templatePaths(claim.slot).entries()) {
      const [path = template, text = ''] = [chosen[index], texts[index]];
      const linked = state.links.get(template);
      if (path === template ? linked !== undefined : linked !== path)
        files.push(...dropTemplate(template, state));
      put(path, text);
      if (path !== template && linked !== path) files.push(makeLink(template, path));
    }
  }
  for (const unit of units.filter((one) => slots.includes(one.slot)))
    put(
      dropInPath(unit),
      unitSettings(unit, {
        name: state.names.get(unit.slot) ?? 'Device',
        rivals: units.filter((rival) => rival.slot === unit.slot),
        together:
          claims.find((claim) => unitName(claim) === unitName(unit))?.together ??
          togetherOf(unit, state.records.records),
      }),
    );

  const rivals = units.filter((unit) => slots.includes(unit.slot) && !own.has(unitName(unit))).map(unitName);
  const links = claims.flatMap((claim) => linksFor(claim, state));
  const steps: Step[] = [...files];
  const tagged = slots.filter((slot) => state.present.has(slot));
  // The rule now tags the device, so that systemd knows it; the start of a device unit is the wait for that. It comes
  // before the links: a device unit that appears starts what is enabled for it, and that is for --now alone to say.
  // From within an add event the device is tagged already.
  if (state.running && files.length > 0 && tagged.length > 0 && wish.start !== 'queue') {
    steps.push(udevadm(['trigger', '--action=change', ...tagged.map((slot) => devicePath(slot))]));
    steps.push(systemctl(['start', ...tagged.map(deviceUnit)]));
  }
  steps.push(...dropLinks(rivals, state), ...links);
  if (state.running && steps.length > 0) steps.push(systemctl(['daemon-reload']));
  // The rule obeys them from the next hot-add on. They tell systemd nothing.
  if (state.running)
    for (const claim of claims) {
      const previous = state.files.get(checkedPath(claim));
      const content = printChecked(claim);
      if (previous?.content !== content) steps.push(writeFile(checkedPath(claim), content, previous));
    }
  if (wish.start === 'now')
    steps.push(systemctl(['start', ...own], restoreActive(own, rivals, state), whereTheReasonIs(claims)));
  if (wish.start === 'queue') steps.push(systemctl(['start', '--no-block', ...own]));
  return plan(steps, {notes, afterUndo: state.running ? [systemctl(['daemon-reload'])] : []});
}

/** Makes the links of the unit's [Install] section; takes those away by which former siblings want it. */
function linksFor(claim: WishedClaim, state: ServiceState): Step[] {
  const unit = unitName(claim);
  const siblings = claim.together.filter((slot) => slot !== claim.slot);
  const wanted = [
    enabledLink(claim),
    ...siblings.map((slot) => `${systemdUnits}/${unitName({slot, driver: claim.driver})}.wants/${unit}`),
  ];
  const former = [...state.wants].filter(
    ([path, link]) => link.unit === unit && !wanted.includes(path) && isSiblingLink(path),
  );
  return [
    ...former.map(([path, {target}]) => removeLink(path, target)),
    ...wanted
      .filter((path) => !state.wants.has(path))
      .map((path) => makeLink(path, templatePath(claim.slot))),
  ];
}

/** Whether the link is in the folder of another unit of a device. */
function isSiblingLink(path: string): boolean {
  return parseUnitName(posix.basename(posix.dirname(path)).replace(/\.wants$/, '')) !== undefined;
}

/** Takes away all links by which these units are wanted, as systemctl(1), disable, does. */
function dropLinks(units: readonly string[], state: ServiceState): Step[] {
  return [...state.wants]
    .filter(([, {unit}]) => units.includes(unit))
    .map(([path, {target}]) => removeLink(path, target));
}

/** The plan that makes wishes that driverctl has saved ours, and removes its files: only one of the two is to act. */
export function planImport(
  saved: readonly DriverctlRecord[],
  wish: ServiceWish,
  state: ServiceState,
): Planned {
  const planned = planInstall(wish, state);
  if (planned.kind === 'refusal') return planned;
  // The folder is its package's.
  return {
    ...planned,
    steps: [...planned.steps, ...saved.map((one) => removeFile(one.path, one, {prune: 0}))],
  };
}

/** The plan that takes the lasting wish for these slots back: units are stopped, disabled and removed with the records. */
export function planUninstall(slots: readonly Slot[], state: ServiceState): Planned {
  const units = state.units.filter((unit) => slots.includes(unit.slot));
  const records = state.records.records.filter(
    (record) => record.slot !== 'any' && slots.includes(record.slot),
  );
  const names = units.map(unitName);
  // The records last: they say which slots go together, to a run that completes this one.
  const files = [
    ...dropLinks(names, state),
    ...units.flatMap((unit) => dropFile(dropInPath(unit), state)),
    ...slots
      .flatMap((slot) => templatePaths(slot))
      .flatMap((path) => [...dropTemplate(path, state), ...dropFile(state.links.get(path) ?? '', state)]),
    ...records.flatMap((record) => dropFile(recordPath(state.layout, record), state)),
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
      hint: '`pearasys service list` lists the records',
    });
  const active = names.filter((name) => state.active.has(name));
  const steps: Step[] = [];
  if (state.running && names.length > 0) {
    steps.push(systemctl(['stop', ...names], active.length > 0 ? [systemctl(['start', ...active])] : []));
    // A unit that could not be stopped counts as stopped. Nothing is taken back of what may still be in force.
    const present = slots.filter((slot) => state.present.has(slot));
    if (active.length > 0 && present.length > 0)
      steps.push({kind: 'expect-unlocked', slots: present, undo: []});
  }
  const checked = [...state.files.keys()].filter((path) => path.startsWith(`${checkedFolder}/`));
  steps.push(...checked.flatMap((path) => dropFile(path, state)), ...files);
  if (state.running) steps.push(systemctl(['daemon-reload']));
  return plan(steps, {notes: left, afterUndo: state.running ? [systemctl(['daemon-reload'])] : []});
}

/** The plan that records a driver for each card with this id, in whatever slot it appears. */
export function planInstallAnySlot(id: DeviceId, driver: Driver, state: ServiceState): Planned {
  const record = recordOf({slot: 'any', id, driver, together: []}, state.records.records);
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
      hint: '`pearasys service list` lists the records',
    });
  const recorded = state.records.records.filter((one) => one.id === id && one.slot !== 'any');
  return plan(steps, {
    notes: recorded.map(
      (one) =>
        `slot ${one.slot} keeps its own record for this card: pearasys -s ${one.slot} service uninstall`,
    ),
  });
}

/** systemd only says that a unit which the started one requires has failed. */
function whereTheReasonIs(claims: readonly UnitIdentity[]): string {
  const [only, ...more] = claims;
  const units = only === undefined || more.length > 0 ? 'pearasys-claim-*' : claimUnitName(only);
  return `the reason is in the journal: journalctl -b -u '${units}'`;
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

/** The record of a claim, with what a newer version has written into the one for the same card. */
function recordOf(
  claim: Omit<RecordContent, 'unknown'> & Pick<WishedClaim, 'unknown'>,
  records: readonly DeviceRecord[],
): RecordContent {
  const previous = records.find(({slot, id}) => slot === claim.slot && id === claim.id);
  return {...claim, unknown: mergeUnknown(previous?.unknown ?? [], claim.unknown ?? [])};
}

/** The files at these paths that are not obeyed. */
function problemsAt(paths: readonly string[], state: ServiceState): IgnoredFile[] {
  return state.records.problems.filter(({path}) => paths.includes(path));
}

/** Refuses to write records that nobody would obey, and over what is no file. */
function refuseRecords(ignored: readonly IgnoredFile[], state: ServiceState): Refusal | undefined {
  const problem = state.records.folderProblem ?? ignored.find(({path}) => !state.files.has(path));
  if (problem === undefined) return undefined;
  return refuse({
    code: 'bad-record',
    exitCode: ExitCode.refused,
    message: `refusing to write a record: ${problem.path} is not trusted`,
    details: [problem.reason, 'nothing was changed'],
  });
}

/** Takes a template from systemd's folder: the file, or the link to it. */
function dropTemplate(path: string, state: ServiceState): Step[] {
  const target = state.links.get(path);
  if (target === undefined) return dropFile(path, state);
  return [{kind: 'remove-file', path, prune: 0, undo: [{kind: 'make-link', path, target, undo: []}]}];
}

function dropFile(path: string, state: ServiceState): Step[] {
  const previous = state.files.get(path);
  return previous === undefined ? [] : [removeFile(path, previous)];
}

function togetherOf(unit: UnitIdentity, records: readonly DeviceRecord[]): readonly Slot[] {
  return records.find((record) => record.slot === unit.slot && record.driver === unit.driver)?.together ?? [];
}
