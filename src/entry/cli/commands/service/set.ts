import {string} from '@oclif/core/args';
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
import {BaseCommand, changeFlags} from '../../base-command.js';
import {changeResult, withChanges, type ChangeResult} from '../../switching.js';

/** What `--json` prints. */
export interface ServiceSetResult extends ChangeResult {
  /** The settings of the record afterwards. */
  readonly settings: DeviceSettings;
}

/** `pearasys service set`: changes the settings that a claim applies. */
export default class ServiceSet extends BaseCommand {
  static override description =
    'Changes settings in the record of a slot. Each claim applies them, and the previous values are restored when ' +
    'the device is released. If the device is present, a value that it does not support is refused. KEY= ' +
    `removes a setting. ${settingKinds.map(({name, means}) => `${name}: ${means}`).join(' ')}`;
  static override examples = [
    '<%= config.bin %> service set 04:00.0 reset_method=flr d3cold_allowed=0',
    '<%= config.bin %> service set 04:00.0 resource1_resize=16G',
    '<%= config.bin %> service set 04:00.0 reset_method=',
  ];
  static override args = {
    slot: string({description: 'the slot', required: true, ignoreStdin: true}),
    setting: string({description: 'KEY=VALUE', required: true, multiple: true, ignoreStdin: true}),
  };
  static override flags = {...changeFlags};

  async run(): Promise<ServiceSetResult> {
    const {args, flags} = await this.parse(ServiceSet);
    const changes = args.setting.map(parseSettingChange);
    const host = await this.openHost();
    const {layout} = this.context;
    const slot = findSlot(host, () => readDevices(host), args.slot);
    const notes: string[] = [];
    const outcome = await withChanges(this, flags, notes, (options) =>
      setSettings(host, layout, slot, changes, options),
    );
    const {record} = findRecorded(host, layout, slot);
    const {settings = []} = record;
    const result = {...changeResult(host, [outcome], flags, notes, [{slot}]), settings};
    if (result.dryRun) {
      for (const line of result.steps) this.log(line);
      if (result.steps.length === 0) this.note('nothing to do');
      return result;
    }
    this.log(
      settings.length === 0
        ? `${slot} has no settings`
        : settings.map((setting) => `${slot} ${setting.name}=${valueWords(setting)}`).join('\n'),
    );
    if (result.changed)
      this.note(
        `takes effect at the next claim; to claim it now: systemctl restart ${unitName({slot, driver: record.driver})}`,
      );
    return result;
  }
}
