/**
 * Makes dist/, which needs no node_modules: the bundle of the command line and its launcher, the child that
 * writes attributes, a small bundle for mdevctl and for each handler, and each package that is loaded on demand.
 */
import {createHash} from 'node:crypto';
import fs, {copyFileSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync} from 'node:fs';
import {isBuiltin} from 'node:module';
import {join} from 'node:path';
import {build, type BuildOptions, type OutputFile, type Plugin} from 'esbuild';
import manifest from '../package.json' with {type: 'json'};
import {completedProgram} from '../src/entry/cli/completion.js';
import {loadableCommands} from '../src/entry/cli/config.js';
import {completionScript, shells} from '../src/entry/completion/script.js';
import {completionTable} from '../src/entry/completion/table.js';
import {completedLsmdev, completedMdevctl} from '../src/entry/mdevctl/completion.js';
import {lazyModules, type LazyModules} from './lazy.js';
import {billOfMaterials, bundledPackages, licenseText} from './licenses.js';
import {manualPages} from './man.js';
import {precompiledTemplates} from './templates.js';

const root = join(import.meta.dirname, '..');
/** Built in another folder and renamed when it is complete, so that dist/ is never incomplete. */
const dist = join(root, 'dist.new');

/** `make install` puts the folders in. */
const installed = {library: '@LIBDIR@', config: '@SYSCONFDIR@/pearasys'};

const oldestNode = manifest.engines.node.replace(/^>=/, '');

/** Debian 11 has Node 12: what the launcher runs must be able to say there that it is too old. */
const launched = {target: 'node12', supported: {'dynamic-import': false, 'node-colon-prefix-require': false}};

const common: BuildOptions = {
  absWorkingDir: root,
  bundle: true,
  platform: 'node',
  format: 'cjs',
  target: `node${oldestNode}`,
  // One byte per character, see src/entry/cli/code-cache.ts.
  charset: 'ascii',
  // White space is a third of the text, and reading and hashing it takes time; names are kept for stack traces.
  minifyWhitespace: true,
  minifySyntax: true,
  legalComments: 'none',
  logLevel: 'warning',
  // oclif needs them only when it runs from TypeScript sources.
  external: ['typescript', 'ts-node', 'tsx'],
  define: {
    'import.meta.dirname': '__dirname',
    'import.meta.filename': '__filename',
    OLDEST_NODE: JSON.stringify(oldestNode),
  },
  // import() becomes require(): there are no ES modules in dist/.
  supported: {'dynamic-import': false},
};

/** The packages that sources load by import(): each becomes a separate file in dist/lib. */
const lazyPackages = new Set<string>();

/** Points import() of a package at dist/lib. */
const lazy: Plugin = {
  name: 'lazy-packages',
  setup(build) {
    build.onResolve({filter: /^[@a-z]/}, ({path, kind, importer}) => {
      const ours = importer.startsWith(join(root, 'src')) && !path.startsWith('@oclif/');
      if (kind !== 'dynamic-import' || !ours || isBuiltin(path)) return undefined;
      lazyPackages.add(path);
      return {path: `./lib/${libName(path)}`, external: true};
    });
  },
};

/**
 * Makes `import fs from 'node:fs'` return the result of require. esbuild would copy each of its hundred functions for
 * each module.
 */
const wholeBuiltins: Plugin = {
  name: 'whole-builtins',
  setup(build) {
    build.onResolve({filter: /^node:fs$/}, ({path, kind}) =>
      kind === 'import-statement' ? {path, namespace: 'whole'} : undefined,
    );
    build.onLoad({filter: /.*/, namespace: 'whole'}, ({path}) => {
      // Without getters: those of its streams load what makes streams.
      const names = Object.entries(Object.getOwnPropertyDescriptors(fs))
        .filter(([, descriptor]) => 'value' in descriptor)
        // fs.F_OK and its like are in fs.constants; to name them here is deprecated (DEP0176).
        .filter(([, {value}]) => typeof value !== 'number')
        .map(([name]) => name);
      return {
        contents: `
          const whole = require(${JSON.stringify(path.replace('node:', ''))});
          export default whole;
          export const {${names.join(',')}} = whole;`,
      };
    });
  },
};

/** An entry point `required:NAME` is the result of `require('NAME')`: oclif must get the same exports as without the bundle. */
const required: Plugin = {
  name: 'required-packages',
  setup(build) {
    build.onResolve({filter: /^required:/}, ({path}) => ({
      path: path.slice('required:'.length),
      namespace: 'required',
    }));
    build.onLoad({filter: /.*/, namespace: 'required'}, ({path}) => ({
      contents: `module.exports = require(${JSON.stringify(path)});`,
      resolveDir: root,
    }));
  },
};

/** All files that are in a bundle, relative to the checkout. */
const bundled = new Set<string>();

async function bundle(options: BuildOptions): Promise<readonly OutputFile[]> {
  const {metafile, outputFiles = []} = await build({...options, metafile: true});
  for (const {inputs} of Object.values(metafile.outputs))
    for (const input of Object.keys(inputs)) bundled.add(input);
  return outputFiles;
}

function libName(packageName: string): string {
  return `${packageName.replace('@', '').replaceAll('/', '-')}.cjs`;
}

