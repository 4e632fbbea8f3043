import {runHandler} from './handler.js';
import {mdevParent} from './mdev-parent.js';

void runHandler(mdevParent);
