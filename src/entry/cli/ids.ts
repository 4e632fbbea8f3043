import {string} from '@oclif/core/args';
import {readDevices} from '../../devices/pci/device.js';
import {parseDriver} from '../../devices/pci/driver.js';
import {findDevices} from '../../devices/pci/find.js';
import {asId, type DeviceId} from '../../devices/pci/id.js';
import type {Slot} from '../../devices/pci/slot.js';
import type {Host} from '../../host/host.js';
import {changeIds, othersOf} from '../../operations/ids.js';
import type {BaseCommand} from './base-command.js';
import {changeResult, withChanges, type ChangeFlags, type ChangeResult} from './switching.js';

/** The arguments of both commands. */
export const idArguments = {
  driver: string({description: 'the driver', required: true, ignoreStdin: true}),
  device: string({
    description: 'an id (vendor:device), or a device that has it',
    required: true,
    multiple: true,
    ignoreStdin: true,
  }),
};

/** What `--json` prints. */
export interface IdResult extends ChangeResult {
  readonly ids: readonly string[];
}

/** Adds ids to a driver's list, or removes them, and prints what became of the devices that have them. */
export async function changeDriverIds(
  command: BaseCommand,
  host: Host,
  verb: 'new-id' | 'remove-id',
  args: {readonly driver: string; readonly device: readonly string[]},
  flags: ChangeFlags & {readonly force: boolean},
): Promise<IdResult> {
  const driver = parseDriver(args.driver);
  const {ids, named} = readIds(host, args.device);
  const request = {verb, driver, ids, named};
  const others = flags.force || flags['dry-run'] === true ? [] : othersOf(host, request);
  const accepted =
    flags.force || flags['dry-run'] === true || (others.length > 0 && (await command.accepts(others)));
  const notes: string[] = [];
  const outcome = await withChanges(command, flags, notes, (options) =>
    changeIds(host, {...request, accepted}, options),
  );
  const alike = readDevices(host).filter(({id}) => ids.includes(id));
  const result = {...changeResult(host, [outcome], flags, notes, alike), ids};
  if (result.dryRun) {
    for (const line of result.steps) command.log(line);
    return result;
  }
  for (const id of ids)
    command.log(
      verb === 'new-id' ? `${driver} takes devices with id ${id}` : `${driver} no longer has the id ${id}`,
    );
  for (const {slot, driver: now} of result.devices)
    command.log(`${slot} ${now === null ? 'has no driver' : `is on ${now}`}`);
  return result;
}

/** The ids of the words, and the devices among them that were not named by their id. */
function readIds(host: Host, words: readonly string[]): {readonly ids: DeviceId[]; readonly named: Slot[]} {
  const ids = new Set<DeviceId>();
  const named: Slot[] = [];
  for (const word of words) {
    const id = asId(word);
    // A device with the id may be plugged in later.
    if (id !== undefined) ids.add(id);
    else
      for (const device of findDevices(host, readDevices(host), [word])) {
        ids.add(device.id);
        named.push(device.slot);
      }
  }
  return {ids: [...ids], named};
}
