import type {HostReader} from '../../host/host.js';
import {distrust} from '../../config/trust.js';
import {parseDriver, type Driver} from '../../devices/pci/driver.js';
import {asSlot, type Slot} from '../../devices/pci/slot.js';
import {isIgnored, readDesired, type IgnoredFile, type WantedFile} from '../desired.js';

/** A driver that driverctl(8) has saved for a slot. It applies to any card in the slot. */
export interface DriverctlRecord extends WantedFile {
  readonly kind: 'driverctl';
  readonly slot: Slot;
  readonly driver: Driver;
  /** The content of the file, to restore it. */
  readonly content: string;
  /** Permission bits. */
  readonly mode: number;
}

/** The folder of driverctl: a file for each device, named after its bus and slot, that contains the driver. */
const folder = '/etc/driverctl.d';

/** The drivers that driverctl has saved for PCI devices, and the files that are ignored, with the reason. */
export function readDriverctl(host: HostReader): {records: DriverctlRecord[]; problems: IgnoredFile[]} {
  const records: DriverctlRecord[] = [];
  const problems: IgnoredFile[] = [];
  for (const name of host.list(folder)) {
    const path = `${folder}/${name}`;
    const slot = name.startsWith('pci-') ? asSlot(name.slice('pci-'.length)) : undefined;
    const untrusted = distrust(host, folder, 'directory') ?? distrust(host, path, 'file');
    const same = records.find((record) => record.slot === slot);
    const problem = (reason: string) => problems.push({kind: 'driverctl', path, reason});
    if (slot === undefined) problem('its name is not that of a PCI device');
    else if (same !== undefined) problem(`${same.path} is for the same slot`);
    else {
      const file = readDesired({kind: 'driverctl', path}, untrusted, () => readFile(host, path, slot));
      if (file === undefined) continue;
      if (isIgnored(file)) problems.push(file);
      else records.push(file);
    }
  }
  return {records, problems};
}

function readFile(host: HostReader, path: string, slot: Slot): DriverctlRecord | undefined {
  const content = host.readBytes(path)?.toString();
  if (content === undefined) return undefined;
  const mode = host.info(path)?.mode ?? 0o644;
  const driver = parseDriver(content.trim());
  return {kind: 'driverctl', path, slot, driver, content, mode, unknown: []};
}
