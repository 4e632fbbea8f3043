/** What the launcher runs: loads the bundle and runs this process's command line. */
import '../require-node.js';
import {loadProgram} from './code-cache.js';

void loadProgram(import.meta.dirname, true, require)
  .program.pearasys(process.argv.slice(2))
  .then((exitCode) => {
    // All output is written by now, and a child that is blocked in the kernel must not delay the exit.
    process.exit(exitCode);
  });
