import {ExitCode} from '../../host/errors.js';
import type {HostReader} from '../../host/host.js';
import {readDevice} from '../../devices/pci/device.js';
import {readHolders} from '../../usage/holders.js';
import {printUnconfirmed, unconfirmedPath, type Unconfirmed} from '../../state/unconfirmed.js';
import {plan, refuse, removeFile, runLater, systemctl, writeFile, type Plan, type Planned} from '../step.js';
import {refuseHeld, refuseLocked} from './refusals.js';
import {restoreDevice} from './restore.js';

/** The transient unit that undoes what is not confirmed. */
const unit = 'pearasys-unconfirmed';

/** What is locked while a change is confirmed or undone. */
export const unconfirmedLock = 'unconfirmed';

/**
 * The plan of a switch that is undone unless it is confirmed: the undoing is arranged before the first change.
 * @param options.seconds until it is undone.
 * @param options.command the path of pearasys.
 */
export function planUnconfirmed(
  switching: Planned,
  before: Unconfirmed,
  pending: Unconfirmed | undefined,
  {seconds, command}: {readonly seconds: number; readonly command: string},
): Planned {
  if (switching.kind === 'refusal' || switching.steps.length === 0) return switching;
  if (pending !== undefined)
    return refuse({
      code: 'busy',
      exitCode: ExitCode.refused,
      message: `an earlier change, of ${slotsOf(pending)}, still waits for confirmation`,
      details: ['nothing was changed'],
      hint: '`pearasys confirm` keeps it, `pearasys confirm --undo` undoes it now',
    });
  return {
    ...switching,
    steps: [
      writeFile(unconfirmedPath, printUnconfirmed(before), undefined, {mode: 0o600, prune: 0}),
      runLater(unit, seconds, [command, 'confirm', '--undo'], [systemctl(['stop', `${unit}.timer`])]),
      ...switching.steps,
    ],
    notes: [
      ...switching.notes,
      `this change is undone in ${seconds} s, or at a reboot, unless you run: pearasys confirm`,
    ],
  };
}

/** The plan that keeps a change: it is not undone any more. */
export function planConfirm(pending: Unconfirmed | undefined): Planned {
  return pending === undefined ? refuseNothing() : forget(pending);
}

/** The plan that undoes a change. A device whose driver was changed since then is switched back too; one in use is not. */
export function planUndo(host: HostReader, pending: Unconfirmed | undefined): Planned {
  if (pending === undefined) return refuseNothing();
  const notes: string[] = [];
  const moved = pending.devices.flatMap((taken) => {
    const device = readDevice(host, taken.slot);
    if (device?.id !== taken.id) {
      notes.push(`${taken.slot} is left alone: the card ${taken.id} is no longer in this slot`);
      return [];
    }
    return device.driver === taken.driver && device.override === taken.override ? [] : [{device, taken}];
  });
  const devices = moved.map(({device}) => device);
  const refusal = refuseLocked(devices) ?? refuseHeld(devices, readHolders(host, devices), true);
  if (refusal !== undefined) return refusal;
  const restoring = moved.map(({device, taken}) => restoreDevice(host, device, taken));
  return plan(
    [...restoring, forget(pending)].flatMap(({steps}) => steps),
    {
      notes: [...notes, ...restoring.flatMap((one) => one.notes)],
    },
  );
}

function forget(pending: Unconfirmed): Plan {
  return plan([
    removeFile(unconfirmedPath, {content: printUnconfirmed(pending), mode: 0o600}, {prune: 0}),
    // It has ended if it is what runs this.
    {...systemctl(['stop', `${unit}.timer`]), accept: [0, 5]},
  ]);
}

function refuseNothing(): Planned {
  return refuse({
    code: 'no-device',
    exitCode: ExitCode.noDevice,
    message: 'no change waits for confirmation',
    hint: 'if you made one, it has been confirmed or undone; `pearasys list` shows the drivers',
  });
}

function slotsOf({devices}: Unconfirmed): string {
  return devices.map(({slot}) => slot).join(', ');
}
