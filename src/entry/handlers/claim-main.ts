import {claim} from './claim.js';
import {runHandler} from './handler.js';

void runHandler(claim);
