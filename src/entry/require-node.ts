/** Imported first by what the launcher runs: what the other modules need may not exist in an older Node. */
import {requireNode} from './node-version.js';

requireNode();
