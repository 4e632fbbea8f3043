import {release} from './release.js';
import {runHandler} from './handler.js';

void runHandler(release);
