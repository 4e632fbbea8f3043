import {fork, spawn, type ChildProcess} from 'node:child_process';
import fs from 'node:fs';
import {networkInterfaces} from 'node:os';
import {extname, join, relative} from 'node:path';
import {setTimeout as wait} from 'node:timers/promises';
import type {WriteRequest} from './attribute-writer.js';
import {
  CommandError,
  errnoOf,
  ExitCode,
  explainErrno,
  FileError,
  PearasysError,
  StuckError,
  WriteError,
} from './errors.js';
import type {
  CommandResult,
  FileInfo,
  Host,
  Lock,
  ProcessIdentity,
  RunOptions,
  WriteFileOptions,
} from './host.js';
import {pathInImage} from './image-path.js';
import {draftFolder, runState, unfinishedPath} from './layout.js';
import {startOf} from './process.js';
import {pruneFolders, removeWhole, replaceFile, sweepDrafts, syncFolder} from './whole-file.js';

/** sbin is not in every service's PATH, and modprobe lives there. */
const commandPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

const gone = new Set(['ENOENT', 'ENOTDIR', 'ENODEV', 'ENXIO', 'ESRCH']);

/** Attributes whose reading takes the device's lock: driver_override always, uevent in some kernels (6.10 to 6.12). */
const lockTaking = ['driver_override', 'uevent'];

/** Milliseconds that a program has to end by itself, and again to be killed. */
const killDelay = 1000;

/** The parent of all kernel threads, kthreadd; of these only state D tells anything. */
const kernelThreads = '2';

const pciDevices = '/sys/bus/pci/devices';

/** What flock(1) is to end with when somebody else has the lock. */
const lockConflict = 75;

/** Node opens, reads and closes in one call when it is asked like this. */
const asText = {encoding: 'utf8', flag: 'r'} as const;

/** The machine itself, or an image of one below a folder. */
export class MachineHost implements Host {
  readonly root: string;
  readonly userId: number;
  /** Attributes that must not be read; see {@link findLocked}. */
  readonly #locked = new Set<string>();
  /** Folders whose entries have changed and may not be on the disk yet, where they are on this machine. */
  readonly #unsynced = new Set<string>();
  #idleWriter: ChildProcess | undefined;

  constructor(root = '/') {
    this.root = root === '/' ? '/' : root.replace(/\/+$/, '');
    this.userId = process.geteuid?.() ?? 0;
  }

