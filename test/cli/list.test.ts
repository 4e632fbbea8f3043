import assert from 'node:assert/strict';
import stringWidth from 'string-width';
import type {ListResult} from '../../src/entry/cli/list-report.js';
import {defaultLayout} from '../../src/config/layout.js';
import {parseDriver} from '../../src/devices/pci/driver.js';
import {parseId} from '../../src/devices/pci/id.js';
import {parseSlot} from '../../src/devices/pci/slot.js';
import {printRecord, recordPath, type RecordContent} from '../../src/state/records/record.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {Terminal, typed} from './runs.js';

function record(slot: string, id: string, driver: string): RecordContent {
  return {
    slot: slot === 'any' ? slot : parseSlot(slot),
    id: parseId(id),
    driver: parseDriver(driver),
    together: slot === 'any' ? [] : [parseSlot(slot)],
    identity: {},
    unknown: [],
  };
}

describe('pearasys list', () => {
  let host: SimulatedHost;
  beforeEach(() => (host = SimulatedHost.standard()));
  afterEach(() => host.dispose());

  /** A machine where these are recorded. */
  function recorded(...all: RecordContent[]): void {
    host.dispose();
    host = SimulatedHost.standard((machine) => {
      for (const one of all) machine.files[recordPath(defaultLayout, one)] = printRecord(one);
    });
  }

  async function lines(line = 'list'): Promise<string[][]> {
    const {exitCode, stdout} = await typed(host, line);
    assert.equal(exitCode, 0);
    return stdout
      .trimEnd()
      .split('\n')
      .map((one) => one.split('\t'));
  }

  async function slots(line: string): Promise<string[]> {
    const {exitCode, stdout, stderr} = await typed(host, line);
    assert.equal(stderr, '');
    assert.equal(exitCode, 0);
    return stdout
      .split('\n')
      .filter((one) => one !== '')
      .map((one) => one.split('\t')[0] ?? '');
  }

  async function json(line = 'list --json'): Promise<ListResult> {
    const {exitCode, stdout} = await typed(host, line);
    assert.equal(exitCode, 0);
    return JSON.parse(stdout) as ListResult;
  }

  describe('lines for programs', () => {
    it('has one for each function, with twelve fields', async () => {
      const all = await lines();
      assert.equal(all.length, host.list('/sys/bus/pci/devices').length);
      for (const fields of all) assert.equal(fields.length, 12);
    });

    it('describes the card that is in use', async () => {
      assert.deepEqual(
        (await lines()).find(([slot]) => slot === '0000:01:00.0'),
        [
          '0000:01:00.0',
          '10de:1b80',
          '030000',
          'nouveau',
          '-',
          '1',
          'boot-display',
          '-',
          '-',
          'process:Xorg[901],framebuffer:fb0,console:vtcon1',
          'VGA compatible controller',
          'NVIDIA Corporation GP104 [GeForce GTX 1080]',
        ],
      );
    });

    it('prints - for missing values', async () => {
      assert.deepEqual((await lines()).find(([slot]) => slot === '0000:00:14.2')?.slice(3, 10), [
        '-',
        '-',
        '3',
        '-',
        '-',
        '-',
        '-',
      ]);
    });

    it('shows the override', async () => {
      assert.equal((await typed(host, 'bind vfio-pci 02:00.0 --group')).exitCode, 0);
      const fields = (await lines()).find(([slot]) => slot === '0000:02:00.0');
      assert.deepEqual(fields?.slice(3, 5), ['vfio-pci', 'vfio-pci']);
    });

    it('shows the record, and marks one of another card', async () => {
      recorded(
        record('0000:02:00.0', '10de:1b80', 'vfio-pci'),
        record('0000:05:00.0', '8086:1533', 'vfio-pci'),
        record('any', '144d:a80a', 'vfio-pci'),
      );
      const words = new Map((await lines()).map((fields) => [fields[0], fields[7]]));
      assert.equal(words.get('0000:02:00.0'), 'vfio-pci');
      assert.equal(words.get('0000:05:00.0'), 'vfio-pci!');
      assert.equal(words.get('0000:04:00.0'), 'vfio-pci');
      assert.equal(words.get('0000:01:00.0'), '-');
    });

    it('reports a recorded card that is not in its slot, and slots with the same id', async () => {
      recorded(
        record('0000:09:00.0', '144d:a80a', 'vfio-pci'),
        record('0000:0b:00.0', '1234:5678', 'vfio-pci'),
      );
      const {exitCode, stderr} = await typed(host, 'list');
      assert.equal(exitCode, 0);
      const [first, second] = stderr.split('\n');
      assert.match(
        first ?? '',
        /144d:a80a is not in slot 0000:09:00\.0; one is in 0000:04:00\.0.*: not touched$/,
      );
      assert.match(second ?? '', /1234:5678 is not in slot 0000:0b:00\.0: not touched$/);
    });

    it('shows the units of a device', async () => {
      assert.equal((await typed(host, '-s 02:00.0 service install vfio-pci')).exitCode, 0);
      const fields = (await lines()).find(([slot]) => slot === '0000:02:00.0');
      assert.equal(fields?.[8], 'vfio-pci:enabled:inactive');
    });
  });

  describe('--json', () => {
    it('has the documented shape', async () => {
      const {devices, problems} = await json('list --json --id 8086:10d3');
      assert.deepEqual(problems, []);
      assert.deepEqual(devices, [
        {
          slot: '0000:05:00.0',
          id: '8086:10d3',
          subsystem: '8086:a01f',
          class: '020000',
          className: 'Ethernet controller',
          vendorName: 'Intel Corporation',
          deviceName: '82574L Gigabit Network Connection',
          driver: 'e1000e',
          override: null,
          group: 11,
          numaNode: null,
          physicalFunction: null,
          responds: true,
          quarantined: null,
          bootDisplay: false,
          vgpu: null,
          record: null,
          units: [],
          holders: [],
        },
      ]);
    });

    it('has holders by kind, as text, and how to end their use', async () => {
      const {devices} = await json();
      const [holder] = devices.find(({slot}) => slot === '0000:01:00.1')?.holders ?? [];
      assert.ok(holder);
      assert.equal(holder.kind, 'process');
      assert.match(holder.text, /^process 940 \(pipewire\)/);
      assert.match(holder.advice, /stop pipewire\.service$/);
    });

    it('is an empty list when nothing matches', async () => {
      assert.deepEqual((await json('list --json --id ffff')).devices, []);
    });
  });

  describe('filters', () => {
    const cases: [line: string, expected: string[]][] = [
      ['list --class display', ['0000:01:00.0', '0000:02:00.0']],
      ['list --class DISPLAY', ['0000:01:00.0', '0000:02:00.0']],
      ['list --class 0403', ['0000:01:00.1', '0000:02:00.1']],
      ['list --class 0x0c03', ['0000:00:14.0']],
      ['list --class 030000 --class 0403 --group 2', ['0000:02:00.0', '0000:02:00.1']],
      ['list --driver none', ['0000:00:00.0', '0000:00:14.2', '0000:00:1f.0']],
      ['list --driver nvme --group 10', ['0000:04:00.0']],
      ['list --group 1', ['0000:00:01.0', '0000:01:00.0', '0000:01:00.1']],
      ['list --id 144d', ['0000:03:00.0', '0000:04:00.0']],
      ['list --id 144d:', ['0000:03:00.0', '0000:04:00.0']],
      ['list --id 0x144D:0xA80A', ['0000:04:00.0']],
      ['list --class display --driver e1000e', []],
    ];
    for (const [line, expected] of cases)
      it(line, async () => {
        assert.deepEqual(await slots(line), expected);
      });

    it('--class all is every device', async () => {
      assert.deepEqual(await slots('list --class all'), host.list('/sys/bus/pci/devices'));
    });

    const bad: [line: string, message: RegExp, hint: RegExp][] = [
      ['list --class disply', /'disply' is not a class/, /--class display/],
      ['list --class 3', /'3' is not a class/, /one of storage, network/],
      ['list --class constructor', /'constructor' is not a class/, /one of storage/],
      ['list --group one', /'one' is not an IOMMU group/, /--group 14/],
      ['list --group -1', /'-1' is not an IOMMU group|expects a value/, /./],
      ['list --id 10d', /'10d' is neither a vendor nor an id/, /10de:1b80/],
      ['list --driver ../x', /'\.\.\/x' is not a driver's name/, /vfio-pci/],
    ];
    for (const [line, message, hint] of bad)
      it(`refuses ${line}`, async () => {
        const {exitCode, stdout, stderr} = await typed(host, line);
        assert.equal(exitCode, 2);
        assert.equal(stdout, '');
        const [first = '', ...rest] = stderr.split('\n');
        assert.match(first, message);
        assert.match(rest.join('\n'), hint);
      });
  });

  describe('the table for people', () => {
    async function table(columns: number, environment: NodeJS.ProcessEnv = {NO_COLOR: '1'}, line = 'list') {
      const stdout = new Terminal(columns);
      const {exitCode} = await typed(host, line, {stdout, environment});
      assert.equal(exitCode, 0);
      return stdout.text;
    }

    for (const columns of [80, 100, 200])
      it(`fits into ${columns} columns`, async () => {
        const text = await table(columns);
        for (const line of text.trimEnd().split('\n'))
          assert.ok(line.length <= columns, `${line.length}: ${line}`);
      });

    for (const columns of [40, 80])
      it(`fits names in wide characters into ${columns} columns`, async () => {
        host.dispose();
        host = SimulatedHost.standard((machine) => {
          machine.files['/usr/share/hwdata/pci.ids'] =
            '#\n10de  株式会社バッファロー\n\t1b80  グラフィックスカード 高速版 第二世代\n';
        });
        const text = await table(columns);
        for (const line of text.trimEnd().split('\n'))
          assert.ok(stringWidth(line) <= columns, `${stringWidth(line)}: ${line}`);
        assert.equal(text.includes('株式'), columns === 80);
      });

    it('has heads, and one line per device', async () => {
      const [head = '', ...rest] = (await table(200)).trimEnd().split('\n');
      assert.match(head, /^SLOT +ID +CLASS +DRIVER +GROUP +RECORD +HELD BY +NAME$/);
      assert.equal(rest.length, host.list('/sys/bus/pci/devices').length);
      assert.match(
        rest.find((line) => line.startsWith('0000:01:00.0')) ?? '',
        /^0000:01:00\.0 +10de:1b80 +display\* +nouveau +1 +- +Xorg\[901\] fb0 vtcon1 +NVIDIA Corporation GP104/,
      );
    });

    it('has colors only where they are wanted', async () => {
      const escape = '\u001b[1m';
      assert.ok((await table(100, {})).includes(escape));
      assert.ok(!(await table(100, {NO_COLOR: '1'})).includes(escape));
      assert.ok(!(await table(100, {TERM: 'dumb'})).includes(escape));
    });

    it('says so when there is no such device', async () => {
      assert.equal(await table(80, {}, 'list --id ffff'), 'No such device.\n');
    });
  });

  it('reports a record that is ignored, and still lists', async () => {
    host.dispose();
    host = SimulatedHost.standard((machine) => {
      machine.files['/etc/pearasys/pci/0000:02:00.0-0x10de-0x1b80'] = 'nonsense\n';
    });
    const {exitCode, stdout, stderr} = await typed(host, 'list');
    assert.equal(exitCode, 0);
    assert.match(stderr, /^pearasys: warning: the record \S+0x1b80 is ignored: line 1/);
    assert.match(stdout, /^0000:02:00\.0\t/m);
    assert.equal((await json()).problems.length, 1);
  });

  it('says what is not visible without root', async () => {
    host.userId = 1000;
    const {exitCode, stdout, stderr} = await typed(host, 'list');
    assert.equal(exitCode, 0);
    assert.match(stderr, /not root: files that processes of other users have open are not visible/);
    assert.match(stdout, /0000:01:00\.0/);
  });

  it('says what to do where there is no PCI bus', async () => {
    const {exitCode, stderr} = await typed(host, 'list --root /nonexistent');
    assert.equal(exitCode, 1);
    assert.match(stderr, /\/nonexistent\/sys\/bus\/pci\/devices does not exist: /);
  });

  it('changes nothing', async () => {
    await typed(host, 'list');
    assert.deepEqual(host.effects(), []);
  });
});
