import type {Slot} from '../devices/pci/slot.js';

/**
 * What the removal of the driver does while the holder uses the device: `blocks`: the kernel waits for it, possibly
 * for ever; `yields`: the removal proceeds and the holder loses the device; `harmless`: the holder closes the device
 * itself, or loses nothing.
 */
export type HolderClass = 'blocks' | 'yields' | 'harmless';

/**
 * `certain`: taking the device would certainly lose data, cut the machine off or never return, and is refused even
 * with `--force`; `overridable`: refused without `--force`; `none`: not refused, only reported.
 */
type Harm = 'certain' | 'overridable' | 'none';

/** What every holder has. */
interface HolderBase {
  /** The device that is held. */
  readonly slot: Slot;
  readonly class: HolderClass;
  readonly harm: Harm;
}

/** The harm of a holder of which only the class is known. */
export const harmOf: Readonly<Record<HolderClass, Harm>> = {
  blocks: 'certain',
  yields: 'overridable',
  harmless: 'none',
};

/** The class that decides among several: the kernel waits as long as one of them blocks. */
export function worstOf(classes: readonly HolderClass[]): HolderClass {
  return (['blocks', 'yields'] as const).find((one) => classes.includes(one)) ?? 'harmless';
}

/** A process that has nodes open. */
export interface NodeUser {
  readonly pid: number;
  /** The command's name, as in /proc/<pid>/comm. */
  readonly command: string;
  /** The systemd unit it runs in; undefined outside of one. */
  readonly unit: string | undefined;
  /** The user ID of the service manager that runs the unit; absent for the system's. */
  readonly unitUser?: number;
  /** The nodes it has open, as in `/dev/dri/card0`. */
  readonly nodes: readonly string[];
  /** Whether it is in the display manager's unit, or is a display server started from there. */
  readonly displayManager: boolean;
}

/** A process that has a node of the device open. */
export interface ProcessHolder extends HolderBase, NodeUser {
  readonly kind: 'process';
}

/** A file system or swap on a disk of the device. */
export interface MountHolder extends HolderBase {
  readonly kind: 'mount' | 'swap';
  /** The block device: `/dev/nvme0n1p2`; for swap in a file, that file. */
  readonly source: string;
  /** The mount point; the word `swap` for swap. */
  readonly target: string;
  /** Whether the running system needs it: /, /usr, /boot, /var, … */
  readonly system: boolean;
  /** A process in whose mount namespace it is mounted, if it is another namespace. */
  readonly namespaceOf?: number;
}

/** Whether the machine runs from a file system on the device. */
export function isSystemDisk(holder: Holder): boolean {
  return holder.kind === 'mount' && holder.system;
}

/** Another block device built on a disk of the device: LVM, RAID, dm-crypt, or a claim the kernel does not name. */
export interface StackHolder extends HolderBase {
  readonly kind: 'stack';
  readonly source: string;
  /** What is built on it: `dm-0 (vg-root)`, `md0`, `loop0`, a target; undefined when it is only known to be in use. */
  readonly by: string | undefined;
}

/** An interface built on another. */
export interface StackedInterface {
  readonly name: string;
  /** The kernel's name of its type, such as `bridge`, `bond`, `vlan`, `macvlan`, `ppp`; empty if it has none. */
  readonly type: string;
}

/** A user of an interface without an address of this machine. */
export interface InterfaceUser {
  /**
   * `tap`: a tap in the bridge; `macvtap`: a tap on the interface; `packet-socket`; `xdp`: a program that takes its
   * packets; `namespace`: an interface of another network namespace; `port`: another port that a bridge forwards
   * to; `pppoe`: a session.
   */
  readonly kind: 'tap' | 'macvtap' | 'packet-socket' | 'xdp' | 'namespace' | 'port' | 'pppoe';
  /** The tap, the port, or the interface itself. */
  readonly interface: string;
  /** The process behind it, if there is one and it is visible. */
  readonly process?: NodeUser;
}

/** A network interface that is up and has an address, a route or a user. */
export interface InterfaceHolder extends HolderBase {
  readonly kind: 'interface';
  readonly name: string;
  readonly addresses: readonly string[];
  /** Destinations routed over it: `default via 192.168.1.1`, `192.168.1.0/24`. */
  readonly routes: readonly string[];
  /** The bridge, bond or VLAN that carries the address, route or user, when it is not the interface itself. */
  readonly through: string | undefined;
  /** Users of it, or of interfaces built on it, without an address of this machine; absent without any. */
  readonly users?: readonly InterfaceUser[];
  /** With users: the interfaces between it and them, the nearest first. */
  readonly stack?: readonly StackedInterface[];
  /** Whether it is the last route to the machine. */
  readonly last: boolean;
}

/** Another network namespace than this process's, to which an interface of the device was moved. */
export interface NamespaceHolder extends HolderBase {
  readonly kind: 'network-namespace';
}

/** A framebuffer or console shown on the device. */
export interface DisplayHolder extends HolderBase {
  readonly kind: 'framebuffer' | 'console';
  /** `fb0`, `vtcon1`. */
  readonly name: string;
  /** What makes the framebuffer, the console's name: `efi-framebuffer.0`, `nouveaudrmfb`, `frame buffer device`. */
  readonly description: string;
}

/** Virtual functions of the device that are in use. */
interface VirtualFunctionHolder extends HolderBase {
  readonly kind: 'virtual-function';
  readonly virtualFunction: Slot;
  readonly driver: string;
}

/** A device in use that exists only through this one's driver, such as a disk behind Intel VMD. */
interface DependentHolder extends HolderBase {
  readonly kind: 'dependent';
  readonly dependent: Slot;
  readonly driver: string;
}

/** A current user of a device. */
export type Holder =
  | ProcessHolder
  | MountHolder
  | StackHolder
  | InterfaceHolder
  | NamespaceHolder
  | DisplayHolder
  | VirtualFunctionHolder
  | DependentHolder;
