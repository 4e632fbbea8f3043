import {BaseCommand, changeFlags} from '../../base-command.js';
import {changeParticipation, type BootChangeResult} from '../../boot.js';

/** `pearasys boot enable`: claims take effect in the initramfs. */
export default class BootEnable extends BaseCommand {
  static override description =
    'Sets Initramfs=yes (the default), writes the list of claims for the initramfs, and rebuilds its images if they ' +
    'are outdated. The initramfs then reserves claimed devices before a driver in it can take them. From then on, ' +
    '`service install` and `service uninstall` rebuild the images.';
  static override examples = ['<%= config.bin %> boot enable --dry-run'];
  static override flags = changeFlags;

  async run(): Promise<BootChangeResult> {
    const {flags} = await this.parse(BootEnable);
    return await changeParticipation(this, await this.openHost(), true, flags);
  }
}
