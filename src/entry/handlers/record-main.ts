import {record} from './record.js';
import {runHandler} from './handler.js';

void runHandler(record);
