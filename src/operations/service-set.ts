import type {Layout} from '../config/layout.js';
import {readDevice, type Device} from '../devices/pci/device.js';
import type {Slot} from '../devices/pci/slot.js';
import {carryOut, type CarryOutOptions, type Outcome} from '../engine/carry-out.js';
import {ExitCode, PearasysError} from '../host/errors.js';
import type {Host, HostReader} from '../host/host.js';
import {planSettings, type RecordChange} from '../plan/service/device-settings.js';
import {readServices} from '../plan/service/service-state.js';
import {servicesLock} from '../plan/service/service.js';
import {readSetting, settingKinds, settingOf} from '../state/records/device-settings.js';
import {isNamedFor, readRecords, type DeviceRecord} from '../state/records/record.js';

/** A record, with its device if that is in the slot. */
interface RecordedDevice {
  readonly record: DeviceRecord;
  readonly device: Device | undefined;
}

/**
 * Changes the record of a slot. Settings are applied at the next claim; who may open the device's nodes, at once.
 * @throws PearasysError `no-device` without a record; the refusal of a setting that cannot work; what failed.
 */
export async function setSettings(
  host: Host,
  layout: Layout,
  slot: Slot,
  change: RecordChange,
  options: CarryOutOptions,
): Promise<Outcome> {
  return await carryOut(
    host,
    [servicesLock],
    () => {
      const {record, device} = findRecorded(host, layout, slot);
      return planSettings(host, record, device, change, readServices(host, layout, [slot]));
    },
    options,
  );
}

/**
 * The record of a slot: that of the card in it, or else the only one.
 * @throws PearasysError `no-device` if there is none; `bad-record` for one that is ignored.
 */
export function findRecorded(host: HostReader, layout: Layout, slot: Slot): RecordedDevice {
  const {records, problems} = readRecords(host, layout);
  const device = readDevice(host, slot);
  const own = records.filter((record) => record.slot === slot);
  const record = own.find(({id}) => id === device?.id) ?? own[0];
  if (record !== undefined) return {record, device: device?.id === record.id ? device : undefined};
  const ignored = problems.find(({path}) => isNamedFor(slot, path));
  throw new PearasysError({
    code: ignored === undefined ? 'no-device' : 'bad-record',
    exitCode: ignored === undefined ? ExitCode.noDevice : ExitCode.refused,
    message:
      ignored === undefined
        ? `there is no record for slot ${slot}`
        : `the record ${ignored.path} is ignored: ${ignored.reason}`,
    hint: `pearasys -s ${slot} service install DRIVER --set KEY=VALUE`,
  });
}

/** A setting of a record, and what the kernel has. */
export interface SettingReport {
  readonly name: string;
  /** The value that is set at each claim; null if nothing is set. */
  readonly value: string | null;
  /** The value in the kernel now; null if it is not known. For a BAR the index of its size. */
  readonly current: string | null;
}

/** The settings of a record, and those that its device supports. */
export function readSettingReports(
  host: HostReader,
  {settings = []}: DeviceRecord,
  device: Device | undefined,
): SettingReport[] {
  return settingKinds.flatMap(({name}) => {
    const value = settingOf(settings, name) ?? null;
    const current = device === undefined ? null : (readSetting(host, device, name) ?? null);
    return value === null && current === null ? [] : [{name, value, current}];
  });
}
