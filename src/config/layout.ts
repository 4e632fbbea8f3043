import {readFileSync} from 'node:fs';
import {join} from 'node:path';

/** The paths of an installed machine. Fixed by `make install`; see `install.json` next to the bundle. */
export interface Layout {
  /** The folder of settings and records: `<SYSCONFDIR>/pearasys`. */
  readonly config: string;
  /** The programs that udev and systemd run: `<PREFIX>/libexec/pearasys`. */
  readonly libexec: string;
  /** The command: `<PREFIX>/sbin/pearasys`. */
  readonly command: string;
  /** The folder of the bundle: `<PREFIX>/lib/pearasys`, or `dist` in a checkout. */
  readonly library: string;
}

/** The layout of `make install` without any settings. */
export const defaultLayout: Layout = {
  config: '/etc/pearasys',
  libexec: '/usr/local/libexec/pearasys',
  command: '/usr/local/sbin/pearasys',
  library: '/usr/local/lib/pearasys',
};

/** The folder of the administrator's units, see systemd.unit(5). */
export const systemdUnits = '/etc/systemd/system';

/** The folder of the administrator's udev rules, see udev(7). */
export const udevRules = '/etc/udev/rules.d';

/** The folder of the udev rules that last until the next boot. A file in {@link udevRules} replaces one of the same name. */
export const udevRulesForBoot = '/run/udev/rules.d';

/** The folder of the units that generators write for this boot, see systemd.generator(7). */
export const generatedUnits = '/run/systemd/generator';

/** The layout written by `make install` into the folder of the running bundle; the default layout in a checkout. */
export function readLayout(folder: string): Layout {
  let text: string;
  try {
    text = readFileSync(join(folder, 'install.json'), 'utf8');
  } catch {
    return {...defaultLayout, library: folder};
  }
  return {...defaultLayout, library: folder, ...(JSON.parse(text) as Partial<Layout>)};
}
