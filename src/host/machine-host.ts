import {fork, type ChildProcess} from 'node:child_process';
import fs from 'node:fs';
import {networkInterfaces} from 'node:os';
import {dirname, extname, join} from 'node:path';
import {setTimeout as wait} from 'node:timers/promises';
import type {WriteRequest} from './attribute-writer.js';
import {
  CommandError,
  errnoOf,
  ExitCode,
  explainErrno,
  FileError,
  FileFault,
  interrupted,
  PearasysError,
  StuckError,
  WriteError,
} from './errors.js';
import type {
  CommandResult,
  FileInfo,
  FileOwner,
  Host,
  Lock,
  ProcessIdentity,
  RunOptions,
  WriteFileOptions,
} from './host.js';
import {draftFolder, runState, unfinishedPath} from './paths.js';
import {startOf} from './process.js';
import {runProgram, startProgram} from './program.js';
import {kindOfFile, RootFolder, sizeWords} from './root-folder.js';
import {replaceFile, sweepDrafts, syncFolder} from './whole-file.js';

/** sbin is not in every service's PATH, and modprobe lives there. */
const commandPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

const gone = new Set(['ENOENT', 'ENOTDIR', 'ENODEV', 'ENXIO', 'ESRCH']);

/** Reading these attributes takes the device's lock: driver_override always, uevent in some kernels (6.10 to 6.12). */
const lockTaking = ['driver_override', 'uevent'];

/** kthreadd, the parent of all kernel threads; of these only state D is significant. */
const kernelThreads = '2';

const pciDevices = '/sys/bus/pci/devices';

/** Only root may enter it, because any user who can open a lock file can hold the lock. */
const lockFolder = `${runState}/lock`;

/** The exit code that flock(1) is to use when another process has the lock. */
const lockConflict = 75;

/** The default limit of a file's size in bytes. All files that are read whole are far smaller. */
const mostBytes = 1 << 20;

/**
 * Milliseconds to wait at least for a child that is at work before another one is started. Where the start of the first
 * child took longer, it is waited for as long as that.
 */
const writerPatience = 100;

/** The type of the file system of huge pages in statfs(2). */
const hugePagesMagic = 0x958458f6;

/** The descriptor under which flock(1) gets the file to lock. */
const lockDescriptor = 3;

/** Files of the kernel: reading them does not block, and the kernel limits their size. */
const kernelFiles = /^\/(?:sys|proc)\//;

/**
 * Functions that hold or wait for a device's lock, directly or in what they call, of drivers/base, drivers/pci and
 * drivers/vfio. Those of kernels from 4.19 on.
 */
const driverCoreFunctions = [
  // Bind and unbind: of one device, of all of a driver, of all of a bus.
  '(?:__)?device_(?:attach|release_driver(?:_internal)?|driver_(?:attach|detach|lock))',
  'device_(?:initial_probe|bind_driver|reprobe|remove|del|unregister|shutdown)',
  '(?:__)?driver_(?:probe_device|attach|detach|register|unregister)',
  '__(?:driver|device)_attach_async_helper|(?:__)?device_attach_driver',
  'bus_(?:probe_device|add_driver|remove_driver|remove_device|rescan_devices(?:_helper)?)',
  'call_driver_probe|really_probe(?:_debug)?|deferred_probe_work_func',
  '(?:__)?pci_(?:device_(?:probe|remove|shutdown)|register_driver|unregister_driver)|local_pci_probe',
  // Attributes, where only wchan is known: in a stack, kernfs is below them.
  '(?:un)?bind_store|drivers_probe_store|new_id_store|driver_override_(?:store|show)|(?:device_set|driver_set)_override',
  'remove_store|reset_store|reset_method_store|rescan_store|(?:dev_|bus_)rescan_store|sriov_\\w+_store',
  'uevent_(?:show|store)|dev_uevent',
  // Hot-plug, virtual functions, resets, recovery from errors.
  'pci_(?:stop_(?:bus|dev)(?:_device)?|stop_and_remove_bus_device(?:_locked)?|remove_(?:bus_device|root_bus))',
  'pci_(?:bus_add_devices?|(?:enable|disable)_sriov)|sriov_(?:enable|disable|add_vfs|del_vfs)',
  'pci_(?:dev|bus|slot)_(?:try)?lock|pci_(?:try_)?reset_(?:function|bus|slot)|__pci_reset_(?:bus|slot)',
  'pcie_do_recovery|report_\\w+_detected|report_(?:mmio_enabled|slot_reset|resume)',
  // Suspend and resume.
  '(?:__)?device_(?:prepare|suspend|resume|complete)(?:_(?:early|late|noirq))?',
  // VFIO waits for the users of a device that is removed.
  'vfio_(?:unregister_group_dev|del_group_dev|pci_core_unregister_device|pci_remove)',
].join('|');

