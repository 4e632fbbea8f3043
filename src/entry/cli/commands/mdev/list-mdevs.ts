import {BaseCommand} from '../../base-command.js';
import {readMdevReports, type MdevReports} from '../../mdev-report.js';

/** `pearasys mdev list-mdevs`: the mediated devices that are there, as the first mdevctl prints them. */
export default class MdevListMdevs extends BaseCommand {
  static override description =
    'The existing mediated devices, in the format of the first mdevctl: UUID, parent, type.';

  async run(): Promise<MdevReports> {
    await this.parse(MdevListMdevs);
    const {mdevs, broken} = await readMdevReports(await this.openHost());
    const listed = mdevs.filter(({active}) => active);
    for (const {uuid, parent, type} of listed) this.log(`${uuid} ${parent} ${type ?? ''}`);
    return {mdevs: listed, broken};
  }
}
