import {ExitCode, PearasysError} from '../../host/errors.js';
import type {Domain} from '../../state/guests/domain.js';
import {guestUnit, type Guest} from '../../state/guests/guest-name.js';
import {shellWord} from '../../host/shell.js';
import {suggest} from './report-error.js';

/**
 * A note about a guest without a file of libvirt: a transient one, one of a user's session or of KubeVirt, or QEMU
 * without libvirt; undefined otherwise.
 */
export function unknownDomain(guest: Guest, domain: Domain): string | undefined {
  if (domain.kind === 'hidden')
    return "only root can read libvirt's guests: did not check that this one exists";
  if (domain.kind !== 'unknown') return undefined;
  const nearest = suggest(guest, domain.known);
  return (
    `libvirt has no file of guest ${guest}${nearest === undefined ? '' : ` (did you mean ${nearest}?)`}: ` +
    `if the system's libvirt does not start it, run systemctl start ${shellWord(guestUnit(guest))} before it`
  );
}

/** @throws PearasysError `no-guest`, exit code 4, when libvirt is installed and has no such domain. */
export function requireDomain(guest: Guest, domain: Domain): void {
  if (domain.kind !== 'unknown') return;
  const nearest = suggest(guest, domain.known);
  throw new PearasysError({
    code: 'no-guest',
    exitCode: ExitCode.noDevice,
    message: `libvirt has no guest called ${guest}`,
    details: ['nothing was changed'],
    hint: `${nearest === undefined ? '`virsh list --all` shows the guests' : `did you mean ${nearest}?`}; for a guest without a libvirt file, use --device SLOT`,
  });
}
