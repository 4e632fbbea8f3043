import type {ErrorDetails} from '../host/errors.js';
import type {FileOwner, HostReader, ProcessIdentity} from '../host/host.js';
import {draftFolder} from '../host/paths.js';
import {isPrintableLine} from '../host/printable.js';
import {echoLine, shellText, shellWord} from '../host/shell.js';
import {distrustPath, isForeign} from '../config/trust.js';
import {
  calloutArguments,
  type CalloutCall,
  type Callouts,
  type CalloutSubject,
} from '../state/definitions/callout.js';
import type {MdevConfig} from '../state/definitions/definition.js';
import type {PagePool} from '../devices/memory/huge-pages.js';
import {mdevPath} from '../devices/mdev/mdev.js';
import type {ParentName, TypeName} from '../devices/mdev/mdev-name.js';
import {typePath} from '../devices/mdev/parent.js';
import type {Uuid} from '../devices/mdev/uuid.js';
import {devicePath, type Device} from '../devices/pci/device.js';
import {driversFolder, noDriver} from '../devices/pci/driver.js';
import type {Slot} from '../devices/pci/slot.js';

/** Common to all steps. */
interface StepBase {
  /** The device of the step; no step is tried on a stuck device. */
  readonly slot?: Slot;
  /** The mediated device of the step, like {@link slot} for a PCI device. */
  readonly uuid?: Uuid;
  /** Steps in different lanes that follow each other are done at the same time; those of one lane in order. */
  readonly lane?: string;
  /** The steps of its undo, in order; empty if there is nothing to undo. */
  readonly undo: readonly Step[];
}

/** One write(2) of a value to a kernel attribute. */
export interface WriteAttributeStep extends StepBase {
  readonly kind: 'write-attribute';
  readonly path: string;
  readonly value: string;
  /** Errno names that mean that the state is already reached. */
  readonly accept: readonly string[];
  /** Errno names that mean that the kernel is not ready yet: the write is retried within its limit. */
  readonly again?: readonly string[];
  /** Milliseconds that the write may take beyond the limit of a write: the kernel has more work for it. */
  readonly extraTime?: number;
  /** The folder that the attribute must be in after links are followed. */
  readonly within?: string;
  /** What to do next when the kernel does not accept it. */
  readonly hint?: string;
  /** The same for single answers of the kernel, by errno name. */
  readonly hints?: Readonly<Record<string, string>>;
}

/** modprobe(8) of a module, or of a modalias. */
interface ModuleStep extends StepBase {
  readonly kind: 'load-module' | 'unload-module';
  readonly module: string;
  /** Unloads this one only, as rmmod(8) does; modprobe -r also unloads unused modules that it depends on. */
  readonly alone?: boolean;
}

/** A whole file, written atomically. */
interface WriteFileStep extends StepBase {
  readonly kind: 'write-file';
  readonly path: string;
  readonly content: string;
  /** Permission bits. */
  readonly mode: number;
  /** Its owner; default root. */
  readonly owner?: FileOwner | undefined;
  /**
   * Whether the file says how to undo the steps after it: it stays if one of them could not be undone, for the next
   * attempt.
   */
  readonly recalls?: boolean;
}

/** A symbolic link, made atomically. */
interface MakeLinkStep extends StepBase {
  readonly kind: 'make-link';
  readonly path: string;
  /** The link's text. */
  readonly target: string;
}

/** Removes unfinished files of a killed run from a folder, and the folder itself if it is then empty. */
interface TidyFolderStep extends StepBase {
  readonly kind: 'tidy-folder';
  readonly folder: string;
  /** How many empty folders are removed, including this one. */
  readonly prune: number;
}

/** Removes a file, and its folder if that is then empty. */
interface RemoveFileStep extends StepBase {
  readonly kind: 'remove-file';
  readonly path: string;
  /** How many folders above it are removed if they are then empty; default 1. */
  readonly prune?: number;
}

/**
 * Sets owner and mode of a device node that exists, or of a folder where huge pages are mounted. udev's rules do the same
 * for nodes that appear later.
 */
export interface SetOwnerStep extends StepBase {
  readonly kind: 'set-owner';
  readonly path: string;
  readonly owner: FileOwner;
  /** Permission bits. */
  readonly mode: number;
}

