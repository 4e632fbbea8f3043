import type {Layout} from '../config/layout.js';
import {readDevice, type Device} from '../devices/pci/device.js';
import type {Slot} from '../devices/pci/slot.js';
import {carryOut, type CarryOutOptions, type Outcome} from '../engine/carry-out.js';
import {ExitCode, PearasysError} from '../host/errors.js';
import type {Host, HostReader} from '../host/host.js';
import {readIdentity} from '../devices/pci/identity.js';
import {systemctl, type Step} from '../plan/step.js';
import {planClaim, releasedMark} from '../plan/switch/claim.js';
import {isClaimed} from '../plan/switch/switch.js';
import {readRecordOf, readRecords, type DeviceRecord} from '../state/records/record.js';
import {describeIdentity, describePlace} from '../state/records/identity-words.js';
import type {PresentDevice, Whereabouts} from '../state/records/locate.js';
import {isIgnored, unknownNotes} from '../state/desired.js';
import {readRescue, switchedOffBy, switchedOffError} from '../state/rescue.js';
import {isEnabled, isMasked, readSystemState, readUnits, type UnitIdentity} from '../systemd/unit.js';
import {findCards} from './cards.js';

/** The result of {@link claimDevice}. */
interface ClaimOutcome extends Outcome {
  /** The slots that were claimed together. */
  readonly slots: readonly Slot[];
  /** The notes on what the device's record has that this version does not know. */
  readonly unknown: readonly string[];
}

/**
 * Binds the device of a unit to its driver, together with those of its set, if it is the recorded card.
 * @throws PearasysError `switched-off`, `no-device`, `identity-mismatch` or `bad-record`: the device does not change; the
 *   refusal; what failed.
 */
export async function claimDevice(
  host: Host,
  layout: Layout,
  unit: UnitIdentity,
  options: CarryOutOptions,
): Promise<ClaimOutcome> {
  const {slot, driver} = unit;
  const off = switchedOffBy(readRescue(host), slot);
  if (off !== undefined)
    throw new PearasysError({
      ...switchedOffError(`${slot} is not claimed`, off),
      hint: `boot without ${off}, or switch it manually: pearasys bind ${driver} ${slot}`,
    });
  const own = identify(host, layout, [slot], readRecords(host, layout).records);
  const slots = () => claimedTogether(host, layout, unit);
  const outcome = await carryOut(
    host,
    slots,
    () => {
      const {records: recorded} = readRecords(host, layout);
      const identified = identify(host, layout, slots(), recorded);
      const planned = planClaim(host, {
        devices: identified.map(({device}) => device),
        driver,
        records: identified.map((one) => one.record),
        recorded,
      });
      if (planned.kind === 'refusal' || planned.steps.length === 0) return planned;
      return {...planned, steps: [...planned.steps, ...completeRecords(host, identified)]};
    },
    options,
  );
  return {...outcome, slots: slots(), unknown: own.flatMap(({record}) => unknownNotes(record))};
}

/**
 * While the machine boots: each enabled claim whose device exists and is not on its driver. Its unit will start, if it
 * has not yet. Later an enabled claim may be only for the next boot, so only jobs that units wait for are done.
 */
export async function readDueClaims(host: Host, own: UnitIdentity): Promise<UnitIdentity[]> {
  const rescue = readRescue(host);
  const units = readUnits(host).filter((unit) => {
    if (switchedOffBy(rescue, unit.slot) !== undefined) return false;
    if (unit.slot === own.slot || !isEnabled(host, unit) || isMasked(host, unit)) return false;
    const device = host.exists(releasedMark(unit.slot)) ? undefined : readDevice(host, unit.slot);
    return device !== undefined && !isClaimed(device, unit.driver);
  });
  if (units.length === 0) return [];
  return ['initializing', 'starting'].includes(await readSystemState(host)) ? units : [];
}

/** A device that is the card of its slot's record. */
interface Identified {
  readonly device: Device;
  readonly record: DeviceRecord;
}

/**
 * Records of an older version get what identifies the card. This unit cannot write to /etc, which may also be read-only
 * at that point of the boot. If the other unit cannot do it either, it does so the next time.
 */
function completeRecords(host: HostReader, identified: readonly Identified[]): Step[] {
  const units = identified
    .filter(({device, record}) => isIncomplete(host, device, record))
    .map(({device}) => `pearasys-record@${device.slot}.service`);
  return units.length === 0 ? [] : [{...systemctl(['start', '--no-block', ...units]), accept: [0, 1, 4, 5]}];
}

