import assert from 'node:assert/strict';
import {PearasysError} from '../../src/host/errors.js';
import {carryOut, type CarryOutOptions} from '../../src/engine/carry-out.js';
import {unfinishedPath} from '../../src/host/paths.js';
import {parseSlot} from '../../src/devices/pci/slot.js';
import {
  loadModule,
  plan,
  refuse,
  setOverride,
  udevadm,
  writeFile,
  type Planned,
} from '../../src/plan/step.js';
import {describeUnfinished} from '../../src/plan/unfinished.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';

describe('carryOut', () => {
  let host: SimulatedHost;
  beforeEach(() => {
    host = SimulatedHost.standard();
  });
  afterEach(() => host.dispose());

  const options: CarryOutOptions = {limit: 1000, dryRun: false};
  const write = () => plan([writeFile('/etc/x', 'x\n', undefined)], {notes: ['a note']});
  const refusal = () => refuse({code: 'in-use', exitCode: 3, message: 'in use'});
  const held = () => [...host.machine.locks.keys()];

  it('takes the locks in a fixed order, plans, applies and releases them', async () => {
    const seen: string[][] = [];
    const notes: string[] = [];
    const outcome = await carryOut(
      host,
      ['b', 'a', 'b'],
      () => {
        seen.push(held());
        return write();
      },
      {...options, onNote: (note) => notes.push(note)},
    );
    // The first plan is made without locks: if nothing is to do, no lock is needed.
    assert.deepEqual(seen, [[], ['a', 'b']]);
    assert.deepEqual(held(), []);
    assert.deepEqual(notes, ['a note']);
    assert.equal(outcome.changed, true);
    assert.deepEqual(outcome.lines, ["cat > /etc/x <<'EOF'\nx\nEOF"]);
  });

  it('releases the locks after a refusal, a failure and an internal error', async () => {
    await assert.rejects(carryOut(host, ['a'], refusal, options), {code: 'in-use', exitCode: 3});
    host.failFile('/etc/x', 'ENOSPC');
    await assert.rejects(carryOut(host, ['a'], write, options), {code: 'file-failed', exitCode: 1});
    const fault = (): Planned => {
      throw new TypeError('fault');
    };
    await assert.rejects(carryOut(host, ['a'], fault, options), TypeError);
    assert.deepEqual(held(), []);
  });

  it('a dry run takes no lock, needs no root and changes nothing', async () => {
    host.userId = 1000;
    const outcome = await carryOut(host, ['a'], write, {...options, dryRun: true});
    assert.equal(outcome.changed, false);
    assert.equal(outcome.lines.length, 1);
    assert.deepEqual(host.effects(), []);
    await assert.rejects(carryOut(host, ['a'], refusal, {...options, dryRun: true}), {code: 'in-use'});
  });

  it('without root reports a refusal first, otherwise that root is missing', async () => {
    host.userId = 1000;
    await assert.rejects(carryOut(host, ['a'], refusal, options), {code: 'in-use'});
    await assert.rejects(carryOut(host, ['a'], write, options), (error) => {
      assert.ok(error instanceof PearasysError);
      assert.deepEqual([error.code, error.exitCode], ['not-root', 1]);
      assert.deepEqual(error.details, ['nothing was changed']);
      return true;
    });
  });

  it('waits for a lock as long as for a write, unless another limit is given', async () => {
    const limits: number[] = [];
    const lock = host.lock.bind(host);
    host.lock = (name, limit, signal) => {
      limits.push(limit);
      return lock(name, limit, signal);
    };
    await carryOut(host, ['a'], write, options);
    await carryOut(host, ['a'], write, {...options, lockLimit: 5});
    assert.deepEqual(limits, [1000, 5]);
  });

  it('releases its locks if another one cannot be taken', async () => {
    host.lockPatience = 10;
    const other = await host.lock('b', 1000);
    await assert.rejects(carryOut(host, ['b', 'a'], write, options), {code: 'busy', exitCode: 3});
    assert.deepEqual(held(), ['b']);
    await other.release();
    assert.deepEqual(host.effects(), []);
  });

  describe('after a wait that timed out', () => {
    it('a change that the other run has made is accepted', async () => {
      host.lockPatience = 10;
      const other = await host.lock('a', 1000);
      let looks = 0;
      const outcome = await carryOut(host, ['a'], () => (++looks === 1 ? write() : plan([])), options);
      assert.equal(outcome.changed, false);
      assert.equal(looks, 2);
      await other.release();
    });

    it('what would be refused now is still reported as busy', async () => {
      host.lockPatience = 10;
      const other = await host.lock('a', 1000);
      let looks = 0;
      await assert.rejects(
        carryOut(host, ['a'], () => (++looks === 1 ? write() : refusal()), options),
        {code: 'busy'},
      );
      await other.release();
    });

    it('keeps no other lock', async () => {
      host.lockPatience = 10;
      const other = await host.lock('b', 1000);
      let looks = 0;
      await carryOut(host, ['a', 'b'], () => (++looks === 1 ? write() : plan([])), options);
      assert.deepEqual(held(), ['b']);
      await other.release();
    });
  });

  it('refuses for an image what only a running kernel can do', async () => {
    host.root = host.machine.folder;
    for (const step of [
      loadModule('vfio-pci'),
      setOverride(parseSlot('0000:02:00.0'), 'vfio-pci', undefined),
      udevadm(['trigger']),
    ])
      await assert.rejects(
        carryOut(host, ['a'], () => plan([...write().steps, step]), options),
        {code: 'not-switchable', exitCode: 3, details: ['nothing was changed']},
      );
    assert.deepEqual(host.effects(), []);
    assert.equal((await carryOut(host, ['a'], write, options)).changed, true);
  });

  it('two runs that need the same locks in different orders do not deadlock', async () => {
    const other = new SimulatedHost(host.machine);
    await Promise.all([
      carryOut(host, ['a', 'b', 'c'], write, options),
      carryOut(other, ['c', 'b', 'a'], write, options),
    ]);
    assert.deepEqual(held(), []);
  });

  describe('the locks needed change during the wait', () => {
    it('takes the new locks, and plans under them', async () => {
      const other = new SimulatedHost(host.machine);
      const first = await other.lock('a', 1000);
      let names = ['a', 'b'];
      const seen: string[][] = [];
      const run = carryOut(
        host,
        () => names,
        () => {
          seen.push(held());
          return write();
        },
        options,
      );
      await Promise.resolve();
      names = ['a', 'c'];
      await first.release();
      await run;
      assert.deepEqual(seen.at(-1), ['a', 'c']);
      assert.deepEqual(held(), []);
    });

    it('does nothing while another run holds the new locks', async () => {
      const other = new SimulatedHost(host.machine);
      const [first] = [await other.lock('a', 1000), await other.lock('c', 1000)];
      host.lockPatience = 50;
      let names = ['a', 'b'];
      const run = carryOut(host, () => names, write, options);
      await Promise.resolve();
      names = ['a', 'c'];
      await first.release();
      await assert.rejects(run, {code: 'busy'});
      assert.deepEqual(held(), ['c']);
      assert.deepEqual(host.effects(), []);
    });

    it('refuses if they change each time', async () => {
      let count = 0;
      await assert.rejects(
        carryOut(host, () => [`name${count++}`], write, options),
        (error) => {
          assert.ok(error instanceof PearasysError);
          assert.deepEqual([error.code, error.exitCode], ['busy', 3]);
          assert.deepEqual(error.details, ['nothing was changed']);
          return true;
        },
      );
      assert.deepEqual(held(), []);
      assert.deepEqual(host.effects(), []);
    });
  });

  describe('and a run that may be killed', () => {
    const note = (name: string) => host.readText(unfinishedPath(name));
    const leave = (name: string, reloads = true) =>
      host.noteUnfinished(
        name,
        JSON.stringify({folders: [{folder: '/etc/left', prune: 1}], made: [], reloads, triggers: []}),
      );
    const reload = 'systemctl daemon-reload';

    it('notes what it has begun under the name of each lock while it runs', async () => {
      const seen: unknown[] = [];
      host.beforeEffect(() => {
        seen.push(...['a', 'b', 'c'].map((name) => note(name)));
      });
      await carryOut(host, ['a', 'b'], write, options);
      const noted = JSON.stringify(describeUnfinished(write()));
      assert.deepEqual(seen, [noted, noted, undefined]);
      assert.deepEqual([note('a'), note('b')], [undefined, undefined]);
    });

    it('leaves no note after a failure, because everything was undone', async () => {
      host.failFile('/etc/x', 'ENOSPC');
      await assert.rejects(carryOut(host, ['a'], write, options), {code: 'file-failed'});
      assert.equal(note('a'), undefined);
    });

    it('leaves no note if the machine itself shows what was done', async () => {
      let seen: string | undefined = 'not looked';
      host.beforeEffect(() => {
        seen = note('a');
      });
      await carryOut(host, ['a'], () => plan([loadModule('vfio-pci')]), options);
      assert.equal(seen, undefined);
    });

    it('finishes what a killed run has begun if it holds the same lock', async () => {
      leave('a');
      await carryOut(host, ['b'], write, options);
      assert.ok(!host.effects().includes(reload));
      assert.notEqual(note('a'), undefined);
      await carryOut(host, ['b', 'a'], write, options);
      assert.equal(host.effects().filter((line) => line === reload).length, 1);
      assert.equal(note('a'), undefined);
    });

    it('finishes it even if there is nothing else to do', async () => {
      leave('b');
      const outcome = await carryOut(host, ['a', 'b'], () => plan([]), options);
      assert.deepEqual(host.effects(), [reload]);
      assert.equal(outcome.changed, false);
      assert.equal(note('b'), undefined);
    });

    it('keeps the note if it refuses', async () => {
      leave('a');
      await assert.rejects(carryOut(host, ['a'], refusal, options), {code: 'in-use'});
      assert.notEqual(note('a'), undefined);
    });

    it('does not require root only to finish what another run has begun', async () => {
      leave('a');
      host.userId = 1000;
      const outcome = await carryOut(host, ['a'], () => plan([]), options);
      assert.equal(outcome.changed, false);
      assert.deepEqual(host.effects(), []);
      await assert.rejects(carryOut(host, ['a'], write, options), {code: 'not-root'});
    });

    it('finishes it without root if any user may do it', async () => {
      leave('a', false);
      host.userId = 1000;
      await carryOut(host, ['a'], () => plan([]), {...options, anyUser: true});
      assert.equal(note('a'), undefined);
    });
  });

  it('needs no root if any user may do it', async () => {
    host.userId = 1000;
    const home = () => plan([writeFile('/home/u/x', 'x', undefined)]);
    assert.equal((await carryOut(host, ['a'], home, {...options, anyUser: true})).changed, true);
    await assert.rejects(carryOut(host, ['a'], home, {...options, anyUser: false}), {code: 'not-root'});
  });

  it('needs no root in an image', async () => {
    host.root = host.machine.folder;
    host.userId = 1000;
    const home = () => plan([writeFile('/home/u/x', 'x', undefined)]);
    assert.equal((await carryOut(host, ['a'], home, options)).changed, true);
  });

  it('does not take an internal error for a lock that is held', async () => {
    host.lock = () => Promise.reject(new TypeError('a fault'));
    let looks = 0;
    await assert.rejects(
      carryOut(host, ['a'], () => (++looks === 1 ? write() : plan([])), options),
      TypeError,
    );
  });

  it('reports an interrupted wait as interrupted', async () => {
    const other = await host.lock('a', 1000);
    const interrupt = new AbortController();
    let looks = 0;
    const run = carryOut(host, ['a'], () => (++looks === 1 ? write() : plan([])), {
      ...options,
      signal: interrupt.signal,
    });
    interrupt.abort();
    await assert.rejects(run, {code: 'interrupted'});
    await other.release();
  });

  it('reports no change if there is nothing left to do under the locks', async () => {
    let looks = 0;
    const outcome = await carryOut(host, ['a'], () => (++looks === 1 ? write() : plan([])), options);
    assert.deepEqual([outcome.changed, outcome.lines], [false, []]);
  });

  it('reports no change if there is nothing to do', async () => {
    assert.equal((await carryOut(host, ['a'], () => plan([]), options)).changed, false);
  });
});
