import {boolean, integer, string} from '@oclif/core/flags';
import {usageError} from '../../../../host/errors.js';
import {parseUuid} from '../../../../devices/mdev/uuid.js';
import {modifyMdev, modifyMdevLive} from '../../../../operations/mdev-define.js';
import {BaseCommand} from '../../base-command.js';
import {readConfigFile} from '../../config-file.js';
import {
  changeMdev,
  jsonFileFlag,
  mdevChangeFlags,
  mdevFlags,
  readNames,
  uuidFlag,
  type MdevChangeResult,
} from '../../mdevs.js';

/** `pearasys mdev modify`: a definition, or with --live a device, is changed. */
export default class MdevModify extends BaseCommand {
  static override description =
    'Changes a definition; an existing device takes the change when it is restarted. With --live and ' +
    '--jsonfile, the script for its type changes the device itself; with --defined, its definition changes ' +
    'too.';
  static override examples = [
    '<%= config.bin %> mdev modify -u 83c32df7-d52e-4ec1-9668-1f3c7e4df107 --auto',
    '<%= config.bin %> mdev modify -u 83c32df7-d52e-4ec1-9668-1f3c7e4df107 --addattr assign_domain --value 0xab',
    '<%= config.bin %> mdev modify -u 83c32df7-d52e-4ec1-9668-1f3c7e4df107 --delattr --index 0',
  ];
  static override flags = {
    uuid: uuidFlag,
    parent: mdevFlags.parent,
    type: mdevFlags.type,
    addattr: string({
      summary: 'Add an attribute, at the end or before --index',
      helpValue: 'NAME',
      dependsOn: ['value'],
      exclusive: ['delattr'],
    }),
    value: string({summary: "The added attribute's value", helpValue: 'VALUE', dependsOn: ['addattr']}),
    delattr: boolean({summary: 'Remove an attribute: the last one, or the one at --index'}),
    index: integer({char: 'i', summary: 'The index of an attribute, from 0', helpValue: 'INDEX', min: 0}),
    auto: boolean({char: 'a', summary: 'Start it when its parent registers', exclusive: ['manual']}),
    manual: boolean({char: 'm', summary: 'Start it only on request'}),
    live: boolean({
      char: 'l',
      summary: 'Change the existing device',
      dependsOn: ['jsonfile'],
      exclusive: ['auto', 'manual', 'type', 'addattr', 'delattr'],
    }),
    defined: boolean({char: 'd', summary: 'Change the definition; with --live, both'}),
    jsonfile: {...jsonFileFlag, exclusive: ['type', 'addattr', 'delattr', 'auto', 'manual', 'index']},
    ...mdevChangeFlags,
  };

  async run(): Promise<MdevChangeResult> {
    const {flags} = await this.parse(MdevModify);
    const uuid = parseUuid(flags.uuid);
    const {parent, type} = readNames(flags);
    const {addattr: name, value = '', index} = flags;
    const config = readConfigFile(flags.jsonfile);
    const wanted = [type, name, config].some((one) => one !== undefined);
    if (!wanted && !flags.delattr && !flags.auto && !flags.manual)
      throw usageError(
        'no changes specified',
        '--auto, --manual, --type, --addattr NAME --value VALUE, --delattr or --jsonfile FILE',
      );
    const host = await this.openHost();
    const result = await changeMdev(this, host, uuid, flags, (options) =>
      flags.live && config !== undefined
        ? modifyMdevLive(host, uuid, config, {...options, parent, defined: flags.defined})
        : modifyMdev(
            host,
            uuid,
            parent,
            {
              type,
              start: flags.auto ? 'auto' : flags.manual ? 'manual' : undefined,
              add: name === undefined ? undefined : {name, value, index},
              remove: flags.delattr ? {index} : undefined,
              config,
            },
            options,
          ),
    );
    if (!result.dryRun) this.log(`${uuid} is ${result.changed ? 'changed' : 'unchanged'}`);
    return result;
  }
}
