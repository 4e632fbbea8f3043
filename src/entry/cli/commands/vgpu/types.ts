import {string} from '@oclif/core/args';
import {readDevices} from '../../../../devices/pci/device.js';
import {findDevices} from '../../../../devices/pci/find.js';
import {readVgpus, type Vgpu} from '../../../../devices/pci/vgpu.js';
import {BaseCommand} from '../../base-command.js';

/** What `--json` prints. */
export interface VgpuTypesResult {
  readonly vgpus: readonly Vgpu[];
}

/** `pearasys vgpu types`: the types that virtual functions can have now. */
export default class VgpuTypes extends BaseCommand {
  static override description =
    "Prints the vGPU types that NVIDIA's driver offers on virtual functions now: on all, or on those named. They " +
    'depend on the other vGPUs of the same GPU. While a function has a type, the driver offers no others.';
  static override examples = ['<%= config.bin %> vgpu types', '<%= config.bin %> vgpu types 07:00.4 --json'];
  static override args = {
    device: string({description: 'a device', multiple: true, ignoreStdin: true}),
  };

  async run(): Promise<VgpuTypesResult> {
    const {args} = await this.parse(VgpuTypes);
    const host = await this.openHost();
    const devices = readDevices(host);
    const words = args.device ?? [];
    const chosen = words.length === 0 ? devices : findDevices(host, devices, words, {all: true});
    const vgpus = readVgpus(host, chosen);
    for (const {slot, type, creatable} of vgpus) {
      if (creatable.length === 0)
        this.note(
          type === 0
            ? `${slot} can have no type now: the other vGPUs of its GPU use all of it, or nvidia-vgpud has not run`
            : `${slot} has type ${type}; to see other types, clear it: pearasys vgpu set ${slot} 0`,
        );
      for (const {id, name} of creatable) this.log(`${slot}\t${id}\t${name}`);
    }
    if (vgpus.length === 0) this.note('there is no virtual function for NVIDIA vGPUs');
    return {vgpus};
  }
}
