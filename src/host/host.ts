/** What stat(2) says of a file, as far as it matters here. */
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

/** What a program that ran to its end left. */
export interface CommandResult {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Settings of {@link Host.run}. */
export interface RunOptions {
  /** Milliseconds after which the program is ended, with all of its group of processes; default 90,000. */
  readonly limit?: number;
  /** Exit codes that are no failure; default only 0. */
  readonly accept?: readonly number[] | 'any';
  /** What the program reads on standard input; default nothing. */
  readonly input?: string;
  /** Bytes that it may print on each of its outputs before it is ended; default 1 MiB. */
  readonly outputLimit?: number;
  /** Whether it gets the environment of this process instead of a clean one: for scripts of the administrator. */
  readonly inheritEnvironment?: boolean;
}

/** A process that is meant: another one may have its number by now. */
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
   * The text of a file without its final newline; undefined when it is not there (ENOENT, ENOTDIR), or when
   * its device or process has just gone (ENODEV, ENXIO, ESRCH).
   * @throws FileError for any other failure: a FIFO, device, socket or directory, or more than 1 MiB, is not read.
   * What the kernel shows in /sys and /proc has no limit.
   */
  readText(path: string): string | undefined;
  /**
   * The bytes of a regular file, for searching in it; undefined when it is not there.
   * @param limit bytes that it may have; default 1 MiB.
   * @throws FileError as {@link readText}.
   */
  readBytes(path: string, limit?: number): Buffer | undefined;
  /** The first bytes of a file, at most so many; undefined when it is not there or cannot be read. */
  readStart(path: string, bytes: number): Buffer | undefined;
  /**
   * Whether reading this attribute would wait for a lock of the kernel, as {@link Host.findLocked} has found: then
   * {@link readText} says that it is not there, which it is.
   */
  isLocked(path: string): boolean;
  /** The target text of a symbolic link; undefined when there is no such link. */
  readLink(path: string): string | undefined;
  /** The path with all links resolved, as seen from {@link root}; undefined when it is a broken link. */
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
   * Whether the kernel holds this block device for itself (a mount, swap, LVM, RAID, ZFS): open(2) with O_EXCL
   * answers EBUSY then. False where it cannot be asked (no such node, not root, an image).
   */
  isClaimedByKernel(node: string): boolean;
}

/** Whose a file is. */
export interface FileOwner {
  readonly uid: number;
  readonly gid: number;
}

/** Settings of {@link Host.writeFile}. */
export interface WriteFileOptions {
  /** Permission bits, whatever the umask is; default 0o644. */
  readonly mode?: number;
  /** Default: the user who runs this, root on a machine. */
  readonly owner?: FileOwner | undefined;
}

/** Asking the machine what takes time: the kernel, and programs that tell and change nothing. */
export interface HostQuery extends HostReader {
  /**
   * Finds the devices that the kernel keeps locked because a write to them, or a driver's probe, does not return.
   * Reading `driver_override` or `uevent` of one would wait as long as that does, and could not be ended; later
   * kernels answer with what was so before. From here on these are as if they were not there. To be called before
   * devices are read; starts a process only when one of the machine's waits in the kernel in a way that may come
   * from this.
   * @param limit milliseconds to wait for each of them.
   */
  findLocked(limit: number): Promise<void>;
  /**
   * Runs a program that only tells something (`systemctl show`), as {@link Host.run} does.
   * @throws CommandError as {@link Host.run}.
   */
  ask(file: string, args: readonly string[], options?: RunOptions): Promise<CommandResult>;
  /** Waits, in milliseconds: for what the kernel does by itself. */
  pause(milliseconds: number): Promise<void>;
}

/** The one boundary through which the machine is read and changed. Only `src/engine` calls what changes. */
export interface Host extends HostQuery {
  /**
   * Writes one value to a kernel attribute in one write(2), from a child process: a write to `unbind`, `bind`,
   * `remove` or `reset` may never return, and a process inside it can neither be killed nor end.
   * @param limit milliseconds to wait.
   * @throws WriteError what the kernel answered.
   * @throws StuckError the limit passed; the child is left behind.
   */
  writeAttribute(path: string, value: string, limit: number): Promise<void>;
  /**
   * Writes a whole file: a new one, synced, then renamed over it. Makes missing folders (0755). A link at this path
   * is replaced; name its target to keep it.
   * @throws FileError and then neither the old file nor the folder has changed.
   */
  writeFile(path: string, content: string, options?: WriteFileOptions): Promise<void>;
  /**
   * Makes a symbolic link, in place of what is there, in the same way.
   * @throws FileError as for {@link writeFile}.
   */
  makeLink(path: string, target: string): Promise<void>;
  /**
   * Removes a file or symbolic link; a missing one is no error.
   * @param options.prune how many folders above it go too when they are left empty; none unless told.
   */
  removeFile(path: string, options?: {readonly prune?: number}): Promise<void>;
  /**
   * Removes from a folder what a killed run was making there, and the folder itself when it is left empty.
   * @param options.prune how many empty folders go, this one included; none unless told.
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
   * What it leaves in the background when it ends is let go, and its output not waited for.
   * @throws CommandError when it cannot be started, ends with a code that is not accepted, prints too much, or does
   * not end in time. In the last two cases its group of processes is ended.
   */
  run(file: string, args: readonly string[], options?: RunOptions): Promise<CommandResult>;
  /**
   * Sends a signal to a process, see kill(2). One that has ended, and another one that has its number, get none.
   * @returns whether it was there.
   * @throws PearasysError `command-failed` when it may not be signalled.
   */
  signal(process: ProcessIdentity, signal: 'SIGTERM' | 'SIGKILL'): boolean;
  /**
   * Holds the lock of this name (a slot, a UUID) until it is released or this process ends, however it ends. The
   * locks are files in `/run/pearasys/lock`, a folder that only root may enter.
   * @param limit milliseconds to wait for another holder.
   * @param signal ends the wait.
   * @throws PearasysError `busy`, exit code 3, when another run still holds it; `interrupted`.
   * @throws FileError when the file or the folder of the locks is something else.
   */
  lock(name: string, limit: number, signal?: AbortSignal): Promise<Lock>;
  /**
   * Keeps a text under the name of a held lock until it is taken back, for the next run when this one is killed;
   * {@link unfinishedPath} is where it is read. Undefined takes it back.
   * @throws FileError
   */
  noteUnfinished(name: string, text: string | undefined): void;
  /** Ends what serves this host (the child that writes attributes), and waits for that. A stuck child is left behind. */
  close(): Promise<void>;
}
