import {closest} from 'fastest-levenshtein';
import {ExitCode, PearasysError, usageError} from '../host/errors.js';
import type {HostReader} from '../host/host.js';
import type {Device} from './device.js';
import {asId} from './id.js';
import {asSlot, type Slot} from './slot.js';

/** Settings of {@link findDevices}. */
export interface FindOptions {
  /** Whether an id may mean more than one device. */
  readonly all?: boolean;
}

/**
 * The devices that words on the command line mean: a slot (`0000:04:00.0`, `04:00.0`), an id (`10de:1b80`), or
 * the name of an interface or disk (`eth0`, `nvme0n1`). Each device once, in slot order.
 * @throws PearasysError `no-device` (exit code 4), `ambiguous-device` (2), or `usage` (2).
 */
export function findDevices(
  host: HostReader,
  devices: readonly Device[],
  words: readonly string[],
  options: FindOptions = {},
): Device[] {
  const found = new Set<Device>();
  for (const word of words) for (const device of findOne(host, devices, word, options)) found.add(device);
  return [...found].sort((a, b) => (a.slot < b.slot ? -1 : 1));
}

/**
 * The slot of the PCI device that a path below /sys/devices belongs to: the deepest one on the way, as a network
 * interface may hang below a virtio function, and that one below a bridge.
 */
export function slotInPath(path: string): Slot | undefined {
  return slotsInPath(path).at(-1);
}

/** The slots of all PCI devices on a path, the deepest last. */
export function slotsInPath(path: string): Slot[] {
  const slots: Slot[] = [];
  for (const part of path.split('/')) {
    // Most parts are none, and end in no function.
    const slot = part.charAt(part.length - 2) === '.' ? asSlot(part) : undefined;
    if (slot !== undefined) slots.push(slot);
  }
  return slots;
}

/** The slots of the functions behind an interface or disk; several for an NVMe disk with more than one path. */
export function slotsOfName(host: HostReader, name: string): Slot[] {
  if (!/^[A-Za-z0-9_.:-]+$/.test(name)) return [];
  for (const kind of ['net', 'block']) {
    const path = host.realPath(`/sys/class/${kind}/${name}`);
    if (path !== undefined) return slotsOfPath(host, path);
  }
  return [];
}

/** The slots behind a device's resolved sysfs path. */
export function slotsOfPath(host: HostReader, path: string): Slot[] {
  const slot = slotInPath(path);
  if (slot !== undefined) return [slot];
  // A multipath NVMe disk is a virtual device; its subsystem links the controllers it is reached by.
  const subsystem = /^(.*\/nvme-subsystem\/[^/]+)\//.exec(path)?.[1];
  if (subsystem === undefined) return [];
  return host
    .list(subsystem)
    .filter((name) => /^nvme\d+$/.test(name))
    .map((name) => slotInPath(host.realPath(`${subsystem}/${name}`) ?? ''))
    .filter((found) => found !== undefined);
}

function findOne(host: HostReader, devices: readonly Device[], word: string, options: FindOptions): Device[] {
  const slot = asSlot(word);
  if (slot !== undefined) {
    const device = devices.find((one) => one.slot === slot);
    if (device !== undefined) return [device];
    throw missing(
      `there is no device in slot ${slot}`,
      slot,
      devices.map((one) => one.slot),
    );
  }
  const id = asId(word);
  if (id !== undefined) {
    const matching = devices.filter((one) => one.id === id);
    if (matching.length === 0)
      throw missing(
        `there is no device with id ${id}`,
        id,
        devices.map((one) => one.id),
      );
    if (matching.length > 1 && options.all !== true)
      throw new PearasysError({
        code: 'ambiguous-device',
        exitCode: ExitCode.usage,
        message: `id ${id} is that of ${matching.length} devices: ${matching.map((one) => one.slot).join(', ')}`,
        hint: 'name the slots, or say --all to mean each of them',
      });
    return matching;
  }
  const slots = slotsOfName(host, word);
  if (slots.length > 0) return devices.filter((device) => slots.includes(device.slot));
  const names = [...host.list('/sys/class/net'), ...host.list('/sys/class/block')];
  if (names.includes(word)) throw usageError(`${word} is not on the PCI bus`, 'only PCI devices have a slot');
  if (word.includes(':') || /^[0-9a-fx.]*\.[0-9a-fx.]*$/i.test(word))
    throw usageError(
      `'${word}' is neither a slot nor an id`,
      `a slot is as in 0000:04:00.0, an id as in 10de:1b80${nearest(
        word,
        devices.map((one) => one.slot),
      )}`,
      'bad-slot',
    );
  throw missing(`there is no device, interface or disk called '${word}'`, word, names);
}

function missing(message: string, word: string, known: readonly string[]): PearasysError {
  return new PearasysError({
    code: 'no-device',
    exitCode: ExitCode.noDevice,
    message,
    hint: `\`pearasys list\` shows what is there${nearest(word, known)}`,
  });
}

/** `; the nearest is X`, or nothing when there is none. */
export function nearest(word: string, known: readonly string[]): string {
  return known.length === 0 ? '' : `; the nearest is ${closest(word, known)}`;
}
