import assert from 'node:assert/strict';
import {spawnSync} from 'node:child_process';
import fs from 'node:fs';
import {tmpdir} from 'node:os';
import {dirname, join} from 'node:path';
import {defaultLayout} from '../../src/config/layout.js';
import {parseId} from '../../src/devices/pci/id.js';
import {parseSlot} from '../../src/devices/pci/slot.js';
import {readSriov, virtualSlot} from '../../src/devices/pci/sriov.js';
import {MachineHost} from '../../src/host/machine-host.js';
import {
  driverOf,
  parseSriov,
  printCopies,
  printSriov,
  readSriovRecords,
} from '../../src/state/sriov/sriov-record.js';
import {canTry, putFile} from '../corpus/files.js';
import {copiesFor, physical, physicalPath, sriovCases, virtualSlots} from '../corpus/sriov-records.js';
import {putPrograms} from './services.js';

const pf = parseSlot(physical.slot);

describe('the slots of virtual functions', () => {
  it('are computed from offset and stride, across buses', () => {
    const places = {offset: physical.offset, stride: physical.stride};
    assert.deepEqual(
      virtualSlots.map((_, index) => virtualSlot(pf, places, index)),
      virtualSlots,
    );
    assert.equal(virtualSlot(parseSlot('10000:e1:1f.7'), {offset: 1, stride: 1}, 0), '10000:e2:00.0');
  });

  it('end with the last bus', () => {
    assert.equal(virtualSlot(parseSlot('0000:ff:00.0'), {offset: 255, stride: 1}, 0), '0000:ff:1f.7');
    assert.equal(virtualSlot(parseSlot('0000:ff:00.0'), {offset: 255, stride: 1}, 1), undefined);
  });
});

