import {asSlot, type Slot} from '../devices/pci/slot.js';

/** The state of a device before it was taken from the host. */
export interface TakenDevice {
  readonly slot: Slot;
  readonly id: string;
  readonly driver: string | undefined;
  readonly override: string | undefined;
}

/** The object for a JSON file. */
export function plainTaken({slot, id, driver, override}: TakenDevice): object {
  return {slot, id, driver: driver ?? null, override: override ?? null};
}

/** Reads the object that {@link plainTaken} returned; undefined for anything else. */
export function parseTaken(value: unknown): TakenDevice | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const {slot, id, driver, override} = value as Record<string, unknown>;
  const parsed = typeof slot === 'string' ? asSlot(slot) : undefined;
  const isName = (word: unknown) =>
    word === null || (typeof word === 'string' && /^[\w.-]+$/.test(word) && !word.startsWith('.'));
  if (parsed === undefined || typeof id !== 'string' || !isName(driver) || !isName(override))
    return undefined;
  return {
    slot: parsed,
    id,
    driver: (driver as string | null) ?? undefined,
    override: (override as string | null) ?? undefined,
  };
}
