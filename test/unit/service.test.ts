import assert from 'node:assert/strict';
import {defaultLayout, systemdUnits} from '../../src/config/layout.js';
import {parseId} from '../../src/devices/pci/id.js';
import {parseSlot, type Slot} from '../../src/devices/pci/slot.js';
import {type ServiceState, type WantsLink} from '../../src/plan/service/service-state.js';
import {
  planInstall,
  planInstallAnySlot,
  planUninstall,
  planUninstallAnySlot,
  type ServiceRequest,
} from '../../src/plan/service/service.js';
import type {FileState, Planned} from '../../src/plan/step.js';
import {checkedPath, printRecord, recordPath, type DeviceRecord} from '../../src/state/records/record.js';
import {enabledLink, unitName, type UnitIdentity} from '../../src/systemd/unit.js';
import {aDriver, linesOf, noAccess, undoLines} from './values.js';

const slot = parseSlot('02:00.0');
const id = parseId('10de:1b80');
const mine: UnitIdentity = {slot, driver: aDriver('vfio-pci')};
const own = unitName(mine);
const rival: UnitIdentity = {slot, driver: aDriver('nouveau')};
const path = recordPath(defaultLayout, {slot, id});
const record: DeviceRecord = {
  kind: 'record',
  path,
  slot,
  id,
  driver: aDriver('vfio-pci'),
  together: [slot],
  identity: {},
  source: 'record',
  unknown: [],
};
const copyOf = (one: DeviceRecord): string => checkedPath(one, undefined) ?? '';
const copy = copyOf(record);

function state(rest: Partial<ServiceState> = {}): ServiceState {
  return {
    layout: defaultLayout,
    records: {records: [], problems: [], folderProblem: undefined},
    units: [],
    active: new Set(),
    bridges: new Map(),
    files: new Map(),
    links: new Map(),
    wants: new Map(),
    untidy: [],
    claimList: {takesPart: false, file: undefined},
    access: noAccess,
    running: true,
    present: new Set([slot]),
    names: new Map([[slot, 'GP104']]),
    ...rest,
  };
}

function request(rest: Partial<ServiceRequest> = {}): ServiceRequest {
  const claims = [{slot, id, driver: aDriver('vfio-pci'), together: [slot]}];
  return {claims, folder: systemdUnits, start: 'later', ...rest};
}

