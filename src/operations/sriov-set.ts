import type {Layout} from '../config/layout.js';
import {readDevice, type Device} from '../devices/pci/device.js';
import {readSriov} from '../devices/pci/sriov.js';
import type {Slot} from '../devices/pci/slot.js';
import {carryOut, type CarryOutOptions, type Outcome} from '../engine/carry-out.js';
import {ExitCode, PearasysError} from '../host/errors.js';
import type {Host, HostReader} from '../host/host.js';
import {planRepair, planSriov, planUnset, type SriovRequest} from '../plan/sriov/sriov.js';
import {readSriovState, recordsFor, type PhysicalFunction} from '../plan/sriov/sriov-state.js';
import {plan, readFileState, removeFile, type Planned} from '../plan/step.js';
import {readRescue, switchedOffBy, switchedOffError} from '../state/rescue.js';
import {unknownNotes} from '../state/desired.js';
import {readCopies, readSriovRecords, sriovPath, type SriovRecord} from '../state/sriov/sriov-record.js';

/**
 * Records how many virtual functions (VFs) a physical function (PF) has, and creates them.
 * @param device for an image, which has no devices, slot and id.
 * @throws PearasysError the refusal, or what failed.
 */
export async function setSriov(
  host: Host,
  layout: Layout,
  device: PhysicalFunction,
  request: SriovRequest,
  options: CarryOutOptions,
): Promise<Outcome> {
  const read = () => ('classCode' in device ? reread(host, device.slot) : device);
  const wereKnown = readSriov(host, device.slot, device.id)?.places !== undefined;
  const names = [device.slot, sriovLock];
  const planAgain = () => planSriov(host, request, readSriovState(host, layout, read(), request.wanted));
  const outcome = await carryOut(host, names, planAgain, options);
  if (wereKnown || !outcome.changed || request.when === 'later' || host.root !== '/') return outcome;
  // Now that there are VFs, the device tells where.
  const more = await carryOut(host, names, planAgain, options);
  return {...more, lines: [...outcome.lines, ...more.lines], changed: true};
}

/** The lock for the rules about nodes, which are in one file for all PFs. */
const sriovLock = 'sriov';

/** The result of {@link repairSriov}. */
export interface RepairOutcome {
  readonly outcome: Outcome;
  /** How many VFs the record asks for. */
  readonly count: number;
  /** The notes on what the record has that this version does not know. */
  readonly unknown: readonly string[];
}

/**
 * Makes a PF and its VFs as recorded, where the udev rules could not. For a card other than the recorded one, it removes
 * the files with which the rules would claim its VFs.
 * @throws PearasysError `switched-off`, `no-device`, `identity-mismatch`, `bad-record`: nothing is changed; the refusal; what
 * failed.
 */
export async function repairSriov(
  host: Host,
  layout: Layout,
  slot: Slot,
  options: CarryOutOptions,
): Promise<RepairOutcome> {
  const off = switchedOffBy(readRescue(host), slot);
  if (off !== undefined) throw new PearasysError(switchedOffError(`${slot} gets no virtual functions`, off));
  const record = findRecord(host, layout, reread(host, slot));
  if (record instanceof PearasysError) {
    if (record.code === 'identity-mismatch') await carryOut(host, [slot], () => forget(host, slot), options);
    throw record;
  }
  const planAgain = (): Planned => {
    const device = reread(host, slot);
    const now = recordOf(host, layout, device);
    return planRepair(host, now, device, readSriovState(host, layout, device, now));
  };
  const wereKnown = readSriov(host, slot, record.id)?.places !== undefined;
  const names = () =>
    recordOf(host, layout, reread(host, slot)).access === undefined ? [slot] : [slot, sriovLock];
  const outcome = await carryOut(host, names, planAgain, options);
  const more = wereKnown || !outcome.changed ? undefined : await carryOut(host, names, planAgain, options);
  return {
    outcome:
      more === undefined ? outcome : {...more, lines: [...outcome.lines, ...more.lines], changed: true},
    count: record.count,
    unknown: unknownNotes(record),
  };
}

