import type {Layout} from '../config/layout.js';
import type {Slot} from '../devices/pci/slot.js';
import {carryOut, type CarryOutOptions, type Outcome} from '../engine/carry-out.js';
import type {Host} from '../host/host.js';
import {guestsLock, planGuestStart, readGuestStart, servicesToAsk} from '../plan/guest/guest-start.js';
import {readGuestFile} from '../state/guests/guest-files.js';
import type {Guest} from '../state/guests/guest-name.js';
import {readServiceStates} from '../systemd/unit.js';

/** The result of {@link startGuest}. */
interface GuestStartOutcome extends Outcome {
  /** The devices that the guest has now. */
  readonly slots: readonly Slot[];
}

/**
 * Binds all devices of a guest to VFIO, or leaves all of them to the host as before.
 * @throws PearasysError the refusal, or what failed.
 */
export async function startGuest(
  host: Host,
  layout: Layout,
  guest: Guest,
  options: CarryOutOptions,
): Promise<GuestStartOutcome> {
  const {running, unstartable} = await readServiceStates(host, servicesToAsk(host, layout, guest));
  // The guest's file may be edited while this run waits for its locks.
  const slots = () => readGuestFile(host, layout, guest)?.slots ?? [];
  const outcome = await carryOut(
    host,
    () => [guestsLock, ...slots()],
    () => planGuestStart(readGuestStart(host, layout, guest, running, unstartable)),
    options,
  );
  return {...outcome, slots: slots()};
}
