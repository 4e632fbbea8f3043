import type {HostReader} from '../host/host.js';
import type {Guest} from '../guest/name.js';
import {printState, statePath, type GuestState, type TakenDevice} from '../guest/state.js';
import {readDevice, type Device} from '../pci/device.js';
import {driversFolder, isVfio} from '../pci/driver.js';
import {readHolders} from '../pci/holders.js';
import {readConsoleDrivers, returnConsoles} from './consoles.js';
import {framebufferDriver} from './guest-start.js';
import {refuseHeld, refuseLocked} from './refusals.js';
import {loadDefault} from './switch.js';
import {
  expectDriver,
  plan,
  probe,
  removeFile,
  setOverride,
  systemctl,
  unbind,
  writeAttribute,
  writeFile,
  type Plan,
  type Planned,
  type Step,
} from './step.js';

/**
 * The plan that gives one device back to the driver it had, with the override it had. Each device has a plan of its
 * own: that the audio function cannot be had must not keep the display from the host.
 */
export function planReturn(host: HostReader, guest: Guest, taken: TakenDevice): Planned {
  const {slot} = taken;
  const device = readDevice(host, slot);
  const leave = (why: string) => plan([], {notes: [`${slot} is left alone: ${why}`]});
  if (device === undefined) return leave('it is not there any more');
  if (device.id !== taken.id) return leave(`the card there is ${device.id}, guest ${guest} had ${taken.id}`);
  const locked = refuseLocked([device]);
  if (locked !== undefined) return locked;
  if (device.driver !== undefined && !isVfio(device.driver))
    return device.driver === taken.driver ? plan([]) : leave(`it is on ${device.driver} by now`);
  // It was with VFIO before the guest started, and stays there.
  if (isVfio(taken.driver)) return plan([]);
  const held = refuseHeld([device], readHolders(host, [device]), false);
  if (held !== undefined) return held;
  return plan(
    taken.driver === undefined ? release(device, taken) : giveBack(host, device, taken.driver, taken),
  );
}

function release(device: Device, {override}: TakenDevice): Step[] {
  return [
    ...(device.override === override ? [] : [setOverride(device.slot, override, device.override)]),
    ...(device.driver === undefined ? [] : [unbind(device)]),
    expectDriver(device.slot, undefined),
  ];
}

/** Under an override for that driver: two drivers may match, and the kernel would take the first. */
function giveBack(host: HostReader, device: Device, driver: string, {override}: TakenDevice): Step[] {
  const {slot} = device;
  const present = host.exists(`${driversFolder}/${driver}`);
  return [
    setOverride(slot, driver, device.override),
    ...(device.driver === undefined ? [] : [unbind(device)]),
    // Only once a device waits for it: NVIDIA's module does not stay loaded without one.
    ...(present ? [] : [loadDefault(device)]),
    probe(slot),
    expectDriver(slot, driver),
    ...(override === driver ? [] : [setOverride(slot, override, driver)]),
  ];
}

/** What is left of a state when these devices are not back. */
export function planState(state: GuestState, left: readonly TakenDevice[]): Plan {
  const path = statePath(state.guest);
  const previous = {content: printState(state), mode: 0o644};
  return plan([
    left.length === 0
      ? removeFile(path, previous)
      : writeFile(path, printState({...state, devices: left}), previous),
  ]);
}

/** The plans that put back what was released for the devices. Each by itself: none keeps another from being done. */
export function planRestore(host: HostReader, state: GuestState): Plan[] {
  const modules = [...state.modules]
    .reverse()
    .filter((module) => !host.exists(`/sys/module/${module}`))
    .map((module): Step => ({kind: 'load-module', module, undo: []}));
  const framebuffers = state.framebuffers
    .filter((device) => host.exists(framebufferDriver(device)))
    .filter((device) => !host.exists(`${framebufferDriver(device)}/${device}`))
    .map((device) => writeAttribute(`${framebufferDriver(device)}/bind`, device, {accept: ['EBUSY']}));
  return [...modules, ...framebuffers].map((step) => plan([step]));
}

/** The plan that gives consoles their terminals back. After the others: a driver's framebuffer has done it by itself. */
export function planConsoles(host: HostReader, state: GuestState): Plan {
  const drivers = readConsoleDrivers(host);
  return plan(
    drivers
      .filter(({name, bound}) => !bound && state.consoles.includes(name))
      .map(({name}) => returnConsoles(name, drivers)),
  );
}

/**
 * The plans that start the services again, the last one stopped first.
 * @param displayManager stays out where there is no display for it.
 */
export function planServices(state: GuestState, displayManager: string | undefined): Plan[] {
  return [...state.services]
    .reverse()
    .filter((unit) => unit !== displayManager)
    .map((unit) => plan([systemctl(['start', unit])]));
}
