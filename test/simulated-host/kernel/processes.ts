import type {ProcessDeclaration} from '../declaration.js';
import type {SimulatedMachine} from './machine.js';
import type {LiveFunction} from './pci.js';

export interface Process extends ProcessDeclaration {
  readonly descriptors: string[];
}

/** Input nodes nobody has to close, and a sound server closes a card's control node when the card goes. */
export function keepsOpen(node: string): (process: Process) => boolean {
  const isControl = /^\/dev\/snd\/controlC\d+$/.test(node);
  const isInput = node.startsWith('/dev/input/');
  return ({comm}) => !isInput && !(isControl && /^(?:pipewire|wireplumber|pulseaudio)/.test(comm));
}

/** The processes, what they have open, and /proc/<pid>. */
export class Processes {
  readonly #machine: SimulatedMachine;
  readonly #processes = new Map<number, Process>();
  /** When the next process is started, in clock ticks since the boot. */
  #ticks = 100;

  constructor(machine: SimulatedMachine) {
    this.#machine = machine;
  }

  addProcess(declaration: ProcessDeclaration): void {
    const process: Process = {...declaration, descriptors: [...(declaration.holds ?? [])]};
    this.#processes.set(process.pid, process);
    const folder = `/proc/${process.pid}`;
    const command = process.cmdline ?? [process.comm];
    const uid = process.uid ?? 0;
    this.#machine.tree.file(`${folder}/comm`, `${process.comm}\n`, 0o644);
    this.#machine.tree.file(`${folder}/cmdline`, command.map((word) => `${word}\0`).join(''));
    this.#machine.tree.file(`${folder}/cgroup`, `0::${process.cgroup ?? '/'}\n`);
    this.#machine.tree.file(
      `${folder}/status`,
      `Name:\t${process.comm}\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t${process.pid}\nPid:\t${process.pid}\n` +
        `PPid:\t${process.parent ?? 1}\nUid:\t${Array(4).fill(uid).join('\t')}\nGid:\t${Array(4).fill(uid).join('\t')}\n` +
        `HugetlbPages:\t${String(process.hugePages ?? 0).padStart(8)} kB\n`,
    );
    this.#machine.tree.file(
      `${folder}/stat`,
      `${process.pid} (${process.comm}) S ${process.parent ?? 1} 0 0 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 ${this.#ticks++}\n`,
    );
    this.#machine.tree.file(
      `${folder}/maps`,
      ['/usr/lib/x86_64-linux-gnu/libc.so.6', ...(process.maps ?? [])]
        .map(
          (path, index) =>
            `7f00000${index}0000-7f00000${index}1000 rw-s 00000000 00:05 ${700 + index}                        ${path}\n`,
        )
        .join(''),
    );
    this.#renderDescriptors(process);
  }

  /** Lets a process open something: `/dev/dri/card1`, or `anon_inode:[vfio-device]`. */
  openFile(pid: number, path: string): void {
    const process = this.#process(pid);
    process.descriptors.push(path);
    this.#renderDescriptors(process);
  }

  closeFile(pid: number, path: string): void {
    const process = this.#process(pid);
    const at = process.descriptors.indexOf(path);
    if (at === -1) throw new Error(`process ${pid} does not hold ${path}`);
    process.descriptors.splice(at, 1);
    this.#renderDescriptors(process);
    this.#machine.stuck.wake();
  }

  /** A signal that was sent to a process, see signal(7): it ends, unless its declaration says otherwise. */
  signal(pid: number, signal: 'SIGTERM' | 'SIGKILL'): void {
    const process = this.#process(pid);
    if (process.ignores?.includes(signal) === true) return;
    const {takes = 0} = process;
    if (signal === 'SIGKILL' || takes === 0) this.endProcess(pid);
    else this.#machine.after(takes, () => this.#processes.get(pid) === process && this.endProcess(pid));
  }

  /** Ends a process; a write that waited for it returns. */
  endProcess(pid: number): void {
    this.#process(pid);
    this.#processes.delete(pid);
    this.#machine.tree.remove(`/proc/${pid}`);
    this.#machine.stuck.wake();
  }

  /** The processes that end with a unit: those in its control group, and what they started. */
  processesOf(unit: string): ProcessDeclaration[] {
    const found = new Map<number, Process>();
    for (let before = -1; before !== found.size;) {
      before = found.size;
      for (const process of this.#processes.values())
        if (process.cgroup?.includes(`/${unit}`) === true || found.has(process.parent ?? 0))
          found.set(process.pid, process);
    }
    return [...found.values()].map((process) => ({...process, holds: [...(process.holds ?? [])]}));
  }

  /** The processes whose control group is below one of these. */
  processesIn(groups: readonly string[]): ProcessDeclaration[] {
    return [...this.#processes.values()]
      .filter(({cgroup = ''}) => groups.some((group) => cgroup.startsWith(group)))
      .map((process) => ({...process, holds: [...(process.holds ?? [])]}));
  }

  /** The user ID of a process. */
  ownerOf(pid: number): number {
    return this.#process(pid).uid ?? 0;
  }

  /** Who has a node of this device open, as `pid (command)`. For vfio: its group and a device of it. */
  openers(device: LiveFunction): string[] {
    const nodes = device.parts.flatMap((part) => (part.node === undefined ? [] : [part.node.path]));
    if (
      device.driver !== undefined &&
      this.#machine.drivers.named(device.driver).gives?.includes('vfio') === true
    )
      return this.holders(`/dev/vfio/${this.#machine.classDevices.vfioGroup(device)}`)
        .filter((process) => process.descriptors.includes('anon_inode:[vfio-device]'))
        .map(describe);
    return nodes.flatMap((node) => this.holders(node).filter(keepsOpen(node))).map(describe);
  }

  holders(node: string): Process[] {
    return [...this.#processes.values()].filter((process) => process.descriptors.includes(node));
  }

  #process(pid: number): Process {
    const process = this.#processes.get(pid);
    if (process === undefined) throw new Error(`there is no process ${pid} in the simulated machine`);
    return process;
  }

  #renderDescriptors(process: Process): void {
    const folder = `/proc/${process.pid}`;
    for (const name of ['fd', 'fdinfo']) {
      this.#machine.tree.remove(`${folder}/${name}`);
      this.#machine.tree.directory(`${folder}/${name}`);
    }
    ['/dev/null', '/dev/null', '/dev/null', ...process.descriptors].forEach((path, index) => {
      this.#machine.tree.textLink(`${folder}/fd/${index}`, path);
      const mount = this.#machine.hostUse.mountOf(path);
      this.#machine.tree.file(
        `${folder}/fdinfo/${index}`,
        `pos:\t0\nflags:\t0100002\nmnt_id:\t${mount}\nino:\t321\n`,
      );
    });
  }

  /** Paths that processes have open, those that are gone included. */
  get descriptors(): string[] {
    return [...this.#processes.values()].flatMap((process) => process.descriptors);
  }

  /** A node goes while processes have it open. */
  loseNode(path: string): void {
    for (const process of this.holders(path)) {
      process.descriptors.splice(process.descriptors.indexOf(path), 1, `${path} (deleted)`);
      this.#renderDescriptors(process);
    }
  }
}

export function describe(process: ProcessDeclaration): string {
  return `${process.pid} (${process.comm})`;
}