/** A request to systemd or udev. */
export interface AskStep extends StepBase {
  readonly kind: 'systemctl' | 'udevadm';
  readonly args: readonly string[];
  /** Exit codes that do not count as a failure. */
  readonly accept: readonly number[];
  /** Where to look for the reason of a failure. */
  readonly hint?: string;
  /** What a failure means. Such a failure is reported as a note with these words, and the plan goes on. */
  readonly otherwise?: string;
}

/** A command that systemd runs later, from a transient timer, see systemd-run(1). A reboot forgets it. */
interface RunLaterStep extends StepBase {
  readonly kind: 'run-later';
  /** The name of the timer and of its service, without an ending. */
  readonly unit: string;
  readonly seconds: number;
  /** The program's path and its arguments. */
  readonly command: readonly string[];
}

/**
 * Rebuilds the images of the initramfs, which takes minutes. If it fails, the plan continues with a note: claims then
 * take effect after the root file system is mounted. It is not undone: another rebuild would take as long, and may fail
 * for the same reason. The undo of the list of claims restores the list, so that the images differ from it, and the next
 * command rebuilds them; until then, the early service returns what the image has reserved without a claim.
 */
export interface RebuildInitramfsStep extends StepBase {
  readonly kind: 'rebuild-initramfs';
  /** The program and its arguments. */
  readonly command: readonly [string, ...string[]];
}

/** Asks processes to end, all at once, and kills those that do not. This cannot be undone. */
export interface EndProcessesStep extends StepBase {
  readonly kind: 'end-processes';
  readonly processes: readonly ProcessIdentity[];
  /** Seconds that they have before they are killed. */
  readonly limit: number;
}

/**
 * Checks that no process has a node of the devices or of the modules open, after some were asked to end. It waits for
 * them, because the last processes of a session end some time after the service that opened it.
 */
export interface ExpectFreeStep extends StepBase {
  readonly kind: 'expect-free';
  readonly slots: readonly Slot[];
  /** Modules that are to be unloaded: a node that all cards of a driver share keeps them loaded. */
  readonly modules?: readonly string[];
  /** Seconds to wait. */
  readonly limit: number;
  /** What else to do about processes that stay. */
  readonly hint?: string | undefined;
}

/** A check of the `driver` link: `drivers_probe` reports success even if nothing was bound. */
interface ExpectDriverStep extends StepBase {
  readonly kind: 'expect-driver';
  readonly slot: Slot;
  /** The driver that must be bound; undefined for none. */
  readonly driver: string | undefined;
  readonly revival?: Revival;
}

/**
 * What is done for a device that its host driver does not take: it is reset by the method that its settings name, and
 * probed again. If the driver still does not take it, it is quarantined.
 */
export interface Revival {
  readonly id: string;
  /** The method. */
  readonly reset: string;
}

/**
 * A check that the kernel has bound a device to its default driver. If another driver got its id (`new_id`,
 * `vfio-pci.ids=`), the kernel may choose that one.
 */
export interface ExpectDefaultStep extends StepBase {
  readonly kind: 'expect-default';
  readonly slot: Slot;
  /** Whether it must have a driver. */
  readonly required: boolean;
  /** The previous driver, which must not have it again. */
  readonly from: string | undefined;
  readonly revival?: Revival;
}

/**
 * A check that a device without a driver works, before the host gets it back. If it does not, it is reset, and if that
 * does not help it is quarantined: it then keeps no driver, instead of what the undo would restore.
 */
export interface ExpectWorkingStep extends StepBase {
  readonly kind: 'expect-working';
  readonly slot: Slot;
  readonly id: string;
  /** The reset that may be tried: a method, or `none`; undefined for all that the kernel offers. */
  readonly reset: string | undefined;
}

/**
 * A check of a device's disks. It comes right before their driver leaves them: somebody may have mounted or written to
 * them since the plan was made.
 */
export interface ExpectDisksStep extends StepBase {
  readonly kind: 'expect-disks';
  readonly slot: Slot;
  /** Whether they must carry no data; they must never be in use. */
  readonly blank: boolean;
  /** The nodes of its disks; there may be more by then. */
  readonly nodes: readonly string[];
}

