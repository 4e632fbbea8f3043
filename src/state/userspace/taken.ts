import type {HostReader} from '../../host/host.js';
import {runState} from '../../host/paths.js';
import type {Device} from '../../devices/pci/device.js';
import type {Slot} from '../../devices/pci/slot.js';

/** What a device provided when `userspace config` took it: its reset waits for as much. */
export interface TakenParts {
  readonly id: string;
  readonly disks: number;
  readonly interfaces: number;
}

/** The file about a device. It lasts until the next boot, as the effect of `userspace config` does. */
export function takenPath(slot: Slot): string {
  return `${runState}/userspace/${slot}`;
}

/** The text of the file. */
export function printTakenParts({id, disks, interfaces}: TakenParts): string {
  return `${JSON.stringify({id, disks, interfaces})}\n`;
}

/** What this card provided; undefined if it was not taken, or if there is another card in its slot now. */
export function readTakenParts(
  host: HostReader,
  {slot, id}: Pick<Device, 'slot' | 'id'>,
): TakenParts | undefined {
  try {
    const taken = JSON.parse(host.readText(takenPath(slot)) ?? 'null') as Record<string, unknown> | null;
    const {disks, interfaces} = taken ?? {};
    return taken?.['id'] === id && typeof disks === 'number' && typeof interfaces === 'number'
      ? {id, disks, interfaces}
      : undefined;
  } catch (error) {
    // Only root writes there; what a full disk has cut off says nothing.
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}
