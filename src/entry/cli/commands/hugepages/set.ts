import {string} from '@oclif/core/args';
import {boolean, integer, string as text} from '@oclif/core/flags';
import {posix} from 'node:path';
import {parseSize, printSize} from '../../../../devices/memory/size.js';
import {usageError} from '../../../../host/errors.js';
import {isPrintableLine} from '../../../../host/printable.js';
import {readBytesAfter, setHugePages} from '../../../../operations/hugepages.js';
import {readDefaultPageSize} from '../../../../devices/memory/huge-pages.js';
import {BaseCommand} from '../../base-command.js';
import {accessWords, readAccessChange} from '../../node-access-flags.js';
import {hugePagesResult, pageFlags, showHugePages, type HugePagesResult} from '../../hugepages.js';
import {withChanges} from '../../switching.js';

/** `pearasys hugepages set`: how many huge pages there are, now and at each boot. */
export default class HugepagesSet extends BaseCommand {
  static override description =
    'Sets how much memory each NUMA node has in huge pages: now, and early at each boot (tmpfiles.d). SIZE is for ' +
    'each node, as with dpdk-hugepages.py, and a multiple of PAGESIZE, which is 2M or 1G on most machines; ' +
    'without it, the default of the kernel is used. Pages that are in use or reserved are never freed. If not all ' +
    'pages can be allocated, everything is undone, unless --partial is given.';
  static override examples = [
    '<%= config.bin %> hugepages set 4G',
    '<%= config.bin %> hugepages set 2G:2M --node 0 --mount /mnt/huge',
    '<%= config.bin %> hugepages set 8G:1G --node 0 --node 1',
  ];
  static override args = {
    size: string({description: 'SIZE[:PAGESIZE]', required: true, ignoreStdin: true}),
  };
  static override flags = {
    ...pageFlags,
    mount: text({summary: 'Mount the pages here, now and at each boot', helpValue: 'DIR'}),
    user: text({summary: 'The owner of the mounted folder', helpValue: 'USER', dependsOn: ['mount']}),
    'user-group': text({
      summary: 'The group of the mounted folder',
      helpValue: 'GROUP',
      dependsOn: ['mount'],
    }),
    mode: text({
      summary: 'The mode of the mounted folder without x; default 0660',
      helpValue: 'MODE',
      dependsOn: ['mount'],
    }),
    partial: boolean({summary: 'Keep the pages that can be allocated, even if fewer than SIZE'}),
    'until-reboot': boolean({summary: 'Set the pages only until the next boot'}),
    node: integer({
      char: 'n',
      summary: 'Only this NUMA node; default: each node with memory',
      helpValue: 'N',
      min: 0,
      multiple: true,
      multipleNonGreedy: true,
    }),
  };

  async run(): Promise<HugePagesResult> {
    const {args, flags} = await this.parse(HugepagesSet);
    const host = await this.openHost();
    const [sizeText = '', pageText, ...rest] = args.size.split(':');
    if (rest.length > 0 || pageText === '')
      throw usageError(`'${args.size}' is not SIZE[:PAGESIZE]`, 'as in 4G, 4G:2M or 8G:1G');
    const size = parseSize(sizeText);
    // The kernel that an image will run may have another default.
    const defaultSize = host.root === '/' ? readDefaultPageSize(host) : undefined;
    const pageSize = pageText === undefined ? defaultSize : parseSize(pageText);
    if (pageSize === 0) throw usageError('the page size cannot be 0', 'as in 4G:2M');
    if (pageSize !== undefined && size % pageSize !== 0)
      throw usageError(
        `${printSize(size)} is not a multiple of the page size ${printSize(pageSize)}`,
        `${printSize(Math.ceil(size / pageSize) * pageSize)} is the next multiple`,
      );
    if (flags.mount !== undefined) checkFolder(flags.mount);
    if (flags['until-reboot'] && flags.mount !== undefined)
      throw usageError(
        '--mount cannot be used with --until-reboot: the mount is for each boot',
        'omit one of them',
      );
    const nodes = [...new Set(flags.node ?? [])];
    const pages = pageSize === undefined ? 0 : size / pageSize;
    const notes: string[] = [];
    const request = {
      pageSize,
      counts: nodes.length === 0 ? [{node: undefined, pages}] : nodes.map((node) => ({node, pages})),
      keepMore: false,
      clear: false,
      partial: flags.partial,
      persistent: !flags['until-reboot'],
      mount: flags.mount,
    };
    const words = accessWords(flags);
    const mountAccess = await readAccessChange(this, host, words, notes, readBytesAfter(host, request));
    const outcome = await withChanges(this, flags, notes, (options) =>
      setHugePages(host, {...request, mountAccess}, options),
    );
    const result = hugePagesResult(host, outcome, flags, notes);
    showHugePages(this, result);
    return result;
  }
}

/** @throws PearasysError `bad-path` */
function checkFolder(folder: string): void {
  if (
    folder.startsWith('/') &&
    folder !== '/' &&
    posix.normalize(folder) === folder &&
    !folder.endsWith('/')
  ) {
    if (isPrintableLine(folder) && folder.trim() === folder) return;
  }
  throw usageError(`'${folder}' is not a folder's full path`, 'as in --mount /mnt/huge', 'bad-path');
}