/**
 * A wait until what a driver provides exists, and udev has handled it. It may appear long after the driver has taken the
 * device. What is missing after the limit is reported as a note, and the plan continues.
 */
export interface ExpectPartsStep extends StepBase {
  readonly kind: 'expect-parts';
  readonly slot: Slot;
  /** The least numbers of disks and of network interfaces. */
  readonly disks: number;
  readonly interfaces: number;
}

/** A check whether the kernel keeps a device locked: a unit's stop may have left a write that does not return. */
interface ExpectUnlockedStep extends StepBase {
  readonly kind: 'expect-unlocked';
  readonly slots: readonly Slot[];
}

/** A check of /sys/bus/pci/drivers: a module may load without registering the driver. */
interface ExpectRegisteredStep extends StepBase {
  readonly kind: 'expect-registered';
  readonly driver: string;
  /** The module that should provide it. */
  readonly module: string;
}

/**
 * A wait until the virtual functions (VFs) of a physical function exist, each on its driver: the udev rule gives it to
 * them as they appear.
 */
export interface ExpectVirtualStep extends StepBase {
  readonly kind: 'expect-virtual';
  readonly slot: Slot;
  /** The VFs; a driver is undefined for any or none. */
  readonly virtual: readonly {readonly slot: Slot; readonly driver: string | undefined}[];
  /** Milliseconds that this may take beyond the limit of a write. */
  readonly extraTime: number;
}

/** A wait until a mediated device exists, or is gone: its folder may appear after the write that creates it. */
interface ExpectMdevStep extends StepBase {
  readonly kind: 'expect-mdev';
  readonly uuid: Uuid;
  readonly present: boolean;
}

/**
 * A check whether a mediated device can be created: its parent offers the type with an available instance, and its
 * UUID is free. It comes after the `pre` scripts, which may have loaded the driver or stopped another device.
 */
interface ExpectCreatableStep extends StepBase {
  readonly kind: 'expect-creatable';
  readonly uuid: Uuid;
  readonly parent: ParentName;
  readonly type: TypeName;
  /** Milliseconds to wait for a parent that is still registering. */
  readonly patience: number;
}

/** How many huge pages a pool must have. */
export interface PoolTarget extends Pick<PagePool, 'node' | 'pageSize' | 'folder'> {
  readonly pages: number;
}

/** A check of numbers of huge pages: the kernel reports success for a number that it could not reach. */
export interface ExpectHugePagesStep extends StepBase {
  readonly kind: 'expect-huge-pages';
  readonly wanted: readonly PoolTarget[];
  /** Whether fewer pages are a note, and the plan goes on. */
  readonly partial: boolean;
}

/**
 * A check that no process uses a mediated device, after the `pre` scripts, which may have ended one. The write to
 * `remove` would block in the kernel.
 */
interface ExpectUnusedStep extends StepBase {
  readonly kind: 'expect-unused';
  readonly uuid: Uuid;
}

/** A call of the scripts for a mediated device, see mdevctl(8), INVOKING EXTERNAL SCRIPTS FOR DEVICE EVENTS. */
export interface CalloutStep extends StepBase {
  readonly kind: 'callout';
  readonly call: CalloutCall;
  /** Tried in order until one accepts the call; for `notify` all are called. */
  readonly scripts: readonly string[];
  /** Whether the script has said that it handles the type: then 2 is a failure like any other exit code. */
  readonly claimed: boolean;
  /** For `pre` and `live`: whether the plan continues if the script fails. */
  readonly force: boolean;
  /** For `pre` and `live`: the call that follows if the script fails and nothing is done. */
  readonly onRefusal?: readonly CalloutStep[];
}

/**
 * The definition of an existing mediated device: its file, with the attributes from the script for its type. The
 * script is asked after `pre`, as by mdevctl.
 */
export interface DefineActiveStep extends StepBase {
  readonly kind: 'define-active';
  readonly uuid: Uuid;
  readonly subject: CalloutSubject;
  readonly path: string;
  readonly config: MdevConfig;
  readonly callouts: Callouts;
}

