import type {FunctionDeclaration, MachineDeclaration} from './declaration.js';

/** Drivers that any machine here has, and the match tables of their modules. */
function drivers(): MachineDeclaration['drivers'] {
  return [
    {name: 'pcieport', aliases: ['pci:v*d*sv*sd*bc06sc04i00*', 'pci:v*d*sv*sd*bc06sc04i01*']},
    {name: 'nouveau', module: 'nouveau', aliases: ['pci:v000010DEd*sv*sd*bc03sc*i*'], gives: ['drm']},
    {
      name: 'snd_hda_intel',
      module: 'snd_hda_intel',
      aliases: ['pci:v000010DEd*sv*sd*bc04sc03i00*', 'pci:v00008086d0000A348sv*sd*bc*sc*i*'],
      gives: ['sound'],
      waitsForClose: true,
    },
    {name: 'nvme', module: 'nvme', aliases: ['pci:v*d*sv*sd*bc01sc08i02*'], gives: ['nvme']},
    {name: 'ahci', module: 'ahci', aliases: ['pci:v*d*sv*sd*bc01sc06i01*'], gives: ['disk']},
    {
      name: 'e1000e',
      module: 'e1000e',
      aliases: ['pci:v00008086d000015BBsv*sd*bc*sc*i*', 'pci:v00008086d000010D3sv*sd*bc*sc*i*'],
      gives: ['net'],
    },
    {
      name: 'igb',
      module: 'igb',
      aliases: ['pci:v00008086d000010C9sv*sd*bc*sc*i*'],
      gives: ['net'],
      configuresSriov: true,
    },
    {name: 'igbvf', module: 'igbvf', aliases: ['pci:v00008086d000010CAsv*sd*bc*sc*i*'], gives: ['net']},
    // The module is not named after the driver it registers.
    {name: 'xhci_hcd', module: 'xhci_pci', aliases: ['pci:v*d*sv*sd*bc0Csc03i30*'], gives: ['usb']},
    {
      name: 'vfio-pci',
      module: 'vfio_pci',
      aliases: ['vfio_pci:v*d*sv*sd*bc*sc*i*'],
      gives: ['vfio'],
      waitsForClose: true,
    },
    {
      name: 'mlx5_vfio_pci',
      module: 'mlx5_vfio_pci',
      aliases: ['vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i*'],
      gives: ['vfio'],
      waitsForClose: true,
    },
    {name: 'uio_pci_generic', module: 'uio_pci_generic', aliases: [], gives: ['uio']},
    {name: 'pci-stub', module: 'pci_stub', aliases: []},
  ];
}

function modules(): MachineDeclaration['modules'] {
  return [
    {name: 'drm', loaded: true},
    {name: 'nouveau', loaded: true, depends: ['drm'], parameters: {modeset: '-1'}},
    {name: 'snd_hda_intel', loaded: true, parameters: {power_save: '1'}},
    {name: 'nvme_core', loaded: true, parameters: {multipath: 'Y'}},
    {name: 'nvme', loaded: true, depends: ['nvme_core']},
    {name: 'ahci', loaded: true},
    {name: 'e1000e', loaded: true},
    {name: 'igb'},
    {name: 'igbvf'},
    {name: 'xhci_pci', loaded: true},
    {name: 'irqbypass'},
    {
      name: 'vfio',
      softdepPost: ['vfio_iommu_type1'],
      aliases: ['char-major-10-196'],
      parameters: {enable_unsafe_noiommu_mode: 'N'},
    },
    {name: 'vfio_iommu_type1', depends: ['vfio']},
    {name: 'vfio_pci_core', depends: ['irqbypass', 'vfio']},
    {
      name: 'vfio_pci',
      depends: ['vfio_pci_core', 'vfio'],
      parameters: {ids: '', disable_vga: 'N', disable_idle_d3: 'N', nointxmask: 'N', enable_sriov: 'N'},
    },
    {name: 'mlx5_vfio_pci', depends: ['vfio_pci_core', 'vfio']},
    {name: 'uio'},
    {name: 'uio_pci_generic', depends: ['uio']},
    {name: 'pci_stub', parameters: {ids: ''}},
    {name: 'i915', builtin: true},
  ];
}

function graphicsCard(slot: string, bridge: string, group: number, boot: boolean): FunctionDeclaration[] {
  return [
    {
      slot: `${slot}.0`,
      id: '10de:1b80',
      subsystem: '1043:8599',
      class: '030000',
      revision: 'a1',
      driver: 'nouveau',
      behind: bridge,
      group,
      resetMethods: ['flr', 'bus'],
      regions: [0x100_0000, 0x1000_0000, 0, 0x200_0000],
      ...(boot ? {bootDisplay: true} : {}),
      drm: {
        connectors: boot
          ? {'DP-1': 'connected', 'HDMI-A-1': 'disconnected'}
          : {'DP-2': 'disconnected', 'HDMI-A-2': 'disconnected'},
        framebuffer: boot,
      },
    },
    {
      slot: `${slot}.1`,
      id: '10de:10f0',
      subsystem: '1043:8599',
      class: '040300',
      revision: 'a1',
      driver: 'snd_hda_intel',
      behind: bridge,
      group,
      resetMethods: ['bus'],
      sound: true,
    },
  ];
}

