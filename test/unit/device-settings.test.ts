import assert from 'node:assert/strict';
import {spawnSync} from 'node:child_process';
import fs from 'node:fs';
import {tmpdir} from 'node:os';
import {dirname, join} from 'node:path';
import {PearasysError} from '../../src/host/errors.js';
import {
  changeSettings,
  needsUnit,
  parseSettingChange,
  printSettings,
  settingKinds,
  sizeOf,
} from '../../src/state/records/device-settings.js';
import {parseRecord, printChecked, printRecord} from '../../src/state/records/record.js';
import {recordCases, recordsWithSettings, subject, subjectPath} from '../corpus/records.js';
import {putPrograms} from './services.js';

const withSettings = recordCases.find(({name}) => name === 'with settings')?.content ?? '';

describe('a setting of a device', () => {
  const typed: readonly [text: string, name: string, value: string | undefined][] = [
    ['reset_method=flr', 'reset_method', 'flr'],
    ['reset_method=flr, bus', 'reset_method', 'flr bus'],
    ['reset_method=default', 'reset_method', 'default'],
    ['reset_method=none', 'reset_method', 'none'],
    ['reset_method=', 'reset_method', undefined],
    ['d3cold_allowed=0', 'd3cold_allowed', '0'],
    ['power/control=auto', 'power/control', 'auto'],
    ['reset=pm', 'reset', 'pm'],
    ['variant=yes', 'variant', 'yes'],
    ['resource0_resize=8', 'resource0_resize', '8'],
    ['resource0_resize=1M', 'resource0_resize', '0'],
    ['resource1_resize=256M', 'resource1_resize', '8'],
    ['resource1_resize=16G', 'resource1_resize', '14'],
    ['resource1_resize=16GiB', 'resource1_resize', '14'],
    ['resource5_resize=8T', 'resource5_resize', '23'],
    ['resource5_resize=', 'resource5_resize', undefined],
  ];
  for (const [text, name, value] of typed)
    it(`typed as ${text} is ${value ?? 'removed'}`, () => {
      assert.deepEqual(parseSettingChange(text), {name, value});
    });

  const wrong: readonly [text: string, message: RegExp, hint: RegExp][] = [
    ['d3cold_allowed', /'d3cold_allowed' is not a setting: expected KEY=VALUE/, /^the settings are reset_/],
    ['d3cold_allowed=yes', /^d3cold_allowed=yes is invalid$/, /^use 0 or 1$/],
    ['power_control=auto', /^'power_control' is not a setting$/, /power\/control/],
    ['power/control=off', /^power\/control=off is invalid$/, /auto/],
    ['reset_method=../x', /^reset_method=\.\.\/x is invalid$/, /names of reset methods/],
    ['reset=flr bus', /^reset=flr bus is invalid$/, /the name of a reset method/],
    ['resource1_resize=3G', /^resource1_resize=3G is invalid$/, /16G/],
    ['resource1_resize=44', /^resource1_resize=44 is invalid$/, /16G/],
    ['resource6_resize=1', /^'resource6_resize' is not a setting$/, /resource5_resize/],
    ['vga=off', /no interface for it$/, /disable_vga=1/],
  ];
  for (const [text, message, hint] of wrong)
    it(`typed as ${text} is refused, with what is expected`, () => {
      assert.throws(
        () => parseSettingChange(text),
        (error: unknown) =>
          error instanceof PearasysError &&
          error.exitCode === 2 &&
          message.test(error.message) &&
          hint.test(error.hint ?? ''),
      );
    });

  it('has a size for each index of a BAR', () => {
    assert.deepEqual([0, 8, 9, 10, 14, 20, 39, 40, 43].map(sizeOf), [
      ...['1M', '256M', '512M', '1G', '16G', '1T', '512P', '1E', '8E'],
    ]);
  });
});

