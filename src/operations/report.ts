/** What a report about a problem says of the machine, besides the devices. Nothing here changes anything. */
import {createHash} from 'node:crypto';
import {posix} from 'node:path';
import {readGroups, readUsers, type Accounts} from '../config/accounts.js';
import {generatedUnits, systemdUnits, udevRules, udevRulesForBoot, type Layout} from '../config/layout.js';
import {readSettings, settingKeys, settingsFolders, type Settings} from '../config/pearasys-conf.js';
import {CommandError, FileError, PearasysError} from '../host/errors.js';
import type {HostQuery, HostReader} from '../host/host.js';
import {runState} from '../host/paths.js';
import {definitionsFolder} from '../state/definitions/definition.js';
import {domainNames} from '../state/guests/domain.js';
import {readGuestFiles} from '../state/guests/guest-files.js';
import {guestUnit, unescapeInstance, type Guest} from '../state/guests/guest-name.js';
import {readOurHooks} from '../state/guests/hooks.js';
import {runningKernel} from '../state/initramfs/generator.js';
import {readMounts} from '../usage/mounts.js';
import type {Names} from './pseudonyms.js';

/** One part of a report. */
export interface ReportPart {
  readonly name: 'versions' | 'command-line' | 'units' | 'installed' | 'settings' | 'files' | 'journal';
  readonly lines: readonly string[];
  /** What could not be read, and why. */
  readonly problems: readonly string[];
}

/** The versions that only the running program knows. */
export interface ProgramVersions {
  readonly pearasys: string;
  readonly node: string;
}

/** Milliseconds that one program may take: a report is wanted most when something hangs. */
const limit = 10_000;

/** Lines of the journal: the newest. */
const journalLines = 1000;

/** Bytes of output of one program. */
const outputLimit = 4 << 20;

/** Bytes of one file that are shown. */
const longestFile = 16 << 10;

/** Files of one folder that are shown. */
const mostFiles = 200;

/** Our units, as patterns of systemctl(1) and journalctl(1). */
const ourUnits = ['pearasys*', 'mdev@*', 'mdev_*', 'vgpu@*', 'vgpu_*'];

/** All parts. A part that cannot be read says so; none waits longer than its programs may take. */
export async function readReport(
  host: HostQuery,
  layout: Layout,
  versions: ProgramVersions,
): Promise<ReportPart[]> {
  const isMachine = host.root === '/';
  return await Promise.all([
    part('versions', (told) => readVersions(host, versions, told)),
    part('command-line', (told) => {
      told.lines.push(...deviceParameters(host.readText('/proc/cmdline')));
    }),
    part('units', async (told) => {
      if (isMachine) await readOurUnits(host, told);
      else told.problems.push(`units have no state in ${host.root}: it is not the running machine`);
    }),
    part('installed', (told) => compareInstalled(host, layout, told)),
    part('settings', (told) => describeSettings(host, layout, told)),
    part('files', (told) => readFiles(host, layout, told)),
    part('journal', async (told) => {
      if (isMachine) await readJournal(host, told);
      else told.problems.push(`the journal of ${host.root} is not read`);
    }),
  ]);
}

/** What is found of a part. */
interface Told {
  readonly lines: string[];
  readonly problems: string[];
}

async function part(
  name: ReportPart['name'],
  read: (told: Told) => void | Promise<void>,
): Promise<ReportPart> {
  const told: Told = {lines: [], problems: []};
  try {
    await read(told);
  } catch (error) {
    if (!(error instanceof PearasysError)) throw error;
    told.problems.push(inOneLine(error));
  }
  return {name, ...told};
}

function inOneLine(error: PearasysError): string {
  return [error.message, ...error.details.slice(-1)].join(': ');
}

/** What a program prints, line by line. What it prints on standard error is a problem. */
async function ask(host: HostQuery, told: Told, file: string, args: readonly string[]): Promise<string[]> {
  try {
    const {stdout, stderr} = await host.ask(file, args, {limit, outputLimit});
    if (stderr.trim() !== '') told.problems.push(`${posix.basename(file)}: ${stderr.trim()}`);
    return linesOf(stdout);
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    told.problems.push(inOneLine(error));
    return [];
  }
}

function linesOf(text: string): string[] {
  return text.split('\n').filter((line) => line.trim() !== '');
}

/** libvirt's daemons, of which each has its version. */
const libvirtDaemons = [
  '/usr/sbin/libvirtd',
  '/usr/sbin/virtqemud',
  '/usr/bin/libvirtd',
  '/usr/bin/virtqemud',
];

