import {usageError} from '../../host/errors.js';
import type {HostReader} from '../../host/host.js';
import {readAttribute, readBarSizes} from '../../devices/pci/attributes.js';
import type {Device} from '../../devices/pci/device.js';

/** One setting of a claimed device. Names are those of the attributes in sysfs, where there is one. */
export interface DeviceSetting {
  readonly name: string;
  readonly value: string;
}

/** The settings of a claimed device, in the order of {@link settingKinds}. */
export type DeviceSettings = readonly DeviceSetting[];

/** A kind of setting. */
interface SettingKind {
  /** Its name for users. */
  readonly name: string;
  /** What the value may be, for messages. */
  readonly expected: string;
  /** One line for help. */
  readonly means: string;
  /** Whether a value is valid in a record; libexec/records.sh has the same rule. */
  readonly valid: RegExp;
  /** The value as it is recorded, from what a user may type; default: as typed. */
  readonly read?: (text: string) => string;
  /** Whether the udev rule can apply it, because it is a plain write that needs no order with the driver. */
  readonly plain: boolean;
}

/** A name of a reset method (Documentation/ABI/testing/sysfs-bus-pci, reset_method). */
const method = '[a-z][a-z0-9_]*';

/** The BARs that a device may have. */
const bars = [0, 1, 2, 3, 4, 5] as const;

/** All kinds of settings. */
export const settingKinds: readonly SettingKind[] = [
  {
    name: 'reset_method',
    expected: 'names of reset methods in order, `default` or `none`',
    means: 'The reset methods that the kernel may use, in order; `default` for all, `none` for no reset.',
    valid: new RegExp(`^${method}(?: ${method})*$`),
    read: (text) => text.replaceAll(/[\s,]+/g, ' ').trim(),
    plain: true,
  },
  {
    name: 'd3cold_allowed',
    expected: '0 or 1',
    means: 'Whether the device may lose its power while it is idle: 0 or 1.',
    valid: /^[01]$/,
    plain: true,
  },
  {
    name: 'power/control',
    expected: '`auto` or `on`',
    means: '`auto` lets the kernel suspend the idle device, `on` prevents it.',
    valid: /^(?:auto|on)$/,
    plain: true,
  },
  {
    name: 'reset',
    expected: 'the name of a reset method, or `none`',
    means:
      'The method with which the device is reset before the driver gets it, and also when it returns to the host ' +
      'and does not respond; `none` for no reset.',
    valid: new RegExp(`^${method}$`),
    plain: false,
  },
  {
    name: 'variant',
    expected: '`yes` or `no`',
    means:
      '`yes` uses the VFIO variant driver that modules.alias prefers for the device, instead of vfio-pci.',
    valid: /^(?:yes|no)$/,
    plain: false,
  },
  ...bars.map((bar): SettingKind => ({
    name: `resource${bar}_resize`,
    expected: 'a size such as 256M or 16G, or the index of the size in sysfs',
    means: `The size of resizable BAR ${bar}, such as 16G, or the index of the size in sysfs (8 is 256M).`,
    valid: /^(?:[0-9]|[1-3][0-9]|4[0-3])$/,
    read: sizeIndex,
    plain: false,
  })),
];

const prefix = 'PEARASYS_SET_';

/** The key of a setting in a record. */
function settingKey(name: string): string {
  return prefix + name.replaceAll('/', '_').toUpperCase();
}

const byKey: ReadonlyMap<string, SettingKind> = new Map(
  settingKinds.map((kind) => [settingKey(kind.name), kind]),
);

/** Whether this key of a record is a setting that this version knows. */
export function isSettingKey(key: string): boolean {
  return byKey.has(key);
}

/**
 * The settings among the lines of a record.
 * @param onBad is called with the reason why the record is ignored; it throws.
 */
export function parseSettings(
  values: ReadonlyMap<string, string>,
  onBad: (reason: string) => Error,
): DeviceSettings {
  const settings: DeviceSetting[] = [];
  for (const [key, kind] of byKey) {
    const value = values.get(key);
    if (value === undefined) continue;
    if (!kind.valid.test(value)) throw onBad(`${key}=${value} is invalid: expected ${kind.expected}`);
    settings.push({name: kind.name, value});
  }
  return settings;
}

/** The lines of a record, or of its copy for the udev rule, for these settings. */
export function printSettings(settings: DeviceSettings): string[] {
  return settings.map(({name, value}) => `${settingKey(name)}=${value}`);
}

/** The key in a record's copy that makes the udev rule leave the device to its unit. */
const byUnitKey = 'PEARASYS_BY_UNIT';

/** Whether the settings need more than the plain writes of the udev rule. */
export function needsUnit(settings: DeviceSettings): boolean {
  return settings.some(({name, value}) => value !== neutral(name) && !isPlain(name));
}

