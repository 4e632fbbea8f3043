import {ExitCode} from '../../host/errors.js';
import type {HostReader} from '../../host/host.js';
import {readDependents} from '../../devices/pci/dependents.js';
import {devicePath, readDevices, type Device} from '../../devices/pci/device.js';
import {driversFolder, type Driver} from '../../devices/pci/driver.js';
import {readHolders} from '../../usage/holders.js';
import {findDriver} from '../../devices/pci/modules.js';
import {markReleased} from './claim.js';
import {takenByNewId} from './ids.js';
import {dependentNotes, leaveDriver, removeVirtualFunctions, withoutDependents} from './leaving.js';
import {plan, refuse, setOverride, writeAttribute, type Planned, type Refusal, type Step} from '../step.js';
import {
  bringDriver,
  refuseBridges,
  refuseHeld,
  refuseLocked,
  refuseOverride,
  refuseVgpus,
} from './refusals.js';
import {planSwitch, readSwitch} from './switch.js';

/** The verbs of a `pci` chain's link about a driver. */
export const driverVerbs = ['bind', 'unbind', 'new-id', 'remove-id'] as const;

/** The verbs of a `pci` chain's link about devices. */
export const deviceVerbs = [...driverVerbs, 'driver-override', 'remove', 'rescan', 'reset'] as const;

/** What one link of a `pci` chain does to its devices; `ls` only lists and is not planned. */
export type Link =
  | {readonly noun: 'rescan'}
  | {
      readonly noun: 'driver';
      readonly verb: (typeof driverVerbs)[number];
      readonly driver: Driver;
    }
  | {
      readonly noun: 'device';
      readonly verb: Exclude<(typeof deviceVerbs)[number], 'driver-override'>;
      /** Instead of the device's present driver. */
      readonly driver?: Driver;
    }
  | {
      readonly noun: 'device';
      readonly verb: 'driver-override';
      /** Undefined clears the override. */
      readonly driver: Driver | undefined;
    };

/**
 * Plans one link. The links of a chain are planned and applied one by one, because each depends on the result of the
 * previous one.
 * @param devices the link's devices as they are now; a rescan of the bus needs none.
 */
export function planLink(host: HostReader, link: Link, devices: readonly Device[], force: boolean): Planned {
  if (link.noun === 'rescan') return plan([writeAttribute('/sys/bus/pci/rescan', '1')]);
  const {verb, driver} = link;
  const locked = refuseLocked(devices);
  if (locked !== undefined) return locked;
  switch (verb) {
    case 'bind':
      return driver === undefined ? refuseNoDriver(verb) : planBind(host, devices, driver, force);
    case 'unbind':
      return planUnbind(host, devices, link.noun === 'driver' ? driver : undefined, force);
    case 'new-id':
    case 'remove-id':
      return planIds(host, devices, verb, driver, link.noun === 'driver');
    case 'driver-override':
      return planOverride(host, devices, driver);
    case 'remove':
      return planRemoval(host, devices, force);
    case 'rescan':
      return plan(devices.map(({slot}) => writeAttribute(devicePath(slot, 'rescan'), '1', {slot})));
    case 'reset':
      return planReset(host, devices, force);
  }
}

function planBind(host: HostReader, devices: readonly Device[], driver: Driver, force: boolean): Planned {
  const skipped = devices.filter((device) => device.driver === driver);
  const rest = devices.filter((device) => device.driver !== driver);
  const planned = planSwitch(readSwitch(host, rest, {kind: 'claim', driver}, {force, wholeGroup: false}));
  if (planned.kind === 'refusal') return planned;
  const notes = skipped.map(({slot}) => `Skipping device ${slot}, current driver is ${driver}`);
  return {...planned, notes: [...notes, ...planned.notes]};
}

function planUnbind(
  host: HostReader,
  devices: readonly Device[],
  driver: Driver | undefined,
  force: boolean,
): Planned {
  const bound = devices.filter((device) => device.driver !== undefined);
  const foreign = driver === undefined ? undefined : bound.find((device) => device.driver !== driver);
  if (foreign !== undefined)
    return refuse({
      code: 'not-bound',
      exitCode: ExitCode.refused,
      message: `${foreign.slot} (${foreign.id}) is on ${foreign.driver ?? 'no driver'}, not on ${driver ?? ''}`,
      details: ['nothing was changed'],
      hint: `pearasys -s ${foreign.slot} pci device unbind`,
    });
  const refusal = refuseInUse(host, bound, force);
  if (refusal !== undefined) return refusal;
  const dependents = new Map(bound.map((device) => [device.slot, readDependents(host, device.slot)]));
  const leaving = withoutDependents(bound, dependents);
  const steps = leaving.flatMap((device) => leaveDriver(device, dependents.get(device.slot)));
  return plan(steps.length === 0 ? [] : [...steps, ...markReleased(host, leaving)], {
    notes: [
      ...devices.filter((device) => device.driver === undefined).map(skipDriverless),
      ...leaving.flatMap((device) => dependentNotes(device, dependents.get(device.slot), devices)),
    ],
  });
}