/** A whole function's name as in wchan, without the suffix that the compiler adds. */
const isDriverCore = new RegExp(`^(?:${driverCoreFunctions})(?:\\.\\w+)*$`);

/**
 * In a stack, whose lines are `[<0>] FUNCTION+0x1e/0x40`. A read or write of any attribute counts: the
 * functions of drivers have other names.
 */
const driverCoreFrame = new RegExp(
  `^\\[<\\w+>\\] (?:kernfs_fop_(?:read|write)(?:_iter)?|${driverCoreFunctions})(?:\\.\\w+)*\\+`,
  'm',
);

/** Where processes wait for a file system, a disk, or a child of vfork(2). */
const otherWaits =
  /^(?:nfs|rpc_|cifs|smb|wait_for_response|fuse_|request_wait_answer|kernel_clone|io_schedule|folio_|wait_on_page|jbd2|ext4_|xfs_|btrfs_|blk_|submit_bio)/;

/** With this Node opens, reads and closes a file in one call. */
const asText = {encoding: 'utf8', flag: 'r'} as const;

/** The machine itself, or an image of one below a folder. */
export class MachineHost implements Host {
  readonly root: string;
  readonly userId: number;
  /** Attributes that must not be read; see {@link findLocked}. */
  readonly #locked = new Set<string>();
  /** Folders whose entries have changed and may not be on the disk yet, where they are on this machine. */
  readonly #unsynced = new Set<string>();
  readonly #files: RootFolder;
  /** Children that write attributes and have nothing to do. */
  readonly #idleWriters: ChildProcess[] = [];
  /** Children that are starting or at work. */
  #busyWriters = 0;
  /** Resolves when the first child has started, to how long to wait before another one is started, in milliseconds. */
  #patience: Promise<number> | undefined;
  /** Writes that wait for a child; each gets one that has finished. */
  #waiting: ((writer: ChildProcess) => void)[] = [];

