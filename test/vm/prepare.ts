/**
 * Run before lanes of tests that run in parallel: installs the packages that the host needs, and builds the images that
 * several lanes boot. Parallel lanes would build the same image twice, and apt-get cannot run twice at a time. Prints
 * the maximum number of machines that the host can run.
 */
import {available, ensureImage, SUITES} from './image.js';
import {PLACES} from './machine.js';

for (const suite of SUITES) {
  const why = await available({suite});
  // The suites themselves report that they are skipped.
  if (why === undefined) await ensureImage({suite});
}
console.log(PLACES);
