/** A run of tests that does not report an error, or not all tests, would look like a success. */
import assert from 'node:assert/strict';
import {spawnSync} from 'node:child_process';
import {mkdtempSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import path from 'node:path';

const checkout = path.resolve(import.meta.dirname, '../..');

describe('a run of tests fails', () => {
  let folder: string;
  before(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'pearasys-run-'));
  });
  after(() => rmSync(folder, {recursive: true}));

  /** Runs a file with this test in it, with the settings of this checkout. */
  function runs(test: string): {readonly status: number | null; readonly output: string} {
    const file = path.join(folder, 'a.test.cjs');
    writeFileSync(
      file,
      `describe('all', () => { it('one', async () => {${test}}); it('last', () => {}); });\n`,
    );
    const mocha = path.join(checkout, 'node_modules/mocha/bin/mocha.js');
    const {status, stdout, stderr} = spawnSync(process.execPath, [mocha, file], {
      cwd: checkout,
      encoding: 'utf8',
    });
    return {status, output: stdout + stderr};
  }

  it('on an error in a promise that nothing waits for', () => {
    const {status, output} = runs(
      "void Promise.reject(new Error('lost')); await new Promise((resolve) => setImmediate(resolve));",
    );
    assert.match(output, /Uncaught Error: lost/);
    assert.notEqual(status, 0);
  });

  it('if it ends before its last test', () => {
    const {status, output} = runs('process.exit(0);');
    assert.match(output, /the tests ended before the last one/);
    assert.equal(status, 1);
  });

  it('only then', () => {
    const {status, output} = runs('');
    assert.match(output, /2 passing/);
    assert.equal(status, 0);
  });
});