  constructor(root = '/') {
    this.root = /^\/*$/.test(root) ? '/' : root.replace(/\/+$/, '');
    this.#files = new RootFolder(this.root);
    this.userId = process.geteuid?.() ?? 0;
  }

  isLocked(path: string): boolean {
    return this.#locked.has(path);
  }

  readText(path: string): string | undefined {
    if (this.#locked.size > 0 && this.#locked.has(path)) return undefined;
    let text: string;
    try {
      text =
        this.root === '/' && kernelFiles.test(path)
          ? fs.readFileSync(path, asText)
          : this.#files.read(path, mostBytes).toString();
    } catch (error) {
      this.#absent('reading', path, error);
      return;
    }
    return text.endsWith('\n') ? text.slice(0, -1) : text;
  }

  readBytes(path: string, limit = mostBytes): Buffer | undefined {
    try {
      return this.root === '/' && kernelFiles.test(path)
        ? fs.readFileSync(path)
        : this.#files.read(path, limit);
    } catch (error) {
      this.#absent('reading', path, error);
      return;
    }
  }

  readStart(path: string, bytes: number, offset?: number): Buffer | undefined {
    try {
      return this.#files.readStart(path, bytes, offset);
    } catch {
      return undefined;
    }
  }

  readLink(path: string): string | undefined {
    try {
      return fs.readlinkSync(this.#files.locate(path, false));
    } catch {
      return undefined;
    }
  }

  realPath(path: string): string | undefined {
    try {
      if (this.root === '/') return fs.realpathSync(path);
      const real = this.#files.locate(path, true);
      fs.lstatSync(real);
      return this.#files.inside(real);
    } catch {
      return undefined;
    }
  }

  list(path: string): string[] {
    try {
      // Unfinished files are not listed.
      return this.#files
        .list(path)
        .filter((name) => name !== draftFolder)
        .sort();
    } catch {
      return [];
    }
  }

  exists(path: string): boolean {
    if (this.root === '/') return fs.existsSync(path);
    return this.info(path) !== undefined;
  }

  info(path: string, follow = true): FileInfo | undefined {
    let stat: fs.Stats;
    try {
      const real = this.#files.locate(path, follow);
      // In an image all links have already been followed.
      stat = follow && this.root === '/' ? fs.statSync(real) : fs.lstatSync(real);
    } catch {
      return undefined;
    }
    const device = stat.isCharacterDevice() || stat.isBlockDevice();
    return {
      kind: stat.isFile()
        ? 'file'
        : stat.isDirectory()
          ? 'directory'
          : stat.isSymbolicLink()
            ? 'link'
            : device
              ? 'device'
              : 'other',
      uid: stat.uid,
      gid: stat.gid,
      mode: stat.mode & 0o7777,
      size: stat.size,
      modified: stat.mtimeMs,
      ...(device ? {deviceNumber: deviceNumber(stat.rdev)} : {}),
    };
  }

  addresses(): ReadonlyMap<string, readonly string[]> {
    const result = new Map<string, string[]>();
    if (this.root !== '/') return result;
    for (const [name, list] of Object.entries(networkInterfaces()))
      result.set(
        name,
        (list ?? []).map(({cidr, address}) => cidr ?? address),
      );
    return result;
  }

  isClaimedByKernel(node: string): boolean {
    // A device node in an image is one of this machine's devices.
    if (this.root !== '/') return false;
    let file: number;
    try {
      file = fs.openSync(node, fs.constants.O_RDONLY | fs.constants.O_EXCL | fs.constants.O_NONBLOCK);
    } catch (error) {
      return errnoOf(error) === 'EBUSY';
    }
    fs.closeSync(file);
    return false;
  }

  async findLocked(limit: number): Promise<void> {
    if (this.root !== '/' || !this.#someTaskWaits()) return;
    // Known ones would cost the wait again.
    const slots = this.list(pciDevices).filter((slot) => !this.#locked.has(`${pciDevices}/${slot}/uevent`));
    let rest = slots;
    while (rest.length > 0) {
      const answered = await countAnswers(
        rest.map((slot) => `${pciDevices}/${slot}/driver_override`),
        limit,
      );
      const locked = rest[answered];
      if (locked !== undefined) this.#lock(locked);
      rest = rest.slice(answered + 1);
    }
    // Later kernels, such as 6.12, take the lock only for writes: a read then returns the value before that write.
    if (!slots.some((slot) => this.#isBeingUnbound(slot))) return;
    await wait(limit);
    for (const slot of slots) if (this.#isBeingUnbound(slot)) this.#lock(slot);
  }

  #lock(slot: string): void {
    const folder = `${pciDevices}/${slot}`;
    for (const name of [folder, this.realPath(folder) ?? folder])
      for (const attribute of lockTaking) this.#locked.add(`${name}/${attribute}`);
  }

  /** The kernel first removes the link to the driver, and clears the driver last (drivers/base/dd.c). */
  #isBeingUnbound(slot: string): boolean {
    const folder = `${pciDevices}/${slot}`;
    return (
      /^DRIVER=/m.test(this.readText(`${folder}/uevent`) ?? '') &&
      this.readLink(`${folder}/driver`) === undefined
    );
  }

  async writeAttribute(path: string, value: string, limit: number): Promise<void> {
    const request = this.#writeRequest(path, value);
    const writer = await this.#takeWriter(path, value);
    writer.send(request);
    const answer = await nextAnswer(writer, limit);
    if (answer === undefined) {
      this.#busyWriters -= 1;
      writer.disconnect();
      throw new StuckError(path, value, limit, writer.pid);
    }
    const next = this.#waiting.shift();
    if (next === undefined) {
      this.#busyWriters -= 1;
      this.#idleWriters.push(writer);
    } else next(writer);
    if (answer !== '') throw new WriteError(path, value, answer);
  }