/**
 * Forgets the number of VFs of a PF, and removes them.
 * @param later whether they stay until the next boot.
 * @throws PearasysError `no-device` if none is recorded; the refusal; what failed.
 */
export async function unsetSriov(
  host: Host,
  layout: Layout,
  device: PhysicalFunction,
  later: boolean,
  options: CarryOutOptions,
): Promise<Outcome> {
  return await carryOut(
    host,
    [device.slot, sriovLock],
    () => {
      const now = 'classCode' in device ? reread(host, device.slot) : device;
      return planUnset(readSriovState(host, layout, now, undefined), later);
    },
    options,
  );
}

/** A PF as it is now; the record's slot and id if it is absent. */
export function findRecordedPf(host: HostReader, layout: Layout, slot: Slot): PhysicalFunction {
  const device = host.exists('/sys/bus/pci/devices') ? readDevice(host, slot) : undefined;
  const record = readSriovRecords(host, layout).records.find((one) => one.slot === slot);
  if (device !== undefined) return device;
  if (record !== undefined) return {slot, id: record.id};
  throw noDevice(slot);
}

/** Removes the files for the rules, which are for the card that had the slot before. */
function forget(host: HostReader, slot: Slot): Planned {
  const files = readCopies(host, slot).map((path) => ({path, state: readFileState(host, path)}));
  return plan(files.flatMap(({path, state}) => (state === undefined ? [] : [removeFile(path, state)])));
}

/** The record of a device. @throws PearasysError see {@link findRecord}. */
function recordOf(host: HostReader, layout: Layout, device: Device): SriovRecord {
  const record = findRecord(host, layout, device);
  if (record instanceof PearasysError) throw record;
  return record;
}

/**
 * The record of a device, or why it has none: `bad-record` if it is ignored; `identity-mismatch` if it is of another card;
 * `no-device` without one.
 */
function findRecord(host: HostReader, layout: Layout, device: Device): SriovRecord | PearasysError {
  const {records, problems} = readSriovRecords(host, layout);
  const {its, elsewhere} = recordsFor(host, records, device);
  if (its !== undefined) return its;
  const {slot, id} = device;
  const path = sriovPath(layout, device);
  const ignored = problems.find((problem) => problem.path === path);
  const hint = `pearasys sriov set ${slot} COUNT`;
  if (ignored !== undefined)
    return new PearasysError({
      code: 'bad-record',
      exitCode: ExitCode.failed,
      message: `${slot} (${id}) gets no virtual functions: its record ${path} is ignored`,
      details: [ignored.reason],
      hint,
    });
  if (records.some((record) => record.path === path))
    return new PearasysError({
      code: 'identity-mismatch',
      exitCode: ExitCode.refused,
      message: `${slot} (${id}) gets no virtual functions: the card in the slot is not the recorded one`,
      details: elsewhere === undefined ? [] : [`the recorded card is in ${elsewhere}`],
      hint:
        elsewhere === undefined
          ? `to give them to this card: ${hint}`
          : `to record the card for the slot in which it is: pearasys sriov set ${elsewhere} COUNT`,
    });
  return new PearasysError({
    code: 'no-device',
    exitCode: ExitCode.noDevice,
    message: `no virtual functions are recorded for ${slot} (${id})`,
    hint,
  });
}

function reread(host: HostReader, slot: Slot): Device {
  const device = readDevice(host, slot);
  if (device === undefined) throw noDevice(slot);
  return device;
}

function noDevice(slot: Slot): PearasysError {
  return new PearasysError({
    code: 'no-device',
    exitCode: ExitCode.noDevice,
    message: `there is no device in slot ${slot}`,
    hint: '`pearasys sriov list` lists the devices that can have virtual functions',
  });
}
