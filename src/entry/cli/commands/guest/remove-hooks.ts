import {string} from '@oclif/core/args';
import {parseGuest} from '../../../../state/guests/guest-name.js';
import {removeHooks} from '../../../../operations/guest-hooks.js';
import {BaseCommand, changeFlags} from '../../base-command.js';
import {changeResult, withChanges} from '../../switching.js';
import type {GuestHooksResult} from './install-hooks.js';

/** `pearasys guest remove-hooks`: removes the hooks that libvirt runs for guests. */
export default class GuestRemoveHooks extends BaseCommand {
  static override description =
    'Removes what `guest install-hooks` wrote: for one guest, or without a name for all guests. The hook that ' +
    'serves all guests is removed for one guest only if no other guest is set up. Files of other programs ' +
    'stay.';
  static override args = {guest: string({description: 'the guest', ignoreStdin: true})};
  static override flags = changeFlags;

  async run(): Promise<GuestHooksResult> {
    const {args, flags} = await this.parse(GuestRemoveHooks);
    const guest = args.guest === undefined ? undefined : parseGuest(args.guest);
    const host = await this.openHost();
    const {layout} = this.context;
    const notes: string[] = [];
    const outcome = await withChanges(this, flags, notes, (options) =>
      removeHooks(host, layout, guest, options),
    );
    const {hooks} = outcome;
    const result = {...changeResult(host, [outcome], flags, notes, []), hooks};
    if (result.dryRun) for (const line of result.steps) this.log(line);
    else this.log(result.changed ? 'the hooks were removed' : 'there are no hooks to remove');
    return result;
  }
}
