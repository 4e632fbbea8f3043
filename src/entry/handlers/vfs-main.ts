import {runHandler} from './handler.js';
import {vfs} from './vfs.js';

void runHandler(vfs);
