/** The launcher runs this when it is called as mdevctl or lsmdev, with that name and the words after it. */
import '../require-node.js';
import {mdevctl} from './drop-in.js';

const [name = '', ...words] = process.argv.slice(2);
void mdevctl(name, words).then((exitCode) => {
  // All output is written by now, and a child that is blocked in the kernel must not delay the exit.
  process.exit(exitCode);
});
