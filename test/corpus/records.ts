import {putFile, type FileCase} from './files.js';

/**
 * Valid and invalid records, each with the expected result. The shell (libexec/early, libexec/claim), TypeScript
 * (src/state/records), and udev's rule after one of them has checked the record, must agree.
 */

/** The card of all records, and its driver. */
export const subject = {
  slot: '0000:02:00.0',
  vendor: '0x10de',
  product: '0x1b80',
  id: '10de:1b80',
  driver: 'vfio-pci',
  subsystem: '1043:8599',
  path: '0000:00/01.1/00.0',
} as const;

/** The path of the record. */
export const subjectPath = `/etc/pearasys/pci/${subject.slot}-${subject.vendor}-${subject.product}`;

const slotLine = `PEARASYS_SLOT=${subject.slot}\n`;
const idLine = `PEARASYS_ID=${subject.id}\n`;
const driverLine = `PEARASYS_DRIVER=${subject.driver}\n`;
const whole = `# Written by pearasys.\n${slotLine}${idLine}${driverLine}`;

/** Valid settings that any device accepts. */
const harmlessLines = ['D3COLD_ALLOWED=0', 'POWER_CONTROL=on', 'RESET=none', 'VARIANT=no']
  .map((line) => `PEARASYS_SET_${line}\n`)
  .join('');

/** Records with further valid settings, which not every device accepts. */
export const recordsWithSettings: readonly string[] = [
  'RESET_METHOD=none',
  'RESET_METHOD=flr',
  'RESET_METHOD=device_specific flr pm bus',
  'POWER_CONTROL=auto',
  'D3COLD_ALLOWED=1',
  'RESET=af_flr',
  'VARIANT=yes',
  ...['RESOURCE0_RESIZE=0', 'RESOURCE1_RESIZE=9', 'RESOURCE2_RESIZE=10', 'RESOURCE3_RESIZE=39'],
  ...['RESOURCE4_RESIZE=40', 'RESOURCE5_RESIZE=43'],
].map((line) => `${whole}PEARASYS_SET_${line}\n`);

/** One record: its content, and the properties of the file and its folder. */
export interface RecordCase extends FileCase {
  readonly name: string;
  /** Whether the record assigns the card to {@link subject}'s driver. */
  readonly obeyed: boolean;
  /** The lines with unknown keys, which are kept; none by default. */
  readonly unknown?: readonly string[];
}

const good = (name: string, content: string, more: Partial<RecordCase> = {}): RecordCase => ({
  name,
  content,
  obeyed: true,
  ...more,
});
const bad = (name: string, content: string, more: Partial<RecordCase> = {}): RecordCase => ({
  name,
  content,
  obeyed: false,
  ...more,
});

