/**
 * What is in dist/ besides our own code: the packages, with their licenses. They are those whose files esbuild has put
 * into a bundle, which are fewer than those that npm installs.
 */
import {existsSync, readdirSync, readFileSync} from 'node:fs';
import {join, resolve} from 'node:path';
import manifest from '../package.json' with {type: 'json'};

/** A package in a bundle. */
export interface BundledPackage {
  readonly name: string;
  readonly version: string;
  /** An SPDX expression. */
  readonly license: string;
  /** The text of its license file. */
  readonly text: string;
}

/**
 * The packages of files in bundles.
 * @param inputs paths of files, relative to the checkout, as in esbuild's metafile
 * @throws Error if a package does not say what its license is
 */
export function bundledPackages(root: string, inputs: Iterable<string>): readonly BundledPackage[] {
  const folders = new Set<string>();
  for (const input of inputs) {
    // The innermost folder of a package: node_modules can be nested. A plugin puts its namespace before the path.
    const folder = /(?:^|:)([^:]*\bnode_modules\/(?:@[^/]+\/)?[^/:]+)\//.exec(input)?.[1];
    if (folder !== undefined) folders.add(resolve(root, folder));
  }
  return [...folders]
    .map(readPackage)
    .sort((a, b) => compare(a.name, b.name) || compare(a.version, b.version));
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function readPackage(folder: string): BundledPackage {
  const {name, version, license} = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as {
    name: string;
    version: string;
    license?: string;
  };
  if (typeof license !== 'string') throw new Error(`${folder}/package.json has no license`);
  const file = readdirSync(folder).find((each) => /^licen[cs]e/i.test(each));
  const readme = join(folder, 'README.md');
  const text =
    file === undefined
      ? // Some have it only in their description.
        existsSync(readme)
        ? (/^#+ *licen[cs]e[^\n]*\n([\s\S]*)/im.exec(readFileSync(readme, 'utf8'))?.[1] ?? '')
        : ''
      : readFileSync(join(folder, file), 'utf8');
  return {name, version, license, text: text.trim()};
}

/** The text of third-party-licenses.txt. */
export function licenseText(packages: readonly BundledPackage[]): string {
  const intro = `pearasys ${manifest.version} contains these packages:\n`;
  return [intro, ...packages.map(licenseSection)].join('\n');
}

function licenseSection({name, version, license, text}: BundledPackage): string {
  return `${'-'.repeat(78)}\n${name} ${version}: ${license}\n\n${text}\n`;
}

/** The software bill of materials, in CycloneDX 1.5, without a time or a random number: the same build is the same file. */
export function billOfMaterials(packages: readonly BundledPackage[]): string {
  const bom = {
    bomFormat: 'CycloneDX',
    specVersion: '1.5',
    version: 1,
    metadata: {
      component: {type: 'application', ...component(manifest.name, manifest.version, manifest.license)},
    },
    components: packages.map(({name, version, license}) => ({
      type: 'library',
      ...component(name, version, license),
    })),
  };
  return `${JSON.stringify(bom, undefined, 2)}\n`;
}

/** What a package with its own Node contains besides what {@link licenseText} and {@link billOfMaterials} list. */
export function withNode(
  licenses: string,
  bom: string,
  folder: string,
): {readonly licenses: string; readonly bom: string} {
  const node = readPackage(folder);
  const parsed = JSON.parse(bom) as {components: object[]};
  parsed.components.push({
    type: 'platform',
    ...component(node.name, node.version, node.license),
    // The name that Node has in lists of vulnerabilities.
    cpe: `cpe:2.3:a:nodejs:node.js:${node.version}:*:*:*:*:*:*:*`,
  });
  return {
    licenses: `${licenses}\n${licenseSection(node)}`,
    bom: `${JSON.stringify(parsed, undefined, 2)}\n`,
  };
}

function component(name: string, version: string, license: string): object {
  return {
    'bom-ref': purl(name, version),
    name,
    version,
    licenses: [/[ ()]/.test(license) ? {expression: license} : {license: {id: license}}],
    purl: purl(name, version),
  };
}

/** See https://github.com/package-url/purl-spec. */
function purl(name: string, version: string): string {
  return `pkg:npm/${name.replace('@', '%40')}@${version}`;
}
