/** What the launcher runs: loads the bundle and runs this process's command line. */
import {loadProgram} from './code-cache.js';

/** The oldest Node that this runs on, as `20.19`: build/bundle.ts puts in what package.json says. */
declare const OLDEST_NODE: string;

const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
const [oldestMajor = 0, oldestMinor = 0] = OLDEST_NODE.split('.').map(Number);
if (major < oldestMajor || (major === oldestMajor && minor < oldestMinor)) {
  console.error(
    `pearasys: Node.js ${OLDEST_NODE} or newer is required; ${process.execPath} is ${process.version}`,
  );
  process.exit(1);
}
void loadProgram(import.meta.dirname, true, require)
  .program.pearasys(process.argv.slice(2))
  .then((exitCode) => {
    // All output is written by now, and a child that is blocked in the kernel must not delay the exit.
    process.exit(exitCode);
  });
