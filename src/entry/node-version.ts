import {readFileSync} from 'node:fs';

/** The oldest Node that this runs on, as `18.19`: build/bundle.ts inserts what package.json says. */
declare const OLDEST_NODE: string;

/** How to get a new enough Node, by ID and ID_LIKE of os-release(5). */
const advice: readonly (readonly [ids: readonly string[], text: string])[] = [
  [['ubuntu'], 'Ubuntu has it in the package nodejs since 24.04'],
  [['debian'], 'Debian has it in the package nodejs since Debian 12'],
  [['fedora'], 'dnf install nodejs'],
  [['rhel', 'centos'], 'dnf module enable nodejs:20 && dnf install nodejs'],
  [['arch'], 'pacman -S nodejs'],
  [['suse', 'opensuse'], 'zypper install nodejs20'],
];

/**
 * What a user of an older Node is told.
 * @param version of the running Node, as in `process.versions.node`
 * @param readOsRelease the content of os-release(5), or nothing if there is none; called only if this Node is too old
 * @returns undefined if this Node is new enough
 */
export function nodeTooOld(
  oldest: string,
  version: string,
  readOsRelease: () => string | undefined,
): {readonly problem: string; readonly next: string} | undefined {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const [oldestMajor = 0, oldestMinor = 0] = oldest.split('.').map(Number);
  if (major > oldestMajor || (major === oldestMajor && minor >= oldestMinor)) return undefined;
  const osRelease = readOsRelease() ?? '';
  const valueOf = (key: string) => new RegExp(`^${key}=["']?(.*?)["']?$`, 'm').exec(osRelease)?.[1] ?? '';
  const ids = [valueOf('ID'), ...valueOf('ID_LIKE').split(' ')];
  const known = ids.map((id) => advice.find(([names]) => names.includes(id))?.[1]).find(Boolean);
  return {
    problem: `Node.js ${oldest} or newer is required; ${process.execPath} is v${version}`,
    next: known ?? 'install a newer one from your distribution or from https://nodejs.org/',
  };
}

/** Ends the process with 1 and a message if the running Node is too old. */
export function requireNode(): void {
  const old = nodeTooOld(OLDEST_NODE, process.versions.node, () => {
    try {
      return readFileSync('/etc/os-release', 'utf8');
    } catch {
      return undefined;
    }
  });
  if (old === undefined) return;
  console.error(`pearasys: ${old.problem}\ntry: ${old.next}`);
  process.exit(1);
}
