import {fork, spawn, type ChildProcess} from 'node:child_process';
import fs from 'node:fs';
import {networkInterfaces} from 'node:os';
import {dirname, extname, join} from 'node:path';
import type {WriteRequest} from './attribute-writer.js';
import {CommandError, errnoOf, ExitCode, FileError, PearasysError, StuckError, WriteError} from './errors.js';
import type {CommandResult, FileInfo, Host, Lock, RunOptions, WriteFileOptions} from './host.js';
import {runState} from './layout.js';

/** sbin is not in every service's PATH, and modprobe lives there. */
const commandPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

const gone = new Set(['ENOENT', 'ENOTDIR', 'ENODEV', 'ENXIO']);

/** A sysfs attribute is at most one page; anything longer takes the slow way. */
const page = Buffer.allocUnsafe(4096);

/** The machine itself, or an image of one below a folder. */
export class MachineHost implements Host {
  readonly root: string;
  readonly userId: number;
  readonly #prefix: string;
  #writer: ChildProcess | undefined;

  constructor(root = '/') {
    this.root = root === '/' ? '/' : root.replace(/\/+$/, '');
    this.#prefix = this.root === '/' ? '' : this.root;
    this.userId = process.geteuid?.() ?? 0;
  }

  readText(path: string): string | undefined {
    let file: number;
    try {
      file = fs.openSync(this.#prefix + path, fs.constants.O_RDONLY);
    } catch (error) {
      return this.#absent('reading', path, error);
    }
    try {
      const length = fs.readSync(file, page, 0, page.length, null);
      // procfs answers with less than was asked for; only an empty read is the end of a file.
      const chunks = [Buffer.from(page.subarray(0, length))];
      for (let more = length; more > 0;) {
        more = fs.readSync(file, page, 0, page.length, null);
        if (more > 0) chunks.push(Buffer.from(page.subarray(0, more)));
      }
      const text = (chunks.length === 1 ? chunks[0] : Buffer.concat(chunks))?.toString('utf8') ?? '';
      return text.endsWith('\n') ? text.slice(0, -1) : text;
    } catch (error) {
      return this.#absent('reading', path, error);
    } finally {
      fs.closeSync(file);
    }
  }

  readLink(path: string): string | undefined {
    try {
      return fs.readlinkSync(this.#prefix + path);
    } catch {
      return undefined;
    }
  }

  realPath(path: string): string | undefined {
    try {
      const real = fs.realpathSync(this.#prefix + path);
      return real.startsWith(this.#prefix) ? real.slice(this.#prefix.length) : real;
    } catch {
      return undefined;
    }
  }

  list(path: string): string[] {
    try {
      return fs.readdirSync(this.#prefix + path).sort();
    } catch {
      return [];
    }
  }

  exists(path: string): boolean {
    return fs.existsSync(this.#prefix + path);
  }

  info(path: string, follow = true): FileInfo | undefined {
    let stat: fs.Stats;
    try {
      stat = follow ? fs.statSync(this.#prefix + path) : fs.lstatSync(this.#prefix + path);
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
      file = fs.openSync(this.#prefix + node, fs.constants.O_RDONLY | fs.constants.O_EXCL);
    } catch (error) {
      return errnoOf(error) === 'EBUSY';
    }
    fs.closeSync(file);
    return false;
  }

  async writeAttribute(path: string, value: string, limit: number): Promise<void> {
    const writer = (this.#writer ??= startWriter());
    const answer = await new Promise<string | undefined>((resolve) => {
      const end = (result: string | undefined) => {
        clearTimeout(timer);
        writer.removeAllListeners();
        resolve(result);
      };
      const timer = setTimeout(() => end(undefined), limit);
      writer.once('message', (errno) => end(String(errno)));
      writer.once('error', (error) => end(errnoOf(error)));
      writer.once('exit', () => end('ECHILD'));
      writer.send({path: this.#prefix + path, value} satisfies WriteRequest);
    });
    if (answer === undefined) {
      this.close();
      throw new StuckError(path, value, limit, writer.pid);
    }
    if (answer !== '') throw new WriteError(path, value, answer);
  }

  async writeFile(path: string, content: string, options: WriteFileOptions = {}): Promise<void> {
    const target = this.#prefix + path;
    try {
      fs.mkdirSync(dirname(target), {recursive: true, mode: 0o755});
      const {default: writeFileAtomic} = await import('write-file-atomic');
      await writeFileAtomic(target, content, {mode: options.mode ?? 0o644});
    } catch (error) {
      throw new FileError('writing', path, errnoOf(error), error);
    }
  }

  // eslint-disable-next-line @typescript-eslint/require-await -- an error must reach the caller as a rejection
  async removeFile(path: string, options: {readonly prune?: boolean} = {}): Promise<void> {
    try {
      fs.rmSync(this.#prefix + path, {force: true});
    } catch (error) {
      throw new FileError('removing', path, errnoOf(error), error);
    }
    if (options.prune === true)
      try {
        fs.rmdirSync(this.#prefix + dirname(path));
      } catch {
        // Somebody else's files are still in it, or it is gone: both are fine.
      }
  }

  async run(file: string, args: readonly string[], options: RunOptions = {}): Promise<CommandResult> {
    const {execa} = await import('execa');
    const result = await execa(file, args, {
      reject: false,
      extendEnv: false,
      env: {PATH: commandPath, LC_ALL: 'C', SYSTEMD_COLORS: '0'},
      stdin: 'ignore',
      timeout: options.limit ?? 90_000,
      forceKillAfterDelay: 1000,
      // An interrupt at the terminal is for us, who must undo; the program that runs finishes its work.
      detached: true,
      cleanup: false,
    });
    const accept = options.accept ?? [0];
    if (result.exitCode === undefined || !accept.includes(result.exitCode))
      throw new CommandError(file, args, result.exitCode, result.stderr || (result.shortMessage ?? ''));
    return {status: result.exitCode, stdout: result.stdout, stderr: result.stderr};
  }

  async lock(name: string, limit: number): Promise<Lock> {
    const folder = join(this.#prefix + runState, 'lock');
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
        '75',
        join(folder, name),
        'sh',
        '-c',
        'echo; read -r _',
      ],
      {detached: true, stdio: ['pipe', 'pipe', 'ignore'], env: {PATH: commandPath}},
    );
    const held = await new Promise<boolean>((resolve, reject) => {
      child.stdout.once('data', () => resolve(true));
      child.once('error', (error) => reject(new CommandError('flock', [name], undefined, error.message)));
      child.once('exit', () => resolve(false));
    });
    if (!held)
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

  close(): void {
    const writer = this.#writer;
    this.#writer = undefined;
    if (writer?.connected) writer.disconnect();
    writer?.unref();
  }

  #absent(action: string, path: string, error: unknown): undefined {
    const errno = errnoOf(error);
    if (gone.has(errno)) return undefined;
    throw new FileError(action, path, errno, error);
  }
}

/** `major:minor` as the kernel encodes it in dev_t, see makedev(3). */
function deviceNumber(rdev: number): string {
  const low = rdev >>> 0;
  const major = (low >>> 8) & 0xfff;
  const minor = (low & 0xff) | ((low >>> 12) & 0xfff00);
  return `${major}:${minor}`;
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
