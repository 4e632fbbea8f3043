/** What the launcher runs: loads the bundle and runs this process's command line. */
import {loadProgram} from './code-cache.js';

const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  console.error(`pearasys: Node.js 20.19 or newer is required; ${process.execPath} is ${process.version}`);
  process.exit(1);
}
void loadProgram(import.meta.dirname, true, require)
  .program.pearasys(process.argv.slice(2))
  .then((exitCode) => {
    // Everything is written by now, and a child that is stuck in the kernel must not keep us.
    process.exit(exitCode);
  });