/** The lines of the copy for the udev rule: all settings, and whether the unit is needed. */
export function printForRule(settings: DeviceSettings): string[] {
  return [...printSettings(settings), ...(needsUnit(settings) ? [`${byUnitKey}=yes`] : [])];
}

/** The driver and the settings in a copy for the udev rule. */
export function parseForRule(text: string): {
  readonly driver: string | undefined;
  readonly settings: DeviceSettings;
} {
  const values = new Map(
    text.split('\n').flatMap((line): [string, string][] => {
      const [, key, value] = /^([^=]*)=(.*)$/.exec(line) ?? [];
      return key === undefined || value === undefined ? [] : [[key, value]];
    }),
  );
  return {
    driver: values.get('PEARASYS_DRIVER'),
    settings: [...byKey].flatMap(([key, {name, valid}]) => {
      const value = values.get(key);
      return value === undefined || !valid.test(value) ? [] : [{name, value}];
    }),
  };
}

/** Whether the setting is a plain write to the attribute with its name. */
export function isPlain(name: string): boolean {
  return settingKinds.find((kind) => kind.name === name)?.plain === true;
}

/** The value with which a setting has no effect; undefined if it has none. */
function neutral(name: string): string | undefined {
  return name === 'reset' ? 'none' : name === 'variant' ? 'no' : undefined;
}

/** The value of a setting; undefined if it is not set. */
export function settingOf(settings: DeviceSettings, name: string): string | undefined {
  return settings.find((setting) => setting.name === name)?.value;
}

/** The number of the BAR whose size a setting sets; undefined for other settings. */
export function barOf(name: string): number | undefined {
  const [, bar] = /^resource(\d)_resize$/.exec(name) ?? [];
  return bar === undefined ? undefined : Number(bar);
}

/** The value of a setting in the kernel, as a record has it; undefined if the kernel does not show it. */
export function readSetting(
  host: HostReader,
  {slot}: Pick<Device, 'slot'>,
  name: string,
): string | undefined {
  const bar = barOf(name);
  if (bar !== undefined) return readBarSizes(host, slot, bar)?.current?.toString();
  if (name === 'reset' || name === 'variant') return undefined;
  const text = readAttribute(host, slot, name);
  return name === 'reset_method' && text === '' ? 'none' : text;
}

/** A change of a setting, as a user types it. Without a value, the setting is removed. */
export interface SettingChange {
  readonly name: string;
  readonly value: string | undefined;
}

/** The settings after these changes. */
export function changeSettings(settings: DeviceSettings, changes: readonly SettingChange[]): DeviceSettings {
  const values = new Map<string, string | undefined>(settings.map(({name, value}) => [name, value]));
  for (const {name, value} of changes) values.set(name, value);
  return settingKinds.flatMap(({name}) => {
    const value = values.get(name);
    return value === undefined ? [] : [{name, value}];
  });
}

/** @throws PearasysError `usage`: what was expected. */
export function parseSettingChange(text: string): SettingChange {
  const [, name = '', value = ''] = /^([^=]*)=(.*)$/s.exec(text) ?? [];
  if (name === 'vga')
    throw usageError(
      'VGA arbitration cannot be switched off for one device: the kernel has no interface for it',
      'for all devices of vfio-pci: `options vfio-pci disable_vga=1` in /etc/modprobe.d',
    );
  const kind = settingKinds.find((one) => one.name === name);
  if (kind === undefined)
    throw usageError(
      text.includes('=') ? `'${name}' is not a setting` : `'${text}' is not a setting: expected KEY=VALUE`,
      `the settings are ${settingKinds.map((one) => one.name).join(', ')}`,
    );
  if (value === '') return {name, value: undefined};
  const read = kind.read?.(value) ?? value;
  if (!kind.valid.test(read)) throw usageError(`${name}=${value} is invalid`, `use ${kind.expected}`);
  return {name, value: read};
}

/** A value for people: the index of a BAR's size with the size, `14 (16G)`. */
export function valueWords({name, value}: DeviceSetting): string {
  return barOf(name) !== undefined ? `${value} (${sizeOf(Number(value))})` : value;
}

/** The index of a size such as 16G; the text itself if it is not a size. */
function sizeIndex(text: string): string {
  const [, digits, unit = ''] = /^(\d+)\s*([MGT])(?:i?B)?$/i.exec(text) ?? [];
  if (digits === undefined) return text;
  const bits = Math.log2(Number(digits)) + {M: 0, G: 10, T: 20}[unit.toUpperCase() as 'M' | 'G' | 'T'];
  return Number.isInteger(bits) ? String(bits) : text;
}

/** The size that an index of a resizable BAR means: `16G`. */
export function sizeOf(index: number): string {
  const units = ['M', 'G', 'T', 'P', 'E'];
  const unit = Math.min(Math.floor(index / 10), units.length - 1);
  return `${2 ** (index - unit * 10)}${units[unit] ?? ''}`;
}
