/**
 * The steps for the settings of a device, in the order that the kernel requires:
 *
 * 1. The previous values are written to a file, for the release.
 * 2. The host driver is unbound: a BAR can be resized only without a driver (EBUSY), and a reset under a driver would
 *    disturb the driver.
 * 3. BARs are resized; the reset comes after that and keeps the size, because the kernel saves and restores it.
 * 4. The device is reset by the one method of `reset`.
 * 5. `reset_method` and `d3cold_allowed`: before the driver, which may reset the device, and suspends an idle one.
 * 6. The driver gets the device.
 * 7. `power/control`: vfio-pci sets it to `auto` when it gets a device, and to `on` when it loses one.
 *
 * The release unbinds the driver, and writes the previous values in the same order.
 */
import type {HostReader} from '../../host/host.js';
import {devicePath, readBridge, readInitialized, type Device} from '../../devices/pci/device.js';
import {isStandIn, vfioPci, type Driver} from '../../devices/pci/driver.js';
import {preferredVariant} from '../../devices/pci/modules.js';
import {appliedPath, printApplied, readApplied, type AppliedSettings} from '../../state/applied-settings.js';
import {
  barOf,
  isPlain,
  parseForRule,
  readSetting,
  settingOf,
  type DeviceSetting,
  type DeviceSettings,
} from '../../state/records/device-settings.js';
import {readChecked} from '../../state/records/record.js';
import {
  expectWorking,
  readFileState,
  removeFile,
  writeAttribute,
  writeFile,
  type Revival,
  type Step,
} from '../step.js';

/** The steps for the settings of one device, at their places in a switch. */
export interface SettingSteps {
  /** Before all others. */
  readonly first: readonly Step[];
  /** While the device has no driver. */
  readonly without: readonly Step[];
  /** When the device has its driver. */
  readonly after: readonly Step[];
  /** Whether a device that is on its driver must be unbound for them. */
  readonly again: boolean;
  /** What is done if the host driver does not take the device. */
  readonly revival?: Revival | undefined;
}

/** The driver for a claim: the record's, or the variant of vfio-pci that the setting `variant` selects. */
export function claimingDriver(
  host: HostReader,
  device: Device,
  driver: Driver,
  settings: DeviceSettings,
): Driver {
  return driver === vfioPci && settingOf(settings, 'variant') === 'yes'
    ? (preferredVariant(host, device) ?? driver)
    : driver;
}

/**
 * The steps that apply the settings of a device at its claim.
 * @param switching whether the device is not on the driver of the claim yet.
 */
export function applySettings(
  host: HostReader,
  device: Device,
  settings: DeviceSettings,
  switching: boolean,
): SettingSteps {
  const {slot, id} = device;
  const known = readApplied(host, device);
  const before = new Map(known?.before);
  const set = (setting: DeviceSetting, needed: (current: string | undefined) => boolean): Step[] => {
    const current = readSetting(host, device, setting.name);
    if (!needed(current)) return [];
    if (current !== undefined && !before.has(setting.name)) before.set(setting.name, current);
    return [setAttribute(device, setting, current)];
  };
  const resizing = settings
    .filter(({name}) => barOf(name) !== undefined)
    .flatMap((setting) => set(setting, (current) => current !== setting.value));
  const method = settingOf(settings, 'reset') ?? 'none';
  const resets = method !== 'none' && (switching || known?.reset !== method);
  const again = !switching && (resets || resizing.length > 0);
  const plain = settings.filter(({name}) => isPlain(name));
  const needed = (setting: DeviceSetting) => (current: string | undefined) =>
    setting.value === 'default' || setting.name === 'power/control'
      ? switching || again || (setting.value !== 'default' && current !== setting.value)
      : current !== setting.value;
  const steps = (last: boolean) =>
    plain
      .filter(({name}) => (name === 'power/control') === last)
      .flatMap((setting) => set(setting, needed(setting)));
  const [early, after] = [steps(false), steps(true)];
  const current = readSetting(host, device, 'reset_method');
  // A run that was killed may have left the method of the reset.
  if (resets && current !== undefined && !before.has('reset_method')) before.set('reset_method', current);
  const kept = settingOf(settings, 'reset_method') ?? before.get('reset_method');
  const without = [...resizing, ...(resets ? resetBy(device, method, current, kept) : []), ...early];
  if (without.length === 0 && after.length === 0) return {first: [], without, after, again};
  const reset = resets ? method : known?.reset;
  const applied: AppliedSettings = {id, since: readInitialized(host, slot), before, reset};
  return {first: remember(host, device, applied), without, after, again};
}

