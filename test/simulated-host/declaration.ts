/** What a simulated machine is made from. Plain mutable values, so that a test may change one field of the standard machine. */
export interface MachineDeclaration {
  /** Kernel release; the folder below /lib/modules. */
  release: string;
  /** The kernel's command line, /proc/cmdline. */
  cmdline: string;
  /** The IOMMU's name in /sys/class/iommu, or false for a machine whose IOMMU is off. */
  iommu: string | false;
  functions: FunctionDeclaration[];
  drivers: DriverDeclaration[];
  modules: ModuleDeclaration[];
  processes: ProcessDeclaration[];
  mounts: MountDeclaration[];
  swaps: SwapDeclaration[];
  routes: RouteDeclaration[];
  /** Block devices made of others: LVM, dm-crypt, md. */
  stacks: StackDeclaration[];
  /** Interfaces that are no hardware: bonds and bridges. `lo` is always there. */
  virtualInterfaces: VirtualInterfaceDeclaration[];
  /** Further device nodes that the kernel holds for itself (a ZFS pool): open(2) with O_EXCL answers EBUSY. */
  claimed: string[];
  /**
   * What libblkid finds on disks, by node: its values such as `{TYPE: 'ext4', USAGE: 'filesystem'}`, several signatures
   * that contradict each other, or a disk that cannot be read. The others are blank.
   */
  signatures?: Record<string, Record<string, string> | 'ambiguous' | 'unreadable'>;
  /** Disks with one sector that cannot be read, by node: the byte where it begins. */
  damaged?: Record<string, number>;
  /** The display manager's unit name, linked as display-manager.service. Its sessions' users' processes end after it. */
  displayManager?: string;
  /** A framebuffer of the firmware that still has the console: the platform driver's name. */
  firmwareFramebuffer?: 'efi-framebuffer' | 'simple-framebuffer' | 'vesa-framebuffer';
  /** Huge pages; a kernel without them has none. */
  hugePages?: HugePagesDeclaration[];
  /** Devices that mediated devices are made of. */
  mdevParents: ParentDeclaration[];
  /** The mediated devices at the start: by UUID, `<parent>/<type>`. */
  mdevs: Record<string, string>;
  /** Further files, by path; for a test's own needs. */
  files: Record<string, string>;
}

/** One PCI function. */
export interface FunctionDeclaration {
  /** `0000:01:00.0` */
  slot: string;
  /** `10de:1b80` */
  id: string;
  /** Subsystem, `1043:8599`; default `0000:0000`. */
  subsystem?: string;
  /** Class code, six hexadecimal digits: `030000`. */
  class: string;
  /** Two hexadecimal digits; default `00`. */
  revision?: string;
  /** The driver it is bound to at the start; without one it is unbound, whatever would match. */
  driver?: string;
  /** The `driver_override` at the start. */
  override?: string;
  /** The bridge it is behind; without one it is on the root bus. */
  behind?: string;
  /** For a bridge: the last bus number that it passes on; default that of the bus behind it. */
  lastBus?: number;
  /** Its IOMMU group. */
  group?: number;
  /** Default -1, as on a machine with one node. */
  numaNode?: number;
  /** A display adapter that the firmware started with. */
  bootDisplay?: boolean;
  /** Reset methods it supports, in the kernel's order; none: neither `reset` nor `reset_method` exists. */
  resetMethods?: string[];
  /** False: it is not in its slot until {@link SimulatedMachine.hotAdd} or a rescan after `plug`. */
  present?: boolean;
  /** Single-root I/O virtualisation: how many, and the id of a virtual function. */
  sriov?: SriovDeclaration;
  /** Sizes of its memory regions. */
  regions?: number[];
  /** Its resizable BARs, by number: the supported sizes (0 is 1 MiB), and the largest that the bridge has room for. */
  resizable?: Record<number, {sizes: number[]; room?: number}>;
  /** What it becomes when its driver leaves it: dead, until a reset by this method. */
  diesOnUnbind?: {revivedBy?: string};
  /**
   * Its PCI Express Device Serial Number, as lspci(8) prints it: `00-11-22-33-44-55-66-77`. Empty: it has extended
   * capabilities, but no such number. Without it, it has only the first 256 configuration bytes.
   */
  dsn?: string;
  /** Its first configuration bytes instead of what follows from the fields above; all 0xff is a card that died. */
  config?: number[];
  /** Further attributes, by path below the device; writable ones keep what is written. */
  attributes?: Record<string, string>;
  net?: NetDeclaration[];
  drm?: DrmDeclaration;
  sound?: boolean;
  nvme?: NvmeDeclaration;
  /** A disk behind a SATA or SAS controller. */
  disk?: DiskDeclaration;
  usb?: UsbDeclaration;
}

export interface SriovDeclaration {
  total: number;
  /** `8086:10ca` */
  virtualId: string;
  /** How far the first one's routing id is from the physical function's; default 128. */
  offset?: number;
  stride?: number;
  /** Whether it tells offset and stride only while it has virtual functions. */
  hidesPlaces?: boolean;
  /** Whether the bridge above has no memory space for their BARs. */
  noSpace?: boolean;
  /** The IOMMU group of the first one; the others follow. */
  group?: number;
}

export interface NetDeclaration {
  name: string;
  address: string;
  up?: boolean;
  carrier?: boolean;
  /** Addresses as `192.0.2.10/24`. */
  addresses?: string[];
}

