import {printName, readDeviceNames} from '../../../../devices/pci/names.js';
import {reportNodes, type NodeReport} from '../../access-report.js';
import {blindSpot} from '../../device-report.js';
import {hasColors} from '../../context.js';
import {printSize} from '../../../../devices/memory/size.js';
import {readHugePagesReport, type PoolReport} from '../../../../operations/hugepages.js';
import {selectForStatus} from '../../../../operations/userspace.js';
import {readUserspaceStatus, type UserspaceDevice} from '../../../../operations/userspace-status.js';
import {BaseCommand} from '../../base-command.js';
import {readUserspaceEnvironment} from '../../userspace-environment.js';
import {reportSkip, selectionOf, typeFlag, userspaceArgs, type SkippedDevice} from '../../userspace.js';

/** A device as `--json` prints it. */
export interface UserspaceReport {
  readonly slot: string;
  readonly id: string;
  readonly name: string;
  readonly types: readonly string[];
  /** SPDK's kind: `nvme`, `ioat`, `dsa`, `iaa`, `virtio` or `vmd`; null for others. */
  readonly kind: string | null;
  /** `userspace`, `kernel`, or `unused` without a driver. */
  readonly state: string;
  readonly driver: string | null;
  readonly group: number | null;
  readonly numaNode: number | null;
  readonly interfaces: readonly string[];
  readonly disks: readonly string[];
  /** What was found on disks; empty for disks that need not be searched, because they are in use. */
  readonly contents: readonly {
    readonly node: string;
    readonly kind: 'blank' | 'data' | 'unknown';
    /** libblkid's names, for `data`. */
    readonly type: string | null;
    readonly usage: string | null;
    readonly partitionTable: string | null;
    /** Why it was not searched, for `unknown`. */
    readonly reason: string | null;
  }[];
  /** The driver that `userspace config` would give it; null if it would not be switched. */
  readonly wouldGet: string | null;
  /** Why it cannot be taken; null if it can be, or is. */
  readonly skipped: SkippedDevice | null;
  /** Modules of other drivers for it. */
  readonly unused: readonly string[];
  /** The nodes that programs open now, and who may. */
  readonly nodes: readonly NodeReport[];
}

/** What `--json` prints. */
export interface UserspaceStatusResult {
  readonly devices: readonly UserspaceReport[];
  /** The huge pages of each NUMA node and size. */
  readonly hugePages: readonly PoolReport[];
}

/** `pearasys userspace status`: which devices programs have, and which they could have. */
export default class UserspaceStatus extends BaseCommand {
  static override description =
    'Shows the devices that userspace drivers can drive: their types, whether they are on a userspace driver, a ' +
    'kernel driver or none, their NUMA nodes, network interfaces and disks, and why a device cannot be taken. ' +
    'Without --json, and if standard output is not a terminal: one line per device in slot order, tab-separated: ' +
    'slot, types, id, NUMA node, driver, state, interfaces and disks, reasons, nodes with owner, group and mode; ' +
    '- stands for none.';
  static override examples = [
    '<%= config.bin %> userspace status',
    '<%= config.bin %> userspace status --type storage --json',
  ];
  static override args = userspaceArgs;
  static override flags = {type: typeFlag};

  async run(): Promise<UserspaceStatusResult> {
    const {args, flags} = await this.parse(UserspaceStatus);
    const {blocked} = readUserspaceEnvironment(this.context.environment);
    const host = await this.openHost();
    const devices = selectForStatus(host, selectionOf(args.device, flags.type, undefined));
    const status = await readUserspaceStatus(host, devices, blocked);
    const problems: string[] = [];
    const names = readDeviceNames(host, devices, (problem) => problems.push(problem));
    const reports = status.map((one) =>
      report(one, printName(one.device.id, names.get(one.device.slot)), reportNodes(host, one.device.slot)),
    );
    const hugePages = readHugePagesReport(host).pools;
    if (!this.jsonEnabled()) await this.#print(reports, hugePages);
    for (const problem of problems) this.warn(problem);
    const blind = blindSpot(host);
    if (blind !== undefined) this.note(blind);
    return {devices: reports, hugePages};
  }

  async #print(reports: readonly UserspaceReport[], hugePages: readonly PoolReport[]): Promise<void> {
    const {stdout, environment} = this.context;
    if (!stdout.isTerminal) {
      for (const each of reports)
        this.log(
          cells(each)
            .map((cell) => cell || '-')
            .join('\t'),
        );
      return;
    }
    if (reports.length === 0) {
      this.log('No such device.');
      return;
    }
    const {printTable} = await import('../../table.js');
    const columns = [
      {head: 'SLOT'},
      {head: 'TYPE'},
      {head: 'ID'},
      {head: 'NODE'},
      {head: 'DRIVER'},
      {head: 'STATE'},
      {head: 'PROVIDES', shrinks: true},
      {head: 'CANNOT BE TAKEN BECAUSE', shrinks: true},
      {head: 'NODES', shrinks: true},
    ];
    const colors = hasColors(stdout, environment);
    this.logTable(await printTable(stdout, colors, columns, reports.map(cells)));
    if (hugePages.length === 0) return;
    const heads = ['HUGE PAGES OF NODE', 'SIZE', 'FREE', 'TOTAL'].map((head) => ({head}));
    const rows = hugePages.map(({node, pageSize, free, pages}) => [
      String(node ?? '-'),
      printSize(pageSize),
      String(free),
      String(pages),
    ]);
    this.logTable(`\n${await printTable(stdout, colors, heads, rows)}`);
  }
}

function report(
  {device, types, kind, state, numaNode, interfaces, disks, contents, driver, skip, unused}: UserspaceDevice,
  name: string,
  nodes: readonly NodeReport[],
): UserspaceReport {
  return {
    slot: device.slot,
    id: device.id,
    name,
    types,
    kind: kind ?? null,
    state,
    driver: device.driver ?? null,
    group: device.group ?? null,
    numaNode: numaNode ?? null,
    interfaces,
    disks,
    contents: contents.map(({node, contents: found}) => ({
      node,
      kind: found.kind,
      type: (found.kind === 'data' ? found.type : undefined) ?? null,
      usage: (found.kind === 'data' ? found.usage : undefined) ?? null,
      partitionTable: (found.kind === 'data' ? found.partitionTable : undefined) ?? null,
      reason: found.kind === 'unknown' ? found.reason : null,
    })),
    wouldGet: driver ?? null,
    skipped: skip === undefined ? null : reportSkip(skip),
    unused,
    nodes,
  };
}

function cells(one: UserspaceReport): string[] {
  return [
    one.slot,
    one.types.join(','),
    one.id,
    one.numaNode === null ? '' : String(one.numaNode),
    one.driver ?? '',
    one.state,
    [...one.interfaces, ...one.disks].join(' '),
    one.skipped?.reasons.join('; ') ?? '',
    one.nodes.map(({path, user, group, mode}) => `${path}:${user}:${group}:${mode}`).join(' '),
  ];
}
