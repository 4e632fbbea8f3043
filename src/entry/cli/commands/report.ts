import {resolve} from 'node:path';
import {string} from '@oclif/core/flags';
import {Pseudonyms} from '../../../operations/pseudonyms.js';
import {writeOwnFile} from '../../../operations/own-file.js';
import {readPrivateNames, readReport, type ReportPart} from '../../../operations/report.js';
import {PearasysError} from '../../../host/errors.js';
import type {Host} from '../../../host/host.js';
import {printable} from '../../../host/printable.js';
import {BaseCommand, changeFlags} from '../base-command.js';
import {blindSpot} from '../device-report.js';
import {listResult, readList, type ListResult} from '../list-report.js';
import {changeResult, showChange, withChanges} from '../switching.js';
import {version} from '../version.js';

/** What `--json` prints. */
export interface ReportResult {
  readonly parts: readonly ReportPart[];
  /** As `list --json` prints it; null if the devices could not be read. */
  readonly list: ListResult | null;
  /** Why devices or their holders are missing from the list. */
  readonly listProblems: readonly string[];
  /** Where the report was written; null when it was only printed, and for a dry run. */
  readonly path: string | null;
}

/** The titles of the parts. */
const titles: Readonly<Record<ReportPart['name'], string>> = {
  versions: 'Versions',
  'command-line': 'Kernel command line: parameters about devices',
  units: 'Units',
  installed: 'Installed files',
  settings: 'Settings',
  files: 'Records, settings, units, rules and state',
  journal: 'Journal of the units, this boot',
};

/** Only the user may read the file: as root, the report has what others may not read. */
const reportMode = 0o600;

/** `pearasys report`: what a developer needs to know about a problem. */
export default class Report extends BaseCommand {
  static override description =
    'Collects what a developer needs to find a problem: versions, the parameters of the kernel command line that ' +
    'concern devices, the states of units, installed files that were changed, records, settings and state, ' +
    '`list --json`, and the messages of the units in this boot. Names of the host, of users, of guests and of ' +
    'volumes, paths of users, serial numbers, UUIDs, and MAC and IP addresses are replaced by words such as uuid-1: ' +
    'the same word always stands for the same thing. Nothing is sent anywhere. What needs root and cannot be read ' +
    'is named in the report. With --output, a terminal shows the report before it asks whether to write it.';
  static override examples = [
    '<%= config.bin %> report --output report.txt',
    'sudo <%= config.bin %> report > report.txt',
  ];
  static override flags = {
    ...changeFlags,
    output: string({summary: 'Write the report to this file', helpValue: 'FILE'}),
  };

  async run(): Promise<ReportResult> {
    const {flags} = await this.parse(Report);
    const host = await this.openHost();
    const {layout, interactive} = this.context;
    const found = {
      parts: await readReport(host, layout, {pearasys: version, node: process.version}),
      ...(await this.#readList(host)),
    };
    const pseudonyms = new Pseudonyms(readPrivateNames(host, layout, found));
    const report = pseudonyms.replaceIn(found) as Omit<ReportResult, 'path'>;
    // What others have chosen must not reach the terminal of who reads the file.
    const text = printable(reportText(report));
    if (flags.output === undefined) {
      this.log(text.trimEnd());
      return {...report, path: null};
    }
    const path = resolve(flags.output);
    if (interactive && !flags['dry-run'] && !this.jsonEnabled()) {
      this.log(text);
      const {confirm} = await import('../choose.js');
      await confirm(this.context, `Write this report to ${path}?`);
    }
    // Not into the image of --root.
    const machine = await this.context.openHost(undefined);
    const outcome = await withChanges(this, flags, [], (options) =>
      writeOwnFile(machine, path, text, options, reportMode),
    );
    if (flags['dry-run']) showChange(this, changeResult(machine, [outcome], flags, [], []));
    else this.log(`Written to ${path}. Read it before you send it.`);
    return {...report, path: flags['dry-run'] ? null : path};
  }

  /** What `list --json` prints. The report must not fail with it. */
  async #readList(host: Host): Promise<Pick<ReportResult, 'list' | 'listProblems'>> {
    const blind = blindSpot(host);
    const listProblems = blind === undefined ? [] : [blind];
    try {
      const list = listResult(await readList(host, this.context.layout));
      return {list: {...list, devices: list.devices}, listProblems};
    } catch (error) {
      if (!(error instanceof PearasysError)) throw error;
      return {list: null, listProblems: [...listProblems, error.message]};
    }
  }
}

/** The report for people. */
function reportText({parts, list, listProblems}: Omit<ReportResult, 'path'>): string {
  return [
    'Report of pearasys.',
    'Words such as host-1, user-1, guest-1, path-1 and uuid-1 stand for names and numbers of this machine.',
    ...parts.flatMap(({name, lines, problems}) => section(titles[name], lines, problems)),
    ...section('Devices, as list --json prints them', [JSON.stringify(list, null, 2)], listProblems),
    '',
  ].join('\n');
}

function section(title: string, lines: readonly string[], problems: readonly string[]): string[] {
  return ['', `== ${title}`, ...lines, ...problems.map((problem) => `not read: ${problem}`)];
}
