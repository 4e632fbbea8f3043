import {runHandler} from './handler.js';
import {mdevStop} from './mdev-stop.js';

void runHandler(mdevStop);