describe('the settings of a record', () => {
  let folder: string;
  beforeEach(() => {
    folder = fs.mkdtempSync(join(tmpdir(), 'pearasys-settings-'));
    putPrograms(folder, '/nonexistent');
  });
  afterEach(() => fs.rmSync(folder, {recursive: true, force: true}));

  /** What the shell takes from the record for the udev rule; undefined if it ignores the record. */
  function readByShell(content: string): string | undefined {
    const path = join(folder, subjectPath);
    fs.mkdirSync(dirname(path), {recursive: true});
    fs.writeFileSync(path, content, {mode: 0o644});
    const {slot, vendor, product} = subject;
    const size = Buffer.byteLength(content);
    const script = `. ${folder}/records.sh; read_record ${slot} ${vendor} ${product} -rw-r--r-- 1 0 0 ${size} && echo "$settings$by_unit"`;
    const {status, stdout} = spawnSync('/bin/sh', ['-c', script], {
      env: {PATH: '/nowhere'},
      encoding: 'utf8',
    });
    return status === 0 ? stdout : undefined;
  }

  for (const content of recordsWithSettings)
    it(`${content.trim().split('\n').at(-1) ?? ''} are accepted by TypeScript and by the shell, and kept`, () => {
      const {settings = []} = parseRecord(subjectPath, content);
      assert.equal(settings.length, 1);
      assert.ok(
        printRecord(parseRecord(subjectPath, content)).endsWith(content.slice(content.indexOf('\n'))),
      );
      const lines = printSettings(settings).join('\n');
      assert.equal(readByShell(content), `${lines}\n${needsUnit(settings) ? 'yes' : 'no'}\n`);
    });

  it('with an invalid value make it invalid, with the reason', () => {
    const content = `${withSettings}PEARASYS_SET_RESOURCE1_RESIZE=99\n`;
    assert.throws(
      () => parseRecord(subjectPath, content),
      (error: unknown) =>
        error instanceof PearasysError &&
        /^PEARASYS_SET_RESOURCE1_RESIZE=99 is invalid: expected a size/.test(error.details[0] ?? ''),
    );
    assert.equal(readByShell(content), undefined);
  });

  it('are changed one by one, in a fixed order', () => {
    const {settings = []} = parseRecord(subjectPath, withSettings);
    const changed = changeSettings(settings, [
      {name: 'power/control', value: undefined},
      {name: 'reset_method', value: 'bus'},
      {name: 'd3cold_allowed', value: '1'},
    ]);
    assert.deepEqual(
      changed.map(({name, value}) => `${name}=${value}`),
      ['reset_method=bus', 'd3cold_allowed=1', 'reset=none', 'variant=no'],
    );
  });

  it('are in the copy for the udev rule, which leaves the device to its unit for more than plain writes', () => {
    const {driver} = parseRecord(subjectPath, withSettings);
    const copy = (...settings: string[]) =>
      printChecked(
        {slot: 'any', driver, identity: {}, settings: changeSettings([], settings.map(parseSettingChange))},
        [],
      );
    assert.equal(copy(), 'PEARASYS_DRIVER=vfio-pci\n');
    assert.equal(
      copy('power/control=on', 'reset_method=none', 'reset=none', 'variant=no'),
      'PEARASYS_DRIVER=vfio-pci\nPEARASYS_SET_RESET_METHOD=none\nPEARASYS_SET_POWER_CONTROL=on\n' +
        'PEARASYS_SET_RESET=none\nPEARASYS_SET_VARIANT=no\n',
    );
    for (const text of ['reset=flr', 'variant=yes', 'resource1_resize=14'])
      assert.match(copy(text), /^PEARASYS_DRIVER=vfio-pci\nPEARASYS_SET_.*\nPEARASYS_BY_UNIT=yes\n$/);
    assert.ok(!needsUnit(changeSettings([], ['d3cold_allowed=0', 'variant=no'].map(parseSettingChange))));
  });

  it('have a line of help each', () => {
    for (const {name, means, expected} of settingKinds) {
      assert.match(means, /^[A-Z`].*\.$/, name);
      assert.ok(expected.length > 0, name);
    }
  });
});
