import {devicePath, readDevices, type Device} from '../devices/pci/device.js';
import {isVfio} from '../devices/pci/driver.js';
import type {Slot} from '../devices/pci/slot.js';
import type {HostReader} from '../host/host.js';
import {isDisplay} from '../state/guests/guest-files.js';
import type {Holder} from './holder.js';
import {keyboardsLostWith} from './keyboards.js';
import {describeHolder} from './words.js';

/** Whether the host keeps a display with a graphics driver, see /sys/class/drm. */
export function hasOtherDisplay(host: HostReader, taken: readonly Slot[]): boolean {
  return readDevices(host).some(
    (device) => isDisplay(device) && !taken.includes(device.slot) && shows(host, device),
  );
}

/**
 * What is lost when these devices leave the host: the only display, the last route to the machine, all keyboards. A device
 * without a driver of the host is already lost.
 * @param holders those of the devices.
 * @returns a text for each: the device, and what is lost with it.
 */
export function readRisks(
  host: HostReader,
  devices: readonly Device[],
  holders: readonly Holder[],
): string[] {
  const leaving = devices.filter(({driver}) => driver !== undefined && !isVfio(driver));
  const slots = leaving.map(({slot}) => slot);
  const displays = leaving.filter((device) => isDisplay(device) && shows(host, device));
  const keyboards = keyboardsLostWith(host, slots);
  const risks: string[] = [];
  if (displays.length > 0 && !hasOtherDisplay(host, slots))
    risks.push(
      `${list(displays)} ${displays.length === 1 ? 'is the only display' : 'are the only displays'} of this machine`,
    );
  for (const holder of holders)
    if (holder.kind === 'interface' && holder.last) risks.push(`${holder.slot}: ${describeHolder(holder)}`);
  if (keyboards.length > 0)
    risks.push(`all keyboards of this machine would be lost: ${keyboards.join(', ')}`);
  return risks;
}

/** Whether losing the device to this holder is one of {@link readRisks}. */
export function isRisk(holder: Holder): boolean {
  return (
    holder.kind === 'framebuffer' || holder.kind === 'console' || (holder.kind === 'interface' && holder.last)
  );
}

function shows(host: HostReader, {slot, driver}: Device): boolean {
  return (
    driver !== undefined &&
    !isVfio(driver) &&
    host.list(devicePath(slot, 'drm')).some((name) => /^card\d+$/.test(name))
  );
}

function list(devices: readonly Device[]): string {
  return devices.map(({slot, id}) => `${slot} (${id})`).join(', ');
}
