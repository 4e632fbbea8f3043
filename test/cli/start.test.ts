import assert from 'node:assert/strict';
import {execFileSync, spawnSync} from 'node:child_process';
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import {createRequire} from 'node:module';
import {tmpdir} from 'node:os';
import {dirname, join} from 'node:path';
import {loadProgram} from '../../src/entry/cli/code-cache.js';

const repository = join(import.meta.dirname, '../..');

describe('the launcher', () => {
  let folder: string;
  let launcher: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'pearasys-launcher-'));
    launcher = join(folder, 'pearasys');
    install(process.execPath);
    writeFileSync(
      join(folder, 'start.cjs'),
      'console.log(JSON.stringify({argv: process.argv.slice(2), environment: process.env}))',
    );
  });
  afterEach(() => rmSync(folder, {recursive: true}));

  /** As `make install` does it. */
  function install(node: string): void {
    for (const [from, to] of [
      ['sbin/pearasys', launcher],
      ['libexec/node.sh', join(folder, 'node.sh')],
    ] as const) {
      const script = readFileSync(join(repository, from), 'utf8')
        .replaceAll('@LIBEXECDIR@', folder)
        .replaceAll('@LIBDIR@', folder)
        .replaceAll('@NODE@', node);
      writeFileSync(to, script, {mode: 0o755});
    }
  }

  /** As in a checkout. @returns the launcher. */
  function checkOut(): string {
    for (const each of ['sbin/pearasys', 'libexec/node.sh']) {
      mkdirSync(dirname(join(folder, 'checkout', each)), {recursive: true});
      copyFileSync(join(repository, each), join(folder, 'checkout', each));
    }
    return join(folder, 'checkout/sbin/pearasys');
  }

  it('passes the words on unchanged, and returns the exit code', () => {
    const words = ['pci', '', 'a b', '$HOME', '*', '--', '-n'];
    const printed = execFileSync(launcher, words, {encoding: 'utf8'});
    assert.deepEqual((JSON.parse(printed) as {argv: string[]}).argv, words);
    writeFileSync(join(folder, 'start.cjs'), 'process.exit(5)');
    assert.equal(spawnSync(launcher).status, 5);
  });

  it('removes variables that control Node from the environment', () => {
    const hostile = {
      NODE_OPTIONS: '--require=/nonexistent/evil.js',
      NODE_PATH: '/nonexistent',
      NODE_EXTRA_CA_CERTS: '/nonexistent',
      NODE_V8_COVERAGE: folder,
    };
    const printed = execFileSync(launcher, [], {encoding: 'utf8', env: {...process.env, ...hostile}});
    const {environment} = JSON.parse(printed) as {environment: NodeJS.ProcessEnv};
    for (const name of Object.keys(hostile)) assert.equal(environment[name], undefined, name);
  });

  it('runs the Node that it was installed with, not the one in PATH', () => {
    writeFileSync(join(folder, 'node'), '#!/bin/sh\nexit 9\n', {mode: 0o755});
    assert.equal(spawnSync(launcher, {env: {PATH: `${folder}:/usr/bin:/bin`}}).status, 0);
  });

  it('reports that this Node is missing', () => {
    install('/nonexistent/node');
    const {status, stdout, stderr} = spawnSync(launcher, ['list'], {encoding: 'utf8'});
    assert.equal(status, 1);
    assert.equal(stdout, '');
    assert.match(
      stderr,
      /^pearasys: Node\.js 18\.19 or newer is required, but \/nonexistent\/node does not exist\ntry: /,
    );
  });

  it('reports in a checkout that no node is in PATH', () => {
    const bin = join(folder, 'bin');
    for (const each of [bin, join(folder, 'checkout/dist')]) mkdirSync(each, {recursive: true});
    writeFileSync(join(folder, 'checkout/dist/start.cjs'), '');
    const original = checkOut();
    symlinkSync('/bin/sh', join(bin, 'sh'));
    const {status, stdout, stderr} = spawnSync(original, ['list'], {encoding: 'utf8', env: {PATH: bin}});
    assert.equal(status, 1);
    assert.equal(stdout, '');
    assert.match(stderr, /^pearasys: Node\.js 18\.19 or newer is required, but there is no node in PATH\n/);
  });

  it('prints the next step in a checkout without dist/, also through a link', () => {
    const original = checkOut();
    symlinkSync('checkout/sbin/pearasys', join(folder, 'link'));
    for (const command of [original, join(folder, 'link')]) {
      const {status, stderr} = spawnSync(command, ['list'], {encoding: 'utf8'});
      assert.equal(status, 1);
      assert.match(stderr, /checkout\/sbin\/\.\.\/dist does not exist: run make first/);
    }
  });
});

describe('the code cache', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'pearasys-cache-'));
    mkdirSync(join(folder, 'cache'));
  });
  afterEach(() => rmSync(folder, {recursive: true}));

  function putBundle(digest: string, answer: number): void {
    const body = `exports.pearasys = async () => ${answer}`;
    const text = `/*${digest}*/(function(exports,require,module,__filename,__dirname){${body}\n})`;
    writeFileSync(join(folder, 'pearasys.cjs'), text);
  }

  function writeCache(): string {
    const {script, cachePath} = loadProgram(folder, false, createRequire(import.meta.url));
    writeFileSync(cachePath, script.createCachedData());
    return cachePath;
  }

  const answer = async () => loadProgram(folder, true, createRequire(import.meta.url)).program.pearasys([]);

  it('is used, and is named after this version of Node', async () => {
    putBundle('0123456789abcdef', 7);
    const path = writeCache();
    assert.ok(path.endsWith(`-${process.version}-${process.arch}.cache`));
    assert.equal(loadProgram(folder, true, createRequire(import.meta.url)).script.cachedDataRejected, false);
    assert.equal(await answer(), 7);
  });

  it('of another bundle of the same length is never used', async () => {
    putBundle('0123456789abcdef', 7);
    writeCache();
    putBundle('fedcba9876543210', 8);
    assert.equal(
      loadProgram(folder, true, createRequire(import.meta.url)).script.cachedDataRejected,
      undefined,
    );
    assert.equal(await answer(), 8);
    assert.equal(readdirSync(folder).length, 2);
  });

  it('may be missing, empty, truncated or invalid', async () => {
    putBundle('0123456789abcdef', 7);
    assert.equal(await answer(), 7);
    const path = writeCache();
    truncateSync(path, 100);
    assert.equal(await answer(), 7);
    truncateSync(path, 0);
    assert.equal(await answer(), 7);
    writeFileSync(path, Buffer.alloc(5000, 0xa5));
    assert.equal(await answer(), 7);
  });
});