function rootPort(slot: string, id: string, group: number): FunctionDeclaration {
  return {slot, id, class: '060400', revision: 'f0', driver: 'pcieport', group, resetMethods: ['pm']};
}

/**
 * The standard machine: two identical graphics cards with audio functions (the first has the display, its console
 * and the display manager; the second is idle), an NVMe disk with the root file system and an unused one, a
 * network card with the default route and an idle one, a USB controller, and VFIO's modules not yet loaded.
 * Each call gives a new value, which a test may change as it likes.
 */
export function standardMachine(): MachineDeclaration {
  return {
    release: '6.1.0-18-amd64',
    cmdline:
      'BOOT_IMAGE=/boot/vmlinuz-6.1.0-18-amd64 root=UUID=6f9619ff-8b86-d011-b42d-00cf4fc964ff ro quiet intel_iommu=on iommu=pt',
    iommu: 'dmar0',
    functions: [
      {slot: '0000:00:00.0', id: '8086:3e30', class: '060000', revision: '0a', group: 0},
      // The root port is in its card's group: there is no access control between them.
      rootPort('0000:00:01.0', '8086:1901', 1),
      rootPort('0000:00:01.1', '8086:1905', 2),
      {
        slot: '0000:00:14.0',
        id: '8086:a36d',
        class: '0c0330',
        revision: '10',
        driver: 'xhci_hcd',
        group: 3,
        resetMethods: ['pm'],
        usb: {bus: 1, devices: [{port: '1-1', product: 'USB Keyboard', id: '046d:c31c'}]},
      },
      {slot: '0000:00:14.2', id: '8086:a36f', class: '050000', revision: '10', group: 3},
      rootPort('0000:00:1c.0', '8086:a338', 4),
      rootPort('0000:00:1c.4', '8086:a33c', 5),
      rootPort('0000:00:1d.0', '8086:a330', 6),
      {slot: '0000:00:1f.0', id: '8086:a306', class: '060100', revision: '10', group: 7},
      {
        slot: '0000:00:1f.6',
        id: '8086:15bb',
        subsystem: '1028:0860',
        class: '020000',
        revision: '10',
        driver: 'e1000e',
        group: 8,
        resetMethods: ['pm'],
        net: [
          {
            name: 'eth0',
            address: '52:54:00:00:00:10',
            up: true,
            addresses: ['192.0.2.10/24', '2001:db8::10/64'],
          },
        ],
      },
      ...graphicsCard('0000:01:00', '0000:00:01.0', 1, true),
      ...graphicsCard('0000:02:00', '0000:00:01.1', 2, false),
      {
        slot: '0000:03:00.0',
        id: '144d:a808',
        subsystem: '144d:a801',
        class: '010802',
        driver: 'nvme',
        behind: '0000:00:1c.0',
        group: 9,
        numaNode: 0,
        resetMethods: ['flr', 'bus'],
        nvme: {
          model: 'Samsung SSD 970 EVO Plus 1TB',
          serial: 'S4EWNX0N000001',
          partitions: [{size: 1_048_576}, {size: 900_000_000}, {size: 16_777_216}],
        },
      },
      {
        slot: '0000:04:00.0',
        id: '144d:a80a',
        subsystem: '144d:a801',
        class: '010802',
        driver: 'nvme',
        behind: '0000:00:1d.0',
        group: 10,
        numaNode: 0,
        resetMethods: ['flr', 'bus'],
        nvme: {model: 'Samsung SSD 980 PRO 1TB', serial: 'S5GXNX0R000002'},
      },
      {
        slot: '0000:05:00.0',
        id: '8086:10d3',
        subsystem: '8086:a01f',
        class: '020000',
        driver: 'e1000e',
        behind: '0000:00:1c.4',
        group: 11,
        resetMethods: ['flr', 'pm', 'bus'],
        net: [{name: 'eth1', address: '52:54:00:00:00:11'}],
      },
    ],
    drivers: drivers(),
    modules: modules(),
    processes: [
      {pid: 1, comm: 'systemd', cmdline: ['/sbin/init'], cgroup: '/init.scope'},
      {
        pid: 812,
        comm: 'gdm3',
        cmdline: ['/usr/sbin/gdm3'],
        cgroup: '/system.slice/gdm.service',
        parent: 1,
      },
      {
        pid: 901,
        comm: 'Xorg',
        cmdline: ['/usr/lib/xorg/Xorg', 'vt1', '-displayfd', '3', '-keeptty'],
        cgroup: '/user.slice/user-1000.slice/session-2.scope',
        uid: 1000,
        parent: 812,
        holds: ['/dev/tty1', '/dev/dri/card0'],
        maps: ['/dev/dri/card0'],
      },
      {
        pid: 940,
        comm: 'pipewire',
        cmdline: ['/usr/bin/pipewire'],
        cgroup: '/user.slice/user-1000.slice/user@1000.service/session.slice/pipewire.service',
        uid: 1000,
        parent: 1,
        // It plays on this card.
        holds: ['/dev/snd/controlC0', '/dev/snd/pcmC0D3p'],
      },
    ],
    mounts: [
      {source: 'proc', target: '/proc', type: 'proc'},
      {source: 'sysfs', target: '/sys', type: 'sysfs'},
      {source: '/dev/nvme0n1p2', target: '/', type: 'ext4'},
      {source: '/dev/nvme0n1p1', target: '/boot/efi', type: 'vfat'},
      {source: 'tmpfs', target: '/run', type: 'tmpfs'},
    ],
    swaps: [{path: '/dev/nvme0n1p3', size: 8_388_604}],
    routes: [
      {interface: 'eth0', destination: '0.0.0.0/0', gateway: '192.0.2.1', metric: 100},
      {interface: 'eth0', destination: '192.0.2.0/24', metric: 100},
      {interface: 'eth0', destination: '2001:db8::/64', metric: 100},
      {interface: 'eth0', destination: '::/0', gateway: 'fe80::1', metric: 100},
    ],
    stacks: [],
    virtualInterfaces: [],
    claimed: [],
    displayManager: 'gdm.service',
    mdevParents: [],
    mdevs: {},
    files: {},
  };
}

