import {posix} from 'node:path';
import {ExitCode} from '../../host/errors.js';
import {systemdUnits} from '../../config/layout.js';
import {devicePath} from '../../devices/pci/device.js';
import type {Driver} from '../../devices/pci/driver.js';
import type {DeviceId} from '../../devices/pci/id.js';
import type {Identity} from '../../devices/pci/identity.js';
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
  type RecordSource,
} from '../../state/records/record.js';
import {changeSettings} from '../../state/records/device-settings.js';
import {changeNodeAccess} from '../../state/records/node-access.js';
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
import {accessNotes, grantsOf, planAccess, refuseAccess, refuseWithoutNodes} from './access.js';
import {enabledClaims, planClaimList} from './claim-list.js';
import {pendingMark} from '../switch/claim.js';
import {
  checkedOf,
  dropInPath,
  templatePath,
  templatePaths,
  tidy,
  type ServiceState,
  type RequestedClaim,
} from './service-state.js';

/**
 * The lock for writing records and units. Slots are not locked: a plan may start or stop a unit, whose own program
 * locks them.
 */
export const servicesLock = 'services';

/** Permanent claims. */
export interface ServiceRequest {
  readonly claims: readonly RequestedClaim[];
  /** The folder for the templates; {@link systemdUnits} by default. Templates in another folder are linked. */
  readonly folder: string;
  /**
   * When the units are started: `now` starts them and waits, `queue` only queues the start (from within another unit's
   * start, which must not wait for the same manager's jobs), `later` starts them at the next boot or hot-add.
   */
  readonly start: 'now' | 'queue' | 'later';
}

/**
 * The plan that makes claims permanent: records, units, the exclusion of other units of the same slots, and the links
 * that enable them. Files that are already right are not written again. systemd and udev are called once for all units,
 * because each `systemctl enable` and each daemon-reload makes systemd read all of its files.
 */
export function planInstall(request: ServiceRequest, state: ServiceState): Planned {
  const {claims} = request;
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
    // A file that was ignored because of its mode would be ignored again.
    if (ignored.some((problem) => problem.path === path))
      files.push(writeFile(path, content, previous, {mode: 0o644}));
    else if (previous?.content !== content) files.push(writeFile(path, content, previous));
  };
  for (const record of stale)
    files.push(
      ...checkedOf(record, state.files).flatMap((path) => dropFile(path, state)),
      ...dropFile(recordPath(state.layout, record), state),
    );
  for (const claim of claims) {
    put(recordPath(state.layout, claim), printRecord(recordOf(claim, state.records.records)));
    const texts = [
      claimTemplate(claim.slot, state.layout),
      slotTemplate(claim.slot, claim.together, state.layout),
    ];
    const chosen = templatePaths(claim.slot, request.folder);
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
  const steps: Step[] = [...files];
  const tagged = slots.filter((slot) => state.present.has(slot));
  // The rule now tags the device, so that systemd knows it. Starting the device unit waits for that. It comes before
  // the links: a device unit that appears starts the units enabled for it, which only --now may do. Within an add event
  // the device is already tagged.
  if (state.running && files.length > 0 && tagged.length > 0 && request.start !== 'queue') {
    steps.push(udevadm(['trigger', '--action=change', ...tagged.map((slot) => devicePath(slot))]));
    steps.push(systemctl(['start', ...tagged.map(deviceUnit)]));
  }
  steps.push(...dropLinks(rivals, state));
  // One function that is enabled starts the others: after a power cut between two links too, the card is claimed whole.
  steps.push(...claims.flatMap((claim) => siblingLinks(claim, state)));
  steps.push(...claims.flatMap((claim) => missingLink(enabledLink(claim), claim, state)));
  if (state.running && steps.length > 0) steps.push(systemctl(['daemon-reload']));
  // The rule uses them from the next hot-add on. systemd does not read them.
  const others = state.records.records.filter(({slot}) => slot === 'any' || !slots.includes(slot));
  const recorded = claims.map((claim) => recordOf(claim, state.records.records));
  if (state.running)
    for (const claim of claims) {
      const record = recordOf(claim, state.records.records);
      const path = checkedPath(record, state.bridges.get(claim.slot));
      steps.push(
        ...checkedOf(record, state.files)
          .filter((other) => other !== path)
          .flatMap((other) => dropFile(other, state)),
      );
      const previous = path === undefined ? undefined : state.files.get(path);
      const content = printChecked(record, [...others, ...recorded]);
      if (path === undefined || previous?.content === content) continue;
      steps.push(writeFile(path, content, previous));
      // The unit would start no process for a device that is on its driver.
      if (request.start === 'now' && (claim.changes ?? []).length > 0 && state.present.has(claim.slot))
        steps.push(writeFile(pendingMark(claim.slot), '', undefined));
    }
  const enabled = [...enabledClaims(others, (link) => state.wants.has(link)), ...recorded];
  steps.push(...planClaimList(enabled, state.layout, state.claimList));
  // Before the driver makes the nodes.
  const grants = grantsOf([...others, ...recorded]);
  const conflict =
    claims
      .map(({accessChange}, index) =>
        refuseWithoutNodes(recorded[index]?.driver ?? '', recorded[index]?.access, accessChange),
      )
      .find((one) => one !== undefined) ?? refuseAccess(grants, slots, state.access);
  if (conflict !== undefined) return conflict;
  steps.push(...planAccess(grants, state.access));
  notes.push(...accessNotes(grants, slots, state.access));
  if (request.start === 'now')
    steps.push(systemctl(['start', ...own], restoreActive(own, rivals, state), whereTheReasonIs(claims)));
  if (request.start === 'queue') steps.push(systemctl(['start', '--no-block', ...own]));
  return plan([...tidy(state), ...steps], {
    notes,
    afterUndo: state.running ? [systemctl(['daemon-reload'])] : [],
  });
}

