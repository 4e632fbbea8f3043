/** What is needed here of stat(2). */
export interface FileInfo {
  readonly kind: 'file' | 'directory' | 'link' | 'device' | 'other';
  readonly uid: number;
  readonly gid: number;
  /** Permission bits, 0 to 0o7777. */
  readonly mode: number;
  readonly size: number;
  /** Last modification, milliseconds since 1970. */
  readonly modified: number;
  /** `major:minor` of a device node, as in /sys/dev. */
  readonly deviceNumber?: string;
}

/** The result of a program that ran to its end. */
export interface CommandResult {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Settings of {@link Host.run}. */
export interface RunOptions {
  /** Milliseconds after which the program and its process group are killed; default 90,000. */
  readonly limit?: number;
  /** Exit codes that do not count as a failure; default only 0. */
  readonly accept?: readonly number[] | 'any';
  /** What the program reads on standard input; default nothing. */
  readonly input?: string;
  /** Bytes that it may print on each of its outputs before it is killed; default 1 MiB. */
  readonly outputLimit?: number;
  /** Whether it gets the environment of this process instead of a clean one: for scripts of the administrator. */
  readonly inheritEnvironment?: boolean;
}

/** A particular process, because its PID may have been reused since. */
export interface ProcessIdentity {
  readonly pid: number;
  /** When it was started, in clock ticks since the boot, as /proc/<pid>/stat has it (proc(5)). */
  readonly started: string;
}

/** A held lock; see {@link Host.lock}. */
export interface Lock {
  release(): Promise<void>;
}

/**
 * Reading the machine. Paths are absolute as on the machine (`/sys/…`, `/etc/…`) and looked up below
 * {@link root}. All reads are synchronous: for sysfs, whose reads do not wait, they are several times faster than
 * promises and need no file descriptor for each device.
 */
export interface HostReader {
  /** `/`, or the folder of an image or of a simulated host. */
  readonly root: string;
  /** Effective user ID of this process. */
  readonly userId: number;
  /**
   * The text of a file without its final newline; undefined when it does not exist (ENOENT, ENOTDIR), or when
   * its device or process has just disappeared (ENODEV, ENXIO, ESRCH).
   * @throws FileError for any other failure: a FIFO, device, socket or directory, or more than 1 MiB, is not read.
   * What the kernel shows in /sys and /proc has no limit.
   */
  readText(path: string): string | undefined;
  /**
   * The bytes of a regular file, for searching in it; undefined when it does not exist.
   * @param limit bytes that it may have; default 1 MiB.
   * @throws FileError as {@link readText}.
   */
  readBytes(path: string, limit?: number): Buffer | undefined;
  /**
   * The first bytes of a file, or those from an offset, at most this many; undefined when it does not exist or cannot
   * be read.
   */
  readStart(path: string, bytes: number, offset?: number): Buffer | undefined;
  /**
   * Whether reading this attribute would wait for a lock of the kernel, as {@link Host.findLocked} has found: then
   * {@link readText} treats it as missing, although it exists.
   */
  isLocked(path: string): boolean;
  /** The target text of a symbolic link; undefined when there is no such link. */
  readLink(path: string): string | undefined;
  /** The path with all links resolved, as seen from {@link root}; undefined for a broken link. */
  realPath(path: string): string | undefined;
  /** The names in a folder, sorted; empty when there is no such folder or it may not be read. */
  list(path: string): string[];
  /** Whether the path exists, links followed. */
  exists(path: string): boolean;
  /** stat(2), or lstat(2) with `follow` false; undefined when the path does not exist. */
  info(path: string, follow?: boolean): FileInfo | undefined;
  /** The addresses of each network interface that is up, by interface name. Empty for a root that is an image. */
  addresses(): ReadonlyMap<string, readonly string[]>;
  /**
   * Whether the kernel has claimed this block device (a mount, swap, LVM, RAID, ZFS): open(2) with O_EXCL
   * then returns EBUSY. False where this cannot be checked (no such node, not root, an image).
   */
  isClaimedByKernel(node: string): boolean;
}

/** The owner of a file. */
export interface FileOwner {
  readonly uid: number;
  readonly gid: number;
}

/** Settings of {@link Host.writeFile}. */
export interface WriteFileOptions {
  /** Permission bits, regardless of the umask; default 0o644. */
  readonly mode?: number;
  /** Default: the user who runs this, root on a machine. */
  readonly owner?: FileOwner | undefined;
}

/** Questions to the machine that take time: to the kernel, and to programs that change nothing. */
export interface HostQuery extends HostReader {
  /**
   * Finds the devices that the kernel keeps locked because a write to them, or a driver's probe, does not return.
   * Reading `driver_override` or `uevent` of one would block as long and could not be interrupted; later
   * kernels return the old value. From then on these attributes are treated as missing. Call this before reading
   * devices. It starts a process only if some process of the machine is blocked in the kernel in a way that may be
   * caused by such a lock.
   * @param limit milliseconds to wait for each of them.
   */
  findLocked(limit: number): Promise<void>;
  /**
   * Runs a program that only prints something (`systemctl show`), as {@link Host.run} does.
   * @throws CommandError as {@link Host.run}.
   */
  ask(file: string, args: readonly string[], options?: RunOptions): Promise<CommandResult>;
  /** Waits this many milliseconds, for something that the kernel does. */
  pause(milliseconds: number): Promise<void>;
}

/** The one boundary through which the machine is read and changed. Only `src/engine` calls what changes. */
export interface Host extends HostQuery {
  /**
   * Writes one value to a kernel attribute in one write(2), from a child process: a write to `unbind`, `bind`,
   * `remove` or `reset` may never return, and a process blocked in it can neither be killed nor exit.
   * @param limit milliseconds to wait.
   * @throws WriteError the kernel's error.
   * @throws StuckError when the limit has passed; the child is left behind.
   */
  writeAttribute(path: string, value: string, limit: number): Promise<void>;
  /**
   * Writes a whole file: a new one is written and synced, then renamed over it. Creates missing folders (0755). A
   * link at this path is replaced; name its target to keep it.
   * @throws FileError; then neither the old file nor the folder has changed.
   */
  writeFile(path: string, content: string, options?: WriteFileOptions): Promise<void>;
  /**
   * Makes a symbolic link in the same way, and replaces an existing file or link.
   * @throws FileError as for {@link writeFile}.
   */
  makeLink(path: string, target: string): Promise<void>;
  /**
   * Removes a file or symbolic link. It is not an error if it is missing.
   * @param options.prune how many of the folders above it are removed too when they are empty; default none.
   */
  removeFile(path: string, options?: {readonly prune?: number}): Promise<void>;
  /**
   * Sets owner and permission bits of a device node, or of a folder where huge pages are mounted.
   * @returns whether there is one at this path. Nothing else gets another owner.
   * @throws FileError
   */
  setOwner(path: string, owner: FileOwner, mode: number): Promise<boolean>;
  /**
   * Removes the unfinished files of a killed run from a folder, and the folder itself when it is empty.
   * @param options.prune how many empty folders are removed, including this one; default none.
   */
  tidyFolder(folder: string, options?: {readonly prune?: number}): Promise<void>;
  /**
   * Waits until what was written, linked and removed is on the disk: until then a power cut may leave the old state
   * of each file.
   * @throws FileError
   */
  syncFiles(): Promise<void>;
  /**
   * Runs a program, without a shell, with a clean environment (PATH, LC_ALL=C).
   * Processes that it leaves in the background keep running, and their output is not waited for.
   * @throws CommandError when it cannot be started, exits with a code that is not accepted, prints too much, or takes
   * too long. In the last two cases its process group is killed.
   */
  run(file: string, args: readonly string[], options?: RunOptions): Promise<CommandResult>;
  /**
   * Sends a signal to a process, see kill(2). A process that has reused the PID gets none.
   * @returns whether the process existed.
   * @throws PearasysError `command-failed` when this process may not signal it.
   */
  signal(process: ProcessIdentity, signal: 'SIGTERM' | 'SIGKILL'): boolean;
  /**
   * Takes the lock of this name (a slot, a UUID) until it is released or this process ends in any way. The
   * locks are files in `/run/pearasys/lock`, a folder that only root may enter.
   * @param limit milliseconds to wait for another holder.
   * @param signal ends the wait.
   * @throws PearasysError `busy`, exit code 3, when another run still holds it; `interrupted`.
   * @throws FileError when the lock's file or folder is of another kind.
   */
  lock(name: string, limit: number, signal?: AbortSignal): Promise<Lock>;
  /**
   * Saves a text under the name of a held lock, for the next run if this one is killed. It is read from
   * {@link unfinishedPath}. Undefined removes it.
   * @throws FileError
   */
  noteUnfinished(name: string, text: string | undefined): void;
  /** Ends the child that writes attributes, and waits for it. A stuck child is left behind. */
  close(): Promise<void>;
}
