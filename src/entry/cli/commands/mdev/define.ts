import {boolean} from '@oclif/core/flags';
import {defineMdev} from '../../../../operations/mdev-define.js';
import {BaseCommand} from '../../base-command.js';
import {
  changeMdev,
  jsonFileFlag,
  mdevChangeFlags,
  mdevFlags,
  readSubject,
  type MdevChangeResult,
} from '../../mdevs.js';

/** `pearasys mdev define`: a mediated device is remembered. */
export default class MdevDefine extends BaseCommand {
  static override description =
    'Neither the device nor its parent need exist. For an existing device, parent and type may be omitted. ' +
    'Without --uuid, a UUID is generated and printed. An existing device is not changed.';
  static override examples = [
    '<%= config.bin %> mdev define -p 00:02.0 -t i915-GVTg_V5_4 --auto',
    '<%= config.bin %> mdev define -u 83c32df7-d52e-4ec1-9668-1f3c7e4df107',
    '<%= config.bin %> mdev define -p matrix --jsonfile vfio_ap.json',
  ];
  static override flags = {
    ...mdevFlags,
    auto: boolean({
      char: 'a',
      summary: 'Start it when its parent registers (at boot, or with its driver)',
      exclusive: ['jsonfile'],
    }),
    jsonfile: jsonFileFlag,
    ...mdevChangeFlags,
  };

  async run(): Promise<MdevChangeResult> {
    const {flags} = await this.parse(MdevDefine);
    const {isNew, ...words} = readSubject(flags, 'an existing device');
    const {uuid} = words;
    const host = await this.openHost();
    const result = await changeMdev(this, host, uuid, flags, (options) =>
      defineMdev(host, {...words, start: flags.auto ? 'auto' : 'manual'}, options),
    );
    if (!result.dryRun) this.log(isNew ? uuid : `${uuid} is defined`);
    return result;
  }
}