describe('the record of a number of virtual functions', () => {
  let folder: string;
  beforeEach(() => {
    folder = fs.mkdtempSync(join(tmpdir(), 'pearasys-sriov-'));
    put('proc/cmdline', 'quiet\n');
    fs.mkdirSync(join(folder, 'run/pearasys/checked'), {recursive: true});
    putPrograms(folder, '/bin/false');
    const own = `sys/devices/pci0000:00/${physical.bridge}/${physical.slot}`;
    const [vendor = '', device = ''] = physical.id.split(':');
    const [subsystemVendor = '', subsystemDevice = ''] = physical.subsystem.split(':');
    for (const [name, text] of Object.entries({
      vendor: `0x${vendor}`,
      device: `0x${device}`,
      subsystem_vendor: `0x${subsystemVendor}`,
      subsystem_device: `0x${subsystemDevice}`,
      class: '0x020000',
      uevent: `PCI_CLASS=20000\nPCI_ID=8086:10C9\nPCI_SUBSYS_ID=8086:A03C\nPCI_SLOT_NAME=${physical.slot}`,
      driver_override: '(null)',
      sriov_totalvfs: '7',
      sriov_numvfs: '0',
      sriov_offset: String(physical.offset),
      sriov_stride: String(physical.stride),
      sriov_vf_device: physical.virtualDevice,
      sriov_drivers_autoprobe: '1',
    }))
      put(`${own}/${name}`, `${text}\n`);
    fs.mkdirSync(join(folder, 'sys/bus/pci/devices'), {recursive: true});
    // Relative, as the kernel has it: a reader of the folder follows it there.
    fs.symlinkSync(`../../../${own.replace('sys/', '')}`, join(folder, 'sys/bus/pci/devices', physical.slot));
  });
  afterEach(() => fs.rmSync(folder, {recursive: true, force: true}));

  function put(path: string, content: string): void {
    fs.mkdirSync(dirname(join(folder, path)), {recursive: true});
    fs.writeFileSync(join(folder, path), content);
  }

  /** Runs early. @returns the files that it has written for the rule. */
  function early(): Record<string, string> {
    const {status, stderr} = spawnSync('/bin/sh', [join(folder, 'early')], {
      env: {PATH: '/usr/bin:/bin'},
      encoding: 'utf8',
    });
    assert.equal(status, stderr.includes('are ignored') ? 1 : 0, stderr);
    const found: Record<string, string> = {};
    for (const kind of ['sriov', 'vfs']) {
      const at = join(folder, 'run/pearasys', kind);
      for (const name of fs.existsSync(at) ? fs.readdirSync(at) : [])
        found[`${kind}/${name}`] = fs.readFileSync(join(at, name), 'utf8');
    }
    return found;
  }

  for (const one of sriovCases)
    it(`${one.name} is ${one.drivers === undefined ? 'ignored' : 'used'} by TypeScript and the shell`, function () {
      if (!canTry(one)) this.skip();
      putFile(folder, physicalPath, one);
      const host = new MachineHost(folder);
      const {records, problems} = readSriovRecords(host, defaultLayout);
      const [record] = records;
      assert.deepEqual(early(), copiesFor(one), 'early');
      if (one.drivers === undefined) {
        assert.equal(record, undefined);
        assert.equal(problems.length, 1);
        return;
      }
      assert.ok(record !== undefined, JSON.stringify(problems));
      assert.deepEqual(
        one.drivers.map((_, index) => driverOf(record, index) ?? '-'),
        one.drivers,
      );
      assert.equal(record.autoprobe, one.autoprobe ?? false);
      const sriov = readSriov(host, pf, parseId(physical.id));
      assert.ok(sriov !== undefined);
      assert.deepEqual(
        Object.fromEntries(
          printCopies(record, record, sriov, parseSlot(physical.bridge)).map(({path, content}) => [
            path.replace('/run/pearasys/', ''),
            content,
          ]),
        ),
        copiesFor(one),
        'TypeScript',
      );
      assert.deepEqual(parseSriov(physicalPath, printSriov(record)), {
        ...parseSriov(physicalPath, one.content),
      });
    });

  const vfio = sriovCases.find(({name}) => name === 'with a driver');

  it('is left to the unit of the device if that tells only later where they are', () => {
    putFile(folder, physicalPath, {content: vfio?.content ?? ''});
    put(`sys/devices/pci0000:00/${physical.bridge}/${physical.slot}/sriov_offset`, '0\n');
    const copies = early();
    assert.deepEqual(Object.keys(copies), [`sriov/${physical.name}@${physical.bridge}`]);
    assert.doesNotMatch(Object.values(copies).join(''), /READY/);
  });

  it('is used for its card in another slot', () => {
    putFile(folder, physicalPath, {content: `${vfio?.content ?? ''}PEARASYS_PATH=${physical.path}\n`});
    fs.renameSync(
      join(folder, `sys/devices/pci0000:00/${physical.bridge}/${physical.slot}`),
      join(folder, `sys/devices/pci0000:00/${physical.bridge}/0000:08:00.0`),
    );
    fs.rmSync(join(folder, 'sys/bus/pci/devices', physical.slot));
    fs.symlinkSync(
      `../../../devices/pci0000:00/${physical.bridge}/0000:08:00.0`,
      join(folder, 'sys/bus/pci/devices/0000:08:00.0'),
    );
    const copies = early();
    assert.ok(`sriov/0000:08:00.0-0x8086-0x10c9@${physical.bridge}` in copies, JSON.stringify(copies));
    assert.match(
      copies[`vfs/0000:09:00.0-0x8086-0x10ca@${physical.bridge}`] ?? '',
      new RegExp(`^PEARASYS_PF=0000:08:00\\.0\nPEARASYS_SRIOV_RECORD=${physical.name}$`, 'm'),
    );
  });

  it('is left to the unit of its card in another slot if its functions have users', () => {
    const own = `sys/devices/pci0000:00/${physical.bridge}`;
    for (const [line, isReady] of [
      ['PEARASYS_USER=alice\nPEARASYS_MODE=0660\n', false],
      ['PEARASYS_MODE=0666\n', false],
      ['', true],
    ] as const) {
      putFile(folder, physicalPath, {
        content: `${vfio?.content ?? ''}PEARASYS_PATH=${physical.path}\n${line}`,
      });
      const read = (name: string) => /^PEARASYS_VF_READY=yes$/m.test(early()[`sriov/${name}`] ?? '');
      assert.equal(read(`${physical.name}@${physical.bridge}`), true);
      fs.renameSync(join(folder, own, physical.slot), join(folder, own, '0000:08:00.0'));
      fs.renameSync(
        join(folder, 'sys/bus/pci/devices', physical.slot),
        join(folder, 'sys/bus/pci/devices/0000:08:00.0'),
      );
      fs.rmSync(join(folder, 'sys/bus/pci/devices/0000:08:00.0'));
      fs.symlinkSync(
        `../../../${own.slice(4)}/0000:08:00.0`,
        join(folder, 'sys/bus/pci/devices/0000:08:00.0'),
      );
      assert.equal(read(`0000:08:00.0-0x8086-0x10c9@${physical.bridge}`), isReady, line);
      fs.rmSync(join(folder, 'sys/bus/pci/devices/0000:08:00.0'));
      fs.renameSync(join(folder, own, '0000:08:00.0'), join(folder, own, physical.slot));
      fs.symlinkSync(
        `../../../${own.slice(4)}/${physical.slot}`,
        join(folder, 'sys/bus/pci/devices', physical.slot),
      );
    }
  });

  it('is forgotten when it was removed before early runs again', () => {
    putFile(folder, physicalPath, {content: vfio?.content ?? ''});
    early();
    fs.rmSync(join(folder, physicalPath));
    assert.deepEqual(new Set(Object.values(early())), new Set(['']));
  });
});
