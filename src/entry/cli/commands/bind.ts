import {string} from '@oclif/core/args';
import {parseDriver} from '../../../devices/pci/driver.js';
import type {Target} from '../../../plan/switch/switch.js';
import {BaseCommand, switchFlags} from '../base-command.js';
import {confirmFlag, selectionFlags, switchNamed, type ChangeResult} from '../switching.js';

/** `pearasys bind`: puts devices on a driver now. */
export default class Bind extends BaseCommand {
  static override description =
    'DRIVER is a PCI driver (its module is loaded when needed), `none` to keep all drivers off, or `default` ' +
    'to return the device to the driver that the kernel chooses. A DEVICE is a slot (0000:04:00.0, 04:00.0), ' +
    'a card (04:00.*: all its functions), an id (10de:1b80), the name of what its driver provides (eth0, ' +
    'nvme0n1, card1), or a path in /dev or /sys. A device in use is refused, and its holders are named. Before ' +
    'the only display, the last route to the machine or all keyboards are lost, it asks; without a terminal it ' +
    'refuses, unless --force or --confirm is given. If one device does not take the driver, all are rolled back.';
  static override examples = [
    '<%= config.bin %> bind vfio-pci 04:00.0 --siblings',
    '<%= config.bin %> bind default 04:00.0 04:00.1',
    '<%= config.bin %> bind none nvme1n1 --dry-run',
  ];
  static override args = {
    driver: string({description: 'the driver, `none` or `default`', required: true, ignoreStdin: true}),
    device: string({description: 'the devices', multiple: true, ignoreStdin: true}),
  };
  static override flags = {...switchFlags, ...selectionFlags, confirm: confirmFlag};

  async run(): Promise<ChangeResult> {
    const {args, flags} = await this.parse(Bind);
    const target: Target =
      args.driver === 'default' ? {kind: 'default'} : {kind: 'claim', driver: parseDriver(args.driver)};
    return switchNamed(this, await this.openHost(), args.device ?? [], target, flags);
  }
}
