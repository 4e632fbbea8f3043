/** Compares what pearasys does with a device with what another program does for the same purpose, step by step. */
import assert from 'node:assert/strict';

/** A step that both take, or one in which they differ, with the reason. */
export type Row =
  | string
  | {
      /** Undefined if only pearasys takes the step. */
      readonly theirs?: string;
      /** Undefined if only the other program takes the step. */
      readonly ours?: string;
      readonly why: string;
    };

/**
 * A write to an attribute as a step: `devices/0000:01:00.0/driver_override=vfio-pci`. Programs write a newline, a NUL
 * or neither after a value, which is the same for the kernel; an override is cleared by one of these alone.
 */
export function writeTo(path: string, value: string): string {
  return `${path.replace(/^\/sys\/bus\/pci\//, '')}=${value.replace(/[\n\0]$/, '')}`;
}

/** The usual writes for a device. */
export function writesFor(slot: string) {
  return {
    setsOverride: (driver: string) => writeTo(`/sys/bus/pci/devices/${slot}/driver_override`, driver),
    clearsOverride: writeTo(`/sys/bus/pci/devices/${slot}/driver_override`, ''),
    unbinds: (driver: string) => writeTo(`/sys/bus/pci/drivers/${driver}/unbind`, slot),
    binds: (driver: string) => writeTo(`/sys/bus/pci/drivers/${driver}/bind`, slot),
    probes: writeTo('/sys/bus/pci/drivers_probe', slot),
  };
}

/** The steps of a plan, from its shell lines, without the checks, which change nothing. */
export function changesOf(lines: readonly string[]): string[] {
  return lines
    .filter((line) => !/^(?:test |! |udevadm settle )/.test(line))
    .map((line) => {
      const [, value, path] = /^echo '(.*)' > (\/\S+)(?: \|\| true)?$/.exec(line) ?? [];
      return path === undefined || value === undefined
        ? line.replace(/ <<'EOF'\n[^]*/, '')
        : writeTo(path, value);
    });
}

/** Both sequences. Rows that claim a difference where there is none are an error. */
export function columnsOf(rows: readonly Row[]): {readonly theirs: string[]; readonly ours: string[]} {
  for (const row of rows) if (typeof row !== 'string') assert.notEqual(row.theirs, row.ours, row.why);
  const column = (side: 'theirs' | 'ours') =>
    rows.map((row) => (typeof row === 'string' ? row : row[side])).filter((step) => step !== undefined);
  return {theirs: column('theirs'), ours: column('ours')};
}
