import type {Device} from '../devices/pci/device.js';
import {carryOut, type CarryOutOptions, type Outcome} from '../engine/carry-out.js';
import type {Host} from '../host/host.js';
import {planByHand} from '../plan/switch/claim.js';
import {readSwitch, type Target} from '../plan/switch/switch.js';
import {addRisks, refuseRisks} from '../plan/switch/refusals.js';
import {readHolders} from '../usage/holders.js';
import {readRisks} from '../usage/risks.js';
import {refreshed} from './devices.js';

/** Settings of {@link switchDevices}. */
export interface SwitchOptions extends CarryOutOptions {
  /** Whether to continue despite refusals that the user may override, see {@link SwitchRules}. */
  readonly force: boolean;
  /** Whether the user has accepted the risks of {@link risksOf}. */
  readonly accepted?: boolean;
}

/** What the user loses when these devices are taken from the host. */
export function risksOf(host: Host, devices: readonly Device[]): string[] {
  return readRisks(host, devices, readHolders(host, devices));
}

/**
 * Brings devices to a driver, to none, or to the one that the kernel chooses: all of them, or none.
 * @param devices as they were just read.
 * @throws PearasysError the refusal, or what failed.
 */
export async function switchDevices(
  host: Host,
  devices: readonly Device[],
  target: Target,
  options: SwitchOptions,
): Promise<Outcome> {
  const {force, accepted = false} = options;
  const rules = {force, accepted, wholeGroup: true};
  return await carryOut(
    host,
    devices.map(({slot}) => slot),
    (when) => {
      const input = readSwitch(host, refreshed(host, devices, when), target, rules);
      const planned = planByHand(host, input);
      if (target.kind === 'default' || force || accepted) return planned;
      const slots = devices.map(({slot}) => slot).join(' ');
      const way = `to get it back: pearasys bind default ${slots}, or a reboot; or try it with --confirm SECONDS`;
      const risks = readRisks(host, input.devices, input.holders);
      if (planned.kind === 'refusal') return addRisks(planned, risks, way);
      return planned.steps.length === 0 ? planned : (refuseRisks(risks, way) ?? planned);
    },
    options,
  );
}