async function readVersions(host: HostQuery, {pearasys, node}: ProgramVersions, told: Told): Promise<void> {
  const release = host.readText('/etc/os-release') ?? host.readText('/usr/lib/os-release') ?? '';
  const named = (key: string) => new RegExp(`^${key}="?([^"\\n]*)"?$`, 'm').exec(release)?.[1];
  told.lines.push(
    `pearasys ${pearasys}`,
    `Node ${node}`,
    `distribution: ${named('PRETTY_NAME') ?? named('ID') ?? 'unknown'}`,
  );
  if (host.root !== '/') {
    told.problems.push(`the programs in ${host.root} were not asked for their versions`);
    return;
  }
  told.lines.push(`kernel ${runningKernel(host) ?? 'unknown'}`);
  const libvirt = libvirtDaemons.find((path) => host.exists(path));
  const [systemd, udev, daemon] = await Promise.all([
    ask(host, told, 'systemctl', ['--version']),
    ask(host, told, 'udevadm', ['--version']),
    libvirt === undefined ? ['libvirt is not installed'] : ask(host, told, libvirt, ['--version']),
  ]);
  told.lines.push(
    ...systemd.slice(0, 1),
    ...udev.slice(0, 1).map((line) => `udev ${line}`),
    ...daemon.slice(0, 1),
  );
}

/** The parameters of the kernel command line that decide about devices and their drivers, see kernel-parameters. */
const deviceParameter =
  /^(?:pearasys|iommu|intel_iommu|amd_iommu|iommufd|arm-smmu\w*|vfio\w*|vfio-\w+|pci\w*|kvm\w*|mdev|nvidia\w*|nouveau|amdgpu|radeon|i915|xe|mlx\w+|nvme\w*|video|vga|nomodeset|module_blacklist|modprobe\.blacklist|initcall_blacklist|hugepages\w*|default_hugepagesz|rd\.driver\.\w+|rd\.pearasys\w*)(?:[.=]|$)/;

