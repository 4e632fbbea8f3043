import {string} from '@oclif/core/args';
import {option} from '@oclif/core/flags';
import type {Device} from '../../devices/pci/device.js';
import {deviceTypes, type DeviceType} from '../../devices/pci/device-type.js';
import {usageError} from '../../host/errors.js';
import type {Host} from '../../host/host.js';
import type {Skip} from '../../plan/userspace/userspace.js';
import type {UserspaceOutcome, UserspaceSelection} from '../../operations/userspace.js';
import type {BaseCommand} from './base-command.js';
import {changeResult, showChange, type ChangeFlags, type ChangeResult} from './switching.js';

/** A device that was left as it is, as `--json` prints it. */
export interface SkippedDevice {
  readonly slot: string;
  readonly id: string;
  /** As in errors, or `blocked`. */
  readonly code: string;
  readonly reasons: readonly string[];
  /** What to do about it; null if there is nothing to do. */
  readonly hint: string | null;
}

/** What `--json` prints for `userspace config` and `userspace reset`. */
export interface UserspaceResult extends ChangeResult {
  readonly skipped: readonly SkippedDevice[];
}

/** The arguments of the commands. */
export const userspaceArgs = {
  device: string({description: 'the devices', multiple: true, ignoreStdin: true}),
};

/** The flag that selects devices by their types. */
export const typeFlag = option({
  summary: 'Select devices of this type',
  helpValue: 'TYPE',
  options: deviceTypes,
  multiple: true,
  multipleNonGreedy: true,
})();

/** @throws PearasysError `usage` for names together with types. */
export function selectionOf(
  words: readonly string[] | undefined,
  types: readonly DeviceType[] | undefined,
  allowed: UserspaceSelection['allowed'],
): UserspaceSelection {
  if (words !== undefined && words.length > 0 && types !== undefined && types.length > 0)
    throw usageError('--type cannot be used with device names', 'omit one of them');
  return {words: words ?? [], types: types ?? [], allowed};
}

/** A skipped device as it is printed. */
export function reportSkip({slot, id, code, reasons, hint = ''}: Skip): SkippedDevice {
  return {slot, id, code, reasons, hint: hint === '' ? null : hint};
}

/** Prints what became of the devices. */
export function showUserspace(
  command: BaseCommand,
  host: Host,
  {outcome, decision}: UserspaceOutcome,
  flags: ChangeFlags,
  notes: readonly string[],
): UserspaceResult {
  const {switched, already, skipped} = decision;
  const devices: readonly Pick<Device, 'slot'>[] = [...switched.map(({device}) => device), ...already].sort(
    (one, other) => (one.slot < other.slot ? -1 : 1),
  );
  const result = changeResult(host, [outcome], flags, notes, devices);
  showChange(command, result);
  if (devices.length === 0 && skipped.length === 0) command.note('no such device');
  return {...result, skipped: skipped.map(reportSkip)};
}
