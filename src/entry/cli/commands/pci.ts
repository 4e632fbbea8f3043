import {ExitCode, PearasysError} from '../../../host/errors.js';
import type {Host} from '../../../host/host.js';
import {carriersOf} from '../../../devices/pci/dependents.js';
import {readDevice, readDevices, type Device} from '../../../devices/pci/device.js';
import {driversFolder, type Driver} from '../../../devices/pci/driver.js';
import {checkDeviceWord, findDevices, nearest} from '../../../devices/pci/find.js';
import {driversOfModule} from '../../../devices/pci/modules.js';
import type {Slot} from '../../../devices/pci/slot.js';
import {carryOut, type CarryOutOptions, type Outcome} from '../../../engine/carry-out.js';
import {planLink, type Link} from '../../../plan/switch/verbs.js';
import {BaseCommand, switchFlags} from '../base-command.js';
import {parseChain, type ChainLink} from '../chain.js';
import {chooseDevices} from '../choose.js';
import {changeResult, namedWords, reread, withChanges, type ChangeResult, namingFlags} from '../switching.js';

/** What `--json` prints. */
export interface PciResult extends ChangeResult {
  /** For each `driver NAME ls`: what is in the driver's folder; its devices are among `devices`. */
  readonly listed: readonly {readonly driver: string; readonly files: readonly string[]}[];
}

/** `pearasys [-s SLOT]... [-d ID]... pci …`: the kernel's own words, one link after the other. */
export default class Pci extends BaseCommand {
  static override description =
    'A chain of `rescan`, `driver DRIVER bind|unbind|new-id|remove-id|ls` and `device [--driver DRIVER] ' +
    'bind|unbind|new-id|remove-id|driver-override|remove|rescan|reset`. The devices are those of -s and -d before ' +
    '`pci`; a link with its own -s or -d uses these instead. Each link is checked, done and undone on failure by ' +
    'itself; a chain ends with the first that fails.';
  static override examples = [
    '<%= config.bin %> -d 10de:10f0 -d 10de:1b80 pci driver vfio-pci unbind driver nvidia new-id',
    '<%= config.bin %> -s 04:00.0 pci device --driver vfio-pci bind',
    '<%= config.bin %> -d 10de:10f0 pci driver vfio-pci remove-id device remove rescan',
  ];
  static override strict = false;
  static override flags = {
    ...switchFlags,
    ...namingFlags,
  };

  async run(): Promise<PciResult> {
    const {flags} = await this.parse(Pci);
    // As they were written, after the `--` of the prelude: oclif's own list mixes up words that come twice.
    const chain = parseChain(this.argv.slice(this.argv.indexOf('--') + 1));
    const host = await this.openHost();
    const outer = namedWords(flags);
    if (outer.length === 0 && chain.some(needsDevices))
      outer.push(...(await chooseDevices(this.context, host)));
    // A mistake is one whether or not the chain uses the word.
    if (!chain.some(needsDevices))
      for (const word of outer) checkDeviceWord(host, () => readDevices(host), word);
    // All devices of the chain are found before its first write: a link may take one away that a later one names.
    const links = chain.map((link) => ({...link, devices: this.#find(host, link, outer)}));
    const carriers = new Map(
      links.flatMap((link) => link.devices).map(({slot}) => [slot, carriersOf(host, slot)]),
    );
    const changed = new Set<Slot>();
    const notes: string[] = [];
    const outcomes: Outcome[] = [];
    const listed: {driver: string; files: string[]}[] = [];
    await withChanges(this, flags, notes, async (options) => {
      for (const {action, devices} of links)
        if (action.noun === 'driver' && action.verb === 'ls') {
          listed.push({driver: action.driver, files: this.#listFolder(host, action.driver)});
          devices.push(...readDevices(host).filter((device) => device.driver === action.driver));
        } else {
          // What an earlier link has removed along with another device is no mistake in this one.
          const left = devices.filter(({slot}) => {
            const carrier = carriers.get(slot)?.find((one) => changed.has(one));
            if (carrier === undefined || readDevice(host, slot) !== undefined) return true;
            options.onNote?.(`Skipping device ${slot}, it went away with ${carrier}`);
            return false;
          });
          if (left.length === 0 && devices.length > 0) continue;
          outcomes.push(await this.#runLink(host, action, left, flags.force, options));
          for (const {slot} of left) changed.add(slot);
        }
    });
    const devices = new Map(links.flatMap((link) => link.devices).map((device) => [device.slot, device]));
    const result = {...changeResult(host, outcomes, flags, notes, [...devices.values()]), listed};
    if (result.dryRun) for (const line of result.steps) this.log(line);
    return result;
  }

  #find(host: Host, link: ChainLink, outer: readonly string[]): Device[] {
    if (!needsDevices(link) && link.words.length === 0) return [];
    return findDevices(host, readDevices(host), link.words.length > 0 ? link.words : outer, {all: true});
  }

  async #runLink(
    host: Host,
    link: Link,
    devices: readonly Device[],
    force: boolean,
    options: CarryOutOptions,
  ) {
    const slots = devices.map((device) => device.slot);
    return carryOut(host, slots, () => planLink(host, link, reread(host, devices), force), options);
  }

  /** What is in the driver's folder: its devices, and what can be written to it. */
  #listFolder(host: Host, driver: Driver): string[] {
    const folder = `${driversFolder}/${driver}`;
    if (!host.exists(folder)) {
      const [own] = driversOfModule(host, driver);
      throw new PearasysError({
        code: 'no-driver',
        exitCode: ExitCode.noDevice,
        message: `there is no PCI driver called ${driver} now`,
        hint:
          own === undefined
            ? `ls ${driversFolder}${nearest(driver, host.list(driversFolder))}`
            : `${driver} is a module; its PCI driver is called ${own}`,
      });
    }
    const files = host.list(folder);
    for (const name of files) this.log(name);
    return files;
  }
}

function needsDevices({action, words}: ChainLink): boolean {
  return words.length === 0 && action.noun !== 'rescan' && action.verb !== 'ls';
}
