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
  /** Where a package is at run time: a path that the bundle can require. */
  readonly locate: (name: string) => string;
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
        if (lazy.packages.includes(path)) return {path, namespace: 'lazy'};
        if (!path.startsWith('.')) return undefined;
        const found = await build.resolve(path, {kind, importer, resolveDir, pluginData: 'eager'});
        return lazy.files.some((end) => found.path.endsWith(end))
          ? {path: found.path, namespace: 'lazy'}
          : undefined;
      });
      build.onResolve({filter: /.*/, namespace: 'lazy'}, ({path}) => {
        if (isBuiltin(path)) return {path, external: true};
        return path.startsWith('/') ? {path} : {path: lazy.locate(path), external: true};
      });
      build.onLoad({filter: /.*/, namespace: 'lazy'}, ({path}) => ({
        contents: isBuiltin(path) ? builtin(path) : proxy(path, path.startsWith('/')),
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
