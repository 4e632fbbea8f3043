import type {
  DiskDeclaration,
  DriverDeclaration,
  FunctionDeclaration,
  NetDeclaration,
  NvmeDeclaration,
  PartitionDeclaration,
  UsbDeclaration,
} from '../declaration.js';
import type {DeviceNode} from '../tree.js';

/** A class device that a driver makes: a network interface, a DRM card, a disk. */
export interface Part {
  /** Absolute path in /sys. */
  readonly path: string;
  readonly subsystem: string;
  /** Attributes; those in {@link writable} have mode 0644. */
  readonly files: Readonly<Record<string, string>>;
  readonly writable?: readonly string[];
  /** The node in /dev. */
  readonly node?: DeviceNode & {readonly path: string};
  readonly devtype?: string;
  /** Where the `device` link leads; none without it. */
  readonly device?: string;
  /** Links by path relative to the part. */
  readonly links?: Readonly<Record<string, string>>;
  /** Link in /sys/class or /sys/bus; default `/sys/class/<subsystem>/<name>`. */
  readonly classLinks?: readonly string[];
  /** Numbers it took, to be given back. */
  readonly numbers?: readonly string[];
}

/** Gives the lowest free number of a kind, as the kernel's ida_alloc(). */
export type Allocate = (kind: string, from?: number) => number;

const sectors = 1_000_215_216;

/** What this driver makes below the function: nothing when driver and hardware do not go together. */
export function partsOf(
  device: FunctionDeclaration,
  path: string,
  driver: DriverDeclaration,
  allocate: Allocate,
): Part[] {
  const gifts = new Set(driver.gives ?? []);
  const parts: Part[] = [];
  if (gifts.has('net')) for (const net of device.net ?? []) parts.push(netPart(net, path, allocate));
  if (gifts.has('drm') && device.drm !== undefined) parts.push(...drmParts(device, path, driver, allocate));
  if (gifts.has('sound') && device.sound === true) parts.push(...soundParts(path, driver, allocate));
  if (gifts.has('nvme') && device.nvme !== undefined) parts.push(...nvmeParts(device.nvme, path, allocate));
  if (gifts.has('disk') && device.disk !== undefined) parts.push(...diskParts(device.disk, path, allocate));
  if (gifts.has('usb') && device.usb !== undefined) parts.push(...usbParts(device.usb, path));
  if (gifts.has('uio')) parts.push(uioPart(path, allocate));
  return parts;
}

function netPart(net: NetDeclaration, path: string, allocate: Allocate): Part {
  const index = allocate('ifindex', 2);
  return {
    path: `${path}/net/${net.name}`,
    subsystem: 'net',
    device: path,
    numbers: [`ifindex ${index}`],
    files: {
      address: net.address,
      // NET_ADDR_PERM: the card's own.
      addr_assign_type: '0',
      // IFF_BROADCAST and IFF_MULTICAST always, IFF_UP when it is.
      flags: net.up === true ? '0x1003' : '0x1002',
      operstate: net.up === true && net.carrier !== false ? 'up' : 'down',
      carrier: net.up === true && net.carrier !== false ? '1' : '0',
      ifindex: String(index),
      iflink: String(index),
      mtu: '1500',
      type: '1',
      speed: net.up === true ? '1000' : '-1',
      uevent: `INTERFACE=${net.name}\nIFINDEX=${index}`,
    },
    writable: ['mtu', 'flags', 'uevent'],
  };
}

function drmParts(
  device: FunctionDeclaration,
  path: string,
  driver: DriverDeclaration,
  allocate: Allocate,
): Part[] {
  const card = allocate('drm card');
  const render = allocate('drm render', 128);
  const parts: Part[] = [
    characterPart(path, `drm/card${card}`, 'drm', 226, card, `dri/card${card}`, {
      devtype: 'drm_minor',
      numbers: [`drm card ${card}`],
    }),
    characterPart(path, `drm/renderD${render}`, 'drm', 226, render, `dri/renderD${render}`, {
      devtype: 'drm_minor',
      numbers: [`drm render ${render}`],
    }),
  ];
  for (const [connector, status] of Object.entries(device.drm?.connectors ?? {}))
    parts.push({
      path: `${path}/drm/card${card}/card${card}-${connector}`,
      subsystem: 'drm',
      device: `${path}/drm/card${card}`,
      devtype: 'drm_connector',
      files: {
        status,
        enabled: status === 'connected' && device.bootDisplay === true ? 'enabled' : 'disabled',
        dpms: status === 'connected' ? 'On' : 'Off',
        uevent: 'DEVTYPE=drm_connector',
      },
    });
  if (device.drm?.framebuffer === true) {
    const number = allocate('framebuffer');
    parts.push(
      characterPart(path, `graphics/fb${number}`, 'graphics', 29, number, `fb${number}`, {
        numbers: [`framebuffer ${number}`],
        files: {name: `${driver.name}drmfb`, virtual_size: '1920,1080', bits_per_pixel: '32'},
      }),
    );
  }
  return parts;
}

