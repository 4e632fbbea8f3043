import {integer} from '@oclif/core/flags';
import {startMdev} from '../../../../operations/mdev-start.js';
import {BaseCommand} from '../../base-command.js';
import {
  changeMdev,
  jsonFileFlag,
  mdevChangeFlags,
  mdevFlags,
  readSubject,
  type MdevChangeResult,
} from '../../mdevs.js';

/** `pearasys mdev start`: a mediated device is made. */
export default class MdevStart extends BaseCommand {
  static override description =
    'Creates a defined device, or a new device from a parent and a type, and writes its attributes in order; ' +
    'if the kernel rejects one, the device is removed again. Without --uuid, a UUID is generated and printed.';
  static override examples = [
    '<%= config.bin %> mdev start -u 83c32df7-d52e-4ec1-9668-1f3c7e4df107',
    '<%= config.bin %> mdev start -p mtty -t mtty-1',
  ];
  static override flags = {
    ...mdevFlags,
    jsonfile: {...jsonFileFlag, exclusive: ['type']},
    wait: integer({
      summary: 'How long to wait for a parent that is still registering',
      helpValue: 'SECONDS',
      default: 5,
      min: 0,
      max: 3600,
    }),
    ...mdevChangeFlags,
  };

  async run(): Promise<MdevChangeResult> {
    const {flags} = await this.parse(MdevStart);
    const {isNew, ...words} = readSubject(flags, 'a definition');
    const {uuid} = words;
    const host = await this.openHost();
    const patience = flags['dry-run'] ? 0 : flags.wait * 1000;
    const result = await changeMdev(this, host, uuid, flags, (options) =>
      startMdev(host, words, {...options, mayExist: false, patience}),
    );
    if (result.dryRun) return result;
    const mdev = result.mdevs.find(({active}) => active);
    this.log(isNew ? uuid : `${uuid} exists, ${mdev?.type ?? '?'} on ${mdev?.parent ?? '?'}`);
    return result;
  }
}
