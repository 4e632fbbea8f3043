import {ExitCode} from '../../host/errors.js';
import type {HostReader} from '../../host/host.js';
import type {Layout} from '../../config/layout.js';
import {devicePath, readDevice, type Device} from '../../devices/pci/device.js';
import type {DeviceId} from '../../devices/pci/id.js';
import type {Slot} from '../../devices/pci/slot.js';
import {readVgpus, vgpuTypePath, type Vgpu} from '../../devices/pci/vgpu.js';
import {printVgpu, readVgpuRecords, vgpuPath, type VgpuRecord} from '../../state/vgpu/vgpu-record.js';
import {deviceUnit, vgpuUnit} from '../../systemd/unit.js';
import type {Holder} from '../../usage/holder.js';
import {readHolders} from '../../usage/holders.js';
import {refuseHeld} from '../switch/refusals.js';
import {
  plan,
  readFileState,
  refuse,
  removeFile,
  systemctl,
  udevadm,
  writeAttribute,
  writeFile,
  type FileState,
  type Planned,
  type Refusal,
  type Step,
} from '../step.js';

/** What a virtual function shall have. */
export interface VgpuRequest {
  readonly slot: Slot;
  /** The id for a virtual function that is absent. */
  readonly id: DeviceId | undefined;
  /** The number or name of a type; 0 for none. */
  readonly type: string;
}

/** What the planners need to know of a virtual function. */
export interface VgpuState {
  readonly layout: Layout;
  /** Whether this is the running machine; false for an image. */
  readonly running: boolean;
  readonly device: Device | undefined;
  /** Undefined if the device is absent, or no virtual function for vGPUs. */
  readonly vgpu: Vgpu | undefined;
  readonly holders: readonly Holder[];
  /** Whether the unit is active, when this was last asked. */
  readonly active: boolean;
  /** The record for this slot, whatever its id; undefined if there is none. */
  readonly record: VgpuRecord | undefined;
  /** The files of the slot's records, also of those that are ignored, by path. */
  readonly files: ReadonlyMap<string, FileState>;
  /** Files in the way that are not root's. */
  readonly foreign: readonly string[];
}

/** Reads {@link VgpuState}. */
export function readVgpuState(
  host: HostReader,
  layout: Layout,
  slot: Slot,
  {id, active = false}: {readonly id?: DeviceId | undefined; readonly active?: boolean} = {},
): VgpuState {
  const running = host.root === '/';
  const device = running ? readDevice(host, slot) : undefined;
  const [vgpu] = device === undefined ? [] : readVgpus(host, [device]);
  const {records, problems} = readVgpuRecords(host, layout);
  const record = records.find((one) => one.slot === slot);
  const wanted = device?.id ?? id;
  const paths = [
    ...(wanted === undefined ? [] : [vgpuPath(layout, {slot, id: wanted})]),
    ...[...records, ...problems].map(({path}) => path).filter((path) => path.includes(`/${slot}-`)),
  ];
  const files = new Map<string, FileState>();
  const foreign: string[] = [];
  for (const path of new Set(paths)) {
    const state = readFileState(host, path, false);
    if (state !== undefined) files.set(path, state);
    else if (host.info(path, false) !== undefined) foreign.push(path);
  }
  return {
    layout,
    running,
    device,
    vgpu,
    holders: device === undefined || vgpu === undefined || vgpu.type === 0 ? [] : readHolders(host, [device]),
    active,
    record,
    files,
    foreign,
  };
}

/** The plan that sets a type, now and whenever the virtual function appears, or clears it. */
export function planVgpu({slot, id, type: text}: VgpuRequest, state: VgpuState): Planned {
  const {running, device, vgpu, layout, record, files, foreign, active} = state;
  const type = typeNumber(text, vgpu);
  if (type === undefined) return refuseType(slot, text, vgpu);
  const known = device?.id ?? id ?? (type === 0 ? record?.id : undefined);
  if (known === undefined && (type !== 0 || files.size === 0))
    return refuse({
      code: 'no-device',
      exitCode: ExitCode.noDevice,
      message: `there is no device in slot ${slot}${type === 0 ? ', and no record for it' : ''}`,
      details: ['nothing was changed'],
      ...(type === 0 ? {} : {hint: 'for a virtual function that is absent, name its id: --id VENDOR:DEVICE'}),
    });
  if (device !== undefined && vgpu === undefined && (type !== 0 || files.size === 0))
    return refuseOther(device);
  const [inTheWay] = foreign;
  if (inTheWay !== undefined)
    return refuse({
      code: 'bad-path',
      exitCode: ExitCode.refused,
      message: `refusing to overwrite ${inTheWay}: it is not a file owned by root`,
      details: ['nothing was changed'],
      hint: 'remove it',
    });
  const change = planType(type, state);
  if ('kind' in change) return change;
  const unit = vgpuUnit(slot);
  if (type === 0 || known === undefined) {
    const drops = [...files].map(([path, file]) => removeFile(path, file));
    // The unit stops without a process: the type is cleared.
    const stop = running && (drops.length > 0 || active) ? [systemctl(['stop', unit])] : [];
    return plan([...change, ...drops, ...stop]);
  }
  const own = vgpuPath(layout, {slot, id: known});
  const stale = [...files].filter(([path]) => path !== own).map(([path, file]) => removeFile(path, file));
  const previous = files.get(own);
  const content = printVgpu({slot, id: known, type, unknown: record?.id === known ? record.unknown : []});
  const written = previous?.content === content ? [] : [writeFile(own, content, previous)];
  const steps = [...change, ...stale, ...written];
  if (vgpu === undefined || (active && written.length === 0)) return plan(steps);
  return plan([
    ...steps,
    // The rule now tags the device, so that systemd knows it. Starting the device unit waits for that.
    udevadm(['trigger', '--action=change', devicePath(slot)]),
    systemctl(['start', deviceUnit(slot)]),
    systemctl(['start', unit]),
  ]);
}