/** One effect on the machine, or one check of an effect. */
export type Step =
  | WriteAttributeStep
  | ModuleStep
  | WriteFileStep
  | MakeLinkStep
  | TidyFolderStep
  | RemoveFileStep
  | SetOwnerStep
  | AskStep
  | RunLaterStep
  | RebuildInitramfsStep
  | EndProcessesStep
  | ExpectFreeStep
  | ExpectDriverStep
  | ExpectDefaultStep
  | ExpectWorkingStep
  | ExpectDisksStep
  | ExpectPartsStep
  | ExpectRegisteredStep
  | ExpectUnlockedStep
  | ExpectVirtualStep
  | ExpectMdevStep
  | ExpectCreatableStep
  | ExpectHugePagesStep
  | ExpectUnusedStep
  | DefineActiveStep
  | CalloutStep;

/** What a command will do. */
export interface Plan {
  readonly kind: 'plan';
  /** Empty if there is nothing to do. */
  readonly steps: readonly Step[];
  /** Steps after an undo, such as a daemon-reload when all files are restored. */
  readonly afterUndo: readonly Step[];
  /** Notes for the user that stop nothing. */
  readonly notes: readonly string[];
}

/** Why a command will do nothing. */
export interface Refusal {
  readonly kind: 'refusal';
  readonly error: ErrorDetails;
  /** Calls of scripts that report it; not for a dry run. */
  readonly tell?: readonly CalloutStep[];
}

/** The result of a planner. */
export type Planned = Plan | Refusal;

/** A plan with only what it needs to say. */
export function plan(steps: readonly Step[], rest: Partial<Pick<Plan, 'afterUndo' | 'notes'>> = {}): Plan {
  return {kind: 'plan', steps, afterUndo: rest.afterUndo ?? [], notes: rest.notes ?? []};
}

/** A refusal. */
export function refuse(error: ErrorDetails, tell: readonly CalloutStep[] = []): Refusal {
  return tell.length === 0 ? {kind: 'refusal', error} : {kind: 'refusal', error, tell};
}

/** Settings of {@link writeAttribute}. */
interface WriteAttributeOptions extends Pick<
  WriteAttributeStep,
  'slot' | 'uuid' | 'again' | 'extraTime' | 'within' | 'hint' | 'hints'
> {
  readonly undo?: readonly Step[];
  readonly accept?: readonly string[];
}

/** A write to an attribute. */
export function writeAttribute(
  path: string,
  value: string,
  options: WriteAttributeOptions = {},
): WriteAttributeStep {
  return {kind: 'write-attribute', path, value, accept: [], undo: [], ...options};
}

/**
 * Sets the device's override, or clears it when undefined: by a newline, as a zero-length write does nothing on
 * many kernels. Undone by writing the previous one.
 */
export function setOverride(slot: Slot, override: string | undefined, previous: string | undefined): Step {
  const path = devicePath(slot, 'driver_override');
  return writeAttribute(path, override ?? '\n', {
    slot,
    undo: [writeAttribute(path, previous ?? '\n', {slot})],
  });
}

/**
 * Unbinds the device from the driver it has. Undone by binding it to that driver again, under an override: the
 * plain bind takes only a driver that matches, and the device may have an override for another one by then.
 */
export function unbind({slot, driver = '', override}: Pick<Device, 'slot' | 'driver' | 'override'>): Step {
  const path = devicePath(slot, 'driver_override');
  return writeAttribute(`${driversFolder}/${driver}/unbind`, slot, {
    slot,
    undo: [
      writeAttribute(path, driver, {slot}),
      writeAttribute(`${driversFolder}/${driver}/bind`, slot, {slot, accept: ['EBUSY']}),
      writeAttribute(path, override ?? '\n', {slot}),
    ],
  });
}

/**
 * Makes the kernel probe for the device's driver, which is that of the override if there is one. Undone by unbinding
 * it.
 */
export function probe(slot: Slot): Step {
  return writeAttribute('/sys/bus/pci/drivers_probe', slot, {
    slot,
    undo: [writeAttribute(devicePath(slot, 'driver/unbind'), slot, {slot, accept: ['ENOENT', 'ENODEV']})],
  });
}

/** Checks that the device is on the driver; see {@link ExpectDriverStep}. */
export function expectDriver(slot: Slot, driver: string | undefined, revival?: Revival): Step {
  return {kind: 'expect-driver', slot, driver, ...(revival === undefined ? {} : {revival}), undo: []};
}

