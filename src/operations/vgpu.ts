import type {Layout} from '../config/layout.js';
import {readDevice, readDevices} from '../devices/pci/device.js';
import type {Slot} from '../devices/pci/slot.js';
import {readVgpus, type VgpuType} from '../devices/pci/vgpu.js';
import {carryOut, type CarryOutOptions, type Outcome} from '../engine/carry-out.js';
import {PearasysError} from '../host/errors.js';
import type {Host, HostQuery, HostReader} from '../host/host.js';
import {poll} from '../host/poll.js';
import {
  planRecordedVgpu,
  planVgpu,
  planVgpuStop,
  readVgpuState,
  type VgpuRequest,
} from '../plan/vgpu/vgpu.js';
import type {IgnoredFile} from '../state/desired.js';
import {readRescue, switchedOffBy, switchedOffError} from '../state/rescue.js';
import {readVgpuRecords, type VgpuRecord} from '../state/vgpu/vgpu-record.js';
import {readActiveStates, vgpuUnit} from '../systemd/unit.js';

/**
 * Sets or clears the vGPU type of a virtual function, now and whenever it appears.
 * @throws PearasysError `no-type`; `in-use` if a guest has the present vGPU; what failed.
 */
export async function setVgpu(
  host: Host,
  layout: Layout,
  request: VgpuRequest,
  options: CarryOutOptions,
): Promise<Outcome> {
  const {slot, id} = request;
  const unit = vgpuUnit(slot);
  const active = (await readActiveStates(host, [unit])).get(unit) === 'active';
  return await carryOut(
    host,
    [slot],
    () => planVgpu(request, readVgpuState(host, layout, slot, {id, active})),
    options,
  );
}

/**
 * Sets the recorded type, for the start of a unit. The driver offers types only after nvidia-vgpud has run.
 * @param options.patience milliseconds to wait for the type.
 * @throws PearasysError `switched-off`; the refusal; what failed.
 */
export async function setRecordedVgpu(
  host: Host,
  layout: Layout,
  slot: Slot,
  options: CarryOutOptions & {readonly patience: number},
): Promise<Outcome> {
  const {signal, patience: limit} = options;
  const off = switchedOffBy(readRescue(host), slot);
  if (off !== undefined) throw new PearasysError(switchedOffError(`${slot} gets no vGPU type`, off));
  await poll(host, () => !mayYetBeOffered(host, layout, slot), {limit, signal});
  return await carryOut(
    host,
    [slot],
    () => planRecordedVgpu(slot, readVgpuState(host, layout, slot)),
    options,
  );
}

function mayYetBeOffered(host: HostReader, layout: Layout, slot: Slot): boolean {
  const {device, vgpu, record} = readVgpuState(host, layout, slot);
  return (
    vgpu?.type === 0 &&
    record?.id === device?.id &&
    record !== undefined &&
    !vgpu.creatable.some(({id}) => id === record.type)
  );
}

/** Clears the type, for the stop of a unit. */
export async function stopVgpu(
  host: Host,
  layout: Layout,
  slot: Slot,
  options: CarryOutOptions,
): Promise<Outcome> {
  return await carryOut(host, [slot], () => planVgpuStop(readVgpuState(host, layout, slot)), options);
}

/** A virtual function for vGPUs, or the record of one that is absent. */
export interface VgpuReport {
  readonly slot: string;
  readonly id: string;
  readonly present: boolean;
  /** The GPU's own function; null if it is not known. */
  readonly physical: string | null;
  /** The type that is set, 0 for none; null if the function is absent or is on another driver. */
  readonly type: number | null;
  /** The types that can be set now. */
  readonly creatable: readonly VgpuType[];
  /** The type in the record; null without one. */
  readonly recorded: number | null;
  /** systemd's state of the unit; null without a record, or without systemd. */
  readonly unitState: string | null;
}

/** All virtual functions for vGPUs, and all records. */
export interface VgpuReports {
  readonly vgpus: readonly VgpuReport[];
  /** The records that are used. */
  readonly records: readonly VgpuRecord[];
  /** Files that are ignored. */
  readonly problems: readonly IgnoredFile[];
}

/** Reads {@link VgpuReports}, in the order of the slots. */
export async function readVgpuReports(host: HostQuery, layout: Layout): Promise<VgpuReports> {
  const vgpus = host.root === '/' ? readVgpus(host, readDevices(host)) : [];
  const {records, problems} = readVgpuRecords(host, layout);
  const states = await readActiveStates(
    host,
    records.map(({slot}) => vgpuUnit(slot)),
  );
  const recordOf = (slot: Slot, id: string) => records.find((one) => one.slot === slot && one.id === id);
  const present = vgpus.map(({slot, id, physical, type, creatable}): VgpuReport => {
    const record = recordOf(slot, id);
    return {
      slot,
      id,
      present: true,
      physical: physical ?? null,
      type,
      creatable,
      recorded: record?.type ?? null,
      unitState: record === undefined ? null : (states.get(vgpuUnit(slot)) ?? null),
    };
  });
  const others = records
    .filter(({slot, id}) => !vgpus.some((one) => one.slot === slot && one.id === id))
    .map(({slot, id, type}): VgpuReport => ({
      slot,
      id,
      present: host.root === '/' && readDevice(host, slot)?.id === id,
      physical: null,
      type: null,
      creatable: [],
      recorded: type,
      unitState: states.get(vgpuUnit(slot)) ?? null,
    }));
  return {
    vgpus: [...present, ...others].sort((a, b) => (a.slot < b.slot ? -1 : 1)),
    records,
    problems,
  };
}
