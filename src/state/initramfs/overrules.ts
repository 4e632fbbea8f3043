import type {HostReader} from '../../host/host.js';

/** Something else that decides in the initramfs which driver gets a device. */
export interface Overrule {
  /** A file, or `kernel command line`. */
  readonly where: string;
  readonly text: string;
  /** What it does to claims. */
  readonly effect: string;
}

const ids = 'vfio-pci takes each card with one of these ids, also a twin that is not claimed';

/** What overrules the claims, or does the same in another way. */
export function readOverrules(host: HostReader): Overrule[] {
  const words = (host.readText('/proc/cmdline') ?? '').trim().split(/\s+/);
  return [
    ...words
      .filter((word) => /^vfio[-_]pci\.ids=./.test(word))
      .map((text) => ({where: 'kernel command line', text, effect: ids})),
    ...modprobeFiles(host).flatMap((path) => inModprobe(host, path)),
    ...driverctl(host),
  ];
}

/** The files of modprobe.d(5); one in a folder further on is replaced by one of the same name before it. */
function modprobeFiles(host: HostReader): string[] {
  const files = new Map<string, string>();
  for (const folder of ['/etc', '/run', '/usr/local/lib', '/usr/lib', '/lib'])
    for (const name of host.list(`${folder}/modprobe.d`))
      if (name.endsWith('.conf') && !files.has(name)) files.set(name, `${folder}/modprobe.d/${name}`);
  return [...files.values()];
}

function inModprobe(host: HostReader, path: string): Overrule[] {
  const lines = (host.readText(path) ?? '').replaceAll('\\\n', ' ').split('\n');
  return lines.flatMap((line) => {
    const text = line.trim().replaceAll(/\s+/g, ' ');
    if (/^options vfio[-_]pci .*\bids=./.test(text)) return [{where: path, text, effect: ids}];
    const [, module = ''] = /^softdep (\S+) .*\bvfio[-_]pci\b/.exec(text) ?? [];
    if (module === '') return [];
    return [{where: path, text, effect: `loads vfio-pci before ${module}; claims do not need it`}];
  });
}

/** driverctl's saved drivers, which its own part of dracut applies in the initramfs. */
function driverctl(host: HostReader): Overrule[] {
  const modules = '/usr/lib/dracut/modules.d';
  const part = host.list(modules).find((name) => /^\d+driverctl$/.test(name));
  return host.list('/etc/driverctl.d').map((name) => ({
    where: `/etc/driverctl.d/${name}`,
    text: host.readText(`/etc/driverctl.d/${name}`)?.trim() ?? '',
    effect:
      (part === undefined
        ? 'driverctl sets this driver at boot'
        : `driverctl sets this driver in the initramfs (${modules}/${part})`) +
      '; to import it: pearasys service import',
  }));
}
