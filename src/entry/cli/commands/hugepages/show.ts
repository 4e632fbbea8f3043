import {printSize} from '../../../../devices/memory/size.js';
import {readHugePagesReport, type HugePagesReport} from '../../../../operations/hugepages.js';
import {pagesInWords} from '../../../../state/hugepages/boot-pages.js';
import {BaseCommand} from '../../base-command.js';
import {hasColors} from '../../context.js';

/** Why a setting for the boot does not apply. */
function describeElsewhere(
  {node, pageSize, pages}: HugePagesReport['elsewhere'][number],
  pools: HugePagesReport['pools'],
): string {
  const [place, missing] =
    node === 'each'
      ? ['each NUMA node', 'has no NUMA nodes']
      : node === 'machine'
        ? ['a machine without NUMA nodes', 'has NUMA nodes']
        : [`NUMA node ${node}`, 'has no such node with memory'];
  const hasSize = pools.some((pool) => pool.pageSize === pageSize);
  const reason = hasSize ? missing : `has no huge pages of ${printSize(pageSize)}`;
  return `${pagesInWords(pages, pageSize)} ${pages === 1 ? 'is' : 'are'} set for ${place}, but this machine ${reason}`;
}

/** `pearasys hugepages show`: the huge pages of each node, and what is set for the boot. */
export default class HugepagesShow extends BaseCommand {
  static override description =
    'Shows the huge pages of each NUMA node and size: how many there are, are free and are in use, and how many are ' +
    'allocated at each boot; which processes use them; and where they are mounted.';
  static override examples = ['<%= config.bin %> hugepages show'];

  async run(): Promise<HugePagesReport> {
    await this.parse(HugepagesShow);
    const host = await this.openHost();
    const report = readHugePagesReport(host);
    await this.#print(report);
    for (const note of report.notes) this.warn(note);
    for (const one of report.elsewhere) this.warn(describeElsewhere(one, report.pools));
    return report;
  }

  async #print({pools, reserved, mounts, users}: HugePagesReport): Promise<void> {
    const rows = pools.map(({node, pageSize, pages, free, used, surplus, atBoot}) => [
      String(node ?? '-'),
      printSize(pageSize),
      String(pages),
      String(free),
      String(used),
      String(surplus),
      String(atBoot ?? '-'),
      printSize(pages * pageSize),
    ]);
    const {stdout, environment} = this.context;
    if (stdout.isTerminal && rows.length > 0) {
      const {printTable} = await import('../../table.js');
      const heads = ['NODE', 'SIZE', 'PAGES', 'FREE', 'USED', 'SURPLUS', 'AT BOOT', 'TOTAL'];
      const columns = heads.map((head) => ({head}));
      this.logTable(await printTable(stdout, hasColors(stdout, environment), columns, rows));
    } else for (const row of rows) this.log(row.join('\t'));
    if (pools.length === 0) this.note('this machine has no huge pages');
    for (const {pageSize, pages} of reserved)
      if (pages > 0)
        this.note(`processes have reserved ${pagesInWords(pages, pageSize)} that are still free`);
    for (const {text} of users) this.note(text);
    for (const {where, pageSize, mounted, unit} of mounts)
      this.note(
        `${printSize(pageSize)} at ${where}${mounted ? '' : ', not mounted'}${unit === null ? '' : ` (${unit})`}`,
      );
  }
}
