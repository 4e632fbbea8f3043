/**
 * Compares the tables in src/devices/pci/dpdk-types.ts with those of dpdk-devbind.py in Debian's package `dpdk`, and
 * writes the file again if they differ. Then it fails, so that somebody looks at the change.
 *
 * `SUITE` names the Debian release.
 */
import {writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {dpdkSource, dpdkTypes} from '../src/devices/pci/dpdk-types.js';
import {fetchDevbind} from './devbind-package.js';
import {differences, parseTables, printTables} from './devbind-tables.js';

const target = join(import.meta.dirname, '../src/devices/pci/dpdk-types.ts');

const {text, version} = fetchDevbind(process.env['SUITE'] ?? 'trixie');
const tables = parseTables(text);
const changes = differences(dpdkTypes, tables);
if (changes.length === 0) {
  console.log(`the tables are those of dpdk ${version}; written from: ${dpdkSource.package}`);
} else {
  const source = {version: version.replace(/^\d+:|[-+~].*$/g, ''), package: version};
  writeFileSync(target, await printTables(tables, source));
  for (const change of changes) console.error(change);
  console.error(`${target} was written from dpdk ${version}: review the change`);
  process.exitCode = 1;
}
