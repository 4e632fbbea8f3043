import type {HostReader} from '../../host/host.js';

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
  return readConfigured(host) === true ? 'on' : 'not-loaded';
}

/** The options that modprobe(8) will pass to the module, see modprobe.d(5); the kernel command line comes last. */
function readConfigured(host: HostReader): boolean | undefined {
  const arguments_ = (host.readText('/proc/cmdline') ?? '')
    .split(/\s+/)
    .filter((word) => word.startsWith('vfio.'))
    .map((word) => word.slice('vfio.'.length));
  const values = [...readOptions(host).flatMap((options) => options.split(/\s+/)), ...arguments_]
    .map((word) => /^enable_unsafe_noiommu_mode(?:=(.*))?$/.exec(word))
    .filter((match) => match !== null);
  const last = values.at(-1);
  return last === undefined ? undefined : isTrue(last[1] ?? '1');
}

/** The options of `options vfio` lines. */
function readOptions(host: HostReader): string[] {
  const files = new Map<string, string>();
  // A file in an earlier folder replaces one of the same name in a later one.
  for (const folder of ['/lib/modprobe.d', '/usr/lib/modprobe.d', '/run/modprobe.d', '/etc/modprobe.d'])
    for (const name of host.list(folder)) if (name.endsWith('.conf')) files.set(name, `${folder}/${name}`);
  return [...files]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([, path]) => (host.info(path)?.kind === 'file' ? host.readText(path) : undefined) ?? '')
    .flatMap((text) => text.replaceAll('\\\n', ' ').split('\n'))
    .map((line) => /^\s*options\s+vfio\s+(.*)$/.exec(line)?.[1])
    .filter((options) => options !== undefined);
}

/** As the kernel reads a boolean parameter (kstrtobool in lib/kstrtox.c). */
function isTrue(text: string): boolean {
  return /^(?:[yYtT1]|[oO][nN])/.test(text);
}
