import {execFileSync} from 'node:child_process';
import fs from 'node:fs';
import {dirname, join} from 'node:path';
import {SimulatedHost} from '../simulated-host/simulated-host.js';

/** UUIDs of mediated devices: one that exists and is defined, one of each kind. */
export const uuids = {
  both: '11111111-1111-4111-8111-111111111111',
  active: '22222222-2222-4222-8222-222222222222',
  defined: '33333333-3333-4333-8333-333333333333',
} as const;

/** Names that others may choose, which a shell must take for nothing else. */
export const hostileNames: readonly string[] = [
  '$(touch ran)',
  '`touch ran`',
  'x;touch ran;',
  "it's; touch ran",
  'a"b"$(touch ran)',
  'back\\slash',
  'two words',
  'a:b:$(touch ran)',
  'x=$(touch ran)',
  '(touch ran)',
  '*',
  '~root',
  '#x',
  '!!',
  '${HOME}',
  '{a,b}',
  '%F{red}x',
  '日本',
];

/** Names that are not offered: they would be options, break the line, or reach the terminal as something else. */
export const hiddenNames: readonly string[] = [
  '-rf',
  'two\nlines',
  'a\ttab',
  'esc\u001b[31m',
  'c1\u009b31m',
  'direction\u202e',
];

/** A machine with a value of each kind, below a folder. */
export function completedMachine(): SimulatedHost {
  const host = SimulatedHost.standard();
  const {folder} = host.machine.tree;
  const files: Readonly<Record<string, string>> = {
    'usr/share/misc/pci.ids':
      '8086  Intel\n\t15bb  Ethernet Connection\n10de  NVIDIA\n\t1b80  GeForce\n\t10f0  Audio\nC 03  Display\n',
    'etc/passwd': 'root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n',
    'etc/group': 'root:x:0:\nkvm:x:106:\n',
    'etc/pearasys/guests/win11.conf': '',
    'etc/pearasys/guests/gpu-passthrough-guests.conf': '',
    'etc/libvirt/qemu/win11.xml': '',
    'etc/libvirt/qemu/debian.xml': '',
    'etc/pearasys/pci/0000:02:00.0-0x10de-0x1b80': '',
    'etc/pearasys/pci/any-0x8086-0x15bb': '',
    'etc/systemd/system/sys-bus-pci-devices-0000:02:00.0.device.wants/pearasys-0000:02:00.0@vfio-pci.service':
      '',
    'sys/class/mdev_bus/mtty/mdev_supported_types/mtty-2/name': 'Dual port serial\n',
    'sys/class/mdev_bus/mtty/mdev_supported_types/mtty-2/available_instances': '12\n',
    'sys/class/mdev_bus/0000:00:02.0/mdev_supported_types/i915-GVTg_V5_4/name': 'GVTg_V5_4\n',
    [`sys/class/mdev_bus/mtty/${uuids.both}/mdev_type`]: '',
    [`sys/class/mdev_bus/mtty/${uuids.active}/mdev_type`]: '',
    [`etc/mdevctl.d/mtty/${uuids.both}`]: '',
    [`etc/mdevctl.d/matrix/${uuids.defined}`]: '',
    'etc/mdevctl.d/scripts.d/callouts/one': '',
    'sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages': '0\n',
    'sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages': '0\n',
    'sys/kernel/mm/hugepages/hugepages-64kB/nr_hugepages': '0\n',
    'sys/devices/system/node/node0/meminfo': '',
    'sys/devices/system/node/node1/meminfo': '',
    'sys/devices/system/node/possible': '0-1\n',
    'sys/bus/pci/devices/0000:05:00.0/sriov_totalvfs': '7\n',
    'sys/bus/pci/devices/0000:05:00.0/sriov_numvfs': '0\n',
    'sys/bus/pci/devices/0000:05:00.0/vpd': '',
  };
  for (const [path, text] of Object.entries(files)) {
    fs.mkdirSync(dirname(join(folder, path)), {recursive: true});
    fs.rmSync(join(folder, path), {force: true});
    fs.writeFileSync(join(folder, path), text);
  }
  fs.symlinkSync('../0000:00:1c.4/0000:05:00.0', join(folder, 'sys/bus/pci/devices/0000:00:14.2/physfn'));
  return host;
}

/** Puts a pipe that nobody writes in the place of each file: whoever opens it waits forever. */
export function replaceByPipes(paths: readonly string[]): void {
  for (const path of paths) fs.rmSync(path);
  execFileSync('mkfifo', paths);
}
