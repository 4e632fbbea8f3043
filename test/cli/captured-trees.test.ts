import assert from 'node:assert/strict';
import type {ErrorDocument} from '../../src/entry/cli/report-error.js';
import type {ListResult} from '../../src/entry/cli/list-report.js';
import type {UserspaceStatusResult} from '../../src/entry/cli/commands/userspace/status.js';
import type {ShowResult} from '../../src/entry/cli/commands/show.js';
import type {ChangeResult} from '../../src/entry/cli/switching.js';
import {capturedTrees, hostOfTree, readTree} from '../simulated-host/captured-tree.js';
import type {SimulatedHost} from '../simulated-host/simulated-host.js';
import {run} from './runs.js';

describe('on the device trees of real machines', () => {
  for (const name of capturedTrees())
    describe(name, () => {
      const tree = readTree(name);
      const declared = new Map(tree.devices.map((line) => [line.split(' ')[0] ?? '', line.split(' ')]));
      let host: SimulatedHost;
      before(async () => {
        host = await hostOfTree(tree);
      });
      after(() => host.dispose());

      // eslint-disable-next-line @typescript-eslint/no-unnecessary-type-parameters -- the document is what the command says
      async function json<T>(
        ...argv: string[]
      ): Promise<{exitCode: number; result: T & Partial<ErrorDocument>}> {
        const {exitCode, stdout, stderr} = await run(host, [...argv, '--json']);
        assert.doesNotMatch(stderr, /internal error|is locked/, argv.join(' '));
        return {exitCode, result: JSON.parse(stdout) as T & Partial<ErrorDocument>};
      }

      it('userspace status describes each device that has a type', async () => {
        const {exitCode, result} = await json<UserspaceStatusResult>('userspace', 'status');
        assert.equal(exitCode, 0);
        const classes = new Map([...declared].map(([slot, [, , code = '']]) => [slot, code.slice(0, 2)]));
        const expected = [...classes]
          .filter(([, base]) => base === '01' || base === '02')
          .map(([slot]) => slot);
        const found = result.devices.map(({slot}) => slot);
        assert.deepEqual(
          expected.filter((slot) => !found.includes(slot)),
          [],
        );
        for (const {slot, state, driver, skipped, wouldGet} of result.devices) {
          assert.equal(state === 'unused', driver === null, slot);
          if (skipped !== null) assert.equal(wouldGet, null, slot);
        }
      });

      it('list describes each device correctly', async () => {
        const {exitCode, result} = await json<ListResult>('list');
        assert.equal(exitCode, 0);
        const virtual = Object.values(tree.vfs ?? {}).reduce((sum, count) => sum + count, 0);
        assert.equal(result.devices.length, declared.size + virtual);
        assert.deepEqual(result.problems, []);
        for (const device of result.devices) {
          const [, id, code, driver, group, node] = declared.get(device.slot) ?? [];
          if (id === undefined) continue;
          const known = (text: string | undefined) => (text === '-' || text === undefined ? null : text);
          assert.deepEqual(
            {...device, group: device.group?.toString() ?? null, node: device.numaNode?.toString() ?? null},
            {
              ...device,
              id,
              class: code,
              driver: tree.noLinks === true ? null : known(driver),
              group: known(group),
              node: tree.omit?.includes('numa_node') === true || node === '-1' ? null : known(node),
              override: /override=(\S+)/.exec(declared.get(device.slot)?.join(' ') ?? '')?.[1] ?? null,
              bootDisplay:
                declared.get(device.slot)?.includes('boot') === true &&
                tree.omit?.includes('boot_vga') !== true,
              responds:
                tree.omit?.includes('config') === true
                  ? null
                  : declared.get(device.slot)?.includes('dead') !== true,
            },
          );
        }
        const lines = await run(host, ['list']);
        assert.equal(lines.stdout.trimEnd().split('\n').length, result.devices.length);
      });

      it('show describes each device, and none is reported as locked', async () => {
        for (const slot of host.machine.functions.keys()) {
          const {exitCode, result} = await json<ShowResult>('show', slot);
          assert.equal(exitCode, 0, slot);
          const [device] = result.devices;
          assert.ok(device !== undefined);
          assert.equal(device.slot, slot);
          assert.deepEqual(
            [device.locked, device.overrideState, device.unreadable],
            [false, tree.omit?.includes('driver_override') === true ? 'missing' : 'known', []],
          );
          const {exitCode: text} = await run(host, ['show', slot]);
          assert.equal(text, 0, slot);
        }
      });

      it('bind --dry-run plans, or refuses with the reason, for each device', async () => {
        const {result: listed} = await json<ListResult>('list');
        for (const {slot, class: code, group, driver, override, responds} of listed.devices)
          for (const target of ['none', 'vfio-pci']) {
            const {exitCode, result} = await json<ChangeResult>('bind', target, slot, '--group', '--dry-run');
            const on = driver === target && (override ?? target) === target;
            const noOverride = tree.omit?.includes('driver_override') === true;
            const expected =
              target === 'vfio-pci' && on
                ? undefined
                : code.startsWith('0604')
                  ? 'not-switchable'
                  : noOverride
                    ? 'no-override'
                    : responds === false
                      ? 'no-answer'
                      : target === 'vfio-pci' && group === null
                        ? 'no-iommu'
                        : undefined;
            const what = `${target} ${slot}: ${result.error?.message ?? 'planned'}`;
            // A companion in its group may stand in the way: the reason is then that one's.
            const companions = listed.devices.filter((one) => one.group !== null && one.group === group);
            const dead = companions.some((one) => one.responds === false);
            // What it exists through (VMD) is in its group, and never comes along.
            const isCarried =
              ['010802'].includes(code) && slot.length > '0000:00:00.0'.length && group !== null;
            if (expected === undefined && isCarried && target === 'vfio-pci')
              assert.equal(result.error?.code, 'group-not-viable', what);
            else if (expected === undefined && dead) assert.equal(result.error?.code, 'no-answer', what);
            else assert.equal(result.error?.code, expected, what);
            assert.equal(exitCode, result.error === undefined ? 0 : 3, what);
            if (result.error === undefined && !on) assert.ok(result.steps.length > 0, what);
          }
        assert.deepEqual(host.effects(), []);
      });
    });
});
