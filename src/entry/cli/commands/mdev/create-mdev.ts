import {string} from '@oclif/core/args';
import {parseParentName, parseTypeName} from '../../../../devices/mdev/mdev-name.js';
import {parseUuid} from '../../../../devices/mdev/uuid.js';
import {createMdev} from '../../../../operations/mdev-start.js';
import {BaseCommand} from '../../base-command.js';
import {changeMdev, firstPatience, mdevChangeFlags, type MdevChangeResult} from '../../mdevs.js';

/** `pearasys mdev create-mdev`: a device is defined and started, as by the first mdevctl. */
export default class MdevCreateMdev extends BaseCommand {
  static override description = 'Defines the device as `auto`, like the first mdevctl, and starts it.';
  static override args = {
    uuid: string({description: "the device's UUID", required: true, ignoreStdin: true}),
    parent: string({description: "the parent's name in sysfs", required: true, ignoreStdin: true}),
    type: string({description: 'the type', required: true, ignoreStdin: true}),
  };
  static override flags = mdevChangeFlags;

  async run(): Promise<MdevChangeResult> {
    const {args, flags} = await this.parse(MdevCreateMdev);
    const uuid = parseUuid(args.uuid);
    const subject = {uuid, parent: parseParentName(args.parent), type: parseTypeName(args.type)};
    const host = await this.openHost();
    const patience = flags['dry-run'] ? 0 : firstPatience;
    return await changeMdev(this, host, uuid, flags, (options) =>
      createMdev(host, subject, {...options, mayExist: false, patience}),
    );
  }
}
