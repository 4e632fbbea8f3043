import {BaseCommand, changeFlags} from '../../base-command.js';
import {changeParticipation, type BootChangeResult} from '../../boot.js';

/** `pearasys boot disable`: claims take effect only after the root file system is mounted. */
export default class BootDisable extends BaseCommand {
  static override description =
    'Sets Initramfs=no, removes all claims from the list for the initramfs, and rebuilds its images if they have ' +
    'claims. Claims then take effect only after the root file system is mounted, and a driver in the initramfs ' +
    'may use a claimed device before that.';
  static override examples = ['<%= config.bin %> boot disable'];
  static override flags = changeFlags;

  async run(): Promise<BootChangeResult> {
    const {flags} = await this.parse(BootDisable);
    return await changeParticipation(this, await this.openHost(), false, flags);
  }
}
