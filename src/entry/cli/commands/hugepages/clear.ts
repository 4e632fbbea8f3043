import {string} from '@oclif/core/args';
import {integer} from '@oclif/core/flags';
import {parseSize} from '../../../../devices/memory/size.js';
import {clearHugePages} from '../../../../operations/hugepages.js';
import {BaseCommand} from '../../base-command.js';
import {hugePagesResult, pageFlags, showHugePages, type HugePagesResult} from '../../hugepages.js';
import {withChanges} from '../../switching.js';

/** `pearasys hugepages clear`: frees unused huge pages, and undoes `hugepages set`. */
export default class HugepagesClear extends BaseCommand {
  static override description =
    'Frees the huge pages that are neither in use nor reserved, and removes what `hugepages set` has set for each ' +
    'boot, with its mounts: of all sizes, or of those named. With --node, only the pages of these nodes are freed, ' +
    'and the mounts stay.';
  static override examples = [
    '<%= config.bin %> hugepages clear',
    '<%= config.bin %> hugepages clear 1G --node 1',
  ];
  static override args = {
    pagesize: string({description: 'a page size, as in 2M', multiple: true, ignoreStdin: true}),
  };
  static override flags = {
    ...pageFlags,
    node: integer({
      char: 'n',
      summary: 'Only this NUMA node',
      helpValue: 'N',
      min: 0,
      multiple: true,
      multipleNonGreedy: true,
    }),
  };

  async run(): Promise<HugePagesResult> {
    const {args, flags} = await this.parse(HugepagesClear);
    const host = await this.openHost();
    const notes: string[] = [];
    const outcome = await withChanges(this, flags, notes, (options) =>
      clearHugePages(
        host,
        {pageSizes: (args.pagesize ?? []).map(parseSize), nodes: flags.node ?? []},
        options,
      ),
    );
    const result = hugePagesResult(host, outcome, flags, notes);
    showHugePages(this, result);
    return result;
  }
}
