/**
 * The disk images of the test machine: a minimal Debian of each supported release, made once and cached under
 * `$PEARASYS_VM_CACHE` (or `$XDG_CACHE_HOME/pearasys/vm`), in a folder named after the suite and a hash of all that
 * goes into it. Folders of older recipes are not removed; the whole cache can be deleted at any time.
 */
import {createHash, randomUUID} from 'node:crypto';
import {existsSync} from 'node:fs';
import {mkdir, readFile, readdir, rename, rm} from 'node:fs/promises';
import {homedir} from 'node:os';
import path from 'node:path';
import {execa} from 'execa';

/** The Debian releases the product is proved on. */
export const SUITES = ['bookworm', 'trixie'] as const;
export type Suite = (typeof SUITES)[number];

/** What an image is made of. Different recipes have images of their own. */
export interface Recipe {
  suite: Suite;
  /** Further Debian packages. */
  packages?: readonly string[];
  /**
   * A program run after everything else is installed, with the image's root folder as its only argument; it can
   * `chroot` into it. Its text is part of the recipe.
   */
  script?: string;
}

/** A finished image. Never opened for writing: each run has its changes in a throw-away file. */
export interface Image {
  /** The root file system, ext4, no partitions. */
  disk: string;
  kernel: string;
  initrd: string;
}

const PACKAGES = [
  'systemd-sysv',
  'udev',
  'dbus',
  'linux-image-amd64',
  // Satisfies the kernel's dependency; the real initramfs-tools would spend a minute on an initrd nobody boots.
  'tiny-initramfs',
  'busybox-static',
  'cpio',
  'xz-utils',
  'zstd',
  'kmod',
  'pciutils',
  'pci.ids',
  'iproute2',
  'procps',
  'psmisc',
  'make',
  'nodejs',
  'driverctl',
  'dmsetup',
  'e2fsprogs',
  'strace',
];

/** What the host needs: a file that tells that it is there, and the Debian package that has it. */
const HOST_NEEDS: readonly {command: string; package: string; toBuild: boolean}[] = [
  {command: 'qemu-system-x86_64', package: 'qemu-system-x86', toBuild: false},
  {command: 'setpriv', package: 'util-linux', toBuild: false},
  {command: 'flock', package: 'util-linux', toBuild: false},
  {command: 'mmdebstrap', package: 'mmdebstrap', toBuild: true},
  {command: 'mke2fs', package: 'e2fsprogs', toBuild: true},
  {
    command: '/usr/share/keyrings/debian-archive-keyring.gpg',
    package: 'debian-archive-keyring',
    toBuild: true,
  },
];

const materials = path.join(import.meta.dirname, 'image');
/** Administrators' programs are not in everybody's PATH. */
const searchPath = [...(process.env['PATH'] ?? '').split(':'), '/usr/sbin', '/sbin'];

/** The folder with the images and the failed tests' logs. */
export function cacheFolder(): string {
  return (
    process.env['PEARASYS_VM_CACHE'] ??
    path.join(process.env['XDG_CACHE_HOME'] ?? path.join(homedir(), '.cache'), 'pearasys', 'vm')
  );
}

/** The suite named by the environment variable `SUITE`; without it the oldest supported one. */
export function chosenSuite(): Suite {
  const name = process.env['SUITE'] ?? 'bookworm';
  const suite = SUITES.find((known) => known === name);
  if (!suite) throw new Error(`SUITE is ${name}; known are ${SUITES.join(', ')}`);
  return suite;
}

/**
 * Whether machine tests can be run with this recipe.
 *
 * Installs what is missing when run as root on a system with apt-get. In CI, where a skipped test would look like
 * a passed one, it throws instead of giving a reason.
 * @returns undefined when they can, otherwise why not, as a sentence for people
 */
export async function available(recipe: Recipe = {suite: chosenSuite()}): Promise<string | undefined> {
  const why = await unavailable(recipe);
  if (why !== undefined && process.env['CI'] === 'true')
    throw new Error(`machine tests cannot be run: ${why}`);
  return why;
}

