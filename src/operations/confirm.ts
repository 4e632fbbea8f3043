import type {Layout} from '../config/layout.js';
import {readDevice, type Device} from '../devices/pci/device.js';
import {carryOut, type CarryOutOptions, type Outcome} from '../engine/carry-out.js';
import type {Host} from '../host/host.js';
import {planByHand} from '../plan/switch/claim.js';
import {planConfirm, planUndo, planUnconfirmed, unconfirmedLock} from '../plan/switch/unconfirmed.js';
import {readSwitch, type Target} from '../plan/switch/switch.js';
import {readUnconfirmed, type Unconfirmed, type UnconfirmedClaim} from '../state/unconfirmed.js';
import {refreshed} from './devices.js';
import {installServices, refuseEarly} from './service-install.js';

/** A switch that is undone unless it is confirmed. */
interface UnconfirmedRequest {
  /** As just read. */
  readonly devices: readonly Device[];
  readonly target: Target;
  readonly force: boolean;
  /** Whether groups must be viable afterwards. */
  readonly wholeGroup: boolean;
  /** Seconds until it is undone. */
  readonly seconds: number;
  /** The claim that {@link confirmSwitch} makes permanent. */
  readonly claim?: UnconfirmedClaim;
}

/**
 * Switches devices, and undoes the switch after some seconds unless it is confirmed. Until then nothing survives a
 * reboot. Risks need not be accepted, because the switch is undone without a confirmation.
 * @throws PearasysError the refusal, or what failed.
 */
export async function switchUnconfirmed(
  host: Host,
  layout: Layout,
  {devices, target, force, wholeGroup, seconds, claim}: UnconfirmedRequest,
  options: CarryOutOptions,
): Promise<Outcome> {
  const {command} = layout;
  return await carryOut(
    host,
    [unconfirmedLock, ...devices.map(({slot}) => slot)],
    (when) => {
      const now = refreshed(host, devices, when);
      if (claim !== undefined) {
        const request = {...claim, devices: now, now: true, force, accepted: true};
        const early = refuseEarly(host, now, request);
        if (early.kind === 'refusal') return early;
      }
      const rules = {force, accepted: true, wholeGroup};
      const before: Unconfirmed = {
        devices: now.map(({slot, id, driver, override}) => ({slot, id, driver, override})),
        claim,
      };
      const switching = planByHand(host, readSwitch(host, now, target, rules));
      return planUnconfirmed(switching, before, readUnconfirmed(host), {seconds, command});
    },
    options,
  );
}

/** The result of {@link confirmSwitch} and {@link undoUnconfirmed}. */
interface ConfirmOutcome {
  readonly outcomes: readonly Outcome[];
  /** The devices that were switched. */
  readonly devices: Unconfirmed['devices'];
}

/**
 * Keeps what {@link switchUnconfirmed} has switched, and makes its claim permanent.
 * @throws PearasysError `no-device` if nothing is unconfirmed; what failed: then the switch lasts until the next boot.
 */
export async function confirmSwitch(
  host: Host,
  layout: Layout,
  options: CarryOutOptions,
): Promise<ConfirmOutcome> {
  const pending = readUnconfirmed(host);
  const kept = await carryOut(host, [unconfirmedLock], () => planConfirm(readUnconfirmed(host)), options);
  const devices = pending?.devices ?? [];
  if (pending?.claim === undefined) return {outcomes: [kept], devices};
  const {driver, folder, group, rebuild, changes = [], accessChange, devices: claimed} = pending.claim;
  const present = claimed.map(({slot, id}) => {
    const device = readDevice(host, slot);
    return device?.id === id ? device : {slot, id};
  });
  const rules = {now: true, force: true, accepted: true, rebuild};
  const request = {devices: present, driver, folder, group, changes, accessChange, ...rules};
  return {outcomes: [kept, await installServices(host, layout, request, options)], devices};
}

/**
 * Undoes what {@link switchUnconfirmed} has switched.
 * @throws PearasysError `no-device` if nothing is unconfirmed; the refusal of a device that is now in use; what failed.
 */
export async function undoUnconfirmed(host: Host, options: CarryOutOptions): Promise<ConfirmOutcome> {
  const devices = readUnconfirmed(host)?.devices ?? [];
  const names = [unconfirmedLock, ...devices.map(({slot}) => slot)];
  const outcome = await carryOut(host, names, () => planUndo(host, readUnconfirmed(host)), options);
  return {outcomes: [outcome], devices};
}
