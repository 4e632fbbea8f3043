import {string} from '@oclif/core/args';
import {parseUuid} from '../../../../devices/mdev/uuid.js';
import {stopMdev} from '../../../../operations/mdev-stop.js';
import {BaseCommand} from '../../base-command.js';
import {changeMdev, mdevChangeFlags, type MdevChangeResult} from '../../mdevs.js';

/** `pearasys mdev stop-mdev`: a device is removed, as by the first mdevctl. */
export default class MdevStopMdev extends BaseCommand {
  static override description = 'Removes a device; its definition stays.';
  static override args = {
    uuid: string({description: "the device's UUID", required: true, ignoreStdin: true}),
  };
  static override flags = mdevChangeFlags;

  async run(): Promise<MdevChangeResult> {
    const {args, flags} = await this.parse(MdevStopMdev);
    const uuid = parseUuid(args.uuid);
    const host = await this.openHost();
    return await changeMdev(this, host, uuid, flags, (options) =>
      stopMdev(host, uuid, {...options, mayBeGone: true}),
    );
  }
}
