import {FileError} from '../../host/errors.js';
import type {HostReader} from '../../host/host.js';
import type {Device} from './device.js';
import type {Slot} from './slot.js';

/** The names of a device in the system's pci.ids. Undefined where it has none. */
export interface DeviceNames {
  /** `VGA compatible controller`. */
  readonly class: string | undefined;
  /** `NVIDIA Corporation`. */
  readonly vendor: string | undefined;
  /** `GP104 [GeForce GTX 1080]`. */
  readonly device: string | undefined;
}

/** Where distributions keep the file: packages hwdata and pci.ids. */
const files = ['/usr/share/hwdata/pci.ids', '/usr/share/misc/pci.ids'];

/** The largest file accepted, in bytes; the real one has 1.5 million. */
const mostBytes = 16 << 20;

/**
 * The names of these devices, by slot. The file is searched in one pass for the ids that are needed: parsing all of
 * its forty thousand lines would take longer than the rest of a command.
 * @param onProblem is called with the reason why a file of names is ignored.
 */
export function readDeviceNames(
  host: HostReader,
  devices: readonly Pick<Device, 'slot' | 'id' | 'classCode'>[],
  onProblem: (problem: string) => void = () => undefined,
): ReadonlyMap<Slot, DeviceNames> {
  const ids = new Set<string>(devices.map(({id}) => id));
  const subclasses = new Set(devices.map(({classCode}) => classCode >>> 8));
  const classes = new Set([...subclasses].map(classWord));
  const names =
    devices.length === 0 ? new Map<string, string>() : searchNames(readFile(host, onProblem), ids, classes);
  // Devices of one kind share one entry: there may be thousands.
  const kinds = new Map([...subclasses].map((subclass) => [subclass, new Map<string, DeviceNames>()]));
  const result = new Map<Slot, DeviceNames>();
  for (const {slot, id, classCode} of devices) {
    const subclass = classCode >>> 8;
    const kind = kinds.get(subclass);
    let known = kind?.get(id);
    if (known === undefined) {
      known = {
        class: className(names, subclass),
        vendor: names.get(id.slice(0, 4)),
        device: names.get(id),
      };
      kind?.set(id, known);
    }
    result.set(slot, known);
  }
  return result;
}

/** Each device's name in one line, by slot: vendor and device, or the numbers in their place. */
export function readNames(
  host: HostReader,
  devices: readonly Pick<Device, 'slot' | 'id' | 'classCode'>[],
): ReadonlyMap<Slot, string> {
  const names = readDeviceNames(host, devices);
  return new Map(devices.map(({slot, id}) => [slot, printName(id, names.get(slot))]));
}

/** `NVIDIA Corporation GP104 [GeForce GTX 1080]`, `NVIDIA Corporation device 1b80`, or `device 10de:1b80`. */
export function printName(id: string, names: DeviceNames | undefined): string {
  if (names?.vendor === undefined) return `device ${id}`;
  return `${names.vendor} ${names.device ?? `device ${id.slice(5)}`}`;
}

/**
 * Searches a pci.ids file: each vendor in a line `10de  Name`, in order, followed by its devices in lines that begin
 * with a tab, and at the end the classes, `C 03  Name`, in the same way. Only the matches are decoded.
 * @param ids `10de:1b80`; the result has the same key, and the vendor under `10de`.
 * @param classes `0300`; the result has it under `C 0300`, and the base class under `C 03`.
 */
export function searchNames(
  file: Buffer,
  ids: ReadonlySet<string>,
  classes: ReadonlySet<string>,
): ReadonlyMap<string, string> {
  const names = new Map<string, string>();
  let from = 0;
  for (const [vendor, devices] of byPrefix(ids, 4)) from = searchBlock(file, from, vendor, devices, names);
  for (const [base, subclasses] of byPrefix(classes, 2))
    from = searchBlock(file, from, `C ${base}`, subclasses, names);
  return names;
}

/** Looks for one heading and for lines below it. @returns where to look for the next heading. */
function searchBlock(
  file: Buffer,
  from: number,
  heading: string,
  wanted: readonly string[],
  names: Map<string, string>,
): number {
  const start = file.indexOf(`\n${heading}  `, from, 'latin1');
  if (start < 0) return from;
  names.set(heading, nameAt(file, start + heading.length + 3));
  const end = blockEnd(file, start, heading);
  // Not beyond the end, where the same number is another vendor's device.
  const block = file.subarray(start, end);
  let at = 0;
  for (const word of wanted) {
    const line = `\n\t${word.replace(':', '')}  `;
    const found = block.indexOf(line, at, 'latin1');
    if (found < 0) continue;
    names.set(heading + word, nameAt(block, found + line.length));
    at = found;
  }
  return end;
}

/** Where the next heading is. Headings are sorted, so it begins with the same digit or a later one. */
function blockEnd(file: Buffer, start: number, heading: string): number {
  const digits = '0123456789abcdefC';
  for (let digit = digits.indexOf(heading.charAt(0)); digit < digits.length; digit++) {
    const end = file.indexOf(`\n${digits.charAt(digit)}`, start + 1, 'latin1');
    if (end >= 0) return end;
  }
  return file.length;
}

function nameAt(file: Buffer, start: number): string {
  const end = file.indexOf(10, start);
  return file.toString('utf8', start, end < 0 ? file.length : end).trim();
}

/** The words grouped by their beginning, all in order: `10de:1b80` below `10de`. */
function byPrefix(words: ReadonlySet<string>, length: number): Map<string, string[]> {
  const groups = new Map<string, string[]>();
  for (const word of [...words].sort()) {
    const prefix = word.slice(0, length);
    const group = groups.get(prefix);
    if (group === undefined) groups.set(prefix, [word.slice(length)]);
    else group.push(word.slice(length));
  }
  return groups;
}

/** The subclass's name, or the base class's where that is not known. */
function className(names: ReadonlyMap<string, string>, subclass: number): string | undefined {
  const word = classWord(subclass);
  return names.get(`C ${word}`) ?? names.get(`C ${word.slice(0, 2)}`);
}

/** Base class and subclass: `0300`. */
function classWord(subclass: number): string {
  return subclass.toString(16).padStart(4, '0');
}

/** Names are optional, because a device is known by its id: a file that cannot be read counts as missing. */
function readNamesFile(
  host: HostReader,
  file: string,
  onProblem: (problem: string) => void,
): Buffer | undefined {
  try {
    return host.readBytes(file, mostBytes);
  } catch (error) {
    if (!(error instanceof FileError)) throw error;
    onProblem(`${file} is ignored: ${error.message}`);
    return undefined;
  }
}

function readFile(host: HostReader, onProblem: (problem: string) => void): Buffer {
  for (const file of files) {
    const bytes = readNamesFile(host, file, onProblem);
    if (bytes !== undefined) return bytes;
  }
  return Buffer.alloc(0);
}
