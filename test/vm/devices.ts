/**
 * The PCI devices of the test machine. Slots, ids and the members of groups are the same at every boot and in every
 * suite. The kernel assigns the group numbers, which must be read.
 *
 * | slot | QEMU device | id | host driver | module | group shared with |
 * | --- | --- | --- | --- | --- | --- |
 * | 00:00.0 | q35 host bridge | 8086:29c0 | none | | |
 * | 00:01.0 | VGA, the boot display | 1234:1111 | bochs-drm | bochs | |
 * | 00:02.0 | virtio-blk, the root disk | 1af4:1001 | virtio-pci | | |
 * | 00:03.0 | virtio-serial, the runner's own | 1af4:1003 | virtio-pci | | |
 * | 00:04.0 | virtio-9p, the checkout | 1af4:1009 | virtio-pci | | |
 * | 00:05.0 | virtio-net | 1af4:1000 | virtio-pci | | |
 * | 00:06.0 | e1000e with a network behind it | 8086:10d3 | e1000e | e1000e | |
 * | 00:08.0 | edu | 1234:11e8 | none | | |
 * | 00:09.0 | edu, twin of 08.0 | 1234:11e8 | none | | |
 * | 00:0a.0 | bochs-display, the card to pass | 1234:1111 | bochs-drm | bochs | 00:0a.1 |
 * | 00:0a.1 | ich9-intel-hda, its audio function | 8086:293e | snd_hda_intel | snd_hda_intel | 00:0a.0 |
 * | 00:10.0 | pcie-root-port | 1b36:000c | pcieport | | |
 * | 00:11.0 | pcie-root-port | 1b36:000c | pcieport | | |
 * | 00:12.0 | pcie-root-port | 1b36:000c | pcieport | | |
 * | 00:13.0 | pcie-root-port | 1b36:000c | pcieport | | |
 * | 00:14.0 | pcie-root-port `hotplug0`, empty | 1b36:000c | pcieport | | |
 * | 00:15.0 | pcie-root-port `hotplug1`, empty | 1b36:000c | pcieport | | |
 * | 00:18.0 | pcie-pci-bridge | 1b36:000e | none | | 07:01.0, 07:02.0 |
 * | 00:19.0 | pcie-root-port `hotplug2`, empty | 1b36:000c | pcieport | | |
 * | 00:1a.0 | pcie-root-port `hotplug3`, empty | 1b36:000c | pcieport | | |
 * | 00:1f.0 | ICH9 ISA bridge | 8086:2918 | lpc_ich | | 00:1f.2, 00:1f.3 |
 * | 00:1f.2 | ICH9 SATA | 8086:2922 | ahci | ahci | 00:1f.0, 00:1f.3 |
 * | 00:1f.3 | ICH9 SMBus | 8086:2930 | i801_smbus | i2c_i801 | 00:1f.0, 00:1f.2 |
 * | 01:00.0 | e1000e, nothing attached; twin of 00:06.0 | 8086:10d3 | e1000e | e1000e | |
 * | 02:00.0 | nvme, serial `disk0` | 1b36:0010 | nvme | nvme | |
 * | 03:00.0 | nvme, serial `disk1`; twin of 02:00.0 | 1b36:0010 | nvme | nvme | |
 * | 04:00.0 | nvme, serial `sriov`, up to 4 virtual functions 04:00.1 to 04:00.4 | 1b36:0010 | nvme | nvme | |
 * | 05:00.0 | free: what is added to `hotplug0` | | | | |
 * | 06:00.0 | free: what is added to `hotplug1` | | | | |
 * | 07:01.0 | e1000 | 8086:100e | e1000 | e1000 | 00:18.0, 07:02.0 |
 * | 07:02.0 | e1000, twin of 07:01.0 | 8086:100e | e1000 | e1000 | 00:18.0, 07:01.0 |
 * | 08:00.0 | free: what is added to `hotplug2` | | | | |
 * | 09:00.0 | free: what is added to `hotplug3` | | | | |
 */
