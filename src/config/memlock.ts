/** How much memory users may lock. VFIO locks all memory that a device may access. */
import type {HostReader} from '../host/host.js';

/** A limit in bytes, or `unlimited`. */
export type MemoryLimit = number | 'unlimited';

/** The limit of locked memory (RLIMIT_MEMLOCK) that a session of a user gets. */
export interface Memlock {
  /** Undefined if nothing says so: then it is the one of the kernel or of systemd. */
  readonly limit: MemoryLimit | undefined;
  /** The file and line that sets it. */
  readonly from: string | undefined;
}

const folder = '/etc/security/limits.d';

/**
 * The limit that pam_limits gives the sessions of a user, see limits.conf(5): the soft one, which is what VFIO checks,
 * but no more than the hard one. A line for the user comes before one for a group, and that before one for everybody;
 * of several, the last one counts.
 * @param user undefined for any member of the group.
 * @param groups the groups whose lines apply.
 */
export function readMemlock(host: HostReader, user: string | undefined, groups: readonly string[]): Memlock {
  const found = {
    soft: {memlock: unset, weight: 0},
    hard: {memlock: unset, weight: 0},
  };
  const files = [
    '/etc/security/limits.conf',
    ...host
      .list(folder)
      .filter((name) => name.endsWith('.conf'))
      .map((name) => `${folder}/${name}`),
  ];
  for (const path of files)
    for (const line of (host.info(path)?.kind === 'file' ? (host.readText(path) ?? '') : '').split('\n')) {
      const [domain = '', type = '', item = '', value = ''] = line.replace(/#.*/, '').trim().split(/\s+/);
      const limit = parseLimit(value);
      if (item !== 'memlock' || limit === undefined) continue;
      const weight =
        domain === user ? 3 : groups.some((one) => domain === `@${one}`) ? 2 : domain === '*' ? 1 : 0;
      for (const kind of ['soft', 'hard'] as const)
        if ([kind, '-'].includes(type) && weight > 0 && weight >= found[kind].weight)
          found[kind] = {memlock: {limit, from: path}, weight};
    }
  const [soft, hard] = [found.soft.memlock, found.hard.memlock];
  return inBytes(soft) < inBytes(hard) || hard.limit === undefined ? soft : hard;
}

const unset: Memlock = {limit: undefined, from: undefined};

/** For a comparison: a limit that is not set is not lower than one that is. */
function inBytes({limit}: Memlock): number {
  return limit === undefined || limit === 'unlimited' ? Infinity : limit;
}

/** In limits.conf a number is in KiB; `-1`, `unlimited` and `infinity` are no limit. */
function parseLimit(text: string): MemoryLimit | undefined {
  if (['-1', 'unlimited', 'infinity'].includes(text)) return 'unlimited';
  return /^\d+$/.test(text) ? Number(text) * 1024 : undefined;
}

/** The limit as people write it: `8 MiB`, `no limit`. */
export function printLimit(limit: MemoryLimit): string {
  if (limit === 'unlimited') return 'no limit';
  const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  let value = limit;
  for (; value >= 1024 && value % 1024 === 0 && unit < units.length - 1; unit++) value /= 1024;
  return `${value} ${units[unit] ?? ''}`;
}
