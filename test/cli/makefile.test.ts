/** Which Node make runs. */
import assert from 'node:assert/strict';
import {execFileSync} from 'node:child_process';
import {mkdtempSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';

const repository = join(import.meta.dirname, '../..');

describe('make', () => {
  let folder: string;
  before(() => (folder = mkdtempSync(join(tmpdir(), 'pearasys-make-'))));
  after(() => rmSync(folder, {recursive: true}));

  /** The first folder that make searches for the tools' Node, and the Node that `make install` puts into units. */
  function nodes(version: string): [tools: string, installed: string] {
    const node = join(folder, 'node');
    const script = `#!${process.execPath}
      const version = ${JSON.stringify(version)};
      Object.defineProperty(process, 'versions', {value: {node: version}});
      console.log(eval(process.argv.at(-1)));`;
    writeFileSync(node, script, {mode: 0o755});
    const show = 'show: ; @echo "$${PATH%%:*}"; echo "$(NODE)"';
    const printed = execFileSync('make', ['--no-print-directory', '--eval', show, 'show'], {
      cwd: repository,
      encoding: 'utf8',
      env: {PATH: `${folder}:${process.env['PATH'] ?? ''}`},
    });
    const [tools = '', installed = ''] = printed.trim().split('\n');
    return [tools, installed];
  }

  it('runs the tools with the Node of the tarball where that of the system is too old for them', () => {
    for (const version of ['18.19.0', '18.20.4', '20.18.3']) {
      const [tools, installed] = nodes(version);
      assert.match(tools, /\/packaging\/tar\/node\/(x64|arm64)\/node_modules\/node-linux-\1\/bin$/, version);
      assert.equal(installed, join(folder, 'node'));
    }
    for (const version of ['20.19.0', '22.0.0', '26.1.0'])
      assert.deepEqual(nodes(version), [folder, join(folder, 'node')], version);
  });
});
