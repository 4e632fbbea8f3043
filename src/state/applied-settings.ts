import type {HostReader} from '../host/host.js';
import {runState} from '../host/paths.js';
import {readInitialized, type Device} from '../devices/pci/device.js';
import type {Slot} from '../devices/pci/slot.js';

/** What a claim has set on a device besides its driver. Lasts until the release, or until the next boot. */
export interface AppliedSettings {
  readonly id: string;
  /** When udev first saw the device: after a hot-plug, nothing of this holds for the new device. */
  readonly since: number | undefined;
  /** The attributes that were set, with their values before. */
  readonly before: ReadonlyMap<string, string>;
  /** The method of the reset before the driver got the device; undefined without a reset. */
  readonly reset: string | undefined;
}

/** The path of what a claim has set on the device in this slot. */
export function appliedPath(slot: Slot): string {
  return `${runState}/set/${slot}`;
}

/** The file's text. */
export function printApplied({id, since, before, reset}: AppliedSettings): string {
  return `${JSON.stringify({id, since: since ?? null, before: Object.fromEntries(before), reset: reset ?? null}, null, 2)}\n`;
}

/** What was set on this very device; undefined if nothing was, if the file is damaged, or for an earlier device. */
export function readApplied(
  host: HostReader,
  {slot, id}: Pick<Device, 'slot' | 'id'>,
): AppliedSettings | undefined {
  const text = host.readText(appliedPath(slot));
  if (text === undefined) return undefined;
  const applied = parse(text);
  return applied?.id === id && applied.since === readInitialized(host, slot) ? applied : undefined;
}

function parse(text: string): AppliedSettings | undefined {
  try {
    const {id, since, before, reset} = JSON.parse(text) as Record<string, unknown>;
    if (typeof id !== 'string' || typeof before !== 'object' || before === null) return undefined;
    return {
      id,
      since: typeof since === 'number' ? since : undefined,
      before: new Map(
        Object.entries(before).filter((entry): entry is [string, string] => typeof entry[1] === 'string'),
      ),
      reset: typeof reset === 'string' ? reset : undefined,
    };
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof TypeError) return undefined;
    throw error;
  }
}
