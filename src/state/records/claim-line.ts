import {sysfsIds} from '../../devices/pci/id.js';
import type {RecordContent} from './record.js';

/**
 * A record in one line, for shell programs that have no time or no way to read the record itself: slot, vendor and
 * device, driver, subsystem, path and serial number, separated by one blank each, with `-` for what is not recorded.
 */
export function printClaimLine({slot, id, driver, identity}: RecordContent): string {
  const {subsystem, path, serial} = identity;
  const ids = subsystem?.split(':').map((number) => `0x${number}`);
  return [slot, sysfsIds(id).join('-'), driver, ids?.join('-') ?? '-', path ?? '-', serial ?? '-'].join(' ');
}
