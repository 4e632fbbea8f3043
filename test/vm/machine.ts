/**
 * A real kernel for tests: Debian in QEMU, with an emulated IOMMU, the devices of `devices.ts`, and an agent that runs
 * commands for the tests.
 *
 * ```ts
 * let machine: Machine;
 * before(async function () {
 *   this.timeout(BOOT_LIMIT);
 *   await skipUnlessAvailable(this);
 *   machine = await Machine.boot();
 * });
 * after(() => machine?.close());
 * explainFailures(() => machine);
 *
 * it('has a display', async () => {
 *   assert.match(await machine.sh('lspci -s 00:0a.0'), /Display/);
 * });
 * ```
 */
import {spawn, type ChildProcess} from 'node:child_process';
import {once} from 'node:events';
import {existsSync, rmSync} from 'node:fs';
import {
  appendFile,
  copyFile,
  mkdir,
  mkdtemp,
  open,
  readFile,
  rm,
  truncate,
  writeFile,
  type FileHandle,
} from 'node:fs/promises';
import {availableParallelism, tmpdir, totalmem} from 'node:os';
import path from 'node:path';
import {setTimeout as sleep} from 'node:timers/promises';
import {
  Agent,
  CommandError,
  DEFAULT_TIMEOUT,
  type GuestProcess,
  type Result,
  type RunOptions,
} from './agent.js';
import {deviceArguments} from './devices.js';
import {available, cacheFolder, chosenSuite, ensureImage, type Recipe} from './image.js';
import {Monitor, type MachineEvent} from './monitor.js';
import {Ports} from './port.js';

export {CommandError, type GuestProcess, type Result, type RunOptions} from './agent.js';
export type {MachineEvent} from './monitor.js';

/** For `this.timeout()` of a hook that boots a machine: includes building the image and waiting for another machine. */
export const BOOT_LIMIT = 1_200_000;

/** The path of the checkout in the machine, read-only. */
export const CHECKOUT = '/mnt/checkout';

const BOOT_TIMEOUT = 400_000;
/** The maximum number of machines that run at a time. More would exceed the time limits of tests. */
export const PLACES = Math.max(1, Math.min(availableParallelism(), Math.floor(totalmem() / 2 ** 32)));
/**
 * The number of processors of a machine, which is the number that the host has for each. With more, an emulated
 * processor could spin on one that the host is not running at the moment.
 */
const PROCESSORS = Math.min(2, Math.ceil(availableParallelism() / PLACES));
const checkout = path.resolve(import.meta.dirname, '../..');

/** Options of {@link Machine.boot}. */
export interface BootOptions extends Partial<Recipe> {
  /** Megabytes; 1536 by default. */
  memory?: number;
  /** Further devices, in the format of QEMU's `-device`: `'e1000e,bus=hotplug0,id=extra,romfile='`. */
  extraDevices?: readonly string[];
  /** Further arguments for QEMU. */
  extraArguments?: readonly string[];
  /** Added to the kernel's command line. */
  kernelParameters?: string;
  /**
   * Whether the machine's clock counts the processor's instructions, so that what it times depends little on what else
   * the host does. It has one processor then.
   */
  countInstructions?: boolean;
  /** Drivers loaded before the real system starts, as by an initramfs with all drivers. */
  early?: readonly ('nvme' | 'e1000e')[];
  /** A raw disk to use as it is instead of a fresh copy of the image; changes to it persist. */
  disk?: string;
  /** An initramfs to use instead of the image's. */
  initrd?: string;
  /** Further folders of the host, mounted read-only as `/mnt/<name>`. */
  shares?: Readonly<Record<string, string>>;
}

/** The running machines, so that none outlives the tests. */
const running = new Set<Machine>();
process.on('exit', () => {
  for (const machine of running) machine.abandon();
});

/** A running test machine. */
export class Machine {
  readonly recipe: Recipe;
  /** Milliseconds from QEMU's start to the end of the first boot. */
  bootTime = 0;
  /** The root ports that are empty after a boot. */
  readonly ports = new Ports(this);
  readonly #folder: string;
  readonly #shares: Readonly<Record<string, string>>;
  readonly #qemu: ChildProcess;
  readonly #place: FileHandle;
  readonly #agent = new Agent();
  readonly #monitor = new Monitor();
  #gone: string | undefined;
  #resets = 0;
  #added = 0;

