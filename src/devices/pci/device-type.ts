/** The types of devices that userspace drivers are for: those of dpdk-devbind.py, and disks. */
export const deviceTypes = [
  'net',
  'storage',
  'baseband',
  'crypto',
  'dma',
  'event',
  'mempool',
  'compress',
  'regex',
  'ml',
  'misc',
] as const;
export type DeviceType = (typeof deviceTypes)[number];

/** The types that dpdk-devbind.py knows. */
export type DpdkType = Exclude<DeviceType, 'storage'>;

/** Which devices are of a type: all that is given must match. */
export interface TypeRule {
  /** The base class, two hexadecimal digits. */
  readonly class: string;
  /** Four hexadecimal digits. */
  readonly vendor?: string;
  readonly devices?: readonly string[];
}
