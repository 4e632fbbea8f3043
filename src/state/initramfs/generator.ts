import {devicePath} from '../../devices/pci/device.js';
import type {HostReader} from '../../host/host.js';
import type {RecordContent} from '../records/record.js';

/** A program that builds the initramfs, and that pearasys has a part for. */
export type GeneratorName = 'initramfs-tools' | 'dracut' | 'mkinitcpio';

/** An image of the initramfs. */
export interface InitramfsImage {
  /** The version of its kernel, as `uname -r` prints it. */
  readonly kernel: string;
  readonly path: string;
  /** Milliseconds since 1970. */
  readonly modified: number;
}

/** The generator of this machine. */
export interface Generator {
  readonly name: GeneratorName;
  /** The command that rebuilds all images. */
  readonly command: readonly [string, ...string[]];
  /** The images of the kernels that are installed, by version. */
  readonly images: readonly InitramfsImage[];
}

/** Why the images cannot be rebuilt here, or why that is not enough. */
interface RebuildObstacle {
  readonly kind: 'nixos' | 'ostree' | 'read-only' | 'unified';
  readonly reason: string;
  /** The commands for this system. */
  readonly advice: readonly string[];
  /** Whether the generator's command is still needed. */
  readonly rebuild: boolean;
}

/** What builds the initramfs of this machine. */
export interface InitramfsSystem {
  /** Undefined if none is installed that is supported. */
  readonly generator: Generator | undefined;
  /** Undefined if the images can be rebuilt. */
  readonly obstacle: RebuildObstacle | undefined;
}

/** Reads what builds the initramfs. Starts no process. */
export function readInitramfs(host: HostReader): InitramfsSystem {
  const generator = readGenerator(host);
  return {generator, obstacle: findObstacle(host, generator)};
}

/**
 * The image whose age tells whether a rebuild is due: that of the running kernel, or the newest one. Others may be left
 * over from kernels that no command rebuilds.
 */
export function currentImage(
  host: HostReader,
  images: readonly InitramfsImage[],
): InitramfsImage | undefined {
  const release = runningKernel(host);
  const newest = [...images].sort((a, b) => b.modified - a.modified)[0];
  return images.find(({kernel}) => kernel === release) ?? newest;
}

/** The version of the running kernel; undefined for an image of a system. */
export function runningKernel(host: HostReader): string | undefined {
  return host.readText('/proc/sys/kernel/osrelease')?.trim();
}

function readGenerator(host: HostReader): Generator | undefined {
  const installed = (...paths: readonly string[]) => paths.some((path) => host.exists(path));
  const versions = host.list('/lib/modules');
  const images = (paths: (kernel: string) => readonly string[]) =>
    versions.flatMap((kernel) => imageAt(host, kernel, paths(kernel)));
  if (installed('/usr/sbin/update-initramfs') && installed('/usr/share/initramfs-tools/hook-functions'))
    return {
      name: 'initramfs-tools',
      command: ['update-initramfs', '-u', '-k', 'all'],
      images: images((kernel) => [`/boot/initrd.img-${kernel}`]),
    };
  // The package of dracut may be there only for rescue media: then there are no presets to build.
  const presets = host.list('/etc/mkinitcpio.d').filter((name) => name.endsWith('.preset'));
  if (installed('/usr/bin/mkinitcpio') && presets.length > 0)
    return {
      name: 'mkinitcpio',
      command: ['mkinitcpio', '-P'],
      images: images((kernel) => presetImages(host, kernel)),
    };
  if (installed('/usr/bin/dracut', '/usr/sbin/dracut'))
    return {
      name: 'dracut',
      command: ['dracut', '--regenerate-all', '--force'],
      images: images((kernel) => dracutImages(host, kernel)),
    };
  return undefined;
}

/** The first of these files that exists. */
function imageAt(host: HostReader, kernel: string, paths: readonly string[]): InitramfsImage[] {
  for (const path of paths) {
    const info = host.info(path);
    if (info?.kind === 'file') return [{kernel, path, modified: info.modified}];
  }
  return [];
}