  /**
   * A child that is ready to write, counted as busy. If all are at work, waits a moment for one: most writes take less
   * time than the start of a child.
   */
  async #takeWriter(path: string, value: string): Promise<ChildProcess> {
    const idle = this.#idleWriters.pop();
    const given = idle === undefined && this.#busyWriters > 0 ? await this.#nextFree() : undefined;
    // A child that another write hands over is counted already.
    if (given === undefined) this.#busyWriters += 1;
    const ready = given ?? idle;
    if (ready?.connected === true) return ready;
    try {
      const began = performance.now();
      const starting = newWriter(path, value);
      this.#patience ??= starting.then(
        () => Math.max(performance.now() - began, writerPatience),
        () => 0,
      );
      return await starting;
    } catch (error) {
      this.#busyWriters -= 1;
      throw error;
    }
  }

  /** A child that another write has finished with; undefined if none has in time. */
  async #nextFree(): Promise<ChildProcess | undefined> {
    const patience = new AbortController();
    let given: ChildProcess | undefined;
    let take: (writer: ChildProcess) => void = () => undefined;
    const free = new Promise<void>((resolve) => {
      take = (writer) => {
        given = writer;
        resolve();
      };
      this.#waiting.push(take);
    });
    const limit = async () => {
      const milliseconds = (await this.#patience) ?? writerPatience;
      await wait(milliseconds, undefined, {signal: patience.signal}).catch(() => undefined);
    };
    await Promise.race([free, limit()]);
    patience.abort();
    this.#waiting = this.#waiting.filter((one) => one !== take);
    return given;
  }

  /** In an image the path must lead to the attribute itself, and to a file. */
  #writeRequest(path: string, value: string): WriteRequest {
    if (this.root === '/') return {path, value, inImage: false};
    try {
      const real = this.#files.locate(path, true);
      const stat = fs.lstatSync(real, {throwIfNoEntry: false});
      if (stat !== undefined && !stat.isFile() && !stat.isDirectory())
        throw new FileFault('EINVAL', `it is ${kindOfFile(stat)}; expected a regular file`);
      return {path: real, value, inImage: true};
    } catch (error) {
      throw new FileError('writing', path, errnoOf(error), error);
    }
  }

  writeFile(path: string, content: string, {mode = 0o644, owner}: WriteFileOptions = {}): Promise<void> {
    return this.#change('writing', path, () =>
      this.#inParent(path, true, (entry) => replaceFile(entry, {content, mode, owner})),
    );
  }

  makeLink(path: string, target: string): Promise<void> {
    return this.#change('writing', path, () =>
      this.#inParent(path, true, (entry) => replaceFile(entry, {target})),
    );
  }

  removeFile(path: string, {prune = 0}: {readonly prune?: number} = {}): Promise<void> {
    return this.#change('removing', path, () => this.#remove(path, prune));
  }

  async setOwner(path: string, {uid, gid}: FileOwner, mode: number): Promise<boolean> {
    // A device node in an image is one of this machine's devices.
    const kind = this.root === '/' ? this.info(path, false)?.kind : undefined;
    if (kind !== 'device' && kind !== 'directory') return false;
    try {
      if (kind === 'directory') return await this.#setFolderOwner(path, {uid, gid}, mode);
      await this.#change('changing the owner of', path, () => {
        fs.lchownSync(path, uid, gid);
        fs.chmodSync(path, mode);
      });
    } catch (error) {
      if (error instanceof FileError && error.errno === 'ENOENT') return false;
      throw error;
    }
    return true;
  }

  /** @returns whether huge pages are mounted there. */
  async #setFolderOwner(path: string, {uid, gid}: FileOwner, mode: number): Promise<boolean> {
    let isMounted = false;
    await this.#change('changing the owner of', path, () => {
      const folder = fs.openSync(
        path,
        fs.constants.O_RDONLY | fs.constants.O_DIRECTORY | fs.constants.O_NOFOLLOW,
      );
      try {
        isMounted = fs.statfsSync(`/proc/self/fd/${folder}`).type === hugePagesMagic;
        if (!isMounted) return;
        fs.fchownSync(folder, uid, gid);
        fs.fchmodSync(folder, mode);
      } finally {
        fs.closeSync(folder);
      }
    });
    return isMounted;
  }

  tidyFolder(folder: string, {prune = 0}: {readonly prune?: number} = {}): Promise<void> {
    return this.#change('removing', folder, () => {
      sweepDrafts(this.#files.locate(folder, true));
      this.#prune(folder, prune);
    });
  }

  syncFiles(): Promise<void> {
    return this.#change('writing', this.root, () => {
      const folders = [...this.#unsynced];
      this.#unsynced.clear();
      for (const folder of folders) syncFolder(folder);
    });
  }

  // eslint-disable-next-line @typescript-eslint/require-await -- an error must reach the caller as a rejection
  async #change(action: string, path: string, work: () => void): Promise<void> {
    try {
      work();
    } catch (error) {
      throw new FileError(action, path, errnoOf(error), error);
    }
  }

  noteUnfinished(name: string, text: string | undefined): void {
    const path = unfinishedPath(name);
    try {
      if (text === undefined) this.#remove(path, 1);
      else this.#inParent(path, true, (entry) => replaceFile(entry, {content: text, mode: 0o644}));
    } catch (error) {
      throw new FileError(text === undefined ? 'removing' : 'writing', path, errnoOf(error), error);
    }
  }

  #remove(path: string, prune: number): void {
    try {
      this.#inParent(path, false, (entry) => fs.rmSync(entry, {force: true}));
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error;
    }
    this.#prune(dirname(path), prune);
  }

  /** Removes empty folders, this one first, and what killed runs left in them. */
  #prune(folder: string, most: number): void {
    for (let left = most; left > 0; left--) {
      try {
        this.#inParent(folder, false, (entry) => {
          sweepDrafts(entry);
          fs.rmdirSync(entry);
        });
      } catch (error) {
        // It contains other files. A missing one may have been made in part, with its parents.
        if (errnoOf(error) !== 'ENOENT') return;
      }
      folder = dirname(folder);
    }
  }

  /** Changes an entry of a folder. @param create whether missing folders are made. */
  #inParent(path: string, create: boolean, action: (entry: string) => void): void {
    const folder = this.#files.openParent(path, create);
    try {
      for (const changed of folder.changed) this.#unsynced.add(changed);
      action(folder.at(folder.name));
      this.#unsynced.add(folder.real);
    } finally {
      folder.close();
    }
  }

  ask(file: string, args: readonly string[], options: RunOptions = {}): Promise<CommandResult> {
    return this.run(file, args, options);
  }

  async run(file: string, args: readonly string[], options: RunOptions = {}): Promise<CommandResult> {
    const {limit = 90_000, outputLimit = mostBytes, accept = [0], input} = options;
    const {status, stdout, stderr, ended} = await runProgram(file, args, {
      env:
        options.inheritEnvironment === true
          ? {PATH: commandPath, ...process.env}
          : {PATH: commandPath, LC_ALL: 'C', SYSTEMD_COLORS: '0'},
      input,
      limit,
      outputLimit,
    });
    if (ended === 'late')
      throw new CommandError(
        file,
        args,
        undefined,
        `${stderr.trim()}\nit did not end within ${limit / 1000} s`,
        ended,
      );
    if (ended === 'overflow')
      throw new CommandError(
        file,
        args,
        undefined,
        `expected at most ${sizeWords(outputLimit)} of output`,
        ended,
      );
    if (status === undefined || (accept !== 'any' && !accept.includes(status)))
      throw new CommandError(file, args, status, stderr);
    return {status, stdout, stderr};
  }

  signal(target: ProcessIdentity, signal: 'SIGTERM' | 'SIGKILL'): boolean {
    if (startOf(this, target.pid) !== target.started) return false;
    try {
      process.kill(target.pid, signal);
    } catch (error) {
      const errno = errnoOf(error);
      if (errno === 'ESRCH') return false;
      throw new CommandError('kill', [`-${signal}`, String(target.pid)], undefined, explainErrno(errno));
    }
    return true;
  }

  async pause(milliseconds: number): Promise<void> {
    await wait(milliseconds);
  }

  async lock(name: string, limit: number, signal?: AbortSignal): Promise<Lock> {
    const path = `${lockFolder}/${name}`;
    for (;;) {
      const {file, isCurrent} = this.#openLock(path);
      try {
        await waitForLock(name, file, limit, signal);
        // Another run has made the folder safe and removed the file since: the next run would lock another one.
        if (!isCurrent()) continue;
      } catch (error) {
        fs.closeSync(file);
        throw error;
      }
      return {
        release: () => {
          fs.closeSync(file);
          return Promise.resolve();
        },
      };
    }
  }

  /** Opens the file that is locked: a regular one in a folder that no other user can enter. */
  #openLock(path: string): {file: number; isCurrent: () => boolean} {
    try {
      const folder = this.#files.openParent(path, true);
      try {
        const {O_CREAT, O_NOCTTY, O_NOFOLLOW, O_NONBLOCK, O_RDWR} = fs.constants;
        secureFolder(folder.at('.'));
        const entry = folder.at(folder.name);
        const there = fs.lstatSync(entry, {throwIfNoEntry: false});
        if (there !== undefined && !there.isFile())
          throw new FileFault('EINVAL', `it is ${kindOfFile(there)}; expected a regular file`);
        const file = fs.openSync(entry, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0o600);
        const {dev, ino} = fs.fstatSync(file);
        const isCurrent = () => {
          const now = fs.lstatSync(this.#files.locate(path, false), {throwIfNoEntry: false});
          return now?.dev === dev && now.ino === ino;
        };
        return {file, isCurrent};
      } finally {
        folder.close();
      }
    } catch (error) {
      throw new FileError('locking', path, errnoOf(error), error);
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.#idleWriters.splice(0).map(endWriter));
  }

  /**
   * Whether a process is blocked in the kernel in a way that may keep a device locked: uninterruptibly (state D, see
   * proc_pid_stat(5)), or in a function of the driver core or of VFIO, which waits interruptibly when it unregisters
   * a device in use. Only root can see where a process is blocked (proc_pid_wchan(5)).
   */
  #someTaskWaits(): boolean {
    return this.list('/proc').some((name) => {
      if (!/^\d+$/.test(name)) return false;
      const stat = this.readText(`/proc/${name}/stat`);
      if (stat === undefined) return false;
      const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ', 2);
      if (state === 'D') return this.#isInDriverCore(name);
      if (this.userId !== 0 || parent === kernelThreads) return false;
      const place = this.readText(`/proc/${name}/wchan`) ?? '';
      return place.startsWith('vfio_') || isDriverCore.test(place);
    });
  }

  /**
   * Whether a process in state D may be one that has or wants a device's lock, and not one that waits for NFS, FUSE or
   * a slow disk. The lock is taken in functions of the driver core and of buses, which are on its stack
   * (proc_pid_stack(5)), see {@link driverCoreFunctions}. Without access to the stack, wchan decides; without that too,
   * the process is assumed to be one.
   */
  #isInDriverCore(pid: string): boolean {
    let stack: string | undefined;
    try {
      stack = this.readText(`/proc/${pid}/stack`);
    } catch (error) {
      if (!(error instanceof FileError)) throw error;
    }
    // A stack without names is of no use.
    if (stack?.includes('+0x') === true) return driverCoreFrame.test(stack);
    return !otherWaits.test(this.readText(`/proc/${pid}/wchan`) ?? '');
  }

  #absent(action: string, path: string, error: unknown): undefined {
    const errno = errnoOf(error);
    if (gone.has(errno)) return undefined;
    throw new FileError(action, path, errno, error);
  }
}

