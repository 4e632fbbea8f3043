import assert from 'node:assert/strict';
import {Pseudonyms, type Names} from '../../src/operations/pseudonyms.js';

const nobody: Names = {host: [], user: [], guest: [], volume: [], path: []};

describe('pseudonyms', () => {
  const cases: readonly [what: string, text: string, expected: string, names?: Partial<Names>][] = [
    [
      'one word for one thing, wherever it is',
      '52:54:00:ab:cd:ef, 52:54:00:00:00:01 and enx525400abcdef',
      'mac-1, mac-2 and enxmac-1',
    ],
    ['MAC addresses with dashes', '52-54-00-AB-CD-EF 52:54:00:ab:cd:ef', 'mac-1 mac-1'],
    [
      'UUIDs, also in names of units and without dashes',
      'mdev@12345678-1234-1234-1234-123456789abc.service dev-disk-12345678\\x2d1234\\x2d1234\\x2d1234\\x2d123456789abc 12345678123412341234123456789ABC',
      'mdev@uuid-1.service dev-disk-uuid-1 uuid-1',
    ],
    [
      'serial numbers of records',
      'PEARASYS_SERIAL=pcie:00-11-22-33-44-55-66-77\n0000:01:00.0 0x10de-0x1b80 vfio-pci - - nvme:S4EVNX0.',
      'PEARASYS_SERIAL=pcie:serial-1\n0000:01:00.0 0x10de-0x1b80 vfio-pci - - nvme:serial-2.',
    ],
    [
      'identifiers of disks',
      '/dev/disk/by-id/nvme-Samsung_S4EV-part1 and eui.0025385b71b0a1b2',
      '/dev/disk/by-id/disk-1 and eui.serial-1',
    ],
    [
      'addresses, but not those of each machine',
      'default via 192.168.1.1, fe80::1%eth0, 2001:db8::7/64, 127.0.0.1, ::1, 0.0.0.0.',
      'default via address-1, address-2%eth0, address-3/64, 127.0.0.1, ::1, 0.0.0.0.',
    ],
    [
      'paths of users, in text and in JSON',
      '"/home/alice/secret/disk.img", /run/media/alice/STICK: /mnt/tank',
      '"/home/path-1", /run/media/path-2: /mnt/path-3',
    ],
    [
      'mount points with blanks, and what is in them',
      'mounted on /data/My Disk/vm and /data/My Disk',
      'mounted on path-1 and path-2',
      {path: ['/data/My Disk']},
    ],
    [
      'names of guests, also escaped and as parts of names',
      'pearasys-guest@win\\x2d11.service /etc/pearasys/guests/win-11.conf machine-qemu\\x2d2\\x2dbig.scope, winter',
      'pearasys-guest@guest-1.service /etc/pearasys/guests/guest-2.conf machine-qemu\\x2d2\\x2dguest-3.scope, winter',
      {guest: ['win', 'win-11', 'win\\x2d11', 'big']},
    ],
    [
      'names of hosts, users and volumes',
      'box.example.org box bob bobby OWNER="bob" dm-0 (vg-root) /dev/mapper/vg-root boxes',
      'host-1 host-2 user-1 bobby OWNER="user-1" dm-0 (volume-1) /dev/mapper/volume-1 boxes',
      {host: ['box', 'box.example.org'], user: ['bob'], volume: ['vg-root']},
    ],
    [
      'no slots, ids, versions, times or digests',
      `0000:04:00.0 10de:1b80 10000:e1:00.0 6.1.0-18-amd64 10:15:12 systemd 252 (252.30-1~deb12u2) Foo::bar ${'ab'.repeat(32)}`,
      `0000:04:00.0 10de:1b80 10000:e1:00.0 6.1.0-18-amd64 10:15:12 systemd 252 (252.30-1~deb12u2) Foo::bar ${'ab'.repeat(32)}`,
    ],
    ['no word that stands for a name already', 'uuid bob', 'uuid user-1', {user: ['bob'], host: ['user']}],
  ];
  for (const [what, text, expected, names = {}] of cases)
    it(`replace ${what}`, () => {
      assert.equal(new Pseudonyms({...nobody, ...names}).replace(text), expected);
    });

  it('keep the keys and the other values of JSON', () => {
    const pseudonyms = new Pseudonyms({...nobody, guest: ['driver']});
    assert.deepEqual(pseudonyms.replaceIn({driver: ['driver', 1, null, true, {slot: '192.168.1.1'}]}), {
      driver: ['guest-1', 1, null, true, {slot: 'address-1'}],
    });
  });
});
