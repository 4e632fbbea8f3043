import {readParents} from '../../../../devices/mdev/parent.js';
import {BaseCommand} from '../../base-command.js';
import {firstTypesLines} from '../../../mdevctl/format.js';
import {reportParent} from '../../mdev-report.js';
import type {MdevTypesResult} from './types.js';

/** `pearasys mdev list-available`: types of which more can be created, as the first mdevctl prints them. */
export default class MdevListAvailable extends BaseCommand {
  static override description = 'The types with instances left, in the format of the first mdevctl.';

  async run(): Promise<MdevTypesResult> {
    await this.parse(MdevListAvailable);
    const parents = readParents(await this.openHost());
    if (!this.jsonEnabled()) this.context.stdout.write(firstTypesLines(parents, true));
    return {parents: parents.map(reportParent)};
  }
}
