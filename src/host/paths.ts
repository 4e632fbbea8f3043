/** State that lasts until the next boot: locks, and which devices were released by hand. */
export const runState = '/run/pearasys';

/**
 * The folder, beside a file, in which its new content is made before it is renamed into place. What a killed run
 * leaves in it is harmless: systemd, udev and modprobe skip names that begin with a dot, libvirt runs only regular
 * files (virFileIsExecutable), mdevctl reads only names that are UUIDs.
 */
export const draftFolder = '.pearasys-new';

/** What the run that holds the lock of this name has begun. If no run holds it, what a killed run had begun. */
export function unfinishedPath(name: string): string {
  return `${runState}/unfinished/${name}`;
}
