import {string} from '@oclif/core/args';
import {parseUuid} from '../../../../devices/mdev/uuid.js';
import {discardMdev} from '../../../../operations/mdev-stop.js';
import {BaseCommand} from '../../base-command.js';
import {changeMdev, mdevChangeFlags, type MdevChangeResult} from '../../mdevs.js';

/** `pearasys mdev remove-mdev`: a device and its definitions are removed, as by the first mdevctl. */
export default class MdevRemoveMdev extends BaseCommand {
  static override description = 'Removes a device and its definitions.';
  static override args = {
    uuid: string({description: "the device's UUID", required: true, ignoreStdin: true}),
  };
  static override flags = mdevChangeFlags;

  async run(): Promise<MdevChangeResult> {
    const {args, flags} = await this.parse(MdevRemoveMdev);
    const uuid = parseUuid(args.uuid);
    const host = await this.openHost();
    return await changeMdev(this, host, uuid, flags, (options) => discardMdev(host, uuid, options));
  }
}
