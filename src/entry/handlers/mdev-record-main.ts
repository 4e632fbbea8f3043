import {runHandler} from './handler.js';
import {mdevRecord} from './mdev-record.js';

void runHandler(mdevRecord);
