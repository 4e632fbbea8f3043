import assert from 'node:assert/strict';
import {createLog, isJournal} from '../../src/host/log.js';

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

  it('prints a text as it is, also with percent signs and an empty line', async () => {
    const {written, log} = lines(true);
    log.write('info', '100 %s %% "\\\n\nend');
    await log.flush();
    assert.equal(written.join(''), '<6>100 %s %% "\\\n<6>\n<6>end\n');
  });

  it('is plain text for people, without what they did not ask for', async () => {
    const {written, log} = lines(false, 'info');
    log.write('debug', 'step');
    log.write('info', 'done {"a":1}');
    await log.flush();
    assert.equal(written.join(''), 'done {"a":1}\n');
  });

  it('knows the journal by the file that systemd names', () => {
    const unit = {JOURNAL_STREAM: '8:1'};
    assert.equal(isJournal(unit, '8:1'), true);
    assert.equal(isJournal(unit, '8:12'), false);
    assert.equal(isJournal(unit, undefined), false);
    assert.equal(isJournal({}, undefined), false);
  });
});
