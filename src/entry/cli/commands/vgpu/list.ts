import {readVgpuReports, type VgpuReport} from '../../../../operations/vgpu.js';
import {desiredNotes, type IgnoredFile} from '../../../../state/desired.js';
import {BaseCommand} from '../../base-command.js';
import {hasColors} from '../../context.js';

/** What `--json` prints. */
export interface VgpuListResult {
  readonly vgpus: readonly VgpuReport[];
  /** Records that are ignored. */
  readonly problems: readonly Pick<IgnoredFile, 'path' | 'reason'>[];
}

/** `pearasys vgpu list`: the virtual functions for vGPUs, with their types. */
export default class VgpuList extends BaseCommand {
  static override description =
    "Lists the virtual functions on which NVIDIA's driver provides vGPUs without mediated devices: slot, id, the " +
    "GPU's physical function, the type that is set, the recorded type, and the state of the unit.";
  static override examples = ['<%= config.bin %> vgpu list'];

  async run(): Promise<VgpuListResult> {
    await this.parse(VgpuList);
    const host = await this.openHost();
    const {vgpus, records, problems} = await readVgpuReports(host, this.layout);
    const rows = vgpus.map(({slot, id, physical, type, recorded, unitState, present}) => [
      slot,
      id,
      physical ?? '-',
      type === null ? (present ? 'other driver' : 'absent') : type === 0 ? '-' : String(type),
      recorded === null ? '-' : String(recorded),
      unitState ?? '-',
    ]);
    const {stdout, environment} = this.context;
    if (stdout.isTerminal && rows.length > 0) {
      const {printTable} = await import('../../table.js');
      const columns = ['SLOT', 'ID', 'GPU', 'TYPE', 'RECORDED', 'UNIT'].map((head) => ({head}));
      this.logTable(await printTable(stdout, hasColors(stdout, environment), columns, rows));
    } else for (const row of rows) this.log(row.join('\t'));
    if (rows.length === 0) this.note('there is no virtual function for NVIDIA vGPUs');
    for (const note of desiredNotes([...problems, ...records])) this.warn(note);
    return {vgpus, problems: problems.map(({path, reason}) => ({path, reason}))};
  }
}
