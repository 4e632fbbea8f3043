import type {Layout} from '../../config/layout.js';
import {printClaimLine} from '../records/claim-line.js';
import type {RecordContent} from '../records/record.js';

/** The path of the list of claims, on the root file system and in the initramfs. libexec/reserve.sh reads it there. */
export function claimListPath(layout: Layout): string {
  return `${layout.config}/initramfs-claims`;
}

/** The text of the list. */
export function printClaimList(claims: readonly RecordContent[]): string {
  return [
    '# Written by pearasys: the enabled claims. The initramfs reserves these devices for their drivers before udev starts.',
    '# In each line: slot, vendor and device, driver, subsystem, path, serial number; - stands for what is not recorded.',
    '# Each change of a claim writes it again. To undo: pearasys boot disable',
    ...claims.map(printClaimLine).sort(),
    '',
  ].join('\n');
}

/** The lines of a list without comments. */
export function claimLines(text: string): string[] {
  return text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
}