/** Creates the links by which siblings start the unit, and removes those of former siblings. */
function siblingLinks(claim: RequestedClaim, state: ServiceState): Step[] {
  const unit = unitName(claim);
  const wanted = claim.together
    .filter((slot) => slot !== claim.slot)
    .map((slot) => `${systemdUnits}/${unitName({slot, driver: claim.driver})}.wants/${unit}`);
  const former = [...state.wants].filter(
    ([path, link]) => link.unit === unit && !wanted.includes(path) && isSiblingLink(path),
  );
  return [
    ...former.map(([path, {target}]) => removeLink(path, target)),
    ...wanted.flatMap((path) => missingLink(path, claim, state)),
  ];
}

/** Creates a link of the unit's [Install] section, if it does not exist. */
function missingLink(path: string, {slot}: RequestedClaim, state: ServiceState): Step[] {
  return state.wants.has(path) ? [] : [makeLink(path, templatePath(slot))];
}

/** Whether the link is in the folder of another unit of a device. */
function isSiblingLink(path: string): boolean {
  return parseUnitName(posix.basename(posix.dirname(path)).replace(/\.wants$/, '')) !== undefined;
}

/**
 * Removes all links by which these units are wanted, as systemctl(1), disable, does. Those by which siblings start each
 * other come last: after a power cut between two links too, a card is claimed whole or not at all.
 */
function dropLinks(units: readonly string[], state: ServiceState): Step[] {
  return [...state.wants]
    .filter(([, {unit}]) => units.includes(unit))
    .sort(([one], [other]) => Number(isSiblingLink(one)) - Number(isSiblingLink(other)))
    .map(([path, {target}]) => removeLink(path, target));
}

/** The plan that turns drivers saved by driverctl into claims, and removes its files, so that only pearasys acts. */
export function planImport(
  saved: readonly DriverctlRecord[],
  request: ServiceRequest,
  state: ServiceState,
): Planned {
  const planned = planInstall(request, state);
  if (planned.kind === 'refusal') return planned;
  // The folder belongs to driverctl's package.
  return {
    ...planned,
    steps: [...planned.steps, ...saved.map((one) => removeFile(one.path, one, {prune: 0}))],
  };
}

/** The plan that removes the claims of these slots: units are stopped, disabled and removed with the records. */
export function planUninstall(slots: readonly Slot[], state: ServiceState): Planned {
  const units = state.units.filter((unit) => slots.includes(unit.slot));
  const records = state.records.records.filter(
    (record) => record.slot !== 'any' && slots.includes(record.slot),
  );
  const names = units.map(unitName);
  // The records come last: a run that completes this one reads from them which slots belong together.
  const files = [
    ...dropLinks(names, state),
    ...units.flatMap((unit) => dropFile(dropInPath(unit), state)),
    ...slots
      .flatMap((slot) => templatePaths(slot))
      .flatMap((path) => [...dropTemplate(path, state), ...dropFile(state.links.get(path) ?? '', state)]),
    ...records.flatMap((record) => dropFile(recordPath(state.layout, record), state)),
  ];
  const ignored = state.records.problems
    .filter(({path}) => slots.some((slot) => isNamedFor(slot, path)))
    .map(({path, reason}) => `the record ${path} is ignored and left as it is: ${reason}`);
  const forBoot = records.filter(({source}) => source !== 'record');
  if (files.length === 0 && forBoot.length > 0)
    return refuse({
      code: 'boot-claim',
      exitCode: ExitCode.refused,
      message: `the claim of ${forBoot.map(({slot}) => slot).join(', ')} cannot be uninstalled: it is not from a record`,
      details: [
        ...forBoot.map(({slot, source}) => `${slot} is claimed by ${sourceWords[source]}, at each boot`),
        'nothing was changed',
      ],
      hint: 'remove it there, or skip it for one boot with pearasys.skip=',
    });
  if (files.length === 0 && units.length === 0)
    return refuse({
      code: 'no-device',
      exitCode: ExitCode.noDevice,
      message: `nothing is installed for ${slots.join(', ')}`,
      details: ignored,
      hint: '`pearasys service list` lists the records',
    });
  const active = names.filter((name) => state.active.has(name));
  const steps: Step[] = [];
  if (state.running && names.length > 0) {
    steps.push(systemctl(['stop', ...names], active.length > 0 ? [systemctl(['start', ...active])] : []));
    // systemctl reports a unit that could not be stopped as stopped. If its device is still locked, nothing is removed.
    const present = slots.filter((slot) => state.present.has(slot));
    if (active.length > 0 && present.length > 0)
      steps.push({kind: 'expect-unlocked', slots: present, undo: []});
  }
  const checked = [...state.files.keys()].filter((path) => path.startsWith(`${checkedFolder}/`));
  // The list comes before the records: without them, no run completes this one.
  const left = state.records.records.filter((record) => !records.includes(record));
  const enabled = enabledClaims(left, (link) => state.wants.has(link));
  steps.push(...planClaimList(enabled, state.layout, state.claimList));
  steps.push(...planAccess(grantsOf(left), state.access));
  steps.push(...checked.flatMap((path) => dropFile(path, state)), ...files);
  if (state.running) steps.push(systemctl(['daemon-reload']));
  return plan([...tidy(state), ...steps], {
    notes: ignored,
    afterUndo: state.running ? [systemctl(['daemon-reload'])] : [],
  });
}

