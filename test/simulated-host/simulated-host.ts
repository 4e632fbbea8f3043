import {spawnSync} from 'node:child_process';
import {randomUUID} from 'node:crypto';
import fs from 'node:fs';
import {posix} from 'node:path';
import {setTimeout as wait} from 'node:timers/promises';
import {
  CommandError,
  errnoOf,
  ExitCode,
  FileError,
  interrupted,
  PearasysError,
  StuckError,
  WriteError,
} from '../../src/host/errors.js';
import type {
  CommandResult,
  FileInfo,
  FileOwner,
  Host,
  HostReader,
  Lock,
  ProcessIdentity,
  RunOptions,
  WriteFileOptions,
} from '../../src/host/host.js';
import {draftFolder, unfinishedPath} from '../../src/host/paths.js';
import {startOf} from '../../src/host/process.js';
import {MachineHost} from '../../src/host/machine-host.js';
import {sweepDrafts} from '../../src/host/whole-file.js';
import type {MachineDeclaration} from './declaration.js';
import {effectText, type Effect} from './journal.js';
import {Errno, NeverReturns} from './errno.js';
import {SimulatedMachine} from './kernel/machine.js';
import type {MemoryFiles} from './memory-files.js';
import {runProgram} from './programs/run.js';
import {patternToExpression} from './kernel/render.js';
import {standardMachine} from './standard-machine.js';
import {Userland} from './userland.js';

/** A path as a shell pattern (`*` matches slashes too) or an expression; matched against the path given and the one without links. */
export type PathPattern = string | RegExp;

/** Called before or after an effect. It may change the machine: pull the card, bind it elsewhere, throw. */
export type EffectHook = (effect: Effect) => void | Promise<void>;

/** What a host no longer reads of a device that was found locked. */
const lockTaking = ['driver_override', 'uevent'];

/** What a process that has been killed asks for. */
export class Killed extends Error {}

interface Fault {
  readonly matches: (text: string) => boolean;
  readonly errno: string;
  left: number;
}

/**
 * One process's view of a simulated machine: what the product gets as its `Host`. Several may share a machine.
 * Every effect is in {@link journal}; the `fail…`, `refuse…` and `never…` methods script what goes wrong.
 */
export class SimulatedHost implements Host {
  readonly machine: SimulatedMachine;
  /** systemd and udev of this machine. */
  readonly userland: Userland;
  /**
   * What the product takes this for: `/` is the running machine. Set it to the machine's folder to be taken for an
   * image. Paths are looked up in the folder in either case.
   */
  root = '/';
  /** As who the product runs; 0 is root. */
  userId = 0;
  /** Every effect that was asked for, with the kernel's answer. */
  readonly journal: Effect[] = [];
  /** Whether a read of an attribute that needs a stuck device's lock fails the test: on a machine it would hang. */
  hangingReads = true;
  /** The longest {@link lock} really waits, whatever its limit: tests have no time. */
  lockPatience = 1000;
  readonly #files: MachineHost;
  /** Devices that {@link findLocked} has found. */
  readonly #locked = new Set<string>();
  readonly #writeFaults: Fault[] = [];
  readonly #fileFaults: Fault[] = [];
  readonly #readFaults: Fault[] = [];
  readonly #commandFaults: (Fault & {stderr: string})[] = [];
  readonly #stuckFaults: {matches: (text: string) => boolean; returns: (() => void)[]}[] = [];
  readonly #before: EffectHook[] = [];
  #kill: {readonly effect: number; readonly within: boolean} | undefined;
  #dead = false;
  /** How many effects there were, that under way included. */
  #effects = 0;
  /** Releases the locks that are held. */
  readonly #held: (() => void)[] = [];
  readonly #after: EffectHook[] = [];

  constructor(machine: SimulatedMachine = new SimulatedMachine()) {
    this.machine = machine;
    this.userland = Userland.of(machine);
    this.#files = new MachineHost(machine.tree.root);
  }

