import type {HostReader} from '../host/host.js';
import {runState} from '../host/paths.js';
import type {Device} from '../devices/pci/device.js';
import {asSlot, type Slot} from '../devices/pci/slot.js';

/** A device that did not work when it was to return to the host: no driver gets it until the next boot. */
export interface Quarantine {
  readonly slot: Slot;
  readonly id: string;
  /** What does not work, and what was tried. */
  readonly reason: string;
}

/** The folder of the marks. The udev rule, libexec/early and units only look whether a slot has one. */
const folder = `${runState}/quarantined`;

/** The path of a slot's mark. */
export function quarantinePath(slot: Slot): string {
  return `${folder}/${slot}`;
}

/** The text of the mark. */
export function printQuarantine({id, reason}: Quarantine): string {
  return `${JSON.stringify({id, reason})}\n`;
}

/** Whether this card is quarantined, and why. A mark for another card does not count. */
export function readQuarantine(
  host: HostReader,
  {slot, id}: Pick<Device, 'slot' | 'id'>,
): Quarantine | undefined {
  const text = host.readText(quarantinePath(slot));
  if (text === undefined) return undefined;
  const quarantine = parse(slot, text);
  return quarantine === undefined || quarantine.id === id
    ? {slot, id, reason: quarantine?.reason ?? unknown}
    : undefined;
}

/** All quarantined cards. */
export function readQuarantines(host: HostReader): Quarantine[] {
  return host
    .list(folder)
    .map(asSlot)
    .filter((slot) => slot !== undefined)
    .map((slot) => parse(slot, host.readText(quarantinePath(slot)) ?? ''))
    .filter((one) => one !== undefined);
}

/** The note about a quarantined device, for lists. */
export function quarantineNote({slot, id, reason}: Quarantine): string {
  return `${slot} (${id}) is quarantined: ${reason}; ${wayOut(slot)}`;
}

/** What may help, and how to use the device then. */
export function wayOut(slot: string): string {
  return `suspend and resume the machine, or switch it off and on; then: pearasys bind default ${slot} --force`;
}

const unknown = 'it did not work when it was to return to the host';

function parse(slot: Slot, text: string): Quarantine | undefined {
  try {
    const {id, reason} = JSON.parse(text) as Record<string, unknown>;
    return typeof id === 'string' && typeof reason === 'string' ? {slot, id, reason} : undefined;
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof TypeError) return undefined;
    throw error;
  }
}
