import {posix} from 'node:path';
import {closest} from 'fastest-levenshtein';
import {ExitCode, PearasysError, usageError} from '../../host/errors.js';
import type {HostReader} from '../../host/host.js';
import {devicePath, isBridge, readDevice, type Device} from './device.js';
import {asId, type DeviceId} from './id.js';
import {asCard, asSlot, cardOf, type Card, type Slot} from './slot.js';

/** Settings of {@link findDevices}. */
export interface FindOptions {
  /** Whether an id may match more than one device. */
  readonly all?: boolean;
}

/**
 * The devices that words in arguments, options and files name: a slot in any spelling ({@link asSlot}), all functions
 * of a card (`02:00.*`, `0000:02:00`), an id (`10de:1b80`), the name of what a driver provides (`eth0`,
 * `nvme0n1`, `nvme0`, `card1`, `renderD128`), or a path: of a device node or a link to one, of an IOMMU group
 * (`/dev/vfio/14`, all its members), or of a folder below /sys. Each device once, in slot order.
 * @throws PearasysError `no-device` (exit code 4), `ambiguous-device`, `bad-slot` or `usage` (2).
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
 * The slots that a word names, as in {@link findDevices}. A slot that is spelled out need not have a device.
 * @param readAll reads the devices, for a word that is not a slot.
 * @throws PearasysError as {@link findDevices}.
 */
export function findSlots(
  host: HostReader,
  readAll: () => readonly Device[],
  word: string,
  options: FindOptions = {},
): Slot[] {
  const slot = asSlot(word);
  return slot === undefined ? findOne(host, readAll(), word, options).map((device) => device.slot) : [slot];
}

/**
 * The one slot that a word names, where only one is allowed.
 * @throws PearasysError as {@link findSlots}; `ambiguous-device` for a word that names several.
 */
export function findSlot(host: HostReader, readAll: () => readonly Device[], word: string): Slot {
  const [slot, ...more] = findSlots(host, readAll, word);
  if (slot !== undefined && more.length === 0) return slot;
  throw new PearasysError({
    code: 'ambiguous-device',
    exitCode: ExitCode.usage,
    message: `'${word}' matches ${more.length + 1} devices, but only one is allowed here`,
    hint: `name one of them: ${[slot, ...more].join(', ')}`,
  });
}

/**
 * Checks a word that names a device for a command that does not use it: the device need not exist.
 * @throws PearasysError `bad-slot`, `ambiguous-device` or `usage`, exit code 2.
 */
export function checkDeviceWord(host: HostReader, readAll: () => readonly Device[], word: string): void {
  try {
    findSlots(host, readAll, word, {all: true});
  } catch (error) {
    if (!(error instanceof PearasysError) || error.code !== 'no-device') throw error;
  }
}

/**
 * The slot of the PCI device that a path below /sys/devices belongs to: the deepest one on the path, because a network
 * interface may be below a virtio function, which is below a bridge.
 */
export function slotInPath(path: string): Slot | undefined {
  return slotsInPath(path).at(-1);
}

/** The slots of all PCI devices on a path, the deepest last. */
export function slotsInPath(path: string): Slot[] {
  const slots: Slot[] = [];
  for (const part of path.split('/')) {
    // Most parts are not slots, and do not end in a function.
    const slot = part.charAt(part.length - 2) === '.' ? asSlot(part) : undefined;
    if (slot !== undefined) slots.push(slot);
  }
  return slots;
}

/** The slots behind a device's resolved sysfs path. */
export function slotsOfPath(host: HostReader, path: string): Slot[] {
  const slot = slotInPath(path);
  if (slot !== undefined) return [slot];
  // A multipath NVMe disk is a virtual device; its subsystem links the controllers that lead to it.
  const subsystem = /^(.*\/nvme-subsystem\/[^/]+)\//.exec(path)?.[1];
  if (subsystem === undefined) return [];
  return host
    .list(subsystem)
    .filter((name) => /^nvme\d+$/.test(name))
    .map((name) => slotInPath(host.realPath(`${subsystem}/${name}`) ?? ''))
    .filter((found) => found !== undefined);
}