async function unavailable(recipe: Recipe): Promise<string | undefined> {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    return `the test machine needs an x86-64 Linux host, this is ${process.platform} on ${process.arch}.`;
  }
  const built = existsSync(await imageFolder(recipe));
  const root = process.getuid?.() === 0;
  let missing = missingPackages(built);
  if (missing.length > 0 && root && find('apt-get')) {
    process.stderr.write(`installing ${missing.join(', ')} for the machine tests\n`);
    const env = {DEBIAN_FRONTEND: 'noninteractive'};
    const install = ['install', '--yes', '--no-install-recommends', ...missing];
    // Package lists may be absent or outdated; only then is the slow update worth it.
    if ((await execa('apt-get', install, {env, reject: false, stdin: 'ignore'})).failed) {
      await execa('apt-get', ['update'], {env, reject: false, stdin: 'ignore'});
      const second = await execa('apt-get', install, {env, reject: false, stdin: 'ignore', all: true});
      if (second.failed) return `apt-get could not install ${missing.join(', ')}:\n${tail(second.all)}`;
    }
    missing = missingPackages(built);
  }
  if (missing.length > 0) return `not installed, and only root could install them: ${missing.join(', ')}.`;
  if (!built && !root) {
    return 'the image is not made yet, and only root can make it: run the machine tests as root once.';
  }
  return undefined;
}

/** The image of a recipe, made now if the cache does not have it. */
export async function ensureImage(recipe: Recipe): Promise<Image> {
  const folder = await imageFolder(recipe);
  if (!existsSync(folder)) await build(recipe, folder);
  return {
    disk: path.join(folder, 'root.ext4'),
    kernel: path.join(folder, 'vmlinuz'),
    initrd: path.join(folder, 'initrd'),
  };
}

function find(command: string): boolean {
  return command.startsWith('/')
    ? existsSync(command)
    : searchPath.some((folder) => existsSync(path.join(folder, command)));
}

function missingPackages(imageBuilt: boolean): string[] {
  const needs = HOST_NEEDS.filter((need) => !need.toBuild || !imageBuilt);
  return [...new Set(needs.filter((need) => !find(need.command)).map((need) => need.package))];
}

async function imageFolder(recipe: Recipe): Promise<string> {
  const hash = createHash('sha256');
  const parts = [
    import.meta.filename,
    ...(await readdir(materials)).sort().map((name) => path.join(materials, name)),
    ...(recipe.script === undefined ? [] : [recipe.script]),
  ];
  for (const part of parts) hash.update(await readFile(part)).update('\0');
  hash.update((recipe.packages ?? []).join(' '));
  return path.join(cacheFolder(), `${recipe.suite}-${hash.digest('hex').slice(0, 12)}`);
}

async function build(recipe: Recipe, folder: string): Promise<void> {
  const started = Date.now();
  process.stderr.write(`making the ${recipe.suite} image in ${folder}, once\n`);
  const work = `${folder}.${randomUUID().slice(0, 8)}`;
  const root = path.join(work, 'root');
  const packages = [...PACKAGES, ...(recipe.packages ?? [])];
  await mkdir(root, {recursive: true});
  try {
    await step('mmdebstrap', [
      '--mode=root',
      '--variant=minbase',
      `--include=${packages.join(',')}`,
      // The tree is thrown away when the image is made: it need not survive a power cut.
      '--dpkgopt=force-unsafe-io',
      ...['doc', 'man', 'locale', 'info'].map((name) => `--dpkgopt=path-exclude=/usr/share/${name}/*`),
      recipe.suite,
      root,
    ]);
    await step('sh', [path.join(materials, 'customize.sh'), root, work]);
    if (recipe.script !== undefined) await step(recipe.script, [root]);
    await step('mke2fs', [
      ...['-q', '-t', 'ext4', '-L', 'root', '-N', '150000', '-J', 'size=16'],
      // Or the machine would do it in the background of the tests.
      ...['-E', 'lazy_itable_init=0,lazy_journal_init=0'],
      ...['-d', root, path.join(work, 'root.ext4'), '6G'],
    ]);
    await rm(root, {recursive: true});
    await rename(work, folder).catch((error: unknown) => {
      // Somebody else has made the same image meanwhile; that one is as good.
      if (!existsSync(folder)) throw error;
    });
  } finally {
    await rm(work, {recursive: true, force: true});
  }
  process.stderr.write(`made in ${Math.round((Date.now() - started) / 1000)} s\n`);
}

async function step(command: string, args: readonly string[]): Promise<void> {
  const env = {LC_ALL: 'C.UTF-8', DEBIAN_FRONTEND: 'noninteractive', PATH: searchPath.join(':')};
  const {failed, all, shortMessage} = await execa(command, args, {
    env,
    all: true,
    reject: false,
    stdin: 'ignore',
  });
  if (failed) throw new Error(`the image could not be made: ${shortMessage}\n${tail(all)}`);
}

function tail(text: string | undefined): string {
  return (text ?? '').split('\n').slice(-30).join('\n');
}
