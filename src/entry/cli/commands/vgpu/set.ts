import {string} from '@oclif/core/args';
import {string as text} from '@oclif/core/flags';
import {readDevice, readDevices} from '../../../../devices/pci/device.js';
import {findSlot} from '../../../../devices/pci/find.js';
import {parseId} from '../../../../devices/pci/id.js';
import {setVgpu} from '../../../../operations/vgpu.js';
import {BaseCommand, writeFlags} from '../../base-command.js';
import {changeResult, withChanges, type ChangeResult} from '../../switching.js';

/** What `--json` prints. */
export interface VgpuSetResult extends Omit<ChangeResult, 'devices'> {
  readonly slot: string;
  /** The type afterwards, 0 for none; null if the function is absent or is on another driver. */
  readonly type: number | null;
}

/** `pearasys vgpu set`: the vGPU type of a virtual function, now and whenever it appears. */
export default class VgpuSet extends BaseCommand {
  static override description =
    "Sets the vGPU type of a virtual function of NVIDIA's driver, by its number or name, now and whenever the " +
    'function appears: a unit, vgpu@SLOT.service, sets the recorded type. 0 clears the type and removes the record. ' +
    'A vGPU that a guest uses is not changed.';
  static override examples = [
    '<%= config.bin %> vgpu set 07:00.4 588',
    '<%= config.bin %> vgpu set 07:00.4 "NVIDIA L40-1B"',
    '<%= config.bin %> vgpu set 07:00.4 0',
  ];
  static override args = {
    slot: string({description: 'a device', required: true, ignoreStdin: true}),
    type: string({description: 'number or name of a type, or 0', required: true, ignoreStdin: true}),
  };
  static override flags = {
    ...writeFlags,
    id: text({
      aliases: ['pid'],
      char: 'd',
      summary: 'The id of a virtual function that is absent',
      helpValue: 'VENDOR:DEVICE',
    }),
  };

  async run(): Promise<VgpuSetResult> {
    const {args, flags} = await this.parse(VgpuSet);
    const host = await this.openHost();
    const id = flags.id === undefined ? undefined : parseId(flags.id);
    const slot = findSlot(host, () => readDevices(host), args.slot);
    const notes: string[] = [];
    const outcome = await withChanges(this, flags, notes, (options) =>
      setVgpu(host, this.layout, {slot, id, type: args.type.trim()}, options),
    );
    const {changed, dryRun, steps} = changeResult(host, [outcome], flags, notes, []);
    const type = host.root === '/' ? (readDevice(host, slot)?.vgpuType ?? null) : null;
    const result = {changed, dryRun, steps, notes, slot, type};
    if (result.dryRun) {
      for (const line of result.steps) this.log(line);
      if (result.steps.length === 0) this.note('nothing to do');
      return result;
    }
    this.log(
      type === null
        ? `${slot}: the record is ${args.type === '0' ? 'removed' : 'written'}`
        : `${slot} ${result.changed ? 'has' : 'already has'} ${type === 0 ? 'no vGPU type' : `vGPU type ${type}`}`,
    );
    return result;
  }
}
