import {runHandler} from './handler.js';
import {vgpuStop} from './vgpu-stop.js';

void runHandler(vgpuStop);
