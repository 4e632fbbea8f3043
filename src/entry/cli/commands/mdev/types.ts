import {parseParentName} from '../../../../devices/mdev/mdev-name.js';
import {readParent, readParents} from '../../../../devices/mdev/parent.js';
import {BaseCommand} from '../../base-command.js';
import {jsonText, typesJson, typesLines} from '../../../mdevctl/format.js';
import {reportParent, type ParentReport} from '../../mdev-report.js';
import {dumpJsonFlag, mdevFlags} from '../../mdevs.js';

/** What `pearasys mdev types --json` prints. */
export interface MdevTypesResult {
  readonly parents: readonly ParentReport[];
}

/** `pearasys mdev types`: the parents and what can be made of them. */
export default class MdevTypes extends BaseCommand {
  static override description =
    'Prints each parent with its types, as mdevctl does. A parent need not be a PCI device.';
  static override examples = [
    '<%= config.bin %> mdev types',
    '<%= config.bin %> mdev types -p 00:02.0 --json',
  ];
  static override flags = {parent: mdevFlags.parent, dumpjson: dumpJsonFlag};

  async run(): Promise<MdevTypesResult> {
    const {flags} = await this.parse(MdevTypes);
    const host = await this.openHost();
    const named = flags.parent === undefined ? undefined : parseParentName(flags.parent);
    const one = named === undefined ? undefined : readParent(host, named);
    const parents = named === undefined ? readParents(host) : one === undefined ? [] : [one];
    if (flags.dumpjson) this.log(jsonText(typesJson(parents)));
    else if (parents.length > 0) this.log(typesLines(parents).trimEnd());
    else this.note(named === undefined ? 'there is no parent' : `there is no parent ${named}`);
    return {parents: parents.map(reportParent)};
  }
}
