import {string} from '@oclif/core/args';
import {parseUuid} from '../../../../devices/mdev/uuid.js';
import {startMdev} from '../../../../operations/mdev-start.js';
import {BaseCommand} from '../../base-command.js';
import {changeMdev, firstPatience, mdevChangeFlags, type MdevChangeResult} from '../../mdevs.js';

/** `pearasys mdev start-mdev`: a defined device is started, as by the first mdevctl. */
export default class MdevStartMdev extends BaseCommand {
  static override description = 'Starts a defined device.';
  static override args = {
    uuid: string({description: "the device's UUID", required: true, ignoreStdin: true}),
  };
  static override flags = mdevChangeFlags;

  async run(): Promise<MdevChangeResult> {
    const {args, flags} = await this.parse(MdevStartMdev);
    const uuid = parseUuid(args.uuid);
    const host = await this.openHost();
    const patience = flags['dry-run'] ? 0 : firstPatience;
    return await changeMdev(this, host, uuid, flags, (options) =>
      startMdev(host, {uuid}, {...options, mayExist: true, patience}),
    );
  }
}
