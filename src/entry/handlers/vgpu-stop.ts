import {parseSlot} from '../../devices/pci/slot.js';
import {stopVgpu} from '../../operations/vgpu.js';
import {handlerOptions, logOutcome, takeArguments, type Handler} from './handler.js';

/** The stop of `vgpu@<slot>.service`: clears the type, unless a guest uses the vGPU. */
export const vgpuStop: Handler = async (context, args) => {
  const [slotText] = takeArguments(args, ['SLOT']);
  const slot = parseSlot(slotText);
  const {host, layout, log} = context;
  const outcome = await stopVgpu(host, layout, slot, handlerOptions(context));
  logOutcome(log, outcome, `${slot} has no vGPU any more`, `${slot} has no vGPU`);
};