  private constructor(
    recipe: Recipe,
    folder: string,
    qemu: ChildProcess,
    shares: Record<string, string>,
    place: FileHandle,
  ) {
    this.recipe = recipe;
    this.#place = place;
    this.#folder = folder;
    this.#qemu = qemu;
    this.#shares = shares;
    running.add(this);
    qemu.on('error', (error) => this.#end(`QEMU could not be started: ${error.message}`));
    qemu.on('exit', (code, signal) => this.#end(`QEMU ended with ${signal ?? `code ${String(code)}`}`));
    this.#monitor.on(({event}) => {
      if (event !== 'RESET') return;
      this.#resets++;
      this.#agent.reset('the machine was reset');
    });
  }

  /**
   * Starts a machine on a fresh copy of the suite's image and waits until its boot is finished, even if units have
   * failed. First waits until the host has a place for it.
   */
  static async boot(options: BootOptions = {}): Promise<Machine> {
    const recipe = recipeOf(options);
    const image = await ensureImage(recipe);
    const folder = await mkdtemp(path.join(tmpdir(), 'pearasys-vm-'));
    const shares = {checkout, ...options.shares};
    for (const name of ['disk0', 'disk1', 'sriov']) {
      await writeFile(path.join(folder, name), '');
      await truncate(path.join(folder, name), 256 * 1024 * 1024);
    }
    const disk = options.disk === undefined ? `file=${image.disk},snapshot=on` : `file=${options.disk}`;
    const command = [
      // The kernel kills QEMU when this process ends, in any way.
      ...['setpriv', '--pdeathsig', 'KILL'],
      'qemu-system-x86_64',
      ...['-nodefaults', '-no-user-config', '-display', 'none', '-vga', 'none'],
      ...['-machine', 'q35,kernel-irqchip=split', '-m', `${options.memory ?? 1536}M`],
      ...(options.countInstructions === true
        ? ['-smp', '1', '-accel', 'tcg,thread=single', '-icount', 'shift=2']
        : [
            ...['-smp', String(PROCESSORS)],
            ...['-accel', process.env['PEARASYS_VM_ACCEL'] ?? 'tcg,thread=multi'],
          ]),
      ...['-device', 'intel-iommu,intremap=on,caching-mode=on'],
      ...[
        '-kernel',
        image.kernel,
        '-initrd',
        options.initrd ?? image.initrd,
        '-append',
        kernelParameters(options),
      ],
      ...['-chardev', `file,id=console,path=${folder}/console.log`, '-serial', 'chardev:console'],
      ...['-qmp', `unix:${folder}/qmp,server=on,wait=off`],
      // With snapshot=on, QEMU stores the changes in an unlinked file, which persists over reboots until QEMU ends.
      ...['-drive', `${disk},format=raw,if=none,id=root,cache=unsafe`],
      ...['-device', 'virtio-blk-pci,drive=root,addr=2'],
      ...['-device', 'virtio-serial-pci,addr=3'],
      ...['-chardev', `socket,id=agent,path=${folder}/agent,server=on,wait=off`],
      ...['-device', 'virtserialport,chardev=agent,name=pearasys.agent'],
      ...Object.entries(shares).flatMap(([name, from], index) => [
        ...['-fsdev', `local,id=share${index},path=${from},security_model=none,readonly=on`],
        ...[
          '-device',
          `virtio-9p-pci,fsdev=share${index},mount_tag=${name},addr=${index === 0 ? '4' : (0x1d + index).toString(16)}`,
        ],
      ]),
      ...deviceArguments(folder),
      ...(options.extraDevices ?? []).flatMap((device) => ['-device', device]),
      ...(options.extraArguments ?? []),
    ];
    const place = await takePlace();
    const log = await open(path.join(folder, 'qemu.log'), 'a');
    const qemu = spawn(command[0]!, command.slice(1), {
      stdio: ['ignore', log.fd, log.fd],
      env: {...process.env, TMPDIR: folder},
    });
    await log.close();
    const machine = new Machine(recipe, folder, qemu, shares, place);
    try {
      await machine.#connect();
      const started = Date.now();
      await machine.#up(BOOT_TIMEOUT);
      machine.bootTime = Date.now() - started;
      return machine;
    } catch (error) {
      await machine.#explain(error, 'boot');
      await machine.close();
      throw error;
    }
  }

