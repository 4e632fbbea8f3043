import {usageError} from '../../host/errors.js';

/**
 * The name of a PCI driver as in `/sys/bus/pci/drivers`, or `none`. Made only by {@link parseDriver}, because it
 * becomes part of paths and unit names. Names read from the kernel stay plain strings.
 */
export type Driver = string & {readonly __brand: 'Driver'};

/** An override that names no driver, so that none binds the device. */
export const noDriver = 'none' as Driver;

/** The driver that gives any device to userspace through VFIO; others are its variants. */
export const vfioPci = 'vfio-pci' as Driver;

/** Where the kernel lists the PCI drivers that are loaded. */
export const driversFolder = '/sys/bus/pci/drivers';

/** @throws PearasysError `bad-driver`, exit code 2, also for a slot or an id instead of a driver. */
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
 * Whether the driver passes the device to userspace through VFIO: `vfio-pci` and its variants
 * (`mlx5_vfio_pci`, `nvgrace-gpu-vfio-pci`, …), which match only under an override.
 */
export function isVfio(driver: string | undefined): boolean {
  return driver !== undefined && driver.includes('vfio') && /(?:^|[-_])vfio[-_]pci$/.test(driver);
}

/** Drivers that only hold a device, by name; {@link isVfio} knows those of VFIO. */
const standIns: ReadonlySet<string> = new Set(['uio_pci_generic', 'igb_uio', 'pci-stub', 'pciback']);

/**
 * Whether the driver only holds a device: for userspace (VFIO, UIO), for a Xen guest, or for no use at all
 * (`pci-stub`). None of these has an id table, so the kernel never chooses one by modalias.
 */
export function isStandIn(driver: string | undefined): boolean {
  return driver !== undefined && (standIns.has(driver) || isVfio(driver));
}

/** Whether this driver gives a device to programs: VFIO's and UIO's do. */
export function isForUserspace(driver: string | undefined): boolean {
  return isStandIn(driver) && driver !== 'pci-stub' && driver !== 'pciback';
}

/** Drivers of UIO, whose devices have nodes /dev/uio<N>. */
const uioDrivers: ReadonlySet<string> = new Set(['uio_pci_generic', 'igb_uio', 'uio_hv_generic']);

/** Whether a device on this driver has nodes in /dev through which a program of a user can drive it: VFIO and UIO. */
export function hasUserNodes(driver: string): boolean {
  return isVfio(driver) || uioDrivers.has(driver);
}
