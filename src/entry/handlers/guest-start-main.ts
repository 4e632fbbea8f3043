import {guestStart} from './guest-start.js';
import {runHandler} from './handler.js';

void runHandler(guestStart);
