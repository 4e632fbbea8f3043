import {boolean, integer, string} from '@oclif/core/flags';
import {usageError} from '../../host/errors.js';
import type {Host} from '../../host/host.js';
import {readDevice, type Device} from '../../devices/pci/device.js';
import {parseId} from '../../devices/pci/id.js';
import type {CarryOutOptions, Outcome} from '../../engine/carry-out.js';
import type {Target} from '../../plan/switch/switch.js';
import {selectDevices, type Selection} from '../../operations/devices.js';
import {switchUnconfirmed} from '../../operations/confirm.js';
import {risksOf, switchDevices} from '../../operations/switch.js';
import type {BaseCommand} from './base-command.js';

/** What `--json` prints of a device after a change. */
export interface ChangedDevice {
  readonly slot: string;
  readonly id: string;
  /** The driver that it is on now; null without one. */
  readonly driver: string | null;
  readonly override: string | null;
}

/** What `--json` prints for a command that changes something. */
export interface ChangeResult {
  /** Whether anything was changed; false in a dry run. */
  readonly changed: boolean;
  readonly dryRun: boolean;
  /** The steps as shell lines: those that were done, or in a dry run those that would be. */
  readonly steps: readonly string[];
  /** Notes that did not stop the command. */
  readonly notes: readonly string[];
  /** The devices as they are afterwards. */
  readonly devices: readonly ChangedDevice[];
}

/** Flags that select more devices than those named. */
export const selectionFlags = {
  all: boolean({summary: 'Select all devices with a given id'}),
  siblings: boolean({summary: 'Include the other functions of the card'}),
  group: boolean({summary: 'Include all members of the IOMMU group'}),
};

/** The flag of changes that are undone unless they are confirmed. */
export const confirmFlag = integer({
  summary: 'Undo the change after this time unless `pearasys confirm` is run',
  helpValue: 'SECONDS',
  min: 5,
  max: 86_400,
});

/** The flag of changes of claims. */
export const noInitramfsFlag = boolean({summary: 'Do not rebuild the initramfs'});

/** Flags that name devices, for commands whose arguments are something else. */
export const namingFlags = {
  slot: string({
    char: 's',
    summary: 'A device by its slot, name or path',
    helpValue: 'SLOT',
    multiple: true,
    multipleNonGreedy: true,
  }),
  id: string({
    aliases: ['pid'],
    char: 'd',
    summary: 'A device by its id',
    helpValue: 'VENDOR:DEVICE',
    multiple: true,
    multipleNonGreedy: true,
  }),
};

/**
 * The words of {@link namingFlags}, for {@link selectDevices}.
 * @throws PearasysError `bad-id`, exit code 2: -d takes nothing but ids.
 */
export function namedWords({
  slot = [],
  id = [],
}: {
  readonly slot?: readonly string[] | undefined;
  readonly id?: readonly string[] | undefined;
}): string[] {
  return [...slot, ...id.map(parseId)];
}

/** Flags of commands that change something. */
export interface ChangeFlags {
  /** Absent if it was not given. */
  readonly 'dry-run'?: boolean;
  /** Seconds. */
  readonly timeout?: number;
}

/** Runs `work` with the options of these flags. If the user interrupts it, its plan is undone. */
export async function withChanges<T>(
  command: BaseCommand,
  flags: ChangeFlags,
  notes: string[],
  work: (options: CarryOutOptions) => Promise<T>,
): Promise<T> {
  const controller = new AbortController();
  const interrupt = () => controller.abort();
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  for (const signal of signals) process.on(signal, interrupt);
  try {
    return await work({
      dryRun: flags['dry-run'] === true,
      limit: (flags.timeout ?? 15) * 1000,
      signal: controller.signal,
      onStep: (line, undoing) => {
        command.noteChange();
        command.trace(undoing ? `${line}  # undoing` : line);
      },
      onNote: (note) => {
        notes.push(note);
        command.warn(note);
      },
      onLong: (what) => command.progress(what),
    });
  } finally {
    for (const signal of signals) process.off(signal, interrupt);
  }
}

/** The result of a change, for `--json`. */
export function changeResult(
  host: Host,
  outcomes: readonly Outcome[],
  flags: ChangeFlags,
  notes: readonly string[],
  devices: readonly Pick<Device, 'slot'>[],
): ChangeResult {
  return {
    changed: outcomes.some((outcome) => outcome.changed),
    dryRun: flags['dry-run'] === true,
    steps: outcomes.flatMap((outcome) => outcome.lines),
    notes,
    devices: devices
      .map(({slot}) => readDevice(host, slot))
      .filter((device) => device !== undefined)
      .map(({slot, id, driver, override}) => ({
        slot,
        id,
        driver: driver ?? null,
        override: override ?? null,
      })),
  };
}

/**
 * Asks on a terminal whether to continue if the display, the last route to the machine or all keyboards would be lost.
 * @returns whether the user agreed; false if there was no question.
 * @throws PearasysError `interrupted` when the answer is no.
 */
export async function acceptRisks(
  command: BaseCommand,
  host: Host,
  devices: readonly Device[],
  flags: ChangeFlags & {readonly force: boolean},
): Promise<boolean> {
  if (flags.force || flags['dry-run'] === true) return false;
  const risks = risksOf(host, devices);
  return risks.length > 0 && (await command.accepts(risks));
}

/** Switches the named devices to the target, and prints the result. */
export async function switchNamed(
  command: BaseCommand,
  host: Host,
  words: readonly string[],
  target: Target,
  flags: ChangeFlags & Selection & {readonly force: boolean; readonly confirm?: number | undefined},
): Promise<ChangeResult> {
  const devices = selectDevices(host, words, flags);
  if (devices.length === 0) throw usageError('no device was named', '`pearasys list` lists the devices');
  const notes: string[] = [];
  const {force, confirm: seconds} = flags;
  const accepted =
    target.kind !== 'default' && seconds === undefined && (await acceptRisks(command, host, devices, flags));
  const outcome = await withChanges(command, flags, notes, (options) =>
    seconds === undefined
      ? switchDevices(host, devices, target, {...options, force, accepted})
      : switchUnconfirmed(host, command.layout, {devices, target, force, wholeGroup: true, seconds}, options),
  );
  const result = changeResult(host, [outcome], flags, notes, devices);
  showChange(command, result);
  return result;
}

/** Prints the state of the devices for people, or in a dry run the steps. */
export function showChange(command: BaseCommand, result: ChangeResult): void {
  if (result.dryRun) {
    for (const line of result.steps) command.log(line);
    if (result.steps.length === 0) command.note('nothing to do');
    return;
  }
  for (const {slot, id, driver, override} of result.devices) {
    const kept = driver === null && override === 'none' ? ', and all drivers are kept off' : '';
    const already = result.changed ? '' : 'already ';
    const state = driver === null ? `${already}has no driver${kept}` : `is ${already}on ${driver}`;
    command.log(`${slot} (${id}) ${state}`);
  }
}
