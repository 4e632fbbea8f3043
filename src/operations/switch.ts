import type {Device} from '../devices/pci/device.js';
import {carryOut, type CarryOutOptions, type Outcome} from '../engine/carry-out.js';
import type {Host} from '../host/host.js';
import {planByHand} from '../plan/switch/claim.js';
import {readSwitch, type Target} from '../plan/switch/switch.js';
import {refreshed} from './devices.js';

/** Settings of {@link switchDevices}. */
export interface SwitchOptions extends CarryOutOptions {
  /** Whether to go on where a person may decide, see {@link SwitchRules}. */
  readonly force: boolean;
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
  const rules = {force: options.force, wholeGroup: true};
  return await carryOut(
    host,
    devices.map(({slot}) => slot),
    (when) => planByHand(host, readSwitch(host, refreshed(host, devices, when), target, rules)),
    options,
  );
}
