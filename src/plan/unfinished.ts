import {basename, dirname} from 'node:path';
import type {HostReader} from '../host/host.js';
import {unfinishedPath} from '../host/paths.js';
import {devicePath} from '../devices/pci/device.js';
import {asSlot, type Slot} from '../devices/pci/slot.js';
import {plan, systemctl, udevadm, type Plan, type Step} from './step.js';

/** What a run says about itself before its first effect, for the next one should it be killed. */
export interface Unfinished {
  /** Folders in which it makes and removes files, and how many of them go, the first included, when left empty. */
  readonly folders: readonly {readonly folder: string; readonly prune: number}[];
  /** UUIDs of the mediated devices that it makes: one that is there may not have its attributes yet. */
  readonly made: readonly string[];
  /** Whether it has systemd read its files again: after a kill nothing tells that systemd has not. */
  readonly reloads: boolean;
  /** Devices whose rules it has udev run again. */
  readonly triggers: readonly Slot[];
}

/** What must be known of a plan that was killed; undefined if the state of the machine alone shows it. */
export function describeUnfinished({steps}: Plan): Unfinished | undefined {
  const folders = new Map<string, number>();
  for (const step of steps) {
    const prune = pruneOf(step);
    if (prune === undefined || !('path' in step)) continue;
    const folder = dirname(step.path);
    folders.set(folder, Math.max(prune, folders.get(folder) ?? 0));
  }
  const made = steps.flatMap((step) =>
    step.kind === 'expect-mdev' && step.present ? [step.uuid as string] : [],
  );
  const reloads = steps.some(
    ({kind, ...step}) => kind === 'systemctl' && 'args' in step && step.args[0] === reload,
  );
  const triggers = steps.flatMap((step) => (step.kind === 'udevadm' ? slotsIn(step.args) : []));
  if (folders.size === 0 && made.length === 0) return undefined;
  return {folders: [...folders].map(([folder, prune]) => ({folder, prune})), made, reloads, triggers};
}

/** Finishes what the state of the machine does not show. The next plan sees what it shows. */
export function planFinish(host: HostReader, left: readonly Unfinished[]): Plan {
  const prunes = new Map(left.flatMap(({folders}) => folders.map(({folder, prune}) => [folder, prune])));
  const slots = [...new Set(left.flatMap(({triggers}) => triggers))].filter((slot) =>
    host.exists(devicePath(slot)),
  );
  const steps: Step[] = [...prunes].map(([folder, prune]) => ({
    kind: 'tidy-folder',
    folder,
    prune,
    undo: [],
  }));
  if (host.root !== '/') return plan(steps);
  if (left.some(({reloads}) => reloads)) steps.push(systemctl([reload]));
  if (slots.length > 0)
    steps.push(udevadm(['trigger', '--action=change', ...slots.map((slot) => devicePath(slot))]));
  return plan(steps);
}

const reload = 'daemon-reload';

/** The devices among the arguments of `udevadm trigger`. */
function slotsIn(args: readonly string[]): Slot[] {
  return args.map((arg) => asSlot(basename(arg))).filter((slot) => slot !== undefined);
}

/** How many folders above what a step makes or removes are there for it; undefined for other steps. */
function pruneOf(step: Step): number | undefined {
  if (step.kind === 'remove-file') return step.prune ?? 1;
  if (step.kind !== 'write-file' && step.kind !== 'make-link') return undefined;
  const [undo] = step.undo;
  return undo?.kind === 'remove-file' ? (undo.prune ?? 1) : 0;
}

/** Whether a run that held the lock of this name was killed, or is at work now. */
export function isUnfinished(host: HostReader, name: string): boolean {
  return host.exists(unfinishedPath(name));
}

/** What a killed run that held the lock of this name had begun; undefined when there is none. */
export function readUnfinished(host: HostReader, name: string): Unfinished | undefined {
  const text = host.readText(unfinishedPath(name));
  if (text === undefined) return undefined;
  try {
    const {folders, made, reloads, triggers} = JSON.parse(text) as Partial<Record<keyof Unfinished, unknown>>;
    return {
      folders: Array.isArray(folders) ? folders.filter(isFolder) : [],
      made: wordsIn(made),
      reloads: reloads === true,
      triggers: slotsIn(wordsIn(triggers)),
    };
  } catch (error) {
    // What it left is then unknown, but it did leave something.
    if (error instanceof SyntaxError) return {folders: [], made: [], reloads: true, triggers: []};
    throw error;
  }
}

function wordsIn(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((one) => typeof one === 'string') : [];
}

function isFolder(value: unknown): value is Unfinished['folders'][number] {
  if (typeof value !== 'object' || value === null) return false;
  const {folder, prune} = value as Record<string, unknown>;
  return typeof folder === 'string' && folder.startsWith('/') && typeof prune === 'number';
}