/** The images of a kernel in its preset, which is named after the kernel's package, see mkinitcpio(8). */
function presetImages(host: HostReader, kernel: string): string[] {
  const name = host.readText(`/lib/modules/${kernel}/pkgbase`)?.trim();
  const preset = name === undefined ? undefined : host.readText(`/etc/mkinitcpio.d/${name}.preset`);
  return [...(preset ?? '').matchAll(/^\s*default_(?:uki|image)=["']?([^"'\s#]+)/gm)].map(
    ([, path = '']) => path,
  );
}

/** Where dracut writes the image of a kernel, in the order in which dracut(8) looks. */
function dracutImages(host: HostReader, kernel: string): string[] {
  const machine = host.readText('/etc/machine-id')?.trim() ?? '';
  const unified = ['/efi/EFI/Linux', '/boot/efi/EFI/Linux', '/boot/EFI/Linux'].flatMap((folder) =>
    host
      .list(folder)
      .filter((name) => name.startsWith(`linux-${kernel}`) && name.endsWith('.efi'))
      .map((name) => `${folder}/${name}`),
  );
  return [
    ...unified,
    ...['/efi', '/boot', '/boot/efi'].map((folder) => `${folder}/${machine}/${kernel}/initrd`),
    `/lib/modules/${kernel}/initrd`,
    `/boot/initrd.img-${kernel}`,
    `/boot/initramfs-${kernel}.img`,
    `/boot/initrd-${kernel}`,
  ];
}

function findObstacle(host: HostReader, generator: Generator | undefined): RebuildObstacle | undefined {
  if (host.exists('/etc/NIXOS'))
    return {
      kind: 'nixos',
      reason: 'NixOS builds the initramfs from its configuration',
      advice: ['nixos-rebuild boot'],
      rebuild: false,
    };
  if (host.exists('/run/ostree-booted'))
    return {
      kind: 'ostree',
      reason: 'rpm-ostree builds the initramfs with each deployment',
      advice: ['rpm-ostree initramfs --enable  # if it is enabled already: the next rpm-ostree upgrade'],
      rebuild: false,
    };
  if (generator === undefined) return undefined;
  const command = generator.command.join(' ');
  const folder = (currentImage(host, generator.images)?.path ?? '/boot/').replace(/\/[^/]*$/, '');
  const mount = readOnlyMount(host, folder);
  if (mount !== undefined)
    return {
      kind: 'read-only',
      reason: `${mount} is read-only`,
      advice: [`mount -o remount,rw ${mount} && ${command}`],
      rebuild: false,
    };
  // systemd-stub(7) tells the booted system about itself: then kernel and initramfs are one file.
  const unified = generator.images.some(({path}) => path.endsWith('.efi'));
  if (unified || !host.exists(`/sys/firmware/efi/efivars/StubInfo-${loaderVendor}`)) return undefined;
  const layout = /^\s*layout=uki\s*$/m.test(host.readText('/etc/kernel/install.conf') ?? '');
  return {
    kind: 'unified',
    reason: 'this machine boots a unified kernel image, which contains a copy of the initramfs',
    advice: [
      layout
        ? 'kernel-install add-all'
        : 'ukify build --linux=KERNEL --initrd=INITRAMFS --output=IMAGE  # or the tool that made and signed it',
    ],
    rebuild: true,
  };
}

/** The lines of a NixOS configuration that reserve the claimed devices before udev starts. */
export function nixosLines(claims: readonly RecordContent[]): string[] {
  const lines = claims.flatMap(({slot, driver}) =>
    slot === 'any' ? [] : [`  echo ${driver} >${devicePath(slot, 'driver_override')}`],
  );
  return lines.length === 0 ? [] : ["boot.initrd.preDeviceCommands = ''", ...lines, "'';"];
}

/** The vendor of the variables of systemd's boot loader interface. */
const loaderVendor = '4a67b082-0a4c-41cf-b6c7-440b29bb8c4f';

/** The read-only file system that a folder is on; undefined if it is writable. */
function readOnlyMount(host: HostReader, folder: string): string | undefined {
  const mounts = (host.readText('/proc/self/mounts') ?? '').split('\n').map((line) => line.split(' '));
  const above = mounts
    .filter(([, point = '']) => point === '/' || folder === point || folder.startsWith(`${point}/`))
    .sort(([, a = ''], [, b = '']) => a.length - b.length)
    .at(-1);
  const [, point, , options = ''] = above ?? [];
  return options.split(',').includes('ro') ? point : undefined;
}
