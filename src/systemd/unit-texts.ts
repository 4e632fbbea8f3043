import type {Layout} from '../config/layout.js';
import type {Slot} from '../devices/pci/slot.js';
import {render} from './templates.js';
import {claimUnitName, unitName, type UnitIdentity} from './unit.js';

/** The text of a slot's template unit. */
export function slotTemplate(slot: Slot, together: readonly Slot[], layout: Layout): string {
  return render('pearasys-slot@.service', {
    slot,
    config: layout.config,
    libexec: layout.libexec,
    siblings: together.filter((other) => other !== slot),
  });
}

/** The text of the template of a slot's claim units. */
export function claimTemplate(slot: Slot, layout: Layout): string {
  return render('pearasys-claim-slot@.service', {slot, config: layout.config, libexec: layout.libexec});
}

/** What {@link unitSettings} needs to know about the other units of a slot and its device. */
interface UnitSurroundings {
  /** The device's name from pci.ids, for the unit's description. */
  readonly name: string;
  /** The other installed units of the same slot. */
  readonly rivals: readonly UnitIdentity[];
  /** The slots installed together with this one; may include it. */
  readonly together: readonly Slot[];
}

/**
 * The text of a unit's drop-in. If two units exclude each other, one stops before the other claims the device. systemd
 * uses the same order between a stop and a start in both directions (systemd.unit(5)). To avoid an ordering cycle, all
 * are ordered by their names, each claim before its unit.
 */
export function unitSettings(unit: UnitIdentity, {name, rivals, together}: UnitSurroundings): string {
  const own = unitName(unit);
  const others = rivals.filter((rival) => unitName(rival) !== own);
  const isBefore = (rival: UnitIdentity): boolean => unitName(rival) < own;
  return render('pearasys-slot@driver.conf', {
    unit: own,
    slot: unit.slot,
    description: `${name} (PCI device ${unit.slot}) on driver ${unit.driver}`.replaceAll('%', '%%'),
    conflicts: others.map(unitName),
    after: others.filter(isBefore).flatMap((rival) => [claimUnitName(rival), unitName(rival)]),
    before: others.filter((rival) => !isBefore(rival)).map(claimUnitName),
    together: together
      .filter((slot) => slot !== unit.slot)
      .map((slot) => unitName({slot, driver: unit.driver})),
  });
}
