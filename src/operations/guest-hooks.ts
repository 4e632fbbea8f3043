import type {Layout} from '../config/layout.js';
import {carryOut, type CarryOutOptions, type Outcome} from '../engine/carry-out.js';
import type {Host} from '../host/host.js';
import {planInstallHooks, planRemoveHooks, readHooks} from '../plan/guest/guest-hooks.js';
import {domainNames} from '../state/guests/domain.js';
import {readGuestFiles} from '../state/guests/guest-files.js';
import {probeQemuHook} from '../engine/hook-probe.js';
import {describeForeignHooks, readForeignHooks} from '../state/guests/hooks.js';
import type {Guest} from '../state/guests/guest-name.js';
import {locksFor} from './guest-setup.js';

/** The result for the hooks. */
interface HooksOutcome extends Outcome {
  /** Our hooks that libvirt runs now. */
  readonly hooks: readonly string[];
}

/**
 * Writes the hook by which libvirt starts and stops the unit of a guest. An existing hook is tried first.
 * @param about notes for the user; `libvirt` is the host with libvirt: the machine, even if a folder is written.
 * @throws PearasysError the refusal, or what failed.
 */
export async function installHooks(
  host: Host,
  layout: Layout,
  guest: Guest,
  about: {readonly libvirt: Host; readonly notes: readonly string[]},
  options: CarryOutOptions,
): Promise<HooksOutcome> {
  const {libvirt} = about;
  const {kind, note} = await probeQemuHook(libvirt, guest);
  const foreign = readForeignHooks(libvirt, guest, domainNames(libvirt));
  const notes = [
    ...about.notes,
    ...(note === undefined ? [] : [note]),
    ...describeForeignHooks(foreign, guest),
  ];
  const outcome = await carryOut(
    host,
    locksFor(host),
    () => planInstallHooks(guest, readHooks(host, layout, guest, {kind, notes})),
    options,
  );
  return {...outcome, hooks: readHooks(host, layout, guest).ours};
}

/**
 * Removes our hooks: of one guest, or of all.
 * @throws PearasysError the refusal, or what failed.
 */
export async function removeHooks(
  host: Host,
  layout: Layout,
  guest: Guest | undefined,
  options: CarryOutOptions,
): Promise<HooksOutcome> {
  const outcome = await carryOut(
    host,
    locksFor(host),
    () => {
      const others = readGuestFiles(host, layout)
        .guests.map((file) => file.guest)
        .filter((other) => other !== guest);
      return planRemoveHooks(guest, others, readHooks(host, layout, guest));
    },
    options,
  );
  return {...outcome, hooks: readHooks(host, layout, guest).ours};
}