/** The plan that records a driver for each card with this id, in any slot. */
export function planInstallAnySlot(
  id: DeviceId,
  driver: Driver,
  state: ServiceState,
  {changes = [], accessChange}: Pick<RequestedClaim, 'changes' | 'accessChange'> = {},
): Planned {
  const record = recordOf(
    {slot: 'any', id, driver, together: [], changes, accessChange},
    state.records.records,
  );
  const path = recordPath(state.layout, record);
  const ignored = problemsAt([path], state);
  const refusal = refuseRecords(ignored, state) ?? refuseWithoutNodes(driver, record.access, accessChange);
  if (refusal !== undefined) return refusal;
  const previous = state.files.get(path);
  const content = printRecord(record);
  return plan(
    previous?.content === content && ignored.length === 0
      ? []
      : [writeFile(path, content, previous, ignored.length === 0 ? {} : {mode: 0o644})],
  );
}

/** The plan that removes a record by id alone. Slots that were recorded through it keep their records. */
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

/** Where to find the reason: systemd only reports that a unit required by the started one has failed. */
function whereTheReasonIs(claims: readonly UnitIdentity[]): string {
  const [only, ...more] = claims;
  const units = only === undefined || more.length > 0 ? 'pearasys-claim-*' : claimUnitName(only);
  return `the reason is in the journal: journalctl -b -u '${units}'`;
}

/** A failing start has already stopped the other units of the slots: those that were active are started again. */
function restoreActive(own: ReadonlySet<string>, rivals: readonly string[], state: ServiceState): Step[] {
  const stop = [...own].filter((unit) => !state.active.has(unit));
  const start = rivals.filter((unit) => state.active.has(unit));
  return [
    ...(stop.length === 0 ? [] : [systemctl(['stop', ...stop])]),
    ...(start.length === 0 ? [] : [systemctl(['start', ...start])]),
  ];
}

/**
 * The record of a claim, with the settings of the record for the same card, and the keys that a newer version has
 * written into it.
 */
function recordOf(
  {
    changes = [],
    accessChange = {},
    unknown = [],
    ...claim
  }: Omit<RecordContent, 'identity' | 'unknown' | 'settings' | 'access'> &
    Pick<RequestedClaim, 'identity' | 'unknown' | 'changes' | 'accessChange'>,
  records: readonly DeviceRecord[],
): RecordContent {
  const previous = records.find(({slot, id}) => slot === claim.slot && id === claim.id);
  const access = changeNodeAccess(previous?.access, accessChange);
  return {
    ...claim,
    identity: keepSerial(previous?.identity ?? {}, claim.identity),
    settings: changeSettings(previous?.settings ?? [], changes),
    ...(access === undefined ? {} : {access}),
    unknown: mergeUnknown(previous?.unknown ?? [], unknown),
  };
}

/**
 * The identity that is recorded: as it was read now, with the recorded serial number if that can be read only while the
 * host driver has the card.
 */
function keepSerial(previous: Identity, now: Identity | undefined): Identity {
  if (now === undefined) return previous;
  const {path, serial} = previous;
  return path === now.path && serial !== undefined && !serial.startsWith('pcie:') ? {serial, ...now} : now;
}

const sourceWords = {
  record: 'a record',
  'kernel-command-line': 'pearasys.claim= on the kernel command line',
  credential: 'a credential pearasys.claim.*',
} as const satisfies Readonly<Record<RecordSource, string>>;

/** The files at these paths that are ignored. */
function problemsAt(paths: readonly string[], state: ServiceState): IgnoredFile[] {
  return state.records.problems.filter(({path}) => paths.includes(path));
}

/** Refuses to write records that would be ignored, and to overwrite what is not a file. */
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

/** Removes a template from systemd's folder: the file, or the link to it. */
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
