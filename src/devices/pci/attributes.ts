import {FileError} from '../../host/errors.js';
import type {HostReader} from '../../host/host.js';
import {devicePath} from './device.js';
import type {Slot} from './slot.js';

/** The text of a device's attribute; undefined if it does not exist or cannot be read. */
export function readAttribute(host: HostReader, slot: Slot, name: string): string | undefined {
  try {
    return host.readText(devicePath(slot, name))?.trim();
  } catch (error) {
    if (!(error instanceof FileError)) throw error;
    return undefined;
  }
}

/** The reset methods that the kernel may use for the device now, in order; undefined if it cannot be reset. */
export function readResetMethods(host: HostReader, slot: Slot): string[] | undefined {
  return readAttribute(host, slot, 'reset_method')
    ?.split(' ')
    .filter((name) => name !== '');
}

/** The sizes of a resizable BAR as indexes: index 0 is 1 MiB, and each further one doubles it. */
interface BarSizes {
  /** Those that the device supports. */
  readonly possible: readonly number[];
  /** Undefined if the kernel has assigned no memory to it. */
  readonly current: number | undefined;
}

/** Bits of the smallest size (PCI Express, resizable BAR capability). */
const smallestBits = 20;

/** The sizes of a BAR; undefined if it is not resizable. */
export function readBarSizes(host: HostReader, slot: Slot, bar: number): BarSizes | undefined {
  const text = readAttribute(host, slot, `resource${bar}_resize`);
  if (text === undefined || !/^[0-9a-f]{1,16}$/i.test(text)) return undefined;
  const bits = BigInt(`0x${text}`);
  const possible = Array.from({length: 64}, (_, index) => index).filter(
    (index) => ((bits >> BigInt(index)) & 1n) === 1n,
  );
  const [start, end] = (readAttribute(host, slot, 'resource')?.split('\n')[bar] ?? '')
    .split(' ')
    .slice(0, 2)
    .map((word) => (/^0x[0-9a-f]+$/.test(word) ? BigInt(word) : 0n));
  const size = (end ?? 0n) - (start ?? 0n) + 1n;
  const index = size.toString(2).length - 1 - smallestBits;
  return {possible, current: end === 0n || end === undefined || index < 0 ? undefined : index};
}

/** A module parameter in /sys/module, with a meaning for all devices of the module. */
export interface ModuleParameter {
  readonly name: string;
  /** As the kernel prints it; null if the module is not loaded or has no such parameter. */
  readonly value: string | null;
}

/** The parameters of vfio-pci that change how it handles all of its devices. */
const vfioParameters = ['disable_idle_d3', 'disable_vga', 'nointxmask', 'enable_sriov'] as const;

/** The parameters of vfio-pci that change how it handles all of its devices. */
export function readVfioParameters(host: HostReader): ModuleParameter[] {
  return vfioParameters.map((name) => ({
    name,
    // Since Linux 5.15 the library has some of them, and vfio_pci the others.
    value:
      ['vfio_pci', 'vfio_pci_core']
        .map((module) => host.readText(`/sys/module/${module}/parameters/${name}`))
        .find((text) => text !== undefined) ?? null,
  }));
}
