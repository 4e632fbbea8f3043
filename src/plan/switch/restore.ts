import type {HostReader} from '../../host/host.js';
import type {Device} from '../../devices/pci/device.js';
import {driversFolder, isStandIn, type Driver} from '../../devices/pci/driver.js';
import {findDriver, readDefaultDrivers} from '../../devices/pci/modules.js';
import type {TakenDevice} from '../../state/taken-device.js';
import {expectDriver, plan, probe, setOverride, unbind, type Plan, type Step} from '../step.js';
import {restoreSettings, revivalOf} from './settings.js';
import {loadDefault} from './switch.js';

/**
 * The plan that returns a device to the driver and the override that it had before it was taken. It does not check the
 * present users.
 */
export function restoreDevice(host: HostReader, device: Device, taken: TakenDevice): Plan {
  if (taken.driver === undefined) return plan(release(host, device, taken));
  if (findDriver(host, taken.driver as Driver).kind === 'unknown')
    return plan(toDefault(host, device, taken), {
      notes: [`${device.slot} goes to any driver that takes it: driver ${taken.driver} no longer exists`],
    });
  return plan(giveBack(host, device, taken.driver, taken));
}

/** Without checking which driver would match: there may be no other. */
function toDefault(host: HostReader, device: Device, {driver, override}: TakenDevice): Step[] {
  const {slot} = device;
  const wanted = override === driver ? undefined : override;
  return [
    ...(device.override === wanted ? [] : [setOverride(slot, wanted, device.override)]),
    ...leave(host, device),
    probe(slot),
  ];
}

/** Unbinds the device, and restores what was set on it for its driver. */
function leave(host: HostReader, device: Device): Step[] {
  return [...(device.driver === undefined ? [] : [unbind(device)]), ...restoreSettings(host, device).without];
}

function release(host: HostReader, device: Device, {override}: TakenDevice): Step[] {
  return [
    ...(device.override === override ? [] : [setOverride(device.slot, override, device.override)]),
    ...leave(host, device),
    expectDriver(device.slot, undefined),
  ];
}

/** Under an override for that driver: two drivers may match, and the kernel would take the first. */
function giveBack(host: HostReader, device: Device, driver: string, {override}: TakenDevice): Step[] {
  const {slot} = device;
  const present = host.exists(`${driversFolder}/${driver}`);
  return [
    setOverride(slot, driver, device.override),
    ...leave(host, device),
    // Only when a device waits for it: NVIDIA's module does not stay loaded without one.
    ...(present ? [] : [loadFor(host, device, driver)]),
    probe(slot),
    expectDriver(slot, driver, revivalOf(host, device)),
    ...(override === driver ? [] : [setOverride(slot, override, driver)]),
  ];
}

/** By modalias, or by name for a driver that the kernel would not choose (`uio_pci_generic`). */
function loadFor(host: HostReader, device: Device, driver: string): Step {
  const chosen = readDefaultDrivers(host, [device]).get(device.slot)?.modules ?? [];
  const source = findDriver(host, driver as Driver);
  return source.kind === 'module' && (isStandIn(driver) || chosen.length === 0)
    ? {kind: 'load-module', module: source.module, undo: []}
    : loadDefault(device);
}
