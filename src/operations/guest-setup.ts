import type {Layout} from '../config/layout.js';
import type {Device} from '../devices/pci/device.js';
import {carryOut, type CarryOutOptions, type Outcome} from '../engine/carry-out.js';
import type {Host, HostReader} from '../host/host.js';
import {planRemove, planSetup, readGuestFilesState, readMembers} from '../plan/guest/guest-setup.js';
import {guestsLock} from '../plan/guest/guest-start.js';
import {describeForeignHooks, readForeignHooks} from '../state/guests/hooks.js';
import {domainNames} from '../state/guests/domain.js';
import type {Guest} from '../state/guests/guest-name.js';
import {refreshed} from './devices.js';

/** The set-up of a guest. */
interface SetupRequest {
  readonly guest: Guest;
  readonly devices: readonly Device[];
  /** Notes for the user, in addition to those of the plan. */
  readonly notes: readonly string[];
  /** The host with the devices and libvirt's guests: the machine, even if a folder for inspection is written. */
  readonly machine: HostReader;
}

/**
 * Writes which devices a guest takes. Nothing happens to the devices before the guest starts.
 * @throws PearasysError the refusal, or what failed.
 */
export async function setUpGuest(
  host: Host,
  layout: Layout,
  {guest, devices, notes, machine}: SetupRequest,
  options: CarryOutOptions,
): Promise<Outcome> {
  const foreign = describeForeignHooks(readForeignHooks(machine, guest, domainNames(machine)), guest);
  return await carryOut(
    host,
    locksFor(host),
    (when) => {
      const now = refreshed(machine, devices, when);
      return planSetup(
        {guest, devices: now, members: readMembers(machine, now), notes: [...notes, ...foreign]},
        readGuestFilesState(host, layout, guest),
      );
    },
    options,
  );
}

/** Whether {@link removeGuest} would do anything; without a lock, for a question before it. */
export function isSetUp(host: HostReader, layout: Layout, guest: Guest): boolean {
  return planRemove(guest, readGuestFilesState(host, layout, guest)).kind === 'plan';
}

/**
 * Removes the set-up of a guest.
 * @throws PearasysError the refusal: it is not set up, or has its devices; what failed.
 */
export async function removeGuest(
  host: Host,
  layout: Layout,
  guest: Guest,
  options: CarryOutOptions,
): Promise<Outcome> {
  return await carryOut(
    host,
    [guestsLock],
    () => planRemove(guest, readGuestFilesState(host, layout, guest)),
    options,
  );
}

/** The names of locks: none in a folder for inspection, where the lock file would be left behind. */
export function locksFor({root}: HostReader): string[] {
  return root === '/' ? [guestsLock] : [];
}
