import {ExitCode, PearasysError} from '../../host/errors.js';
import type {HostReader} from '../../host/host.js';
import type {Layout} from '../../config/layout.js';
import {asTruth, settingLines} from '../../config/pearasys-conf.js';
import {distrust} from '../../config/trust.js';
import {asId, type DeviceId} from '../../devices/pci/id.js';
import {asSlot, type Slot} from '../../devices/pci/slot.js';
import {readDesired, unknownNotes, type UnknownKey} from '../desired.js';
import {guestsFolder} from './guest-files.js';
import type {Guest} from './guest-name.js';

/** How a guest's devices are taken from the host and returned. */
export interface GuestSettings {
  /**
   * `StopServices=`: units that are stopped first, in this order, and started when the guest has ended. `auto`: the
   * display manager if it, one of its sessions or the console uses a display of the guest, and nvidia-persistenced if
   * it uses a device of the guest. `auto` may be one of several words.
   */
  readonly stopServices: readonly string[] | 'auto';
  /**
   * `DisplayManager=`: when a stopped display manager is started again: `at-once` when the devices are taken, `at-end`
   * when the guest has ended; `auto` at once if another card can drive it.
   */
  readonly displayManager: 'auto' | 'at-once' | 'at-end';
  /** `Processes=`: what to do if other processes use the devices: take no device, or end the processes. */
  readonly processes: 'refuse' | 'end';
  /** `ProcessLimit=`: seconds, 1 to 120, after which processes that have not ended are killed. */
  readonly processLimit: number;
  /**
   * `UnloadModules=`: modules to unload, in this order; `auto`: NVIDIA's own, if no other card needs them. `auto` may
   * be one of several words.
   */
  readonly unloadModules: readonly string[] | 'auto';
  /** `ReleaseConsoles=`: whether consoles and the firmware's framebuffer are unbound from the guest's displays. */
  readonly releaseConsoles: boolean;
  /** `ReturnDevices=`: whether the devices are returned to the host when the guest has ended. */
  readonly returnDevices: boolean;
  /** `Sleep=`: whether the host may be suspended or hibernated while the guest has devices. */
  readonly sleep: 'block' | 'allow';
  /** `Card=SLOT VENDOR:DEVICE`, once per device: another card in the slot is not taken. */
  readonly cards: ReadonlyMap<Slot, DeviceId>;
  /** Settings in the files that this version does not know. */
  readonly unknown: readonly UnknownSetting[];
}

/** A setting that this version does not know. */
export interface UnknownSetting extends UnknownKey {
  /** The file. */
  readonly path: string;
}

/** Whether the setting contains the word `auto`. */
export function hasAuto(setting: readonly string[] | 'auto'): boolean {
  return setting === 'auto' || setting.includes('auto');
}

/** The words of the setting other than `auto`. */
export function namedIn(setting: readonly string[] | 'auto'): readonly string[] {
  return setting === 'auto' ? [] : setting.filter((word) => word !== 'auto');
}

/** The default settings. */
export const defaultSettings: GuestSettings = {
  stopServices: 'auto',
  displayManager: 'auto',
  processes: 'refuse',
  processLimit: 10,
  unloadModules: 'auto',
  releaseConsoles: true,
  returnDevices: true,
  sleep: 'block',
  cards: new Map(),
  unknown: [],
};

/** The path of the settings of all guests. A guest's own settings override them individually. */
function commonSettingsPath(layout: Layout): string {
  return `${layout.config}/guest.settings`;
}

/** The path of a guest's own settings. */
export function settingsPath(layout: Layout, guest: Guest): string {
  return `${guestsFolder(layout)}/${guest}.settings`;
}

/**
 * The settings of a guest: each is the guest's own, otherwise that of all guests, otherwise the default.
 * @throws PearasysError `bad-settings`, exit code 3, for a file that others can write, and for an invalid line.
 */
export function readSettings(host: HostReader, layout: Layout, guest: Guest): GuestSettings {
  const own = settingsPath(layout, guest);
  const common = commonSettingsPath(layout);
  const parts = [
    readFile(host, common, layout.config, false),
    readFile(host, own, guestsFolder(layout), true),
  ];
  return {
    ...defaultSettings,
    ...parts[0],
    ...parts[1],
    unknown: parts.flatMap(({unknown = []}) => unknown),
  };
}

