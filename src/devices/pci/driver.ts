import {usageError} from '../../host/errors.js';

/**
 * The name of a PCI driver as in `/sys/bus/pci/drivers`, or `none`. Made only by {@link parseDriver}, so that it
 * can become part of a path and of a unit name. What is read from the kernel stays a plain string.
 */
export type Driver = string & {readonly __brand: 'Driver'};

/** An override that names no driver: it keeps every driver off the device. */
export const noDriver = 'none' as Driver;

/** Where the kernel lists the PCI drivers that are loaded. */
export const driversFolder = '/sys/bus/pci/drivers';

/** @throws PearasysError `bad-driver`, exit code 2: also for a slot or an id in the driver's place. */
export function parseDriver(text: string): Driver {
  if (!/^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/.test(text) || text.includes('..'))
    throw usageError(
      `'${text}' is not a driver's name`,
      /^[0-9a-f:.]+$/i.test(text)
        ? 'it looks like a device: the driver comes first, then the devices'
        : 'a driver name consists of letters, digits, - and _, as in vfio-pci; `none` keeps all drivers off',
      'bad-driver',
    );
  return text as Driver;
}

/**
 * Whether the driver gives the device to userspace through VFIO: `vfio-pci` and its variants
 * (`mlx5_vfio_pci`, `nvgrace-gpu-vfio-pci`, …), which match only under an override.
 */
export function isVfio(driver: string | undefined): boolean {
  return driver !== undefined && driver.includes('vfio') && /(?:^|[-_])vfio[-_]pci$/.test(driver);
}

/** Drivers that are no host drivers, by name; VFIO's are known by {@link isVfio}. */
const standIns: ReadonlySet<string> = new Set(['uio_pci_generic', 'igb_uio', 'pci-stub', 'pciback']);

/**
 * Whether the driver only holds a device for someone else: for userspace (VFIO, UIO), for a Xen guest, or for
 * nobody (`pci-stub`). None of these has an id table of its own, so the kernel never chooses one by modalias.
 */
export function isStandIn(driver: string | undefined): boolean {
  return driver !== undefined && (standIns.has(driver) || isVfio(driver));
}