  /** A host on a new standard machine, changed by `tweak`. */
  static standard(tweak?: (declaration: MachineDeclaration) => void): SimulatedHost {
    const declaration = standardMachine();
    tweak?.(declaration);
    return new SimulatedHost(new SimulatedMachine(declaration));
  }

  /** The journal as lines that a person could type. */
  effects(): string[] {
    return this.journal.map(effectText);
  }

  /** Removes the machine's folder. */
  dispose(): void {
    this.machine.dispose();
  }

  // ---------------------------------------------------------------- scripting what goes wrong

  /** Writes to this path are answered with an errno, the next `times` times, and have no effect. */
  failWrite(path: PathPattern, errno: string, times = Infinity): void {
    this.#writeFaults.push({matches: matcher(path), errno, left: times});
  }

  /** Reading this file fails with an errno, the next `times` times: an attribute of a device that has died, for one. */
  failRead(path: PathPattern, errno: string, times = Infinity): void {
    this.#readFaults.push({matches: matcher(path), errno, left: times});
  }

  /** Writing or removing this file fails, and changes nothing. */
  failFile(path: PathPattern, errno: string, times = Infinity): void {
    this.#fileFaults.push({matches: matcher(path), errno, left: times});
  }

  /** A command line (`modprobe vfio-pci`, `systemctl *`) ends with this exit code and text. */
  failCommand(commandLine: PathPattern, status: number, stderr = '', times = Infinity): void {
    this.#commandFaults.push({matches: matcher(commandLine), errno: String(status), left: times, stderr});
  }

  /** See {@link SimulatedMachine.refuseProbe}. */
  refuseProbe(slot: string, driver: string, errno?: string, times?: number): void {
    this.machine.refuseProbe(slot, driver, errno, times);
  }

  /**
   * Writes to this path do not return: the caller gets a StuckError at once, the machine's time goes on by its
   * limit, and the device's lock stays held.
   * @returns lets them return, and the kernel do what was asked.
   */
  neverReturn(path: PathPattern): () => void {
    const fault = {matches: matcher(path), returns: [] as (() => void)[]};
    this.#stuckFaults.push(fault);
    return () => {
      this.#stuckFaults.splice(this.#stuckFaults.indexOf(fault), 1);
      for (const each of fault.returns) each();
    };
  }

  /** Calls this before each effect. What it throws reaches the caller, and the effect does not happen. */
  beforeEffect(hook: EffectHook): void {
    this.#before.push(hook);
  }

  /** Calls this after each effect, whatever its answer. */
  afterEffect(hook: EffectHook): void {
    this.#after.push(hook);
  }

  /**
   * Kills the process that this host is: nothing that it asks for after that has an effect, its locks are free.
   * @param effect which one of its effects, counted from 1, is the last.
   * @param within whether it is killed in the middle of it: a file that is being made, folders still to be pruned.
   */
  killAt(effect: number, within = false): void {
    this.#kill = {effect, within};
    if (effect === 0) this.#dead = true;
  }

  /** Whether {@link killAt} has come to pass. */
  get dead(): boolean {
    return this.#dead;
  }

  #live(): void {
    if (this.#dead) throw new Killed();
  }

