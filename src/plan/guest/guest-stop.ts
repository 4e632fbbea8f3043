import type {HostReader} from '../../host/host.js';
import type {TakenDevice} from '../../state/taken-device.js';
import {restoreDevice} from '../switch/restore.js';
import {isDisplay} from '../../state/guests/guest-files.js';
import type {Guest} from '../../state/guests/guest-name.js';
import {keptPath, printKept, printState, statePath, type GuestState} from '../../state/guests/guest-state.js';
import {readDevice, type Device} from '../../devices/pci/device.js';
import {isVfio} from '../../devices/pci/driver.js';
import {readHolders} from '../../usage/holders.js';
import {hasModule} from '../../devices/pci/modules.js';
import type {Slot} from '../../devices/pci/slot.js';
import {readConsoleDrivers, returnConsoles} from './consoles.js';
import {framebufferDriver, userSystemctl} from './guest-start.js';
import {refuseHeld, refuseLocked} from '../switch/refusals.js';
import {
  plan,
  removeFile,
  setOverride,
  systemctl,
  writeAttribute,
  writeFile,
  type Plan,
  type Planned,
  type Step,
} from '../step.js';

/**
 * The plan that returns one device to its previous driver and override. Each device has a separate plan: a failure of
 * the audio function must not keep the display from the host.
 */
export function planReturn(host: HostReader, guest: Guest, taken: TakenDevice): Planned {
  const {slot} = taken;
  const device = readDevice(host, slot);
  const leave = (why: string) => plan([], {notes: [`${slot} is not returned: ${why}`]});
  if (device === undefined) return leave('it no longer exists');
  if (device.id !== taken.id)
    return leave(`the card in the slot is ${device.id}, guest ${guest} had ${taken.id}`);
  const locked = refuseLocked([device]);
  if (locked !== undefined) return locked;
  // A killed run may have only set an override, or not yet removed its own.
  const ownOverride =
    device.override !== taken.override && (device.override === taken.driver || isVfio(device.override));
  if (device.driver !== undefined && device.driver === taken.driver && ownOverride)
    return plan([setOverride(slot, taken.override, device.override)]);
  if (device.driver !== undefined && !isVfio(device.driver))
    return device.driver === taken.driver
      ? plan(putOverride(device, taken))
      : leave(`it is now on ${device.driver}`);
  // It was with VFIO before the guest started, and stays there.
  if (isVfio(taken.driver)) return plan([]);
  const forgetting = forgetKept(host, slot);
  const held = refuseHeld([device], readHolders(host, [device]), false);
  if (held !== undefined) return held;
  const {steps, notes} = restoreDevice(host, device, taken);
  return plan([...steps, ...forgetting], {notes});
}

/** The host has the device again: its state before a guest left it on VFIO is not needed any more. */
function forgetKept(host: HostReader, slot: Slot): Step[] {
  const content = host.readText(keptPath(slot));
  return content === undefined ? [] : [removeFile(keptPath(slot), {content: `${content}\n`, mode: 0o644})];
}

/** A killed run may have left the override under which the device was returned. */
function putOverride({slot, driver, override}: Device, taken: TakenDevice): Step[] {
  return override === driver && override !== taken.override
    ? [setOverride(slot, taken.override, override)]
    : [];
}

/** Seconds for a guest to close its devices: QEMU may still be ending when libvirt reports its end. */
const guestLimit = 30;

/** The plan that waits until no guest has the devices open. */
export function planWait(host: HostReader, state: GuestState): Plan {
  const devices = state.devices
    .map(({slot, driver}) => (isVfio(driver) ? undefined : readDevice(host, slot)))
    .filter((device) => device !== undefined)
    .filter(({driver, locked}) => isVfio(driver) && !locked);
  if (readHolders(host, devices).every(({kind}) => kind !== 'process')) return plan([]);
  return plan([
    {kind: 'expect-free', slots: devices.map(({slot}) => slot), limit: guestLimit, undo: []} satisfies Step,
  ]);
}

/**
 * What is left of a state; if nothing is left, the file is removed.
 * @param kept devices that stay on VFIO: their previous state is kept for the next guest that takes them.
 */