/** Checks that the device is on its default driver; see {@link ExpectDefaultStep}. */
export function expectDefault(
  slot: Slot,
  required: boolean,
  from: string | undefined,
  revival?: Revival,
): Step {
  const rest = revival === undefined ? {} : {revival};
  return {kind: 'expect-default', slot, required, from, ...rest, undo: []};
}

/**
 * Binds a device without an override to a driver by name, which the kernel does only if the driver matches without
 * it. If the driver rejects the device, it is left for {@link probe}. Undone by unbinding it.
 * @param mayFail whether a driver that fails is left for a check as well.
 */
export function bindTo(slot: Slot, driver: string, mayFail = false): Step {
  return writeAttribute(`${driversFolder}/${driver}/bind`, slot, {
    slot,
    accept: ['EBUSY', 'ENODEV', 'ENXIO', ...(mayFail ? failedProbes : [])],
    undo: [writeAttribute(devicePath(slot, 'driver/unbind'), slot, {slot, accept: ['ENOENT', 'ENODEV']})],
  });
}

/** Checks that the device works without a driver; see {@link ExpectWorkingStep}. */
export function expectWorking({slot, id}: Pick<Device, 'slot' | 'id'>, reset: string | undefined): Step {
  return {kind: 'expect-working', slot, id, reset, undo: []};
}

/** What drivers answer when their device does not work. */
const failedProbes = [
  'EIO',
  'EINVAL',
  'ETIMEDOUT',
  'ETIME',
  'ENOMEM',
  'EREMOTEIO',
  'EPROTO',
  'EAGAIN',
  'EFAULT',
];

/** Loads a module and, with `driver`, checks that it provides the driver. Undone by unloading it. */
export function loadModule(module: string): Step {
  return {kind: 'load-module', module, undo: [{kind: 'unload-module', module, undo: []}]};
}

/** What a file holds before a step changes it. */
export interface FileState {
  readonly content: string;
  /** Permission bits. */
  readonly mode: number;
  /** Default: root's. */
  readonly owner?: FileOwner;
  /** Where it is, when a link leads to it, and the link's text. */
  readonly behind?: {readonly path: string; readonly link: string};
}

/**
 * What a file holds, byte for byte; undefined for what could not be put back as it was, or must not be written to:
 * another user's file, a link to what may not be trusted.
 * @param links whether a link to a file that may be trusted counts as that file.
 */
export function readFileState(host: HostReader, path: string, links = true): FileState | undefined {
  const link = host.readLink(path);
  const real = link === undefined ? path : host.realPath(path);
  if (real === undefined) return undefined;
  if (link !== undefined && (!links || distrustPath(host, real, 'file') !== undefined)) return undefined;
  const info = host.info(real, false);
  if (info?.kind !== 'file' || isForeign(host, info)) return undefined;
  const bytes = host.readBytes(real);
  if (bytes === undefined) return undefined;
  const {mode, uid, gid} = info;
  const state = {content: bytes.toString(), mode, owner: {uid, gid}};
  return link === undefined ? state : {...state, behind: {path: real, link}};
}

/** Settings of {@link writeFile} and {@link removeFile}. */
interface FileOptions {
  /** Permission bits; default those that the file has, or 0o644. */
  readonly mode?: number;
  /** As in {@link RemoveFileStep}, for the removal. */
  readonly prune?: number;
}

/**
 * Writes a file, or what the link there leads to; mode and owner stay. Undone by writing what it held before, or by
 * removing it when it was not there.
 */
export function writeFile(
  path: string,
  content: string,
  previous: FileState | undefined,
  {mode = previous?.mode ?? 0o644, prune = 1}: FileOptions = {},
): WriteFileStep {
  return {
    kind: 'write-file',
    path: previous?.behind?.path ?? path,
    content,
    mode,
    owner: previous?.owner,
    undo: [previous === undefined ? {kind: 'remove-file', path, prune, undo: []} : restore(path, previous)],
  };
}

/** Removes a file, or the link there. Undone by writing what it held, or by making the link again. */
export function removeFile(path: string, previous: FileState, {prune = 1}: FileOptions = {}): RemoveFileStep {
  const {behind} = previous;
  return {
    kind: 'remove-file',
    path,
    prune,
    undo: [
      behind === undefined
        ? restore(path, previous)
        : {kind: 'make-link', path, target: behind.link, undo: []},
    ],
  };
}

