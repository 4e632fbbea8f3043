import {createRequire, isBuiltin} from 'node:module';
import type {Plugin} from 'esbuild';

const require = createRequire(import.meta.url);

/** What {@link lazyModules} defers. */
export interface LazyModules {
  /** Modules of Node by name, without `node:`. */
  readonly builtins: readonly string[];
  /** Packages that CommonJS packages require. */
  readonly packages: readonly string[];
  /** Files below node_modules that CommonJS packages require: the ends of their paths. */
  readonly files: readonly string[];
  /** Where a package is at run time: a path that the bundle can require; undefined if it is in the bundle. */
  readonly locate: (name: string) => string | undefined;
}

/**
 * Evaluates modules when they are first used, not when they are required. oclif requires at start everything that any
 * of its features might need; evaluating that takes longer than the rest of a short command.
 */
export function lazyModules(lazy: LazyModules): Plugin {
  return {
    name: 'lazy-modules',
    setup(build) {
      build.onResolve({filter: /.*/}, async ({path, kind, importer, resolveDir, namespace, pluginData}) => {
        if (namespace === 'lazy' || pluginData === 'eager') return undefined;
        const name = path.replace(/^node:/, '');
        if (isBuiltin(path))
          return lazy.builtins.includes(name) ? {path: name, namespace: 'lazy'} : undefined;
        if (kind !== 'require-call' || !importer.includes('/node_modules/')) return undefined;
        const isPackage = lazy.packages.includes(path);
        const located = isPackage ? lazy.locate(path) : undefined;
        if (located !== undefined) return {path: located, namespace: 'lazy'};
        if (!isPackage && !path.startsWith('.')) return undefined;
        const found = await build.resolve(path, {kind, importer, resolveDir, pluginData: 'eager'});
        return isPackage || lazy.files.some((end) => found.path.endsWith(end))
          ? {path: found.path, namespace: 'lazy', pluginData: isPackage ? 'package' : 'file'}
          : undefined;
      });
      build.onResolve({filter: /.*/, namespace: 'lazy'}, ({path}) =>
        path.startsWith('/') ? {path} : {path, external: true},
      );
      build.onLoad({filter: /.*/, namespace: 'lazy'}, ({path, pluginData}) => ({
        contents: isBuiltin(path) ? builtin(path) : proxy(path, pluginData === 'file'),
        resolveDir: '/',
      }));
    },
  };
}

/** An object with a getter for each export: ES modules that import it only read the names. */
function builtin(name: string): string {
  const getters = Object.keys(require(`node:${name}`) as object).map(
    (key) => `get ${key}(){return load().${key}}`,
  );
  return `const load=()=>require('node:${name}');module.exports={${getters.join(',')}}`;
}

/** A proxy of a module that may be a function. `__esModule` is read immediately, so it is given. */
function proxy(path: string, esModule: boolean): string {
  return `
    const load = () => require(${JSON.stringify(path)});
    module.exports = new Proxy(function () {}, {
      get: (_, key) => (key === '__esModule' ? ${String(esModule)} : load()[key]),
      apply: (_, self, args) => Reflect.apply(load(), self, args),
      construct: (_, args) => Reflect.construct(load(), args),
    });`;
}
