/** State that lasts until the next boot: locks, and which devices were released by hand. */
export const runState = '/run/pearasys';

/**
 * The folder, beside a file, in which its new content is made before it is renamed into place. What a killed run
 * leaves in it does no harm: systemd, udev and modprobe skip names that begin with a dot, libvirt runs regular files
 * only (virFileIsExecutable), mdevctl takes only UUIDs.
 */
export const draftFolder = '.pearasys-new';

/** What the run that holds the lock of this name has begun. Without a run that holds it: what a killed one has. */
export function unfinishedPath(name: string): string {
  return `${runState}/unfinished/${name}`;
}
