/** How a program ended. */
export interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A write that is in the kernel and has not returned. */
export interface StuckWrite {
  /** Waits until it returns: `ok`, or the errno's name. */
  readonly returned: () => Promise<string>;
}

/** A program for a unit that ends when it is told to. */
export interface Gate {
  /** For an `Exec` line. */
  readonly command: string;
  readonly open: () => Promise<void>;
}

/**
 * A machine that the cases of this folder run on. The simulated one and the virtual one have the same devices in the
 * same slots, those of `test/vm/devices.ts`.
 */
export interface ContractMachine {
  /** A file's text without the newline at its end; undefined when there is none. */
  read(path: string): Promise<string | undefined>;
  exists(path: string): Promise<boolean>;
  /** The names in a folder, sorted. */
  list(path: string): Promise<string[]>;
  /** The last name of what a link leads to; undefined when there is none. */
  link(path: string): Promise<string | undefined>;
  /** One write(2). @returns `ok`, or the errno's name. */
  write(path: string, text: string): Promise<string>;
  /** Starts a write that must not return. */
  writeForever(path: string, text: string): Promise<StuckWrite>;
  run(program: string, ...args: string[]): Promise<Ended>;
  /** Writes a file, which is gone after the case. */
  put(path: string, text: string): Promise<void>;
  remove(path: string): Promise<void>;
  /** Waits until udev has handled all events and systemd has no job. */
  settle(): Promise<void>;
  /**
   * What the kernel has announced of PCI and mediated devices since the last call, or since the case began:
   * `add pci 0000:01:00.0`, with `synthetic` when a write to `uevent` made it.
   */
  events(): Promise<string[]>;
  /** A process that has a device open through VFIO, until it is ended. */
  hold(device: string): Promise<() => Promise<void>>;
  gate(): Promise<Gate>;
}

/** One thing that the kernel, udev or systemd does. */
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