export interface DrmDeclaration {
  /** `DP-1: connected` */
  connectors?: Record<string, 'connected' | 'disconnected'>;
  /** It has a framebuffer device (and the console, when it is the boot display). */
  framebuffer?: boolean;
}

export interface PartitionDeclaration {
  /** Sectors of 512 bytes. */
  size?: number;
}

export interface NvmeDeclaration {
  model: string;
  serial: string;
  size?: number;
  partitions?: PartitionDeclaration[];
  /** The kernel's own multipath: the disk is below nvme-subsystem, and only a hidden path device below the function. */
  multipath?: boolean;
}

export interface DiskDeclaration {
  name: string;
  model: string;
  size?: number;
  partitions?: PartitionDeclaration[];
}

export interface UsbDeclaration {
  bus: number;
  devices?: {port: string; product: string; id: string}[];
}

/** What a driver makes below a function it has. */
export type Gift = 'net' | 'drm' | 'sound' | 'nvme' | 'disk' | 'usb' | 'vfio' | 'uio';

/** A PCI driver. It is registered when its module is loaded, or has none. */
export interface DriverDeclaration {
  /** As in /sys/bus/pci/drivers: `vfio-pci`. */
  name: string;
  /** As in /sys/module: `vfio_pci`. Without one the driver is part of the kernel. */
  module?: string;
  /** Match table as in modules.alias; `vfio_pci:…` entries match only under an override. */
  aliases: string[];
  gives?: Gift[];
  /** It waits in its remove function until each node it made is closed. */
  waitsForClose?: boolean;
  /** The errno of its probe for hardware that it does not drive: default ENODEV, and success for one that gives nothing. */
  refusal?: string;
  /** Each entry of its table has data of its own: an id without data is EINVAL. */
  needsData?: boolean;
  /** It can make virtual functions. */
  configuresSriov?: boolean;
  /** It leaves them there when it is unbound, as nvme does. */
  leavesSriov?: boolean;
}

export interface ModuleDeclaration {
  /** With underscores. */
  name: string;
  loaded?: boolean;
  builtin?: boolean;
  depends?: string[];
  softdepPre?: string[];
  softdepPost?: string[];
  /** Its parameters with their defaults. */
  parameters?: Record<string, string>;
  /** Aliases that are no PCI match, as `char-major-10-196` or `mdev:*`. */
  aliases?: string[];
  /** Nodes that are the module's and no device's, as `/dev/kfd`: it cannot be unloaded while one is open. */
  nodes?: string[];
}

export interface ProcessDeclaration {
  pid: number;
  comm: string;
  cmdline?: string[];
  /** `/system.slice/gdm.service`; default `/`. */
  cgroup?: string;
  uid?: number;
  parent?: number;
  /** What its file descriptors lead to: `/dev/dri/card0`, `anon_inode:[vfio-device]`. */
  holds?: string[];
  /** Signals it does not end of; SIGKILL for one that waits in the kernel. */
  ignores?: ('SIGTERM' | 'SIGKILL')[];
  /** Milliseconds from SIGTERM, or from the end of the unit that it lingers after, to its end; default 0. */
  takes?: number;
  /** Files it has mapped, as /proc/<pid>/maps shows them. */
  maps?: string[];
  /** Kilobytes that it has in huge pages. */
  hugePages?: number;
}

export interface MountDeclaration {
  source: string;
  target: string;
  type: string;
  /** `major:minor` in mountinfo; default that of the source's node, or an anonymous `0:NN`. */
  device?: string;
  options?: string;
}

export interface SwapDeclaration {
  /** A node, or a file. */
  path: string;
  size?: number;
}

export interface RouteDeclaration {
  interface: string;
  /** `0.0.0.0/0`, `192.0.2.0/24`, `::/0`, `2001:db8::/64`. */
  destination: string;
  gateway?: string;
  metric?: number;
}

export interface StackDeclaration {
  /** `dm-0`, `md0` */
  name: string;
  /** The device mapper's name and UUID; without them it is no dm device. */
  dm?: {name: string; uuid: string};
  /** The block devices it is made of: `nvme1n1p1`. */
  on: string[];
  size?: number;
}

export interface VirtualInterfaceDeclaration {
  name: string;
  kind: 'bond' | 'bridge' | 'vlan' | 'other';
  /** Interfaces below it. */
  lower?: string[];
  up?: boolean;
  addresses?: string[];
}

/** A parent of mediated devices. */
export interface ParentDeclaration {
  /** A PCI function's slot, or the device's name. */
  name: string;
  /** Its folder; default that of the PCI function. */
  path?: string;
  /** The driver that has its mediated devices. */
  driver: string;
  /** How much it has to give to all its devices together. */
  units: number;
  types: MdevTypeDeclaration[];
  /** False: it registers later. */
  registered?: boolean;
}

export interface MdevTypeDeclaration {
  name: string;
  /** How much of its parent's units one device takes. */
  units: number;
  deviceApi?: string;
  title?: string;
  /** With its newlines. */
  description?: string;
  /** The attributes of its devices, each with the values that it takes. */
  attributes?: Record<string, RegExp>;
}

/** Huge pages of one size on one node. */
export interface HugePagesDeclaration {
  /** A NUMA node; without one, the kernel has no nodes. */
  node?: number;
  /** Kilobytes of one page. */
  size: number;
  /** How many there are, including those in use. */
  pages?: number;
  used?: number;
  /** Pages beyond the number that was set. */
  surplus?: number;
  /** Free pages that processes have reserved; for all nodes together. */
  reserved?: number;
  /** How many the kernel can have at most: further memory is fragmented. */
  room?: number;
}
