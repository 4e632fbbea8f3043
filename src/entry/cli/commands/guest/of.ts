import {string} from '@oclif/core/args';
import {ExitCode, PearasysError} from '../../../../host/errors.js';
import {guestsOfSlot, readGuestFiles} from '../../../../state/guests/guest-files.js';
import {readDevices} from '../../../../devices/pci/device.js';
import {findSlot} from '../../../../devices/pci/find.js';
import {BaseCommand} from '../../base-command.js';

/** What `--json` prints. */
export interface GuestOfResult {
  readonly slot: string;
  /** The guests that take the device, running or not. */
  readonly guests: readonly string[];
}

/** `pearasys guest of`: the guests that take a device. */
export default class GuestOf extends BaseCommand {
  static override description =
    'Prints the guests that take the device, one per line. The device need not exist.';
  static override args = {slot: string({description: 'a device', required: true, ignoreStdin: true})};

  async run(): Promise<GuestOfResult> {
    const {args} = await this.parse(GuestOf);
    const host = await this.openHost();
    const slot = findSlot(host, () => readDevices(host), args.slot);
    const guests = guestsOfSlot(readGuestFiles(host, this.context.layout), slot);
    if (guests.length === 0)
      throw new PearasysError({
        code: 'no-guest',
        exitCode: ExitCode.noDevice,
        message: `no guest takes ${slot}`,
        hint: '`pearasys guest list` lists the devices of each',
      });
    for (const guest of guests) this.logData(guest);
    return {slot, guests};
  }
}
