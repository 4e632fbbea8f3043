import {ExitCode, PearasysError} from '../host/errors.js';
import type {Host} from '../host/host.js';
import {poll} from '../host/poll.js';
import {dependentsOf, readDependents} from '../devices/pci/dependents.js';
import {isBridge, readDevice} from '../devices/pci/device.js';
import {readNvmeState, readParts} from '../devices/pci/parts.js';
import type {ExpectDisksStep, ExpectPartsStep} from '../plan/step.js';
import {readBlocks} from '../usage/blocks.js';
import {describeContents, readContents, readDisks, readUnsearchable} from '../usage/contents.js';
import {readStorageHolders} from '../usage/storage.js';
import {adviseOnHolder, describeHolder} from '../usage/words.js';
import type {ApplyOptions} from './apply-options.js';

/**
 * Checks that the disks of a device are not in use, and searches them if they must be blank.
 * @throws PearasysError `in-use`; `carries-data` if not all of them are known to be blank.
 */
export async function checkDisks(host: Host, {slot, blank}: ExpectDisksStep): Promise<void> {
  const device = readDevice(host, slot);
  if (device === undefined) return;
  const dependents = isBridge(device) ? [] : dependentsOf(readDependents(host, slot));
  const devices = new Map([device, ...dependents].map((one) => [one.slot, one]));
  const holders = readStorageHolders(host, readBlocks({host, devices}));
  if (holders.length > 0)
    throw new PearasysError({
      code: 'in-use',
      exitCode: ExitCode.refused,
      message: `${slot}: ${[...new Set(holders.map(describeHolder))].join('; ')}`,
      hint: [...new Set(holders.map(adviseOnHolder))].join('; '),
    });
  if (!blank) return;
  const contents = await readContents(host, readDisks(host, [device, ...dependents]));
  const [reason] = [readUnsearchable(host, device, dependents), ...contents.map(describeContents)].filter(
    (text) => text !== undefined,
  );
  if (reason === undefined) return;
  throw new PearasysError({
    code: 'carries-data',
    exitCode: ExitCode.refused,
    message: `${slot}: ${reason}`,
    hint: `to take it anyway, add: --take ${slot}`,
  });
}

/** Milliseconds between two looks. */
const interval = 50;

/** Waits for the parts of a device, and reports what is missing. */
export async function awaitParts(
  host: Host,
  {slot, disks, interfaces}: ExpectPartsStep,
  {limit, signal, onNote}: ApplyOptions,
): Promise<void> {
  const look = () => {
    const parts = readParts(host, new Set([slot])).get(slot);
    const found = {disks: parts?.disks.length ?? 0, interfaces: parts?.interfaces.length ?? 0};
    const state = readNvmeState(host, slot);
    return {
      ...found,
      // Interfaces are renamed, and links to disks made, by udev.
      handled: found.disks + found.interfaces === (parts?.handled ?? 0),
      starting: state !== undefined && /^(?:new|resetting|connecting)$/.test(state),
    };
  };
  const isThere = () => {
    const now = look();
    return !now.starting && now.handled && now.disks >= disks && now.interfaces >= interfaces;
  };
  if (await poll(host, isThere, {limit, interval, signal})) return;
  const now = look();
  const missing = [
    ...(now.starting ? ['its controller is still starting'] : []),
    ...(now.disks < disks ? [`${now.disks} of ${disks} disks`] : []),
    ...(now.interfaces < interfaces ? [`${now.interfaces} of ${interfaces} interfaces`] : []),
    ...(now.handled ? [] : ['udev has not handled all of them']),
  ];
  onNote?.(`${slot} is on its driver, but after ${limit / 1000} s: ${missing.join(', ')}`);
}