function restore(path: string, {content, mode, owner, behind}: FileState): WriteFileStep {
  return {kind: 'write-file', path: behind?.path ?? path, content, mode, owner, undo: []};
}

/** Makes a symbolic link. Undone by making the one that was there, or by removing it and its folder if that is left empty. */
export function makeLink(path: string, target: string, previous?: string): MakeLinkStep {
  const undo: Step =
    previous === undefined
      ? {kind: 'remove-file', path, prune: 1, undo: []}
      : {kind: 'make-link', path, target: previous, undo: []};
  return {kind: 'make-link', path, target, undo: [undo]};
}

/** Removes a symbolic link, and its folder when that is left empty. Undone by making it again. */
export function removeLink(path: string, target: string): RemoveFileStep {
  return {kind: 'remove-file', path, prune: 1, undo: [{kind: 'make-link', path, target, undo: []}]};
}

/** Sets owner and mode of a device node or of mounted huge pages. Undone by setting what they were before. */
export function setOwner(
  path: string,
  {owner, mode}: Pick<SetOwnerStep, 'owner' | 'mode'>,
  previous: Pick<SetOwnerStep, 'owner' | 'mode'>,
): SetOwnerStep {
  const undo: Step = {kind: 'set-owner', path, owner: previous.owner, mode: previous.mode, undo: []};
  return {kind: 'set-owner', path, owner, mode, undo: [undo]};
}

/** Asks systemd. */
export function systemctl(args: readonly string[], undo: readonly Step[] = [], hint?: string): AskStep {
  return {kind: 'systemctl', args, accept: [0], undo, ...(hint === undefined ? {} : {hint})};
}

/** Has systemd run a command later. */
export function runLater(
  unit: string,
  seconds: number,
  command: readonly string[],
  undo: readonly Step[],
): RunLaterStep {
  return {kind: 'run-later', unit, seconds, command, undo};
}

/** The arguments of systemd-run(1) for the step. A service that failed does not keep the name. */
export function laterArguments({unit, seconds, command}: RunLaterStep): string[] {
  return [
    `--unit=${unit}`,
    '--collect',
    `--on-active=${seconds}`,
    '--timer-property=AccuracySec=1s',
    '--',
    ...command,
  ];
}

/** Asks udev. */
export function udevadm(args: readonly string[]): AskStep {
  return {kind: 'udevadm', args, accept: [0], undo: []};
}

