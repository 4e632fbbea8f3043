import type {Layout} from '../host/layout.js';
import type {Slot} from '../pci/slot.js';
import {render} from './templates.js';
import {unitName, type UnitIdentity} from './unit.js';

/** The text of a slot's template unit. */
export function slotTemplate(slot: Slot, together: readonly Slot[], layout: Layout): string {
  return render('pearasys-slot@.service', {
    slot,
    config: layout.config,
    libexec: layout.libexec,
    siblings: together.filter((other) => other !== slot),
  });
}

/** What {@link unitSettings} needs to know of a unit's surroundings. */
export interface UnitSurroundings {
  /** The device's name for people, from pci.ids. */
  readonly name: string;
  /** The other installed units of the same slot. */
  readonly rivals: readonly UnitIdentity[];
  /** The slots installed together with this one, itself included or not. */
  readonly together: readonly Slot[];
}

/**
 * The text of a unit's drop-in. Of two units that exclude each other only one says After=: the order between a
 * stop and a start is the same in both directions (systemd.unit(5)), and two would be an ordering cycle.
 */
export function unitSettings(unit: UnitIdentity, {name, rivals, together}: UnitSurroundings): string {
  const own = unitName(unit);
  const others = rivals.map(unitName).filter((rival) => rival !== own);
  return render('pearasys-slot@driver.conf', {
    unit: own,
    slot: unit.slot,
    description: `${name} (PCI device ${unit.slot}) on driver ${unit.driver}`.replaceAll('%', '%%'),
    conflicts: others,
    after: others.filter((rival) => rival < own),
    together: together
      .filter((slot) => slot !== unit.slot)
      .map((slot) => unitName({slot, driver: unit.driver})),
  });
}