function soundParts(path: string, driver: DriverDeclaration, allocate: Allocate): Part[] {
  const number = allocate('sound card');
  const card = `${path}/sound/card${number}`;
  const minor = number * 32;
  const made = (name: string, offset: number): Part =>
    characterPart(path, `sound/card${number}/${name}`, 'sound', 116, minor + offset, `snd/${name}`, {
      device: card,
    });
  return [
    {
      path: card,
      subsystem: 'sound',
      device: path,
      numbers: [`sound card ${number}`],
      files: {id: number === 0 ? 'NVidia' : `NVidia_${number}`, number: String(number), uevent: ''},
    },
    made(`controlC${number}`, 0),
    made(`pcmC${number}D3p`, 19),
    {...made(`hwC${number}D0`, 6), files: {dev: `116:${minor + 6}`, vendor_name: driver.name, uevent: ''}},
  ];
}

function nvmeParts(nvme: NvmeDeclaration, path: string, allocate: Allocate): Part[] {
  const number = allocate('nvme');
  const controller = `${path}/nvme/nvme${number}`;
  const subsystem = `/sys/devices/virtual/nvme-subsystem/nvme-subsys${number}`;
  const disk = `nvme${number}n1`;
  const parts: Part[] = [
    characterPart(path, `nvme/nvme${number}`, 'nvme', 241, number, `nvme${number}`, {
      numbers: [`nvme ${number}`],
      files: {
        model: nvme.model.padEnd(40),
        serial: nvme.serial.padEnd(20),
        state: 'live',
        transport: 'pcie',
        address: path.slice(path.lastIndexOf('/') + 1),
      },
    }),
  ];
  const size = nvme.size ?? sectors;
  if (nvme.multipath === true) {
    // The path device has neither a node nor a number of its own: the kernel hides it.
    parts.push({
      path: `${controller}/nvme${number}c${number}n1`,
      subsystem: 'block',
      device: controller,
      devtype: 'disk',
      classLinks: [],
      files: {size: String(size), hidden: '1', uevent: 'DEVTYPE=disk'},
    });
    parts.push({
      path: subsystem,
      subsystem: 'nvme-subsystem',
      links: {[`nvme${number}`]: controller},
      files: {model: nvme.model, serial: nvme.serial, uevent: ''},
    });
  }
  const below = nvme.multipath === true ? subsystem : controller;
  return [...parts, ...blockParts(below, below, disk, 'p', 259, nvme.partitions ?? [], size, allocate)];
}

function diskParts(disk: DiskDeclaration, path: string, allocate: Allocate): Part[] {
  const device = `${path}/ata1/host0/target0:0:0/0:0:0:0`;
  return [
    {
      path: device,
      subsystem: 'scsi',
      classLinks: ['/sys/bus/scsi/devices/0:0:0:0'],
      files: {model: disk.model, vendor: 'ATA', type: '0', uevent: 'DEVTYPE=scsi_device\nDRIVER=sd'},
    },
    ...blockParts(
      `${device}/block`,
      device,
      disk.name,
      '',
      8,
      disk.partitions ?? [],
      disk.size ?? sectors,
      allocate,
    ),
  ];
}

