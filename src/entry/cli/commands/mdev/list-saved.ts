import {readDefinitions} from '../../../../state/definitions/definition.js';
import {desiredNotes} from '../../../../state/desired.js';
import {BaseCommand} from '../../base-command.js';
import {readMdevReports, type MdevReports} from '../../mdev-report.js';

/** `pearasys mdev list-saved`: the mediated devices that are defined, as the first mdevctl prints them. */
export default class MdevListSaved extends BaseCommand {
  static override description =
    'The defined mediated devices, in the format of the first mdevctl: UUID, parent, type.';

  async run(): Promise<MdevReports> {
    await this.parse(MdevListSaved);
    const host = await this.openHost();
    const {mdevs, broken} = await readMdevReports(host);
    const listed = mdevs.filter(({definition}) => definition !== null);
    for (const {uuid, parent, definition} of listed) this.log(`${uuid} ${parent} ${definition?.type ?? ''}`);
    const files = readDefinitions(host);
    for (const note of desiredNotes([...files.broken, ...files.definitions])) this.warn(note);
    return {mdevs: listed, broken};
  }
}