/** Whether there is more to record of a card than its record has. */
function isIncomplete(host: HostReader, device: Device, {identity}: DeviceRecord): boolean {
  return identity.path === undefined && readIdentity(host, device, false).path !== undefined;
}

/**
 * The devices in these slots, with their records.
 * @param records all records.
 * @throws PearasysError `no-device`, `identity-mismatch` or `bad-record`: the device does not change.
 */
function identify(
  host: HostReader,
  layout: Layout,
  slots: readonly Slot[],
  records: readonly DeviceRecord[],
): Identified[] {
  const {present, where} = findCards(host, records);
  return slots.map((slot) => {
    const device = readDevice(host, slot);
    if (device === undefined)
      throw new PearasysError({
        code: 'no-device',
        exitCode: ExitCode.noDevice,
        message: `there is no device in slot ${slot}`,
      });
    const file = readRecordOf(host, layout, device);
    if (file === undefined) throw notTheCard(device, records);
    if (isIgnored(file))
      throw new PearasysError({
        code: 'bad-record',
        exitCode: ExitCode.failed,
        message: `${slot} (${device.id}) is not claimed: its record ${file.path} is ignored`,
        details: [file.reason],
        hint: `pearasys -s ${slot} service install DRIVER rewrites it`,
      });
    const record = records.find(({path}) => path === file.path) ?? file;
    const place = where.get(record);
    if (place?.kind !== 'matches') throw notTheRecorded(record, place, present.get(slot), where);
    return {device, record};
  });
}

/** The error for a card of another kind than the recorded one. */
function notTheCard(device: Device, records: readonly DeviceRecord[]): PearasysError {
  const recorded = records.filter((record) => record.slot === device.slot).map((record) => record.id);
  const elsewhere = records.some((record) => record.slot === 'any' && record.id === device.id);
  return new PearasysError({
    code: 'identity-mismatch',
    exitCode: ExitCode.refused,
    message:
      recorded.length === 0
        ? `${device.slot} (${device.id}) is not claimed: there is no record for it`
        : `${device.slot} is not claimed: the card in the slot is ${device.id}, the recorded one is ${recorded.join(', ')}`,
    hint: elsewhere
      ? `this card is recorded for any slot, but this slot has a record for another card: pearasys -s ${device.slot} service uninstall, then re-plug the device`
      : `to give the driver to this card: pearasys -s ${device.slot} service install DRIVER`,
  });
}

/** The error for another card of the same kind. */
function notTheRecorded(
  record: DeviceRecord,
  place: Whereabouts | undefined,
  there: PresentDevice | undefined,
  where: ReadonlyMap<DeviceRecord, Whereabouts>,
): PearasysError {
  const [guest] = [...where].find(
    ([, {kind, slot}]) => kind === 'moved' && slot !== undefined && slot === there?.slot,
  ) ?? [undefined];
  const found = place === undefined ? undefined : describePlace(place);
  return new PearasysError({
    code: 'identity-mismatch',
    exitCode: ExitCode.refused,
    message: `${record.slot} is not claimed: the card in the slot is not the recorded one`,
    details: [
      `recorded: ${describeIdentity(record)}`,
      ...(there === undefined ? [] : [`in the slot: ${describeIdentity(there)}`]),
      ...(guest === undefined ? [] : [`the card in the slot belongs to the record of ${guest.slot}`]),
      ...(found === undefined ? [] : [found]),
    ],
    hint:
      place?.kind === 'moved' || guest !== undefined
        ? `to move the record to the slot of its card: pearasys service adopt ${place?.slot ?? record.slot}`
        : `to claim this card instead of the recorded one: pearasys service adopt ${record.slot}`,
  });
}

/** The slots to switch in one plan: those of the record whose unit is enabled; disabled ones are not claimed. */
export function claimedTogether(host: HostReader, layout: Layout, {slot: own, driver}: UnitIdentity): Slot[] {
  const present = readDevice(host, own);
  const record = present === undefined ? undefined : readRecordOf(host, layout, present);
  if (record === undefined || isIgnored(record) || record.driver !== driver) return [own];
  const rescue = readRescue(host);
  return record.together.filter((slot) => {
    if (slot === own) return true;
    if (switchedOffBy(rescue, slot) !== undefined) return false;
    const device = readDevice(host, slot);
    const theirs = device === undefined ? undefined : readRecordOf(host, layout, device);
    return (
      theirs !== undefined &&
      !isIgnored(theirs) &&
      theirs.driver === driver &&
      isEnabled(host, {slot, driver})
    );
  });
}