export const recordCases: readonly RecordCase[] = [
  good('as it is written', whole),
  good('without a comment', `${slotLine}${idLine}${driverLine}`),
  good('in another order', `${driverLine}${idLine}${slotLine}`),
  good('with an empty line', `${slotLine}\n${idLine}${driverLine}`),
  good('with siblings', `${whole}PEARASYS_TOGETHER=${subject.slot},0000:02:00.1\n`),
  good('with only itself as a sibling', `${whole}PEARASYS_TOGETHER=${subject.slot}\n`),
  good(
    'with an identity',
    `${whole}PEARASYS_SUBSYSTEM=${subject.subsystem}\nPEARASYS_PATH=${subject.path}\nPEARASYS_SERIAL=nvme:S4-_.x\n`,
  ),
  good(
    'with an identity in another order',
    `PEARASYS_SERIAL=mac:52:54:00:12:34:56\n${slotLine}PEARASYS_PATH=${subject.path}\n${idLine}${driverLine}`,
  ),
  good(
    'with siblings in other domains',
    `${whole}PEARASYS_TOGETHER=10000:e1:1f.7,${subject.slot},ffff1234:02:00.1\n`,
  ),
  good('with an unknown key', `${whole}PEARASYS_COLOR=red\n`, {unknown: ['PEARASYS_COLOR=red']}),
  good(
    'with several unknown keys among the others',
    `PEARASYS_A_1="b" c\n${slotLine}PEARASYS_2=\n${idLine}${driverLine}PEARASYS_B=c=d ~\n`,
    {unknown: ['PEARASYS_A_1="b" c', 'PEARASYS_2=', 'PEARASYS_B=c=d ~']},
  ),
  good('with settings', `${whole}${harmlessLines}`),
  good('with a setting of a newer version', `${whole}PEARASYS_SET_COLOR=red\n`, {
    unknown: ['PEARASYS_SET_COLOR=red'],
  }),
  good('with a BAR that no device has', `${whole}PEARASYS_SET_RESOURCE6_RESIZE=1\n`, {
    unknown: ['PEARASYS_SET_RESOURCE6_RESIZE=1'],
  }),
  good('with users', `${whole}PEARASYS_USER=alice\nPEARASYS_GROUP=vfio-users.1\nPEARASYS_MODE=0640\n`),
  good('with users by number', `${whole}PEARASYS_USER=0\nPEARASYS_GROUP=4294967294\n`),
  good('with the longest name of a user', `${whole}PEARASYS_USER=_${'x'.repeat(31)}\n`),
  good('with a mode', `${whole}PEARASYS_MODE=0666\n`),
  good('that only root can read', whole, {mode: 0o600}),
  good('that is read-only', whole, {mode: 0o444}),
  good('in a folder that only root can enter', whole, {folderMode: 0o700}),
  bad('that is empty', ''),
  bad('that is truncated', whole.slice(0, -1)),
  bad('that is truncated within the driver', whole.slice(0, -4)),
  bad('that ends with an unknown line', `${whole}nonsense\n`),
  bad('with an unknown key twice', `${whole}PEARASYS_COLOR=red\nPEARASYS_COLOR=red\n`),
  bad('with an unknown key in lower case', `${whole}PEARASYS_color=red\n`),
  bad('with an unknown key that is empty', `${whole}PEARASYS_=red\n`),
  bad('with an unknown key without a value', `${whole}PEARASYS_COLOR\n`),
  bad('with a blank after an unknown key', `${whole}PEARASYS_COLOR =red\n`),
  bad('with a tab in an unknown value', `${whole}PEARASYS_COLOR=r\ted\n`),
  bad('with an unknown value that is not ASCII', `${whole}PEARASYS_COLOR=rosé\n`),
  bad('with a key of another program', `${whole}COLOR=red\n`),
  bad('with a line of blanks', `${slotLine}  \n${idLine}${driverLine}`),
  bad('with blanks before a key', ` ${slotLine}${idLine}${driverLine}`),
  bad('with blanks after a value', `${slotLine}${idLine}PEARASYS_DRIVER=vfio-pci \n`),
  bad('with DOS line endings', whole.replaceAll('\n', '\r\n')),
  bad('with a NUL in the driver', `${slotLine}${idLine}PEARASYS_DRIVER=vfio\0-pci\n`),
  bad('that ends with NULs', `${whole}\0\0\0\0`),
  bad('without a slot', `${idLine}${driverLine}`),
  bad('without an id', `${slotLine}${driverLine}`),
  bad('without a driver', `${slotLine}${idLine}`),
  bad('with an empty driver', `${slotLine}${idLine}PEARASYS_DRIVER=\n`),
  bad('with two drivers', `${whole}PEARASYS_DRIVER=pci-stub\n`),
  bad('with one driver twice', `${whole}${driverLine}`),
  bad('for another driver', `${slotLine}${idLine}PEARASYS_DRIVER=pci-stub\n`),
  bad('for a driver that is a path', `${slotLine}${idLine}PEARASYS_DRIVER=../vfio-pci\n`),
  bad('for a driver with a quote', `${slotLine}${idLine}PEARASYS_DRIVER="vfio-pci"\n`),
  bad('about another slot', `PEARASYS_SLOT=0000:03:00.0\n${idLine}${driverLine}`),
  bad('about a slot without its domain', `PEARASYS_SLOT=02:00.0\n${idLine}${driverLine}`),
  bad('about another card', `${slotLine}PEARASYS_ID=10de:1b81\n${driverLine}`),
  bad('about an id in upper case', `${slotLine}PEARASYS_ID=10DE:1B80\n${driverLine}`),
  bad('about any slot', `PEARASYS_SLOT=any\n${idLine}${driverLine}`),
  bad('that does not include itself in its siblings', `${whole}PEARASYS_TOGETHER=0000:02:00.1\n`),
  bad('with an invalid slot as a sibling', `${whole}PEARASYS_TOGETHER=${subject.slot},x\n`),
  bad('with an empty list of siblings', `${whole}PEARASYS_TOGETHER=\n`),
  bad('with an incomplete slot as a sibling', `${whole}PEARASYS_TOGETHER=${subject.slot},12\n`),
  bad('with a device number as a sibling', `${whole}PEARASYS_TOGETHER=${subject.slot},0000:02:20.0\n`),
  bad('with a short domain of a sibling', `${whole}PEARASYS_TOGETHER=${subject.slot},0:02:00.1\n`),
  bad('with a superfluous zero in a sibling', `${whole}PEARASYS_TOGETHER=${subject.slot},00000:02:00.1\n`),
  bad(
    'with a domain that is too long in a sibling',
    `${whole}PEARASYS_TOGETHER=${subject.slot},100000000:02:00.1\n`,
  ),
  bad('with a comma after the last sibling', `${whole}PEARASYS_TOGETHER=${subject.slot},\n`),
  bad('with a comma before the first sibling', `${whole}PEARASYS_TOGETHER=,${subject.slot}\n`),
  bad('with a subsystem in upper case', `${whole}PEARASYS_SUBSYSTEM=10DE:1B80\n`),
  bad('with an empty subsystem', `${whole}PEARASYS_SUBSYSTEM=\n`),
  bad('with a subsystem that is too long', `${whole}PEARASYS_SUBSYSTEM=1043:85910\n`),
  bad('with a subsystem as sysfs prints it', `${whole}PEARASYS_SUBSYSTEM=0x1043:0x8591\n`),
  bad('with two subsystems', `${whole}PEARASYS_SUBSYSTEM=1043:8591\nPEARASYS_SUBSYSTEM=1043:8591\n`),
  bad('with an empty path', `${whole}PEARASYS_PATH=\n`),
  bad('with a path without a function', `${whole}PEARASYS_PATH=0000:00\n`),
  bad('with a path that ends with a slash', `${whole}PEARASYS_PATH=0000:00/1c.0/\n`),
  bad('with a path with an empty bridge', `${whole}PEARASYS_PATH=0000:00//1c.0\n`),
  bad('with a path with an incomplete function at its end', `${whole}PEARASYS_PATH=0000:00/1c.0/0\n`),
  bad('with a path with an incomplete function in between', `${whole}PEARASYS_PATH=0000:00/1c.0/0/00.0\n`),
  bad('with a path with a function number above 7', `${whole}PEARASYS_PATH=0000:00/1c.0/00.8\n`),
  bad('with a path with a function number of two digits', `${whole}PEARASYS_PATH=0000:00/1c.00/00.0\n`),
  bad('with a path with a root bus of three digits', `${whole}PEARASYS_PATH=0000:000/1c.0\n`),
  bad('with a path with a domain that has another sign', `${whole}PEARASYS_PATH=0000.0:00/1c.0\n`),
  bad('with a path with two domains', `${whole}PEARASYS_PATH=0000:0000:00/1c.0\n`),
  bad('with a path without a domain', `${whole}PEARASYS_PATH=00/1c.0/00.0\n`),
  bad('with a path in upper case', `${whole}PEARASYS_PATH=0000:00/1C.0/00.0\n`),
  bad('with the path of its folder in sysfs', `${whole}PEARASYS_PATH=/sys/devices/pci0000:00/0000:00:1c.0\n`),
  bad('with a path with a blank', `${whole}PEARASYS_PATH=0000:00/1c.0 \n`),
  bad('with two paths', `${whole}PEARASYS_PATH=0000:00/1c.0\nPEARASYS_PATH=0000:00/1d.0\n`),
  bad('with an empty serial number', `${whole}PEARASYS_SERIAL=\n`),
  bad('with a serial number that has only a prefix', `${whole}PEARASYS_SERIAL=pcie:\n`),
  bad('with a serial number without a prefix', `${whole}PEARASYS_SERIAL=00-11-22-33-44-55-66-77\n`),
  bad('with a serial number of an unknown kind', `${whole}PEARASYS_SERIAL=usb:12\n`),
  bad('with a blank in a serial number', `${whole}PEARASYS_SERIAL=nvme:S4 X\n`),
  bad('with a slash in a serial number', `${whole}PEARASYS_SERIAL=nvme:../x\n`),
  bad('with two serial numbers', `${whole}PEARASYS_SERIAL=pcie:1\nPEARASYS_SERIAL=nvme:1\n`),
  bad('with a setting twice', `${whole}PEARASYS_SET_RESET=flr\nPEARASYS_SET_RESET=flr\n`),
  ...[
    'RESET_METHOD=',
    'RESET_METHOD= flr',
    'RESET_METHOD=flr ',
    'RESET_METHOD=flr  bus',
    'RESET_METHOD=FLR',
    'RESET_METHOD=flr,bus',
    'RESET_METHOD=1',
    'RESET=',
    'RESET=flr bus',
    'RESET=../flr',
    'D3COLD_ALLOWED=',
    'D3COLD_ALLOWED=2',
    'D3COLD_ALLOWED=01',
    'POWER_CONTROL=',
    'POWER_CONTROL=off',
    'VARIANT=',
    'VARIANT=1',
    'RESOURCE0_RESIZE=',
    'RESOURCE1_RESIZE=44',
    'RESOURCE1_RESIZE=100',
    'RESOURCE5_RESIZE=16G',
    'RESOURCE5_RESIZE=0x8',
  ].map((line) => bad(`with the setting ${line}`, `${whole}PEARASYS_SET_${line}\n`)),
  ...[
    'USER=',
    'USER=a b',
    'USER=alice"',
    'USER=$env{X}',
    'USER=%n',
    'USER=-alice',
    'USER=.alice',
    'USER=1alice',
    'USER=alice:vfio',
    'USER=DOMAIN\\alice',
    'USER=00',
    'USER=4294967295',
    'USER=99999999999',
    `USER=${'x'.repeat(33)}`,
    'GROUP=',
    'GROUP=a,b',
    'GROUP=-1',
    'MODE=',
    'MODE=660',
    'MODE=00660',
    'MODE=0060',
    'MODE=0770',
    'MODE=0661',
    'MODE=4660',
    'MODE=rw',
    'USER=alice\nPEARASYS_USER=bob',
  ].map((line) => bad(`with the access ${line}`, `${whole}PEARASYS_${line}\n`)),
  bad('of more than 100 lines', `${'#\n'.repeat(100)}${whole}`),
  bad('of more than 64 KiB', `#${'x'.repeat(70_000)}\n${whole}`),
  bad('that others can write', whole, {mode: 0o646}),
  bad('that a group can write', whole, {mode: 0o664}),
  bad('in a folder that others can write', whole, {folderMode: 0o777}),
  bad('in a folder that a group can write', whole, {folderMode: 0o775}),
  bad('of another user', whole, {foreign: 'file'}),
  bad("in another user's folder", whole, {foreign: 'folder'}),
  bad('that is a link', whole, {kind: 'link'}),
  bad('that is a folder', whole, {kind: 'folder'}),
  bad('that is a FIFO', whole, {kind: 'fifo'}),
];

/** Creates the record of a case on the machine below a folder, and replaces an existing one. */
export function putRecord(root: string, one: RecordCase): void {
  putFile(root, subjectPath, one);
}
