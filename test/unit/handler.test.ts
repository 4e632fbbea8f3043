import assert from 'node:assert/strict';
import sinon from 'sinon';
import {ExitCode, PearasysError, StuckError} from '../../src/host/errors.js';
import {
  handlerOptions,
  report,
  takeArguments,
  type HandlerContext,
} from '../../src/entry/handlers/handler.js';

describe('a handler', () => {
  const log = sinon.spy();
  const context = {log} as unknown as HandlerContext;
  const lines = () => log.args.map(([priority, line]) => `<${String(priority)}>${String(line)}`);
  afterEach(() => log.resetHistory());

  it('logs an error with details and hint, and ends with its exit code', () => {
    const error = new PearasysError({
      code: 'in-use',
      exitCode: ExitCode.refused,
      message: '0000:01:00.0 is in use',
      details: ['process 812 (Xorg)'],
      hint: 'systemctl stop gdm.service',
    });
    assert.equal(report(error, log), ExitCode.refused);
    assert.deepEqual(lines(), [
      '<3>0000:01:00.0 is in use',
      '<3>  process 812 (Xorg)',
      '<3>  try: systemctl stop gdm.service',
    ]);
  });

  it('ends with 5 for a write that did not return', () => {
    assert.equal(report(new StuckError('/sys/x', '1', 15_000, 12), log), ExitCode.stuck);
  });

  it('logs the stack of an internal error', () => {
    assert.equal(report(new TypeError('x is not a function'), log), ExitCode.failed);
    sinon.assert.calledOnceWithMatch(log, 3, /^internal error in pearasys: TypeError.*handler\.test/s);
  });

  it('logs its steps for debugging, and what it undoes as a warning', () => {
    const options = handlerOptions(context);
    options.onStep?.('modprobe vfio-pci', false);
    options.onStep?.('modprobe -r vfio-pci', true);
    options.onNote?.('a note');
    assert.deepEqual(lines(), ['<7>modprobe vfio-pci', '<4>undoing: modprobe -r vfio-pci', '<4>a note']);
  });

  it('accepts exactly the arguments that it names', () => {
    assert.deepEqual(takeArguments(['a', 'b'], ['SLOT', 'DRIVER']), ['a', 'b']);
    for (const args of [[], ['a'], ['a', 'b', 'c']])
      assert.throws(() => takeArguments(args, ['SLOT', 'DRIVER']), {code: 'usage', exitCode: ExitCode.usage});
  });
});
