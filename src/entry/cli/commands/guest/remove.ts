import {string} from '@oclif/core/args';
import {boolean} from '@oclif/core/flags';
import {parseGuest} from '../../../../state/guests/guest-name.js';
import {isSetUp, removeGuest} from '../../../../operations/guest-setup.js';
import {BaseCommand, changeFlags} from '../../base-command.js';
import {confirm} from '../../choose.js';
import {changeResult, withChanges, type ChangeResult} from '../../switching.js';

/** What `--json` prints. */
export type GuestRemoveResult = ChangeResult & {readonly guest: string};

/** `pearasys guest remove`: removes the set-up of a guest. */
export default class GuestRemove extends BaseCommand {
  static override description =
    "Removes the guest's file and settings, and its name from the two lists of guests. A guest that has its " +
    'devices is refused. On a terminal, it asks for confirmation.';
  static override args = {guest: string({description: 'the guest', required: true, ignoreStdin: true})};
  static override flags = {...changeFlags, yes: boolean({char: 'y', summary: 'Do not ask for confirmation'})};

  async run(): Promise<GuestRemoveResult> {
    const {args, flags} = await this.parse(GuestRemove);
    const guest = parseGuest(args.guest);
    const host = await this.openHost();
    const {layout} = this.context;
    if (!flags.yes && !flags['dry-run'] && !this.jsonEnabled() && isSetUp(host, layout, guest))
      await confirm(this.context, `Remove the setup of guest ${guest}?`);
    const notes: string[] = [];
    const outcome = await withChanges(this, flags, notes, (options) =>
      removeGuest(host, layout, guest, options),
    );
    const result = {...changeResult(host, [outcome], flags, notes, []), guest};
    if (result.dryRun) for (const line of result.steps) this.log(line);
    else this.log(`guest ${guest} is no longer set up`);
    return result;
  }
}
