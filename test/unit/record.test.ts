import assert from 'node:assert/strict';
import {PearasysError} from '../../src/host/errors.js';
import {defaultLayout} from '../../src/config/layout.js';
import {parseId} from '../../src/devices/pci/id.js';
import {parseSlot} from '../../src/devices/pci/slot.js';
import {
  isNamedFor,
  parseRecord,
  printRecord,
  readRecordOf,
  readRecords,
  recordPath,
  type RecordContent,
} from '../../src/state/records/record.js';
import {printClaimLine} from '../../src/state/records/claim-line.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {aDevice, aDriver} from './values.js';

const slot = parseSlot('02:00.0');
const id = parseId('10de:1b80');
const path = '/etc/pearasys/pci/0000:02:00.0-0x10de-0x1b80';
const record: RecordContent = {
  slot,
  id,
  driver: aDriver('vfio-pci'),
  together: [slot],
  identity: {},
  unknown: [],
};
const text = 'PEARASYS_SLOT=0000:02:00.0\nPEARASYS_ID=10de:1b80\nPEARASYS_DRIVER=vfio-pci\n';

describe('a record', () => {
  it('has a name that identifies the card, as the rule builds it from sysfs', () => {
    assert.equal(recordPath(defaultLayout, record), path);
    assert.equal(
      recordPath({...defaultLayout, config: '/opt/etc/pearasys'}, {slot: 'any', id}),
      '/opt/etc/pearasys/pci/any-0x10de-0x1b80',
    );
  });

  it('is printed as lines that udev imports', () => {
    assert.equal(
      printRecord(record),
      '# Written by pearasys: the card with id 10de:1b80 in slot 0000:02:00.0 gets this driver.\n' +
        '# udev (60-pearasys.rules) applies it at each add event. Another card in the slot is not touched.\n' +
        '# To undo: pearasys -s 0000:02:00.0 service uninstall\n' +
        'PEARASYS_SLOT=0000:02:00.0\n' +
        'PEARASYS_ID=10de:1b80\n' +
        'PEARASYS_DRIVER=vfio-pci\n',
    );
  });

  it('names the slots installed together, if there are others', () => {
    const together = [slot, parseSlot('02:00.1')];
    const printed = printRecord({...record, together});
    assert.match(printed, /^PEARASYS_TOGETHER=0000:02:00\.0,0000:02:00\.1\n$/m);
    assert.deepEqual(parseRecord(path, printed).together, together);
  });

  it('has the identity of the card, as far as it is known', () => {
    const identity = {
      subsystem: '1043:8591',
      path: '0000:00/1c.0/00.0',
      serial: 'pcie:00-11-22-33-44-55-66-77',
    };
    const printed = printRecord({...record, identity});
    assert.match(
      printed,
      /\nPEARASYS_SUBSYSTEM=1043:8591\nPEARASYS_PATH=0000:00\/1c\.0\/00\.0\nPEARASYS_SERIAL=pcie:00-11-22-33-44-55-66-77\n$/,
    );
    assert.deepEqual(parseRecord(path, printed), {...record, identity});
    assert.deepEqual(parseRecord(path, `${text}PEARASYS_PATH=0000:00/02.0\n`).identity, {
      path: '0000:00/02.0',
    });
  });

  it('is printed as one line for the shell', () => {
    assert.equal(printClaimLine(record), '0000:02:00.0 0x10de-0x1b80 vfio-pci - - -');
    const identity = {subsystem: '1043:8591', path: '0000:00/02.0', serial: 'mac:52:54:00:12:34:56'};
    assert.equal(
      printClaimLine({...record, identity}),
      '0000:02:00.0 0x10de-0x1b80 vfio-pci 0x1043-0x8591 0000:00/02.0 mac:52:54:00:12:34:56',
    );
  });

  it('keeps keys written by a newer version', () => {
    const unknown = [
      {key: 'PEARASYS_COLOR', value: 'red'},
      {key: 'PEARASYS_A2', value: 'a "b"=c'},
    ];
    const printed = printRecord({...record, unknown});
    assert.match(printed, /\nPEARASYS_COLOR=red\nPEARASYS_A2=a "b"=c\n$/);
    assert.deepEqual(parseRecord(path, printed).unknown, unknown);
  });

  it('by id alone is printed as such', () => {
    const any: RecordContent = {
      slot: 'any',
      id,
      driver: aDriver('none'),
      together: [],
      identity: {},
      unknown: [],
    };
    assert.equal(
      printRecord(any),
      '# Written by pearasys: each card with id 10de:1b80 that appears, in any slot, gets this driver.\n' +
        '# udev (60-pearasys.rules) applies it at each add event. Another card in the slot is not touched.\n' +
        '# To undo: pearasys --any-slot -d 10de:1b80 service uninstall\n' +
        'PEARASYS_SLOT=any\nPEARASYS_ID=10de:1b80\nPEARASYS_DRIVER=none\n',
    );
    assert.deepEqual(parseRecord('any', printRecord(any)), any);
  });

  it('may have 100 lines', () => {
    assert.deepEqual(parseRecord(path, `${text}${'#\n'.repeat(96)}`), record);
  });

  it('is read as it was printed', () => {
    assert.deepEqual(parseRecord(path, printRecord(record)), record);
  });

  const bad: readonly [what: string, text: string, reason: RegExp][] = [
    [
      'an invalid line',
      `${text}vfio-pci\n`,
      /^line 4 is 'vfio-pci', expected KEY=VALUE with one of the keys PEARASYS_SLOT, /,
    ],
    ['a key of another program', `${text}LD_PRELOAD=/tmp/x\n`, /^line 4 is 'LD_PRELOAD=\/tmp\/x'/],
    [
      'a blank before a key',
      text.replace('PEARASYS_DRIVER', ' PEARASYS_DRIVER'),
      /^line 3 is ' PEARASYS_DRIVER=/,
    ],
    ['too many lines', `${text}${'#\n'.repeat(97)}`, /^it has more than 100 lines$/],
    ['a key twice', `${text}PEARASYS_DRIVER=none\n`, /^line 4 repeats PEARASYS_DRIVER$/],
    ['no driver', text.replace(/PEARASYS_DRIVER.*\n/, ''), /^the line PEARASYS_DRIVER= is missing$/],
    ['nothing', '', /^the line PEARASYS_SLOT= is missing$/],
    [
      'an invalid slot',
      text.replace('02:00.0', '02:20.0'),
      /^PEARASYS_SLOT=0000:02:20\.0 is not a slot: expected a slot .* as in 0000:04:00\.0/,
    ],
    [
      'an invalid id',
      text.replace('1b80', '1b8'),
      /^PEARASYS_ID=10de:1b8 is not an id: expected vendor:device in small letters$/,
    ],
    [
      'a driver that leads elsewhere',
      text.replace('vfio-pci', '../../x'),
      /^PEARASYS_DRIVER=\.\.\/\.\.\/x is not a driver's name$/,
    ],
    ['a quoted value', text.replace('vfio-pci', '"vfio-pci"'), /is not a driver's name$/],
    ['DOS line endings', text.replaceAll('\n', '\r\n'), /^line 1 is /],
    [
      'an invalid subsystem',
      `${text}PEARASYS_SUBSYSTEM=1043\n`,
      /^PEARASYS_SUBSYSTEM=1043 is invalid: expected vendor:device in small letters$/,
    ],
    [
      'an invalid path',
      `${text}PEARASYS_PATH=02:00.0\n`,
      /^PEARASYS_PATH=02:00\.0 is invalid: expected a root bus .* as in 0000:00\/1c\.0\/00\.0$/,
    ],
    [
      'an invalid serial number',
      `${text}PEARASYS_SERIAL=12\n`,
      /^PEARASYS_SERIAL=12 is invalid: expected pcie:, nvme: or mac: and /,
    ],
    [
      'an invalid slot among those installed together',
      `${text}PEARASYS_TOGETHER=0000:02:00.0,x\n`,
      /names 'x', which is not a slot: expected/,
    ],
    [
      'slots installed together that do not include its own',
      `${text}PEARASYS_TOGETHER=0000:02:00.1\n`,
      /^PEARASYS_TOGETHER does not include 0000:02:00\.0 itself$/,
    ],
  ];
  for (const [what, content, reason] of bad)
    it(`with ${what} is refused, with the reason`, () => {
      assert.throws(
        () => parseRecord(path, content),
        (error) => {
          assert.ok(error instanceof PearasysError);
          assert.equal(error.code, 'bad-record');
          assert.equal(error.message, `the record ${path} is ignored`);
          assert.match(error.details[0] ?? '', reason);
          assert.equal(error.hint, 'rewrite it with `pearasys service install`, or remove it');
          return true;
        },
      );
    });

  it('is for the slot at the start of its name', () => {
    assert.equal(isNamedFor(slot, path), true);
    assert.equal(isNamedFor(parseSlot('02:00.1'), path), false);
    assert.equal(isNamedFor(slot, '/etc/pearasys/pci/any-0x10de-0x1b80'), false);
  });
});

describe('readRecords', () => {
  let host: SimulatedHost;
  beforeEach(() => {
    host = SimulatedHost.standard();
  });
  afterEach(() => host.dispose());
  const put = (content: string, mode = 0o644, to = path) => host.machine.tree.file(to, content, mode);
  const device = aDevice('02:00.0');

  /** The record is a problem with this reason, to the reader of all records and to that of one. */
  function ignored(reason: RegExp): void {
    const {records, problems} = readRecords(host, defaultLayout);
    assert.deepEqual(records, []);
    assert.equal(problems[0]?.path, path);
    assert.match(problems[0].reason, reason);
    assert.deepEqual(readRecordOf(host, defaultLayout, device), problems[0]);
  }

  it('reads no record without a folder', () => {
    assert.deepEqual(readRecords(host, defaultLayout), {
      records: [],
      problems: [],
      folderProblem: undefined,
    });
    assert.equal(readRecordOf(host, defaultLayout, device), undefined);
  });

  it('reads valid records next to invalid ones, which are reported', () => {
    put(text);
    put('nonsense\n', 0o644, '/etc/pearasys/pci/README');
    const {records, problems} = readRecords(host, defaultLayout);
    assert.deepEqual(records, [{kind: 'record', path, source: 'record', ...record}]);
    assert.equal(problems.length, 1);
    assert.equal(problems[0]?.path, '/etc/pearasys/pci/README');
    assert.match(problems[0].reason, /^line 1 is 'nonsense'/);
    assert.deepEqual(readRecordOf(host, defaultLayout, device), {
      kind: 'record',
      path,
      source: 'record',
      ...record,
    });
  });

  it('ignores a truncated one, even if the rest is valid', () => {
    put(text.slice(0, -4));
    ignored(/^it is truncated: its last line has no newline$/);
  });

  it('ignores an empty one', () => {
    put('');
    ignored(/truncated|line \S+= is missing/);
  });

  it('ignores one whose name and content disagree', () => {
    put(text.replace('1b80', '1b81'));
    ignored(/^its content \(slot 0000:02:00\.0, id 10de:1b81\) does not match its name$/);
  });

  it('ignores one that is not root’s', () => {
    put(text);
    host.machine.owners.set(path, 1000);
    ignored(/is owned by user 1000, not by root: chown root \/etc\/pearasys\/pci\//);
  });

  for (const mode of [0o664, 0o646, 0o666])
    it(`ignores one that is writable by others (${mode.toString(8)})`, () => {
      put(text, mode);
      ignored(/is writable by others: chmod go-w \/etc\/pearasys\/pci\//);
    });

  it('ignores a link, regardless of its target', () => {
    put(text, 0o644, '/etc/elsewhere');
    host.machine.tree.textLink(path, '/etc/elsewhere');
    ignored(/^it is not a file$/);
  });

  it('ignores a folder', () => {
    host.machine.tree.directory(path);
    ignored(/^it is not a file$/);
  });

  it('ignores all records in a folder that is writable by others', () => {
    put(text);
    host.machine.owners.set('/etc/pearasys/pci', 1000);
    ignored(/^\/etc\/pearasys\/pci is owned by user 1000/);
    assert.equal(readRecords(host, defaultLayout).folderProblem?.path, '/etc/pearasys/pci');
  });

  it('accepts an image that belongs to the user who unpacked it', () => {
    put(text);
    host.machine.owners.set(path, 1000);
    host.userId = 1000;
    host.root = host.machine.folder;
    assert.equal(readRecords(host, defaultLayout).records.length, 1);
    host.userId = 1001;
    assert.equal(readRecords(host, defaultLayout).records.length, 0);
  });

  it('reports a record that cannot be read, and reads the others', () => {
    put(text);
    put(text, 0o644, path.replace('1b80', '1b81'));
    const read = host.readText.bind(host);
    host.readText = (file) => {
      if (file === path) throw new PearasysError({code: 'file-failed', exitCode: 1, message: 'EIO'});
      return read(file);
    };
    assert.deepEqual(
      readRecords(host, defaultLayout).problems.map(({reason}) => reason),
      ['EIO', 'its content (slot 0000:02:00.0, id 10de:1b80) does not match its name'],
    );
  });

  it('reads a record of 64 KiB and ignores a larger one', () => {
    const filled = (bytes: number) => `${text}#${'x'.repeat(bytes - text.length - 2)}\n`;
    put(filled(1 << 16));
    assert.equal(readRecords(host, defaultLayout).records.length, 1);
    put(filled((1 << 16) + 1));
    ignored(/^it is too large; expected at most 64 KiB$/);
  });

  it('reports a record that is removed while it is read', () => {
    put(text);
    host.readText = () => undefined;
    ignored(/^it was removed while it was read$/);
  });

  it('does not report an internal error as an invalid record', () => {
    put(text);
    host.readText = () => {
      throw new RangeError('a fault');
    };
    assert.throws(() => readRecords(host, defaultLayout), RangeError);
    assert.throws(() => readRecordOf(host, defaultLayout, {slot, id}), RangeError);
  });
});
