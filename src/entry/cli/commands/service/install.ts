import {string as stringArg} from '@oclif/core/args';
import {boolean, string} from '@oclif/core/flags';
import {usageError} from '../../../../host/errors.js';
import type {Host} from '../../../../host/host.js';
import {systemdUnits} from '../../../../config/layout.js';
import {devicesFolder, type Device} from '../../../../devices/pci/device.js';
import {parseDriver, type Driver} from '../../../../devices/pci/driver.js';
import {parseId} from '../../../../devices/pci/id.js';
import {parseSlot} from '../../../../devices/pci/slot.js';
import {switchUnconfirmed} from '../../../../operations/confirm.js';
import {selectDevices} from '../../../../operations/devices.js';
import {
  installForAnySlot,
  installServices,
  withoutLeaving,
  type NamedDevice,
} from '../../../../operations/service-install.js';
import {parseSettingChange, type SettingChange} from '../../../../state/records/device-settings.js';
import {templateName, unitName} from '../../../../systemd/unit.js';
import {BaseCommand, switchFlags} from '../../base-command.js';
import {chooseDevices} from '../../choose.js';
import {accessWords, nodeAccessFlags, readAccessChange} from '../../node-access-flags.js';
import {
  acceptRisks,
  changeResult,
  confirmFlag,
  noInitramfsFlag,
  showChange,
  withChanges,
  type ChangeResult,
  namedWords,
  namingFlags,
} from '../../switching.js';

/** What `--json` prints. */
export interface InstallResult extends ChangeResult {
  /** The units, one for each device; none for a record by id alone. */
  readonly units: readonly string[];
}

/** `pearasys service install`: a device on a driver at every boot and at every hot-add. */
export default class ServiceInstall extends BaseCommand {
  static override description =
    'Writes the record of each device (its slot, its id, the driver), writes its unit and enables it. The ' +
    'device is claimed at the next boot or hot-add, with --now immediately. From then on, `systemctl disable` ' +
    'and `systemctl enable` of the unit control whether it is claimed; another card in the slot is never ' +
    'touched. Before the only display, the last route to the machine or all keyboards are claimed, it asks; ' +
    'without a terminal it refuses, unless --force or --confirm is given. With --user and --user-group, programs ' +
    'without root can open the device: its nodes in /dev get this owner and group each time the driver has it.';
  static override examples = [
    '<%= config.bin %> -s 04:00.0 service install vfio-pci --siblings --now',
    '<%= config.bin %> service install vfio-pci -s 04:00.0 --set reset_method=flr --set d3cold_allowed=0',
    '<%= config.bin %> service install vfio-pci -d 10de:1b80 --any-slot',
    '<%= config.bin %> -s 04:00.0 service install vfio-pci --user alice --user-group vfio --now',
  ];
  static override args = {
    driver: stringArg({
      description: 'the driver, or `none` to keep all drivers off',
      required: true,
      ignoreStdin: true,
    }),
  };
  static override flags = {
    ...switchFlags,
    ...namingFlags,
    'any-slot': boolean({summary: 'Claim every card with this id, in any slot'}),
    all: boolean({summary: 'Select all devices with a given id'}),
    siblings: boolean({
      summary: 'Include the other functions of the card; they are then switched together',
    }),
    group: boolean({
      summary: 'Include all members of the IOMMU group; they are then switched together',
    }),
    set: string({
      summary: 'Apply a setting at each claim, as with `service set`',
      helpValue: 'KEY=VALUE',
      multiple: true,
      multipleNonGreedy: true,
    }),
    ...nodeAccessFlags,
    now: boolean({summary: 'Start the units now'}),
    confirm: {...confirmFlag, dependsOn: ['now']},
    'no-initramfs': noInitramfsFlag,
    prefix: string({summary: 'The folder to write the units to', helpValue: 'DIR', default: systemdUnits}),
  };

  async run(): Promise<InstallResult> {
    const {args, flags} = await this.parse(ServiceInstall);
    const driver = parseDriver(args.driver);
    const changes = (flags.set ?? []).map(parseSettingChange);
    const host = await this.openHost();
    const folder = checkPrefix(host, flags.prefix);
    if (flags['any-slot']) return this.#installAnySlot(host, driver, changes, flags);
    if (flags.now && host.root !== '/')
      throw usageError('--now cannot be used with --root: nothing runs in an image', 'omit --now');
    const devices = await this.#devices(host, driver, flags);
    const slots = devices.map((device) => device.slot);
    const units = slots.map((slot) => unitName({slot, driver}));
    const {group, now, force} = flags;
    const notes: string[] = [];
    const accessChange = await readAccessChange(this, host, accessWords(flags), notes);
    const present = devices.filter((device) => 'classCode' in device);
    const taken = present.filter((device) => device.driver !== driver);
    const {layout} = this.context;
    const {confirm: seconds} = flags;
    // If all devices are on the driver already, there is nothing to undo.
    const trial = seconds !== undefined && taken.length > 0;
    const accepted = !trial && (await acceptRisks(this, host, taken, flags));
    const request = {devices, driver, folder, group, changes, accessChange, now};
    const outcome = await withChanges(this, flags, notes, (options) => {
      const rebuild = !flags['no-initramfs'];
      if (!trial) return installServices(host, layout, {...request, force, accepted, rebuild}, options);
      const cards = devices.map(({slot, id}) => ({slot, id}));
      const claim = {driver, folder, group, rebuild, changes, accessChange, devices: cards};
      const target = {kind: 'claim', driver} as const;
      return switchUnconfirmed(
        host,
        layout,
        {devices: present, target, force, wholeGroup: !force, seconds, claim},
        options,
      );
    });
    const result = {...changeResult(host, [outcome], flags, notes, devices), units};
    if (trial) showChange(this, result);
    else this.#show(result, folder, slots);
    return result;
  }

