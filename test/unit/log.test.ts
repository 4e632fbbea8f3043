import assert from 'node:assert/strict';
import {createLog, isInUnit} from '../../src/host/log.js';

describe('the log', () => {
  function lines(journal: boolean, least: 'debug' | 'info' = 'debug') {
    const written: string[] = [];
    return {written, log: createLog({journal, least, output: (text) => written.push(text)})};
  }

  it("carries the journal's priorities, on each line", async () => {
    const {written, log} = lines(true);
    log.write('error', 'failed\nand why');
    log.write('warn', 'careful');
    log.write('info', 'done');
    log.write('debug', 'step');
    await log.flush();
    assert.equal(written.join(''), '<3>failed\n<3>and why\n<4>careful\n<6>done\n<7>step\n');
  });

  it('is plain text for people, without what they did not ask for', async () => {
    const {written, log} = lines(false, 'info');
    log.write('debug', 'step');
    log.write('info', 'done {"a":1}');
    await log.flush();
    assert.equal(written.join(''), 'done {"a":1}\n');
  });

  it('knows a unit by what systemd sets, unless at a terminal', () => {
    const unit = {INVOCATION_ID: 'a', JOURNAL_STREAM: '8:1'};
    assert.equal(isInUnit(unit, false), true);
    assert.equal(isInUnit(unit, true), false);
    assert.equal(isInUnit({JOURNAL_STREAM: '8:1'}, false), false);
    assert.equal(isInUnit({}, false), false);
  });
});
