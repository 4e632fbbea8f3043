/** A driver's own list of ids: `new_id` and `remove_id` (Documentation/ABI/testing/sysfs-bus-pci). */
import {isBridge, type Device} from '../../devices/pci/device.js';
import {driversFolder, type Driver} from '../../devices/pci/driver.js';
import type {DeviceId} from '../../devices/pci/id.js';
import type {DriverSource} from '../../devices/pci/modules.js';
import type {Slot} from '../../devices/pci/slot.js';
import {ExitCode} from '../../host/errors.js';
import {plan, refuse, writeAttribute, type Planned, type Refusal, type Step} from '../step.js';
import {bringDriver, refuseLocked} from './refusals.js';

/** Ids that a driver is to take, or to take no longer. */
export interface IdRequest {
  readonly verb: 'new-id' | 'remove-id';
  readonly driver: Driver;
  readonly ids: readonly DeviceId[];
  /** The devices that were named by more than their id. */
  readonly named: readonly Slot[];
  /** Whether further devices may be affected. */
  readonly accepted: boolean;
}

/** What {@link planIdChange} needs to know. */
export interface IdState {
  readonly source: DriverSource;
  /** All devices of the machine. */
  readonly devices: readonly Device[];
}

/**
 * The devices that the kernel gives to the driver with the write: all with the id that have no driver. An override for
 * another driver excludes this one (pci_match_device in drivers/pci/pci-driver.c).
 */
export function takenByNewId(driver: string, id: DeviceId, devices: readonly Device[]): Device[] {
  return devices.filter(
    (device) =>
      device.id === id &&
      device.driver === undefined &&
      !isBridge(device) &&
      (device.override === undefined || device.override === driver),
  );
}

/**
 * The devices that are affected besides those that are meant: the kernel knows the id only. If one device has the id, it
 * is meant; of several, only those that were named.
 */
export function otherDevices(
  {verb, driver, ids, named}: Omit<IdRequest, 'accepted'>,
  devices: readonly Device[],
): Device[] {
  return ids.flatMap((id) => {
    const alike = devices.filter((device) => device.id === id);
    const affected =
      verb === 'new-id'
        ? takenByNewId(driver, id, devices)
        : alike.filter((device) => device.driver === driver && device.override !== driver);
    return alike.length === 1 ? [] : affected.filter(({slot}) => !named.includes(slot));
  });
}

/** What becomes of another device, in a sentence. */
export function describeOther(
  {verb, driver}: Pick<IdRequest, 'verb' | 'driver'>,
  {slot, id}: Device,
): string {
  return verb === 'new-id'
    ? `${driver} takes ${slot} too: it has the same id ${id} and no driver`
    : `${slot} has the same id ${id}: it stays on ${driver} until it is unbound, and ${driver} does not take it again`;
}

/** The plan that adds ids to a driver's list, or removes them. */
export function planIdChange(request: IdRequest, {source, devices}: IdState): Planned {
  const {verb, driver, ids, accepted} = request;
  const bringing = verb === 'new-id' ? bringDriver(driver, source) : [];
  if ('kind' in bringing) return bringing;
  const others = otherDevices(request, devices);
  const alike = devices.filter(({id}) => ids.includes(id));
  const refusal =
    (verb === 'remove-id' && source.kind !== 'present' ? refuseUnregistered(driver) : undefined) ??
    refuseLocked(alike) ??
    (accepted ? undefined : refuseOthers(request, others));
  if (refusal !== undefined) return refusal;
  const later =
    verb === 'new-id'
      ? alike.filter((device) => device.driver !== undefined && device.driver !== driver)
      : [];
  return plan([...bringing, ...ids.flatMap((id) => steps(verb, driver, id, devices))], {
    notes: [
      ...others.map((other) => describeOther(request, other)),
      ...later.map(
        (device) =>
          `${device.slot} has the same id ${device.id} and stays on ${device.driver ?? ''}; when it is probed again, ${driver} may take it`,
      ),
    ],
  });
}

function steps(verb: IdRequest['verb'], driver: Driver, id: DeviceId, devices: readonly Device[]): Step[] {
  const file = (name: string) => `${driversFolder}/${driver}/${name}`;
  const value = id.replace(':', ' ');
  if (verb === 'remove-id')
    return [
      writeAttribute(file('remove_id'), value, {
        hint: `only ids that were added can be removed, not those in the table of ${driver} itself`,
        undo: [writeAttribute(file('new_id'), value, {accept: ['EEXIST']})],
      }),
    ];
  const taken = takenByNewId(driver, id, devices);
  return [
    writeAttribute(file('new_id'), value, {
      // The driver knows the id already, and is not probed again: the writes after this one bind the devices.
      accept: ['EEXIST'],
      undo: [
        ...taken.map(({slot}) => writeAttribute(file('unbind'), slot, {slot, accept: ['ENODEV', 'ENOENT']})),
        writeAttribute(file('remove_id'), value, {accept: ['ENODEV']}),
      ],
    }),
    ...taken.map(({slot}) =>
      writeAttribute(file('bind'), slot, {
        slot,
        accept: ['EBUSY'],
        undo: [writeAttribute(file('unbind'), slot, {slot, accept: ['ENODEV', 'ENOENT']})],
      }),
    ),
  ];
}

function refuseOthers(request: IdRequest, others: readonly Device[]): Refusal | undefined {
  if (others.length === 0) return undefined;
  const {verb, driver, ids} = request;
  return refuse({
    code: 'other-devices',
    exitCode: ExitCode.refused,
    message: `${verb} of ${ids.join(' ')} affects ${others.length === 1 ? 'another device' : `${others.length} other devices`}`,
    details: [...others.map((other) => describeOther(request, other)), 'nothing was changed'],
    hint: `if that is intended, continue with --force; for one device only: pearasys bind ${driver} SLOT`,
  });
}

function refuseUnregistered(driver: Driver): Refusal {
  return refuse({
    code: 'no-driver',
    exitCode: ExitCode.usage,
    message: `no PCI driver ${driver} is registered, so there are no added ids to remove`,
    details: ['nothing was changed'],
    hint: `\`ls ${driversFolder}\` lists the drivers`,
  });
}
