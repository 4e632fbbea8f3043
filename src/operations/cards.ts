/** What operations on recorded cards have in common. */
import {readDevice, readDevices} from '../devices/pci/device.js';
import {readIdentity, readLastingIdentity, type Identity} from '../devices/pci/identity.js';
import {cardOf, type Card, type Slot} from '../devices/pci/slot.js';
import type {HostReader} from '../host/host.js';
import {readCards, type LocatedCards} from '../state/records/locate.js';
import type {DeviceRecord} from '../state/records/record.js';

/** Where the recorded cards are, for a plan that changes something: suspended devices are woken. */
export function findCards(host: HostReader, records: readonly DeviceRecord[]): LocatedCards<DeviceRecord> {
  return readCards(host, records, readDevices(host), true);
}

/**
 * What is to be written into the records whose cards are known, where it is not as recorded: a record of an older
 * version has only slot and id, and a card that was put into another slot has another path.
 */
export function readIdentities(
  host: HostReader,
  {where}: LocatedCards<DeviceRecord>,
): Map<DeviceRecord, Identity> {
  const identities = new Map<DeviceRecord, Identity>();
  for (const [record, {kind, slot, card}] of where) {
    if (kind === 'superseded' || card === undefined || record.source !== 'record') continue;
    const now = slot === undefined ? besides(host, record, card) : identityNow(host, record, slot);
    if (now !== undefined && !isSame(now, record.identity)) identities.set(record, now);
  }
  return identities;
}

/** What identifies the device in a slot, with what the record has and cannot be read now. */
function identityNow(host: HostReader, record: DeviceRecord, slot: Slot): Identity | undefined {
  const device = readDevice(host, slot);
  if (device === undefined) return undefined;
  const now = readLastingIdentity(host, device);
  const isUnknown = now.serial === undefined && readIdentity(host, device, true).hasNoNumber !== true;
  const {serial} = record.identity;
  const isKept =
    serial !== undefined &&
    now.path === record.identity.path &&
    (isUnknown || (now.serial === undefined && !serial.startsWith('pcie:')));
  return isKept ? {...now, serial} : now;
}

/** The identity of a function that the card does not have now: it is expected beside the others. */
function besides(host: HostReader, {slot, identity}: DeviceRecord, card: Card): Identity | undefined {
  const other = readDevices(host).find((device) => cardOf(device.slot) === card);
  const path = other === undefined ? undefined : readIdentity(host, other, false).path;
  if (path === undefined || identity.path === undefined || slot === 'any') return undefined;
  return {...identity, path: `${path.slice(0, path.lastIndexOf('.'))}${slot.slice(slot.lastIndexOf('.'))}`};
}

function isSame(one: Identity, other: Identity): boolean {
  return one.subsystem === other.subsystem && one.path === other.path && one.serial === other.serial;
}