function planRemoval(host: HostReader, devices: readonly Device[], force: boolean): Planned {
  const refusal = refuseInUse(host, devices, force);
  if (refusal !== undefined) return refusal;
  const dependents = new Map(devices.map((device) => [device.slot, readDependents(host, device.slot)]));
  const going = withoutDependents(devices, dependents);
  const abandoned = going.find(
    ({slot, driver}) => driver === undefined && (dependents.get(slot)?.virtual.length ?? 0) > 0,
  );
  // Removing a PF that still has virtual functions is a BUG in the kernel (sriov_release in drivers/pci/iov.c).
  if (abandoned !== undefined)
    return refuse({
      code: 'not-switchable',
      exitCode: ExitCode.refused,
      message: `${abandoned.slot} (${abandoned.id}) has virtual functions, but no driver that can remove them`,
      details: ['nothing was changed'],
      hint: `pearasys bind default ${abandoned.slot}, then try again`,
    });
  return plan(
    going.flatMap((device) => [
      ...removeVirtualFunctions(device, dependents.get(device.slot)),
      removeDevice(device),
    ]),
    {notes: going.flatMap((device) => dependentNotes(device, dependents.get(device.slot), devices))},
  );
}

function planIds(
  host: HostReader,
  devices: readonly Device[],
  verb: 'new-id' | 'remove-id',
  chosen: Driver | undefined,
  viaDriver: boolean,
): Planned {
  const steps: Step[] = [];
  const notes: string[] = [];
  const written = new Set<string>();
  const brought = new Set<string>();
  for (const device of devices) {
    const driver = viaDriver ? chosen : (device.driver ?? chosen);
    if (driver === undefined) {
      notes.push(skipDriverless(device));
      continue;
    }
    const bringing = bringDriver(driver as Driver, findDriver(host, driver as Driver));
    if ('kind' in bringing) return bringing;
    const path = `${driversFolder}/${driver}/${verb === 'new-id' ? 'new_id' : 'remove_id'}`;
    const value = device.id.replace(':', ' ');
    if (!written.has(path + value)) {
      written.add(path + value);
      if (!brought.has(driver)) steps.push(...bringing);
      brought.add(driver);
      const opposite = `${driversFolder}/${driver}/${verb === 'new-id' ? 'remove_id' : 'new_id'}`;
      const taken = verb === 'new-id' ? takenByNewId(driver, device.id, readDevices(host)) : [];
      steps.push(
        writeAttribute(path, value, {
          // It is not a failure if the driver already knows the id; the next write then binds the device.
          accept: verb === 'new-id' ? ['EEXIST'] : [],
          undo: [
            ...taken.map(({slot}) =>
              writeAttribute(`${driversFolder}/${driver}/unbind`, slot, {slot, accept: ['ENODEV', 'ENOENT']}),
            ),
            writeAttribute(opposite, value, {accept: ['ENODEV', 'EEXIST']}),
          ],
        }),
      );
      notes.push(
        ...taken
          .filter((other) => !devices.some((one) => one.slot === other.slot))
          .map(
            (other) => `${driver} will also take ${other.slot}: it has the same id ${other.id} and no driver`,
          ),
      );
    }
    if (verb === 'new-id' && device.driver === undefined)
      steps.push(
        writeAttribute(`${driversFolder}/${driver}/bind`, device.slot, {
          slot: device.slot,
          accept: ['EBUSY'],
          undo: [
            writeAttribute(devicePath(device.slot, 'driver/unbind'), device.slot, {
              slot: device.slot,
              accept: ['ENOENT', 'ENODEV'],
            }),
          ],
        }),
      );
  }
  return plan(steps, {notes});
}

function planOverride(host: HostReader, devices: readonly Device[], driver: Driver | undefined): Planned {
  const refusal = refuseOverride(devices, true);
  if (refusal !== undefined) return refusal;
  const bringing = driver === undefined ? [] : bringDriver(driver, findDriver(host, driver));
  if ('kind' in bringing) return bringing;
  return plan([...bringing, ...devices.map((device) => setOverride(device.slot, driver, device.override))]);
}

function planReset(host: HostReader, devices: readonly Device[], force: boolean): Planned {
  const able = devices.filter((device) => host.exists(devicePath(device.slot, 'reset')));
  const refusal = refuseInUse(host, able, force);
  if (refusal !== undefined) return refusal;
  return plan(
    able.map(({slot}) => writeAttribute(devicePath(slot, 'reset'), '1', {slot})),
    {
      notes: devices
        .filter((device) => !able.includes(device))
        .map(({slot}) => `Skipping device ${slot}, no reset function`),
    },
  );
}

function removeDevice({slot}: Device): Step {
  return writeAttribute(devicePath(slot, 'remove'), '1', {
    slot,
    undo: [writeAttribute('/sys/bus/pci/rescan', '1')],
  });
}

function refuseNoDriver(verb: string): Refusal {
  return refuse({
    code: 'usage',
    exitCode: ExitCode.usage,
    message: `pci device ${verb} needs a driver`,
    hint: `pci device --driver vfio-pci ${verb}`,
  });
}

function refuseInUse(host: HostReader, devices: readonly Device[], force: boolean): Refusal | undefined {
  return (
    refuseLocked(devices) ??
    refuseBridges(devices) ??
    refuseVgpus(devices, force) ??
    refuseHeld(devices, readHolders(host, devices), force)
  );
}

function skipDriverless({slot}: Device): string {
  return `Skipping device ${slot}, no driver bound`;
}
