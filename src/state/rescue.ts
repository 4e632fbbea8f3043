import {ExitCode, type ErrorDetails} from '../host/errors.js';
import type {HostReader} from '../host/host.js';
import type {Slot} from '../devices/pci/slot.js';

/**
 * What the kernel command line switches off for this boot, see kernel-command-line(7): `pearasys=off` switches off all
 * claims, the automatic start of mediated devices, and guests with devices; `pearasys.skip=SLOT[,SLOT]` does the same
 * for single devices. libexec/rescue.sh applies the same rule.
 */
export interface Rescue {
  /** Whether everything is switched off. */
  readonly all: boolean;
  /** The skipped slots as typed, but in lower case: with or without domain 0000. */
  readonly skipped: ReadonlySet<string>;
}

/** The word that switches everything off. */
export const offWord = 'pearasys=off';

/** The word that skips one device. */
function skipWord(slot: Slot): string {
  return `pearasys.skip=${slot}`;
}

/** Reads the kernel command line. An image has none, so nothing is switched off for it. */
export function readRescue(host: HostReader): Rescue {
  const words = (host.readText('/proc/cmdline') ?? '').trim().split(/\s+/);
  const skips = words
    .map((word) => /^pearasys\.skip=(.*)$/.exec(word)?.[1])
    .filter((list) => list !== undefined);
  return {
    all: words.includes(offWord),
    skipped: new Set(skips.flatMap((list) => list.toLowerCase().split(','))),
  };
}

/** The word that switches off the automatic handling of this device; undefined without one. */
export function switchedOffBy({all, skipped}: Rescue, slot: Slot): string | undefined {
  if (all) return offWord;
  return skipped.has(slot) || skipped.has(slot.replace(/^0000:/, '')) ? skipWord(slot) : undefined;
}

/** The details of an error about a device whose automatic handling is switched off. */
export function switchedOffError(message: string, word: string): ErrorDetails {
  return {
    code: 'switched-off',
    exitCode: ExitCode.refused,
    message: `${message}: ${word} on the kernel command line switches this off for this boot`,
    details: ['nothing was changed'],
    hint: `boot without ${word}`,
  };
}

/** The note on claims that are switched off; undefined if none is. */
export function describeRescue(rescue: Rescue, slots: readonly Slot[]): string | undefined {
  if (rescue.all) return `all claims are switched off for this boot by ${offWord} on the kernel command line`;
  const off = slots.filter((slot) => switchedOffBy(rescue, slot) !== undefined);
  if (off.length === 0) return undefined;
  return `claims switched off for this boot by pearasys.skip= on the kernel command line: ${off.join(', ')}`;
}
