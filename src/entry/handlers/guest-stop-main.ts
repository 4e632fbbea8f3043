import {guestStop} from './guest-stop.js';
import {runHandler} from './handler.js';

void runHandler(guestStop);
