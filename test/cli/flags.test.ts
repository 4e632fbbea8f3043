import assert from 'node:assert/strict';
import {readFileSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {commands} from '../../src/entry/cli/command-table.js';

const snapshot = join(import.meta.dirname, 'flags.json');

/** A flag as far as people and scripts depend on it. */
function interfaceOf(flag: object): object {
  const {type, char, multiple, required, options, default: value, hidden} = flag as Record<string, unknown>;
  return Object.fromEntries(
    Object.entries({type, char, multiple, required, options, default: value, hidden}).filter(
      ([, one]) => one !== undefined && one !== false,
    ),
  );
}

/** Every command's arguments and flags: `UPDATE_SNAPSHOT=1 make test-unit` after a change that is meant. */
describe('the flags of all commands', () => {
  it('are as in flags.json', async () => {
    const found: Record<string, object> = {};
    for (const [id, {load}] of Object.entries(commands)) {
      const {default: command} = await load();
      const flags = Object.entries({...command.baseFlags, ...command.flags});
      found[id.replaceAll(':', ' ')] = {
        arguments: Object.entries(command.args).map(([name, {required}]) =>
          required === true ? name : `[${name}]`,
        ),
        flags: Object.fromEntries(
          flags.sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, flag]) => [`--${name}`, interfaceOf(flag)]),
        ),
      };
    }
    if (process.env['UPDATE_SNAPSHOT'] !== undefined)
      writeFileSync(snapshot, `${JSON.stringify(found, null, 2)}\n`);
    assert.deepEqual(found, JSON.parse(readFileSync(snapshot, 'utf8')));
  });
});
