import {posix} from 'node:path';
import type {CommandResult} from '../../../src/host/host.js';
import type {SimulatedMachine} from '../kernel/machine.js';
import {blkid} from './blkid.js';
import {dd} from './dd.js';
import {chmod, no, stat, touch, yes} from './coreutils.js';
import {getent} from './getent.js';
import {dracut, initramfsClaims, mkinitcpio, updateInitramfs} from './initramfs.js';
import {journalctl} from './journalctl.js';
import {modprobe, rmmod} from './modprobe.js';
import type {Program} from './program.js';
import {systemctl} from './systemctl.js';
import {systemdRun} from './systemd-run.js';
import {udevadm} from './udevadm.js';
import {unshare} from './unshare.js';

/**
 * Runs a program of the simulated machine; undefined when it has no such program.
 * @throws Error for a use that is not simulated: a test must not pass because nothing happened.
 */
export async function runProgram(
  machine: SimulatedMachine,
  userId: number,
  file: string,
  args: readonly string[],
): Promise<CommandResult | undefined> {
  const program = programs.get(posix.basename(file));
  return program === undefined ? undefined : await program(machine, userId, args);
}

const programs = new Map<string, Program>([
  ['systemd-run', systemdRun],
  ['unshare', unshare],
  ['touch', touch],
  ['chmod', chmod],
  ['stat', stat],
  ['true', yes],
  ['false', no],
  ['blkid', blkid],
  ['dd', dd],
  ['getent', getent],
  ['modprobe', modprobe],
  ['rmmod', rmmod],
  ['udevadm', udevadm],
  ['systemctl', systemctl],
  ['journalctl', journalctl],
  ['update-initramfs', updateInitramfs],
  ['dracut', dracut],
  ['mkinitcpio', mkinitcpio],
  ['initramfs-claims', initramfsClaims],
]);