/**
 * The settings in a file.
 * @param path named in the error.
 * @param perGuest whether `Card=` is allowed.
 * @throws PearasysError `bad-settings`: which line is invalid and what was expected.
 */
export function parseSettings(path: string, text: string, perGuest: boolean): Partial<GuestSettings> {
  const settings: Record<string, unknown> = {};
  const cards = new Map<Slot, DeviceId>();
  const unknown: UnknownSetting[] = [];
  for (const {number, text: line, key, value} of settingLines(text)) {
    const bad = (expected: string) => badSettings(path, `line ${number} is '${line}', expected ${expected}`);
    if (key === 'Card' && perGuest && key !== line) {
      const [slotText = '', idText = '', ...more] = value.split(/\s+/);
      const [slot, id] = [asSlot(slotText), asId(idText)];
      if (slot === undefined || id === undefined || more.length > 0) throw bad('Card=SLOT VENDOR:DEVICE');
      cards.set(slot, id);
      continue;
    }
    if (isUnknown(key) && key !== line) {
      unknown.push({path, key, value});
      continue;
    }
    const entry = Object.hasOwn(entries, key) && key !== line ? entries[key] : undefined;
    if (entry === undefined) throw bad(`KEY=VALUE with one of the keys ${Object.keys(entries).join(', ')}`);
    const parsed = entry.parse(value);
    if (parsed === undefined) throw bad(`${key}= with ${entry.expected}`);
    settings[entry.name] = parsed;
  }
  return {
    ...(settings as Partial<GuestSettings>),
    ...(cards.size > 0 ? {cards} : {}),
    ...(unknown.length > 0 ? {unknown} : {}),
  };
}

/** Whether a newer version may have a setting with this name. `Card=` applies to one guest in every version. */
function isUnknown(key: string): boolean {
  return /^[A-Z][A-Za-z0-9]*$/.test(key) && key !== 'Card' && !Object.hasOwn(entries, key);
}

/** The notes on settings that this version does not know. */
export function unknownSettingNotes({unknown}: Pick<GuestSettings, 'unknown'>): string[] {
  return unknown.flatMap((one) => unknownNotes({path: one.path, unknown: [one]}));
}

/**
 * The text of a guest's settings with these cards. A new file contains all settings as comments. The content of an
 * existing file is kept.
 */
export function editCards(
  previous: string | undefined,
  guest: Guest,
  cards: ReadonlyMap<Slot, DeviceId>,
): string {
  const kept = (previous ?? newSettings(guest))
    .replace(/\n?$/, '')
    .split('\n')
    .filter((line) => !/^\s*Card\s*=/.test(line));
  return [...kept, ...[...cards].map(([slot, id]) => `Card=${slot} ${id}`), ''].join('\n');
}

/**
 * Whether the unit must never be stopped for a guest: the guest's start waits for libvirt and pearasys, other guests
 * run in libvirt's services, and the machine is unusable without D-Bus, udev and logind.
 */
export function isNeeded(unit: string): boolean {
  return /^(?:libvirt|virt[a-z]+d[.-]|pearasys-|machine-|dbus[.-]|systemd-(?:machined|logind|udevd|journald)[.-])/.test(
    unit,
  );
}

interface Entry {
  readonly name: keyof GuestSettings;
  /** The value; undefined for an invalid text. */
  readonly parse: (text: string) => unknown;
  /** The expected values, for an error. */
  readonly expected: string;
  /** The meaning of the setting, in sentences. */
  readonly means: string;
  /** The default value. */
  readonly otherwise: string;
}

const words =
  (pattern: RegExp, isWrong: (word: string) => boolean = () => false) =>
  (text: string) => {
    if (text === 'auto') return text;
    const list = text.split(/\s+/).filter((word) => word !== '');
    return list.every((word) => word === 'auto' || (pattern.test(word) && !isWrong(word))) ? list : undefined;
  };
const oneOf =
  (...known: readonly string[]) =>
  (text: string) =>
    known.includes(text) ? text : undefined;
const seconds = (text: string) =>
  /^\d{1,3}$/.test(text) && Number(text) >= 1 && Number(text) <= 120 ? Number(text) : undefined;