/** Only the parameters about devices: others, such as addresses and keys of encrypted disks, may be private. */
function deviceParameters(text: string | undefined): string[] {
  if (text === undefined) return ['no kernel command line'];
  // A value in double quotes may contain blanks.
  const all = text.match(/(?:[^\s"]|"[^"]*"?)+/g) ?? [];
  const shown = all.filter((word) => deviceParameter.test(word));
  const left = all.length - shown.length;
  return [...shown, `${left === 1 ? '1 other parameter is' : `${left} other parameters are`} left out`];
}

async function readOurUnits(host: HostQuery, told: Told): Promise<void> {
  const options = ['--no-pager', '--no-legend', '--plain', '--full'];
  const [states, files] = await Promise.all([
    ask(host, told, 'systemctl', ['list-units', '--all', ...options, ...ourUnits]),
    ask(host, told, 'systemctl', ['list-unit-files', ...options, ...ourUnits]),
  ]);
  told.lines.push('state of units:', ...states.map(indented), 'unit files:', ...files.map(indented));
}

function indented(line: string): string {
  return `  ${line}`;
}

/** The list of what `make install` has installed, in the format of sha256sum(1). */
function installedList(layout: Layout): string {
  return `${layout.libexec}/files.sha256`;
}

/** Bytes that an installed file may have. */
const largestInstalled = 32 << 20;

/** Which installed files are not as they were installed, and what overrides them. */
function compareInstalled(host: HostReader, layout: Layout, told: Told): void {
  const list = installedList(layout);
  const text = host.readText(list);
  if (text === undefined) {
    told.problems.push(`${list} does not exist: what was installed is not known`);
    return;
  }
  const installed = linesOf(text).flatMap((line) => {
    const [, digest, path] = /^([0-9a-f]{64}) [ *](\/.*)$/.exec(line) ?? [];
    return digest === undefined || path === undefined ? [] : [{digest, path}];
  });
  let same = 0;
  for (const {digest, path} of installed) {
    try {
      const bytes = host.readBytes(path, largestInstalled);
      if (bytes === undefined) told.lines.push(`${path} is missing`);
      else if (createHash('sha256').update(bytes).digest('hex') === digest) same++;
      else {
        told.lines.push(`${path} differs from what was installed`);
        if (/\/(?:udev\/rules\.d|systemd\/system)\//.test(path))
          told.lines.push(...shownText(bytes.toString()));
      }
    } catch (error) {
      if (!(error instanceof FileError)) throw error;
      told.problems.push(inOneLine(error));
    }
    for (const other of overriding(host, path)) told.lines.push(`${other} overrides ${path}`);
  }
  told.lines.push(`${same} of ${installed.length} files are as they were installed`);
}

/** What replaces a rule or unit of the package, or adds to it: systemd.unit(5), udev(7). */
function overriding(host: HostReader, path: string): string[] {
  const name = posix.basename(path);
  if (path.includes('/udev/rules.d/'))
    return [udevRules, udevRulesForBoot].map((folder) => `${folder}/${name}`).filter(isThere(host));
  if (!path.includes('/systemd/system/') || path.includes('.wants/')) return [];
  return [systemdUnits, '/run/systemd/system', generatedUnits].flatMap((folder) => [
    ...[`${folder}/${name}`].filter(isThere(host)),
    ...host.list(`${folder}/${name}.d`).map((file) => `${folder}/${name}.d/${file}`),
  ]);
}

function isThere(host: HostReader): (path: string) => boolean {
  return (path) => host.info(path, false) !== undefined;
}

/** The settings in effect, and where each comes from. */
function describeSettings(host: HostReader, layout: Layout, told: Told): void {
  const {settings, sources, problems} = readSettings(host, layout);
  for (const name of Object.keys(settingKeys) as (keyof Settings)[])
    told.lines.push(
      `${settingKeys[name]}=${settings[name] ? 'yes' : 'no'} (${sources[name] ?? 'the default'})`,
    );
  told.lines.push(...problems);
}

/** Whose names are those of our units, rules and settings. */
const ourNames = /pearasys|^(?:mdev|mdev_\w+|vgpu|vgpu_\w+)@/;

/** The text of records, settings and state, and of units and rules that were written on this machine. */
function readFiles(host: HostReader, layout: Layout, told: Told): void {
  const known = new Map<string, string>();
  const show = (path: string) => showFile(host, path, known, told);
  showFolder(host, layout.config, () => true, show, told);
  // Those of /run are shown below.
  for (const folder of settingsFolders(layout).filter((one) => one !== layout.config && one !== runState))
    showFolder(host, folder, (path) => path.startsWith(`${folder}/pearasys.conf`), show, told);
  for (const folder of [
    udevRules,
    udevRulesForBoot,
    systemdUnits,
    generatedUnits,
    '/run/systemd/system',
    '/etc/modprobe.d',
    '/etc/tmpfiles.d',
  ])
    showFolder(host, folder, (path) => ourNames.test(path.slice(folder.length + 1)), show, told);
  // Of scripts only the name: they are not ours, and may contain anything.
  showFolder(
    host,
    definitionsFolder,
    () => true,
    (path) => {
      if (path.startsWith(`${definitionsFolder}/scripts.d/`)) told.lines.push(`${path}: not shown`);
      else show(path);
    },
    told,
  );
  for (const path of readOurHooks(host)) told.lines.push(`${path}: a hook of pearasys`);
  // Locks are empty.
  showFolder(host, runState, (path) => !path.startsWith(`${runState}/lock`), show, told);
}

/** Shows the files of a folder and of those in it, at most {@link mostFiles}. */
function showFolder(
  host: HostReader,
  folder: string,
  isOurs: (path: string) => boolean,
  show: (path: string) => void,
  told: Told,
): void {
  const files: string[] = [];
  const search = (at: string, depth: number) => {
    const info = host.info(at, false);
    if (info === undefined || info.kind !== 'directory') return;
    const names = host.list(at);
    const isClosed = host.userId !== 0 && info.uid !== host.userId && (info.mode & 0o004) === 0;
    if (names.length === 0 && isClosed) told.problems.push(`${at} may only be read by root`);
    for (const name of names) {
      const path = `${at}/${name}`;
      if (host.info(path, false)?.kind === 'directory') {
        if (depth > 0) search(path, depth - 1);
      } else if (isOurs(path)) files.push(path);
    }
  };
  search(folder, 3);
  for (const path of files.slice(0, mostFiles)) show(path);
  if (files.length > mostFiles)
    told.lines.push(`${folder}: ${files.length - mostFiles} more files are not shown`);
}

/** The lines of a file, up to {@link longestFile}. */
function shownText(text: string): string[] {
  const more = text.length - longestFile;
  return [
    ...linesOf(text.slice(0, longestFile)).map(indented),
    ...(more > 0 ? [`  and ${more} more characters`] : []),
  ];
}

/** A slot in a path and in the text of a unit. */
const anySlot = /[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]/g;

/** @param known texts without their slots, each with the file that was shown: units of many slots are alike. */
function showFile(host: HostReader, path: string, known: Map<string, string>, told: Told): void {
  const link = host.readLink(path);
  if (link !== undefined) {
    told.lines.push(`${path} -> ${link}`);
    return;
  }
  const kind = host.info(path, false)?.kind;
  if (kind !== undefined && kind !== 'file') {
    told.lines.push(`${path}: not a regular file`);
    return;
  }
  try {
    const text = host.readText(path);
    if (text === undefined) return;
    const alike = text.replaceAll(anySlot, 'SLOT');
    const shown = known.get(alike);
    if (text.trim() === '') told.lines.push(`${path}: empty`);
    else if (shown !== undefined) told.lines.push(`${path}: as ${shown}, with its own slot`);
    else {
      known.set(alike, path);
      told.lines.push(`${path}:`, ...shownText(text));
    }
  } catch (error) {
    if (!(error instanceof FileError)) throw error;
    told.problems.push(inOneLine(error));
  }
}

/** The messages of our units in this boot, without the name of the host. */
async function readJournal(host: HostQuery, told: Told): Promise<void> {
  const lines = await ask(host, told, 'journalctl', [
    '--boot',
    '--no-pager',
    '--no-hostname',
    '--output=short-monotonic',
    `--lines=${journalLines}`,
    // A pattern that matches nothing is an error unless a whole name is among them.
    '--unit=pearasys-early.service',
    ...ourUnits.map((pattern) => `--unit=${pattern}`),
  ]);
  // What journalctl says itself: `-- No entries --`.
  told.lines.push(...lines.filter((line) => !line.startsWith('-- ')));
  if (lines.length >= journalLines) told.lines.push(`only the last ${journalLines} lines are shown`);
}

/** Mount points that say nothing about the machine's user. */
const usualMounts =
  /^\/(?:$|(?:boot|dev|etc|home|mnt|media|nix|opt|proc|root|run|snap|srv|sys|sysroot|tmp|usr|var|lib\w*)(?:\/(?:efi|firmware|lib|log|tmp|cache|spool|local|store))?$|(?:dev|proc|run|sys|snap|var\/lib|sysroot)\/)/;

/**
 * The names on this machine that no report contains.
 * @param report what may contain further ones: the journal also has guests that were removed.
 */
export function readPrivateNames(host: HostReader, layout: Layout, report: unknown): Names {
  const hosts = ['/proc/sys/kernel/hostname', '/etc/hostname'].map(
    (path) => host.readText(path)?.trim() ?? '',
  );
  const guests = readGuestFiles(host, layout);
  const names = [
    ...guests.guests.map(({guest}) => guest),
    ...guests.lists.primary,
    ...guests.lists.gpu,
    ...domainNames(host),
  ];
  return {
    // Each part of a name with dots is in some message alone.
    host: distinct(hosts.flatMap((name) => [name, name.split('.', 1).join('')])).filter(
      (name) => name !== 'localhost',
    ),
    user: distinct([readUsers(host), readGroups(host)].flatMap(namesOfPeople)),
    guest: distinct([
      ...names.flatMap((name) => [name, ...guestsIn(guestUnit(name as Guest))]),
      ...textsIn(report).flatMap(guestsIn),
    ]),
    volume: distinct(
      host
        .list('/sys/block')
        .map((disk) => host.readText(`/sys/block/${disk}/dm/name`))
        .filter((name) => name !== undefined),
    ),
    path: distinct(
      readMounts(host)
        .map(({target}) => target)
        .filter((target) => !usualMounts.test(target)),
    ),
  };
}

/** The units of guests: ours, and those in which libvirt runs them. */
const guestUnits = [
  /pearasys-(?:guest|awake)@([^\s@]+?)\.service/g,
  /machine-[a-z]+\\x2d\d+\\x2d([^\s/]+?)\.scope/g,
];

/** The guests whose units a text names: as in the unit's name, and what that is when it is not escaped. */
function guestsIn(text: string): string[] {
  return guestUnits
    .flatMap((pattern) => [...text.matchAll(pattern)])
    .flatMap(([, instance = '']) => [instance, unescapeInstance(instance)]);
}

/** All texts in a value that JSON can have. */
function textsIn(value: unknown): string[] {
  if (typeof value === 'string') return [value];
  return typeof value === 'object' && value !== null ? Object.values(value).flatMap(textsIn) : [];
}

function distinct(names: readonly string[]): string[] {
  return [...new Set(names)];
}

/** Accounts of people: those below 1000 belong to the system, see login.defs(5), and 65534 is nobody. */
function namesOfPeople(accounts: Accounts): string[] {
  return [...accounts].filter(([, number]) => number >= 1000 && number < 65534).map(([name]) => name);
}
