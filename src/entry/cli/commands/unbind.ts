import {string} from '@oclif/core/args';
import {BaseCommand, switchFlags} from '../base-command.js';
import {confirmFlag, selectionFlags, switchNamed, type ChangeResult} from '../switching.js';

/** `pearasys unbind`: takes devices off their drivers, for binding by hand. */
export default class Unbind extends BaseCommand {
  static override description =
    'Leaves each DEVICE without a driver and without an override. A DEVICE is a slot (0000:04:00.0, 04:00.0), ' +
    'a card (04:00.*: all its functions), an id (10de:1b80), the name of what its driver provides (eth0, ' +
    'nvme0n1, card1), or a path in /dev or /sys. Before the only display, the last route to the machine or all ' +
    'keyboards are lost, it asks; without a terminal it refuses, unless --force is given. To return a device to ' +
    'the driver that the kernel chooses, use `bind default`.';
  static override examples = ['<%= config.bin %> unbind 04:00.0', '<%= config.bin %> unbind eth1 --dry-run'];
  static override args = {device: string({description: 'the devices', multiple: true, ignoreStdin: true})};
  static override flags = {...switchFlags, ...selectionFlags, confirm: confirmFlag};

  async run(): Promise<ChangeResult> {
    const {args, flags} = await this.parse(Unbind);
    return switchNamed(this, await this.openHost(), args.device ?? [], {kind: 'release'}, flags);
  }
}
