import {carriersOf} from '../devices/pci/dependents.js';
import {readDevice, readDevices, type Device} from '../devices/pci/device.js';
import {driversFolder, type Driver} from '../devices/pci/driver.js';
import {nearest} from '../devices/pci/find.js';
import {driversOfModule} from '../devices/pci/modules.js';
import type {Slot} from '../devices/pci/slot.js';
import {carryOut, type Outcome} from '../engine/carry-out.js';
import {ExitCode, PearasysError} from '../host/errors.js';
import type {Host} from '../host/host.js';
import {planLink, type Link} from '../plan/switch/verbs.js';
import {refreshed} from './devices.js';
import type {SwitchOptions} from './switch.js';

/** What one link of a chain does: a {@link Link}, or a list of a driver's folder. */
export type ChainAction = Link | {readonly noun: 'driver'; readonly verb: 'ls'; readonly driver: Driver};

/** One link of a chain, with its devices. */
interface ChainStep {
  readonly action: ChainAction;
  readonly devices: readonly Device[];
}

/** The content of a driver's folder: its devices and its attributes. */
export interface DriverListing {
  readonly driver: Driver;
  readonly files: readonly string[];
}

/** The result of a chain. */
interface ChainOutcome {
  readonly outcomes: readonly Outcome[];
  readonly listed: readonly DriverListing[];
  /** The devices of all links, including those of a listed driver. */
  readonly devices: readonly Device[];
}

/**
 * Carries out a chain of the kernel's operations. Each link is checked, done and undone on failure separately; the
 * chain ends with the first that fails.
 * @throws PearasysError the refusal of a link, or what failed.
 */
export async function runChain(
  host: Host,
  chain: readonly ChainStep[],
  options: SwitchOptions & {readonly onListing?: (listing: DriverListing) => void},
): Promise<ChainOutcome> {
  const devices = new Map(chain.flatMap((step) => step.devices).map((device) => [device.slot, device]));
  const carriers = new Map([...devices.keys()].map((slot) => [slot, carriersOf(host, slot)]));
  const changed = new Set<Slot>();
  const outcomes: Outcome[] = [];
  const listed: DriverListing[] = [];
  for (const {action, devices: own} of chain) {
    if (action.noun === 'driver' && action.verb === 'ls') {
      const listing = {driver: action.driver, files: listFolder(host, action.driver)};
      options.onListing?.(listing);
      listed.push(listing);
      for (const device of readDevices(host))
        if (device.driver === action.driver) devices.set(device.slot, device);
      continue;
    }
    // It is not an error here if an earlier link has removed the device along with another.
    const left = own.filter(({slot}) => {
      const carrier = carriers.get(slot)?.find((one) => changed.has(one));
      if (carrier === undefined || readDevice(host, slot) !== undefined) return true;
      options.onNote?.(`Skipping device ${slot}, it went away with ${carrier}`);
      return false;
    });
    if (left.length === 0 && own.length > 0) continue;
    const slots = left.map(({slot}) => slot);
    outcomes.push(
      await carryOut(
        host,
        slots,
        // Links before this one have changed what was read.
        (when) =>
          planLink(
            host,
            action,
            refreshed(host, left, outcomes.length === 0 ? when : 'again'),
            options.force,
          ),
        options,
      ),
    );
    for (const slot of slots) changed.add(slot);
  }
  return {outcomes, listed, devices: [...devices.values()]};
}

/** @throws PearasysError `no-driver`, exit code 4. */
function listFolder(host: Host, driver: Driver): string[] {
  const folder = `${driversFolder}/${driver}`;
  if (host.exists(folder)) return host.list(folder);
  const [own] = driversOfModule(host, driver);
  throw new PearasysError({
    code: 'no-driver',
    exitCode: ExitCode.noDevice,
    message: `no PCI driver ${driver} is registered`,
    hint:
      own === undefined
        ? `ls ${driversFolder}${nearest(driver, host.list(driversFolder))}`
        : `${driver} is a module; its PCI driver is called ${own}`,
  });
}
