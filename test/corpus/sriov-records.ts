import {trustCases, type FileCase} from './files.js';

/**
 * Valid and invalid records of numbers of virtual functions, each with the expected result. The shell (libexec/early) and
 * TypeScript (src/state/sriov) must agree.
 */

/** The physical function of all records. Its virtual functions begin on the next bus. */
export const physical = {
  slot: '0000:06:00.0',
  id: '8086:10c9',
  name: '0000:06:00.0-0x8086-0x10c9',
  bridge: '0000:00:1b.0',
  subsystem: '8086:a03c',
  path: '0000:00/1b.0/00.0',
  offset: 254,
  stride: 2,
  virtualDevice: '10ca',
} as const;

/** The path of the record. */
export const physicalPath = `/etc/pearasys/sriov/${physical.name}`;

/** The first of its virtual functions. */
export const virtualSlots = [
  '0000:06:1f.6',
  '0000:07:00.0',
  '0000:07:00.2',
  '0000:07:00.4',
  '0000:07:00.6',
] as const;

/** One record. */
export interface SriovCase extends FileCase {
  readonly name: string;
  /** The drivers of its virtual functions, `-` for none, and whether the kernel offers them to others; undefined: ignored. */
  readonly drivers?: readonly string[];
  readonly autoprobe?: boolean;
}

const head = `# Written by pearasys.\nPEARASYS_SLOT=${physical.slot}\nPEARASYS_ID=${physical.id}\n`;
const whole = `${head}PEARASYS_VFS=3\n`;
const vfio = `${whole}PEARASYS_VF_AUTOPROBE=no\nPEARASYS_VF_DRIVER=vfio-pci\n`;
const none = ['-', '-', '-'] as const;

const bad = (name: string, content: string): SriovCase => ({name, content});