const entries: Readonly<Record<string, Entry>> = {
  StopServices: {
    name: 'stopServices',
    parse: words(/^[A-Za-z0-9_][\w@:.\\-]*\.(?:service|socket)$/, isNeeded),
    expected:
      'units, as in display-manager.service, except those of libvirt, pearasys, D-Bus, udev and logind; auto, or auto and further units',
    means:
      'Units to stop first, if they are active, and to start again when the guest has ended. auto: the display manager, ' +
      'if it, one of its sessions or the console uses a display that the guest takes; and nvidia-persistenced, ' +
      'if it uses a device that the guest takes. Further units may follow: auto ollama.service.',
    otherwise: 'auto',
  },
  DisplayManager: {
    name: 'displayManager',
    parse: oneOf('auto', 'at-once', 'at-end'),
    expected: 'auto, at-once or at-end',
    means:
      'When to start a display manager again that was stopped: at-once, or at-end when the guest has ended. auto: at ' +
      'once if another display has a driver, otherwise when the guest has ended.',
    otherwise: 'auto',
  },
  Processes: {
    name: 'processes',
    parse: oneOf('refuse', 'end'),
    expected: 'refuse or end',
    means:
      'What to do with other processes that use the devices. refuse: the guest does not start. end: services are ' +
      'stopped by their units, and started again when the guest has ended; others are asked to end, then killed. ' +
      "Other guests, libvirt's services, D-Bus, udev and logind are never ended.",
    otherwise: 'refuse',
  },
  ProcessLimit: {
    name: 'processLimit',
    parse: seconds,
    expected: 'a number of seconds from 1 to 120',
    means: 'How many seconds, up to 120, such processes have to end.',
    otherwise: '10',
  },
  UnloadModules: {
    name: 'unloadModules',
    parse: words(/^[A-Za-z0-9][\w-]*$/),
    expected: 'modules, as in nvidia_drm nvidia; auto, or auto and further modules',
    means:
      "Modules to unload, in this order. Modules that other devices of the host need stay loaded. auto: NVIDIA's, if " +
      'the guest takes all cards of that driver.',
    otherwise: 'auto',
  },
  ReleaseConsoles: {
    name: 'releaseConsoles',
    parse: asTruth,
    expected: 'yes or no',
    means: "Whether to take consoles and the firmware's framebuffer off the guest's displays.",
    otherwise: 'yes',
  },
  ReturnDevices: {
    name: 'returnDevices',
    parse: asTruth,
    expected: 'yes or no',
    means: 'Whether to return the devices to the host when the guest has ended.',
    otherwise: 'yes',
  },
  Sleep: {
    name: 'sleep',
    parse: oneOf('block', 'allow'),
    expected: 'block or allow',
    means:
      'Whether the host may be suspended or hibernated while the guest has devices. block: no; pearasys holds a lock ' +
      'of logind, which `systemd-inhibit --list` shows. allow: yes; the devices then lose what the guest has set up ' +
      'in them.',
    otherwise: 'block',
  },
};

function newSettings(guest: Guest): string {
  return [
    `# Written by pearasys: how guest ${guest} takes and returns its devices.`,
    '# Settings that are not set here come from guest.settings, one folder above. See pearasys-guest@.service(8).',
    '# To undo: pearasys guest remove',
    ...Object.entries(entries).flatMap(([key, {means, otherwise}]) => [
      '#',
      `# ${means}`,
      `#${key}=${otherwise}`,
    ]),
    '#',
    '# The expected cards. Another card in the slot is not taken.',
    '',
  ].join('\n');
}

function readFile(host: HostReader, path: string, folder: string, perGuest: boolean): Partial<GuestSettings> {
  if (host.info(path, false) === undefined) return {};
  const untrusted = distrust(host, folder, 'directory') ?? distrust(host, path, 'file');
  const settings = readDesired({kind: 'settings', path}, untrusted, () =>
    parseSettings(path, host.readText(path) ?? '', perGuest),
  );
  if ('reason' in settings) throw badSettings(path, settings.reason);
  return settings;
}

function badSettings(path: string, reason: string): PearasysError {
  return new PearasysError({
    code: 'bad-settings',
    exitCode: ExitCode.refused,
    message: `the settings file ${path} cannot be used`,
    details: [reason, 'nothing was changed'],
    hint: 'correct it, then try again',
  });
}
