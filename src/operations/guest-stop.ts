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
interface GuestStopOptions extends CarryOutOptions {
  /** Called with a failure, which does not stop the rest. */
  readonly onProblem: (error: PearasysError, gravity: 'warning' | 'error') => void;
  /** Called with information about success. */
  readonly onInfo: (text: string) => void;
}

/** The result of {@link stopGuest}: the guest had no device, all were returned, or they are kept as configured. */
type GuestStopOutcome = 'nothing' | 'returned' | 'kept';

/**
 * Returns each device of a guest to its previous driver, then restores what was released and stopped for them. What
 * cannot be restored is kept in the guest's state for the next stop.
 * @throws PearasysError `not-bound` when the host did not get everything back.
 */
export async function stopGuest(
  host: Host,
  layout: Layout,
  guest: Guest,
  options: GuestStopOptions,
): Promise<GuestStopOutcome> {
  const state = readState(host, guest);
  if (state === undefined) {
    // A start that was killed while it wrote the state may have left an unfinished file.
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

/** Whether to return the devices. Unreadable settings must not keep them from the host. */
function readReturns(host: Host, layout: Layout, guest: Guest, {onProblem}: GuestStopOptions): boolean {
  try {
    return readSettings(host, layout, guest).returnDevices;
  } catch (error) {
    if (!(error instanceof PearasysError)) throw error;
    onProblem(error, 'warning');
    return defaultSettings.returnDevices;
  }
}

/** @returns the devices that the host did not get back. */
async function giveBack(host: Host, state: GuestState, options: GuestStopOptions): Promise<TakenDevice[]> {
  // Processes that still use a device after that are named for each device.
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
 * Restores what was released and stopped. A failure is reported and does not stop the rest.
 * @returns what must still be restored: all of it while a display is among the missing devices.
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

/** @returns whether it was done; a failure is reported. */
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