/** The step as a shell line that a user could type. */
export function shellLine(step: Step): string {
  switch (step.kind) {
    case 'write-attribute': {
      const value = step.value === '\n' ? '' : step.value;
      const line = `${echoLine(value)} > ${shellWord(step.path)}`;
      return step.accept.length > 0 ? `${line} || true` : line;
    }
    case 'load-module':
      return `modprobe ${shellWord(step.module)}`;
    case 'unload-module':
      return `${step.alone === true ? 'rmmod' : 'modprobe -r'} ${shellWord(step.module)}`;
    case 'write-file':
      // A here-document always ends with a newline.
      return step.content.endsWith('\n') && isHereDocument(step.content)
        ? `cat > ${shellWord(step.path)} <<'EOF'\n${step.content}EOF`
        : `printf %s ${shellText(step.content)} > ${shellWord(step.path)}`;
    case 'make-link':
      return `ln -sfn ${shellWord(step.target)} ${shellWord(step.path)}`;
    case 'tidy-folder': {
      const drafts = `rm -rf ${shellWord(`${step.folder}/${draftFolder}`)}`;
      return step.prune === 0
        ? drafts
        : `${drafts}; rmdir --ignore-fail-on-non-empty ${shellWord(step.folder)}`;
    }
    case 'remove-file':
      return `rm ${shellWord(step.path)}`;
    case 'set-owner': {
      const path = shellWord(step.path);
      const mode = step.mode.toString(8).padStart(4, '0');
      return `chown ${step.owner.uid}:${step.owner.gid} ${path} && chmod ${mode} ${path}`;
    }
    case 'systemctl':
    case 'udevadm':
      return [step.kind, ...step.args.map(shellWord)].join(' ');
    case 'run-later':
      return ['systemd-run', ...laterArguments(step).map(shellWord)].join(' ');
    case 'rebuild-initramfs':
      return step.command.map(shellWord).join(' ');
    case 'end-processes': {
      const pids = step.processes.map(({pid}) => pid);
      const waits = pids.map((pid) => `tail --pid=${pid} -f /dev/null`);
      const wait = waits.length === 1 ? waits.join('') : `sh -c ${shellWord(waits.join('; '))}`;
      return `kill ${pids.join(' ')}; timeout ${step.limit} ${wait} || kill -KILL ${pids.join(' ')}`;
    }
    case 'expect-free':
      return `pearasys show ${step.slots.join(' ')}  # wait until no process has it open`;
    case 'expect-driver':
      return step.driver === undefined
        ? `test ! -e ${devicePath(step.slot, 'driver')}`
        : `test -e ${driversFolder}/${step.driver}/${step.slot}`;
    case 'expect-default':
      return (
        [
          ...(step.required ? [`test -e ${devicePath(step.slot, 'driver')}`] : []),
          ...(step.from === undefined ? [] : [`test ! -e ${driversFolder}/${step.from}/${step.slot}`]),
        ].join(' && ') || `ls -l ${devicePath(step.slot, 'driver')} || true`
      );
    case 'expect-working':
      return `test -n "$(head -c 64 ${devicePath(step.slot, 'config')} | tr -d '\\0\\377')"  # does it respond?`;
    case 'expect-disks':
      if (!step.blank) return `pearasys show ${step.slot}  # its disks must not be in use`;
      return step.nodes.length === 0
        ? `! ls /dev/disk/by-path/pci-${step.slot}-*`
        : step.nodes.map((node) => `! blkid -p -o export ${shellWord(node)}`).join(' && ');
    case 'expect-parts':
      return `udevadm settle  # wait for ${step.disks} disks and ${step.interfaces} interfaces of ${step.slot}`;
    case 'expect-unlocked':
      return `cat ${step.slots.map((slot) => devicePath(slot, 'driver_override')).join(' ')} >/dev/null`;
    case 'expect-virtual':
      return `udevadm settle; ls -d ${step.virtual
        .map(({slot, driver}) =>
          driver === undefined || driver === noDriver
            ? devicePath(slot)
            : `${driversFolder}/${driver}/${slot}`,
        )
        .join(' ')}`;
    case 'expect-registered':
      return `test -d ${driversFolder}/${step.driver}`;
    case 'expect-mdev':
      return `test ${step.present ? '' : '! '}-e ${mdevPath(step.uuid)}`;
    case 'expect-creatable':
      return `test "$(cat ${typePath(step.parent, step.type, 'available_instances')})" -ne 0`;
    case 'expect-huge-pages':
      return step.wanted
        .map(({folder, pages}) => `test "$(cat ${folder}/nr_hugepages)" -ge ${pages}`)
        .join(' && ');
    case 'expect-unused':
      return `pearasys show ${step.uuid}  # no process may have it open`;
    case 'define-active': {
      const {subject, callouts, path} = step;
      const call = {subject, event: 'get', action: 'attributes', state: 'none', input: undefined} as const;
      return `${calloutLine({call, scripts: callouts.scripts})}  # the attributes of ${path}`;
    }
    case 'callout':
      return calloutLine(step);
  }
}

/** Whether the lines can stand in a here-document, as they are and as a terminal gets them. */
function isHereDocument(content: string): boolean {
  return content.split('\n').every((line) => line !== 'EOF' && isPrintableLine(line.replaceAll('\t', '')));
}

function calloutLine({call, scripts}: Pick<CalloutStep, 'call' | 'scripts'>): string {
  const input = `${echoLine(call.input ?? '')} |`;
  const args = calloutArguments(call).map(shellWord).join(' ');
  if (scripts.length === 1) return `${input} ${scripts.map(shellWord).join('')} ${args}`;
  // 2 is the answer of a script for other types.
  const end = call.event === 'notify' ? '' : '; [ $? = 2 ] || break';
  return `for script in ${scripts.map(shellWord).join(' ')}; do ${input} "$script" ${args}${end}; done`;
}
