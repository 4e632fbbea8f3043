/**
 * Run before lanes of tests that run at the same time: installs what the host needs, and makes the images that more than
 * one of them boots. Two at once would make the same image twice, and apt-get runs once at a time. Prints how many
 * machines the host has places for.
 */
import {available, ensureImage, SUITES} from './image.js';
import {PLACES} from './machine.js';

for (const suite of SUITES) {
  const why = await available({suite});
  // The suites themselves say that they are skipped.
  if (why === undefined) await ensureImage({suite});
}
console.log(PLACES);
