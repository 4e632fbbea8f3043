import assert from 'node:assert/strict';
import {PearasysError} from '../../src/host/errors.js';
import {carryOut, type CarryOutOptions} from '../../src/engine/carry-out.js';
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

  it('locks, plans under the locks in one order for everybody, applies and lets go', async () => {
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
    // First without: what is so already needs no lock.
    assert.deepEqual(seen, [[], ['a', 'b']]);
    assert.deepEqual(held(), []);
    assert.deepEqual(notes, ['a note']);
    assert.equal(outcome.changed, true);
    assert.deepEqual(outcome.lines, ["cat > /etc/x <<'EOF'\nx\nEOF"]);
  });

  it('lets go after a refusal, a failure and a fault', async () => {
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

  it('without root says what would be refused anyway, else that root is missing', async () => {
    host.userId = 1000;
    await assert.rejects(carryOut(host, ['a'], refusal, options), {code: 'in-use'});
    await assert.rejects(carryOut(host, ['a'], write, options), (error) => {
      assert.ok(error instanceof PearasysError);
      assert.deepEqual([error.code, error.exitCode], ['not-root', 1]);
      assert.deepEqual(error.details, ['nothing was changed']);
      return true;
    });
  });

  it('gives the locks back that it had when another one is not to be had', async () => {
    host.lockPatience = 10;
    const other = await host.lock('b', 1000);
    await assert.rejects(carryOut(host, ['b', 'a'], write, options), {code: 'busy', exitCode: 3});
    assert.deepEqual(held(), ['b']);
    await other.release();
    assert.deepEqual(host.effects(), []);
  });

  describe('after a wait that was in vain', () => {
    it('what the other run has done already is done', async () => {
      host.lockPatience = 10;
      const other = await host.lock('a', 1000);
      let looks = 0;
      const outcome = await carryOut(host, ['a'], () => (++looks === 1 ? write() : plan([])), options);
      assert.equal(outcome.changed, false);
      assert.equal(looks, 2);
      await other.release();
    });

    it('what would be refused now is still said to be busy', async () => {
      host.lockPatience = 10;
      const other = await host.lock('a', 1000);
      let looks = 0;
      await assert.rejects(
        carryOut(host, ['a'], () => (++looks === 1 ? write() : refusal()), options),
        {code: 'busy'},
      );
      await other.release();
    });

    it('no other lock is kept', async () => {
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
        {code: 'not-switchable', exitCode: 3},
      );
    assert.deepEqual(host.effects(), []);
    assert.equal((await carryOut(host, ['a'], write, options)).changed, true);
  });

  it('two that want the same in other orders do not wait for each other', async () => {
    const other = new SimulatedHost(host.machine);
    await Promise.all([
      carryOut(host, ['a', 'b', 'c'], write, options),
      carryOut(other, ['c', 'b', 'a'], write, options),
    ]);
    assert.deepEqual(held(), []);
  });

  describe('what is to be locked changes during the wait', () => {
    it('locks what is to be locked then, and plans under these locks', async () => {
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

    it('does nothing while another run holds what is to be locked then', async () => {
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

    it('refuses where it changes each time', async () => {
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

  it('nothing to do is no change', async () => {
    assert.equal((await carryOut(host, ['a'], () => plan([]), options)).changed, false);
  });
});