  #killedWithin(): boolean {
    return this.#kill?.within === true && this.#kill.effect === this.#effects;
  }

  #die(): never {
    this.#dead = true;
    for (const release of this.#held.splice(0)) release();
    throw new Killed();
  }

  // ---------------------------------------------------------------- reading

  readText(path: string): string | undefined {
    const real = this.machine.tree.resolve(path);
    if (real === undefined || this.#private(real)) return undefined;
    if (this.isLocked(real)) return undefined;
    const fault = this.#next(this.#readFaults, path);
    if (fault !== undefined) throw new FileError('reading', path, fault.errno);
    const locking = this.machine.stuck.takesLock(real);
    if (this.hangingReads && locking !== undefined && this.machine.stuck.isStuck(locking))
      throw new Error(`reading ${path} would never return: a write to that device is stuck in the kernel`);
    const stat = this.machine.tree.stat(real);
    // sysfs checks the permission bits for root too: `remove`, `bind` and their like cannot be read.
    if (stat?.isFile() === true && (stat.mode & 0o444) === 0) throw new FileError('reading', path, 'EACCES');
    return this.#reader(real).readText(real);
  }

  readBytes(path: string, limit?: number): Buffer | undefined {
    const real = this.machine.tree.resolve(path);
    return real === undefined || this.#private(real) ? undefined : this.#reader(real).readBytes(real, limit);
  }

  isLocked(path: string): boolean {
    const real = this.machine.tree.resolve(path) ?? path;
    return [...this.#locked].some((slot) => lockTaking.some((name) => real.endsWith(`/${slot}/${name}`)));
  }

  readStart(path: string, bytes: number, offset?: number): Buffer | undefined {
    const real = this.machine.tree.resolve(path);
    if (real === undefined || this.#private(real)) return undefined;
    // Other users may read the header only.
    const isConfig = this.userId !== 0 && /^\/sys\/devices\/.*\/config$/.test(real);
    const limit = isConfig ? Math.max(0, 64 - (offset ?? 0)) : bytes;
    return this.#reader(real).readStart(real, Math.min(bytes, limit), offset);
  }

  readLink(path: string): string | undefined {
    const real = this.machine.tree.resolve(path, false);
    return real === undefined || this.#private(real) ? undefined : this.#reader(real).readLink(real);
  }

  realPath(path: string): string | undefined {
    return this.machine.tree.resolve(path);
  }

  list(path: string): string[] {
    const real = this.machine.tree.resolve(path);
    return real === undefined || this.#private(real) ? [] : this.#reader(real).list(real);
  }

  exists(path: string): boolean {
    return this.machine.tree.resolve(path) !== undefined;
  }

  info(path: string, follow = true): FileInfo | undefined {
    const real = this.machine.tree.resolve(path, follow);
    const info = real === undefined ? undefined : this.#reader(real).info(real, false);
    if (info === undefined || real === undefined) return undefined;
    const node = this.machine.tree.nodes.get(real);
    return {
      ...info,
      uid: this.machine.owners.get(real) ?? 0,
      gid: this.machine.groups.get(real) ?? 0,
      ...(node === undefined
        ? {}
        : {kind: 'device' as const, mode: node.mode, deviceNumber: node.number, size: 0}),
      ...this.machine.hostUse.pageFolders.get(real),
    };
  }

  addresses(): ReadonlyMap<string, readonly string[]> {
    return new Map(this.machine.addresses());
  }

  isClaimedByKernel(node: string): boolean {
    const real = this.machine.tree.resolve(node);
    if (this.userId !== 0 || real === undefined || this.machine.tree.nodes.get(real)?.type !== 'block')
      return false;
    return this.machine.hostUse.isClaimed(real);
  }

  /** As on a machine: a device that keeps its lock for more than the limit is as if it were not there. */
  findLocked(limit: number): Promise<void> {
    for (const slot of this.machine.functions.keys()) {
      if (!this.machine.stuck.isStuck(slot) || this.#locked.has(slot)) continue;
      this.machine.elapsed += limit;
      this.#locked.add(slot);
    }
    return Promise.resolve();
  }

  // ---------------------------------------------------------------- effects

  async writeAttribute(path: string, value: string, limit: number): Promise<void> {
    const effect: Effect = {kind: 'write', path, value, answer: ''};
    await this.#perform(effect, () => {
      const fault = this.#next(this.#writeFaults, path);
      if (fault !== undefined) {
        effect.answer = fault.errno;
        throw new WriteError(path, value, new Errno(fault.errno).errno);
      }
      try {
        const stuck = this.#stuckFaults.find(({matches}) => this.#matchesPath(matches, path));
        if (stuck !== undefined) this.#hold(stuck.returns, path, value);
        this.machine.write(path, value, this.userId);
      } catch (error) {
        if (error instanceof Errno) {
          effect.answer = error.errno;
          throw new WriteError(path, value, error.errno);
        }
        if (error instanceof NeverReturns) {
          effect.answer = 'never returns';
          this.machine.elapsed += limit;
          throw new StuckError(path, value, limit);
        }
        throw error;
      }
    });
  }

  async writeFile(path: string, content: string, options: WriteFileOptions = {}): Promise<void> {
    const effect: Effect = {kind: 'file', path, content, mode: options.mode ?? 0o644, answer: ''};
    await this.#perform(effect, () => {
      this.#mayChange(effect, 'writing');
      this.#replace(path, content, effect.mode, options.owner);
    });
  }

  async makeLink(path: string, target: string): Promise<void> {
    const effect: Effect = {kind: 'link', path, target, answer: ''};
    await this.#perform(effect, () => {
      this.#mayChange(effect, 'writing');
      const place = this.#place(path);
      if (this.#killedWithin()) this.#leaveDraft(place, '');
      this.machine.tree.directory(posix.dirname(place));
      this.machine.tree.remove(place);
      this.machine.tree.textLink(place, target);
    });
  }

  async removeFile(path: string, options: {readonly prune?: number} = {}): Promise<void> {
    const effect: Effect = {kind: 'remove', path, answer: ''};
    await this.#perform(effect, async () => {
      this.#mayChange(effect, 'removing');
      const place = this.#place(path);
      this.machine.owners.delete(place);
      this.machine.groups.delete(place);
      const killed = this.#killedWithin();
      await this.#files.removeFile(place, killed ? {} : options);
      if (killed) this.#die();
    });
  }

  async setOwner(path: string, {uid, gid}: FileOwner, mode: number): Promise<boolean> {
    const effect: Effect = {kind: 'owner', path, owner: `${uid}:${gid}`, mode, answer: ''};
    return await this.#perform(effect, () => {
      const {pageFolders} = this.machine.hostUse;
      if (pageFolders.has(path)) {
        pageFolders.set(path, {uid, gid, mode});
        return true;
      }
      if (!this.machine.tree.nodes.has(path)) return false;
      this.machine.setNodeOwner(path, {uid, gid, mode});
      return true;
    });
  }

  async tidyFolder(folder: string, options: {readonly prune?: number} = {}): Promise<void> {
    this.#live();
    const real = this.machine.tree.resolve(folder);
    if (real !== undefined) await this.#files.tidyFolder(real, options);
  }

  /** Tests have no power cut. */
  syncFiles(): Promise<void> {
    this.#live();
    return Promise.resolve();
  }

  noteUnfinished(name: string, text: string | undefined): void {
    this.#live();
    const path = this.machine.tree.onDisk(unfinishedPath(name));
    if (text === undefined) {
      fs.rmSync(path, {force: true});
      this.machine.tree.removeEmpty(posix.dirname(unfinishedPath(name)));
      return;
    }
    fs.mkdirSync(posix.dirname(path), {recursive: true});
    fs.writeFileSync(path, text);
  }

  ask(file: string, args: readonly string[], options: RunOptions = {}): Promise<CommandResult> {
    return this.run(file, args, options);
  }

  async run(file: string, args: readonly string[], options: RunOptions = {}): Promise<CommandResult> {
    const effect: Effect = {kind: 'run', file, args: [...args], answer: ''};
    return await this.#perform(effect, async () => {
      const commandLine = [file, ...args].join(' ');
      const fault = this.#commandFaults.find((each) => each.left > 0 && each.matches(commandLine));
      if (fault !== undefined) fault.left--;
      const result =
        fault === undefined
          ? (this.#runScript(file, args, options) ??
            (await runProgram(this.machine, this.userId, file, args)))
          : {status: Number(fault.errno), stdout: '', stderr: fault.stderr};
      if (result === undefined) {
        effect.answer = 'ENOENT';
        throw new CommandError(file, args, undefined, `spawn ${file} ENOENT`);
      }
      if (options.accept === 'any' || (options.accept ?? [0]).includes(result.status)) return result;
      effect.answer = `exit code ${result.status}`;
      throw new CommandError(file, args, result.status, result.stderr);
    });
  }

  signal(process: ProcessIdentity, signal: 'SIGTERM' | 'SIGKILL'): boolean {
    this.#live();
    if (startOf(this, process.pid) !== process.started) return false;
    this.journal.push({kind: 'signal', pid: process.pid, signal, answer: ''});
    this.machine.signal(process.pid, signal);
    return true;
  }

  pause(milliseconds: number): Promise<void> {
    this.#live();
    this.machine.pass(milliseconds);
    this.userland.handleEvents();
    return Promise.resolve();
  }

  async lock(name: string, limit: number, signal?: AbortSignal): Promise<Lock> {
    this.#live();
    const {locks} = this.machine;
    const patience = new AbortController();
    const late = wait(Math.min(limit, this.lockPatience), 'late' as const, {signal: patience.signal}).catch(
      () => 'late' as const,
    );
    for (let held = locks.get(name); held !== undefined; held = locks.get(name)) {
      const aborted = new Promise<'aborted'>((resolve) =>
        signal?.addEventListener('abort', () => resolve('aborted'), {once: true}),
      );
      const answer = await Promise.race([held, late, aborted]);
      if (signal?.aborted === true) throw interrupted(['nothing was changed']);
      if (answer !== 'late') continue;
      this.machine.elapsed += limit;
      throw new PearasysError({
        code: 'busy',
        exitCode: ExitCode.refused,
        message: `could not lock ${name}: another pearasys command is running (waited ${limit / 1000} s)`,
        details: ['nothing was changed'],
        hint: 'wait for it to end, then run the same command again',
      });
    }
    patience.abort();
    let open: () => void = () => undefined;
    const promise = new Promise<void>((resolve) => (open = resolve));
    locks.set(name, promise);
    const release = () => {
      if (locks.get(name) === promise) locks.delete(name);
      open();
    };
    this.#held.push(release);
    return {
      release: () => {
        release();
        return Promise.resolve();
      },
    };
  }

  async close(): Promise<void> {
    await this.#files.close();
  }

  // ---------------------------------------------------------------- inside

  async #perform<Result>(effect: Effect, action: () => Result | Promise<Result>): Promise<Result> {
    this.#live();
    this.#effects++;
    for (const hook of this.#before) await hook(effect);
    this.journal.push(effect);
    try {
      return await action();
    } catch (error) {
      if (effect.answer === '' && error instanceof FileError) effect.answer = error.errno;
      throw error;
    } finally {
      this.userland.handleEvents();
      for (const hook of this.#after) await hook(effect);
      // In the place of what it was answered: nobody is there to be told.
      if (this.#kill?.effect === this.#effects) this.#die();
    }
  }

  /**
   * Runs a shell script of the machine's own, really: what it does is not simulated. Undefined for any other file.
   * Its folder is its working directory.
   */
  #runScript(file: string, args: readonly string[], options: RunOptions): CommandResult | undefined {
    const real = file.startsWith('/') ? this.machine.tree.resolve(file) : undefined;
    if (real === undefined || this.machine.tree.read(real)?.startsWith('#!/bin/sh\n') !== true)
      return undefined;
    const path = this.machine.tree.onDisk(real);
    const {status, stdout, stderr, error} = spawnSync('sh', [path, ...args], {
      cwd: posix.dirname(path),
      encoding: 'utf8',
      input: options.input ?? '',
      timeout: options.limit,
      killSignal: 'SIGKILL',
    });
    if (status === null)
      throw new CommandError(
        file,
        args,
        undefined,
        stderr,
        errnoOf(error) === 'ETIMEDOUT' ? 'late' : undefined,
      );
    return {status, stdout, stderr};
  }

  /** A scripted write that does not return holds the device's lock until it is let go, and is carried out then. */
  #hold(returns: (() => void)[], path: string, value: string): never {
    const real = this.machine.tree.resolve(path) ?? path;
    const slots = `${real} ${value}`.match(/[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]/g) ?? [];
    const slot = slots.at(-1);
    if (slot !== undefined) {
      const operation = posix.basename(real);
      returns.push(
        this.machine.holdLock(slot, () => this.machine.write(path, value, this.userId), operation),
      );
    }
    throw new NeverReturns(slot, 'scripted');
  }

  #mayChange(effect: Effect & {readonly path: string}, action: string): void {
    const fault = this.#next(this.#fileFaults, effect.path);
    // Of all files a user's own are those at home.
    const allowed = this.userId === 0 || effect.path.startsWith('/home/');
    const errno = fault?.errno ?? (allowed ? undefined : 'EACCES');
    if (errno === undefined) return;
    effect.answer = errno;
    throw new FileError(action, effect.path, errno);
  }

  #next(faults: readonly Fault[], path: string): Fault | undefined {
    const found = faults.find((fault) => fault.left > 0 && this.#matchesPath(fault.matches, path));
    if (found !== undefined) found.left--;
    return found;
  }

  #matchesPath(matches: (text: string) => boolean, path: string): boolean {
    return matches(path) || matches(this.machine.tree.resolve(path) ?? path);
  }

  /** A new file beside it, renamed over it, as the machine's host does; not synced, which makes up most of its time. */
  #replace(path: string, content: string, mode: number, owner: FileOwner | undefined): void {
    const place = this.#target(path);
    const target = this.machine.tree.onDisk(place);
    if (this.#killedWithin()) this.#leaveDraft(place, content.slice(0, content.length / 2));
    const beside = `${target}.${randomUUID()}`;
    try {
      fs.mkdirSync(posix.dirname(target), {recursive: true, mode: 0o755});
      fs.writeFileSync(beside, content);
      fs.chmodSync(beside, mode);
      fs.renameSync(beside, target);
    } catch (error) {
      fs.rmSync(beside, {force: true});
      throw new FileError('writing', path, errnoOf(error), error);
    }
    sweepDrafts(posix.dirname(target));
    const {uid, gid} = owner ?? {uid: this.userId, gid: 0};
    this.machine.owners.set(place, uid);
    this.machine.groups.set(place, gid);
  }

  /** Where an entry of a folder is: a link in the last place is not followed. */
  #place(path: string): string {
    return posix.join(this.#target(posix.dirname(path)), posix.basename(path));
  }

  /** What a run leaves that is killed while it makes a file: folders, and a draft of a process that has ended. */
  #leaveDraft(place: string, content: string): never {
    this.machine.tree.file(`${posix.dirname(place)}/${draftFolder}/1.0.killed`, content, 0o600);
    this.#die();
  }

  /** Where a file is really written: links are followed within the machine. */
  #target(path: string): string {
    const real = this.machine.tree.resolve(path);
    if (real !== undefined) return real;
    for (let folder = posix.dirname(path); ; folder = posix.dirname(folder)) {
      const found = this.machine.tree.resolve(folder);
      if (found !== undefined) return posix.join(found, path.slice(folder.length));
    }
  }

  /** Who reads a path that has no links. */
  #reader(real: string): HostReader | MemoryFiles {
    return this.machine.tree.memory(real) ?? this.#files;
  }

  /** What the kernel shows of a process only to its owner and to root. */
  #private(real: string): boolean {
    const pid = /^\/proc\/(\d+)\/(?:fd|maps)(?:\/|$)/.exec(real)?.[1];
    return (
      pid !== undefined && this.userId !== 0 && this.machine.processes.ownerOf(Number(pid)) !== this.userId
    );
  }
}

function matcher(pattern: PathPattern): (text: string) => boolean {
  const expression = typeof pattern === 'string' ? patternToExpression(pattern) : pattern;
  return (text) => expression.test(text);
}
