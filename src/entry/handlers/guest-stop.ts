import {ExitCode, PearasysError} from '../../host/errors.js';
import {shellWord} from '../../host/shell.js';
import type {Host} from '../../host/host.js';
import {guestOfInstance, guestUnit, type Guest} from '../../state/guests/name.js';
import {defaultSettings, readSettings, type GuestSettings} from '../../state/guests/guest-settings.js';
import {readState, withUserServices, type GuestState, type TakenDevice} from '../../state/guests/state.js';
import {carryOut, type CarryOutOptions} from '../../engine/carry-out.js';
import {
  displayManagerUnit,
  guestsLock,
  guestsPatience,
  hasOtherDisplay,
} from '../../plan/guest/guest-start.js';
import {
  hasDisplay,
  planConsoles,
  planRestore,
  planReturn,
  planServices,
  planState,
  planWait,
  type Restoring,
} from '../../plan/guest/guest-stop.js';
import {plan, type Planned} from '../../plan/step.js';
import {readServiceStates} from '../../systemd/unit.js';
import {handlerOptions, report, takeArguments, type Handler, type HandlerContext} from './handler.js';

/**
 * The stop of `pearasys-guest@<guest>.service`: each device is given back to the driver it had, then what was
 * released and stopped for them comes back. What cannot be had back stays in the guest's state, for the next time.
 */
export const guestStop: Handler = async (context, args) => {
  const {host, log} = context;
  const [instance] = takeArguments(args, ['GUEST']);
  const guest = guestOfInstance(instance);
  const state = readState(host, guest);
  if (state === undefined) {
    // A start that was killed before it had a state may have left the half of one.
    await carryOut(host, [guestsLock], () => plan([]), stopOptions(context));
    log(6, `guest ${guest} has nothing of the host's`);
    return;
  }
  const returns = readReturns(context, guest);
  const devices = returns ? await giveBack(context, state) : [];
  const left = await restore(context, state, {devices, returns});
  const kept = returns ? [] : state.devices;
  await carryOut(host, [guestsLock], () => planState(host, state, left, kept), stopOptions(context));
  const missing = describeLeft(left);
  if (missing.length === 0) {
    log(
      6,
      returns
        ? `guest ${guest}: the host has its devices back`
        : `guest ${guest}: its devices stay with VFIO`,
    );
    return;
  }
  throw new PearasysError({
    code: 'not-bound',
    exitCode: ExitCode.failed,
    message: `guest ${guest}: the host does not have all back that it had before`,
    details: missing,
    hint: `systemctl start ${shellWord(guestUnit(guest))} && systemctl stop ${shellWord(guestUnit(guest))} tries again`,
  });
};

function describeLeft({
  devices,
  services,
  userServices = [],
  modules,
  consoles,
  framebuffers,
}: GuestState): string[] {
  return [
    ...(devices.length === 0 ? [] : [`it does not have ${devices.map(({slot}) => slot).join(', ')}`]),
    ...modules.map((module) => `module ${module} is not loaded`),
    ...framebuffers.map((device) => `framebuffer ${device} has no driver`),
    ...consoles.map((name) => `console ${name} has no terminals`),
    ...services.map((unit) => `${unit} is not started`),
    ...userServices.map(
      (name) => `${name.replace(/^\d+:/, '')} of user ${name.split(':')[0] ?? ''} is not started`,
    ),
  ];
}

/** Whether the devices are to be given back. Settings that cannot be read must not keep them from the host. */
function readReturns({host, layout, log}: HandlerContext, guest: Guest): boolean {
  let settings: GuestSettings = defaultSettings;
  try {
    settings = readSettings(host, layout, guest);
  } catch (error) {
    report(error, (_, line) => log(4, line));
  }
  return settings.returnDevices;
}

/** @returns the devices that the host does not have back. */
async function giveBack(context: HandlerContext, state: GuestState): Promise<TakenDevice[]> {
  const {host} = context;
  // Who still has one after that is named for each of them.
  await attempt(context, [], () => planWait(host, state));
  const left: TakenDevice[] = [];
  for (const taken of state.devices) {
    const locks = [guestsLock, taken.slot];
    const done = await attempt(context, locks, () => planReturn(host, state.guest, taken));
    if (!done) left.push(taken);
  }
  return left;
}

/**
 * Puts back what was released and stopped. What cannot be is told, and keeps nothing else from being done.
 * @returns what is still to be put back: all of it while a display is among the devices that are not back.
 */
async function restore(
  context: HandlerContext,
  state: GuestState,
  {devices, returns}: {readonly devices: readonly TakenDevice[]; readonly returns: boolean},
): Promise<GuestState> {
  const {host, log} = context;
  if (hasDisplay(host, devices)) return {...state, devices};
  const left = {modules: [], framebuffers: [], consoles: [], services: [], userServices: []} as Record<
    Restoring['list'],
    string[]
  >;
  const each = async (restoring: readonly Restoring[], locks: readonly string[]) => {
    for (const {list, name, plan} of restoring)
      if (!(await attempt(context, locks, () => plan))) left[list].push(name);
  };
  if (returns) {
    await each(planRestore(host, state), [guestsLock]);
    await each(planConsoles(host, state), [guestsLock]);
  }
  const stopped = [...state.services, ...(state.userServices ?? [])];
  if (stopped.length > 0 && (await goesDown(host)))
    log(6, `${stopped.join(', ')} not started: the machine goes down`);
  else await each(await services(context, state, returns), []);
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
  {host, log}: HandlerContext,
  state: GuestState,
  returns: boolean,
): Promise<Restoring[]> {
  const slots = state.devices.map(({slot}) => slot);
  const displayManager = displayManagerUnit(host);
  const withoutDisplay = !returns && !hasOtherDisplay(host, slots);
  if (withoutDisplay && state.services.includes(displayManager ?? ''))
    log(4, `${displayManager ?? ''} is not started: there is no display for it`);
  const {unstartable} = await readServiceStates(host, state.services);
  return planServices(host, state, withoutDisplay ? displayManager : undefined, unstartable);
}

function stopOptions(context: HandlerContext): CarryOutOptions {
  return {...handlerOptions(context), lockLimit: guestsPatience};
}

/** @returns whether it was done; why not is told. */
async function attempt(
  context: HandlerContext,
  locks: readonly string[],
  readAndPlan: () => Planned,
): Promise<boolean> {
  try {
    await carryOut(context.host, locks, readAndPlan, stopOptions(context));
    return true;
  } catch (error) {
    if (!(error instanceof PearasysError)) throw error;
    report(error, context.log);
    return false;
  }
}

/** systemd refuses to start anything then. It answers with an exit code for each state, see systemctl(1). */
async function goesDown(host: Host): Promise<boolean> {
  const {stdout} = await host.run('systemctl', ['is-system-running'], {accept: [0, 1, 2, 3, 4]});
  return stdout.trim() === 'stopping';
}