/**
 * Makes a folder of locks safe: any user who can open a file can lock it and block root. Files that others could open
 * before may still be locked by them, so they are removed.
 */
function secureFolder(folder: string): void {
  const {uid, mode} = fs.statSync(folder);
  if ((mode & 0o077) === 0 && isOwn(uid)) return;
  if (!isOwn(uid))
    throw new FileFault('EACCES', `its folder is owned by user ${uid}; expected a folder owned by root`);
  fs.chmodSync(folder, 0o700);
  for (const name of fs.readdirSync(folder)) {
    const entry = join(folder, name);
    if (fs.lstatSync(entry, {throwIfNoEntry: false})?.isFile() === true) fs.rmSync(entry, {force: true});
  }
}

/** Root, or in an image that a user has unpacked, that user. */
function isOwn(uid: number): boolean {
  return uid === 0 || uid === process.geteuid?.();
}

/**
 * Locks an open file. Node has no flock(2): flock(1) gets it open and locks it, and the lock lasts as
 * long as this process has the file open.
 */
async function waitForLock(name: string, file: number, limit: number, signal?: AbortSignal): Promise<void> {
  const checkSignal = () => {
    if (signal?.aborted === true) throw interrupted(['nothing was changed']);
  };
  checkSignal();
  const options = [
    '--exclusive',
    '--timeout',
    String(limit / 1000),
    '--conflict-exit-code',
    String(lockConflict),
  ];
  const args = [...options, String(lockDescriptor)];
  const child = await startProgram('flock', args, {
    detached: true,
    stdio: ['ignore', 'ignore', 'ignore', file],
    env: {PATH: commandPath},
  });
  const abort = () => child.kill('SIGKILL');
  signal?.addEventListener('abort', abort, {once: true});
  if (signal?.aborted === true) abort();
  const status = await new Promise<number | null>((resolve) => child.once('exit', resolve));
  signal?.removeEventListener('abort', abort);
  if (status === 0) return;
  checkSignal();
  if (status !== lockConflict)
    throw new CommandError('flock', args, status ?? undefined, `it should lock ${name}`);
  throw new PearasysError({
    code: 'busy',
    exitCode: ExitCode.refused,
    message: `could not lock ${name}: another pearasys command is running (waited ${limit / 1000} s)`,
    details: ['nothing was changed'],
    hint: 'wait for it to end, then run the same command again',
  });
}

