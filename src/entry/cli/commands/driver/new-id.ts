import {BaseCommand, forceFlags} from '../../base-command.js';
import {changeDriverIds, idArguments, type IdResult} from '../../ids.js';

/** `pearasys driver new-id`: the kernel's new_id, with the devices that it affects. */
export default class DriverNewId extends BaseCommand {
  static override description =
    'Writes the id to new_id of the driver, until the next boot or until the driver is unloaded. The kernel then ' +
    'gives the driver every device with this id that has no driver, now and at each hot-add; a device with an ' +
    'override for another driver is left alone. Lists other affected devices first, and asks on a terminal; ' +
    'otherwise it needs --force. `bind` takes a single device, and is usually what you need.';
  static override examples = [
    '<%= config.bin %> driver new-id vfio-pci 8086:10d3 --dry-run',
    '<%= config.bin %> driver new-id vfio-pci 04:00.0',
  ];
  static override args = idArguments;
  static override flags = forceFlags;

  async run(): Promise<IdResult> {
    const {args, flags} = await this.parse(DriverNewId);
    return await changeDriverIds(this, await this.openHost(), 'new-id', args, flags);
  }
}
