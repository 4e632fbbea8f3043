import assert from 'node:assert/strict';
import {spawn, spawnSync, type ChildProcess} from 'node:child_process';
import fs from 'node:fs';
import {tmpdir} from 'node:os';
import {basename, dirname, join} from 'node:path';
import {setTimeout as sleep} from 'node:timers/promises';
import {defaultLayout} from '../../src/config/layout.js';
import {parseId} from '../../src/devices/pci/id.js';
import {parseSlot} from '../../src/devices/pci/slot.js';
import {MachineHost} from '../../src/host/machine-host.js';
import {printChecked, readRecordOf, readRecords} from '../../src/state/records/record.js';
import {readRescue, switchedOffBy} from '../../src/state/rescue.js';
import {isEnabled, readUnits, unitName} from '../../src/systemd/unit.js';
import {commandLineCases} from '../corpus/command-lines.js';
import {canTry} from '../corpus/files.js';
import {putRecord, recordCases, subject} from '../corpus/records.js';
import {nodeFlags, putPrograms} from './services.js';

const card = '0000:02:00.0';
const record = `etc/pearasys/pci/${card}-0x10de-0x1b80`;
const checked = 'run/pearasys/checked';
const units = 'etc/systemd/system';
const released = `run/pearasys/released/${card}`;

const text = (slot = card, id = '10de:1b80', driver = 'vfio-pci') =>
  `# a comment\nPEARASYS_SLOT=${slot}\nPEARASYS_ID=${id}\nPEARASYS_DRIVER=${driver}\n`;

/** A configuration space with two extended capabilities, of which the second is the Device Serial Number. */
function configSpace(id: string, serial: string): Uint8Array {
  const space = new DataView(new ArrayBuffer(4096));
  const [vendor = 0, product = 0] = id.split(':').map((part) => parseInt(part, 16));
  space.setUint16(0, vendor, true);
  space.setUint16(2, product, true);
  space.setUint32(0x100, 0x14820001, true);
  space.setUint32(0x148, 0x00010003, true);
  for (const [index, byte] of serial.split('-').reverse().entries())
    space.setUint8(0x14c + index, parseInt(byte, 16));
  return new Uint8Array(space.buffer);
}