  async #devices(
    host: Host,
    driver: Driver,
    flags: {
      readonly slot?: string[] | undefined;
      readonly id?: string[] | undefined;
      readonly all: boolean;
      readonly siblings: boolean;
      readonly group: boolean;
    },
  ): Promise<readonly NamedDevice[]> {
    const {slot = [], id = []} = flags;
    // An image has no devices to read: there a slot and an id together name the device.
    if (host.root !== '/' && !host.exists(devicesFolder)) {
      if (slot.length !== 1 || id.length !== 1)
        throw usageError(
          'an image has no devices',
          'name the device by slot and id: -s SLOT -d VENDOR:DEVICE',
        );
      return [{slot: parseSlot(slot[0] ?? ''), id: parseId(id[0] ?? '')}];
    }
    const words = namedWords(flags);
    const chosen = words.length > 0 ? words : await chooseDevices(this.context, host);
    const devices = selectDevices(host, chosen, flags);
    return flags.group ? withoutLeaving(host, devices, driver) : devices;
  }

  async #installAnySlot(
    host: Host,
    driver: Driver,
    changes: readonly SettingChange[],
    flags: {
      readonly slot?: string[] | undefined;
      readonly id?: string[] | undefined;
      readonly user?: string | undefined;
      readonly 'user-group'?: string | undefined;
      readonly mode?: string | undefined;
      readonly now: boolean;
      readonly 'dry-run': boolean;
      readonly timeout: number;
    },
  ): Promise<InstallResult> {
    const [id, ...more] = (flags.id ?? []).map(parseId);
    if (id === undefined || more.length > 0 || flags.slot !== undefined)
      throw usageError('--any-slot needs one id and no slot', '--any-slot -d VENDOR:DEVICE');
    if (flags.now)
      throw usageError(
        '--any-slot cannot be used with --now: it applies to cards when they appear',
        'also install it for the slot, with -s',
      );
    const notes: string[] = [];
    const accessChange = await readAccessChange(this, host, accessWords(flags), notes);
    const outcome = await withChanges(this, flags, notes, (options) =>
      installForAnySlot(host, this.context.layout, {id, driver, changes, accessChange}, options),
    );
    const result = {...changeResult(host, [outcome], flags, notes, []), units: []};
    if (result.dryRun) for (const line of result.steps) this.log(line);
    else
      this.log(`Each card with id ${id} gets a unit for ${driver} when it appears, at boot or at hot-add.`);
    return result;
  }

  #show(result: InstallResult, folder: string, slots: readonly Device['slot'][]): void {
    if (result.dryRun) {
      for (const line of result.steps) this.log(line);
      if (result.steps.length === 0) this.note('nothing to do');
      return;
    }
    for (const [index, unit] of result.units.entries()) {
      const slot = slots[index];
      const state = result.changed ? 'enabled' : 'already enabled';
      if (slot !== undefined) this.log(`${unit} (${folder}/${templateName(slot)}), ${state}`);
    }
    this.log(`to start: systemctl start ${result.units.join(' ')}`);
    this.log(`to stop: systemctl stop ${result.units.join(' ')}`);
  }
}

/** @throws PearasysError `bad-path`, exit code 2. */
function checkPrefix(host: Host, prefix: string): string {
  const folder = prefix.replace(/\/+/g, '/').replace(/(?<=.)\/$/, '');
  const bad = (message: string, hint: string) => usageError(message, hint, 'bad-path');
  if (!/^\/[\w@%+=:,./-]*$/.test(folder) || folder.split('/').some((part) => part === '.' || part === '..'))
    throw bad(
      `'${prefix}' is not a folder for units`,
      `use an absolute path without '..', as in ${systemdUnits}`,
    );
  const own = /^\/(?:run|usr\/lib|lib|usr\/local\/lib|etc)\/systemd(?:\/|$)/;
  if (folder !== systemdUnits && (own.test(folder) || own.test(host.realPath(folder) ?? '')))
    throw bad(
      `${folder} is reserved for packages or for one boot, and systemd searches it`,
      `use ${systemdUnits}, or a folder that systemd does not search`,
    );
  const info = host.info(folder);
  if (info !== undefined && info.kind !== 'directory') throw bad(`${folder} is not a folder`, systemdUnits);
  return folder;
}
