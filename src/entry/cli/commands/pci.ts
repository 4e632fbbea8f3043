import type {Host} from '../../../host/host.js';
import {readDevices, type Device} from '../../../devices/pci/device.js';
import {checkDeviceWord, findDevices} from '../../../devices/pci/find.js';
import {runChain, type DriverListing} from '../../../operations/chain.js';
import {BaseCommand, switchFlags} from '../base-command.js';
import {parseChain, type ChainLink} from '../chain-words.js';
import {chooseDevices} from '../choose.js';
import {changeResult, namedWords, withChanges, type ChangeResult, namingFlags} from '../switching.js';

/** What `--json` prints. */
export interface PciResult extends ChangeResult {
  /** For each `driver NAME ls`: what is in the driver's folder; its devices are among `devices`. */
  readonly listed: readonly DriverListing[];
}

/** `pearasys [-s SLOT]... [-d ID]... pci …`: the kernel's operations, one link after another. */
export default class Pci extends BaseCommand {
  static override description =
    'A chain of `rescan`, `driver DRIVER bind|unbind|new-id|remove-id|ls` and `device [--driver DRIVER] ' +
    'bind|unbind|new-id|remove-id|driver-override|remove|rescan|reset`. The devices are those of -s and -d ' +
    'before `pci`; a link with its own -s or -d uses these instead. Each link is checked, done, and undone on ' +
    'failure, separately; a chain ends at the first link that fails.';
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
    // In the original order, after the `--` of the prelude: oclif's list mixes up repeated words.
    const chain = parseChain(this.argv.slice(this.argv.indexOf('--') + 1));
    const host = await this.openHost();
    const outer = namedWords(flags);
    if (outer.length === 0 && chain.some(needsDevices))
      outer.push(...(await chooseDevices(this.context, host)));
    // A wrong word is an error even if the chain does not use it.
    if (!chain.some(needsDevices))
      for (const word of outer) checkDeviceWord(host, () => readDevices(host), word);
    // All devices of the chain are found before its first write, because a link may remove one that a later link names.
    const steps = chain.map((link) => ({action: link.action, devices: this.#find(host, link, outer)}));
    const notes: string[] = [];
    const {outcomes, listed, devices} = await withChanges(this, flags, notes, (options) =>
      runChain(host, steps, {
        ...options,
        force: flags.force,
        onListing: ({files}) => {
          for (const name of files) this.log(name);
        },
      }),
    );
    const result = {...changeResult(host, outcomes, flags, notes, devices), listed};
    if (result.dryRun) for (const line of result.steps) this.log(line);
    return result;
  }

  #find(host: Host, link: ChainLink, outer: readonly string[]): Device[] {
    if (!needsDevices(link) && link.words.length === 0) return [];
    return findDevices(host, readDevices(host), link.words.length > 0 ? link.words : outer, {all: true});
  }
}

function needsDevices({action, words}: ChainLink): boolean {
  return words.length === 0 && action.noun !== 'rescan' && action.verb !== 'ls';
}