  /**
   * Runs a command line in a fresh `sh` in the machine, as root, in /root. A non-zero exit code is a result like any
   * other.
   * @throws CommandError if it has not ended in time. It is then killed; if that is impossible, the machine is still
   *   usable
   */
  async run(command: string, options: RunOptions = {}): Promise<Result> {
    return (await this.start(command, options)).wait(options.timeout);
  }

  /**
   * Runs a command line and returns its output, without the newlines at its end, as `$(…)` does.
   * @throws CommandError if it fails
   */
  async sh(command: string, options: RunOptions = {}): Promise<string> {
    const process = await this.start(command, options);
    const {code, stdout} = await process.wait(options.timeout);
    if (code !== 0) throw process.error(`exit code ${code}`, code);
    return stdout.replace(/\n+$/, '');
  }

  /** Starts a command line and returns it once it runs. {@link GuestProcess.kill} or the end of the machine ends it. */
  async start(command: string, {input}: Pick<RunOptions, 'input'> = {}): Promise<GuestProcess> {
    if (this.#gone !== undefined) throw new Error(this.#gone);
    return this.#agent.start(command, input);
  }

  /** The content of a file of the machine. */
  async readFile(file: string): Promise<Buffer> {
    const process = await this.start(`exec cat -- ${quote(file)}`);
    const {code} = await process.wait();
    if (code !== 0) throw process.error(`exit code ${code}`, code);
    return process.stdoutBytes;
  }

  /** Writes a file of the machine, and creates the folders above it. For sysfs use `sh('printf … > …')` instead. */
  async writeFile(file: string, content: string | Uint8Array, mode = 0o644): Promise<void> {
    const [name, folder] = [quote(file), quote(path.posix.dirname(file))];
    await this.sh(`mkdir -p ${folder} && cat >${name} && chmod ${mode.toString(8)} ${name}`, {
      input: content,
    });
  }

  /**
   * Waits until a shell condition is true. The machine checks it ten times a second.
   * @throws CommandError with the output of the last try
   */
  async waitUntil(condition: string, {timeout = DEFAULT_TIMEOUT}: {timeout?: number} = {}): Promise<void> {
    const seconds = Math.ceil(timeout / 1000);
    const loop = `read -r now _ </proc/uptime
end=$((\${now%.*} + ${seconds}))
until printed=$( { ${condition}
} 2>&1 ); do
  read -r now _ </proc/uptime
  if [ "\${now%.*}" -gt "$end" ]; then printf '%s' "$printed"; exit 124; fi
  sleep 0.1
done`;
    const {code, stdout, stderr} = await this.run(loop, {timeout: timeout + 20_000});
    if (code !== 0) throw new CommandError(`not so within ${seconds} s`, condition, {code, stdout, stderr});
  }

  /** The journal of this boot, or for other arguments of `journalctl`: `journal('-b -1')`, `journal('-u mdev@…')`. */
  async journal(args = '-b'): Promise<string> {
    return this.sh(`journalctl --no-pager -o short-precise ${args}`);
  }

  /** The kernel's log of this boot. */
  async kernelLog(): Promise<string> {
    return this.sh('dmesg');
  }

  /** All console output of the kernel and systemd, of all boots. */
  async consoleLog(): Promise<string> {
    return readFile(path.join(this.#folder, 'console.log'), 'utf8').catch(() => '');
  }

  /** A command of QEMU's machine protocol (QMP): `monitor('query-pci')`. */
  async monitor(command: string, args: Record<string, unknown> = {}): Promise<unknown> {
    return this.#monitor.command(command, args);
  }

  /** A command of QEMU's monitor for people: `monitorText('info pci')`. */
  async monitorText(command: string): Promise<string> {
    return String(await this.monitor('human-monitor-command', {'command-line': command}));
  }

  /**
   * Plugs a device in: `deviceAdd('usb-kbd', {bus: 'usb.0'})`. For a root port use {@link Port.plug}. The kernel
   * detects the device later, so the caller must wait for it.
   * @returns its unique name in QEMU.
   */
  async deviceAdd(driver: string, properties: Readonly<Record<string, unknown>>): Promise<string> {
    const id = `plugged${this.#added++}`;
    // Like the initial devices. The host may also have no ROM for it.
    const rom = /^(e1000|virtio-net)/.test(driver) ? {romfile: ''} : {};
    await this.monitor('device_add', {driver, id, ...rom, ...properties});
    return id;
  }

  /** Requests the removal of a device, like the button of a hot-plug slot, and waits for it. */
  async deviceDel(id: string, {timeout = DEFAULT_TIMEOUT}: {timeout?: number} = {}): Promise<void> {
    const deleted = this.event(
      (event) => event.event === 'DEVICE_DELETED' && event.data['device'] === id,
      timeout,
    );
    await this.monitor('device_del', {id});
    await deleted.catch((error: unknown) => {
      throw new Error(`the machine does not let go of the device ${id}`, {cause: error});
    });
  }

  /** Waits for the next event of QEMU that matches. */
  async event(wanted: (event: MachineEvent) => boolean, timeout = DEFAULT_TIMEOUT): Promise<MachineEvent> {
    return this.#monitor.event(wanted, timeout);
  }

  /**
   * Reboots with `systemctl reboot` and waits for the end of the new boot. The disk and plugged devices persist.
   * @param options.timeout the limit of the shutdown in milliseconds, 120,000 by default: more than the 90 s that
   *   systemd gives a unit to stop
   * @throws Error with the processes still running if the machine does not shut down in that time. It is left unchanged
   *   for inspection; {@link powerCycle} boots it again
   */
  async reboot({timeout = 120_000}: {timeout?: number} = {}): Promise<void> {
    const down = this.#monitor.event(({event}) => event === 'RESET', timeout);
    await this.start('exec systemctl reboot');
    try {
      await down;
    } catch (cause) {
      const state = await this.run(LEFT_OVER, {timeout: 10_000}).then(
        ({stdout}) => stdout,
        (error: unknown) => String(error),
      );
      throw new Error(
        `the machine has not gone down in ${timeout / 1000} s\n${state}\n${await this.#lastWords()}`,
        {
          cause,
        },
      );
    }
    await this.#up(BOOT_TIMEOUT);
  }

  /** A power cut: resets the machine without a shutdown, and waits for the end of the new boot. */
  async powerCycle(): Promise<void> {
    const down = this.#monitor.event(({event}) => event === 'RESET', DEFAULT_TIMEOUT);
    await this.monitor('system_reset');
    await down;
    await this.#up(BOOT_TIMEOUT);
  }

  /** Waits for the end of a boot that the machine itself has started. */
  async booted(): Promise<void> {
    await this.#up(BOOT_TIMEOUT);
  }

  /** Shuts the machine down with `systemctl poweroff`, and closes it. */
  async powerOff(): Promise<void> {
    const gone = new Promise<void>((resolve) => this.#qemu.once('exit', () => resolve()));
    const late = new AbortController();
    await this.start('exec systemctl poweroff');
    await Promise.race([gone, sleep(120_000, undefined, {signal: late.signal}).catch(() => undefined)]);
    late.abort();
    if (this.#qemu.exitCode === null) throw new Error(`the machine is not off\n${await this.#lastWords()}`);
    await this.close();
  }

  /** Ends the machine without a shutdown. Its disk is discarded, unless it was given. */
  async close(): Promise<void> {
    if (!running.delete(this)) return;
    this.#end('the machine is closed');
    if (this.#qemu.exitCode === null && this.#qemu.signalCode === null && this.#qemu.pid !== undefined) {
      const exited = new Promise((resolve) => this.#qemu.once('exit', resolve));
      this.#qemu.kill('SIGKILL');
      await exited;
    }
    await this.#place.close();
    await rm(this.#folder, {recursive: true, force: true});
  }

  /** @internal For the exit of this process, which cannot wait. */
  abandon(): void {
    this.#qemu.kill('SIGKILL');
    rmSync(this.#folder, {recursive: true, force: true});
  }

  /**
   * Writes diagnostics of a failure into a new folder, under `$PEARASYS_VM_LOGS` or the image cache's `logs`: the
   * console, the journal of all boots, devices with drivers and groups, processes and where they wait.
   * @returns the folder
   */
  async dump(title: string): Promise<string> {
    const parent = process.env['PEARASYS_VM_LOGS'] ?? path.join(cacheFolder(), 'logs');
    const name = `${new Date().toISOString().replaceAll(':', '')}-${title.replaceAll(/[^A-Za-z0-9]+/g, '-')}`;
    const folder = path.join(parent, name.slice(0, 120));
    await mkdir(folder, {recursive: true});
    for (const file of ['console.log', 'qemu.log']) {
      await copyFile(path.join(this.#folder, file), path.join(folder, file)).catch(() => undefined);
    }
    for (const [file, command] of Object.entries(REPORTS)) {
      if (!this.#agent.up) break;
      // A stuck machine may execute only some of these commands, so each has its own short limit.
      const text = await this.run(command, {timeout: 20_000}).then(
        ({stdout, stderr}) => stdout + stderr,
        (error: unknown) => String(error),
      );
      await writeFile(path.join(folder, file), text);
    }
    return folder;
  }

  async #connect(): Promise<void> {
    while (!existsSync(path.join(this.#folder, 'qmp'))) {
      if (this.#gone !== undefined) throw new Error(this.#gone);
      await sleep(50);
    }
    await this.#agent.connect(path.join(this.#folder, 'agent'));
    await this.#monitor.connect(path.join(this.#folder, 'qmp'));
  }

  #end(why: string): void {
    if (this.#gone !== undefined) return;
    this.#gone = why;
    this.#agent.close(why);
    this.#monitor.close(why);
  }

  /** Waits for the agent and then for the end of the boot. */
  async #up(timeout: number): Promise<void> {
    const until = Date.now() + timeout;
    const before = (await this.consoleLog()).length;
    let resets = this.#resets;
    while (!this.#agent.up) {
      if (this.#gone !== undefined) throw new Error(this.#gone);
      if (this.#resets > resets) {
        resets = this.#resets;
        await this.#forgiveEarlyPanic((await this.consoleLog()).slice(before));
      }
      if (Date.now() > until) {
        throw new Error(`the machine has not booted in ${timeout / 1000} s\n${await this.#lastWords()}`);
      }
      await sleep(50);
    }
    const mounts = Object.keys(this.#shares).map((name) => {
      const folder = quote(`/mnt/${name}`);
      const options = 'ro,trans=virtio,version=9p2000.L,msize=512000';
      return `mkdir -p ${folder} && mount -t 9p -o ${options} ${quote(name)} ${folder}`;
    });
    // At this time systemd may not listen yet. Failed units are accepted.
    const ready = `until [ -S /run/systemd/private ]; do sleep 0.1; done
systemctl is-system-running --wait >/dev/null
udevadm settle
${mounts.join(' && ')}`;
    await this.sh(ready, {timeout: Math.max(until - Date.now(), 10_000)});
  }

  /**
   * Handles a reset while the machine boots.
   * @param log the console's log since the start of the boot
   * @throws Error if a panic was the reason and the tested system had already started
   */
  async #forgiveEarlyPanic(log: string): Promise<void> {
    const end = log.lastIndexOf('Kernel panic');
    if (end < 0) return;
    const boot = log.slice(0, end).split('Linux version').at(-1) ?? '';
    if (boot.includes('as init process'))
      throw new Error(`the kernel panicked while the machine booted\n${await this.#lastWords()}`);
    process.stderr.write('the kernel panicked before it had started init, and boots again\n');
  }

  async #lastWords(): Promise<string> {
    const log = await this.consoleLog();
    return `--- console, last lines\n${log.split('\n').slice(-40).join('\n')}`;
  }

  async #explain(error: unknown, title: string): Promise<void> {
    const folder = await this.dump(title);
    const log = await readFile(path.join(this.#folder, 'qemu.log'), 'utf8').catch(() => '');
    if (error instanceof Error) error.message += `\n${log.trim()}\nlogs: ${folder}`;
    await appendFile(path.join(folder, 'error.txt'), String(error));
  }
}

/**
 * Reserves one of the host's places for test machines.
 * @returns a file whose lock is the place; closing it, or the end of this process, releases the place
 * @throws Error if no machine ends within 1,000 s
 */
async function takePlace(): Promise<FileHandle> {
  await mkdir(cacheFolder(), {recursive: true});
  const take = async (place: number, signal?: AbortSignal): Promise<FileHandle | undefined> => {
    const file = await open(path.join(cacheFolder(), `machine-${place}.lock`), 'a');
    // flock locks the inherited open file, so this process still holds the lock when flock ends.
    const flock = spawn('flock', [...(signal === undefined ? ['--nonblock'] : []), '3'], {
      stdio: ['ignore', 'ignore', 'inherit', file.fd],
    });
    signal?.addEventListener('abort', () => flock.kill());
    const [code] = (await once(flock, 'exit')) as [number | null];
    if (code === 0) return file;
    await file.close();
    return undefined;
  };
  const places = Array.from({length: PLACES}, (_, place) => place);
  for (const place of places) {
    const taken = await take(place);
    if (taken !== undefined) return taken;
  }
  process.stderr.write('waiting for another test machine to end\n');
  const waiting = new AbortController();
  const limit = setTimeout(() => waiting.abort(), 1_000_000);
  const taken = await Promise.race(
    places.map(async (place) => {
      const file = await take(place, waiting.signal);
      if (waiting.signal.aborted) {
        await file?.close();
        return undefined;
      }
      waiting.abort();
      return file;
    }),
  );
  clearTimeout(limit);
  if (taken === undefined) throw new Error('other test machines run on this host, and do not end');
  return taken;
}

/** The recipe of the image that a machine boots. */
export function recipeOf({suite = chosenSuite(), packages, script}: BootOptions): Recipe {
  return {suite, ...(packages ? {packages} : {}), ...(script === undefined ? {} : {script})};
}

/** For a suite's `before`: skips the suite with the reason if no machine can run. In CI it fails instead. */
export async function skipUnlessAvailable(context: Mocha.Context, recipe?: Recipe): Promise<void> {
  const why = await available(recipe);
  if (why === undefined) return;
  process.stderr.write(`skipped: ${why}\n`);
  context.skip();
}

/** For a suite: after each failed test, writes {@link Machine.dump} and prints the folder. */
export function explainFailures(machine: () => Machine | undefined): void {
  afterEach(async function () {
    if (this.currentTest?.state !== 'failed') return;
    this.timeout(180_000);
    const folder = await machine()?.dump(this.currentTest.fullTitle());
    if (folder !== undefined) process.stderr.write(`the machine's logs: ${folder}\n`);
  });
}

/** Quotes any text as a word for the machine's shell. */
export function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** Lists the remaining jobs and processes, and where processes that cannot be killed wait in the kernel. */
const LEFT_OVER = `systemctl list-jobs --no-pager
ps -eo pid,ppid,stat,wchan:32,args | awk 'NR == 1 || $2 > 2 && $1 > 2 || $3 ~ /D/'
for task in /proc/[0-9]*; do
  grep -q '^State:.D' "$task/status" 2>/dev/null && { echo "--- $task"; cat "$task/stack"; }
done
true`;

const REPORTS = {
  'journal.txt': 'journalctl --no-pager -o short-precise -n 20000',
  'kernel.txt': 'dmesg',
  'devices.txt': `lspci -Dnnk
for device in /sys/bus/pci/devices/*; do
  echo "$device group $(basename "$(readlink "$device/iommu_group")")" \\
    "driver $(basename "$(readlink "$device/driver")")" \\
    "override $(cat "$device/driver_override")"
done`,
  'units.txt':
    'systemctl --no-pager --all list-units; systemctl --no-pager list-jobs; systemctl --no-pager --failed',
  'processes.txt': LEFT_OVER,
} as const;

function kernelParameters({early, kernelParameters = ''}: BootOptions): string {
  return [
    'root=/dev/vda console=ttyS0 intel_iommu=on iommu=pt',
    // Saves time: the machine has no secrets, and the mitigations are slow on the emulated processor.
    'mitigations=off cryptomgr.notests',
    // In one of hundreds of boots, an emulator thread runs an instruction that the kernel is patching, and the kernel
    // panics. It then reboots after 1 s, so that no test waits for a dead machine.
    'panic=1',
    // On a busy host, the timer's interrupts may come too late for the kernel's test of the IO-APIC, and it panics.
    'no_timer_check',
    // Escape sequences for colors would make the console's log hard to read.
    'systemd.log_color=0 SYSTEMD_COLORS=0',
    ...(early ? [`early=${early.join(',')}`] : []),
    kernelParameters,
  ].join(' ');
}
