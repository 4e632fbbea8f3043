import {Errno} from '../errno.js';
import {wholeNumber} from './input.js';
import type {SimulatedMachine} from './machine.js';

/** The first line of the attribute with the types. */
export const vgpuHead = 'ID    : vGPU Name';

/**
 * A write to the vGPU type of a virtual function of NVIDIA's driver. What the driver answers is taken from its
 * documentation: it is not part of Linux.
 */
export function setVgpuType(machine: SimulatedMachine, slot: string, real: string, value: string): void {
  const type = wholeNumber(value);
  const creatable = real.replace(/[^/]*$/, 'creatable_vgpu_types');
  const current = Number(machine.tree.read(real));
  if (type !== 0) {
    if (current !== 0) throw new Errno('EPERM');
    const offered = machine.tree.read(creatable) ?? '';
    if (!new RegExp(`^${type} *:`, 'm').test(offered)) throw new Errno('EINVAL');
  }
  const declared = machine.device(slot).declaration.attributes ?? {};
  machine.store(real, String(type));
  machine.store(creatable, type === 0 ? (declared['nvidia/creatable_vgpu_types'] ?? vgpuHead) : vgpuHead);
}
