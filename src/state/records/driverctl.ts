import {PearasysError} from '../../host/errors.js';
import type {HostReader} from '../../host/host.js';
import {distrust} from '../../config/trust.js';
import {parseDriver, type Driver} from '../../devices/pci/driver.js';
import {asSlot, type Slot} from '../../devices/pci/slot.js';
import type {RecordProblem} from './record.js';

/** A driver that driverctl(8) has saved for a slot. It knows of slots only: whichever card is there has the driver. */
export interface DriverctlRecord {
  readonly path: string;
  readonly slot: Slot;
  readonly driver: Driver;
  /** The file as it is, to be put back. */
  readonly content: string;
  /** Permission bits. */
  readonly mode: number;
}

/** Where driverctl saves: a file for each device, named after its bus and slot, with the driver in it. */
const folder = '/etc/driverctl.d';

/** What driverctl has saved for PCI devices, and the files that are left alone, with the reason. */
export function readDriverctl(host: HostReader): {records: DriverctlRecord[]; problems: RecordProblem[]} {
  const records: DriverctlRecord[] = [];
  const problems: RecordProblem[] = [];
  for (const name of host.list(folder)) {
    const path = `${folder}/${name}`;
    const slot = name.startsWith('pci-') ? asSlot(name.slice('pci-'.length)) : undefined;
    const untrusted = distrust(host, folder, 'directory') ?? distrust(host, path, 'file');
    const same = records.find((record) => record.slot === slot);
    if (slot === undefined) problems.push({path, reason: 'its name is not that of a PCI device'});
    else if (same !== undefined) problems.push({path, reason: `${same.path} is for the same slot`});
    else if (untrusted !== undefined) problems.push({path, reason: untrusted});
    else
      try {
        const content = host.readBytes(path)?.toString();
        if (content === undefined) continue;
        const mode = host.info(path)?.mode ?? 0o644;
        records.push({path, slot, driver: parseDriver(content.trim()), content, mode});
      } catch (error) {
        if (!(error instanceof PearasysError)) throw error;
        problems.push({path, reason: error.message});
      }
  }
  return {records, problems};
}
