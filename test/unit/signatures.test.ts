/** The disks of the tests in the virtual machine, checked by this machine's blkid. */
import assert from 'node:assert/strict';
import {execFileSync} from 'node:child_process';
import {mkdtempSync, openSync, rmSync, truncateSync, writeFileSync, writeSync, closeSync} from 'node:fs';
import {tmpdir} from 'node:os';
import path from 'node:path';
import {encryptedVolume, guidTable, physicalVolume, raidMember} from '../vm/signatures.js';

const size = 64 << 20;

describe('the signatures of the test disks', () => {
  let folder: string;
  before(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'pearasys-signatures-'));
  });
  after(() => rmSync(folder, {recursive: true}));

  for (const [name, bytes, expected] of [
    ['a GUID partition table', guidTable(size / 512), /^PTTYPE=gpt$/m],
    ['an LVM physical volume', physicalVolume(), /^TYPE=LVM2_member$/m],
    ['a RAID member', raidMember(), /^TYPE=linux_raid_member$/m],
    ['an encrypted volume', encryptedVolume(), /^TYPE=crypto_LUKS$/m],
  ] as const)
    it(`${name} is one for libblkid`, function () {
      const file = path.join(folder, 'disk');
      writeFileSync(file, '');
      truncateSync(file, size);
      const disk = openSync(file, 'r+');
      writeSync(disk, bytes);
      closeSync(disk);
      const output = execFileSync('blkid', ['-p', '-o', 'export', '--', file], {
        encoding: 'utf8',
        env: {PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`},
      });
      assert.match(output, expected);
    });
});
