/**
 * What identifies a card beyond vendor and device, so that it is recognized when buses are renumbered or cards are
 * moved. Each part is undefined if it is not known.
 */
export interface Identity {
  /** Subsystem vendor:device, `10de:1b80`. */
  readonly subsystem?: string;
  /**
   * `0000:00/1c.0/00.0`: the root bus, then device and function of each bridge, and of the function itself. It stays
   * the same when buses are renumbered, because it contains no number of a bus that is behind a bridge.
   */
  readonly path?: string;
  /**
   * `pcie:` and the PCI Express Device Serial Number, which can be read at any time; `nvme:` and the disk's serial
   * number or `mac:` and the address of a network interface, which can be read only while the host driver has the card.
   */
  readonly serial?: string;
}

/** The syntax of each part; libexec/records.sh checks the same. */
const patterns: Readonly<Record<keyof Identity, RegExp>> = {
  subsystem: /^[0-9a-f]{4}:[0-9a-f]{4}$/,
  path: /^[0-9a-f]{4,}:[0-9a-f]{2}(?:\/[0-9a-f]{2}\.[0-7])+$/,
  serial: /^(?:pcie|nvme|mac):[A-Za-z0-9:._-]+$/,
};

/** Whether the text is a valid value of this part of an identity. */
export function isIdentity(part: keyof Identity, text: string): boolean {
  return patterns[part].test(text);
}
