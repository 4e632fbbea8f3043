/** What the launcher runs when it is called mdevctl or lsmdev: that name, and the words after it. */
import {mdevctl} from './drop-in.js';

const [name = '', ...words] = process.argv.slice(2);
void mdevctl(name, words).then((exitCode) => {
  // Everything is written by now, and a child that is stuck in the kernel must not keep us.
  process.exit(exitCode);
});
