import {readFileSync} from 'node:fs';
import {join} from 'node:path';

/** Where things are on an installed machine. Fixed by `make install`; see `install.json` beside the bundle. */
export interface Layout {
  /** The folder of settings and records: `<SYSCONFDIR>/pearasys`. */
  readonly config: string;
  /** The programs that udev and systemd run: `<PREFIX>/libexec/pearasys`. */
  readonly libexec: string;
  /** The command: `<PREFIX>/sbin/pearasys`. */
  readonly command: string;
}

/** The layout of `make install` without any settings. */
export const defaultLayout: Layout = {
  config: '/etc/pearasys',
  libexec: '/usr/local/libexec/pearasys',
  command: '/usr/local/sbin/pearasys',
};

/** Where the administrator's units are; systemd.unit(5) fixes it. */
export const systemdUnits = '/etc/systemd/system';

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

/** The layout written by `make install` into the folder of the running bundle; the default one in a checkout. */
export function readLayout(folder: string): Layout {
  let text: string;
  try {
    text = readFileSync(join(folder, 'install.json'), 'utf8');
  } catch {
    return defaultLayout;
  }
  return {...defaultLayout, ...(JSON.parse(text) as Partial<Layout>)};
}