/**
 * Reads the attributes one by one in a child, which is left behind if a read blocks: a process that waits for a
 * device's lock cannot be killed.
 * @returns how many were read, each within the limit.
 */
async function countAnswers(paths: readonly string[], limit: number): Promise<number> {
  const script = 'for path; do read -r _ <"$path"; echo; done';
  const child = await startProgram('sh', ['-c', script, 'sh', ...paths], {
    detached: true,
    stdio: ['ignore', 'pipe', 'ignore'],
    env: {PATH: commandPath},
  });
  return await new Promise((resolve) => {
    let answered = 0;
    const end = () => {
      clearTimeout(timer);
      child.stdout?.destroy();
      child.unref();
      resolve(answered);
    };
    let timer = setTimeout(end, limit);
    child.stdout?.on('data', (data: Buffer) => {
      answered += data.length;
      clearTimeout(timer);
      timer = setTimeout(end, limit);
    });
    child.once('close', end);
  });
}

/** `major:minor` as the kernel encodes it in dev_t, see makedev(3). */
function deviceNumber(rdev: number): string {
  const low = rdev >>> 0;
  const major = (low >>> 8) & 0xfff;
  const minor = (low & 0xff) | ((low >>> 12) & 0xfff00);
  return `${major}:${minor}`;
}

