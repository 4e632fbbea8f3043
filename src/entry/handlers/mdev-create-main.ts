import {runHandler} from './handler.js';
import {mdevCreate} from './mdev-create.js';

void runHandler(mdevCreate);
