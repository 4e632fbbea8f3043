import {BaseCommand, forceFlags} from '../../base-command.js';
import {changeDriverIds, idArguments, type IdResult} from '../../ids.js';

/** `pearasys driver remove-id`: the kernel's remove_id, with the devices that it affects. */
export default class DriverRemoveId extends BaseCommand {
  static override description =
    'Removes an id that new_id has added to the driver. Devices that the driver has because of this id stay on it ' +
    'until they are unbound. Lists other affected devices first, and asks on a terminal; otherwise it needs --force.';
  static override examples = ['<%= config.bin %> driver remove-id vfio-pci 8086:10d3'];
  static override args = idArguments;
  static override flags = forceFlags;

  async run(): Promise<IdResult> {
    const {args, flags} = await this.parse(DriverRemoveId);
    return await changeDriverIds(this, await this.openHost(), 'remove-id', args, flags);
  }
}
