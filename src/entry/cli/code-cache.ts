/**
 * Loads the bundle with V8's code cache, so that V8 need not compile it at each start. A cache of another bundle would
 * run that bundle's code, so the cache's name contains the digest at the beginning of the bundle. V8 itself rejects a
 * cache of another version or with other flags.
 */
import {readFileSync} from 'node:fs';
import {join} from 'node:path';
import {Script} from 'node:vm';

/** The bundle's exports. */
export interface Program {
  pearasys(argv: readonly string[], options?: object): Promise<number>;
}

/** The bundle, compiled and evaluated. */
interface LoadedProgram {
  readonly program: Program;
  readonly script: Script;
  /** The path of its cache. */
  readonly cachePath: string;
}

/** The function around the bundle's modules, as Node wraps each CommonJS file. */
type Wrapper = (
  exports: object,
  require: NodeJS.Require,
  module: {exports: object},
  filename: string,
  dirname: string,
) => void;

/** How `build/bundle.ts` begins the bundle: a comment with its digest. */
const digestComment = /^\/\*([0-9a-f]{16})\*\//;

/**
 * Loads `pearasys.cjs` of this folder.
 * @param load the caller's `require`, of the same folder: creating another takes longer than most commands.
 */
export function loadProgram(folder: string, useCache: boolean, load: NodeJS.Require): LoadedProgram {
  const filename = join(folder, 'pearasys.cjs');
  // The bundle is ASCII: as latin1 it needs no decoding, and V8 stores it with one byte per character.
  const source = readFileSync(filename, 'latin1');
  const digest = digestComment.exec(source)?.[1] ?? '';
  const cachePath = join(folder, 'cache', `pearasys-${digest}-${process.version}-${process.arch}.cache`);
  let cachedData: Buffer | undefined;
  if (useCache)
    try {
      cachedData = readFileSync(cachePath);
    } catch {
      // Without a cache for this Node the start is only slower.
    }
  const script = new Script(source, {filename, ...(cachedData === undefined ? {} : {cachedData})});
  const module = {exports: {}};
  const wrapper = script.runInThisContext() as Wrapper;
  wrapper(module.exports, load, module, filename, folder);
  return {program: module.exports as Program, script, cachePath};
}
