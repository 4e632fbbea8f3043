import assert from 'node:assert/strict';
import {spawnSync} from 'node:child_process';
import {chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {render} from '../../src/systemd/templates.js';

/** The hook in a folder of its own, with programs that only say how they were called. */
describe('the hook of libvirt', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'pearasys-hook-'));
    mkdirSync(join(folder, 'guests'));
    mkdirSync(join(folder, 'bin'));
    for (const program of ['systemctl', 'journalctl', 'systemd-escape'])
      put(
        `bin/${program}`,
        `#!/bin/sh
echo "${program} $*" >>"$FOLDER/calls"
case "${program} $*" in
  'systemd-escape '*) echo 'pearasys-guest@escaped.service' ;;
  *InvocationID*) echo 0123abcd ;;
  'journalctl '*_SYSTEMD_INVOCATION_ID=0123abcd) echo 'the reason' ;;
  *"$FAILS"*) exit 1 ;;
esac
`,
      );
    put('hook', render('qemu-hook', {config: folder}).replaceAll('/run/pearasys', `${folder}/run`));
    put('guests/win-11.conf', '0000:02:00.0\n');
  });
  afterEach(() => rmSync(folder, {recursive: true}));

  function put(name: string, text: string): void {
    writeFileSync(join(folder, name), text);
    chmodSync(join(folder, name), 0o755);
  }

  function call(args: readonly string[], fails = 'nothing fails') {
    const {status, stderr, stdout} = spawnSync(join(folder, 'hook'), args, {
      input: '<domain/>',
      encoding: 'utf8',
      env: {PATH: `${join(folder, 'bin')}:/usr/bin:/bin`, FOLDER: folder, FAILS: fails},
    });
    let calls: string[] = [];
    try {
      calls = readFileSync(join(folder, 'calls'), 'utf8').trimEnd().split('\n');
    } catch {
      // Nothing was called.
    }
    return {status, stderr, stdout, calls};
  }

  it('does nothing for guests that are not set up, and at other times', () => {
    for (const args of [
      ['other', 'prepare', 'begin', '-'],
      ['win-11', 'start', 'begin', '-'],
      ['win-11', 'started', 'begin', '-'],
      ['win-11', 'stopped', 'end', '-'],
      ['win-11', 'reconnect', 'begin', '-'],
      ['win-11', 'migrate', 'begin', '-'],
      ['win-11', 'prepare', 'end', '-'],
    ])
      assert.deepEqual(call(args), {status: 0, stderr: '', stdout: '', calls: []});
  });

  it("starts and stops the guest's unit", () => {
    assert.deepEqual(call(['win-11', 'prepare', 'begin', '-']), {
      status: 0,
      stderr: '',
      stdout: '',
      calls: ['systemctl --quiet reload-or-restart -- pearasys-guest@win-11.service'],
    });
    assert.deepEqual(call(['win-11', 'release', 'end', '-']).calls.slice(1), [
      'systemctl --quiet stop -- pearasys-guest@win-11.service',
    ]);
  });

  it('fails with the reason on standard error', () => {
    const {status, stderr, stdout} = call(['win-11', 'prepare', 'begin', '-'], 'reload-or-restart');
    assert.equal(status, 1);
    assert.equal(stdout, '');
    assert.equal(stderr, 'pearasys: guest win-11 is not started: could not take its devices\nthe reason\n');
  });

  it('asks the journal only for messages of this call', () => {
    const before = Math.floor(Date.now() / 1000);
    const {calls} = call(['win-11', 'prepare', 'begin', '-'], 'reload-or-restart');
    const since = Number(/--since=@(\d+) _SYSTEMD/.exec(calls.at(-1) ?? '')?.[1]);
    assert.ok(since >= before && since <= Date.now() / 1000, calls.join('\n'));
  });

  it('reports what the host did not get back at the end, which is not a failure for systemd', () => {
    mkdirSync(join(folder, 'run/guest'), {recursive: true});
    put('run/guest/win-11', '{}\n');
    const {status, stderr, calls} = call(['win-11', 'release', 'end', '-'], 'is-active');
    assert.equal(status, 1);
    assert.equal(
      stderr,
      'pearasys: guest win-11 has ended: the host did not get everything back\nthe reason\n',
    );
    assert.deepEqual(calls.slice(0, 3), [
      'systemctl --quiet is-active -- pearasys-guest@win-11.service',
      'systemctl --quiet start -- pearasys-guest@win-11.service',
      'systemctl --quiet stop -- pearasys-guest@win-11.service',
    ]);
  });

  it('accepts any name', () => {
    const name = `it's "a" $(touch never) \`id\` *`;
    put(`guests/${name}.conf`, '0000:02:00.0\n');
    assert.deepEqual(call([name, 'prepare', 'begin', '-']).calls, [
      `systemd-escape --template=pearasys-guest@.service -- ${name}`,
      'systemctl --quiet reload-or-restart -- pearasys-guest@escaped.service',
    ]);
  });
});
