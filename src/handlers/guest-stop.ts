import {ExitCode, PearasysError} from '../host/errors.js';
import {shellWord} from '../host/shell.js';
import type {Host} from '../host/host.js';
import {guestOfInstance, guestUnit, type Guest} from '../guest/name.js';
import {defaultSettings, readSettings, type GuestSettings} from '../guest/settings.js';
import {readState, type GuestState, type TakenDevice} from '../guest/state.js';
import {carryOut, type CarryOutOptions} from '../plan/carry-out.js';
import {displayManagerUnit, guestsLock, guestsPatience, hasOtherDisplay} from '../plan/guest-start.js';
import {planConsoles, planRestore, planReturn, planServices, planState} from '../plan/guest-stop.js';
import type {Planned} from '../plan/step.js';
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
    log(6, `guest ${guest} has nothing of the host's`);
    return;
  }
  const returns = readReturns(context, guest);
  const left = returns ? await giveBack(context, state) : [];
  if (left.length === 0) await restore(context, state, returns);
  await carryOut(host, [guestsLock], () => planState(state, left), stopOptions(context));
  if (left.length === 0) {
    log(
      6,
      returns
        ? `guest ${guest}: the host has its devices back`
        : `guest ${guest}: its devices stay with VFIO`,
    );
    return;
  }
  const slots = left.map(({slot}) => slot);
  throw new PearasysError({
    code: 'not-bound',
    exitCode: ExitCode.failed,
    message: `guest ${guest}: the host does not have ${slots.join(', ')} back`,
    details: state.services.map((unit) => `${unit} is not started before that`),
    hint: `systemctl start ${shellWord(guestUnit(guest))} && systemctl stop ${shellWord(guestUnit(guest))} tries again`,
  });
};

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
  const left: TakenDevice[] = [];
  for (const taken of state.devices) {
    const locks = [guestsLock, taken.slot];
    const done = await attempt(context, locks, () => planReturn(context.host, state.guest, taken));
    if (!done) left.push(taken);
  }
  return left;
}

/** Puts back what was released and stopped. What cannot be is told, and keeps nothing else from being done. */
async function restore(context: HandlerContext, state: GuestState, returns: boolean): Promise<void> {
  const {host, log} = context;
  const slots = state.devices.map(({slot}) => slot);
  const displayManager = displayManagerUnit(host);
  if (returns) {
    for (const one of planRestore(host, state)) await attempt(context, [guestsLock], () => one);
    await attempt(context, [guestsLock], () => planConsoles(host, state));
  }
  if (state.services.length === 0) return;
  if (await goesDown(host)) {
    log(6, `${state.services.join(', ')} not started: the machine goes down`);
    return;
  }
  const withoutDisplay = !returns && !hasOtherDisplay(host, slots);
  if (withoutDisplay && state.services.includes(displayManager ?? ''))
    log(4, `${displayManager ?? ''} is not started: there is no display for it`);
  for (const one of planServices(state, withoutDisplay ? displayManager : undefined))
    await attempt(context, [], () => one);
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
