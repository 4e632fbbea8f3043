import type {Command} from '@oclif/core/command';

/** A command in the table of commands: its line in the help, and its module. */
export interface CommandEntry {
  /** One line for the list of commands. */
  readonly summary: string;
  /** Not shown in the list of commands. */
  readonly hidden?: boolean;
  /** Loads the module of the command. Nothing else loads it. */
  readonly load: () => Promise<{readonly default: Command.Class}>;
}

/** Every command by its id: its words joined by colons. In the order of the help. */
export const commands: Readonly<Record<string, CommandEntry>> = {
  list: {
    summary: 'List the PCI devices with driver, IOMMU group, record and holders',
    load: () => import('./commands/list.js'),
  },
  show: {
    summary: 'Show one device',
    load: () => import('./commands/show.js'),
  },
  bind: {
    summary: 'Bind devices to a driver, all or none',
    load: () => import('./commands/bind.js'),
  },
  unbind: {
    summary: 'Unbind devices from their drivers, all or none',
    load: () => import('./commands/unbind.js'),
  },
  pci: {
    summary: "Write to the kernel's PCI attributes, in a chain",
    load: () => import('./commands/pci.js'),
  },
  confirm: {
    summary: 'Keep a change that was made with --confirm',
    load: () => import('./commands/confirm.js'),
  },
  'service:install': {
    summary: 'Claim devices at boot and at each hot-add',
    load: () => import('./commands/service/install.js'),
  },
  'service:uninstall': {
    summary: 'Undo `service install`',
    load: () => import('./commands/service/uninstall.js'),
  },
  'service:list': {
    summary: 'List records and units with their states',
    load: () => import('./commands/service/list.js'),
  },
  'service:set': {
    summary: 'Change the settings of a claimed device',
    load: () => import('./commands/service/set.js'),
  },
  'service:show': {
    summary: 'Show the settings of claimed devices',
    load: () => import('./commands/service/show.js'),
  },
  'service:adopt': {
    summary: 'Take over a card that was moved or replaced',
    load: () => import('./commands/service/adopt.js'),
  },
  'service:import': {
    summary: 'Import saved driverctl overrides',
    load: () => import('./commands/service/import.js'),
  },
  'boot:status': {
    summary: 'Show which claims the initramfs has, and what overrules them',
    load: () => import('./commands/boot/status.js'),
  },
  'boot:enable': {
    summary: 'Let claims take effect in the initramfs',
    load: () => import('./commands/boot/enable.js'),
  },
  'boot:disable': {
    summary: 'Let claims take effect only after the root file system is mounted',
    load: () => import('./commands/boot/disable.js'),
  },
  'sriov:set': {
    summary: 'Set how many virtual functions a device has, and their drivers',
    load: () => import('./commands/sriov/set.js'),
  },
  'sriov:list': {
    summary: 'List the devices that can have virtual functions, and those they have',
    load: () => import('./commands/sriov/list.js'),
  },
  'sriov:unset': {
    summary: 'Undo `sriov set`',
    load: () => import('./commands/sriov/unset.js'),
  },
  'driver:new-id': {
    summary: 'Give a driver every device with an id',
    load: () => import('./commands/driver/new-id.js'),
  },
  'driver:remove-id': {
    summary: 'Undo `driver new-id`',
    load: () => import('./commands/driver/remove-id.js'),
  },
  'driver:no-iommu': {
    summary: 'Let VFIO take devices without an IOMMU group, unsafely',
    load: () => import('./commands/driver/no-iommu.js'),
  },
  'guest:setup': {
    summary: 'Set which devices a guest takes when it starts',
    load: () => import('./commands/guest/setup.js'),
  },
  'guest:list': {
    summary: 'List the guests with their devices',
    load: () => import('./commands/guest/list.js'),
  },
  'guest:show': {
    summary: 'Show one guest',
    load: () => import('./commands/guest/show.js'),
  },
  'guest:remove': {
    summary: 'Undo `guest setup`',
    load: () => import('./commands/guest/remove.js'),
  },
  'guest:query': {
    summary: 'Print shell variables about guests',
    load: () => import('./commands/guest/query.js'),
  },
  'guest:of': {
    summary: 'Print the guests that take a device',
    load: () => import('./commands/guest/of.js'),
  },
  'guest:virsh-name': {
    summary: 'Print the name that virsh uses for a device',
    load: () => import('./commands/guest/virsh-name.js'),
  },
  'guest:install-hooks': {
    summary: "Make libvirt start and stop a guest's unit",
    load: () => import('./commands/guest/install-hooks.js'),
  },
  'guest:remove-hooks': {
    summary: 'Undo `guest install-hooks`',
    load: () => import('./commands/guest/remove-hooks.js'),
  },
  'mdev:types': {
    summary: 'List the parents of mediated devices and their types',
    load: () => import('./commands/mdev/types.js'),
  },
  'mdev:list': {
    summary: 'List mediated devices, or their definitions',
    load: () => import('./commands/mdev/list.js'),
  },
  'mdev:define': {
    summary: 'Define a mediated device',
    load: () => import('./commands/mdev/define.js'),
  },
  'mdev:undefine': {
    summary: 'Remove a definition',
    load: () => import('./commands/mdev/undefine.js'),
  },
  'mdev:modify': {
    summary: 'Change a definition or an existing device',
    load: () => import('./commands/mdev/modify.js'),
  },
  'mdev:start': {
    summary: 'Create a mediated device',
    load: () => import('./commands/mdev/start.js'),
  },
  'mdev:stop': {
    summary: 'Remove a mediated device',
    load: () => import('./commands/mdev/stop.js'),
  },
  'mdev:list-all': {
    summary: 'List all types, like the first mdevctl',
    hidden: true,
    load: () => import('./commands/mdev/list-all.js'),
  },
  'mdev:list-available': {
    summary: 'List the types with instances left, like the first mdevctl',
    hidden: true,
    load: () => import('./commands/mdev/list-available.js'),
  },
  'mdev:list-mdevs': {
    summary: 'List mediated devices, like the first mdevctl',
    hidden: true,
    load: () => import('./commands/mdev/list-mdevs.js'),
  },
  'mdev:list-saved': {
    summary: 'List definitions, like the first mdevctl',
    hidden: true,
    load: () => import('./commands/mdev/list-saved.js'),
  },
  'mdev:create-mdev': {
    summary: 'Define and start a mediated device, like the first mdevctl',
    hidden: true,
    load: () => import('./commands/mdev/create-mdev.js'),
  },
  'mdev:start-mdev': {
    summary: 'Start a defined device, like the first mdevctl',
    hidden: true,
    load: () => import('./commands/mdev/start-mdev.js'),
  },
  'mdev:stop-mdev': {
    summary: 'Remove a mediated device, like the first mdevctl',
    hidden: true,
    load: () => import('./commands/mdev/stop-mdev.js'),
  },
  'mdev:remove-mdev': {
    summary: 'Remove a device with its definitions, like the first mdevctl',
    hidden: true,
    load: () => import('./commands/mdev/remove-mdev.js'),
  },
  'vgpu:types': {
    summary: 'List the vGPU types that virtual functions can have',
    load: () => import('./commands/vgpu/types.js'),
  },
  'vgpu:set': {
    summary: 'Set the vGPU type of a virtual function',
    load: () => import('./commands/vgpu/set.js'),
  },
  'vgpu:list': {
    summary: 'List the virtual functions for NVIDIA vGPUs',
    load: () => import('./commands/vgpu/list.js'),
  },
  'hugepages:set': {
    summary: 'Set how many huge pages there are, now and at each boot',
    load: () => import('./commands/hugepages/set.js'),
  },
  'hugepages:show': {
    summary: 'Show the huge pages of each NUMA node',
    load: () => import('./commands/hugepages/show.js'),
  },
  'hugepages:clear': {
    summary: 'Free unused huge pages, and undo `hugepages set`',
    load: () => import('./commands/hugepages/clear.js'),
  },
  'userspace:status': {
    summary: 'Show which devices userspace drivers have or could have',
    load: () => import('./commands/userspace/status.js'),
  },
  'userspace:config': {
    summary: 'Give devices to programs such as DPDK and SPDK',
    load: () => import('./commands/userspace/config.js'),
  },
  'userspace:reset': {
    summary: 'Return devices from programs to the host',
    load: () => import('./commands/userspace/reset.js'),
  },
  report: {
    summary: 'Collect what is needed to find a problem, without private data',
    load: () => import('./commands/report.js'),
  },
  completion: {
    summary: 'Print or install the completion script for your shell',
    load: () => import('./commands/completion.js'),
  },
};

/** Descriptions of the first words of commands with several words. */
export const topics: Readonly<Record<string, string>> = {
  service: 'Claim devices at boot and at each hot-add',
  boot: 'Let claims take effect in the initramfs',
  sriov: 'Create virtual functions at each boot, and give them to their drivers',
  driver: 'Change which devices a driver takes by itself',
  guest: 'Give devices to virtual machines while they run',
  vgpu: 'NVIDIA vGPUs on virtual functions, without mediated devices',
  hugepages: 'Allocate huge pages, now and at each boot',
  userspace: 'Give disks, network cards and accelerators to DPDK and SPDK',
  mdev: 'Manage mediated devices: parents, types, definitions, start and stop',
};
