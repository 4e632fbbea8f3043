import {BaseCommand, forceFlags} from '../../base-command.js';
import {changeDriverIds, idArguments, type IdResult} from '../../ids.js';

/** `pearasys driver new-id`: the kernel's new_id, with the devices that it affects. */
export default class DriverNewId extends BaseCommand {
  static override description =
    'Writes the id to new_id of the driver, until the next boot or until the driver is unloaded. The kernel then ' +
    'gives the driver every device with the id that has no driver, now and at each hot-add; a device with an ' +
    'override for another driver is left alone. Other devices that are affected are listed first: on a terminal it ' +
    'asks, otherwise it needs --force. `bind` takes one device only, and is what you usually need.';
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
