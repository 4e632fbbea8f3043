import {runHandler} from './handler.js';
import {vgpuSet} from './vgpu-set.js';

void runHandler(vgpuSet);
