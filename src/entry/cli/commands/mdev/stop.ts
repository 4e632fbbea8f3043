import {parseUuid} from '../../../../devices/mdev/uuid.js';
import {stopMdev} from '../../../../operations/mdev-stop.js';
import {BaseCommand} from '../../base-command.js';
import {changeMdev, mdevChangeFlags, uuidFlag, type MdevChangeResult} from '../../mdevs.js';

/** `pearasys mdev stop`: a mediated device is removed. */
export default class MdevStop extends BaseCommand {
  static override description =
    'Removes a mediated device; its definition stays. A device in use is refused, and the error names the ' +
    'processes using it: the write would wait in the kernel until they close it.';
  static override examples = ['<%= config.bin %> mdev stop -u 83c32df7-d52e-4ec1-9668-1f3c7e4df107'];
  static override flags = {uuid: uuidFlag, ...mdevChangeFlags};

  async run(): Promise<MdevChangeResult> {
    const {flags} = await this.parse(MdevStop);
    const uuid = parseUuid(flags.uuid);
    const host = await this.openHost();
    const result = await changeMdev(this, host, uuid, flags, (options) =>
      stopMdev(host, uuid, {...options, mayBeGone: false}),
    );
    if (!result.dryRun) this.log(`${uuid} was removed`);
    return result;
  }
}
