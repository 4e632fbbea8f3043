import assert from 'node:assert/strict';
import {defaultLayout} from '../../src/config/layout.js';
import {readSettings, withSetting} from '../../src/config/pearasys-conf.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';

describe('pearasys.conf', () => {
  const path = '/etc/pearasys/pearasys.conf';
  let host: SimulatedHost;
  beforeEach(() => {
    host = SimulatedHost.standard();
  });
  afterEach(() => host.dispose());

  const read = (text: string) => {
    host.machine.tree.file(path, text, 0o644);
    return readSettings(host, defaultLayout);
  };

  it('may be missing: then the defaults apply', () => {
    assert.deepEqual(readSettings(host, defaultLayout), {
      settings: {autoRecord: true, initramfs: true},
      problems: [],
    });
  });

  it('sets whether devices that appear are recorded, with systemd’s spellings of a boolean', () => {
    for (const [word, expected] of [
      ['no', false],
      ['Off', false],
      ['0', false],
      ['yes', true],
      ['true', true],
      ['on', true],
    ] as const)
      assert.deepEqual(read(`# a comment\n; another\n\n AutoRecord = ${word} \n`), {
        settings: {autoRecord: expected, initramfs: true},
        problems: [],
      });
  });

  it('sets whether claims take effect in the initramfs', () => {
    assert.equal(read('Initramfs=no\n').settings.initramfs, false);
    assert.equal(read('Initramfs=no\nInitramfs=yes\n').settings.initramfs, true);
  });

  it('a setting is changed in its last line, or added', () => {
    const changed = (text: string) => withSetting(text, 'Initramfs', false);
    assert.equal(changed(''), 'Initramfs=no\n');
    assert.equal(changed('# a\nAutoRecord=no\n'), '# a\nAutoRecord=no\nInitramfs=no\n');
    assert.equal(changed('# Initramfs=yes\nAutoRecord=no'), '# Initramfs=yes\nAutoRecord=no\nInitramfs=no\n');
    assert.equal(
      changed('Initramfs = no\n Initramfs = yes\nAutoRecord=no\n'),
      'Initramfs = no\nInitramfs=no\nAutoRecord=no\n',
    );
  });

  it('an invalid line is reported, and changes nothing', () => {
    const {settings, problems} = read('AutoRecord=no\nAutoRecord=perhaps\nOther=1\nnonsense\n');
    assert.equal(settings.autoRecord, false);
    assert.deepEqual(
      problems.map((problem) => /line (\d)/.exec(problem)?.[1]),
      ['2', '3', '4'],
    );
  });

  it('is ignored if it is writable by others', () => {
    host.machine.tree.file(path, 'AutoRecord=no\n', 0o666);
    const {settings, problems} = readSettings(host, defaultLayout);
    assert.equal(settings.autoRecord, true);
    assert.match(problems[0] ?? '', /writable by others/);
  });
});
