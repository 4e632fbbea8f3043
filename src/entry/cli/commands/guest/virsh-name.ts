import {string} from '@oclif/core/args';
import {readDevices} from '../../../../devices/pci/device.js';
import {findSlot} from '../../../../devices/pci/find.js';
import {virshName} from '../../../../devices/pci/slot.js';
import {BaseCommand} from '../../base-command.js';

/** What `--json` prints. */
export interface VirshNameResult {
  readonly slot: string;
  readonly name: string;
}

/** `pearasys guest virsh-name`: virsh's name of a slot. The device need not exist. */
export default class GuestVirshName extends BaseCommand {
  static override description =
    'Prints the name that `virsh nodedev-list` uses for the device: pci_0000_02_00_0.';
  static override args = {slot: string({description: 'a device', required: true, ignoreStdin: true})};

  async run(): Promise<VirshNameResult> {
    const {args} = await this.parse(GuestVirshName);
    const host = await this.openHost();
    const slot = findSlot(host, () => readDevices(host), args.slot);
    const name = virshName(slot);
    this.log(name);
    return {slot, name};
  }
}