function findOne(host: HostReader, devices: readonly Device[], word: string, options: FindOptions): Device[] {
  const slots = devices.map((one) => one.slot);
  const slot = asSlot(word);
  if (slot !== undefined) {
    const device = devices.find((one) => one.slot === slot);
    if (device !== undefined) return [device];
    // A device that exists and is not among them cannot be read: this throws the reason.
    const late = readDevice(host, slot);
    if (late !== undefined) return [late];
    throw missing(`there is no device in slot ${slot}`, slot, slots);
  }
  const card = asCard(word);
  if (card !== undefined) return findFunctions(host, devices, card);
  const id = asId(word);
  if (id !== undefined) return findById(devices, id, options);
  const named =
    word === '' ? notFound : word.startsWith('/') ? lookUpPath(host, word) : slotsOfName(host, word);
  if (named.length > 0) {
    const matching = devices.filter((device) => named.includes(device.slot));
    // Bridges are members of groups too, but are never bound.
    const bindable = matching.filter((device) => !isBridge(device));
    if (matching.length > 0) return bindable.length > 0 ? bindable : matching;
    throw missing(
      `'${word}' means ${named.join(', ')}, but there is no such device`,
      named[0] ?? word,
      slots,
    );
  }
  if (named === notOnBus) throw usageError(`${word} is not on the PCI bus`, 'only PCI devices have a slot');
  if (/^\/(?!dev\/|sys\/)/.test(word))
    throw usageError(
      `'${word}' is not the path of a device`,
      'use a device node in /dev or a folder in /sys; to find the device behind another path: findmnt --target PATH',
      'bad-slot',
    );
  const isName = /^[^\s\p{C}]+$/u.test(word) && (word.startsWith('/') || !looksLikeSlot.test(word));
  if (!isName)
    throw usageError(
      `'${word}' is neither a slot nor an id`,
      `a slot looks like 0000:04:00.0, an id like 10de:1b80${nearest(word, slots)}`,
      'bad-slot',
    );
  throw missing(
    `there is no device, interface or disk called '${word}'`,
    word,
    nameFolders.flatMap((folder) => host.list(folder)),
  );
}

/** All functions of a card, without virtual functions that happen to have the same slot number. */
function findFunctions(host: HostReader, devices: readonly Device[], card: Card): Device[] {
  const all = devices.filter((one) => cardOf(one.slot) === card);
  const physical = all.filter((one) => !host.exists(devicePath(one.slot, 'physfn')));
  if (all.length === 0)
    throw missing(
      `there is no device in slot ${card}`,
      card,
      devices.map((one) => cardOf(one.slot)),
    );
  return physical.length > 0 ? physical : all;
}

function findById(devices: readonly Device[], id: DeviceId, options: FindOptions): Device[] {
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
      message: `id ${id} matches ${matching.length} devices: ${matching.map((one) => one.slot).join(', ')}`,
      hint: 'name the slots, or use --all',
    });
  return matching;
}

/** A word that names nothing, and that seems to be meant as a slot or an id. */
const looksLikeSlot = /:|^[0-9a-fx.*]*\.[0-9a-fx.*]*$/i;

/** The result of a look-up for a name that nothing has. */
const notFound: readonly Slot[] = [];
/** The result of a look-up for the name of something that is not on the PCI bus. */
const notOnBus: readonly Slot[] = [];

/**
 * Where names are looked up first, in this order: a plain `card1` is the display, whose node has that name, not the
 * sound card, which has no node.
 */
const nameFolders = ['net', 'block', 'nvme', 'drm'].map((kind) => `/sys/class/${kind}`);

/** Buses and classes whose entries are PCI functions or their buses themselves, by other names. */
const notNames = new Set(['pci', 'pci_express', 'pci_bus', 'mdev_bus']);

/**
 * The slots of the functions behind what has this name in any class or on any bus: an interface, a disk, a controller.
 * An NVMe disk with several paths has several.
 */
export function slotsOfName(host: HostReader, name: string): readonly Slot[] {
  return lookUp(host, name, () => true);
}

/** @param accepts whether the device with this path is the right one. */
function lookUp(host: HostReader, name: string, accepts: (path: string) => boolean): readonly Slot[] {
  if (name === '.' || name === '..' || /[/\0]/.test(name)) return notFound;
  let answer = notFound;
  for (const folder of namesFolders(host)) {
    const path = host.realPath(`${folder}/${name}`);
    if (path === undefined || !accepts(path)) continue;
    const slots = slotsOfPath(host, path);
    if (slots.length > 0) return slots;
    answer = notOnBus;
  }
  return answer;
}

