import {boolean} from '@oclif/core/flags';
import {readMdevAttributes} from '../../../../operations/mdev-attributes.js';
import {
  distrustNotes,
  readDefinitions,
  type DefinitionFilter,
} from '../../../../state/definitions/definition.js';
import {desiredNotes} from '../../../../state/desired.js';
import {readActiveMdevs} from '../../../../state/definitions/listing.js';
import {readMdev} from '../../../../devices/mdev/mdev.js';
import type {Host} from '../../../../host/host.js';
import {BaseCommand} from '../../base-command.js';
import {jsonText, mdevLines, mdevsJson, type ListedMdev} from '../../../mdevctl/format.js';
import {readMdevReports, type MdevReports} from '../../mdev-report.js';
import {dumpJsonFlag, mdevFlags, readNames} from '../../mdevs.js';

/** Milliseconds that a script may take to tell a device's attributes. */
const scriptLimit = 15_000;

/** `pearasys mdev list`: the mediated devices, or those that are defined. */
export default class MdevList extends BaseCommand {
  static override description =
    'Lists devices as mdevctl does: UUID, parent, type, auto or manual, and in parentheses whether a device ' +
    'is defined, or whether a defined device is active. With -v, attributes follow below each. A definition ' +
    'that cannot be read is listed as broken, and is ignored.';
  static override examples = [
    '<%= config.bin %> mdev list',
    '<%= config.bin %> mdev list --defined --parent mtty',
    '<%= config.bin %> mdev list --json',
  ];
  static override flags = {
    uuid: mdevFlags.uuid,
    parent: mdevFlags.parent,
    defined: boolean({char: 'd', summary: 'List the definitions, whether their devices exist or not'}),
    dumpjson: dumpJsonFlag,
  };

  async run(): Promise<MdevReports> {
    const {flags} = await this.parse(MdevList);
    const {uuid, parent} = readNames(flags);
    const host = await this.openHost();
    const filter = {uuid, parent};
    const {mdevs, broken} = await readMdevReports(host, filter);
    if (!this.jsonEnabled()) {
      const listed = flags.defined
        ? listDefined(host, filter)
        : await this.#listActive(host, filter, this.isVerbose || flags.dumpjson);
      if (flags.dumpjson) this.log(jsonText(mdevsJson(listed, uuid !== undefined)));
      else this.context.stdout.write(listed.map((mdev) => mdevLines(mdev, this.isVerbose)).join(''));
      if (flags.defined && !flags.dumpjson)
        for (const one of broken)
          this.log(`${one.path.split('/').at(-1) ?? ''} ${one.parent} broken: ${one.reason}`);
    }
    const files = readDefinitions(host, filter);
    // In a list of definitions they stand already.
    const ignored = flags.defined && !flags.dumpjson ? [] : files.broken;
    for (const note of desiredNotes([...ignored, ...files.definitions])) this.warn(note);
    for (const note of distrustNotes(host, files.definitions)) this.warn(note);
    return {
      mdevs: mdevs.filter(({active, definition}) => (flags.defined ? definition !== null : active)),
      broken,
    };
  }

  /** @param shown whether the attributes are shown: only then are the scripts asked. */
  async #listActive(host: Host, filter: DefinitionFilter, shown: boolean): Promise<ListedMdev[]> {
    const mdevs = readActiveMdevs(host, filter);
    const told = await readMdevAttributes(host, shown ? mdevs : [], scriptLimit, (note) => this.warn(note));
    return mdevs.map((mdev) => ({
      ...mdev,
      attributes: told.get(mdev.uuid) ?? mdev.attributes ?? [],
      remark: mdev.defined ? 'defined' : undefined,
    }));
  }
}

function listDefined(host: Host, filter: DefinitionFilter): ListedMdev[] {
  return readDefinitions(host, filter).definitions.map((definition) => {
    const mdev = readMdev(host, definition.uuid);
    return {...definition, remark: mdev?.parent === definition.parent ? 'active' : undefined};
  });
}
