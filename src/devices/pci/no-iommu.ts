import type {HostReader} from '../../host/host.js';
import type {Device} from './device.js';

/** The parameter of the vfio module that lets it take devices without an IOMMU group, as the kernel lists it. */
export const noIommuParameter = '/sys/module/vfio/parameters/enable_unsafe_noiommu_mode';

/**
 * Whether VFIO takes devices without an IOMMU group (`vfio_group_find_or_alloc` in drivers/vfio/group.c): `on`, `off`,
 * `not-loaded` when the vfio module is not loaded and nothing turns the mode on, or `unsupported` by this kernel
 * (CONFIG_VFIO_NOIOMMU).
 */
export type NoIommuMode = 'on' | 'off' | 'not-loaded' | 'unsupported';

/** Reads the mode; for a module that is not loaded, from the settings that it will be loaded with. */
export function readNoIommuMode(host: HostReader): NoIommuMode {
  const parameter = host.readText(noIommuParameter);
  if (parameter !== undefined) return isTrue(parameter) ? 'on' : 'off';
  if (host.exists('/sys/module/vfio')) return 'unsupported';
  return readConfigured(host).at(-1)?.on === true ? 'on' : 'not-loaded';
}

/** A setting of the parameter that the module will be loaded with. */
export interface Configured {
  /** The file, or `the kernel command line`. */
  readonly from: string;
  readonly on: boolean;
}

/**
 * The options that modprobe(8) will pass to the module, see modprobe.d(5), in order: the last one counts. The kernel
 * command line comes after all files.
 */
export function readConfigured(host: HostReader): Configured[] {
  const words = (host.readText('/proc/cmdline') ?? '')
    .split(/\s+/)
    .filter((word) => word.startsWith('vfio.'))
    .map((word) => ({from: 'the kernel command line', word: word.slice('vfio.'.length)}));
  return [...readOptions(host), ...words].flatMap(({from, word}) => {
    const match = /^enable_unsafe_noiommu_mode(?:=(.*))?$/.exec(word);
    return match === null ? [] : [{from, on: isTrue(match[1] ?? '1')}];
  });
}

/** The words of `options vfio` lines. */
function readOptions(host: HostReader): {readonly from: string; readonly word: string}[] {
  const files = new Map<string, string>();
  // A file in an earlier folder replaces one of the same name in a later one.
  for (const folder of ['/lib/modprobe.d', '/usr/lib/modprobe.d', '/run/modprobe.d', '/etc/modprobe.d'])
    for (const name of host.list(folder)) if (name.endsWith('.conf')) files.set(name, `${folder}/${name}`);
  return [...files]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([, path]) => {
      const text = (host.info(path)?.kind === 'file' ? host.readText(path) : undefined) ?? '';
      return text
        .replaceAll('\\\n', ' ')
        .split('\n')
        .flatMap((line) => /^\s*options\s+vfio\s+(.*)$/.exec(line)?.[1]?.split(/\s+/) ?? [])
        .map((word) => ({from: path, word}));
    });
}

/**
 * Whether the device is outside of all IOMMU groups. While VFIO has it in no-IOMMU mode, the kernel shows a group with
 * this name (vfio_noiommu_group_alloc in drivers/vfio/group.c).
 */
export function isWithoutIommu(host: HostReader, {group}: Pick<Device, 'group'>): boolean {
  return group === undefined || host.readText(`/sys/kernel/iommu_groups/${group}/name`) === 'vfio-noiommu';
}

/** Whether vfio is part of the kernel: then modprobe.d has no effect on it. */
export function isBuiltInVfio(host: HostReader): boolean {
  return host.exists('/sys/module/vfio') && !host.exists('/sys/module/vfio/initstate');
}

/** As the kernel reads a boolean parameter (kstrtobool in lib/kstrtox.c). */
function isTrue(text: string): boolean {
  return /^(?:[yYtT1]|[oO][nN])/.test(text);
}
