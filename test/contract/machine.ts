/** How a program ended. */
export interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A write that waits in the kernel. */
export interface StuckWrite {
  /** Waits until it returns: `ok`, or the errno's name. */
  readonly returned: () => Promise<string>;
}

/** A program for a unit that runs until the gate is opened. */
export interface Gate {
  /** For an `Exec` line. */
  readonly command: string;
  readonly open: () => Promise<void>;
}

/**
 * A machine on which the cases of this folder run. The simulated and the virtual machine have the same devices in the
 * same slots, those of `test/vm/devices.ts`.
 */
export interface ContractMachine {
  /** A file's text without the newline at its end; undefined if the file does not exist. */
  read(path: string): Promise<string | undefined>;
  exists(path: string): Promise<boolean>;
  /** The names in a folder, sorted. */
  list(path: string): Promise<string[]>;
  /** The last part of a link's target; undefined if the link does not exist. */
  link(path: string): Promise<string | undefined>;
  /** One write(2). @returns `ok`, or the errno's name. */
  write(path: string, text: string): Promise<string>;
  /** Starts a write that must not return. */
  writeForever(path: string, text: string): Promise<StuckWrite>;
  run(program: string, ...args: string[]): Promise<Ended>;
  /** Writes a file, which is removed after the case. */
  put(path: string, text: string): Promise<void>;
  remove(path: string): Promise<void>;
  /** Waits until udev has handled all events and systemd has no job. */
  settle(): Promise<void>;
  /**
   * The kernel's events of PCI and mediated devices since the last call, or since the start of the case:
   * `add pci 0000:01:00.0`, with `synthetic` if a write to `uevent` created it.
   */
  events(): Promise<string[]>;
  /** Starts a process that has a device open through VFIO. @returns a function that ends it. */
  hold(device: string): Promise<() => Promise<void>>;
  gate(): Promise<Gate>;
}

/** One behavior of the kernel, udev or systemd. */
export interface ContractCase {
  readonly title: string;
  readonly check: (on: ContractMachine) => Promise<void>;
}

/** Cases about one subject. */
export interface ContractArea {
  readonly title: string;
  readonly cases: readonly ContractCase[];
}

/** The text of an event; group numbers and the like differ between machines. */
export function eventText(
  action: string,
  path: string,
  subsystem: string,
  synthetic: boolean,
  state: string | undefined,
): string[] {
  if (!['pci', 'mdev', 'vfio', 'vfio-dev'].includes(subsystem) && state === undefined) return [];
  const name = subsystem.startsWith('vfio') ? '' : ` ${path.slice(path.lastIndexOf('/') + 1)}`;
  return [
    `${action} ${subsystem}${name}${synthetic ? ' synthetic' : ''}${state === undefined ? '' : ` ${state}`}`,
  ];
}