describe('the programs in libexec', () => {
  let folder: string;
  const running: ChildProcess[] = [];
  beforeEach(() => {
    folder = fs.mkdtempSync(join(tmpdir(), 'pearasys-libexec-'));
    put('proc/cmdline', 'root=/dev/sda1 quiet\n');
    fs.mkdirSync(join(folder, checked), {recursive: true});
    put('node', '#!/bin/sh\necho "$@" >>"$0.called"\nexit 7\n', 0o755);
    putPrograms(folder, `${folder}/node`);
  });
  afterEach(() => {
    for (const each of running.splice(0)) each.kill('SIGKILL');
    fs.rmSync(folder, {recursive: true, force: true});
  });

  function put(path: string, content: string | Uint8Array, mode = 0o644): void {
    fs.mkdirSync(dirname(join(folder, path)), {recursive: true});
    fs.writeFileSync(join(folder, path), content, {mode});
    fs.chmodSync(join(folder, path), mode);
  }

  function read(path: string): string {
    return fs.readFileSync(join(folder, path), 'utf8').trim();
  }

  /** The text of a record's checked copy, which the udev rule reads; empty without one. */
  function copyOf(path: string): string {
    const name = fs
      .readdirSync(join(folder, checked))
      .find((one) => one === basename(path) || one.startsWith(`${basename(path)}@`));
    return name === undefined ? '' : read(`${checked}/${name}`);
  }

  interface Shown {
    readonly slot?: string;
    readonly id?: string;
    readonly driver?: string;
    readonly override?: string;
    readonly class?: string;
    readonly subsystem?: string;
    /** The bridges above it, `0000:00:1c.0/0000:03:00.0`. */
    readonly below?: string;
    /** Its Device Serial Number, as in lspci(8). */
    readonly serial?: string;
  }

  /** A device in sysfs. */
  function show({slot = card, id = '10de:1b80', driver, override = '(null)', ...rest}: Shown = {}): void {
    const own = `sys/devices/pci0000:00/${rest.below ?? '0000:00:01.1'}/${slot}`;
    const [vendor = '', product = ''] = id.split(':');
    const [subsystemVendor = '', subsystemDevice = ''] = (rest.subsystem ?? '1043:8599').split(':');
    put(`${own}/vendor`, `0x${vendor}\n`);
    put(`${own}/device`, `0x${product}\n`);
    put(`${own}/subsystem_vendor`, `0x${subsystemVendor}\n`);
    put(`${own}/subsystem_device`, `0x${subsystemDevice}\n`);
    const link = join(folder, 'sys/bus/pci/devices', slot);
    fs.mkdirSync(dirname(link), {recursive: true});
    fs.rmSync(link, {force: true});
    fs.symlinkSync(join(folder, own), link);
    if (rest.serial !== undefined) put(`${own}/config`, configSpace(id, rest.serial));
    put(`${own}/class`, `${rest.class ?? '0x030000'}\n`);
    put(`${own}/driver_override`, `${override}\n`);
    if (driver === undefined) return;
    put(`sys/bus/pci/drivers/${driver}/${slot}`, '');
    put(`${own}/driver`, '');
  }

  /** The link that enables the claim of a slot. */
  function enable(slot = card, driver = 'vfio-pci'): void {
    const wants = join(folder, units, `sys-bus-pci-devices-${slot}.device.wants`);
    fs.mkdirSync(wants, {recursive: true});
    put(`${units}/pearasys-${slot}@.service`, '');
    fs.symlinkSync(`../pearasys-${slot}@.service`, join(wants, `pearasys-${slot}@${driver}.service`));
  }

  interface Ended {
    readonly status: number | null;
    readonly node: string | undefined;
    readonly stderr: string;
  }

  /** The arguments with which Node was started. */
  function called(): string | undefined {
    const file = join(folder, 'node.called');
    const node = fs.existsSync(file) ? fs.readFileSync(file, 'utf8').trim() : undefined;
    fs.rmSync(file, {force: true});
    return node;
  }

  function run(path: string, program: string, args: readonly string[]): Ended {
    const {status, stderr} = spawnSync('/bin/sh', [join(folder, program), ...args], {
      env: {PATH: path},
      encoding: 'utf8',
    });
    return {status, node: called(), stderr};
  }

  /** How a program ended, and its arguments for Node. */
  const started = (program: string, ...args: string[]) => run('/usr/bin:/bin', program, args);
  /** The same if no other program can be started. */
  const alone = (program: string, ...args: string[]) => run('/nowhere', program, args);

  const fast = {status: 0, node: undefined, stderr: ''};
  const node = (program: string, ...args: string[]) => ({
    status: 7,
    node: [nodeFlags, `/usr/local/lib/pearasys/${program}.cjs`, ...args].join(' '),
    stderr: '',
  });

  describe('a record', () => {
    for (const one of recordCases)
      it(`${one.name} is ${one.obeyed ? 'used by all programs' : 'ignored by all programs'}`, function () {
        const {obeyed, unknown} = one;
        if (!canTry(one)) this.skip();
        putRecord(folder, one);

        const answer = readRecordOf(new MachineHost(folder), defaultLayout, {
          slot: parseSlot(card),
          id: parseId(subject.id),
        });
        const says = answer !== undefined && 'driver' in answer && answer.driver === subject.driver;
        assert.equal(says, obeyed, `TypeScript: ${JSON.stringify(answer)}`);
        if (says)
          assert.deepEqual(
            answer.unknown.map(({key, value}) => `${key}=${value}`),
            unknown ?? [],
          );

        show();
        enable();
        started('early');
        const override = read(`sys/bus/pci/devices/${card}/driver_override`);
        assert.equal(override === subject.driver, obeyed, `early: ${override}`);
        assert.equal(
          copyOf(record).split('\n')[0] === `PEARASYS_DRIVER=${subject.driver}`,
          obeyed,
          'for the rule',
        );

        show({driver: subject.driver});
        assert.equal(started('claim', card, subject.driver).node === undefined, obeyed, 'claim');
      });
  });

  describe('the kernel command line', () => {
    for (const {line, off} of commandLineCases)
      it(`switches the claim ${off ? 'off' : 'not off'} for all programs: ${line}`, () => {
        put('proc/cmdline', `${line}\n`);
        assert.equal(
          switchedOffBy(readRescue(new MachineHost(folder)), parseSlot(card)) !== undefined,
          off,
          'TypeScript',
        );
        show();
        put(record, text());
        enable();
        // The condition of early's unit handles pearasys=off.
        const {status} = started('early');
        assert.equal(status, 0);
        assert.equal(read(`sys/bus/pci/devices/${card}/driver_override`) !== subject.driver, off, 'early');
        show({driver: subject.driver});
        assert.equal(started('claim', card, subject.driver).status, off ? 1 : 0, 'claim');
      });

    it('accepts slots in upper case', () => {
      const slot = '0000:0a:00.0';
      put('proc/cmdline', 'pearasys.skip=0000:0A:00.0\n');
      show({slot});
      put(`etc/pearasys/pci/${slot}-0x10de-0x1b80`, text(slot));
      enable(slot);
      started('early');
      assert.equal(read(`sys/bus/pci/devices/${slot}/driver_override`), '(null)');
      assert.ok(switchedOffBy(readRescue(new MachineHost(folder)), parseSlot(slot)));
      assert.ok(fs.existsSync(join(folder, `run/pearasys/skipped/${slot}`)));
    });

    it('is reported by early: skipped claims, and invalid slots, which are not evaluated', () => {
      put('proc/cmdline', 'pearasys.skip=02:00.0,../x,$(id)\n');
      put(record, text());
      const {stderr} = started('early');
      assert.match(stderr, /<5>the claim of 0000:02:00\.0 is switched off for this boot/);
      assert.match(stderr, /<4>pearasys\.skip=.*'\.\.\/x' is ignored: it is not a slot/);
      assert.match(stderr, /'\$\(id\)' is ignored: it is not a slot/);
      assert.deepEqual(fs.readdirSync(join(folder, 'run/pearasys/skipped')), [card]);
    });
  });

  describe('claim', () => {
    const claims = node('claim', card, 'vfio-pci');

    it('starts no Node for the recorded card on its driver', () => {
      show({driver: 'vfio-pci'});
      put(record, text());
      assert.deepEqual(started('claim', card, 'vfio-pci'), fast);
      put(record, `${text()}PEARASYS_TOGETHER=${card},0000:02:00.1\n`);
      assert.deepEqual(started('claim', card, 'vfio-pci'), fast);
      // Node handles what the shell cannot check.
      assert.notDeepEqual(alone('claim', card, 'vfio-pci'), fast);
    });

    const others: readonly [what: string, prepare: () => void][] = [
      ['on another driver', () => show({driver: 'nouveau'})],
      ['without a driver', () => show()],
      ['that is gone', () => undefined],
      ['without a record', () => fs.rmSync(join(folder, 'etc'), {recursive: true})],
      ['with another id', () => show({driver: 'vfio-pci', id: '10de:1b81'})],
      ['that was released manually', () => put(released, '')],
      ['whose record has an invalid line', () => put(record, `${text()}nonsense\n`)],
      ['whose record is truncated', () => put(record, text().slice(0, -1))],
      ['whose record is empty', () => put(record, '')],
      ['whose record is for another driver', () => put(record, text(card, '10de:1b80', 'pci-stub'))],
      ['whose record is about another slot', () => put(record, text('0000:03:00.0'))],
      ['whose record is about another id', () => put(record, text(card, '10de:1b81'))],
      ['whose record repeats a key', () => put(record, `${text()}PEARASYS_DRIVER=vfio-pci\n`)],
      ['whose record has no id', () => put(record, text().replace(/PEARASYS_ID=.*\n/, ''))],
      ['whose record omits its own slot', () => put(record, `${text()}PEARASYS_TOGETHER=0000:02:00.1\n`)],
      ['whose record is too long', () => put(record, `${'#\n'.repeat(1000)}${text()}`)],
      ["whose record is another user's", () => fs.chownSync(join(folder, record), 65534, 65534)],
      [
        "whose records' folder is another user's",
        () => fs.chownSync(dirname(join(folder, record)), 65534, 65534),
      ],
      [
        'whose record is a link',
        () => {
          fs.renameSync(join(folder, record), join(folder, 'elsewhere'));
          fs.symlinkSync(join(folder, 'elsewhere'), join(folder, record));
        },
      ],
    ];
    for (const [what, prepare] of others)
      it(`starts Node, and returns its exit code, for a card ${what}`, function () {
        if (what.includes('another user') && process.getuid?.() !== 0) this.skip();
        put(record, text());
        if (!['that is gone', 'on another driver', 'without a driver'].includes(what))
          show({driver: 'vfio-pci'});
        prepare();
        assert.deepEqual(started('claim', card, 'vfio-pci'), claims);
      });

    it('starts no Node for none if the override is set and the device has no driver', () => {
      put(record, text(card, '10de:1b80', 'none'));
      show({override: 'none'});
      assert.deepEqual(started('claim', card, 'none'), fast);
      show();
      assert.equal(started('claim', card, 'none').status, 7);
      show({driver: 'nouveau', override: 'none'});
      assert.equal(started('claim', card, 'none').status, 7);
    });
  });

  it('release does nothing if the device was removed', () => {
    assert.deepEqual(alone('release', card, 'vfio-pci'), fast);
    show({driver: 'vfio-pci'});
    assert.deepEqual(started('release', card, 'vfio-pci'), node('release', card, 'vfio-pci'));
  });

  it('record always starts Node', () => {
    assert.deepEqual(started('record', card), node('record', card));
  });

  it('fail without their arguments, and start nothing', () => {
    for (const program of ['claim', 'release', 'record']) {
      const {status, node: calls} = started(program);
      assert.notEqual(status, 0);
      assert.equal(calls, undefined);
    }
  });

  describe('a unit that waits for the Node process of another unit', () => {
    const ticket = `run/pearasys/claim/${card}@vfio-pci`;
    const lock = () => join(folder, 'run/pearasys/lock/claim');

    interface Waiting {
      readonly pid: number;
      /** Releases the lock. */
      readonly open: () => void;
      readonly ended: Promise<Ended>;
    }

    /** Starts a claim while the lock is held, and waits for its ticket. */
    async function waits(): Promise<Waiting> {
      fs.mkdirSync(dirname(lock()), {recursive: true});
      const holder = spawn('flock', [lock(), 'sh', '-c', 'echo; read -r _'], {
        stdio: ['pipe', 'pipe', 'inherit'],
      });
      running.push(holder);
      await new Promise((resolve) => holder.stdout.once('data', resolve));
      const child = spawn('/bin/sh', [join(folder, 'claim'), card, 'vfio-pci'], {
        env: {PATH: '/usr/bin:/bin'},
        stdio: ['ignore', 'ignore', 'pipe'],
      });
      running.push(child);
      let stderr = '';
      child.stderr.on('data', (data: Buffer) => (stderr += data.toString()));
      const ended = new Promise<Ended>((resolve) =>
        child.once('close', (status) => resolve({status, node: called(), stderr})),
      );
      while (!fs.existsSync(join(folder, ticket)) || read(ticket) === '') await sleep(5);
      return {pid: child.pid ?? 0, open: () => holder.stdin.end(), ended};
    }

    it('succeeds if its device is on the driver when it gets the lock', async () => {
      put(record, text());
      show();
      const {open, ended} = await waits();
      show({driver: 'vfio-pci'});
      open();
      assert.deepEqual(await ended, fast);
    });

    it('repeats the output of that process, and ends with its exit code', async () => {
      put(record, text());
      show();
      const {pid, open, ended} = await waits();
      assert.match(read(ticket), new RegExp(`^${pid} \\d+$`));
      put(`${ticket}.result`, `${read(ticket)} 3\n<3>in use \\n as it is: 100% $HOME\n<3>  try: another\n`);
      open();
      assert.deepEqual(await ended, {
        status: 3,
        node: undefined,
        stderr: '<3>in use \\n as it is: 100% $HOME\n<3>  try: another\n',
      });
      // A later start does not use the result again.
      assert.equal(started('claim', card, 'vfio-pci').status, 7);
    });

    it('starts Node if that process has left no result for it, an outdated one or an empty one', async () => {
      put(record, text());
      show();
      for (const result of [undefined, '1 1 3\n<3>of another process\n', '', 'boot 1 3\n<3>of the boot\n']) {
        if (result !== undefined) put(`${ticket}.result`, result);
        const {open, ended} = await waits();
        open();
        assert.deepEqual(await ended, node('claim', card, 'vfio-pci'), result ?? 'none');
        fs.rmSync(join(folder, ticket));
      }
    });

    it('uses a result left while the machine boots, once', () => {
      put(record, text());
      show();
      const uptime = fs.readFileSync('/proc/uptime', 'utf8').split('.')[0] ?? '';
      put(`${ticket}.result`, `boot ${uptime} 3\n<3>in use\n`);
      assert.deepEqual(started('claim', card, 'vfio-pci'), {
        status: 3,
        node: undefined,
        stderr: '<3>in use\n',
      });
      assert.equal(started('claim', card, 'vfio-pci').status, 7);
    });

    it('ends at once when systemd ends it', async () => {
      const {pid, ended} = await waits();
      process.kill(pid, 'SIGTERM');
      assert.equal((await ended).status, null);
    });

    it('does not let other users access its lock and tickets', () => {
      started('claim', card, 'vfio-pci');
      for (const each of ['lock', 'claim'])
        assert.equal(fs.statSync(join(folder, 'run/pearasys', each)).mode & 0o777, 0o700);
    });
  });

  describe('early', () => {
    const override = (slot = card) => read(`sys/bus/pci/devices/${slot}/driver_override`);
    const twin = '0000:03:00.0';

    it('writes the overrides of all enabled claims, and of no other device', () => {
      const slots = Array.from({length: 32}, (_, index) => `0000:0${1 + (index >> 3)}:00.${index & 7}`);
      for (const [index, slot] of slots.entries()) {
        const driver = index % 5 === 4 ? 'none' : 'vfio-pci';
        show({slot});
        put(`etc/pearasys/pci/${slot}-0x10de-0x1b80`, text(slot, '10de:1b80', driver));
        enable(slot, driver);
      }
      show({slot: '0000:09:00.0'});
      assert.deepEqual(started('early'), fast);
      assert.deepEqual(
        slots.map((slot) => override(slot)),
        slots.map((_, index) => (index % 5 === 4 ? 'none' : 'vfio-pci')),
      );
      assert.equal(override('0000:09:00.0'), '(null)');
    });

    describe('with settings in a record', () => {
      const plain = 'PEARASYS_SET_RESET_METHOD=flr bus\nPEARASYS_SET_RESET=none\n';
      const pending = `run/pearasys/pending/${card}`;
      const isPending = () => fs.existsSync(join(folder, pending));

      it('saves them for the rule', () => {
        show();
        put(record, `${text()}${plain}PEARASYS_SET_COLOR=red\n`);
        enable();
        assert.deepEqual(started('early'), fast);
        assert.equal(copyOf(record), `PEARASYS_DRIVER=vfio-pci\n${plain}`.trim());
        assert.equal(override(), 'vfio-pci');
      });

      it('keeps all drivers off a device whose unit must set something first', () => {
        for (const line of ['RESET=flr', 'VARIANT=yes', 'RESOURCE1_RESIZE=14']) {
          show();
          put(record, `${text()}PEARASYS_SET_${line}\n`);
          if (line === 'RESET=flr') enable();
          assert.deepEqual(started('early'), fast);
          assert.equal(override(), 'none', line);
          assert.match(copyOf(record), /\nPEARASYS_BY_UNIT=yes$/);
          assert.ok(!isPending());
        }
      });

      it('has the unit look at a device that is on a driver already', () => {
        show({driver: 'vfio-pci'});
        put(record, `${text()}PEARASYS_SET_RESET=flr\n`);
        enable();
        assert.deepEqual(started('early'), fast);
        assert.equal(override(), '(null)');
        assert.ok(isPending());
        assert.deepEqual(started('claim', card, 'vfio-pci'), node('claim', card, 'vfio-pci'));
        fs.rmSync(join(folder, pending));
        assert.deepEqual(started('claim', card, 'vfio-pci'), fast);
      });

      it('leaves a quarantined device alone', () => {
        show();
        put(record, text());
        enable();
        put(`run/pearasys/quarantined/${card}`, '');
        assert.deepEqual(started('early'), fast);
        assert.equal(override(), '(null)');
      });
    });

    describe('finds the card', () => {
      const away = '0000:04:00.0';
      const serials = ['00-11-22-33-44-55-66-77', '00-11-22-33-44-55-66-78'] as const;
      const overrides = (slots = [card, twin, away]) =>
        slots
          .filter((slot) => fs.existsSync(join(folder, 'sys/bus/pci/devices', slot)))
          .map((slot) => `${slot} ${override(slot)}`);

      interface Recorded {
        readonly path?: string;
        readonly subsystem?: string;
        readonly serial?: string;
        readonly driver?: string;
      }

      function claims(slot: string, {driver = 'vfio-pci', ...identity}: Recorded): void {
        const keys = Object.entries(identity).map(
          ([key, value]) => `PEARASYS_${key.toUpperCase()}=${value}\n`,
        );
        put(`etc/pearasys/pci/${slot}-0x10de-0x1b80`, text(slot, '10de:1b80', driver) + keys.join(''));
        enable(slot, driver);
      }
      const moved = (slot: string) =>
        fs.existsSync(join(folder, 'run/pearasys/moved', slot)) ? read(`run/pearasys/moved/${slot}`) : '';

      it('by its path, in another slot when buses are renumbered, and not the twin that is in its slot now', () => {
        claims(card, {path: '0000:00/01.1/00.0'});
        show({slot: card, below: '0000:00:01.0'});
        show({slot: twin, below: '0000:00:01.1'});
        const {status, stderr} = started('early');
        assert.equal(status, 0);
        assert.equal(stderr, `<5>the card recorded for ${card} is now in ${twin}\n`);
        assert.deepEqual(overrides(), [`${card} (null)`, `${twin} vfio-pci`]);
        assert.equal(moved(twin), `PEARASYS_RECORD=${card}-0x10de-0x1b80`);
        assert.equal(moved(card), '');
      });

      it('by its path below several bridges whose buses have other numbers', () => {
        claims(card, {path: '0000:00/01.1/00.0/1f.0/00.0', subsystem: '1043:8599'});
        show({slot: card, below: '0000:00:01.1/0000:01:00.0/0000:02:01.0'});
        show({slot: away, below: '0000:00:01.1/0000:02:00.0/0000:03:1f.0'});
        started('early');
        assert.deepEqual(overrides(), [`${card} (null)`, `${away} vfio-pci`]);
      });

      it('but no card of another maker at its path, and none at another path', () => {
        claims(card, {path: '0000:00/01.1/00.0', subsystem: '1043:8591'});
        claims(twin, {path: '0000:00/02.0/00.0'});
        show({slot: card});
        show({slot: twin});
        assert.deepEqual(started('early'), fast);
        assert.deepEqual(overrides(), [`${card} (null)`, `${twin} (null)`]);
      });

      it('by its serial number, wherever it is, and not another card in its place', () => {
        claims(card, {path: '0000:00/01.1/00.0', serial: `pcie:${serials[0]}`});
        show({slot: card, serial: serials[1]});
        show({slot: away, below: '0000:00:02.0', serial: serials[0]});
        // Conventional PCI: reading the numbers of all three at a time is not possible.
        show({slot: twin});
        put(`sys/bus/pci/devices/${twin}/config`, new Uint8Array(256));
        started('early');
        assert.deepEqual(overrides(), [`${card} (null)`, `${twin} (null)`, `${away} vfio-pci`]);
        assert.equal(moved(away), `PEARASYS_RECORD=${card}-0x10de-0x1b80`);
        show({slot: away, below: '0000:00:02.0', serial: serials[0]});
        fs.rmSync(join(folder, 'sys/bus/pci/devices', twin));
        started('early');
        assert.deepEqual(overrides(), [`${card} (null)`, `${away} vfio-pci`]);
      });

      it('by its serial number where it was recorded, and reads no other card then', () => {
        claims(card, {path: '0000:00/01.1/00.0', serial: `pcie:${serials[0]}`});
        show({slot: card, serial: serials[0]});
        show({slot: twin});
        // A read of it fails.
        fs.mkdirSync(join(folder, `sys/bus/pci/devices/${twin}/config`));
        started('early');
        assert.deepEqual(overrides(), [`${card} vfio-pci`, `${twin} (null)`]);
      });

      it('whose number the copies of all its functions have, so that the rule claims none of another card', () => {
        const audio = card.replace(/0$/, '1');
        claims(card, {path: '0000:00/01.1/00.0', serial: `pcie:${serials[0]}`});
        claims(audio, {path: '0000:00/01.1/00.1'});
        claims(twin, {path: '0000:00/02.0/00.0'});
        show({slot: card, serial: serials[0]});
        started('early');
        const {records} = readRecords(new MachineHost(folder), defaultLayout);
        for (const one of records)
          assert.equal(`${copyOf(one.path.slice(1))}\n`, printChecked(one, records), one.path);
        const numbered = (slot: string) =>
          copyOf(`etc/pearasys/pci/${slot}-0x10de-0x1b80`).includes(`PEARASYS_SERIAL=pcie:${serials[0]}`);
        assert.deepEqual([card, audio, twin].map(numbered), [true, true, false]);
      });

      it('by serial number and function, and by the path if makers repeat a number', () => {
        claims(card, {path: '0000:00/01.1/00.0', serial: `pcie:${serials[0]}`});
        claims(twin, {path: '0000:00/02.0/00.0', serial: `pcie:${serials[0]}`, driver: 'pci-stub'});
        for (const [slot, below] of [
          ['0000:02:00.0', '0000:00:01.1'],
          ['0000:02:00.1', '0000:00:01.1'],
          ['0000:03:00.0', '0000:00:02.0'],
        ] as const)
          show({slot, below, serial: serials[0]});
        assert.deepEqual(started('early'), fast);
        assert.deepEqual(overrides(['0000:02:00.0', '0000:02:00.1', '0000:03:00.0']), [
          '0000:02:00.0 vfio-pci',
          '0000:02:00.1 (null)',
          '0000:03:00.0 pci-stub',
        ]);
      });

      it('not by a serial number that cannot be read', () => {
        claims(card, {path: '0000:00/01.1/00.0', serial: `pcie:${serials[0]}`});
        show({slot: card});
        assert.deepEqual(started('early'), fast);
        show({slot: card, serial: '00-00-00-00-00-00-00-00'});
        assert.deepEqual(started('early'), fast);
        assert.deepEqual(overrides(), [`${card} (null)`]);
      });

      it('of the stronger identity first: a serial number, a path, a slot', () => {
        claims(card, {driver: 'pci-stub'});
        claims(twin, {path: '0000:00/01.1/00.0'});
        show({slot: card, serial: serials[0]});
        started('early');
        assert.deepEqual(overrides(), [`${card} vfio-pci`]);
        claims(away, {serial: `pcie:${serials[0]}`, driver: 'none'});
        show({slot: card, serial: serials[0]});
        started('early');
        assert.deepEqual(overrides(), [`${card} none`]);
      });
    });

    it('takes back what the initramfs has reserved and no record says', () => {
      put('sys/bus/pci/drivers_probe', '');
      const reserved = 'run/pearasys/reserved';
      put(record, text());
      enable();
      show({override: 'vfio-pci'});
      show({slot: twin, override: 'vfio-pci'});
      put(`sys/bus/pci/devices/${twin}/driver/unbind`, '');
      put(reserved, `${card} vfio-pci\n${twin} vfio-pci\n0000:09:00.0 vfio-pci\n../x vfio-pci\n`);
      const {status, stderr} = started('early');
      assert.equal(status, 0, stderr);
      assert.match(stderr, new RegExp(`<5>${twin}: the initramfs has reserved it for vfio-pci, but no`));
      assert.equal(override(), 'vfio-pci');
      assert.equal(override(twin), '');
      assert.equal(read(`sys/bus/pci/devices/${twin}/driver/unbind`), twin);
      assert.equal(read('sys/bus/pci/drivers_probe'), twin);
      // An administrator has set another one since.
      put(`sys/bus/pci/devices/${twin}/driver_override`, 'pci-stub\n');
      started('early');
      assert.equal(override(twin), 'pci-stub');
      // Without any record.
      fs.rmSync(join(folder, 'etc/pearasys/pci'), {recursive: true});
      started('early');
      assert.equal(override(), '');
    });

    it('runs in the initramfs from a list, and notes what it has reserved', () => {
      show();
      show({slot: twin});
      show({slot: '0000:04:00.0', driver: 'nvme'});
      put(
        'list',
        `# a comment\n${card} 0x10de-0x1b80 vfio-pci 0x1043-0x8599 0000:00/01.1/00.0 -\n` +
          `${twin} 0x10de-0x1b81 vfio-pci - - -\n0000:04:00.0 0x10de-0x1b80 vfio-pci - - -\n../../x 0x1-0x2 x - - -\n`,
      );
      put('initramfs', `. ${folder}/reserve.sh\nreserve_claims ${folder}/list\n`);
      assert.deepEqual(alone('initramfs'), fast);
      assert.deepEqual(
        [override(), override(twin), override('0000:04:00.0')],
        ['vfio-pci', '(null)', '(null)'],
      );
      assert.equal(read('run/pearasys/reserved'), `${card} vfio-pci`);
      put('proc/cmdline', `pearasys.skip=${card}\n`);
      show();
      assert.deepEqual(alone('initramfs'), fast);
      assert.equal(override(), '(null)');
    });

    describe('claims from the kernel command line and credentials', () => {
      const generated = () => {
        fs.mkdirSync(join(folder, 'run/systemd/generator'), {recursive: true});
        const normal = join(folder, 'run/systemd/generator');
        const {status, stderr} = spawnSync(
          '/bin/sh',
          [join(folder, 'pearasys-generator'), normal, normal, normal],
          {
            env: {PATH: '/usr/bin:/bin', CREDENTIALS_DIRECTORY: join(folder, 'credentials')},
            encoding: 'utf8',
          },
        );
        assert.deepEqual({status, stderr}, {status: 0, stderr: ''});
        return fs.existsSync(join(folder, 'run/pearasys/pci'))
          ? fs.readdirSync(join(folder, 'run/pearasys/pci')).sort()
          : [];
      };

      it('get a record and units for this boot, and their overrides', () => {
        put(
          'proc/cmdline',
          `quiet pearasys.claim=${card},10de:1b80,vfio-pci pearasys.claim=03:00.0,10de:1b80,none\n`,
        );
        put('credentials/pearasys.claim.disk', '0000:04:00.0,144d:a808,vfio-pci');
        put('credentials/other', '0000:05:00.0,144d:a808,vfio-pci');
        assert.deepEqual(generated(), [
          `${card}-0x10de-0x1b80`,
          '0000:03:00.0-0x10de-0x1b80',
          '0000:04:00.0-0x144d-0xa808',
        ]);
        const host = new MachineHost(folder);
        assert.deepEqual(
          readRecords(host, defaultLayout).records.map(({slot, driver, source}) => [slot, driver, source]),
          [
            [card, 'vfio-pci', 'kernel-command-line'],
            ['0000:03:00.0', 'none', 'kernel-command-line'],
            ['0000:04:00.0', 'vfio-pci', 'credential'],
          ],
        );
        assert.deepEqual(
          readUnits(host).map((unit) => [unitName(unit), isEnabled(host, unit)]),
          [
            [`pearasys-${card}@vfio-pci.service`, true],
            ['pearasys-0000:03:00.0@none.service', true],
            ['pearasys-0000:04:00.0@vfio-pci.service', true],
          ],
        );
        show();
        show({slot: twin});
        show({slot: '0000:04:00.0', id: '144d:a809'});
        assert.deepEqual(started('early'), fast);
        assert.deepEqual(
          [override(), override(twin), override('0000:04:00.0')],
          ['vfio-pci', 'none', '(null)'],
        );
        assert.equal(copyOf(record), 'PEARASYS_DRIVER=vfio-pci');
        show({driver: 'vfio-pci'});
        assert.equal(started('claim', card, 'vfio-pci').node, undefined);
      });

      it('are ignored if they are invalid, and if the slot has a record or another claim', () => {
        for (const word of [
          '',
          '02:00.0',
          `${card},10de:1b80`,
          `${card},10de:1b80,../x`,
          `${card},10de:1b80,a,b`,
        ])
          put(
            'proc/cmdline',
            `${fs.readFileSync(join(folder, 'proc/cmdline'), 'utf8').trim()} pearasys.claim=${word}\n`,
          );
        put('credentials/pearasys.claim.1', '../../x,10de:1b80,vfio-pci');
        put('credentials/pearasys.claim.2', '$(id),10de:1b80,vfio-pci');
        put('credentials/pearasys.claim.3', '');
        put('credentials/pearasys.claim.4', `${twin},10DE:1B80,vfio-pci`);
        assert.deepEqual(generated(), []);
        assert.match(read('kmsg'), /is ignored: it is not a claim, expected SLOT,ID,DRIVER/);
        show();
        assert.deepEqual(started('early'), fast);
        assert.equal(override(), '(null)');
        fs.rmSync(join(folder, 'credentials'), {recursive: true});
        put('proc/cmdline', `pearasys.claim=${card},10de:1b80,pci-stub\n`);
        put(record, text());
        enable();
        assert.deepEqual(generated(), []);
        assert.match(read('kmsg'), /the claim of 0000:02:00\.0 .* is ignored: the record of this slot/);
        assert.deepEqual(started('early'), fast);
        assert.equal(override(), 'vfio-pci');
        put(
          'proc/cmdline',
          `pearasys.claim=${twin},10de:1b80,none pearasys.claim=${twin},10de:1b81,vfio-pci\n`,
        );
        assert.deepEqual(generated(), [`${twin}-0x10de-0x1b80`]);
        assert.match(read('kmsg'), /this slot has another one/);
      });
    });

    it('writes a checked copy of each record of a slot for the rule', () => {
      const absent = record.replace('02:00.0', '09:00.0');
      const other = record.replace('1b80', '1b81');
      show({driver: 'nouveau'});
      put(record, text());
      put(absent, text('0000:09:00.0', '10de:1b80', 'none'));
      put(other, text(card, '10de:1b81', 'pci-stub'), 0o666);
      put('etc/pearasys/pci/any-0x10de-0x1b82', text('any', '10de:1b82'));
      assert.deepEqual(started('early'), fast);
      assert.deepEqual(
        fs.readdirSync(join(folder, checked)).sort(),
        [record, absent].map((path) => basename(path)),
      );
      assert.equal(copyOf(record), 'PEARASYS_DRIVER=vfio-pci');
      assert.equal(copyOf(absent), 'PEARASYS_DRIVER=none');
      assert.equal(fs.statSync(join(folder, checked, basename(record))).mode & 0o022, 0);
    });

    it('removes or updates outdated copies when it runs again', () => {
      const other = record.replace('1b80', '1b81');
      const changed = record.replace('1b80', '1b82');
      put(record, text());
      put(other, text(card, '10de:1b81'));
      put(changed, text(card, '10de:1b82'));
      assert.deepEqual(started('early'), fast);
      fs.chmodSync(join(folder, record), 0o666);
      fs.rmSync(join(folder, other));
      put(changed, text(card, '10de:1b82', 'pci-stub'));
      assert.deepEqual(started('early'), fast);
      assert.equal(copyOf(record), '');
      assert.equal(copyOf(other), '');
      assert.equal(copyOf(changed), 'PEARASYS_DRIVER=pci-stub');
      fs.chmodSync(dirname(join(folder, record)), 0o777);
      assert.equal(started('early').status, 1);
      assert.equal(copyOf(changed), '');
    });

    it('reports that it cannot write copies for the rule, and continues', () => {
      show();
      put(record, text());
      enable();
      fs.rmdirSync(join(folder, checked));
      const {status, stderr} = started('early');
      assert.equal(status, 1);
      assert.match(
        stderr,
        /^<4>could not write \S+checked\/\S+: at a hot-add, the device is left to its unit$/m,
      );
      assert.equal(override(), 'vfio-pci');
    });

    it('does nothing without claims, without records and without their folder', () => {
      assert.deepEqual(alone('early'), fast);
      fs.mkdirSync(dirname(join(folder, record)), {recursive: true});
      assert.deepEqual(started('early'), fast);
      show();
      enable();
      assert.deepEqual(started('early'), fast);
      assert.equal(override(), '(null)');
    });

    const left: readonly [what: string, prepare: () => void][] = [
      ['with a driver', () => show({driver: 'nouveau'})],
      ['of another id', () => show({id: '10de:1b81'})],
      [
        'that is not enabled',
        () => fs.rmSync(join(folder, units, `sys-bus-pci-devices-${card}.device.wants`), {recursive: true}),
      ],
      ['that was released manually', () => put(released, '')],
      ['whose record others can write', () => fs.chmodSync(join(folder, record), 0o666)],
      ['whose record a group can write', () => fs.chmodSync(join(folder, record), 0o664)],
      ['whose record is truncated', () => put(record, text().slice(0, -1))],
      ['whose record has an unknown line', () => put(record, `${text()}X=1\n`)],
      ['whose record is for another driver', () => put(record, text(card, '10de:1b80', 'pci-stub'))],
      ['whose record is too large', () => put(record, `#${'x'.repeat(70_000)}\n${text()}`)],
      ['whose record names a driver with a slash', () => put(record, text(card, '10de:1b80', '../x'))],
      ["whose record is another user's", () => fs.chownSync(join(folder, record), 65534, 65534)],
      [
        'whose record is a link',
        () => {
          fs.renameSync(join(folder, record), join(folder, 'elsewhere'));
          fs.symlinkSync(join(folder, 'elsewhere'), join(folder, record));
        },
      ],
    ];
    for (const [what, prepare] of left)
      it(`leaves a device ${what} alone, and no other`, function () {
        if (what.includes('another user') && process.getuid?.() !== 0) this.skip();
        show();
        put(record, text());
        enable();
        show({slot: twin});
        put(`etc/pearasys/pci/${twin}-0x10de-0x1b80`, text(twin));
        enable(twin);
        prepare();
        assert.deepEqual(started('early'), fast);
        assert.equal(override(), '(null)');
        assert.equal(override(twin), 'vfio-pci');
      });

    for (const mode of [0o777, 0o775])
      it(`ignores all records in a folder of mode ${mode.toString(8)}`, () => {
        show();
        put(record, text());
        enable();
        fs.chmodSync(dirname(join(folder, record)), mode);
        const {status, stderr} = started('early');
        assert.equal(status, 1);
        assert.match(
          stderr,
          /^<4>all records are ignored: .*etc\/pearasys\/pci is not owned by root, or is writable by others$/m,
        );
        assert.equal(override(), '(null)');
      });

    it('applies a record by id alone to each such device without a record or unit of its own, except bridges', () => {
      const any = 'etc/pearasys/pci/any-0x10de-0x1b80';
      put(any, text('any'));
      show();
      show({slot: twin});
      show({slot: '0000:04:00.0', id: '10de:1b81'});
      show({slot: '0000:05:00.0', class: '0x060400'});
      show({slot: '0000:06:00.0'});
      put('etc/pearasys/pci/0000:06:00.0-0x10de-0x1b82', text('0000:06:00.0', '10de:1b82'));
      show({slot: '0000:07:00.0'});
      put(`${units}/pearasys-0000:07:00.0@.service`, '');
      show({slot: '0000:08:00.0', driver: 'nouveau'});
      assert.deepEqual(started('early'), fast);
      for (const slot of [card, twin]) assert.equal(override(slot), 'vfio-pci');
      for (const slot of ['4', '5', '6', '7', '8']) assert.equal(override(`0000:0${slot}:00.0`), '(null)');
    });

    it('reports a write that the kernel refuses, and continues', () => {
      show();
      put(record, text());
      enable();
      show({slot: twin});
      put(`etc/pearasys/pci/${twin}-0x10de-0x1b80`, text(twin));
      enable(twin);
      const file = join(folder, `sys/bus/pci/devices/${card}/driver_override`);
      fs.rmSync(file);
      fs.mkdirSync(file);
      const {status, stderr} = started('early');
      assert.equal(status, 1);
      assert.match(
        stderr,
        /^<4>could not set the override of 0000:02:00\.0 to vfio-pci: the device is left to its unit$/m,
      );
      assert.equal(override(twin), 'vfio-pci');
    });

    it('ignores all records if modes cannot be read', () => {
      show();
      put(record, text());
      enable();
      assert.equal(alone('early').status, 1);
      assert.equal(override(), '(null)');
    });
  });
});
