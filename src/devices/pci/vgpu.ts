import type {HostReader} from '../../host/host.js';
import {devicePath, readPhysicalFunction, type Device} from './device.js';
import type {Slot} from './slot.js';

/** A type of vGPU that the driver offers on a virtual function. */
export interface VgpuType {
  readonly id: number;
  /** As `NVIDIA L40-1B`. */
  readonly name: string;
}

/** A virtual function on which NVIDIA's driver provides a vGPU without a mediated device. */
export interface Vgpu extends Pick<Device, 'slot' | 'id'> {
  /** The GPU's own function; undefined if the kernel shows none. */
  readonly physical: Slot | undefined;
  /** The type that is set; 0 for none. */
  readonly type: number;
  /** The types that can be set now. Their number depends on the other vGPUs of the GPU, and none can replace another. */
  readonly creatable: readonly VgpuType[];
}

/** The attribute with the type, and with 0 for none (Virtual GPU Software User Guide, "SR-IOV vGPU"). */
export function vgpuTypePath(slot: Slot): string {
  return devicePath(slot, 'nvidia/current_vgpu_type');
}

/** The virtual functions for vGPUs among these devices. */
export function readVgpus(host: HostReader, devices: readonly Device[]): Vgpu[] {
  return devices.flatMap(({slot, id, vgpuType}) =>
    vgpuType === undefined
      ? []
      : [
          {
            slot,
            id,
            physical: readPhysicalFunction(host, slot),
            type: vgpuType,
            creatable: parseCreatable(host.readText(devicePath(slot, 'nvidia/creatable_vgpu_types')) ?? ''),
          },
        ],
  );
}

/** The lines `588   : NVIDIA L40-1B` below a head. */
export function parseCreatable(text: string): VgpuType[] {
  return text.split('\n').flatMap((line) => {
    const [, digits = '', name = ''] = /^\s*(\d{1,9})\s*:\s*(\S.*?)\s*$/.exec(line) ?? [];
    return digits === '' ? [] : [{id: Number(digits), name}];
  });
}
