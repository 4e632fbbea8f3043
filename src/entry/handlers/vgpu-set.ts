import {parseSlot} from '../../devices/pci/slot.js';
import {setRecordedVgpu} from '../../operations/vgpu.js';
import {handlerOptions, logOutcome, takeArguments, type Handler} from './handler.js';

/** Milliseconds to wait until the driver offers the type: nvidia-vgpud may still be starting. */
const patience = 60_000;

/** `vgpu_set@<slot>.service`: the start of `vgpu@<slot>.service` if the type is not the recorded one. */
export const vgpuSet: Handler = async (context, args) => {
  const [slotText] = takeArguments(args, ['SLOT']);
  const slot = parseSlot(slotText);
  const {host, layout, log} = context;
  const outcome = await setRecordedVgpu(host, layout, slot, {...handlerOptions(context), patience});
  logOutcome(log, outcome, `${slot} has its vGPU type`, `${slot} already has its vGPU type`);
};
