/** Text that others chose, in the output for people and programs: processes, units, interfaces and guests. */
import assert from 'node:assert/strict';
import type {ShowResult} from '../../src/entry/cli/commands/show.js';
import type {GuestListResult} from '../../src/entry/cli/commands/guest/list.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {functionOf} from '../simulated-host/standard-machine.js';
import {run, typed, type Run} from './runs.js';

/** ESC, a CSI of one byte (C1), newline, a right-to-left override, and a harmless character. */
const foreign = 'a\x1b[2J\x9b31m\n\u202eé';
const escaped = 'a\\x1b[2J\\u009b31m\\x0a\\u202eé';

/** What must not reach a terminal or a journal: control characters except the ends of our lines, and tabs. */
const harmful = /(?![\n\t])[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u;

describe('text that others chose', () => {
  const hosts: SimulatedHost[] = [];
  afterEach(() => {
    for (const host of hosts.splice(0)) host.dispose();
  });

  function made(): SimulatedHost {
    const host = SimulatedHost.standard((machine) => {
      functionOf(machine, '0000:05:00.0').net = [
        {name: foreign, address: '52:54:00:00:00:02', up: true, addresses: ['192.0.2.77/24']},
      ];
      machine.processes.push({
        pid: 4711,
        comm: foreign,
        cgroup: `/system.slice/${foreign.replace('\n', '')}.service`,
        parent: 1,
        holds: ['/dev/dri/card0'],
      });
      machine.mounts.push({source: '/dev/nvme1n1', target: `/mnt/\t${foreign}`, type: 'fuse'});
      machine.files['/etc/pearasys/guests/\u009bwin\u202e11.conf'] = '0000:02:00.0\n';
      machine.files['/etc/pearasys/guests/win\u202e11.conf'] = '0000:02:00.0\n';
      machine.files[`/etc/libvirt/qemu/${foreign}.xml`] = '<domain/>';
      machine.files[`/etc/pearasys/pci/${foreign}`] = 'x\n';
    });
    hosts.push(host);
    return host;
  }

  function harmless({stdout, stderr}: Run, ...expected: readonly string[]): void {
    for (const text of [stdout, stderr]) {
      assert.doesNotMatch(text, harmful);
      // The text must not start a line.
      assert.doesNotMatch(text, /^(?:\\u202e)?é/m);
    }
    for (const one of expected) assert.ok((stdout + stderr).includes(one), stdout + stderr);
  }

  const name = (slot: string) => (slot.startsWith('05') ? 'an interface' : 'a process and its unit');
  const unit = escaped.replace('\\x0a', '');

  for (const slot of ['05:00.0', '01:00.0'])
    for (const line of [
      `show ${slot}`,
      'list',
      `list -v`,
      `bind vfio-pci ${slot} --group`,
      `bind vfio-pci ${slot} --group --dry-run`,
      `bind none ${slot} --force -v`,
      `unbind ${slot} -v`,
    ])
      it(`${name(slot)} is printed without effect: ${line}`, async () => {
        const result = await typed(made(), line);
        // A list may be too narrow to name who uses a device.
        const named = /^(?:show|unbind|bind vfio-pci \S+ --group$)/.test(line);
        harmless(result, ...(named ? [escaped] : []));
        if (named && slot === '01:00.0') harmless(result, `${unit}.service`);
      });

  it('a refusal stays a refusal, and names the process using the device', async () => {
    const result = await typed(made(), 'unbind 01:00.0 --siblings');
    assert.equal(result.exitCode, 3);
    harmless(result, `process 4711 (${escaped})`);
  });

  for (const line of ['show 01:00.0 --json', 'list --json'])
    it(`JSON keeps each character: ${line}`, async () => {
      const {exitCode, stdout, stderr} = await typed(made(), line);
      assert.equal(exitCode, 0, stderr);
      assert.doesNotMatch(stdout, harmful);
      const {devices} = JSON.parse(stdout) as ShowResult;
      const holders = devices.flatMap((device) => device.holders);
      const process = holders.find((holder) => 'pid' in holder && holder.pid === 4711);
      assert.ok(process !== undefined && 'command' in process, stdout);
      assert.equal(process.command, foreign);
      assert.equal(process.unit, `${foreign.replace('\n', '')}.service`);
    });

  it('JSON keeps each character of an interface', async () => {
    const {stdout} = await typed(made(), 'show 05:00.0 --json');
    assert.ok(JSON.stringify(JSON.parse(stdout)).includes(JSON.stringify(foreign).slice(1, -1)), stdout);
    assert.doesNotMatch(stdout, harmful);
  });

  it('guests, their domains and files', async () => {
    const host = made();
    harmless(await typed(host, 'guest list'), 'win\\u202e11');
    harmless(await run(host, ['guest', 'show', 'win\u202e11']), 'win\\u202e11');
    harmless(await run(host, ['guest', 'show', foreign]), escaped);
    harmless(await run(host, ['guest', 'setup', 'other', '--device', '02:00.0', '-v']));
    const {stdout} = await typed(host, 'guest list --json');
    const {guests} = JSON.parse(stdout) as GuestListResult;
    assert.ok(guests.some(({guest}) => guest === 'win\u202e11'));
  });

  it('a mount point is one word of one line', async () => {
    const {stdout} = await typed(made(), 'list');
    const lines = stdout.trimEnd().split('\n');
    assert.deepEqual([...new Set(lines.map((line) => line.split('\t').length))], [12]);
    assert.ok(stdout.includes(`mount:/mnt/\\x09${escaped}`), stdout);
    harmless(await typed(made(), 'show 04:00.0'), `/mnt/\\x09${escaped}`);
    harmless(await typed(made(), 'bind none 04:00.0'), `/mnt/\\x09${escaped}`);
    assert.ok(
      (await typed(made(), 'show 04:00.0 --json')).stdout.includes(
        JSON.stringify(`/mnt/\t${foreign}`).slice(1, 18),
      ),
    );
  });

  it('a file’s name among the records', async () => {
    const host = made();
    for (const line of ['service list', 'list']) harmless(await typed(host, line), escaped);
    const {stdout} = await typed(host, 'list --json');
    assert.ok(
      JSON.stringify(JSON.parse(stdout)).includes(
        JSON.stringify(`/etc/pearasys/pci/${foreign}`).slice(1, -1),
      ),
    );
  });
});
