import {parseUuid} from '../../../../devices/mdev/uuid.js';
import {undefineMdev} from '../../../../operations/mdev-define.js';
import {BaseCommand} from '../../base-command.js';
import {
  changeMdev,
  mdevChangeFlags,
  mdevFlags,
  readNames,
  uuidFlag,
  type MdevChangeResult,
} from '../../mdevs.js';

/** `pearasys mdev undefine`: a definition is taken away. */
export default class MdevUndefine extends BaseCommand {
  static override description =
    'A UUID may be defined on several parents: without --parent, all of these definitions are removed. An ' +
    'existing device stays.';
  static override examples = ['<%= config.bin %> mdev undefine -u 83c32df7-d52e-4ec1-9668-1f3c7e4df107'];
  static override flags = {
    uuid: uuidFlag,
    parent: mdevFlags.parent,
    ...mdevChangeFlags,
  };

  async run(): Promise<MdevChangeResult> {
    const {flags} = await this.parse(MdevUndefine);
    const uuid = parseUuid(flags.uuid);
    const {parent} = readNames(flags);
    const host = await this.openHost();
    const result = await changeMdev(this, host, uuid, flags, (options) =>
      undefineMdev(host, uuid, parent, options),
    );
    if (!result.dryRun)
      this.log(`${uuid} is no longer defined${parent === undefined ? '' : ` on ${parent}`}`);
    return result;
  }
}
