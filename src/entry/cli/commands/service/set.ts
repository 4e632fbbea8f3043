import {string} from '@oclif/core/args';
import {usageError} from '../../../../host/errors.js';
import {readDevices} from '../../../../devices/pci/device.js';
import {findSlot} from '../../../../devices/pci/find.js';
import {findRecorded, setSettings} from '../../../../operations/service-set.js';
import {
  parseSettingChange,
  settingKinds,
  valueWords,
  type DeviceSettings,
} from '../../../../state/records/device-settings.js';
import {unitName} from '../../../../systemd/unit.js';
import {accessInWords, reportAccess, type AccessReport} from '../../access-report.js';
import {BaseCommand, changeFlags} from '../../base-command.js';
import {accessWords, nodeAccessFlags, readAccessChange} from '../../node-access-flags.js';
import {changeResult, withChanges, type ChangeResult} from '../../switching.js';

/** What `--json` prints. */
export interface ServiceSetResult extends ChangeResult {
  /** The settings of the record afterwards. */
  readonly settings: DeviceSettings;
  /** Who may open its nodes; null for root only. */
  readonly access: AccessReport | null;
}

/** `pearasys service set`: changes the settings that a claim applies. */
export default class ServiceSet extends BaseCommand {
  static override description =
    'Changes the record of a slot. Each claim applies the settings, and the previous values are restored when ' +
    'the device is released. If the device is present, a value that it does not support is refused. KEY= ' +
    'removes a setting. --user, --user-group and --mode take effect at once; an empty value removes one. ' +
    settingKinds.map(({name, means}) => `${name}: ${means}`).join(' ');
  static override examples = [
    '<%= config.bin %> service set 04:00.0 reset_method=flr d3cold_allowed=0',
    '<%= config.bin %> service set 04:00.0 resource1_resize=16G',
    '<%= config.bin %> service set 04:00.0 reset_method=',
    '<%= config.bin %> service set 04:00.0 --user alice --mode 0600',
  ];
  static override args = {
    slot: string({description: 'the slot', required: true, ignoreStdin: true}),
    setting: string({description: 'KEY=VALUE', multiple: true, ignoreStdin: true}),
  };
  static override flags = {...changeFlags, ...nodeAccessFlags};

  async run(): Promise<ServiceSetResult> {
    const {args, flags} = await this.parse(ServiceSet);
    const settings = (args.setting ?? []).map(parseSettingChange);
    const words = accessWords(flags);
    if (settings.length === 0 && words === undefined)
      throw usageError('no changes specified', 'expected KEY=VALUE, --user, --user-group or --mode');
    const host = await this.openHost();
    const {layout} = this.context;
    const slot = findSlot(host, () => readDevices(host), args.slot);
    const notes: string[] = [];
    const access = await readAccessChange(this, host, words, notes);
    const outcome = await withChanges(this, flags, notes, (options) =>
      setSettings(host, layout, slot, {settings, access}, options),
    );
    const {record} = findRecorded(host, layout, slot);
    const result = {
      ...changeResult(host, [outcome], flags, notes, [{slot}]),
      settings: record.settings ?? [],
      access: reportAccess(record.access),
    };
    if (result.dryRun) {
      for (const line of result.steps) this.log(line);
      if (result.steps.length === 0) this.note('nothing to do');
      return result;
    }
    const lines = [
      ...result.settings.map((setting) => `${slot} ${setting.name}=${valueWords(setting)}`),
      ...(result.access === null ? [] : [`${slot} ${accessInWords(host, result.access)}`]),
    ];
    this.log(lines.length === 0 ? `${slot} has no settings` : lines.join('\n'));
    if (result.changed && settings.length > 0)
      this.note(
        `takes effect at the next claim; to claim it now: systemctl restart ${unitName({slot, driver: record.driver})}`,
      );
    return result;
  }
}
