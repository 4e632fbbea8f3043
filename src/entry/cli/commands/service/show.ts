import {string} from '@oclif/core/args';
import {readVfioParameters, type ModuleParameter} from '../../../../devices/pci/attributes.js';
import {devicesFolder, readDevice, readDevices} from '../../../../devices/pci/device.js';
import {findSlot} from '../../../../devices/pci/find.js';
import {findRecorded, readSettingReports, type SettingReport} from '../../../../operations/service-set.js';
import {valueWords} from '../../../../state/records/device-settings.js';
import {readRecords, type DeviceRecord} from '../../../../state/records/record.js';
import {desiredNotes} from '../../../../state/desired.js';
import type {HostReader} from '../../../../host/host.js';
import {
  accessInWords,
  reportAccess,
  reportNodes,
  type AccessReport,
  type NodeReport,
} from '../../access-report.js';
import {BaseCommand} from '../../base-command.js';

/** The settings of one record, as `--json` prints them. */
export interface ShownService {
  /** The slot; `any` for a record by id alone. */
  readonly slot: string;
  readonly id: string;
  readonly driver: string;
  /** Whether the recorded card is in the slot. */
  readonly present: boolean;
  /** Those of the record, and those that the device supports. */
  readonly settings: readonly SettingReport[];
  /** Who may open its nodes; null for root only. */
  readonly access: AccessReport | null;
  /** The nodes through which programs can drive the device now. */
  readonly nodes: readonly NodeReport[];
}

/** What `--json` prints. */
export interface ServiceShowResult {
  readonly services: readonly ShownService[];
  /** Parameters of vfio-pci, which are the same for all of its devices. */
  readonly machineWide: readonly ModuleParameter[];
}

/** `pearasys service show`: the settings of records, and what the kernel has now. */
export default class ServiceShow extends BaseCommand {
  static override description =
    'Shows the settings of the record for a slot, or of all records: the value that each claim sets, and the ' +
    'value that the kernel has now; and who may open the nodes in /dev. Also shows the parameters of vfio-pci, ' +
    'which apply to all of its devices and are set in /etc/modprobe.d or on the kernel command line.';
  static override examples = ['<%= config.bin %> service show 04:00.0'];
  static override args = {slot: string({description: 'the slot', ignoreStdin: true})};

  async run(): Promise<ServiceShowResult> {
    const {args} = await this.parse(ServiceShow);
    const host = await this.openHost();
    const {layout} = this.context;
    const {records, problems} = readRecords(host, layout);
    const chosen =
      args.slot === undefined
        ? records
        : [
            findRecorded(
              host,
              layout,
              findSlot(host, () => readDevices(host), args.slot),
            ).record,
          ];
    const hasDevices = host.exists(devicesFolder);
    const services = chosen.map((record): ShownService => {
      const {slot, id, driver} = record;
      const there = slot === 'any' || !hasDevices ? undefined : readDevice(host, slot);
      const device = there?.id === id ? there : undefined;
      return {
        slot,
        id,
        driver,
        present: device !== undefined,
        settings: readSettingReports(host, record, device),
        access: reportAccess(record.access),
        nodes: device === undefined ? [] : reportNodes(host, device.slot),
      };
    });
    const machineWide = readVfioParameters(host);
    for (const service of services) this.#print(host, service);
    if (services.length === 0) this.log('There are no records.');
    this.log(
      `parameters of vfio-pci for all of its devices (options vfio-pci NAME=VALUE in /etc/modprobe.d):`,
    );
    for (const {name, value} of machineWide)
      this.log(
        `  ${name.padEnd(16)} ${value ?? 'unknown: the module is not loaded, or has no such parameter'}`,
      );
    const shown: readonly DeviceRecord[] = chosen;
    for (const note of desiredNotes([...(args.slot === undefined ? problems : []), ...shown]))
      this.warn(note);
    return {services, machineWide};
  }

  #print(host: HostReader, {slot, id, driver, present, settings, access, nodes}: ShownService): void {
    this.log(`${slot} (${id}), driver ${driver}${present || slot === 'any' ? '' : ', absent'}`);
    for (const {name, value, current} of settings)
      this.log(
        `  ${name.padEnd(16)} ${value === null ? 'not set' : `set to ${valueWords({name, value})}`}${current === null ? '' : `, now ${valueWords({name, value: current})}`}`,
      );
    if (access !== null) this.log(`  ${'access'.padEnd(16)} ${accessInWords(host, access)}`);
    for (const {path, user, group, mode} of nodes)
      this.log(`  ${'node'.padEnd(16)} ${path} ${user}:${group} ${mode}`);
  }
}
