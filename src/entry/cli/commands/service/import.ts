import {readDevice} from '../../../../devices/pci/device.js';
import type {Outcome} from '../../../../engine/carry-out.js';
import {importDriverctl} from '../../../../operations/service-import.js';
import {readDriverctl, type DriverctlRecord} from '../../../../state/records/driverctl.js';
import {unitName} from '../../../../systemd/unit.js';
import {BaseCommand, changeFlags} from '../../base-command.js';
import {changeResult, noInitramfsFlag, withChanges, type ChangeResult} from '../../switching.js';

/** What `--json` prints. */
export interface ImportResult extends ChangeResult {
  /** The units, one for each imported file. */
  readonly units: readonly string[];
  /** Files that are not imported, and why. */
  readonly left: readonly {readonly path: string; readonly reason: string}[];
}

/** `pearasys service import`: makes records and units from what driverctl has saved. */
export default class ServiceImport extends BaseCommand {
  static override description =
    'Imports what driverctl has saved in /etc/driverctl.d: for each file, it does `service install` with its ' +
    'driver for the card that is in the slot now, and removes the file, so that only one of them controls the ' +
    'device. Devices are not changed. A file for a slot without a device is left unchanged, because driverctl ' +
    'does not record which card it is for.';
  static override examples = ['<%= config.bin %> service import --dry-run'];
  static override flags = {...changeFlags, 'no-initramfs': noInitramfsFlag};

  async run(): Promise<ImportResult> {
    const {flags} = await this.parse(ServiceImport);
    const host = await this.openHost();
    const {records, problems} = readDriverctl(host);
    const left = problems.map(({path, reason}) => ({path, reason}));
    const notes: string[] = [];
    const outcomes: Outcome[] = [];
    const taken: DriverctlRecord[] = [];
    for (const saved of records)
      if (readDevice(host, saved.slot) === undefined)
        left.push({path: saved.path, reason: `there is no device in slot ${saved.slot}`});
      else taken.push(saved);
    if (taken.length > 0)
      await withChanges(this, flags, notes, async (options) => {
        const wanted = {saved: taken, rebuild: !flags['no-initramfs']};
        outcomes.push(await importDriverctl(host, this.context.layout, wanted, options));
      });
    if (!flags['dry-run'])
      for (const saved of taken) this.log(`${unitName(saved)}, enabled; ${saved.path} was removed`);
    for (const {path, reason} of left) this.warn(`${path} is left unchanged: ${reason}`);
    const result = changeResult(host, outcomes, flags, notes, taken);
    if (result.dryRun) for (const line of result.steps) this.log(line);
    if (outcomes.length === 0) this.note('nothing to import from /etc/driverctl.d');
    return {...result, units: taken.map(unitName), left};
  }
}
