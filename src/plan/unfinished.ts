import {dirname} from 'node:path';
import type {HostReader} from '../host/host.js';
import {unfinishedPath} from '../host/layout.js';
import type {Plan, Step} from './step.js';

/** What a run says about itself before its first effect, for the next one should it be killed. */
export interface Unfinished {
  /** Folders in which it makes and removes files, and how many of them go, the first included, when left empty. */
  readonly folders: readonly {readonly folder: string; readonly prune: number}[];
  /** UUIDs of the mediated devices that it makes: one that is there may not have its attributes yet. */
  readonly made: readonly string[];
}

/** What is to be known of a plan that was killed; undefined when the state of the machine alone says it. */
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
  if (folders.size === 0 && made.length === 0) return undefined;
  return {folders: [...folders].map(([folder, prune]) => ({folder, prune})), made};
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
    const {folders, made} = JSON.parse(text) as Partial<Record<keyof Unfinished, unknown>>;
    return {
      folders: Array.isArray(folders) ? folders.filter(isFolder) : [],
      made: Array.isArray(made) ? made.filter((one) => typeof one === 'string') : [],
    };
  } catch (error) {
    // What it left cannot be told then; that it left something can.
    if (error instanceof SyntaxError) return {folders: [], made: []};
    throw error;
  }
}

function isFolder(value: unknown): value is Unfinished['folders'][number] {
  if (typeof value !== 'object' || value === null) return false;
  const {folder, prune} = value as Record<string, unknown>;
  return typeof folder === 'string' && folder.startsWith('/') && typeof prune === 'number';
}
