/** What is written in several places says the same: package.json is what the others go by. */
import assert from 'node:assert/strict';
import {readdirSync, readFileSync} from 'node:fs';
import {join} from 'node:path';
import manifest from '../../package.json' with {type: 'json'};
import lock from '../../package-lock.json' with {type: 'json'};
import {SUITES} from '../vm/image.js';

const repository = join(import.meta.dirname, '../..');
const textOf = (file: string) => readFileSync(join(repository, file), 'utf8');

describe('versions', () => {
  const oldestNode = manifest.engines.node.replace(/^>=/, '');

  it('of Node: the documents, the launcher and the types are those of the oldest', () => {
    assert.match(oldestNode, /^\d+\.\d+$/);
    const files = [
      ...['README.md', 'CONTRIBUTING.md', 'SECURITY.md', 'sbin/pearasys'],
      ...readdirSync(join(repository, 'docs')).map((name) => `docs/${name}`),
    ];
    const told = files.flatMap((file) =>
      [...textOf(file).matchAll(/\bNode(?:\.js)? (\d+(?:\.\d+)*) or newer/g)].map(([, version]) => [
        file,
        version,
      ]),
    );
    assert.ok(told.length >= 4, String(told));
    // The tools of developers need a newer one.
    const developers = manifest.devDependencies['@types/node'].split('.').slice(0, 2).join('.');
    for (const [file, version] of told)
      assert.ok([oldestNode, ...(file?.endsWith('.md') ? [developers] : [])].includes(version ?? ''), file);
    assert.equal(
      manifest.devDependencies['@types/node-18'].replace('npm:@types/node@', '').split('.')[0],
      oldestNode.split('.')[0],
    );
  });

  it('of Node: what is built is tested on the oldest and the newest of those that make test-node knows', () => {
    const [, known = ''] = /^VERSIONS = (.+)$/m.exec(textOf('Makefile')) ?? [];
    const versions = known.split(' ');
    assert.equal(versions[0], oldestNode);
    assert.ok(textOf('.ci/run').includes(`make test-node VERSIONS='${versions[0]} ${versions.at(-1)}'\n`));
  });

  it('of Debian: the Makefile knows those of the test machine', () => {
    const makefile = textOf('Makefile');
    const named = [/^SUITE = (\w+)$/m, /^test-vm-trixie: SUITE = (\w+)$/m].map(
      (line) => line.exec(makefile)?.[1],
    );
    assert.deepEqual(named, [...SUITES]);
  });

  it('of pearasys: the description for software centers has those that were released, with their dates', () => {
    const changes = textOf('CHANGELOG.md').matchAll(
      /^## (\d+\.\d+\.\d+)\n\nReleased on (\d{4}-\d{2}-\d{2})\.$/gm,
    );
    const [file = ''] = readdirSync(join(repository, 'share/metainfo'));
    const releases = textOf(`share/metainfo/${file}`).matchAll(/<release version="(.+)" date="(.+)"\/>/g);
    const told = [...releases].map(([, ...release]) => release);
    assert.equal(told[0]?.[0], manifest.version);
    assert.deepEqual(
      told,
      [...changes].map(([, ...release]) => release),
    );
  });

  it('of pearasys: the changes and the lock file have it', () => {
    assert.match(textOf('CHANGELOG.md'), new RegExp(`^## ${manifest.version.replaceAll('.', '\\.')}$`, 'm'));
    assert.deepEqual(
      [lock.version, lock.packages[''].version, lock.packages[''].engines],
      [manifest.version, manifest.version, manifest.engines],
    );
  });
});