/** The plan of a unit's start: sets the recorded type. */
export function planRecordedVgpu(slot: Slot, state: VgpuState): Planned {
  const {device, vgpu, record} = state;
  if (device === undefined || record?.id !== device.id)
    return refuse({
      code: 'no-device',
      exitCode: ExitCode.noDevice,
      message:
        device === undefined
          ? `there is no device in slot ${slot}`
          : `${slot} (${device.id}) has no valid record of a vGPU type`,
      details: ['nothing was changed'],
      hint: `pearasys vgpu list`,
    });
  if (vgpu === undefined) return refuseOther(device);
  if (vgpu.type !== record.type && typeNumber(String(record.type), vgpu) === undefined)
    return refuseType(slot, String(record.type), vgpu);
  const steps = planType(record.type, state);
  return 'kind' in steps ? steps : plan(steps);
}

/** The plan of a unit's stop: clears the type. */
export function planVgpuStop(state: VgpuState): Planned {
  const steps = planType(0, state);
  return 'kind' in steps ? steps : plan(steps);
}

/** The steps that set a type; a type must be cleared before another can be set. */
function planType(type: number, {device, vgpu, holders}: VgpuState): readonly Step[] | Refusal {
  if (device === undefined || vgpu === undefined || vgpu.type === type) return [];
  // A process that has the group open may be a guest with this vGPU.
  const refusal = vgpu.type === 0 ? undefined : refuseHeld([device], holders, false);
  if (refusal !== undefined) return refusal;
  const {slot} = vgpu;
  const path = vgpuTypePath(slot);
  const write = (value: number, previous: number) =>
    writeAttribute(path, String(value), {
      slot,
      undo: [writeAttribute(path, String(previous), {slot})],
      hint: `the kernel's reason is in its log: journalctl -k --grep '${slot}|nvidia'`,
    });
  return [...(vgpu.type === 0 ? [] : [write(0, vgpu.type)]), ...(type === 0 ? [] : [write(type, 0)])];
}

/** The number of a type that is named by number or name; undefined if it cannot be set. */
function typeNumber(text: string, vgpu: Vgpu | undefined): number | undefined {
  const number = /^(?:0|[1-9]\d{0,8})$/.test(text) ? Number(text) : undefined;
  if (vgpu === undefined || number === 0 || number === vgpu.type) return number;
  const offered = vgpu.creatable.find(({id, name}) => id === number || name === text);
  // While a type is set, the driver offers none: whether another one fits shows when it is set.
  return offered?.id ?? (vgpu.type !== 0 ? number : undefined);
}

function refuseType(slot: Slot, text: string, vgpu: Vgpu | undefined): Refusal {
  const types = vgpu?.creatable.map(({id, name}) => `${id} (${name})`) ?? [];
  const why =
    vgpu === undefined
      ? 'without the device, only its number can be used'
      : types.length > 0
        ? `it can have ${types.join(', ')}`
        : vgpu.type === 0
          ? 'it can have none now: the other vGPUs of this GPU use all of it, or nvidia-vgpud has not run'
          : `it has type ${vgpu.type}, and the driver lists no others until you clear it: pearasys vgpu set ${slot} 0`;
  return refuse({
    code: 'no-type',
    exitCode: ExitCode.noDevice,
    message: `${slot} cannot have the vGPU type '${text}'`,
    details: ['nothing was changed'],
    hint: why,
  });
}

function refuseOther({slot, id, driver}: Device): Refusal {
  return refuse({
    code: 'not-switchable',
    exitCode: ExitCode.refused,
    message: `${slot} (${id}) is not a virtual function for NVIDIA vGPUs: it has no ${vgpuTypePath(slot)}`,
    details: [driver === undefined ? 'it has no driver' : `it is on driver ${driver}`, 'nothing was changed'],
    hint: "name a virtual function that is on NVIDIA's vGPU driver; sriov-manage of that driver creates them",
  });
}
