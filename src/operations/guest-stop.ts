import type {Layout} from '../config/layout.js';
import {carryOut, type CarryOutOptions} from '../engine/carry-out.js';
import {ExitCode, PearasysError} from '../host/errors.js';
import type {Host} from '../host/host.js';
import {shellWord} from '../host/shell.js';
import {hasOtherDisplay} from '../usage/risks.js';
import {displayManagerUnit, guestsLock} from '../plan/guest/guest-start.js';
import {
  hasDisplay,
  planConsoles,
  planRestore,
  planReturn,
  planServices,
  planState,
  planWait,
  type Restoring,
} from '../plan/guest/guest-stop.js';
import {plan, type Planned} from '../plan/step.js';
import {defaultSettings, readSettings} from '../state/guests/guest-settings.js';
import {guestUnit, type Guest} from '../state/guests/guest-name.js';
import {readState, withUserServices, type GuestState} from '../state/guests/guest-state.js';
import type {TakenDevice} from '../state/taken-device.js';
import {readServiceStates, readSystemState} from '../systemd/unit.js';

/** Settings of {@link stopGuest}. */
export interface GuestStopOptions extends CarryOutOptions {
  /** Told of what could not be done, which keeps nothing else from being done. */
  readonly onProblem: (error: PearasysError, gravity: 'warning' | 'error') => void;
  /** Told of what is as it should be. */
  readonly onInfo: (text: string) => void;
}

/** What became of {@link stopGuest}: the guest had nothing, the host has all back, or the devices stay as is wanted. */
export type GuestStopOutcome = 'nothing' | 'returned' | 'kept';

/**
 * Gives each device of a guest back to the driver that it had, then puts back what was released and stopped for them.
 * What cannot be put back stays in the guest's state, for the next time.
 * @throws PearasysError `not-bound` when the host does not have all back.
 */
export async function stopGuest(
  host: Host,
  layout: Layout,
  guest: Guest,
  options: GuestStopOptions,
): Promise<GuestStopOutcome> {
  const state = readState(host, guest);
  if (state === undefined) {
    // A start that was killed before it had a state may have left the half of one.
    await carryOut(host, [guestsLock], () => plan([]), options);
    return 'nothing';
  }
  const returns = readReturns(host, layout, guest, options);
  const devices = returns ? await giveBack(host, state, options) : [];
  const left = await restore(host, state, {devices, returns}, options);
  const kept = returns ? [] : state.devices;
  await carryOut(host, [guestsLock], () => planState(host, state, left, kept), options);
  const missing = describeLeft(left);
  if (missing.length === 0) return returns ? 'returned' : 'kept';
  throw new PearasysError({
    code: 'not-bound',
    exitCode: ExitCode.failed,
    message: `guest ${guest}: the host did not get everything back`,
    details: missing,
    hint: `systemctl start ${shellWord(guestUnit(guest))} && systemctl stop ${shellWord(guestUnit(guest))}`,
  });
}

function describeLeft({
  devices,
  services,
  userServices = [],
  modules,
  consoles,
  framebuffers,
}: GuestState): string[] {
  return [
    ...(devices.length === 0 ? [] : [`not returned: ${devices.map(({slot}) => slot).join(', ')}`]),
    ...modules.map((module) => `module ${module} is not loaded`),
    ...framebuffers.map((device) => `framebuffer ${device} has no driver`),
    ...consoles.map((name) => `console ${name} has no terminals`),
    ...services.map((unit) => `${unit} was not started`),
    ...userServices.map(
      (name) => `${name.replace(/^\d+:/, '')} of user ${name.split(':')[0] ?? ''} was not started`,
    ),
  ];
}

/** Whether the devices are to be given back. Settings that cannot be read must not keep them from the host. */
function readReturns(host: Host, layout: Layout, guest: Guest, {onProblem}: GuestStopOptions): boolean {
  try {
    return readSettings(host, layout, guest).returnDevices;
  } catch (error) {
    if (!(error instanceof PearasysError)) throw error;
    onProblem(error, 'warning');
    return defaultSettings.returnDevices;
  }
}

/** @returns the devices that the host does not have back. */
async function giveBack(host: Host, state: GuestState, options: GuestStopOptions): Promise<TakenDevice[]> {
  // Who still has one after that is named for each of them.
  await attempt(host, [], () => planWait(host, state), options);
  const left: TakenDevice[] = [];
  for (const taken of state.devices) {
    const locks = [guestsLock, taken.slot];
    const done = await attempt(host, locks, () => planReturn(host, state.guest, taken), options);
    if (!done) left.push(taken);
  }
  return left;
}

/**
 * Puts back what was released and stopped. What cannot be is told, and keeps nothing else from being done.
 * @returns what is still to be put back: all of it while a display is among the devices that are not back.
 */
async function restore(
  host: Host,
  state: GuestState,
  {devices, returns}: {readonly devices: readonly TakenDevice[]; readonly returns: boolean},
  options: GuestStopOptions,
): Promise<GuestState> {
  if (hasDisplay(host, devices)) return {...state, devices};
  const left = {modules: [], framebuffers: [], consoles: [], services: [], userServices: []} as Record<
    Restoring['list'],
    string[]
  >;
  const each = async (restoring: readonly Restoring[], locks: readonly string[]) => {
    for (const {list, name, plan} of restoring)
      if (!(await attempt(host, locks, () => plan, options))) left[list].push(name);
  };
  if (returns) {
    await each(planRestore(host, state), [guestsLock]);
    await each(planConsoles(host, state), [guestsLock]);
  }
  const stopped = [...state.services, ...(state.userServices ?? [])];
  if (stopped.length > 0 && (await readSystemState(host)) === 'stopping')
    options.onInfo(`${stopped.join(', ')} not started: the machine is shutting down`);
  else await each(await services(host, state, returns, options), []);
  const still = (list: Restoring['list']) => (state[list] ?? []).filter((name) => left[list].includes(name));
  return {
    guest: state.guest,
    devices,
    services: still('services'),
    ...withUserServices(still('userServices')),
    modules: still('modules'),
    consoles: still('consoles'),
    framebuffers: still('framebuffers'),
  };
}

async function services(
  host: Host,
  state: GuestState,
  returns: boolean,
  options: GuestStopOptions,
): Promise<Restoring[]> {
  const slots = state.devices.map(({slot}) => slot);
  const displayManager = displayManagerUnit(host);
  const withoutDisplay = !returns && !hasOtherDisplay(host, slots);
  if (withoutDisplay && state.services.includes(displayManager ?? ''))
    options.onNote?.(`${displayManager ?? ''} was not started: there is no display for it`);
  const {unstartable} = await readServiceStates(host, state.services);
  return planServices(host, state, withoutDisplay ? displayManager : undefined, unstartable);
}

/** @returns whether it was done; why not is told. */
async function attempt(
  host: Host,
  locks: readonly string[],
  readAndPlan: () => Planned,
  options: GuestStopOptions,
): Promise<boolean> {
  try {
    await carryOut(host, locks, readAndPlan, options);
    return true;
  } catch (error) {
    if (!(error instanceof PearasysError)) throw error;
    options.onProblem(error, 'error');
    return false;
  }
}
