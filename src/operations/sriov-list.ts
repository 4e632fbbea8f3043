import type {Layout} from '../config/layout.js';
import {readDependents} from '../devices/pci/dependents.js';
import {readDevices, type Device} from '../devices/pci/device.js';
import type {Slot} from '../devices/pci/slot.js';
import {readSriov, type Sriov} from '../devices/pci/sriov.js';
import type {HostReader} from '../host/host.js';
import {readCards, type Whereabouts} from '../state/records/locate.js';
import {readRescue} from '../state/rescue.js';
import type {IgnoredFile} from '../state/desired.js';
import {driverOf, readSriovRecords, type SriovRecord} from '../state/sriov/sriov-record.js';
import {isExempt} from '../plan/sriov/sriov-state.js';
import {isClaimed} from '../plan/switch/switch.js';
import type {Driver} from '../devices/pci/driver.js';

/** A virtual function (VF) that exists. */
export interface VirtualReport {
  readonly index: number;
  readonly device: Device;
  /** The driver that the record of its PF gives it; undefined for none, and for a VF that the record is not for. */
  readonly wanted: Driver | undefined;
}

/**
 * `right`: as recorded; `other-number`: another number of VFs; `other-driver`: a VF is not on its recorded driver;
 * `absent`: the recorded card is not in the machine, or is not known for certain; `unrecorded`.
 */
export type SriovStateWord = 'right' | 'other-number' | 'other-driver' | 'absent' | 'unrecorded';

/** A physical function (PF): one that is present, or only recorded. */
export interface SriovReport {
  readonly slot: Slot;
  readonly device: Device | undefined;
  readonly sriov: Sriov | undefined;
  readonly record: SriovRecord | undefined;
  readonly place: Whereabouts['kind'] | undefined;
  readonly state: SriovStateWord;
  readonly virtual: readonly VirtualReport[];
}

/** All PFs, and the records that are ignored. */
export interface SriovReports {
  readonly reports: readonly SriovReport[];
  readonly problems: readonly IgnoredFile[];
}

/** Reads what {@link SriovReports} has. */
export function readSriovReports(host: HostReader, layout: Layout): SriovReports {
  const devices = host.exists('/sys/bus/pci/devices') ? readDevices(host) : [];
  const known = new Map(devices.map((device) => [device.slot, device]));
  const {records, problems} = readSriovRecords(host, layout);
  const {where} = readCards(host, records, devices, false);
  const rescue = readRescue(host);
  const recordAt = (slot: Slot) => records.find((record) => where.get(record)?.slot === slot);
  const present = devices.flatMap((device): SriovReport[] => {
    const sriov = readSriov(host, device.slot, device.id);
    if (sriov === undefined) return [];
    const record = recordAt(device.slot);
    const virtual = (sriov.count === 0 ? [] : readDependents(host, device.slot, known).virtual).map(
      (one, index) => ({
        index,
        device: one,
        wanted:
          record === undefined || isExempt(host, rescue, one.slot) ? undefined : driverOf(record, index),
      }),
    );
    return [
      {
        slot: device.slot,
        device,
        sriov,
        record,
        place: record === undefined ? undefined : where.get(record)?.kind,
        state: stateOf(sriov, record, virtual),
        virtual,
      },
    ];
  });
  const absent = records
    .filter((record) => !present.some((report) => report.record === record))
    .map((record): SriovReport => ({
      slot: record.slot,
      device: undefined,
      sriov: undefined,
      record,
      place: where.get(record)?.kind,
      state: 'absent',
      virtual: [],
    }));
  return {reports: [...present, ...absent].sort((a, b) => (a.slot < b.slot ? -1 : 1)), problems};
}

function stateOf(
  sriov: Sriov,
  record: SriovRecord | undefined,
  virtual: readonly VirtualReport[],
): SriovStateWord {
  if (record === undefined) return 'unrecorded';
  if (sriov.count !== record.count) return 'other-number';
  return virtual.every(({device, wanted}) => wanted === undefined || isClaimed(device, wanted))
    ? 'right'
    : 'other-driver';
}