export const DEVICES = {
  bootDisplay: {slot: '0000:00:01.0', id: '1234:1111', driver: 'bochs-drm', alone: true},
  virtioNet: {slot: '0000:00:05.0', id: '1af4:1000', driver: 'virtio-pci', alone: true},
  /** The name of its interface is enp0s6; the host has the address 10.0.2.2. */
  network: {slot: '0000:00:06.0', id: '8086:10d3', driver: 'e1000e', alone: true},
  edu0: {slot: '0000:00:08.0', id: '1234:11e8', driver: undefined, alone: true},
  edu1: {slot: '0000:00:09.0', id: '1234:11e8', driver: undefined, alone: true},
  /** A display card of two functions in one group, like a GPU with audio. */
  display: {slot: '0000:00:0a.0', id: '1234:1111', driver: 'bochs-drm', alone: false},
  displayAudio: {slot: '0000:00:0a.1', id: '8086:293e', driver: 'snd_hda_intel', alone: false},
  /** Unused; has the same id as `network`. */
  spareNetwork: {slot: '0000:01:00.0', id: '8086:10d3', driver: 'e1000e', alone: true},
  /** 256 MB, empty. */
  disk0: {slot: '0000:02:00.0', id: '1b36:0010', driver: 'nvme', alone: true},
  /** 256 MB, empty; has the same id as `disk0`. */
  disk1: {slot: '0000:03:00.0', id: '1b36:0010', driver: 'nvme', alone: true},
  /** `sriov_totalvfs` is 4. vfio-pci binds its virtual functions; nvme rejects them because they are not set up. */
  sriov: {slot: '0000:04:00.0', id: '1b36:0010', driver: 'nvme', alone: true},
  /** Twins that share one group with the bridge above them. */
  legacyBridge: {slot: '0000:00:18.0', id: '1b36:000e', driver: undefined, alone: false},
  legacy0: {slot: '0000:07:01.0', id: '8086:100e', driver: 'e1000', alone: false},
  legacy1: {slot: '0000:07:02.0', id: '8086:100e', driver: 'e1000', alone: false},
} as const;

/** An empty root port; each test takes its own with `machine.ports.take()`. */
export interface EmptyPort {
  readonly bus: string;
  readonly port: string;
  /** The slot of a device that is plugged in. */
  readonly slot: string;
  /** An empty disk, for an `nvme` in this port. */
  readonly drive: string;
}

export const EMPTY_PORTS: readonly EmptyPort[] = [
  {bus: 'hotplug0', port: '0000:00:14.0', slot: '0000:05:00.0', drive: 'spare0'},
  {bus: 'hotplug1', port: '0000:00:15.0', slot: '0000:06:00.0', drive: 'spare1'},
  {bus: 'hotplug2', port: '0000:00:19.0', slot: '0000:08:00.0', drive: 'spare2'},
  {bus: 'hotplug3', port: '0000:00:1a.0', slot: '0000:09:00.0', drive: 'spare3'},
];

const rootPorts = [
  ['port0', '10', 1],
  ['port1', '11', 2],
  ['port2', '12', 3],
  ['port3', '13', 4],
  ['hotplug0', '14', 5],
  ['hotplug1', '15', 6],
  ['hotplug2', '19', 7],
  ['hotplug3', '1a', 8],
] as const;

/**
 * QEMU's arguments for the table above.
 * @param folder contains the files of the disks: `disk0`, `disk1` and `sriov`
 */
export function deviceArguments(folder: string): string[] {
  const device = (...properties: string[]): string[] => ['-device', properties.join(',')];
  // Without a boot ROM: the machine does not boot from the network, and each ROM slows down each boot.
  const nic = (...properties: string[]): string[] => device(...properties, 'romfile=');
  const disk = (name: string): string[] => [
    '-blockdev',
    `driver=raw,node-name=${name},file.driver=file,file.filename=${folder}/${name},cache.no-flush=on`,
  ];
  return [
    ...device('VGA', 'addr=1'),
    ...['-netdev', 'user,id=net0', '-netdev', 'user,id=net1,restrict=on'],
    ...nic('virtio-net-pci', 'addr=5', 'netdev=net1'),
    ...nic('e1000e', 'addr=6', 'netdev=net0'),
    ...device('edu', 'addr=8'),
    ...device('edu', 'addr=9'),
    ...device('bochs-display', 'addr=a.0', 'multifunction=on'),
    ...['-audiodev', 'none,id=silence'],
    ...device('ich9-intel-hda', 'id=hda', 'addr=a.1'),
    ...device('hda-output', 'bus=hda.0', 'audiodev=silence'),
    ...rootPorts.flatMap(([id, slot, number]) =>
      device('pcie-root-port', `id=${id}`, `addr=${slot}`, `chassis=${number}`, `slot=${number}`),
    ),
    ...nic('e1000e', 'bus=port0'),
    ...disk('disk0'),
    ...device('nvme', 'bus=port1', 'drive=disk0', 'serial=disk0'),
    ...disk('disk1'),
    ...device('nvme', 'bus=port2', 'drive=disk1', 'serial=disk1'),
    ...disk('sriov'),
    ...device('nvme-subsys', 'id=subsystem'),
    ...device(
      ...['nvme', 'id=sriov', 'bus=port3', 'serial=sriov', 'subsys=subsystem'],
      ...['sriov_max_vfs=4', 'sriov_vq_flexible=8', 'sriov_vi_flexible=4'],
    ),
    ...device('nvme-ns', 'drive=sriov', 'bus=sriov'),
    ...EMPTY_PORTS.flatMap(({drive}) => [
      '-blockdev',
      `driver=null-co,node-name=${drive},size=67108864,read-zeroes=on`,
    ]),
    ...device('pcie-pci-bridge', 'id=legacy', 'addr=18'),
    ...nic('e1000', 'bus=legacy', 'addr=1'),
    ...nic('e1000', 'bus=legacy', 'addr=2'),
  ];
}