export const sriovCases: readonly SriovCase[] = [
  {name: 'with a number', content: whole, drivers: none, autoprobe: true},
  {name: 'with autoprobe', content: `${whole}PEARASYS_VF_AUTOPROBE=yes\n`, drivers: none, autoprobe: true},
  {name: 'without autoprobe', content: `${whole}PEARASYS_VF_AUTOPROBE=no\n`, drivers: none},
  {name: 'with a driver', content: vfio, drivers: ['vfio-pci', 'vfio-pci', 'vfio-pci']},
  {
    name: 'with a driver and autoprobe, which the driver excludes',
    content: `${whole}PEARASYS_VF_AUTOPROBE=yes\nPEARASYS_VF_DRIVER=vfio-pci\n`,
    drivers: ['vfio-pci', 'vfio-pci', 'vfio-pci'],
  },
  {
    name: 'with drivers of single ones',
    content: `${whole}PEARASYS_VF_DRIVERS=2:vfio-pci,0:iavf\n`,
    drivers: ['iavf', '-', 'vfio-pci'],
  },
  {
    name: 'with drivers of single ones before the number',
    content: `PEARASYS_VF_DRIVERS=1:none\n${vfio}`,
    drivers: ['vfio-pci', 'none', 'vfio-pci'],
  },
  {
    name: 'with the longest name of a driver',
    content: `${whole}PEARASYS_VF_DRIVERS=0:${'x'.repeat(64)}\n`,
    drivers: ['x'.repeat(64), '-', '-'],
  },
  {
    name: 'with an identity',
    content: `${vfio}PEARASYS_SUBSYSTEM=${physical.subsystem}\nPEARASYS_PATH=${physical.path}\n`,
    drivers: ['vfio-pci', 'vfio-pci', 'vfio-pci'],
  },
  {
    name: 'with keys of a newer version',
    content: `${vfio}PEARASYS_COLOR=red\nPEARASYS_VF_COLOR=red\n`,
    drivers: ['vfio-pci', 'vfio-pci', 'vfio-pci'],
  },
  bad('without a number', head),
  bad('with an empty number', `${head}PEARASYS_VFS=\n`),
  bad('with the number 0', `${head}PEARASYS_VFS=0\n`),
  bad('with a leading zero', `${head}PEARASYS_VFS=03\n`),
  bad('with a negative number', `${head}PEARASYS_VFS=-1\n`),
  bad('with a hexadecimal number', `${head}PEARASYS_VFS=0x3\n`),
  bad('with a number that no register holds', `${head}PEARASYS_VFS=65536\n`),
  bad('with a number that no shell holds', `${head}PEARASYS_VFS=99999999999999999999\n`),
  bad('with two numbers', `${whole}PEARASYS_VFS=3\n`),
  bad('with another word than yes and no', `${whole}PEARASYS_VF_AUTOPROBE=on\n`),
  bad('with an empty driver', `${whole}PEARASYS_VF_DRIVER=\n`),
  bad('with a driver that is a path', `${whole}PEARASYS_VF_DRIVER=../vfio-pci\n`),
  bad('with a driver of 65 letters', `${whole}PEARASYS_VF_DRIVER=${'x'.repeat(65)}\n`),
  bad('with a driver of 65 letters in the list', `${whole}PEARASYS_VF_DRIVERS=0:${'x'.repeat(65)}\n`),
  bad('with an empty list of drivers', `${whole}PEARASYS_VF_DRIVERS=\n`),
  bad('with a list that ends with a comma', `${whole}PEARASYS_VF_DRIVERS=0:iavf,\n`),
  bad('with a list that begins with a comma', `${whole}PEARASYS_VF_DRIVERS=,0:iavf\n`),
  bad('with a driver for no number', `${whole}PEARASYS_VF_DRIVERS=iavf\n`),
  bad('with a driver for an empty number', `${whole}PEARASYS_VF_DRIVERS=:iavf\n`),
  bad('with a number without a driver', `${whole}PEARASYS_VF_DRIVERS=0:\n`),
  bad('with a leading zero in the list', `${whole}PEARASYS_VF_DRIVERS=00:iavf\n`),
  bad('with a driver for a number that is too high', `${whole}PEARASYS_VF_DRIVERS=3:iavf\n`),
  bad('with a number twice in the list', `${whole}PEARASYS_VF_DRIVERS=0:iavf,0:iavf\n`),
  bad('with the driver of a claim', `${whole}PEARASYS_DRIVER=igb\n`),
  bad('with the siblings of a claim', `${whole}PEARASYS_TOGETHER=${physical.slot}\n`),
  bad('with the setting of a claim', `${whole}PEARASYS_SET_D3COLD_ALLOWED=0\n`),
  bad('about another slot', whole.replace(physical.slot, '0000:05:00.0')),
  bad('about another card', whole.replace(physical.id, '8086:10d3')),
  bad('that is truncated', whole.slice(0, -1)),
  bad('that is empty', ''),
  bad('with a line that is no key', `${whole}nonsense\n`),
  ...trustCases.map(({name, obeyed, ...file}): SriovCase => ({
    name,
    ...file,
    content: vfio,
    ...(obeyed === true ? {drivers: ['vfio-pci', 'vfio-pci', 'vfio-pci']} : {}),
  })),
];

/** The files that the rule reads for a record of this content, without the folder `/run/pearasys`. */
export function copiesFor({drivers = [], autoprobe = false}: SriovCase): Record<string, string> {
  if (drivers.length === 0) return {};
  const modules = [...new Set(drivers)].filter((driver) => driver !== '-' && driver !== 'none');
  const virtual = drivers.flatMap((driver, index) =>
    driver === '-'
      ? []
      : [
          [
            `vfs/${virtualSlots[index] ?? ''}-0x8086-0x${physical.virtualDevice}@${physical.bridge}`,
            `PEARASYS_DRIVER=${driver}\nPEARASYS_PF=${physical.slot}\nPEARASYS_SRIOV_RECORD=${physical.name}\n`,
          ] as const,
        ],
  );
  return Object.fromEntries([
    [
      `sriov/${physical.name}@${physical.bridge}`,
      `PEARASYS_SRIOV_RECORD=${physical.name}\nPEARASYS_VFS=${drivers.length}\nPEARASYS_VF_LAST=${drivers.length - 1}\n` +
        `PEARASYS_VF_AUTOPROBE=${autoprobe ? '1' : '0'}\n` +
        (modules.length === 0 ? '' : `PEARASYS_VF_MODULES=${modules.join(' ')}\n`) +
        'PEARASYS_VF_READY=yes\n',
    ],
    ...virtual,
  ]);
}
