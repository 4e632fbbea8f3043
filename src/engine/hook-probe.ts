import {PearasysError} from '../host/errors.js';
import type {Host} from '../host/host.js';
import {guestHooks, hooksFolder, isPlainForShell, qemuHook, type HookKind} from '../state/guests/hooks.js';
import type {Guest} from '../state/guests/guest-name.js';

/** The result of the test of `hooks/qemu`. */
interface HookFinding {
  readonly kind: HookKind;
  /** A note for the user, if there is such a hook. */
  readonly note: string | undefined;
}

/** Seconds for the hook to run the test hook. */
const limit = 5;

/** The user and group `nobody`; the kernel's overflowuid, see user_namespaces(7). */
const nobody = '65534';

/**
 * Runs the hook `$1` for guest `$2`, with a test hook at `$3` below the hooks folder `$4`. It runs as nobody in
 * separate namespaces: /run, /tmp and /dev/shm are empty, so that it reaches no service and leaves nothing behind,
 * there is no network, and all its processes end with the shell.
 */
const script = `
set -e
mount -t tmpfs -o mode=0755,size=4m tmpfs /tmp
mkdir -p /tmp/hooks/"$3"
cp -- "$1" /tmp/hooks/qemu
printf '#!/bin/sh\\n: >/run/ran\\n' >/tmp/hooks/"$3"/50-pearasys
chmod 0755 /tmp/hooks/qemu /tmp/hooks/"$3"/50-pearasys
mount --bind /tmp/hooks "$4"
mount -t tmpfs -o mode=1777,size=4m tmpfs /run
mount -t tmpfs -o mode=1777,size=4m tmpfs /dev/shm
mount -t tmpfs -o mode=1777,size=4m tmpfs /var/tmp
mount -t tmpfs -o mode=1777,size=4m tmpfs /tmp
cd /
ulimit -c 0
ulimit -f 1024
echo "<domain type='kvm'><name>$2</name></domain>" |
  timeout --signal=KILL ${limit} \\
    setpriv --reuid=${nobody} --regid=${nobody} --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all \\
    "$4"/qemu "$2" prepare begin - >/dev/null 2>&1 || :
[ ! -e /run/ran ] || echo ran
`;

/**
 * How hooks are run: another program's hook is tried with a test hook, in a sandbox. If it cannot be tried, libvirt is
 * assumed to run the hooks: since 6.5 it runs the files in `qemu.d` itself.
 */
export async function probeQemuHook(host: Host, guest: Guest): Promise<HookFinding> {
  const info = host.info(qemuHook);
  if (info?.kind !== 'file' || (info.mode & 0o111) === 0) return {kind: 'libvirt', note: undefined};
  const itself = 'libvirt 6.5 and later runs the hook in qemu.d itself';
  if (!isPlainForShell(guest))
    return {
      kind: 'libvirt',
      note: `${qemuHook} was not tried with the name of guest ${guest}, which a shell may split: ${itself}`,
    };
  if (host.userId !== 0)
    return {kind: 'libvirt', note: `${qemuHook} was not tried, because that needs root: ${itself}`};
  const [first = ''] = guestHooks(guest);
  const place = first.slice(hooksFolder.length + 1, first.lastIndexOf('/'));
  try {
    const {stdout} = await host.run(
      'unshare',
      [
        ...['--mount', '--net', '--ipc', '--uts', '--pid', '--fork', '--kill-child', '--mount-proc'],
        ...['--propagation=private', '--', 'sh', '-c', script, 'sh', qemuHook, guest, place, hooksFolder],
      ],
      {limit: (limit + 5) * 1000},
    );
    return stdout.trim() === 'ran'
      ? {
          kind: 'dispatcher',
          note: `${qemuHook} runs hooks from ${hooksFolder}/${place}: the hook is written there`,
        }
      : {
          kind: 'libvirt',
          note: `${qemuHook} did not run a test hook from ${hooksFolder}/${place}: ${itself}`,
        };
  } catch (error) {
    if (!(error instanceof PearasysError)) throw error;
    const reason = error.details[0] ?? error.message;
    return {kind: 'libvirt', note: `${qemuHook} could not be tried (${reason}): ${itself}`};
  }
}
