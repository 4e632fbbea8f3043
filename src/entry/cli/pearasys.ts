/** The program that `start.ts` loads. */
import {readLayout} from '../../config/layout.js';
import {main, type MainOptions} from './main.js';

/** Runs a command line as the installed program does. */
export function pearasys(argv: readonly string[], options: MainOptions = {}): Promise<number> {
  return main(argv, {layout: readLayout(import.meta.dirname), ...options});
}