function blockParts(
  folder: string,
  device: string,
  name: string,
  separator: string,
  major: number,
  partitions: readonly PartitionDeclaration[],
  size: number,
  allocate: Allocate,
): Part[] {
  const minor = allocate(`block ${major}`);
  const parts: Part[] = [
    {
      path: `${folder}/${name}`,
      subsystem: 'block',
      device,
      devtype: 'disk',
      classLinks: [`/sys/class/block/${name}`, `/sys/block/${name}`],
      numbers: [`block ${major} ${minor}`],
      node: {path: `/dev/${name}`, type: 'block', number: `${major}:${minor}`, mode: 0o660},
      files: {
        dev: `${major}:${minor}`,
        size: String(size),
        ro: '0',
        removable: '0',
        'queue/rotational': '0',
        'holders/.': '',
        'slaves/.': '',
        uevent: `MAJOR=${major}\nMINOR=${minor}\nDEVNAME=${name}\nDEVTYPE=disk`,
      },
    },
  ];
  partitions.forEach((partition, index) => {
    const own = allocate(`block ${major}`);
    const partName = `${name}${separator}${index + 1}`;
    parts.push({
      path: `${folder}/${name}/${partName}`,
      subsystem: 'block',
      devtype: 'partition',
      numbers: [`block ${major} ${own}`],
      node: {path: `/dev/${partName}`, type: 'block', number: `${major}:${own}`, mode: 0o660},
      files: {
        dev: `${major}:${own}`,
        partition: String(index + 1),
        size: String(partition.size ?? 1_048_576),
        start: String(2048 + index * 1_048_576),
        ro: '0',
        'holders/.': '',
        uevent: `MAJOR=${major}\nMINOR=${own}\nDEVNAME=${partName}\nDEVTYPE=partition\nPARTN=${index + 1}`,
      },
    });
  });
  return parts;
}

function usbParts(usb: UsbDeclaration, path: string): Part[] {
  const hub = `${path}/usb${usb.bus}`;
  const made = (place: string, name: string, device: number, product: string, id: string): Part => {
    const [vendor = '', model = ''] = id.split(':');
    const busName = String(usb.bus).padStart(3, '0');
    const deviceName = String(device).padStart(3, '0');
    const minor = (usb.bus - 1) * 128 + device - 1;
    return {
      path: place,
      subsystem: 'usb',
      devtype: 'usb_device',
      classLinks: [`/sys/bus/usb/devices/${name}`],
      node: {
        path: `/dev/bus/usb/${busName}/${deviceName}`,
        type: 'character',
        number: `189:${minor}`,
        mode: 0o664,
      },
      files: {
        busnum: String(usb.bus),
        devnum: String(device),
        dev: `189:${minor}`,
        idVendor: vendor,
        idProduct: model,
        product,
        uevent: `MAJOR=189\nMINOR=${minor}\nDEVNAME=bus/usb/${busName}/${deviceName}\nDEVTYPE=usb_device\nDRIVER=usb`,
      },
    };
  };
  return [
    made(hub, `usb${usb.bus}`, 1, 'xHCI Host Controller', '1d6b:0002'),
    ...(usb.devices ?? []).map(({port, product, id}, index) =>
      made(`${hub}/${port}`, port, index + 2, product, id),
    ),
  ];
}

function uioPart(path: string, allocate: Allocate): Part {
  const number = allocate('uio');
  return characterPart(path, `uio/uio${number}`, 'uio', 246, number, `uio${number}`, {
    numbers: [`uio ${number}`],
    files: {name: 'uio_pci_generic', version: '0.01.0'},
  });
}

/** What vfio makes for one device: its class device, whose node exists on kernels that have VFIO character devices. */
export function vfioPart(path: string, allocate: Allocate): Part {
  const number = allocate('vfio device');
  return {
    path: `${path}/vfio-dev/vfio${number}`,
    subsystem: 'vfio-dev',
    device: path,
    numbers: [`vfio device ${number}`],
    files: {uevent: ''},
  };
}

function characterPart(
  path: string,
  below: string,
  subsystem: string,
  major: number,
  minor: number,
  nodeName: string,
  more: {device?: string; devtype?: string; files?: Record<string, string>; numbers?: string[]} = {},
): Part {
  return {
    path: `${path}/${below}`,
    subsystem,
    device: more.device ?? path,
    ...(more.devtype === undefined ? {} : {devtype: more.devtype}),
    ...(more.numbers === undefined ? {} : {numbers: more.numbers}),
    node: {path: `/dev/${nodeName}`, type: 'character', number: `${major}:${minor}`, mode: 0o660},
    files: {
      ...more.files,
      dev: `${major}:${minor}`,
      uevent: `MAJOR=${major}\nMINOR=${minor}\nDEVNAME=${nodeName}${more.devtype === undefined ? '' : `\nDEVTYPE=${more.devtype}`}`,
    },
  };
}
