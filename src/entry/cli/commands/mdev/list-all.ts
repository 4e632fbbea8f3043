import {readParents} from '../../../../devices/mdev/parent.js';
import {BaseCommand} from '../../base-command.js';
import {firstTypesLines} from '../../../mdevctl/format.js';
import {reportParent} from '../../mdev-report.js';
import type {MdevTypesResult} from './types.js';

/** `pearasys mdev list-all`: all types of all parents, as the first mdevctl prints them. */
export default class MdevListAll extends BaseCommand {
  static override description = 'The types of all parents, in the format of the first mdevctl.';

  async run(): Promise<MdevTypesResult> {
    await this.parse(MdevListAll);
    const parents = readParents(await this.openHost());
    if (!this.jsonEnabled()) this.context.stdout.write(firstTypesLines(parents, false));
    return {parents: parents.map(reportParent)};
  }
}