/** The steps that call systemd or udev, and those for links; files are written before. */
const asked = (planned: Planned) =>
  linesOf(planned).filter((line) => /^(?:systemctl|udevadm|ln) |^rm .*\.wants\//.test(line));
const template = `${systemdUnits}/pearasys-${slot}@.service`;
/** The link that enables a unit. */
const link = (unit: UnitIdentity): string => enabledLink(unit);
const enabled = (...units: UnitIdentity[]): ReadonlyMap<string, WantsLink> =>
  new Map(units.map((unit) => [link(unit), {unit: unitName(unit), target: template}]));
const file = (content: string): FileState => ({content, mode: 0o644});

describe('planInstall', () => {
  it('tags the device before the unit is enabled, which would start it', () => {
    const planned = planInstall(request(), state());
    assert.deepEqual(asked(planned), [
      `udevadm trigger --action=change /sys/bus/pci/devices/${slot}`,
      `systemctl start sys-bus-pci-devices-${slot}.device`,
      `ln -sfn ${template} ${link(mine)}`,
      'systemctl daemon-reload',
    ]);
    assert.equal(planned.kind, 'plan');
    assert.deepEqual(planned.afterUndo.length, 1);
    assert.deepEqual(undoLines(planned.steps), [
      `rm ${copy}`,
      `rm ${link(mine)}`,
      `rm /etc/systemd/system/${own}.d/50-pearasys.conf`,
      `rm /etc/systemd/system/pearasys-${slot}@.service`,
      `rm /etc/systemd/system/pearasys-claim-${slot}@.service`,
      `rm ${path}`,
    ]);
  });

  it('enables no function before all units of the card start each other', () => {
    const slots = [slot, parseSlot('0000:02:00.1')];
    const claims = slots.map((one) => ({slot: one, id, driver: aDriver('vfio-pci'), together: slots}));
    const links = linesOf(planInstall(request({claims}), state())).filter((line) => line.startsWith('ln '));
    const isEnabling = links.map((line) => line.includes('/sys-bus-pci-devices-'));
    assert.deepEqual(isEnabling, [false, false, true, true], links.join('\n'));
  });

  it('triggers no missing device, and nothing at all in an image', () => {
    assert.deepEqual(asked(planInstall(request(), state({present: new Set<Slot>()}))), [
      `ln -sfn ${template} ${link(mine)}`,
      'systemctl daemon-reload',
    ]);
    assert.deepEqual(asked(planInstall(request(), state({running: false}))), [
      `ln -sfn ${template} ${link(mine)}`,
    ]);
  });

  it('starts now, or only queues from within another unit’s start', () => {
    assert.equal(asked(planInstall(request({start: 'now'}), state())).at(-1), `systemctl start ${own}`);
    assert.equal(
      asked(planInstall(request({start: 'queue'}), state())).at(-1),
      `systemctl start --no-block ${own}`,
    );
  });

  it('writes the checked copy for the rule, without a reload of systemd, but none in an image', () => {
    const last = (planned: Planned) => linesOf(planned).at(-1) ?? '';
    const wanted = `cat > ${copy} <<'EOF'\nPEARASYS_DRIVER=vfio-pci\nEOF`;
    const first = planInstall(request(), state());
    assert.equal(last(first), wanted);
    assert.doesNotMatch(linesOf(planInstall(request(), state({running: false}))).join('\n'), /checked/);
    assert.equal(first.kind, 'plan');
    const files = new Map<string, FileState>();
    for (const step of first.steps) if (step.kind === 'write-file') files.set(step.path, file(step.content));
    const installed = state({
      records: {records: [record], problems: [], folderProblem: undefined},
      units: [mine],
      wants: enabled(mine),
      files,
    });
    assert.deepEqual(linesOf(planInstall(request(), installed)), []);
    files.delete(copy);
    assert.deepEqual(linesOf(planInstall(request(), installed)), [wanted]);
    files.set(copy, file('PEARASYS_DRIVER=pci-stub\n'));
    assert.deepEqual(linesOf(planInstall(request(), installed)), [wanted]);
  });

  it('removes the checked copy for the card that was in the slot before', () => {
    const old: DeviceRecord = {...record, id: parseId('10de:1b81')};
    const planned = planInstall(
      request(),
      state({
        records: {records: [old], problems: [], folderProblem: undefined},
        files: new Map([
          [recordPath(defaultLayout, old), file(printRecord(old))],
          [copyOf(old), file('PEARASYS_DRIVER=vfio-pci\n')],
        ]),
      }),
    );
    assert.deepEqual(linesOf(planned).slice(0, 2), [
      `rm ${copyOf(old)}`,
      `rm ${recordPath(defaultLayout, old)}`,
    ]);
  });

  it('disables an enabled rival; an undo enables it and, if it was active, starts it again', () => {
    const name = unitName(rival);
    const planned = planInstall(
      request({start: 'now'}),
      state({units: [rival], wants: enabled(rival), active: new Set([name])}),
    );
    assert.equal(planned.kind, 'plan');
    assert.deepEqual(asked(planned).slice(2), [
      `rm ${link(rival)}`,
      `ln -sfn ${template} ${link(mine)}`,
      'systemctl daemon-reload',
      `systemctl start ${own}`,
    ]);
    assert.deepEqual(undoLines(planned.steps).slice(0, 5), [
      `systemctl stop ${own}`,
      `systemctl start ${name}`,
      `rm ${copy}`,
      `rm ${link(mine)}`,
      `ln -sfn ${template} ${link(rival)}`,
    ]);
  });

  it('does not stop a unit on undo that was active before', () => {
    const planned = planInstall(
      request({start: 'now'}),
      state({units: [mine], wants: enabled(mine), active: new Set([own])}),
    );
    assert.equal(planned.kind, 'plan');
    assert.ok(undoLines(planned.steps).every((line) => !line.startsWith('systemctl stop')));
  });

  it('removes the record of another card in the slot, and restores it on undo', () => {
    const old = {...record, id: parseId('10de:1b81')};
    const oldPath = recordPath(defaultLayout, old);
    const planned = planInstall(
      request(),
      state({
        records: {records: [old], problems: [], folderProblem: undefined},
        files: new Map([[oldPath, file(printRecord(old))]]),
      }),
    );
    assert.equal(planned.kind, 'plan');
    assert.equal(linesOf(planned)[0], `rm ${oldPath}`);
    assert.match(undoLines(planned.steps).at(-1) ?? '', new RegExp(`^cat > ${oldPath}`));
    assert.equal(planned.notes.length, 1);
  });

  it('is refused if the record would be ignored', () => {
    const problem = {kind: 'record', path: '/etc/pearasys/pci', reason: 'chown root'} as const;
    for (const planned of [
      planInstall(request(), state({records: {records: [], problems: [], folderProblem: problem}})),
      planInstallAnySlot(
        id,
        aDriver('none'),
        state({records: {records: [], problems: [], folderProblem: problem}}),
      ),
      planInstall(
        request(),
        state({
          records: {records: [], problems: [{kind: 'record', path, reason: 'x'}], folderProblem: undefined},
        }),
      ),
    ]) {
      assert.equal(planned.kind, 'refusal');
      assert.equal(planned.error.exitCode, 3);
    }
  });
});

describe('planUninstall', () => {
  it('stops, disables and removes; the undo of the stop starts the units that were active', () => {
    const planned = planUninstall(
      [slot],
      state({
        records: {records: [record], problems: [], folderProblem: undefined},
        units: [mine, rival],
        wants: enabled(mine),
        active: new Set([own]),
        files: new Map([
          [path, file(printRecord(record))],
          [copy, file('PEARASYS_DRIVER=vfio-pci\n')],
        ]),
      }),
    );
    assert.equal(planned.kind, 'plan');
    assert.deepEqual(linesOf(planned), [
      `systemctl stop ${own} ${unitName(rival)}`,
      `cat /sys/bus/pci/devices/${slot}/driver_override >/dev/null`,
      `rm ${copy}`,
      `rm ${link(mine)}`,
      `rm ${path}`,
      'systemctl daemon-reload',
    ]);
    assert.deepEqual(undoLines(planned.steps).slice(1), [
      `ln -sfn ${template} ${link(mine)}`,
      `cat > ${copy} <<'EOF'\nPEARASYS_DRIVER=vfio-pci\nEOF`,
      `systemctl start ${own}`,
    ]);
  });

  it('disables all functions before their units no longer start each other', () => {
    const slots = [slot, parseSlot('0000:02:00.1')];
    const units = slots.map((one) => ({...mine, slot: one}));
    const wants = new Map(
      units.flatMap((unit, index) => {
        const one = {unit: unitName(unit), target: template};
        const sibling = units[1 - index] ?? mine;
        return [
          [`${systemdUnits}/${unitName(sibling)}.wants/${unitName(unit)}`, one],
          [link(unit), one],
        ];
      }),
    );
    const removed = linesOf(planUninstall(slots, state({units, wants}))).filter((line) => /wants/.test(line));
    const isEnabling = removed.map((line) => line.includes('/sys-bus-pci-devices-'));
    assert.deepEqual(isEnabling, [true, true, false, false], removed.join('\n'));
  });

  it('removes a template that is a link, and its target', () => {
    const there = `/opt/pearasys-${slot}@.service`;
    const planned = planUninstall(
      [slot],
      state({links: new Map([[template, there]]), files: new Map([[there, file('x\n')]]), running: false}),
    );
    assert.equal(planned.kind, 'plan');
    assert.deepEqual(linesOf(planned), [`rm ${template}`, `rm ${there}`]);
    assert.deepEqual(undoLines(planned.steps), [
      `cat > ${there} <<'EOF'\nx\nEOF`,
      `ln -sfn ${there} ${template}`,
    ]);
  });

  it('is refused with 4 if nothing is installed', () => {
    const left = state({files: new Map([[copy, file('PEARASYS_DRIVER=vfio-pci\n')]])});
    for (const planned of [
      planUninstall([slot], state()),
      planUninstall([slot], left),
      planUninstallAnySlot(id, state()),
    ]) {
      assert.equal(planned.kind, 'refusal');
      assert.equal(planned.error.exitCode, 4);
    }
  });

  it('names the slots that keep their own records, for an id', () => {
    const any: DeviceRecord = {...record, slot: 'any', driver: aDriver('none'), together: []};
    const planned = planUninstallAnySlot(
      id,
      state({
        records: {records: [any, record], problems: [], folderProblem: undefined},
        files: new Map([[recordPath(defaultLayout, any), file(printRecord(any))]]),
      }),
    );
    assert.equal(planned.kind, 'plan');
    assert.deepEqual(linesOf(planned), ['rm /etc/pearasys/pci/any-0x10de-0x1b80']);
    assert.match(planned.notes[0] ?? '', /slot 0000:02:00\.0 keeps its own record/);
  });
});
