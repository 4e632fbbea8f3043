import {ExitCode, PearasysError} from '../../host/errors.js';
import type {HostReader} from '../../host/host.js';
import {runState} from '../../host/paths.js';
import type {Slot} from '../../devices/pci/slot.js';
import {parseTaken, plainTaken, type TakenDevice} from '../taken-device.js';
import {asGuest, type Guest} from './guest-name.js';

/** What a guest has taken, and the state before: the stop of its unit restores it. Lasts until the next boot. */
export interface GuestState {
  readonly guest: Guest;
  readonly devices: readonly TakenDevice[];
  /** Services that were stopped and must be started when the guest has ended, in the order of their stopping. */
  readonly services: readonly string[];
  /** The same for units of users' service managers: `1000:pipewire.service`; absent without any. */
  readonly userServices?: readonly string[];
  /** Modules that were unloaded, in this order. */
  readonly modules: readonly string[];
  /** Virtual consoles that were released: `vtcon1`. */
  readonly consoles: readonly string[];
  /** The firmware's framebuffers that were unbound: `efi-framebuffer.0`. */
  readonly framebuffers: readonly string[];
}

/** The part of a state for these units of users' service managers. */
export function withUserServices(units: readonly string[]): Pick<GuestState, 'userServices'> {
  return units.length === 0 ? {} : {userServices: units};
}

/** The folder of states. */
const folder = `${runState}/guest`;

/** The path of a guest's state. The file exists as long as the guest has a device of the host. */
export function statePath(guest: Guest): string {
  return `${folder}/${guest}`;
}

/** The text of the state's file. */
export function printState(state: GuestState): string {
  return `${JSON.stringify(
    {
      ...state,
      devices: state.devices.map(plainTaken),
    },
    null,
    2,
  )}\n`;
}

/**
 * The path of the state of a device that was left on VFIO when its guest ended, so that the next guest's start still
 * knows the device's previous driver. Lasts until the host has the device back, or until the next boot.
 */
export function keptPath(slot: Slot): string {
  return `${runState}/kept/${slot}`;
}

/** The text of that file. */
export function printKept(taken: TakenDevice): string {
  return `${JSON.stringify(plainTaken(taken))}\n`;
}

/** The device's state before a guest left it on VFIO; undefined if no guest did, or if the file is damaged. */
export function readKept(host: HostReader, slot: Slot): TakenDevice | undefined {
  const text = host.readText(keptPath(slot));
  if (text === undefined) return undefined;
  try {
    const taken = parseTaken(JSON.parse(text));
    return taken?.slot === slot ? taken : undefined;
  } catch {
    return undefined;
  }
}

/**
 * The state of the guest; undefined if it has no device.
 * @throws PearasysError `file-failed` if {@link printState} cannot have written the file.
 */
export function readState(host: HostReader, guest: Guest): GuestState | undefined {
  const text = host.readText(statePath(guest));
  if (text === undefined) return undefined;
  const state = parseState(text);
  if (state?.guest !== guest)
    throw new PearasysError({
      code: 'file-failed',
      exitCode: ExitCode.failed,
      message: `${statePath(guest)} is damaged: the devices that guest ${guest} has taken are unknown`,
      hint: `return its devices with \`pearasys bind default\`, then remove that file`,
    });
  return state;
}

/** The states of all guests. */
interface GuestStates {
  readonly states: readonly GuestState[];
  /** Guests whose state is damaged, with the error of {@link readState}. Other guests do not wait for them. */
  readonly damaged: ReadonlyMap<Guest, PearasysError>;
}

/** Reads the states of all guests. */
export function readStates(host: HostReader): GuestStates {
  const states: GuestState[] = [];
  const damaged = new Map<Guest, PearasysError>();
  for (const guest of host.list(folder).map(asGuest)) {
    if (guest === undefined) continue;
    try {
      const state = readState(host, guest);
      if (state !== undefined) states.push(state);
    } catch (error) {
      if (!(error instanceof PearasysError)) throw error;
      damaged.set(guest, error);
    }
  }
  return {states, damaged};
}

function parseState(text: string): GuestState | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!isObject(value)) return undefined;
  const {guest, devices, services, userServices = [], modules, consoles, framebuffers} = value;
  const name = typeof guest === 'string' ? asGuest(guest) : undefined;
  const lists = [services, userServices, modules, consoles, framebuffers];
  if (name === undefined || !Array.isArray(devices) || !lists.every(isWords)) return undefined;
  const taken = devices.map(parseTaken);
  if (!taken.every((one) => one !== undefined)) return undefined;
  const [one, two, three, four, five] = lists as [string[], string[], string[], string[], string[]];
  return {
    guest: name,
    devices: taken,
    services: one,
    ...withUserServices(two),
    modules: three,
    consoles: four,
    framebuffers: five,
  };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

/** Whether these are words that can be parts of paths and arguments of programs. */
function isWords(value: unknown): value is string[] {
  return (
    Array.isArray(value) &&
    value.every((word) => typeof word === 'string' && /^[\w@:.\\-]+$/.test(word) && !/^[.-]/.test(word))
  );
}
