import {boolean, string} from '@oclif/core/flags';
import {usageError} from '../../../../host/errors.js';
import {parseId} from '../../../../devices/pci/id.js';
import {readDevices} from '../../../../devices/pci/device.js';
import {findSlots} from '../../../../devices/pci/find.js';
import type {Slot} from '../../../../devices/pci/slot.js';
import {carryOut} from '../../../../engine/carry-out.js';
import {
  planUninstall,
  planUninstallAnySlot,
  readServices,
  servicesLock,
} from '../../../../plan/service/service.js';
import {readRecords} from '../../../../state/records/record.js';
import {readUnitStates} from '../../../../systemd/unit.js';
import {BaseCommand, switchFlags} from '../../base-command.js';
import {changeResult, withChanges, type ChangeResult} from '../../switching.js';

/** `pearasys service uninstall`: the lasting wish for a device is taken back. */
export default class ServiceUninstall extends BaseCommand {
  static override description =
    'Stops the units of a slot, which releases the device, disables them, and removes them with the record; the ' +
    'slots that were installed together with it go along. The card need not be there any more.';
  static override examples = ['<%= config.bin %> -s 04:00.0 service uninstall'];
  static override flags = {
    ...switchFlags,
    slot: string({char: 's', summary: 'A slot', helpValue: 'SLOT', multiple: true, multipleNonGreedy: true}),
    id: string({
      aliases: ['pid'],
      char: 'd',
      summary: 'Each recorded slot of a card with this id',
      helpValue: 'VENDOR:DEVICE',
      multiple: true,
      multipleNonGreedy: true,
    }),
    'any-slot': boolean({summary: 'The record by id alone'}),
  };

  async run(): Promise<ChangeResult> {
    const {flags} = await this.parse(ServiceUninstall);
    const host = await this.openHost();
    const {layout} = this.context;
    const ids = (flags.id ?? []).map(parseId);
    const [id] = ids;
    if (flags['any-slot'] && (id === undefined || ids.length > 1 || flags.slot !== undefined))
      throw usageError('--any-slot takes one id, and no slot', '--any-slot -d VENDOR:DEVICE');
    const {records} = readRecords(host, layout);
    const named = new Set<Slot>(
      (flags.slot ?? []).flatMap((word) => findSlots(host, () => readDevices(host), word)),
    );
    for (const record of records)
      if (record.slot !== 'any' && ids.includes(record.id)) named.add(record.slot);
    // What was installed together is one wish, and goes together.
    const recorded = new Set(records.map((record) => record.slot));
    const together = records.filter(
      ({slot, together: others}) =>
        slot !== 'any' &&
        // A run that was ended may have left the records of the others only.
        (named.has(slot) || others.some((other) => named.has(other) && !recorded.has(other))),
    );
    const slots = flags['any-slot']
      ? []
      : [...new Set([...named, ...together.flatMap((record) => record.together)])].sort();
    if (slots.length === 0 && !flags['any-slot'])
      throw usageError(
        id === undefined ? 'no slot was named' : `there is no record for id ${ids.join(', ')}`,
        '`pearasys service list` shows what is installed',
      );
    const states = (await readUnitStates(host)).filter((unit) => unit.active === 'active');
    const active = new Set(states.map((unit) => unit.unit));
    const notes: string[] = [];
    const outcome = await withChanges(this, flags, notes, (options) =>
      carryOut(
        host,
        [servicesLock],
        () => {
          const state = readServices(host, layout, slots, {active});
          return id !== undefined && flags['any-slot']
            ? planUninstallAnySlot(id, state)
            : planUninstall(slots, state);
        },
        options,
      ),
    );
    const result = changeResult(
      host,
      [outcome],
      flags,
      notes,
      slots.map((slot) => ({slot})),
    );
    for (const {slot, driver} of result.devices)
      if (!result.dryRun && states.some((unit) => unit.slot === slot && unit.driver === driver))
        this.warn(`${slot} is still on ${driver ?? ''}: its unit could not release it, journalctl says why`);
    if (result.dryRun) for (const line of result.steps) this.log(line);
    else this.log(`uninstalled: ${flags['any-slot'] ? `id ${id ?? ''} in any slot` : slots.join(', ')}`);
    const released = result.devices.filter(({driver}) => driver === null).map(({slot}) => slot);
    if (!result.dryRun && released.length > 0)
      this.note(
        `${released.join(', ')} without a driver now; to give back: pearasys bind default ${released.join(' ')}`,
      );
    return result;
  }
}
