import {string} from '@oclif/core/args';
import {boolean} from '@oclif/core/flags';
import {readDevices} from '../../../../devices/pci/device.js';
import {findSlot} from '../../../../devices/pci/find.js';
import {findRecordedPf, unsetSriov} from '../../../../operations/sriov-set.js';
import {BaseCommand, writeFlags} from '../../base-command.js';
import {changeResult, withChanges, type ChangeResult} from '../../switching.js';

/** `pearasys sriov unset`: forgets how many virtual functions a device has, and removes them. */
export default class SriovUnset extends BaseCommand {
  static override description =
    'Removes the record of a device, and its virtual functions. This is refused while one of them is in use. The ' +
    'device need not be present.';
  static override examples = ['<%= config.bin %> sriov unset 04:00.0'];
  static override args = {
    pf: string({description: 'the device, by its slot or name', required: true, ignoreStdin: true}),
  };
  static override flags = {
    ...writeFlags,
    later: boolean({summary: 'Leave the virtual functions until the next boot'}),
  };

  async run(): Promise<ChangeResult> {
    const {args, flags} = await this.parse(SriovUnset);
    const host = await this.openHost();
    const slot = findSlot(host, () => readDevices(host), args.pf);
    const device = findRecordedPf(host, this.layout, slot);
    const notes: string[] = [];
    const outcome = await withChanges(this, flags, notes, (options) =>
      unsetSriov(host, this.layout, device, flags.later, options),
    );
    const result = changeResult(host, [outcome], flags, notes, [device]);
    if (result.dryRun) for (const line of result.steps) this.log(line);
    else this.log(`${slot} (${device.id}): no virtual functions are recorded`);
    return result;
  }
}
