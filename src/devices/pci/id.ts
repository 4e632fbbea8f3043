import {usageError} from '../../host/errors.js';
import {asSlot} from './slot.js';

/** `10de:1b80`: vendor and device, lower case. Made only by {@link parseId}. */
export type DeviceId = string & {readonly __brand: 'DeviceId'};

/** The id in the text; undefined when it is not one. Takes `10de:1b80`, `10DE:1B80` and `0x10de:0x1b80`. */
export function asId(text: string): DeviceId | undefined {
  const match = /^(?:0x)?([0-9a-f]{4}):(?:0x)?([0-9a-f]{4})$/.exec(text.toLowerCase());
  return match === null ? undefined : (`${match[1]}:${match[2]}` as DeviceId);
}

/** @throws PearasysError `bad-id`, exit code 2. */
export function parseId(text: string): DeviceId {
  const id = asId(text);
  if (id === undefined)
    throw usageError(
      `'${text}' is not an id`,
      asSlot(text) === undefined
        ? 'an id is vendor:device, four hexadecimal digits each, as in 10de:1b80; `pearasys list` shows them'
        : `it is a slot: -s ${text}; an id is vendor:device, as in 10de:1b80`,
      'bad-id',
    );
  return id;
}

/** Vendor and device as sysfs prints them: `['0x10de', '0x1b80']`. */
export function sysfsIds(id: DeviceId): readonly [vendor: string, device: string] {
  return [`0x${id.slice(0, 4)}`, `0x${id.slice(5)}`];
}
