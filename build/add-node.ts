/**
 * Run by packaging/tar/build.sh: adds a Node to the lists of licenses. Arguments: the folder of npm's package, and the
 * folder with third-party-licenses.txt and sbom.cdx.json.
 */
import {readFileSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {withNode} from './licenses.js';

const [node = '', documents = ''] = process.argv.slice(2);
const files = {licenses: join(documents, 'third-party-licenses.txt'), bom: join(documents, 'sbom.cdx.json')};
const {licenses, bom} = withNode(readFileSync(files.licenses, 'utf8'), readFileSync(files.bom, 'utf8'), node);
writeFileSync(files.licenses, licenses);
writeFileSync(files.bom, bom);
