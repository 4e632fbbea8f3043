import {resetUserspace, selectForReset} from '../../../../operations/userspace.js';
import {BaseCommand, writeFlags} from '../../base-command.js';
import {withChanges} from '../../switching.js';
import {readUserspaceEnvironment} from '../../userspace-environment.js';
import {selectionOf, showUserspace, typeFlag, userspaceArgs, type UserspaceResult} from '../../userspace.js';

/** `pearasys userspace reset`: returns devices to the host. */
export default class UserspaceReset extends BaseCommand {
  static override description =
    'Returns devices to the drivers that the kernel chooses, all or none, and waits until their disks and network ' +
    'interfaces exist and udev has handled them. Without DEVICE, returns all devices on userspace drivers that have ' +
    'no record; `service uninstall` ends a permanent claim. Skips a device that a program has open. Reads ' +
    'PCI_ALLOWED and PCI_BLOCKED from the environment, as SPDK does.';
  static override examples = [
    '<%= config.bin %> userspace reset',
    '<%= config.bin %> userspace reset 03:00.0',
  ];
  static override args = userspaceArgs;
  static override flags = {...writeFlags, type: typeFlag};

  async run(): Promise<UserspaceResult> {
    const {args, flags} = await this.parse(UserspaceReset);
    const {allowed, blocked} = readUserspaceEnvironment(this.context.environment);
    const host = await this.openHost();
    const selection = selectionOf(args.device, flags.type, allowed);
    const devices = selectForReset(host, selection);
    const notes: string[] = [];
    const done = await withChanges(this, flags, notes, (options) =>
      resetUserspace(host, devices, blocked, selection.words.length > 0, options),
    );
    return showUserspace(this, host, done, flags, notes);
  }
}