  readText(path: string): string | undefined {
    if (this.#locked.size > 0 && this.#locked.has(path)) return undefined;
    let text: string;
    try {
      text = fs.readFileSync(this.#locate(path), asText);
    } catch (error) {
      this.#absent('reading', path, error);
      return;
    }
    return text.endsWith('\n') ? text.slice(0, -1) : text;
  }

  readBytes(path: string): Buffer | undefined {
    try {
      return fs.readFileSync(this.#locate(path));
    } catch (error) {
      this.#absent('reading', path, error);
      return;
    }
  }

  readStart(path: string, bytes: number): Buffer | undefined {
    let file: number;
    try {
      file = fs.openSync(this.#locate(path), fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
    } catch {
      return undefined;
    }
    try {
      const start = Buffer.alloc(bytes);
      return start.subarray(0, fs.readSync(file, start, 0, bytes, 0));
    } catch {
      return undefined;
    } finally {
      fs.closeSync(file);
    }
  }

  readLink(path: string): string | undefined {
    try {
      return fs.readlinkSync(this.#locate(path, false));
    } catch {
      return undefined;
    }
  }

  realPath(path: string): string | undefined {
    try {
      const real = fs.realpathSync(this.#locate(path));
      return this.root === '/' ? real : `/${relative(fs.realpathSync(this.root), real)}`;
    } catch {
      return undefined;
    }
  }

  list(path: string): string[] {
    try {
      // Unfinished files are nobody's.
      return fs
        .readdirSync(this.#locate(path))
        .filter((name) => name !== draftFolder)
        .sort();
    } catch {
      return [];
    }
  }

  exists(path: string): boolean {
    return fs.existsSync(this.#locate(path));
  }

  info(path: string, follow = true): FileInfo | undefined {
    let stat: fs.Stats;
    try {
      stat = follow ? fs.statSync(this.#locate(path)) : fs.lstatSync(this.#locate(path, false));
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
    let file: number;
    try {
      file = fs.openSync(
        this.#locate(node),
        fs.constants.O_RDONLY | fs.constants.O_EXCL | fs.constants.O_NONBLOCK,
      );
    } catch (error) {
      return errnoOf(error) === 'EBUSY';
    }
    fs.closeSync(file);
    return false;
  }

  async findLocked(limit: number): Promise<void> {
    if (this.root !== '/' || !this.#someTaskWaits()) return;
    // Those that are known would be waited for again.
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
    // Later kernels, 6.12 for one, take the lock for writes only: what is read then is of before that write.
    if (!slots.some((slot) => this.#isBeingUnbound(slot))) return;
    await wait(limit);
    for (const slot of slots) if (this.#isBeingUnbound(slot)) this.#lock(slot);
  }

  #lock(slot: string): void {
    const folder = `${pciDevices}/${slot}`;
    for (const name of [folder, this.realPath(folder) ?? folder])
      for (const attribute of lockTaking) this.#locked.add(`${name}/${attribute}`);
  }

  /** The kernel takes the link to the driver away first, and forgets the driver last (drivers/base/dd.c). */
  #isBeingUnbound(slot: string): boolean {
    const folder = `${pciDevices}/${slot}`;
    return (
      /^DRIVER=/m.test(this.readText(`${folder}/uevent`) ?? '') &&
      this.readLink(`${folder}/driver`) === undefined
    );
  }

  async writeAttribute(path: string, value: string, limit: number): Promise<void> {
    let writer = this.#idleWriter;
    this.#idleWriter = undefined;
    if (writer?.connected !== true) {
      writer = startWriter();
      // On a busy machine its start may take longer than a write may.
      const failed = await nextAnswer(writer);
      if (failed !== '') throw new WriteError(path, value, failed ?? 'ECHILD');
    }
    writer.send({path: this.#locate(path), value} satisfies WriteRequest);
    const answer = await nextAnswer(writer, limit);
    if (answer === undefined) {
      writer.disconnect();
      throw new StuckError(path, value, limit, writer.pid);
    }
    this.#idleWriter = writer;
    if (answer !== '') throw new WriteError(path, value, answer);
  }

  writeFile(path: string, content: string, {mode = 0o644, owner}: WriteFileOptions = {}): Promise<void> {
    return this.#change('writing', path, () => replaceFile(this.#locate(path), {content, mode, owner}));
  }

  makeLink(path: string, target: string): Promise<void> {
    return this.#change('writing', path, () => replaceFile(this.#locate(path, false), {target}));
  }

  removeFile(path: string, {prune = 0}: {readonly prune?: number} = {}): Promise<void> {
    return this.#change('removing', path, () => [removeWhole(this.#locate(path, false), prune)]);
  }

  tidyFolder(folder: string, {prune = 0}: {readonly prune?: number} = {}): Promise<void> {
    return this.#change('removing', folder, () => {
      const place = this.#locate(folder);
      sweepDrafts(place);
      return [pruneFolders(place, prune)];
    });
  }

  syncFiles(): Promise<void> {
    return this.#change('writing', this.root, () => {
      const folders = [...this.#unsynced];
      this.#unsynced.clear();
      for (const folder of folders) syncFolder(folder);
      return [];
    });
  }

  /** @param work returns the folders whose entries have changed. */
  // eslint-disable-next-line @typescript-eslint/require-await -- an error must reach the caller as a rejection
  async #change(action: string, path: string, work: () => readonly string[]): Promise<void> {
    try {
      for (const folder of work()) this.#unsynced.add(folder);
    } catch (error) {
      throw new FileError(action, path, errnoOf(error), error);
    }
  }

  noteUnfinished(name: string, text: string | undefined): void {
    const path = unfinishedPath(name);
    try {
      if (text === undefined) removeWhole(this.#locate(path, false), 1);
      else replaceFile(this.#locate(path, false), {content: text, mode: 0o644});
    } catch (error) {
      throw new FileError(text === undefined ? 'removing' : 'writing', path, errnoOf(error), error);
    }
  }

  async run(file: string, args: readonly string[], options: RunOptions = {}): Promise<CommandResult> {
    const {execa} = await import('execa');
    const limit = options.limit ?? 90_000;
    const running = execa(file, args, {
      reject: false,
      extendEnv: false,
      env:
        options.inheritEnvironment === true
          ? {PATH: commandPath, ...process.env}
          : {PATH: commandPath, LC_ALL: 'C', SYSTEMD_COLORS: '0'},
      ...(options.input === undefined ? {stdin: 'ignore' as const} : {input: options.input}),
      timeout: limit,
      forceKillAfterDelay: killDelay,
      // An interrupt at the terminal is for us, who must undo; the program that runs finishes its work.
      detached: true,
      cleanup: false,
    });
    // A program that waits in the kernel is not ended by a signal: modprobe in a driver's probe, for one.
    const result = await Promise.race([running, wait(limit + 2 * killDelay, undefined, {ref: false})]);
    if (result === undefined || result.timedOut) {
      // What it has started lives on, and may keep its output open; all of it is in one group of processes.
      if (running.pid !== undefined) endGroup(running.pid);
      running.unref();
      const said = result === undefined ? '' : `${result.stderr.trim()}\n`;
      throw new CommandError(file, args, undefined, `${said}it did not end within ${limit / 1000} s`, true);
    }
    const accept = options.accept ?? [0];
    if (result.exitCode === undefined || (accept !== 'any' && !accept.includes(result.exitCode)))
      throw new CommandError(file, args, result.exitCode, result.stderr || (result.shortMessage ?? ''));
    return {status: result.exitCode, stdout: result.stdout, stderr: result.stderr};
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

  async lock(name: string, limit: number): Promise<Lock> {
    const folder = join(this.#locate(runState), 'lock');
    try {
      fs.mkdirSync(folder, {recursive: true, mode: 0o755});
    } catch (error) {
      throw new FileError('making', `${runState}/lock`, errnoOf(error), error);
    }
    // flock(1) holds the lock for us as long as its standard input is open: it goes with this process however
    // that ends, and leaves nothing stale behind. Node itself has no flock(2).
    const child = spawn(
      'flock',
      [
        '--exclusive',
        '--timeout',
        String(limit / 1000),
        '--conflict-exit-code',
        String(lockConflict),
        join(folder, name),
        'sh',
        '-c',
        'echo; read -r _',
      ],
      {detached: true, stdio: ['pipe', 'pipe', 'ignore'], env: {PATH: commandPath}},
    );
    const status = await new Promise<number | undefined>((resolve, reject) => {
      child.stdout.once('data', () => resolve(undefined));
      child.once('error', (error) => reject(new CommandError('flock', [name], undefined, error.message)));
      child.once('exit', (code) => resolve(code ?? -1));
    });
    if (status !== undefined && status !== lockConflict)
      throw new CommandError('flock', [join(folder, name)], status, 'the lock cannot be had');
    if (status !== undefined)
      throw new PearasysError({
        code: 'busy',
        exitCode: ExitCode.refused,
        message: `another run of pearasys is working on ${name}, and did not end within ${limit / 1000} s`,
        details: ['nothing was changed'],
        hint: 'wait for it, then try again',
      });
    return {
      release: () =>
        new Promise((resolve) => {
          child.once('exit', () => resolve());
          child.stdin.end();
        }),
    };
  }

  async close(): Promise<void> {
    const writer = this.#idleWriter;
    this.#idleWriter = undefined;
    // One that has ended says so no second time.
    if (writer === undefined || writer.exitCode !== null || writer.signalCode !== null) return;
    // Between two writes nothing is lost with it. To end by itself would take it longer than this process, and systemd
    // would find it left over from the service.
    const ended = new Promise((resolve) => writer.once('exit', resolve));
    writer.ref();
    writer.kill('SIGKILL');
    await ended;
  }

  /**
   * Whether a process waits in the kernel in a way that may keep a device locked: uninterruptibly (state D, see
   * proc_pid_stat(5)), or in a function of the driver core or of VFIO, whose unregistering of a device that is in
   * use waits interruptibly. Only root is shown where a process waits (proc_pid_wchan(5)).
   */
  #someTaskWaits(): boolean {
    return this.list('/proc').some((name) => {
      if (!/^\d+$/.test(name)) return false;
      const stat = this.readText(`/proc/${name}/stat`);
      if (stat === undefined) return false;
      const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ', 2);
      if (state === 'D') return true;
      if (this.userId !== 0 || parent === kernelThreads) return false;
      return /^(?:vfio_|driver_|device_|__device_|uevent_|bus_)/.test(
        this.readText(`/proc/${name}/wchan`) ?? '',
      );
    });
  }

  /** Where the path is on this machine. */
  #locate(path: string, follow = true): string {
    return this.root === '/' ? path : pathInImage(this.root, path, follow);
  }

  #absent(action: string, path: string, error: unknown): undefined {
    const errno = errnoOf(error);
    if (gone.has(errno)) return undefined;
    throw new FileError(action, path, errno, error);
  }
}

/** Ends a group of processes that did not end in time. */
function endGroup(leader: number): void {
  try {
    process.kill(-leader, 'SIGKILL');
  } catch (error) {
    if (errnoOf(error) !== 'ESRCH') throw error;
  }
}

/**
 * Reads the attributes one after the other in a child, which is left behind when one does not answer: nobody can end
 * a process that waits for a device's lock.
 * @returns how many answered, each within the limit.
 */
function countAnswers(paths: readonly string[], limit: number): Promise<number> {
  return new Promise((resolve) => {
    const child = spawn('sh', ['-c', 'for path; do read -r _ <"$path"; echo; done', 'sh', ...paths], {
      detached: true,
      stdio: ['ignore', 'pipe', 'ignore'],
      env: {PATH: commandPath},
    });
    let answered = 0;
    const end = () => {
      clearTimeout(timer);
      child.stdout.destroy();
      child.unref();
      resolve(answered);
    };
    let timer = setTimeout(end, limit);
    child.stdout.on('data', (data: Buffer) => {
      answered += data.length;
      clearTimeout(timer);
      timer = setTimeout(end, limit);
    });
    child.once('error', end);
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
 * What the writer says next, or the errno of why it says nothing any more.
 * @param limit milliseconds; undefined is answered when they have passed.
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

function startWriter(): ChildProcess {
  // Beside this file: the TypeScript source in a checkout, its own small bundle when installed.
  const program = join(import.meta.dirname, `attribute-writer${extname(import.meta.filename)}`);
  const writer = fork(program, [], {
    // A session of its own: an interrupt at the terminal must not end it between two writes.
    detached: true,
    stdio: 'ignore',
    env: {PATH: commandPath},
  });
  writer.unref();
  return writer;
}