/** What oclif requires at start, and a command may not use: evaluated when it is used. */
const unusedByMost: Pick<LazyModules, 'builtins' | 'packages' | 'files'> = {
  builtins: [
    'child_process',
    'fs/promises',
    'os',
    'tty',
    'net',
    'readline',
    'perf_hooks',
    'crypto',
    'timers/promises',
    'assert',
  ],
  packages: [
    'ansis',
    'clean-stack',
    'cli-spinners',
    'debug',
    'ejs',
    'indent-string',
    'lilconfig',
    'minimatch',
    'string-width',
    'supports-color',
    'tinyglobby',
    'widest-line',
    'wrap-ansi',
  ],
  files: [
    '@oclif/core/lib/config/plugin.js',
    '@oclif/core/lib/config/ts-path.js',
    '@oclif/core/lib/errors/handle.js',
    '@oclif/core/lib/errors/errors/pretty-print.js',
    '@oclif/core/lib/help/index.js',
    '@oclif/core/lib/module-loader.js',
    '@oclif/core/lib/parser/errors.js',
    '@oclif/core/lib/parser/help.js',
    '@oclif/core/lib/screen.js',
    '@oclif/core/lib/ux/index.js',
  ],
};

/** oclif's tests for Windows that runs Linux. */
const alias = {'wsl-utils': join(root, 'build/no-wsl.ts')};

async function bundleProgram(): Promise<void> {
  const [output] = await bundle({
    ...common,
    entryPoints: ['src/entry/cli/pearasys.ts'],
    write: false,
    alias,
    plugins: [
      lazyModules({
        ...unusedByMost,
        locate: (name) => {
          lazyPackages.add(name);
          return `./lib/${libName(name)}`;
        },
      }),
      wholeBuiltins,
      lazy,
      precompiledTemplates(root),
    ],
  });
  const body = `(function(exports,require,module,__filename,__dirname){${output?.text ?? ''}\n})`;
  const digest = createHash('sha256').update(body).digest('hex').slice(0, 16);
  writeFileSync(join(dist, 'pearasys.cjs'), `/*${digest}*/${body}`);
}

/** All programs in one file, with all packages: a startup snapshot can only be made of one file. */
async function bundleSnapshot(): Promise<void> {
  await bundle({
    ...common,
    entryPoints: ['src/entry/snapshot.ts'],
    outfile: join(dist, 'snapshot.cjs'),
    alias,
    plugins: [
      lazyModules({...unusedByMost, locate: () => undefined}),
      wholeBuiltins,
      precompiledTemplates(root),
    ],
  });
}

async function bundleRest(): Promise<void> {
  const handlers = readdirSync(join(root, 'src/entry/handlers')).filter((name) => name.endsWith('-main.ts'));
  await bundleSmall(launched, [
    {in: 'src/entry/cli/start.ts', out: 'start'},
    {in: 'src/entry/mdevctl/start.ts', out: 'mdevctl'},
  ]);
  await bundleSmall({}, [
    {in: 'src/entry/make-caches.ts', out: 'make-caches'},
    {in: 'src/host/attribute-writer.ts', out: 'attribute-writer'},
    {in: 'src/systemd/render-template.ts', out: 'render-template'},
    ...handlers.map((name) => ({in: `src/entry/handlers/${name}`, out: name.replace(/-main\.ts$/, '')})),
  ]);
}

async function bundleSmall(options: BuildOptions, entryPoints: {in: string; out: string}[]): Promise<void> {
  await bundle({
    ...common,
    ...options,
    entryPoints,
    outdir: dist,
    outExtension: {'.js': '.cjs'},
    plugins: [
      // A handler whose device is already in the right state starts no process and does not need these.
      lazyModules({
        builtins: ['child_process', 'crypto', 'os', 'timers/promises'],
        packages: [],
        files: [],
        locate: libName,
      }),
      wholeBuiltins,
      lazy,
      precompiledTemplates(root),
    ],
  });
}

async function bundlePackages(): Promise<void> {
  await bundle({
    ...common,
    entryPoints: Object.fromEntries(
      [...lazyPackages].map((name) => [libName(name).replace(/\.cjs$/, ''), `required:${name}`]),
    ),
    outdir: join(dist, 'lib'),
    plugins: [required],
    outExtension: {'.js': '.cjs'},
  });
}

/** What the shells run to complete, with its tables, and their scripts. */
async function writeCompletion(): Promise<void> {
  const programs = {
    pearasys: await completedProgram(loadableCommands()),
    mdevctl: completedMdevctl(),
    lsmdev: completedLsmdev(),
  };
  mkdirSync(join(dist, 'completion'));
  mkdirSync(join(dist, 'share/completion'), {recursive: true});
  copyFileSync(join(root, 'completion/complete'), join(dist, 'completion/complete'));
  for (const [program, completed] of Object.entries(programs)) {
    writeFileSync(join(dist, 'completion', program), completionTable(completed));
    for (const shell of shells)
      writeFileSync(
        join(dist, 'share/completion', `${program}.${shell}`),
        completionScript(shell, program, installed),
      );
  }
}

/** Manual pages, and what the licenses of bundled packages want. */
async function writeShare(): Promise<void> {
  for (const {file, section, text} of await manualPages(installed.config)) {
    mkdirSync(join(dist, 'share/man', `man${section}`), {recursive: true});
    writeFileSync(join(dist, 'share/man', `man${section}`, file), text);
  }
  const packages = bundledPackages(root, bundled);
  writeFileSync(join(dist, 'share', 'third-party-licenses.txt'), licenseText(packages));
  writeFileSync(join(dist, 'share', 'sbom.cdx.json'), billOfMaterials(packages));
}

rmSync(dist, {recursive: true, force: true});
mkdirSync(dist);
await bundleProgram();
await bundleRest();
await bundleSnapshot();
await bundlePackages();
await writeCompletion();
await writeShare();
rmSync(join(root, 'dist'), {recursive: true, force: true});
renameSync(dist, join(root, 'dist'));