function* namesFolders(host: HostReader): Generator<string> {
  yield* nameFolders;
  yield '/sys/block';
  for (const name of host.list('/sys/class')) if (!notNames.has(name)) yield `/sys/class/${name}`;
  for (const name of host.list('/sys/bus')) if (!notNames.has(name)) yield `/sys/bus/${name}/devices`;
}

/** The slots behind a path; with `--root` it may include that folder, or be as seen from within it. */
function lookUpPath(host: HostReader, word: string): readonly Slot[] {
  const given = host.root !== '/' && word.startsWith(`${host.root}/`) ? word.slice(host.root.length) : word;
  const real = host.realPath(given);
  // An image may have a link to a node without the node.
  const link = real === undefined ? host.readLink(given) : undefined;
  const path = (real ?? (link === undefined ? given : posix.resolve(given, '..', link))).replace(/\/+$/, '');
  const group =
    /^\/sys\/kernel\/iommu_groups\/(\d+)(?:\/|$)/.exec(path) ??
    /^\/dev\/vfio\/(?:noiommu-)?(\d+)$/.exec(path);
  const slots = group !== null ? slotsOfGroup(host, group[1] ?? '') : slotsOfPath(host, path);
  if (slots.length > 0) return slots;
  const node = path.startsWith('/dev/') ? lookUpNode(host, path.slice('/dev/'.length)) : notFound;
  return node === notFound && real !== undefined && /^\/(?:dev|sys)\//.test(path) ? notOnBus : node;
}

function slotsOfGroup(host: HostReader, group: string): Slot[] {
  return host
    .list(`/sys/kernel/iommu_groups/${group}/devices`)
    .map(asSlot)
    .filter((slot) => slot !== undefined);
}

/** The slots behind a device node, by its name below /dev: images and captured trees have no nodes. */
function lookUpNode(host: HostReader, node: string): readonly Slot[] {
  const usb = /^bus\/usb\/(\d{3})\/(\d{3})$/.exec(node);
  if (usb !== null) {
    // usb_major and the minors of drivers/usb/core/usb.c: 128 for each bus.
    const minor = (Number(usb[1]) - 1) * 128 + Number(usb[2]) - 1;
    return slotsOfPath(host, host.realPath(`/sys/dev/char/189:${minor}`) ?? '');
  }
  const nvidia = /^nvidia(\d+)$/.exec(node);
  if (nvidia !== null) return slotsOfNvidia(host, nvidia[1] ?? '');
  // A slash in the name of a disk is a ! in sysfs; all other nodes in folders are named after the last part.
  for (const name of new Set([node.replaceAll('/', '!'), node.slice(node.lastIndexOf('/') + 1)])) {
    const slots = lookUp(host, name, (path) => isNode(host, path, node));
    if (slots !== notFound) return slots;
  }
  return notFound;
}

/** Whether the device with this path in sysfs has this node. */
function isNode(host: HostReader, path: string, node: string): boolean {
  const named = /^DEVNAME=(.*)$/m.exec(host.readText(`${path}/uevent`) ?? '')?.[1];
  // Captured trees have no uevent, so the folder has to be enough.
  return named === undefined
    ? !node.includes('/') || path.includes(`/${node.split('/')[0] ?? ''}/`)
    : named === node;
}

/** NVIDIA's driver has no class device for its nodes. */
function slotsOfNvidia(host: HostReader, minor: string): Slot[] {
  const folder = '/proc/driver/nvidia/gpus';
  return host
    .list(folder)
    .filter((name) =>
      new RegExp(`^Device Minor:\\s*${minor}\\s*$`, 'm').test(
        host.readText(`${folder}/${name}/information`) ?? '',
      ),
    )
    .map(asSlot)
    .filter((slot) => slot !== undefined);
}

function missing(message: string, word: string, known: readonly string[]): PearasysError {
  return new PearasysError({
    code: 'no-device',
    exitCode: ExitCode.noDevice,
    message,
    hint: `\`pearasys list\` lists the devices${nearest(word, known)}`,
  });
}

/** `; the nearest is X`, or an empty text without one. */
export function nearest(word: string, known: readonly string[]): string {
  return known.length === 0 ? '' : `; the nearest is ${closest(word, known)}`;
}
