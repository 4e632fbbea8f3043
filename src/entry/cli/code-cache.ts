/**
 * Loading the bundle with V8's code cache: what V8 has compiled of it, so that this start need not. A cache of
 * another bundle would run that bundle's code, so the cache's name carries the digest which the bundle begins
 * with. V8 itself refuses a cache of another version of its own or with other flags.
 */
import {readFileSync} from 'node:fs';
import {join} from 'node:path';
import {Script} from 'node:vm';

/** The bundle's exports. */
export interface Program {
  pearasys(argv: readonly string[], options?: object): Promise<number>;
}

/** The bundle, compiled and evaluated. */
export interface LoadedProgram {
  readonly program: Program;
  readonly script: Script;
  /** Where its cache is or belongs. */
  readonly cachePath: string;
}

/** The function around the bundle's modules, as Node has it around each CommonJS file. */
type Wrapper = (
  exports: object,
  require: NodeJS.Require,
  module: {exports: object},
  filename: string,
  dirname: string,
) => void;

/** How `build/bundle.ts` begins the bundle: a comment with its digest. */
export const digestComment = /^\/\*([0-9a-f]{16})\*\//;

/**
 * Loads `pearasys.cjs` of this folder.
 * @param load the caller's `require`, of the same folder: to make another takes longer than most commands run.
 */
export function loadProgram(folder: string, useCache: boolean, load: NodeJS.Require): LoadedProgram {
  const filename = join(folder, 'pearasys.cjs');
  // The bundle is all ASCII: as latin1 it needs no decoding, and V8 keeps it in one byte a character.
  const source = readFileSync(filename, 'latin1');
  const digest = digestComment.exec(source)?.[1] ?? '';
  const cachePath = join(folder, `pearasys-${digest}-${process.version}-${process.arch}.cache`);
  let cachedData: Buffer | undefined;
  if (useCache)
    try {
      cachedData = readFileSync(cachePath);
    } catch {
      // None for this Node: only slower.
    }
  const script = new Script(source, {filename, ...(cachedData === undefined ? {} : {cachedData})});
  const module = {exports: {}};
  const wrapper = script.runInThisContext() as Wrapper;
  wrapper(module.exports, load, module, filename, folder);
  return {program: module.exports as Program, script, cachePath};
}
