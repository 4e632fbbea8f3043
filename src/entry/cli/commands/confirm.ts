import {boolean} from '@oclif/core/flags';
import {confirmSwitch, undoUnconfirmed} from '../../../operations/confirm.js';
import {BaseCommand, writeFlags} from '../base-command.js';
import {changeResult, showChange, withChanges, type ChangeResult} from '../switching.js';

/** `pearasys confirm`: keeps a change that was made with `--confirm`. */
export default class Confirm extends BaseCommand {
  static override description =
    'Keeps a change that was made with --confirm and is otherwise undone. After `service install --now --confirm`, ' +
    'also writes the records and units: without them, the claim would end at the next reboot.';
  static override examples = [
    '<%= config.bin %> service install vfio-pci -s 04:00.0 --now --confirm 60',
    '<%= config.bin %> confirm',
  ];
  static override flags = {
    ...writeFlags,
    undo: boolean({summary: 'Undo the change now'}),
  };

  async run(): Promise<ChangeResult> {
    const {flags} = await this.parse(Confirm);
    const host = await this.openHost();
    const notes: string[] = [];
    const {outcomes, devices} = await withChanges(this, flags, notes, (options) =>
      flags.undo ? undoUnconfirmed(host, options) : confirmSwitch(host, this.context.layout, options),
    );
    const result = changeResult(host, outcomes, flags, notes, devices);
    showChange(this, result);
    return result;
  }
}
