/** The tables of dpdk-devbind.py: how they are read, and how they are written as a module of src. */
import {format} from 'prettier';
import type {DpdkType, TypeRule} from '../src/devices/pci/device-type.js';
import config from '../.prettierrc.json' with {type: 'json'};

/** Its names of tables, without `_devices`, and the words of `--status-dev` for them. */
const tableNames: Readonly<Record<string, DpdkType>> = {
  network: 'net',
  baseband: 'baseband',
  crypto: 'crypto',
  dma: 'dma',
  eventdev: 'event',
  mempool: 'mempool',
  compress: 'compress',
  regex: 'regex',
  ml: 'ml',
  misc: 'misc',
};

export type DevbindTables = Readonly<Record<DpdkType, readonly TypeRule[]>>;

/**
 * Reads the tables from the text of dpdk-devbind.py.
 * @throws Error for a table or a rule of a form that is not known here: it must not be lost.
 */
export function parseTables(text: string): DevbindTables {
  const rules = new Map<string, TypeRule>();
  for (const [, name = '', body = ''] of text.matchAll(/^(\w+) = \{([^}]*)\}/gm))
    if (body.includes("'Class'")) rules.set(name, parseRule(name, body));
  const tables = new Map<DpdkType, TypeRule[]>();
  for (const [, name = '', body = ''] of text.matchAll(/^(\w+)_devices = \[([^\]]*)\]/gm)) {
    const type = Object.hasOwn(tableNames, name) ? tableNames[name] : undefined;
    if (type === undefined) throw new Error(`the table ${name}_devices is new`);
    tables.set(
      type,
      body
        .split(',')
        .map((word) => word.trim())
        .filter((word) => word !== '')
        .map((word) => {
          const rule = rules.get(word);
          if (rule === undefined) throw new Error(`${name}_devices has ${word}, which is not defined`);
          return rule;
        }),
    );
  }
  const missing = Object.values(tableNames).filter((type) => !tables.has(type));
  if (missing.length > 0) throw new Error(`there are no tables for ${missing.join(', ')}`);
  return Object.fromEntries(tables) as unknown as DevbindTables;
}

function parseRule(name: string, body: string): TypeRule {
  const fields = new Map(
    [...body.matchAll(/'(\w+)':\s*(?:None|["']([^"']*)["'])/g)].map(([, key = '', value]) => [key, value]),
  );
  const {Class, Vendor, Device, ...others} = Object.fromEntries(fields);
  if (Class === undefined || Object.values(others).some((value) => value !== undefined))
    throw new Error(`the rule ${name} has a form that is not known here: {${body}}`);
  return {
    class: Class,
    ...(Vendor === undefined ? {} : {vendor: Vendor}),
    ...(Device === undefined ? {} : {devices: Device.split(',').map((id) => id.trim())}),
  };
}

/** Where the tables are from. */
export interface DevbindSource {
  /** The version of DPDK. */
  readonly version: string;
  /** The version of Debian's package `dpdk`. */
  readonly package: string;
}

/** The module of src with the tables. */
export async function printTables(tables: DevbindTables, source: DevbindSource): Promise<string> {
  const lines = Object.values(tableNames).map((type) => `${type}: ${JSON.stringify(tables[type])},`);
  const text = `// Written by \`make update-device-types\`; do not edit.
import type {DpdkType, TypeRule} from './device-type.js';

/** Where the tables are from. */
export const dpdkSource = {
  file: 'usertools/dpdk-devbind.py',
  version: '${source.version}',
  package: 'dpdk ${source.package} of Debian',
  license: 'BSD-3-Clause',
  copyright: 'Copyright(c) 2010-2014 Intel Corporation',
} as const;

/** The devices of each type, by the words of \`dpdk-devbind.py --status-dev\`. */
export const dpdkTypes: Readonly<Record<DpdkType, readonly TypeRule[]>> = {
${lines.join('\n')}
};
`;
  return await format(text, {...(config as object), parser: 'typescript'});
}

/** What differs between two tables, one line for each type. */
export function differences(before: DevbindTables, after: DevbindTables): string[] {
  return Object.values(tableNames).flatMap((type) => {
    const [old, now] = [before[type], after[type]].map((rules) => rules.map((rule) => JSON.stringify(rule)));
    const gone = (old ?? []).filter((rule) => now?.includes(rule) !== true).map((rule) => `-${rule}`);
    const added = (now ?? []).filter((rule) => old?.includes(rule) !== true).map((rule) => `+${rule}`);
    return gone.length + added.length === 0 ? [] : [`${type}: ${[...gone, ...added].join(' ')}`];
  });
}
