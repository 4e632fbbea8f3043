import {boolean, string} from '@oclif/core/flags';
import {usageError} from '../../../../host/errors.js';
import {parseId} from '../../../../devices/pci/id.js';
import {readDevices} from '../../../../devices/pci/device.js';
import {findSlots} from '../../../../devices/pci/find.js';
import {
  slotsToUninstall,
  uninstallForAnySlot,
  uninstallServices,
} from '../../../../operations/service-uninstall.js';
import {quarantineNote, readQuarantines} from '../../../../state/quarantine.js';
import type {UnitIdentity} from '../../../../systemd/unit.js';
import {BaseCommand, switchFlags} from '../../base-command.js';
import {changeResult, noInitramfsFlag, withChanges, type ChangeResult} from '../../switching.js';

/** `pearasys service uninstall`: removes the record and the unit of a device. */
export default class ServiceUninstall extends BaseCommand {
  static override description =
    'Stops the units of a slot, which releases the device, disables them, and removes them with the record; ' +
    'slots that were installed together with it are included. The card need not be present.';
  static override examples = ['<%= config.bin %> -s 04:00.0 service uninstall'];
  static override flags = {
    ...switchFlags,
    slot: string({char: 's', summary: 'A slot', helpValue: 'SLOT', multiple: true, multipleNonGreedy: true}),
    id: string({
      aliases: ['pid'],
      char: 'd',
      summary: 'All recorded slots of cards with this id',
      helpValue: 'VENDOR:DEVICE',
      multiple: true,
      multipleNonGreedy: true,
    }),
    'any-slot': boolean({summary: 'Only the record for this id in any slot'}),
    'no-initramfs': noInitramfsFlag,
  };

  async run(): Promise<ChangeResult> {
    const {flags} = await this.parse(ServiceUninstall);
    const host = await this.openHost();
    const {layout} = this.context;
    const ids = (flags.id ?? []).map(parseId);
    const [id] = ids;
    if (flags['any-slot'] && (id === undefined || ids.length > 1 || flags.slot !== undefined))
      throw usageError('--any-slot needs one id and no slot', '--any-slot -d VENDOR:DEVICE');
    const named = (flags.slot ?? []).flatMap((word) => findSlots(host, () => readDevices(host), word));
    const slots = flags['any-slot'] ? [] : slotsToUninstall(host, layout, {slots: named, ids});
    if (slots.length === 0 && !flags['any-slot'])
      throw usageError(
        id === undefined ? 'no slot was named' : `there is no record for id ${ids.join(', ')}`,
        '`pearasys service list` lists the records',
      );
    const notes: string[] = [];
    let stopped: readonly UnitIdentity[] = [];
    const outcome = await withChanges(this, flags, notes, async (options) => {
      if (id !== undefined && flags['any-slot']) return await uninstallForAnySlot(host, layout, id, options);
      const done = await uninstallServices(host, layout, slots, {
        ...options,
        rebuild: !flags['no-initramfs'],
      });
      stopped = done.stopped;
      return done;
    });
    const result = changeResult(
      host,
      [outcome],
      flags,
      notes,
      slots.map((slot) => ({slot})),
    );
    for (const {slot, driver} of result.devices)
      if (!result.dryRun && stopped.some((unit) => unit.slot === slot && unit.driver === driver))
        this.warn(
          `${slot} is still on ${driver ?? ''}: its unit could not release it; the reason is in the journal`,
        );
    const quarantines = readQuarantines(host).filter(({slot, id: card}) =>
      result.devices.some((device) => device.slot === slot && device.id === card),
    );
    if (!result.dryRun) for (const quarantine of quarantines) this.warn(quarantineNote(quarantine));
    if (result.dryRun) for (const line of result.steps) this.log(line);
    else this.log(`uninstalled: ${flags['any-slot'] ? `id ${id ?? ''} in any slot` : slots.join(', ')}`);
    const released = result.devices
      .filter(({slot, driver}) => driver === null && !quarantines.some((one) => one.slot === slot))
      .map(({slot}) => slot);
    if (!result.dryRun && released.length > 0)
      this.note(
        `${released.join(', ')} without a driver now; to return it to the host: pearasys bind default ${released.join(' ')}`,
      );
    return result;
  }
}
