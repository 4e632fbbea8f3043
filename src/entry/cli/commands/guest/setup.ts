import {string as stringArg} from '@oclif/core/args';
import {boolean, string} from '@oclif/core/flags';
import {usageError} from '../../../../host/errors.js';
import {shellWord} from '../../../../host/shell.js';
import type {Host} from '../../../../host/host.js';
import {domainsFolder, readDomain, type Domain} from '../../../../state/guests/domain.js';
import {displayOf, listsFor, readGuestFile, type GuestDisplay} from '../../../../state/guests/guest-files.js';
import {parseGuest, type Guest} from '../../../../state/guests/guest-name.js';
import {settingsPath} from '../../../../state/guests/guest-settings.js';
import {carriersOf} from '../../../../devices/pci/dependents.js';
import {devicesFolder, readDevices, siblingsOf, type Device} from '../../../../devices/pci/device.js';
import {findDevices} from '../../../../devices/pci/find.js';
import {readNames} from '../../../../devices/pci/names.js';
import type {Slot} from '../../../../devices/pci/slot.js';
import {selectDevices} from '../../../../operations/devices.js';
import {setUpGuest} from '../../../../operations/guest-setup.js';
import {readMembers} from '../../../../plan/guest/guest-setup.js';
import {BaseCommand, changeFlags} from '../../base-command.js';
import {chooseOneByOne, confirm} from '../../choose.js';
import {requireDomain, unknownDomain} from '../../guests.js';
import {
  changeResult,
  namedWords,
  namingFlags,
  selectionFlags,
  withChanges,
  type ChangeResult,
} from '../../switching.js';

/** What `--json` prints. */
export type GuestSetupResult = ChangeResult & {
  readonly guest: string;
  /** As in `guest list`. */
  readonly display: GuestDisplay | null;
};

/** `pearasys guest setup`: which devices a guest takes. */
export default class GuestSetup extends BaseCommand {
  static override description =
    'On a terminal, it lists the devices to choose from, asks about siblings and other members of IOMMU ' +
    'groups, and asks for confirmation before it writes. Without a terminal, or with --yes, it never asks: it ' +
    "takes the named devices, or else the <hostdev> devices of the guest's libvirt domain. Setting up the " +
    'same guest again replaces its setup. The devices are not changed until the guest starts.';
  static override examples = [
    '<%= config.bin %> guest setup win11',
    '<%= config.bin %> guest setup win11 --device 02:00.0 --siblings --yes',
  ];
  static override args = {guest: stringArg({description: 'the guest', required: true, ignoreStdin: true})};
  static override flags = {
    ...changeFlags,
    ...namingFlags,
    device: string({
      summary: 'A device by slot, id, name or path',
      helpValue: 'DEVICE',
      multiple: true,
      multipleNonGreedy: true,
    }),
    ...selectionFlags,
    yes: boolean({char: 'y', summary: 'Do not ask for confirmation'}),
  };

  async run(): Promise<GuestSetupResult> {
    const {args, flags} = await this.parse(GuestSetup);
    const guest = parseGuest(args.guest);
    const host = await this.openHost();
    const {layout} = this.context;
    const asks = this.context.interactive && !flags.yes && !this.jsonEnabled();
    const machine = await this.#openMachine(host);
    const domain = await readDomain(machine, guest);
    const named = [...(flags.device ?? []), ...namedWords(flags)];
    if (named.length === 0 && !asks) requireDomain(guest, domain);
    const unknown = unknownDomain(guest, domain);
    const words = named.length > 0 ? named : await this.#choose(machine, guest, domain, asks);
    let devices = selectDevices(machine, words, flags);
    if (asks) {
      if (unknown !== undefined) this.warn(unknown);
      devices = await this.#offerCompanions(machine, devices);
      const slots = devices.map(({slot}) => slot).join(', ');
      if (!flags['dry-run']) await confirm(this.context, `Set up guest ${guest} with ${slots}?`);
    }
    const about = [
      ...(unknown === undefined || asks ? [] : [unknown]),
      ...(domain.kind === 'known' ? domain.notes : []),
    ];
    const notes: string[] = [];
    const outcome = await withChanges(this, flags, notes, (options) =>
      setUpGuest(host, layout, {guest, devices, notes: about, machine}, options),
    );
    const display = displayOf(listsFor(devices));
    const result = {...changeResult(machine, [outcome], flags, notes, devices), guest, display};
    this.#show(guest, result);
    return result;
  }

  /** Where devices and libvirt's guests are: on the machine, if a folder for inspection has neither. */
  async #openMachine(host: Host): Promise<Host> {
    const own = host.root === '/' || host.exists(devicesFolder) || host.exists(domainsFolder);
    return own ? host : await this.context.openHost(undefined);
  }

  /** The devices if none is named: chosen on a terminal, otherwise those of the domain. */
  async #choose(host: Host, guest: Guest, domain: Domain, asks: boolean): Promise<readonly string[]> {
    const devices = readDevices(host);
    const proposed = domain.kind === 'known' ? domain.devices.map(({slot}) => slot) : [];
    if (asks) {
      const before = readGuestFile(host, this.context.layout, guest)?.slots ?? [];
      return chooseOneByOne(this.context, host, proposed.length > 0 ? proposed : before);
    }
    if (proposed.length === 0)
      throw usageError(
        `no device was named for guest ${guest}${domain.kind === 'known' ? ', and its domain has no PCI device' : ''}`,
        `pearasys guest setup ${shellWord(guest)} --device SLOT; \`pearasys list\` lists the devices`,
      );
    // A missing device is reported now, not when the guest starts.
    findDevices(host, devices, proposed);
    return proposed;
  }

  async #offerCompanions(host: Host, chosen: readonly Device[]): Promise<Device[]> {
    const all = readDevices(host);
    const taken = new Map<Slot, Device>(chosen.map((device) => [device.slot, device]));
    const companions = [
      ...chosen.flatMap((device) => siblingsOf(host, device, all)),
      ...readMembers(host, chosen),
    ];
    const names = readNames(host, companions);
    // Taking the PF of a chosen virtual function would remove the function.
    const carriers = new Set(chosen.flatMap(({slot}) => carriersOf(host, slot)));
    for (const other of new Map(companions.map((device) => [device.slot, device])).values()) {
      if (taken.has(other.slot) || carriers.has(other.slot)) continue;
      const why = chosen.some(({group}) => group !== undefined && group === other.group)
        ? `is also in group ${other.group ?? ''}`
        : 'is on the same card';
      const question = `${other.slot} ${names.get(other.slot) ?? ''} ${why}. Include it?`;
      if (await confirm(this.context, question, {mayBeNo: true})) taken.set(other.slot, other);
    }
    return [...taken.values()].sort((a, b) => (a.slot < b.slot ? -1 : 1));
  }

  #show(guest: Guest, result: GuestSetupResult): void {
    if (result.dryRun) {
      for (const line of result.steps) this.log(line);
      if (result.steps.length === 0) this.note('nothing to do');
      return;
    }
    const slots = result.devices.map(({slot}) => slot).join(', ');
    const kind = {
      primary: ', with the boot display',
      gpu: ', with a display',
      both: ', with the boot display and another one',
    };
    this.log(
      `guest ${guest} ${result.changed ? '' : 'already '}takes ${slots}${result.display === null ? '' : kind[result.display]}`,
    );
    this.note(`settings: ${settingsPath(this.context.layout, guest)}`);
    this.note(`to let libvirt do it: pearasys guest install-hooks ${shellWord(guest)}`);
  }
}
