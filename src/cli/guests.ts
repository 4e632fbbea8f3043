import {ExitCode, PearasysError} from '../host/errors.js';
import type {Domain} from '../guest/domain.js';
import type {Guest} from '../guest/name.js';
import type {HostReader} from '../host/host.js';
import {guestsLock} from '../plan/guest-start.js';
import {suggest} from './errors.js';

/** @throws PearasysError `no-guest`, exit code 4, when libvirt is there and has no such domain. */
export function requireDomain(guest: Guest, domain: Domain): void {
  if (domain.kind !== 'unknown') return;
  const nearest = suggest(guest, domain.known);
  throw new PearasysError({
    code: 'no-guest',
    exitCode: ExitCode.noDevice,
    message: `libvirt has no guest called ${guest}`,
    details: ['nothing was changed'],
    hint: nearest === undefined ? '`virsh list --all` shows which there are' : `did you mean ${nearest}?`,
  });
}

/** What is locked while hooks are written: nothing in a folder to be looked at, where the lock would be left behind. */
export function hooksLocks({root}: HostReader): string[] {
  return root === '/' ? [guestsLock] : [];
}