/**
 * The writer's next message, or the errno of why there will be none.
 * @param limit milliseconds; after them the result is undefined.
 */
function nextAnswer(writer: ChildProcess, limit?: number): Promise<string | undefined> {
  return new Promise((resolve) => {
    const end = (result: string | undefined) => {
      clearTimeout(timer);
      writer.removeAllListeners();
      resolve(result);
    };
    const timer = limit === undefined ? undefined : setTimeout(() => end(undefined), limit);
    writer.once('message', (errno) => end(errno as string));
    writer.once('error', (error) => end(errnoOf(error)));
    writer.once('exit', () => end('ECHILD'));
  });
}

/**
 * Starts a child that writes attributes, and waits until it is ready.
 * @throws WriteError of the write that it was to make.
 */
async function newWriter(path: string, value: string): Promise<ChildProcess> {
  let writer: ChildProcess;
  try {
    writer = startWriter();
  } catch (error) {
    throw new WriteError(path, value, errnoOf(error));
  }
  // On a busy machine the child may need longer to start than a write may take.
  const failed = await nextAnswer(writer);
  if (failed !== '') throw new WriteError(path, value, failed ?? 'ECHILD');
  return writer;
}

async function endWriter(writer: ChildProcess): Promise<void> {
  // A child that has already ended emits no second event.
  if (writer.exitCode !== null || writer.signalCode !== null) return;
  // Between two writes it can be killed safely. If it exited normally, it would outlive this process, and systemd
  // would find it left over from the service.
  const ended = new Promise((resolve) => writer.once('exit', resolve));
  writer.ref();
  writer.kill('SIGKILL');
  await ended;
}

function startWriter(): ChildProcess {
  // Next to this file: the TypeScript source in a checkout, a small separate bundle when installed.
  const program = join(import.meta.dirname, `attribute-writer${extname(import.meta.filename)}`);
  const writer = fork(program, [], {
    // In its own session, because an interrupt at the terminal must not end it between two writes.
    detached: true,
    stdio: 'ignore',
    env: {PATH: commandPath},
  });
  writer.unref();
  return writer;
}