/** A function of a declaration, to be changed. */
export function functionOf(machine: MachineDeclaration, slot: string): FunctionDeclaration {
  const found = machine.functions.find((each) => each.slot === slot);
  if (found === undefined) throw new Error(`the machine declares no ${slot}`);
  return found;
}

/** A network card with seven virtual functions, for {@link MachineDeclaration.functions}. Load `igb` for it. */
export function sriovCard(slot = '0000:06:00.0'): FunctionDeclaration {
  return {
    slot,
    id: '8086:10c9',
    subsystem: '8086:a03c',
    class: '020000',
    revision: '01',
    group: 20,
    resetMethods: ['flr', 'pm', 'bus'],
    net: [{name: 'eth2', address: '52:54:00:00:00:20'}],
    sriov: {total: 7, virtualId: '8086:10ca', offset: 128, stride: 2, group: 21},
  };
}

/**
 * Adds NVIDIA's own driver, not loaded. Unlike nouveau it waits, when unbound, for each of its nodes to be closed.
 * Both match the same cards: whose module is loaded first has them.
 */
export function addNvidia(machine: MachineDeclaration): void {
  machine.drivers.push({
    name: 'nvidia',
    module: 'nvidia',
    aliases: ['pci:v000010DEd*sv*sd*bc03sc02i00*', 'pci:v000010DEd*sv*sd*bc03sc00i00*'],
    gives: ['drm'],
    waitsForClose: true,
  });
  machine.modules.push({name: 'nvidia', depends: ['drm'], nodes: ['/dev/nvidiactl']});
}

/**
 * The machine as the kernel has found it before udev runs: only drivers that are part of the kernel have devices,
 * and no module is loaded. For tests of what `Userland.coldplug` makes of it.
 */
export function beforeUdev(machine: MachineDeclaration): void {
  const builtin = new Set(
    machine.drivers.filter((driver) => driver.module === undefined).map(({name}) => name),
  );
  for (const module of machine.modules) module.loaded = false;
  for (const each of machine.functions)
    if (each.driver !== undefined && !builtin.has(each.driver)) delete each.driver;
  machine.processes = machine.processes.filter(({pid}) => pid === 1);
  machine.routes = [];
  for (const each of machine.functions) for (const net of each.net ?? []) delete net.up;
}

/** A device that needs no hardware, as the kernel's sample mtty; and a graphics function with types of its own. */
export function addParents(machine: MachineDeclaration): void {
  machine.mdevParents.push(
    {
      name: 'mtty',
      path: '/sys/devices/virtual/mtty/mtty',
      driver: 'mtty',
      units: 22,
      types: [
        {name: 'mtty-1', units: 1, title: 'Single port serial'},
        {name: 'mtty-2', units: 2, title: 'Dual port serial'},
      ],
    },
    {
      name: '0000:02:00.0',
      driver: 'vgpu_vfio',
      units: 2,
      types: [
        {
          name: 'vgpu-1',
          units: 1,
          title: 'Small',
          description: 'memory: 1024MB\nresolution: 1920x1200\n',
          attributes: {frame_rate: /^\d{1,3}$/, licence: /^[a-z]+$/},
        },
        {name: 'vgpu-2', units: 2, description: 'memory: 2048MB\n'},
      ],
    },
  );
}
