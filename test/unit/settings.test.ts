import assert from 'node:assert/strict';
import fs from 'node:fs';
import {defaultLayout} from '../../src/config/layout.js';
import {fileToChange, readSettings, withSetting} from '../../src/config/pearasys-conf.js';
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
      sources: {},
      main: undefined,
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
        sources: {autoRecord: path},
        main: path,
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

  describe('in several folders', () => {
    const put = (files: Record<string, string>, mode = 0o644) => {
      for (const [file, text] of Object.entries(files)) host.machine.tree.file(file, text, mode);
    };
    const folders = ['/etc/pearasys', '/run/pearasys', '/usr/local/lib/pearasys', '/usr/lib/pearasys'];
    const dropIn = (folder: string, name: string) => `${folder}/pearasys.conf.d/${name}`;
    const all = () => readSettings(host, defaultLayout);

    it('has one main file: the first of /etc, /run, /usr/local/lib and /usr/lib', () => {
      for (const folder of [...folders].reverse()) {
        // The setting of a later one does not apply, not even where the first one says nothing.
        put({
          [`${folder}/pearasys.conf`]: folder === '/usr/lib/pearasys' ? 'AutoRecord=no\nInitramfs=no\n' : '',
        });
        const isLast = folder === '/usr/lib/pearasys';
        assert.deepEqual(
          [all().main, all().settings],
          [`${folder}/pearasys.conf`, {autoRecord: !isLast, initramfs: !isLast}],
        );
      }
    });

    it('has drop-ins, sorted by name across the folders, after the main file', () => {
      put({
        [path]: 'AutoRecord=no\nInitramfs=no\n',
        [dropIn('/usr/lib/pearasys', '20-b.conf')]: 'AutoRecord=yes\n',
        [dropIn('/run/pearasys', '30-c.conf')]: 'AutoRecord=no\n',
        [dropIn('/etc/pearasys', '10-a.conf')]: 'AutoRecord=yes\nInitramfs=yes\n',
        [dropIn('/etc/pearasys', '90-not-a-setting')]: 'Initramfs=no\n',
        [dropIn('/etc/pearasys', '.90-hidden.conf')]: 'Initramfs=no\n',
      });
      assert.deepEqual(all().settings, {autoRecord: false, initramfs: true});
      assert.deepEqual(all().sources, {
        autoRecord: dropIn('/run/pearasys', '30-c.conf'),
        initramfs: dropIn('/etc/pearasys', '10-a.conf'),
      });
      assert.deepEqual(all().problems, []);
    });

    it('has one drop-in of each name: that of the first folder', () => {
      for (const folder of folders)
        put({[dropIn(folder, '50-x.conf')]: `Initramfs=${folder === '/run/pearasys' ? 'no' : 'yes'}\n`});
      assert.equal(all().sources.initramfs, dropIn('/etc/pearasys', '50-x.conf'));
      host.machine.tree.remove(dropIn('/etc/pearasys', '50-x.conf'));
      assert.equal(all().settings.initramfs, false);
    });

    it('are hidden by a link to /dev/null in an earlier folder', () => {
      put({
        '/usr/lib/pearasys/pearasys.conf': 'AutoRecord=no\n',
        [dropIn('/usr/lib/pearasys', '50-x.conf')]: 'Initramfs=no\n',
      });
      assert.deepEqual(all().settings, {autoRecord: false, initramfs: false});
      for (const hidden of [path, dropIn('/etc/pearasys', '50-x.conf')])
        host.machine.tree.textLink(hidden, '/dev/null');
      assert.deepEqual([all().settings, all().problems], [{autoRecord: true, initramfs: true}, []]);
    });

    for (const folder of folders)
      it(`count as missing in ${folder} if others can write to them, or to their folder`, () => {
        put({[dropIn(folder, '50-x.conf')]: 'Initramfs=no\n'});
        assert.equal(all().settings.initramfs, false);
        host.machine.tree.directory(`${folder}/pearasys.conf.d`);
        fs.chmodSync(host.machine.tree.onDisk(`${folder}/pearasys.conf.d`), 0o777);
        assert.match(all().problems.join(), /50-x\.conf is ignored: .* is writable by others/);
        assert.equal(all().settings.initramfs, true);
        fs.chmodSync(host.machine.tree.onDisk(`${folder}/pearasys.conf.d`), 0o755);
        put({[`${folder}/pearasys.conf`]: 'Initramfs=no\n', [dropIn(folder, '50-x.conf')]: ''}, 0o666);
        assert.equal(all().problems.length, 2);
        assert.deepEqual([all().settings.initramfs, all().main], [true, undefined]);
      });

    const changes: readonly [what: string, files: Record<string, string>, expected: string][] = [
      ['the main file in /etc', {}, path],
      ['the main file in /etc that says something else', {[path]: 'AutoRecord=no\n'}, path],
      [
        'a drop-in, if a main file there would hide that of the package',
        {'/usr/lib/pearasys/pearasys.conf': 'Initramfs=yes\n'},
        dropIn('/etc/pearasys', 'zz-pearasys.conf'),
      ],
      [
        'the drop-in in /etc that sets it',
        {[path]: 'Initramfs=no\n', [dropIn('/etc/pearasys', '10-a.conf')]: 'Initramfs=yes\n'},
        dropIn('/etc/pearasys', '10-a.conf'),
      ],
      [
        'a drop-in after the one of the package that sets it',
        {[path]: 'Initramfs=no\n', [dropIn('/usr/lib/pearasys', '90-a.conf')]: 'Initramfs=yes\n'},
        dropIn('/etc/pearasys', 'zz-pearasys.conf'),
      ],
    ];
    for (const [what, files, expected] of changes)
      it(`are changed in ${what}`, () => {
        put(files);
        const change = () => fileToChange(host, defaultLayout, all(), 'initramfs');
        assert.deepEqual(change(), {path: expected, obstacle: undefined});
        put({[expected]: withSetting(host.readText(expected) ?? '', 'Initramfs', false)});
        assert.equal(all().settings.initramfs, false);
        assert.deepEqual(change(), {path: expected, obstacle: undefined});
      });

    it('are not changed where that would have no effect', () => {
      put({[dropIn('/usr/lib/pearasys', 'zzz.conf')]: 'Initramfs=yes\n'});
      assert.match(
        fileToChange(host, defaultLayout, all(), 'initramfs').obstacle ?? '',
        /^\/usr\/lib\/.*zzz\.conf sets it, and is read after \/etc\/.*zz-pearasys\.conf$/,
      );
      host.machine.tree.remove(dropIn('/usr/lib/pearasys', 'zzz.conf'));
      put({[path]: ''}, 0o666);
      assert.match(
        fileToChange(host, defaultLayout, all(), 'initramfs').obstacle ?? '',
        /writable by others/,
      );
    });
  });
});