export function planState(
  host: HostReader,
  previous: GuestState,
  left: GuestState,
  kept: readonly TakenDevice[] = [],
): Plan {
  const keeping = kept
    .filter(({slot, id, driver}) => {
      const device = readDevice(host, slot);
      return !isVfio(driver) && device?.id === id && isVfio(device.driver);
    })
    .flatMap((taken): Step[] => {
      const path = keptPath(taken.slot);
      const content = printKept(taken);
      const text = host.readText(path);
      const previously = text === undefined ? undefined : {content: `${text}\n`, mode: 0o644};
      return previously?.content === content ? [] : [writeFile(path, content, previously)];
    });
  const path = statePath(previous.guest);
  const file = {content: printState(previous), mode: 0o644};
  const lists = [
    left.devices,
    left.services,
    left.userServices ?? [],
    left.modules,
    left.consoles,
    left.framebuffers,
  ];
  const done = lists.every((list) => list.length === 0);
  return plan([...keeping, done ? removeFile(path, file) : writeFile(path, printState(left), file)]);
}

/** Whether a display is among the devices, because services that use it wait for it. */
export function hasDisplay(host: HostReader, devices: readonly TakenDevice[]): boolean {
  return devices.some(({slot}) => {
    const device = readDevice(host, slot);
    return device !== undefined && isDisplay(device);
  });
}

/** One item of a state that is restored separately, so that a failure does not stop the others. */
export interface Restoring {
  /** The list of the state that it is in. */
  readonly list: 'modules' | 'framebuffers' | 'consoles' | 'services' | 'userServices';
  readonly name: string;
  /** Empty if it is already restored, or if it cannot be restored any more; then a note says so. */
  readonly plan: Plan;
}

/** Restores modules and framebuffers. */
export function planRestore(host: HostReader, state: GuestState): Restoring[] {
  const modules = [...state.modules].reverse().map((module): Restoring => {
    const of = (steps: readonly Step[], notes: readonly string[] = []) =>
      ({list: 'modules', name: module, plan: plan(steps, {notes})}) as const;
    if (!hasModule(host, module))
      return of([], [`module ${module} is not loaded again: the module no longer exists`]);
    return of(host.exists(`/sys/module/${module}`) ? [] : [{kind: 'load-module', module, undo: []}]);
  });
  const framebuffers = state.framebuffers.map((device): Restoring => {
    const driver = framebufferDriver(device);
    const of = (steps: readonly Step[], notes: readonly string[] = []) =>
      ({list: 'framebuffers', name: device, plan: plan(steps, {notes})}) as const;
    // vfio-pci on the boot display removes it (vfio_pci_vga_init, sysfb_disable).
    if (!host.exists(`/sys/bus/platform/devices/${device}`))
      return of(
        [],
        [`framebuffer ${device} cannot be restored: the kernel has removed it until the next boot`],
      );
    if (!host.exists(driver))
      return of([], [`framebuffer ${device} cannot be restored: its driver no longer exists`]);
    const bound = host.exists(`${driver}/${device}`);
    return of(bound ? [] : [writeAttribute(`${driver}/bind`, device, {accept: ['EBUSY']})]);
  });
  return [...modules, ...framebuffers];
}

/** Restores the terminals of consoles. Last, because a driver's framebuffer may have done it already. */
export function planConsoles(host: HostReader, state: GuestState): Restoring[] {
  const drivers = readConsoleDrivers(host);
  return state.consoles.map((name) => {
    const own = drivers.find((driver) => driver.name === name);
    const notes = own === undefined ? [`console ${name} cannot be restored: the kernel has removed it`] : [];
    const steps = own?.bound === false ? [returnConsoles(name, drivers)] : [];
    return {list: 'consoles', name, plan: plan(steps, {notes})};
  });
}

/**
 * Starts the services again, in reverse order of stopping, then those of users.
 * @param displayManager not started if there is no display for it.
 * @param unstartable the services that cannot be started any more, and why.
 */
export function planServices(
  host: HostReader,
  state: GuestState,
  displayManager: string | undefined,
  unstartable: ReadonlyMap<string, string>,
): Restoring[] {
  const system = [...state.services].reverse().filter((unit) => unit !== displayManager);
  return [
    ...system.map((unit): Restoring => {
      const reason = unstartable.get(unit);
      const planned =
        reason === undefined
          ? plan([systemctl(['start', unit])])
          : plan([], {notes: [`${unit} is not started again: ${reason}`]});
      return {list: 'services', name: unit, plan: planned};
    }),
    ...[...(state.userServices ?? [])].reverse().map((name): Restoring => {
      const [user = ''] = name.split(':');
      const planned = host.exists(`/run/user/${user}`)
        ? plan([systemctl(userSystemctl('start', name))])
        : plan([], {
            notes: [
              `${name.slice(user.length + 1)} of user ${user} is not started again: the user has no service manager`,
            ],
          });
      return {list: 'userServices', name, plan: planned};
    }),
  ];
}
