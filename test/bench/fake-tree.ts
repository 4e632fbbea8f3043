import {mkdirSync, readFileSync, symlinkSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';

/** What the kernel shows of one made-up function. */
interface FakeFunction {
  readonly slot: string;
  readonly vendor: string;
  readonly device: string;
  /** Six hexadecimal digits. */
  readonly classCode: string;
  readonly driver: string | undefined;
  readonly group: number;
}

/**
 * Class and driver, taken in turn; every tenth function is left without its driver. Machines with thousands of
 * functions have mostly virtual ones, given to guests or on the host's driver, and bridges.
 */
const sorts = [
  ['060400', 'pcieport'],
  ['020000', 'vfio-pci'],
  ['020000', 'e1000e'],
  ['120000', 'habanalabs'],
  ['020000', 'vfio-pci'],
  ['060400', 'pcieport'],
  ['030000', 'nouveau'],
  ['040300', 'snd_hda_intel'],
  ['120000', 'habanalabs'],
  ['020000', 'vfio-pci'],
  ['0c0330', 'xhci_hcd'],
  ['060400', 'pcieport'],
  ['120000', 'habanalabs'],
  ['0b4000', 'qat_4xxx'],
  ['0b4000', 'qat_4xxx'],
  ['010802', 'nvme'],
] as const;

/**
 * Lays out a folder as the kernel lays out /sys for that many PCI functions: the files that lspci, driverctl,
 * dpdk-devbind and pearasys read, network interfaces and disks included. Their ids are spread over all of pci.ids.
 */
export function makeFakeTree(folder: string, count: number): void {
  for (const path of [
    'bus/pci/devices',
    'bus/pci/drivers',
    'kernel/iommu_groups',
    'class/net',
    'class/block',
  ])
    mkdirSync(join(folder, path), {recursive: true});
  for (const path of [
    'class/graphics',
    'class/vtconsole',
    'dev/block',
    'dev/char',
    'module',
    'bus/pci/slots',
  ])
    mkdirSync(join(folder, path), {recursive: true});
  writeFileSync(join(folder, 'bus/pci/drivers_probe'), '');
  const drivers = new Set(sorts.map(([, driver]) => driver));
  for (const driver of drivers) mkdirSync(join(folder, 'bus/pci/drivers', driver));
  for (const one of fakeFunctions(count)) addFunction(folder, one);
}

function* fakeFunctions(count: number): Generator<FakeFunction> {
  const ids = knownIds();
  const distinct = 250;
  for (let index = 0; index < count; index++) {
    const [vendor = 'ffff', device = 'ffff'] =
      ids[Math.floor(((index % distinct) * ids.length) / distinct)] ?? [];
    const [classCode, driver] = sorts[index % sorts.length] ?? sorts[0];
    const card = index >>> 1;
    const hex = (value: number, width: number) => value.toString(16).padStart(width, '0');
    yield {
      slot: `${hex(card >>> 13, 4)}:${hex((card >>> 5) & 0xff, 2)}:${hex(card & 0x1f, 2)}.${index & 1}`,
      vendor,
      device,
      classCode,
      driver: index % 10 === 9 ? undefined : driver,
      group: card,
    };
  }
}

function addFunction(root: string, one: FakeFunction): void {
  const {slot, vendor, device, classCode, driver, group} = one;
  const place = `devices/pci${slot.slice(0, 7)}/${slot}`;
  const folder = join(root, place);
  mkdirSync(join(folder, 'power'), {recursive: true});
  const upper = (text: string) => text.toUpperCase();
  const modalias = `pci:v0000${upper(vendor)}d0000${upper(device)}sv00001043sd00008599bc${upper(classCode.slice(0, 2))}sc${upper(classCode.slice(2, 4))}i${upper(classCode.slice(4))}`;
  const files: Record<string, string> = {
    vendor: `0x${vendor}\n`,
    device: `0x${device}\n`,
    class: `0x${classCode}\n`,
    subsystem_vendor: '0x1043\n',
    subsystem_device: '0x8599\n',
    revision: '0xa1\n',
    irq: '16\n',
    numa_node: '0\n',
    driver_override: driver === 'vfio-pci' ? 'vfio-pci\n' : '(null)\n',
    modalias: `${modalias}\n`,
    enable: '1\n',
    local_cpus: 'ff\n',
    resource: Array.from({length: 13}, () => `${'0x'.padEnd(18, '0')} ${'0x'.padEnd(18, '0')} 0x0\n`).join(
      '',
    ),
    reset_method: 'flr bus\n',
    uevent: [
      ...(driver === undefined ? [] : [`DRIVER=${driver}`]),
      `PCI_CLASS=${upper(classCode.replace(/^0/, ''))}`,
      `PCI_ID=${upper(vendor)}:${upper(device)}`,
      'PCI_SUBSYS_ID=1043:8599',
      `PCI_SLOT_NAME=${slot}`,
      `MODALIAS=${modalias}`,
      '',
    ].join('\n'),
  };
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  writeFileSync(join(folder, 'config'), configSpace(one));
  if (classCode === '030000') writeFileSync(join(folder, 'boot_vga'), '0\n');
  symlinkSync('../../../bus/pci', join(folder, 'subsystem'));
  symlinkSync(`../../../${place}`, join(root, 'bus/pci/devices', slot));
  const members = join(root, 'kernel/iommu_groups', String(group), 'devices');
  mkdirSync(members, {recursive: true});
  symlinkSync(`../../../../${place}`, join(members, slot));
  symlinkSync(`../../../kernel/iommu_groups/${group}`, join(folder, 'iommu_group'));
  if (driver === undefined) return;
  symlinkSync(`../../../bus/pci/drivers/${driver}`, join(folder, 'driver'));
  symlinkSync(`../../../../${place}`, join(root, 'bus/pci/drivers', driver, slot));
  if (driver === 'e1000e') addInterface(root, place, group);
  if (driver === 'nvme') addDisk(root, place, group);
}

function addInterface(root: string, place: string, number: number): void {
  const name = `bench${number}`;
  mkdirSync(join(root, place, 'net', name), {recursive: true});
  writeFileSync(join(root, place, 'net', name, 'flags'), '0x1002\n');
  writeFileSync(join(root, place, 'net', name, 'operstate'), 'down\n');
  symlinkSync(`../../${place}/net/${name}`, join(root, 'class/net', name));
}

function addDisk(root: string, place: string, number: number): void {
  const path = `${place}/nvme/nvme${number}/nvme${number}n1`;
  mkdirSync(join(root, path, 'holders'), {recursive: true});
  symlinkSync(`../../${path}`, join(root, 'dev/block', `259:${number}`));
  symlinkSync(`../../${path}`, join(root, 'class/block', `nvme${number}n1`));
  writeFileSync(join(root, place, `nvme/nvme${number}/uevent`), `DEVNAME=nvme${number}\n`);
  symlinkSync(`../../${place}/nvme/nvme${number}`, join(root, 'dev/char', `240:${number}`));
}

/** The head of the configuration space, see the kernel's pci_regs.h: lspci reads ids, class and header type there. */
function configSpace({vendor, device, classCode}: FakeFunction): Buffer {
  const config = Buffer.alloc(256);
  config.writeUInt16LE(Number.parseInt(vendor, 16), 0);
  config.writeUInt16LE(Number.parseInt(device, 16), 2);
  config.writeUInt32LE((Number.parseInt(classCode, 16) << 8) | 0xa1, 8);
  config.writeUInt8(classCode === '060400' ? 1 : 0, 0x0e);
  config.writeUInt16LE(0x1043, 0x2c);
  config.writeUInt16LE(0x8599, 0x2e);
  return config;
}

/** Every vendor and device of the system's pci.ids. */
function knownIds(): [vendor: string, device: string][] {
  const ids: [string, string][] = [];
  let vendor = '';
  for (const line of readFileSync('/usr/share/misc/pci.ids', 'latin1').split('\n')) {
    const heading = /^([0-9a-f]{4}) {2}/.exec(line)?.[1];
    const device = /^\t([0-9a-f]{4}) {2}/.exec(line)?.[1];
    if (heading !== undefined) vendor = heading;
    else if (line.startsWith('C ')) break;
    else if (device !== undefined) ids.push([vendor, device]);
  }
  return ids;
}
