import {usageError} from '../host/errors.js';

/** `0000:04:00.0`: domain, bus, device and function of a PCI function, lower case. Made only by {@link parseSlot}. */
export type Slot = string & {readonly __brand: 'Slot'};

// Domains above ffff are what the kernel gives to Intel VMD and Hyper-V buses; devices go to 1f, functions to 7.
const pattern = /^(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([01][0-9a-f])\.([0-7])$/;
/** A slot as the kernel and we print it; most are, and need no work. */
const canonical = /^[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$/;

/** The slot in the text, `04:00.0` meaning domain 0000; undefined when it is not one. */
export function asSlot(text: string): Slot | undefined {
  if (canonical.test(text)) return text as Slot;
  const match = pattern.exec(text.toLowerCase());
  if (match === null) return undefined;
  const [, domain = '0000', bus, device, fn] = match;
  return `${domain}:${bus}:${device}.${fn}` as Slot;
}

/** @throws PearasysError `bad-slot`, exit code 2. */
export function parseSlot(text: string): Slot {
  const slot = asSlot(text);
  if (slot === undefined)
    throw usageError(
      `'${text}' is not a slot`,
      'a slot is domain:bus:device.function in hexadecimal, as in 0000:04:00.0, or 04:00.0 in domain 0000; `pearasys list` shows them',
      'bad-slot',
    );
  return slot;
}

/** The slot without its function, `0000:04:00`: what siblings share. */
export function cardOf(slot: Slot): string {
  return slot.slice(0, slot.lastIndexOf('.'));
}

/** `pci_0000_04_00_0`: what libvirt's node devices are called, see virsh(1), nodedev-list. */
export function virshName(slot: Slot): string {
  return `pci_${slot.replace(/[:.]/g, '_')}`;
}