/**
 * The steps that restore what was set on a device, for when it has left its driver, and check that the device works when
 * userspace has used it and the host gets it back.
 * @param wanted the driver that it goes to, if that is known.
 */
export function restoreSettings(host: HostReader, device: Device, wanted?: Driver): SettingSteps {
  const applied = readApplied(host, device);
  const before = applied?.before ?? defaultsOf(host, device);
  const without = [...before]
    .map(([name, value]) => ({name, value}))
    .sort((a, b) => Number(isPlain(a.name)) - Number(isPlain(b.name)))
    .map((setting) => setAttribute(device, setting, readSetting(host, device, setting.name)));
  const path = appliedPath(device.slot);
  const file = readFileState(host, path);
  return {
    first: [],
    without: [
      ...without,
      ...(file === undefined ? [] : [removeFile(path, file)]),
      ...(isStandIn(device.driver) && !isStandIn(wanted)
        ? [expectWorking(device, allowedReset(host, device))]
        : []),
    ],
    after: [],
    again: false,
    revival: revivalOf(host, device),
  };
}

/** The reset that a device's settings allow when it does not respond; undefined for all that the kernel offers. */
function allowedReset(host: HostReader, device: Device): string | undefined {
  return settingOf(checkedSettings(host, device).settings, 'reset');
}

/** What is done if the host driver does not take a device that userspace has used; undefined for nothing. */
export function revivalOf(host: HostReader, device: Device): Revival | undefined {
  const reset = isStandIn(device.driver) ? allowedReset(host, device) : undefined;
  return reset === undefined || reset === 'none' ? undefined : {id: device.id, reset};
}

function checkedSettings(host: HostReader, device: Device): ReturnType<typeof parseForRule> {
  return parseForRule(readChecked(host, device, readBridge(host, device.slot)) ?? '');
}

/** The kernel's values for what the udev rule has set without a process: the rule acts when a device appears. */
function defaultsOf(host: HostReader, device: Device): Map<string, string> {
  const {driver, settings} = checkedSettings(host, device);
  const defaults = new Map([
    ['reset_method', 'default'],
    ['d3cold_allowed', '1'],
    ['power/control', 'on'],
  ]);
  return new Map(
    driver === undefined || driver !== (device.driver ?? driver)
      ? []
      : settings
          .filter(({name, value}) => isPlain(name) && readSetting(host, device, name) === value)
          .map(({name}) => [name, defaults.get(name) ?? '']),
  );
}

function remember(host: HostReader, {slot}: Device, applied: AppliedSettings): Step[] {
  const path = appliedPath(slot);
  const content = printApplied(applied);
  const previous = readFileState(host, path);
  return previous?.content === content ? [] : [{...writeFile(path, content, previous), recalls: true}];
}

function setAttribute({slot}: Device, setting: DeviceSetting, current: string | undefined): Step {
  const {name, value} = setting;
  const path = devicePath(slot, name);
  // The kernel ignores a write of nothing.
  const text = (one: string) => (name === 'reset_method' && one === 'none' ? '\n' : one);
  return writeAttribute(path, text(value), {
    slot,
    undo: current === undefined ? [] : [writeAttribute(path, text(current), {slot})],
    hint: `change or remove the setting ${name}=${value}: pearasys service set ${slot} ${name}=VALUE`,
  });
}

/**
 * A reset by one method: the kernel uses the first of `reset_method` that works.
 * @param kept what `reset_method` has after it.
 */
function resetBy(
  device: Device,
  method: string,
  current: string | undefined,
  kept: string | undefined,
): Step[] {
  const {slot} = device;
  const select = (value: string, from: string | undefined) =>
    setAttribute(device, {name: 'reset_method', value}, from);
  return [
    ...(current === method ? [] : [select(method, current)]),
    writeAttribute(devicePath(slot, 'reset'), '1', {slot}),
    ...(kept === undefined || kept === method ? [] : [select(kept, undefined)]),
  ];
}
