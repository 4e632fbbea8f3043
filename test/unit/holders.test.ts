import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import {dirname, join, relative} from 'node:path';
import {FileError} from '../../src/host/errors.js';
import type {FileInfo} from '../../src/host/host.js';
import {MachineHost} from '../../src/host/machine-host.js';
import {readDevice, readDevices, type Device} from '../../src/devices/pci/device.js';
import {readHolders, seesAllProcesses} from '../../src/usage/holders.js';
import type {Holder} from '../../src/usage/holder.js';
import {readModuleUsers} from '../../src/usage/module-users.js';
import {adviseOnHolder, describeHolder} from '../../src/usage/words.js';
import {parseSlot, type Slot} from '../../src/devices/pci/slot.js';

const root = '/sys/devices/pci0000:00';
const card = parseSlot('0000:01:00.0');
const other = parseSlot('0000:02:00.0');
const cardPath = `${root}/0000:00:01.0/${card}`;
const otherPath = `${root}/0000:00:02.0/${other}`;

interface Facts {
  readonly driver?: string;
  readonly class?: string;
  readonly group?: number;
  readonly bootDisplay?: boolean;
}

/** A tree of just what a test is about, with what a folder cannot hold: numbers of nodes, addresses, claims. */
class Tree extends MachineHost {
  override userId = 0;
  readonly claimed: string[] = [];
  readonly asked: string[] = [];
  readonly reads: string[] = [];
  readonly stats: string[] = [];
  readonly numbers: Record<string, string> = {};
  readonly carried: Record<string, string[]> = {};
  readonly unreadable: Record<string, string> = {};

  constructor() {
    super(fs.mkdtempSync(join(os.tmpdir(), 'pearasys-holders-')));
  }

  override addresses(): ReadonlyMap<string, readonly string[]> {
    return new Map(Object.entries(this.carried));
  }

  override isClaimedByKernel(node: string): boolean {
    this.asked.push(node);
    return this.claimed.includes(node);
  }

  override info(path: string, follow?: boolean): FileInfo | undefined {
    this.stats.push(path);
    const deviceNumber = this.numbers[path];
    return deviceNumber === undefined
      ? super.info(path, follow)
      : {kind: 'device', uid: 0, gid: 0, mode: 0o600, size: 0, modified: 0, deviceNumber};
  }

  override readText(path: string): string | undefined {
    this.reads.push(path);
    const errno = this.unreadable[path];
    // As MachineHost has it: what has gone is no error.
    if (errno === 'ESRCH') return undefined;
    if (errno !== undefined) throw new FileError('reading', path, errno);
    return super.readText(path);
  }

  override list(path: string): string[] {
    this.reads.push(path);
    return this.unreadable[path] === undefined ? super.list(path) : [];
  }

  write(path: string, text = ''): void {
    fs.mkdirSync(dirname(this.root + path), {recursive: true});
    fs.writeFileSync(this.root + path, `${text}\n`);
  }

  folder(path: string): void {
    fs.mkdirSync(this.root + path, {recursive: true});
  }

  link(path: string, text: string): void {
    fs.mkdirSync(dirname(this.root + path), {recursive: true});
    fs.symlinkSync(text, this.root + path);
  }

  /** A relative link, as sysfs has them; its target need not be there. */
  sysLink(path: string, target: string): void {
    this.link(path, relative(dirname(path), target));
  }

  device(path: string, facts: Facts = {}): Device {
    const slot = parseSlot(path.slice(path.lastIndexOf('/') + 1));
    const driver = facts.driver === undefined ? '' : `DRIVER=${facts.driver}\n`;
    this.write(`${path}/uevent`, `${driver}PCI_CLASS=${facts.class ?? '30000'}\nPCI_ID=10DE:1B80`);
    if (facts.bootDisplay === true) this.write(`${path}/boot_vga`, '1');
    if (facts.group !== undefined) {
      this.sysLink(`${path}/iommu_group`, `/sys/kernel/iommu_groups/${facts.group}`);
      this.sysLink(`/sys/kernel/iommu_groups/${facts.group}/devices/${slot}`, path);
    }
    this.sysLink(`/sys/bus/pci/devices/${slot}`, path);
    const device = readDevice(this, slot);
    assert(device !== undefined);
    return device;
  }

  char(number: string, path: string, name: string): void {
    this.write(`${path}/uevent`, `MAJOR=1\nDEVNAME=${name}`);
    this.sysLink(`/sys/dev/char/${number}`, path);
  }

  block(number: string, path: string, holders: readonly string[] = []): void {
    this.write(`${path}/dev`, number);
    this.sysLink(`/sys/dev/block/${number}`, path);
    for (const holder of holders)
      this.sysLink(`${path}/holders/${holder}`, `/sys/devices/virtual/block/${holder}`);
  }

  mapped(number: string, kernelName: string, name: string, holders: readonly string[] = []): void {
    this.block(number, `/sys/devices/virtual/block/${kernelName}`, holders);
    this.write(`/sys/devices/virtual/block/${kernelName}/dm/name`, name);
  }

  mounts(...lines: readonly string[]): void {
    this.write('/proc/self/mountinfo', lines.join('\n'));
  }

  /** The number of the node that an open file is, on a file system of a type. */
  number(pid: number, file: number, number: string, type = 'devtmpfs'): void {
    this.numbers[`/proc/${pid}/fd/${file}`] = number;
    this.write(`/proc/${pid}/fdinfo/${file}`, `pos:\t0\nflags:\t0100002\nmnt_id:\t${1000 + pid}\nino:\t321`);
    this.write(
      `/proc/${pid}/mountinfo`,
      `${1000 + pid} 24 0:5 / /dev rw,nosuid shared:2 - ${type} source rw`,
    );
  }

  process(pid: number, command: string, cgroup: string, open: readonly string[], parent = 1): void {
    this.write(`/proc/${pid}/comm`, command);
    this.write(`/proc/${pid}/cgroup`, `0::${cgroup}`);
    this.write(`/proc/${pid}/stat`, `${pid} (${command}) S ${parent} ${pid} ${pid} 0 -1`);
    open.forEach((link, index) => this.link(`/proc/${pid}/fd/${index}`, link));
  }

  displayManager(unit: string): void {
    this.link('/etc/systemd/system/display-manager.service', `/usr/lib/systemd/system/${unit}`);
  }

  net(
    name: string,
    path: string,
    facts: {
      up?: boolean;
      uppers?: readonly string[];
      state?: string;
      /** DEVTYPE */
      type?: string;
      index?: number;
      /** The index of the interface that it is on, or a pair with. */
      link?: number;
      tap?: boolean;
      /** Number of the node of a macvtap. */
      node?: string;
    } = {},
  ): void {
    const folder = `${path}/net/${name}`;
    if (facts.type !== undefined) this.write(`${folder}/uevent`, `DEVTYPE=${facts.type}\nINTERFACE=${name}`);
    if (facts.index !== undefined) {
      this.write(`${folder}/ifindex`, String(facts.index));
      this.write(`${folder}/iflink`, String(facts.link ?? facts.index));
    }
    if (facts.tap === true) this.write(`${folder}/tun_flags`, '0x1002');
    if (facts.node !== undefined) this.write(`${folder}/macvtap/tap${facts.index ?? 0}/dev`, facts.node);
    this.write(`${folder}/flags`, facts.up === false ? '0x1002' : '0x1003');
    this.write(`${folder}/operstate`, facts.state ?? 'up');
    for (const upper of facts.uppers ?? [])
      this.sysLink(`${folder}/upper_${upper}`, `/sys/devices/virtual/net/${upper}`);
    this.sysLink(`/sys/class/net/${name}`, folder);
  }

  routes(...lines: readonly string[]): void {
    const header = 'Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT';
    this.write('/proc/net/route', [header, ...lines].join('\n'));
  }

  held(...devices: readonly Device[]): Holder[] {
    return readHolders(this, devices);
  }
}

/** Lines of /proc/net/route on a little-endian machine. */
const defaultVia1 = (name: string) => `${name}\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0  `;
const net192 = (name: string) => `${name}\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0  `;

describe('holders', () => {
  let tree: Tree;

  beforeEach(() => (tree = new Tree()));
  afterEach(() => fs.rmSync(tree.root, {recursive: true}));

  const process = (slot: Slot, more: Partial<Holder & {kind: 'process'}> = {}): Holder => ({
    kind: 'process',
    slot,
    class: 'yields',
    harm: 'overridable',
    pid: 812,
    command: 'Xorg',
    unit: 'gdm.service',
    nodes: ['/dev/dri/card0'],
    displayManager: false,
    ...more,
  });

  it('do not exist without devices, and nothing is read', () => {
    assert.deepEqual(readHolders(tree, []), []);
    assert.deepEqual(tree.reads, []);
  });

  describe('processes', () => {
    it('cannot change a terminal or a log', () => {
      const device = tree.device(cardPath, {driver: 'nouveau'});
      tree.char('226:0', `${cardPath}/drm/card0`, 'dri/card0');
      tree.process(812, 'a\u001B[2J\nb', '/system.slice/x.service', ['/dev/dri/card0']);
      const held = tree.held(device);
      assert.deepEqual(
        held.map((holder) => holder.kind === 'process' && holder.command),
        ['a\u001B[2J\nb'],
      );
      assert.deepEqual(held.map(describeHolder), [
        'process 812 (a\\x1b[2J\\x0ab) of x.service has /dev/dri/card0 open',
      ]);
    });

    it('have a node of the device open, by its path', () => {
      const device = tree.device(cardPath, {driver: 'nouveau'});
      tree.char('226:0', `${cardPath}/drm/card0`, 'dri/card0');
      tree.char('226:128', `${cardPath}/drm/renderD128`, 'dri/renderD128');
      tree.char('1:3', '/sys/devices/virtual/mem/null', 'null');
      tree.process(812, 'Xorg', '/system.slice/gdm.service', [
        '/dev/null',
        'socket:[4711]',
        '/dev/dri/renderD128',
        '/dev/dri/card0',
        '/dev/dri/card0',
      ]);
      tree.process(900, 'sshd', '/system.slice/ssh.service', ['/dev/null']);
      assert.deepEqual(tree.held(device), [
        process(card, {nodes: ['/dev/dri/card0', '/dev/dri/renderD128']}),
      ]);
    });

    it('count for each device whose node they have open', () => {
      const first = tree.device(cardPath);
      const second = tree.device(otherPath);
      tree.char('226:0', `${cardPath}/drm/card0`, 'dri/card0');
      tree.char('226:1', `${otherPath}/drm/card1`, 'dri/card1');
      tree.process(900, 'b', '/', ['/dev/dri/card1']);
      tree.process(1000, 'c', '/', ['/dev/dri/card1', '/dev/dri/card0']);
      const of = (slot: Slot, pid: number, command: string, node: string) =>
        process(slot, {pid, command, unit: undefined, nodes: [node]});
      assert.deepEqual(tree.held(second, first), [
        of(other, 900, 'b', '/dev/dri/card1'),
        of(other, 1000, 'c', '/dev/dri/card1'),
        of(card, 1000, 'c', '/dev/dri/card0'),
      ]);
    });

    it('are found by the number of the node, in a container or after its removal', () => {
      const device = tree.device(cardPath);
      tree.char('226:0', `${cardPath}/drm/card0`, 'dri/card0');
      tree.process(7, 'a', '/', ['/srv/jail/dev/gpu']);
      tree.process(8, 'b', '/', ['/dev/dri/card0 (deleted)']);
      tree.process(9, 'c', '/', ['/dev/gpu']);
      tree.number(7, 0, '226:0');
      tree.number(8, 0, '226:0');
      tree.number(9, 0, '226:1');
      const of = (pid: number, command: string) => process(card, {pid, command, unit: undefined});
      assert.deepEqual(tree.held(device), [of(7, 'a'), of(8, 'b')]);
    });

    for (const type of ['fuse.sshfs', 'fuse', 'nfs4', '9p', 'cifs', 'autofs', 'overlay'])
      it(`are not checked on ${type}, which may never respond`, () => {
        const device = tree.device(cardPath);
        tree.char('226:0', `${cardPath}/drm/card0`, 'dri/card0');
        tree.process(7, 'a', '/', ['/srv/jail/dev/gpu']);
        tree.number(7, 0, '226:0', type);
        assert.deepEqual(tree.held(device), []);
        assert.ok(!tree.stats.includes('/proc/7/fd/0'));
      });

    it('are not checked if the file system is unknown', () => {
      const device = tree.device(cardPath);
      tree.char('226:0', `${cardPath}/drm/card0`, 'dri/card0');
      tree.process(7, 'a', '/', ['/dev/gpu']);
      tree.number(7, 0, '226:0');
      fs.rmSync(`${tree.root}/proc/7/mountinfo`);
      assert.deepEqual(tree.held(device), []);
      assert.ok(!tree.stats.includes('/proc/7/fd/0'));
    });

    it('with a character device of the same number as a disk are distinguished', () => {
      const device = tree.device(cardPath, {class: '10802'});
      tree.block('254:0', `${cardPath}/virtio1/block/vda`);
      tree.char('254:0', '/sys/devices/virtual/gpio/gpiochip0', 'gpiochip0');
      tree.process(7, 'a', '/', ['/dev/gpiochip0']);
      tree.process(8, 'b', '/', ['/jail/dev/vda']);
      tree.number(7, 0, '254:0');
      tree.number(8, 0, '254:0');
      assert.deepEqual(tree.held(device), [
        process(card, {pid: 8, command: 'b', unit: undefined, nodes: ['/dev/vda']}),
      ]);
    });

    it('may have a disk, USB, or UIO node', () => {
      const device = tree.device(cardPath);
      tree.block('8:0', `${cardPath}/ata1/host0/target0:0:0/0:0:0:0/block/sda`);
      tree.char('189:1', `${cardPath}/usb1/1-2`, 'bus/usb/001/002');
      tree.char('239:0', `${cardPath}/uio/uio0`, 'uio0');
      const nodes = ['/dev/bus/usb/001/002', '/dev/sda', '/dev/uio0'];
      tree.process(812, 'Xorg', '/system.slice/gdm.service', nodes);
      assert.deepEqual(tree.held(device), [process(card, {nodes})]);
    });

    it('may be userspace drivers that use the files in sysfs', () => {
      const device = tree.device(cardPath);
      tree.char('239:0', `${cardPath}/uio/uio0`, 'uio0');
      tree.process(5, 'dpdk', '/', [
        `${cardPath}/resource0`,
        `${cardPath}/config`,
        `${cardPath}/resource2_wc`,
      ]);
      tree.process(6, 'sensors', '/', [`${cardPath}/hwmon/hwmon0/temp1_input`, `${otherPath}/resource0`]);
      assert.deepEqual(tree.held(device), [
        process(card, {
          pid: 5,
          command: 'dpdk',
          unit: undefined,
          nodes: ['config', 'resource0', 'resource2_wc'].map(
            (file) => `/sys/bus/pci/devices/${card}/${file}`,
          ),
        }),
      ]);
    });

    it('are not searched if the devices have no node', () => {
      const device = tree.device(cardPath);
      tree.process(5, 'dpdk', '/', [`${cardPath}/resource0`]);
      assert.deepEqual(tree.held(device), []);
      assert(!tree.reads.includes('/proc'));
    });

    it('that end during the search are omitted', () => {
      const device = tree.device(cardPath);
      tree.char('226:0', `${cardPath}/drm/card0`, 'dri/card0');
      for (const pid of [1001, 1002, 1003, 1004]) tree.process(pid, 'x', '/', ['/dev/dri/card0']);
      fs.rmSync(`${tree.root}/proc/1001/comm`);
      tree.unreadable['/proc/1002/comm'] = 'ESRCH';
      tree.unreadable['/proc/1003/fd'] = 'ENOENT';
      tree.unreadable['/proc/1004/cgroup'] = 'ESRCH';
      assert.deepEqual(tree.held(device), [process(card, {pid: 1004, command: 'x', unit: undefined})]);
    });

    it('whose files cannot be read for another reason are an error', () => {
      const device = tree.device(cardPath);
      tree.char('226:0', `${cardPath}/drm/card0`, 'dri/card0');
      tree.process(1001, 'x', '/', ['/dev/dri/card0']);
      tree.unreadable['/proc/1001/comm'] = 'EIO';
      assert.throws(() => tree.held(device), {name: 'FileError', errno: 'EIO'});
    });

    it('of others are not visible without privileges', () => {
      const device = tree.device(cardPath);
      tree.char('226:0', `${cardPath}/drm/card0`, 'dri/card0');
      tree.process(1001, 'x', '/', ['/dev/dri/card0']);
      tree.unreadable['/proc/1001/fd'] = 'EACCES';
      assert.deepEqual(tree.held(device), []);
      assert.equal(seesAllProcesses(tree), true);
      tree.userId = 1000;
      assert.equal(seesAllProcesses(tree), false);
    });

    const units: readonly [cgroup: string, unit: string | undefined, user?: number][] = [
      ['0::/', undefined],
      ['0::/init.scope', 'init.scope'],
      ['0::/system.slice/system-getty.slice/getty@tty1.service', 'getty@tty1.service'],
      ['0::/user.slice/user-1000.slice/session-2.scope', 'session-2.scope'],
      [
        '0::/user.slice/user-1000.slice/user@1000.service/app.slice/pipewire.service',
        'pipewire.service',
        1000,
      ],
      ['0::/user.slice/user-1000.slice/user@1000.service/init.scope', 'init.scope', 1000],
      ['0::/user.slice/user-1000.slice/user@1000.service', 'user@1000.service'],
      [
        '0::/machine.slice/machine-qemu\\x2d1\\x2dwin.scope/libvirt/emulator',
        'machine-qemu\\x2d1\\x2dwin.scope',
      ],
      [
        '0::/machine.slice/systemd-nspawn@box.service/payload/system.slice/nginx.service',
        'systemd-nspawn@box.service',
      ],
      ['9:name=systemd:/system.slice/a.service\n4:memory:/b.service\n0::/c.service', 'a.service'],
    ];
    for (const [cgroup, unit, user] of units)
      it(`are in the unit of their control group: ${cgroup.split('\n')[0]}`, () => {
        const device = tree.device(cardPath);
        tree.char('226:0', `${cardPath}/drm/card0`, 'dri/card0');
        tree.process(812, 'Xorg', '', ['/dev/dri/card0']);
        tree.write('/proc/812/cgroup', cgroup);
        assert.deepEqual(tree.held(device), [
          process(card, {unit, ...(user === undefined ? {} : {unitUser: user})}),
        ]);
      });

    it('are the display manager in its unit, under its name or its alias', () => {
      const device = tree.device(cardPath);
      tree.char('226:0', `${cardPath}/drm/card0`, 'dri/card0');
      tree.process(812, 'Xorg', '/system.slice/gdm.service', ['/dev/dri/card0']);
      tree.write('/usr/lib/systemd/system/gdm.service');
      tree.link('/usr/lib/systemd/system/gdm3.service', 'gdm.service');
      tree.link(
        '/etc/systemd/system/display-manager.service',
        '../../../usr/lib/systemd/system/gdm3.service',
      );
      assert.deepEqual(tree.held(device), [process(card, {displayManager: true})]);
    });

    it('belong to the display manager when it started them as display servers in a session', () => {
      const device = tree.device(cardPath);
      const session = '/user.slice/user-1000.slice/session-2.scope';
      tree.char('226:0', `${cardPath}/drm/card0`, 'dri/card0');
      tree.char('226:128', `${cardPath}/drm/renderD128`, 'dri/renderD128');
      tree.displayManager('gdm.service');
      tree.process(700, 'gdm', '/system.slice/gdm.service', []);
      tree.process(710, 'gdm worker) x', session, [], 700);
      tree.process(812, 'Xorg', session, ['/dev/dri/card0'], 710);
      tree.process(820, 'firefox', session, ['/dev/dri/renderD128'], 812);
      tree.process(830, 'startx', session, ['/dev/dri/card0'], 2);
      const unit = 'session-2.scope';
      assert.deepEqual(tree.held(device), [
        process(card, {unit, displayManager: true}),
        process(card, {pid: 820, command: 'firefox', unit, nodes: ['/dev/dri/renderD128']}),
        process(card, {pid: 830, command: 'startx', unit}),
      ]);
    });

    it('may have a loop of parents', () => {
      const device = tree.device(cardPath);
      tree.char('226:0', `${cardPath}/drm/card0`, 'dri/card0');
      tree.displayManager('gdm.service');
      tree.process(5, 'a', '/', ['/dev/dri/card0'], 6);
      tree.process(6, 'b', '/', [], 5);
      assert.deepEqual(tree.held(device), [process(card, {pid: 5, command: 'a', unit: undefined})]);
    });
  });

  describe('have the class of the driver’s removal while their node is open', () => {
    const usb = `${cardPath}/usb3/3-1/3-1:1.0`;
    const kinds: readonly [node: string, path: string, class_: Holder['class'], driver?: string][] = [
      ['vfio/devices/vfio0', `${cardPath}/vfio-dev/vfio0`, 'blocks', 'vfio-pci'],
      ['snd/controlC1', `${cardPath}/sound/card1/controlC1`, 'blocks', 'snd_hda_intel'],
      ['snd/pcmC1D0p', `${cardPath}/sound/card1/pcmC1D0p`, 'blocks', 'snd_hda_intel'],
      ['snd/hwC1D0', `${cardPath}/sound/card1/hwC1D0`, 'blocks', 'snd_hda_intel'],
      ['i2c-4', `${cardPath}/i2c-4/i2c-dev/i2c-4`, 'blocks', 'nouveau'],
      ['dri/card0', `${cardPath}/drm/card0`, 'yields', 'nvidia'],
      ['dri/renderD128', `${cardPath}/drm/renderD128`, 'yields', 'amdgpu'],
      ['infiniband/uverbs0', `${cardPath}/infiniband_verbs/uverbs0`, 'yields', 'mlx5_core'],
      ['infiniband/uverbs0', `${cardPath}/infiniband_verbs/uverbs0`, 'blocks', 'ib_mthca'],
      ['dvb/adapter0/demux0', `${cardPath}/dvb/dvb0.demux0`, 'blocks', 'cx23885'],
      ['dvb/adapter0/frontend0', `${cardPath}/dvb/dvb0.frontend0`, 'yields', 'cx23885'],
      ['vhost-vdpa-0', `${cardPath}/vdpa0/vhost-vdpa-0`, 'blocks', 'virtio-pci'],
      ['fw0', `${cardPath}/fw0`, 'blocks', 'firewire_ohci'],
      ['uio0', `${cardPath}/uio/uio0`, 'yields', 'uio_pci_generic'],
      ['nvme0', `${cardPath}/nvme/nvme0`, 'yields', 'nvme'],
      ['ttyS4', `${cardPath}/tty/ttyS4`, 'yields', 'serial'],
      ['watchdog0', `${cardPath}/watchdog/watchdog0`, 'yields', 'i6300esb timer'],
      ['hidraw0', `${usb}/0003:1.1/hidraw/hidraw0`, 'yields', 'xhci_hcd'],
      ['bus/usb/003/002', `${cardPath}/usb3/3-1`, 'yields', 'xhci_hcd'],
      ['video0', `${cardPath}/video4linux/video0`, 'yields', 'cx23885'],
      ['snd/pcmC2D0p', `${usb}/sound/card2/pcmC2D0p`, 'yields', 'xhci_hcd'],
      ['snd/controlC2', `${usb}/sound/card2/controlC2`, 'harmless', 'xhci_hcd'],
      ['input/event7', `${usb}/0003:1.1/input/input7/event7`, 'harmless', 'xhci_hcd'],
      ['input/mouse1', `${usb}/0003:1.1/input/input8/mouse1`, 'harmless', 'xhci_hcd'],
    ];
    for (const [node, path, class_, driver = 'x'] of kinds)
      it(`/dev/${node} on ${driver}: ${class_}`, () => {
        const device = tree.device(cardPath, {driver});
        tree.char('240:7', path, node);
        tree.process(812, 'reader', '/', [`/dev/${node}`]);
        assert.deepEqual(
          tree.held(device).map((holder) => [holder.class, holder.harm]),
          [[class_, {blocks: 'certain', yields: 'overridable', harmless: 'none'}[class_]]],
        );
      });

    it('DRM nodes block on nvidia with modeset on, and not on another driver beside it', () => {
      const first = tree.device(cardPath, {driver: 'nvidia'});
      const second = tree.device(otherPath, {driver: 'amdgpu'});
      tree.write('/sys/module/nvidia_drm/parameters/modeset', 'Y');
      tree.char('226:0', `${cardPath}/drm/card0`, 'dri/card0');
      tree.char('226:1', `${otherPath}/drm/card1`, 'dri/card1');
      tree.process(812, 'Xorg', '/', ['/dev/dri/card0', '/dev/dri/card1']);
      assert.deepEqual(
        tree.held(first, second).map((holder) => holder.class),
        ['blocks', 'yields'],
      );
    });

    it('without a driver nothing blocks', () => {
      const device = tree.device(cardPath);
      tree.char('116:9', `${cardPath}/sound/card1/pcmC1D0p`, 'snd/pcmC1D0p');
      tree.process(812, 'aplay', '/', ['/dev/snd/pcmC1D0p']);
      assert.deepEqual(
        tree.held(device).map((holder) => holder.class),
        ['yields'],
      );
    });

    describe('sound control nodes', () => {
      let device: Device;
      const classes = () => tree.held(device).map((holder) => holder.class);
      beforeEach(() => {
        device = tree.device(cardPath, {driver: 'snd_hda_intel'});
        tree.char('116:2', `${cardPath}/sound/card1/controlC1`, 'snd/controlC1');
        tree.char('116:9', `${cardPath}/sound/card1/pcmC1D0p`, 'snd/pcmC1D0p');
      });

      for (const server of ['pipewire', 'wireplumber', 'pulseaudio', 'pipewire-media-'])
        it(`are closed by ${server}`, () => {
          tree.process(812, server, '/', ['/dev/snd/controlC1']);
          assert.deepEqual(classes(), ['harmless']);
        });

      it('are closed by processes that wait for their events', () => {
        tree.process(812, 'mixer', '/', ['anon_inode:[eventpoll]', '/dev/null', '/dev/snd/controlC1']);
        tree.write('/proc/812/fdinfo/0', 'pos:\t0\nflags:\t02\ntfd:        2 events:       19 data: 2\n');
        assert.deepEqual(classes(), ['harmless']);
      });

      it('are not closed by processes that wait for other events', () => {
        tree.process(812, 'mixer', '/', ['anon_inode:[eventpoll]', '/dev/null', '/dev/snd/controlC1']);
        tree.write('/proc/812/fdinfo/0', 'pos:\t0\ntfd:       12 events:       19 data: 2\n');
        assert.deepEqual(classes(), ['blocks']);
      });

      it('do not matter for a server that is playing', () => {
        tree.process(812, 'pipewire', '/', ['/dev/snd/controlC1', '/dev/snd/pcmC1D0p']);
        assert.deepEqual(classes(), ['blocks']);
      });
    });
  });

  describe('processes through VFIO', () => {
    const qemu = {pid: 50, command: 'qemu', unit: undefined, class: 'blocks', harm: 'certain'} as const;

    it('hold every member of the group except bridges, with certain harm if it has a driver', () => {
      const bridge = tree.device(`${root}/0000:00:01.0`, {class: '60400', group: 12, driver: 'pcieport'});
      const first = tree.device(cardPath, {driver: 'vfio-pci', group: 12});
      const second = tree.device(`${root}/0000:00:01.0/0000:01:00.1`, {group: 12});
      const third = tree.device(otherPath, {driver: 'vfio-pci', group: 13});
      tree.process(50, 'qemu', '/', ['/dev/vfio/vfio', '/dev/vfio/12', 'anon_inode:[vfio-device]']);
      const nodes = ['/dev/vfio/12'];
      assert.deepEqual(tree.held(bridge, first, second, third), [
        process(card, {...qemu, nodes}),
        process(second.slot, {...qemu, nodes, class: 'yields', harm: 'overridable'}),
      ]);
    });

    it('are found by the number of the group node', () => {
      const device = tree.device(cardPath, {driver: 'mlx5_vfio_pci', group: 12});
      tree.write('/sys/class/vfio/12/dev', '242:0');
      tree.process(50, 'qemu', '/', ['/jail/dev/vfio/12']);
      tree.number(50, 0, '242:0');
      assert.deepEqual(tree.held(device), [process(card, {...qemu, nodes: ['/dev/vfio/12']})]);
    });

    it('may have only the node of the device, or of a group without an IOMMU', () => {
      const device = tree.device(cardPath, {driver: 'vfio-pci', group: 0});
      tree.char('511:0', `${cardPath}/vfio-dev/vfio0`, 'vfio/devices/vfio0');
      tree.write('/dev/vfio/noiommu-0');
      tree.process(50, 'qemu', '/', ['/dev/vfio/devices/vfio0', '/dev/vfio/noiommu-0']);
      assert.deepEqual(tree.held(device), [
        process(card, {...qemu, nodes: ['/dev/vfio/devices/vfio0', '/dev/vfio/noiommu-0']}),
      ]);
    });

    it('hold the parent of a mediated device', () => {
      const device = tree.device(cardPath, {driver: 'i915', group: 1});
      const uuid = '83b8f4f2-509f-382f-3c1e-e6bfe0fa1001';
      tree.write('/dev/vfio/30');
      tree.sysLink(`/sys/kernel/iommu_groups/30/devices/${uuid}`, `${cardPath}/${uuid}`);
      tree.process(50, 'qemu', '/', ['/dev/vfio/30']);
      assert.deepEqual(tree.held(device), [process(card, {...qemu, nodes: ['/dev/vfio/30']})]);
    });
  });

  describe("processes on NVIDIA's driver", () => {
    it('hold the card through its node, not through shared nodes', () => {
      const first = tree.device(cardPath, {driver: 'nvidia'});
      const second = tree.device(otherPath, {driver: 'nvidia'});
      tree.write(
        `/proc/driver/nvidia/gpus/${card}/information`,
        'Model: \t\t GTX\nDevice Minor: \t 1\nGPU Firmware: N/A',
      );
      tree.write(`/proc/driver/nvidia/gpus/${other}/information`, 'Device Minor: \t 0');
      tree.process(60, 'ollama', '/system.slice/ollama.service', [
        '/dev/nvidiactl',
        '/dev/nvidia-uvm',
        '/dev/nvidia1',
      ]);
      tree.process(61, 'tool', '/', ['/dev/nvidiactl']);
      assert.deepEqual(tree.held(first, second), [
        process(card, {
          pid: 60,
          command: 'ollama',
          unit: 'ollama.service',
          class: 'blocks',
          harm: 'certain',
          nodes: ['/dev/nvidia1'],
        }),
      ]);
    });

    it('ignore a card without the information file, which has no node', () => {
      const device = tree.device(cardPath, {driver: 'nvidia'});
      assert.deepEqual(tree.held(device), []);
    });
  });

  describe('users of a module', () => {
    const users = (...modules: readonly string[]) =>
      readModuleUsers(tree, modules).map(({pid, nodes, modules: kept}) => [pid, nodes, kept]);

    it('have a shared node open, which counts for each of its modules', () => {
      tree.process(60, 'ollama', '/system.slice/ollama.service', [
        '/dev/nvidiactl',
        '/dev/nvidia-uvm',
        '/dev/null',
      ]);
      tree.process(61, 'kwin', '/', ['/dev/nvidia-modeset', '/dev/nvidia-caps/nvidia-cap1']);
      tree.process(62, 'clinfo', '/', ['/dev/kfd']);
      assert.deepEqual(users('nvidia_uvm', 'nvidia'), [
        [60, ['/dev/nvidia-uvm', '/dev/nvidiactl'], ['nvidia_uvm', 'nvidia']],
        [61, ['/dev/nvidia-caps/nvidia-cap1', '/dev/nvidia-modeset'], ['nvidia']],
      ]);
      assert.deepEqual(users('nvidia_modeset'), [[61, ['/dev/nvidia-modeset'], ['nvidia_modeset']]]);
      assert.deepEqual(users('amdgpu'), [[62, ['/dev/kfd'], ['amdgpu']]]);
      assert.deepEqual(users('nouveau'), []);
      assert.deepEqual(users(), []);
    });

    it('are found by number in a container, and by the driver’s name of the number', () => {
      tree.write(
        '/proc/devices',
        'Character devices:\n195 nvidia\n508 nvidia-uvm\n240 megaraid_sas_ioctl\n241 vendor\n\nBlock devices:\n  8 sd\n508 device-mapper',
      );
      tree.write('/sys/class/kfd/kfd/dev', '236:0');
      tree.process(70, 'a', '/', ['/jail/dev/uvm']);
      tree.number(70, 0, '508:0', 'tmpfs');
      tree.process(71, 'b', '/', ['/run/dev/node']);
      tree.number(71, 0, '240:0', 'tmpfs');
      tree.process(72, 'c', '/', ['/jail/dev/kfd0']);
      tree.number(72, 0, '236:0', 'tmpfs');
      tree.process(73, 'd', '/', ['/mnt/dev/uvm']);
      tree.number(73, 0, '508:0', 'fuse');
      assert.deepEqual(users('nvidia', 'nvidia_uvm', 'megaraid_sas', 'amdgpu'), [
        [70, ['/jail/dev/uvm'], ['nvidia', 'nvidia_uvm']],
        [71, ['/run/dev/node'], ['megaraid_sas']],
        [72, ['/jail/dev/kfd0'], ['amdgpu']],
      ]);
      assert.ok(!tree.stats.includes('/proc/73/fd/0'));
    });
  });

  describe('disks', () => {
    const disk = `${cardPath}/nvme/nvme0/nvme0n1`;
    const nvme = {driver: 'nvme', class: '10802'};
    const mount = (source: string, target: string, system = false, slot = card): Holder => ({
      kind: 'mount',
      slot,
      class: 'yields',
      harm: 'certain',
      source,
      target,
      system,
    });
    const stack = (source: string, by: string | undefined, slot = card): Holder => ({
      kind: 'stack',
      slot,
      class: 'yields',
      harm: 'certain',
      source,
      by,
    });

    it('are mounted, by number and once for each place', () => {
      const device = tree.device(cardPath, nvme);
      tree.block('259:0', disk);
      tree.block('259:1', `${disk}/nvme0n1p1`);
      tree.block('259:10', `${disk}/nvme0n1p10`);
      tree.block('259:2', `${disk}/nvme0n1p2`);
      tree.block('8:1', `${otherPath}/ata1/host0/target0:0:0/0:0:0:0/block/sda/sda1`);
      tree.mounts(
        '22 1 259:2 / / rw,relatime shared:1 - ext4 /dev/root rw',
        '23 22 259:1 / /boot/efi rw - vfat /dev/nvme0n1p1 rw',
        '24 22 259:10 / /mnt/my\\040data rw - xfs /dev/nvme0n1p10 rw',
        '25 22 259:10 /sub /srv rw - xfs /dev/nvme0n1p10 rw',
        '26 22 259:10 / /srv rw - xfs /dev/nvme0n1p10 rw',
        '27 22 8:1 / /mnt/else rw - ext4 /dev/sda1 rw',
        '28 22 0:5 / /proc rw - proc proc rw',
        '29 22 0:40 / /merged rw - overlay overlay rw,lowerdir=/a',
      );
      assert.deepEqual(tree.held(device), [
        mount('/dev/nvme0n1p1', '/boot/efi', true),
        mount('/dev/nvme0n1p2', '/', true),
        mount('/dev/nvme0n1p10', '/mnt/my data'),
        mount('/dev/nvme0n1p10', '/srv'),
      ]);
    });

    it('that the running system needs are distinguished from others', () => {
      const device = tree.device(cardPath, nvme);
      tree.block('259:0', disk);
      const system = ['/', '/usr', '/boot', '/boot/firmware', '/efi', '/etc', '/var', '/run/live/medium'];
      const not = ['/home', '/var/lib/docker', '/usr/local', '/mnt', '/bootleg', '/srv/usr'];
      tree.mounts(...[...system, ...not].map((target) => `1 1 259:0 / ${target} rw - ext4 /dev/nvme0n1 rw`));
      assert.deepEqual(tree.held(device), [
        ...system.map((target) => mount('/dev/nvme0n1', target, true)),
        ...not.map((target) => mount('/dev/nvme0n1', target, false)),
      ]);
    });

    it('are swapped on', () => {
      const device = tree.device(cardPath, nvme);
      tree.block('259:0', disk);
      tree.write(
        '/proc/swaps',
        'Filename\tType\tSize\tUsed\tPriority\n/dev/nvme0n1  partition\t1\t0\t-2\n/swapfile file\t1\t0\t-3',
      );
      assert.deepEqual(tree.held(device), [
        {
          kind: 'swap',
          slot: card,
          class: 'yields',
          harm: 'certain',
          source: '/dev/nvme0n1',
          target: 'swap',
          system: false,
        },
      ]);
    });

    it('may be below stacks of the device mapper, from the topmost down', () => {
      const device = tree.device(cardPath, nvme);
      tree.block('259:0', disk);
      tree.block('259:3', `${disk}/nvme0n1p3`, ['dm-0']);
      tree.mapped('253:0', 'dm-0', 'luks', ['dm-1', 'dm-2']);
      tree.mapped('253:1', 'dm-1', 'vg-root');
      tree.mapped('253:2', 'dm-2', 'vg-swap');
      tree.mounts('22 1 253:1 / / rw - ext4 /dev/mapper/vg-root rw');
      tree.write('/proc/swaps', 'Filename\n/dev/dm-2 partition 1 0 -2');
      assert.deepEqual(tree.held(device), [
        mount('/dev/mapper/vg-root', '/', true),
        stack('/dev/mapper/luks', 'dm-1 (vg-root)'),
        {
          kind: 'swap',
          slot: card,
          class: 'yields',
          harm: 'certain',
          source: '/dev/mapper/vg-swap',
          target: 'swap',
          system: false,
        },
        stack('/dev/mapper/luks', 'dm-2 (vg-swap)'),
        stack('/dev/nvme0n1p3', 'dm-0 (luks)'),
      ]);
    });

    it('may be in a RAID over several devices, whose partition is mounted', () => {
      const first = tree.device(cardPath, nvme);
      const second = tree.device(otherPath, nvme);
      tree.block('8:0', `${cardPath}/ata1/host0/target0:0:0/0:0:0:0/block/sda`, ['md0']);
      tree.block('8:16', `${cardPath}/ata2/host1/target1:0:0/1:0:0:0/block/sdb`, ['md0']);
      tree.block('8:32', `${otherPath}/ata3/host2/target2:0:0/2:0:0:0/block/sdc`, ['md0']);
      tree.block('9:0', '/sys/devices/virtual/block/md0');
      tree.block('259:7', '/sys/devices/virtual/block/md0/md0p1');
      tree.mounts('22 1 259:7 / /data rw - ext4 /dev/md0p1 rw');
      assert.deepEqual(tree.held(first, second), [
        mount('/dev/md0p1', '/data'),
        stack('/dev/sda', 'md0'),
        stack('/dev/sdb', 'md0'),
        mount('/dev/md0p1', '/data', false, other),
        stack('/dev/sdc', 'md0', other),
      ]);
    });

    it('may be used by something that is not a block device', () => {
      const device = tree.device(cardPath, nvme);
      tree.block('259:0', disk, ['bcache0']);
      assert.deepEqual(tree.held(device), [stack('/dev/nvme0n1', 'bcache0')]);
    });

    it('may be in a btrfs of several, of which only one is named, with a number of its own', () => {
      const first = tree.device(cardPath, nvme);
      const second = tree.device(otherPath, nvme);
      tree.block('259:2', `${disk}/nvme0n1p2`);
      tree.block('259:5', `${otherPath}/nvme/nvme1/nvme1n1`);
      tree.block('259:6', `${otherPath}/nvme/nvme1/nvme1n1/nvme1n1p1`);
      tree.link('/dev/disk/by-uuid/6f9619ff', '../../nvme0n1p2');
      for (const name of ['nvme0n1p2', 'nvme1n1']) tree.write(`/sys/fs/btrfs/6f9619ff/devices/${name}`);
      tree.write('/sys/fs/btrfs/features/raid56');
      tree.mounts(
        '22 1 0:30 /@ / rw - btrfs /dev/disk/by-uuid/6f9619ff rw,subvol=/@',
        '23 1 0:30 /@home /home rw - btrfs /dev/nvme0n1p2 rw,subvol=/@home',
        '24 1 0:31 / /mnt rw - btrfs /dev/nvme1n1p1 rw',
      );
      assert.deepEqual(tree.held(first, second), [
        mount('/dev/nvme0n1p2', '/', true),
        mount('/dev/nvme0n1p2', '/home'),
        mount('/dev/nvme1n1', '/', true, other),
        mount('/dev/nvme1n1', '/home', false, other),
        mount('/dev/nvme1n1p1', '/mnt', false, other),
      ]);
    });

    it('may be named by links and by nodes with other names', () => {
      const device = tree.device(cardPath, nvme);
      tree.block('104:0', `${cardPath}/host0/block/cciss!c0d0`);
      tree.mapped('253:0', 'dm-0', 'vg-a');
      tree.block('259:0', disk, ['dm-0']);
      tree.link('/dev/vg/a', '../dm-0');
      tree.write('/dev/odd');
      tree.numbers['/dev/odd'] = '104:0';
      tree.mounts(
        '1 1 0:30 / /a rw - btrfs /dev/vg/a rw',
        '1 1 0:31 / /b rw - bcachefs /dev/cciss/c0d0 rw',
        '1 1 0:32 / /c rw - bcachefs /dev/odd rw',
        '1 1 0:33 / /d rw - bcachefs /dev/gone rw',
      );
      assert.deepEqual(tree.held(device), [
        mount('/dev/cciss/c0d0', '/b'),
        mount('/dev/cciss/c0d0', '/c'),
        mount('/dev/mapper/vg-a', '/a'),
        stack('/dev/nvme0n1', 'dm-0 (vg-a)'),
      ]);
    });

    for (const source of [
      '/dev/shm/mine/x',
      '/dev/../tmp/x',
      '/dev/fd/3',
      '/dev/disk/by-user/x',
      '/srv/dev/x',
    ])
      it(`are not searched at ${source}, the source of a mount by another user`, () => {
        const device = tree.device(cardPath, nvme);
        tree.block('259:0', disk);
        tree.link('/dev/disk/by-user/x', '/dev/shm/mine/x');
        tree.mounts(`36 25 0:50 / /home/u/mnt rw - fuse.x ${source} rw,user_id=1000`);
        assert.deepEqual(tree.held(device), []);
        assert.deepEqual(
          tree.stats.filter((path) => /^\/(?:dev|srv)\//.test(path)),
          [],
        );
      });

    it('with several paths belong to each controller', () => {
      const first = tree.device(cardPath, nvme);
      const second = tree.device(otherPath, nvme);
      const subsystem = '/sys/devices/virtual/nvme-subsystem/nvme-subsys0';
      tree.write(`${cardPath}/nvme/nvme0/state`, 'live');
      tree.write(`${otherPath}/nvme/nvme1/state`, 'live');
      tree.block('259:0', `${subsystem}/nvme0n1`);
      tree.sysLink(`${subsystem}/nvme0`, `${cardPath}/nvme/nvme0`);
      tree.sysLink(`${subsystem}/nvme1`, `${otherPath}/nvme/nvme1`);
      tree.mounts('22 1 259:0 / / rw - ext4 /dev/nvme0n1 rw');
      assert.deepEqual(tree.held(first, second), [
        mount('/dev/nvme0n1', '/', true),
        mount('/dev/nvme0n1', '/', true, other),
      ]);
    });

    it('behind a controller with a separate bus belong to the controller too, but not to bridges', () => {
      const vmd = tree.device(`${root}/0000:00:0e.0`, {class: '10400', driver: 'vmd'});
      const port = tree.device(`${root}/0000:00:0e.0/pci10000:e0/10000:e0:06.0`, {class: '60400'});
      const path = `${root}/0000:00:0e.0/pci10000:e0/10000:e0:06.0/10000:e1:00.0`;
      const device = tree.device(path, nvme);
      tree.block('259:0', `${path}/nvme/nvme0/nvme0n1`);
      tree.mounts('22 1 259:0 / / rw - ext4 /dev/nvme0n1 rw');
      assert.deepEqual(tree.held(vmd, port, device), [
        mount('/dev/nvme0n1', '/', true, vmd.slot),
        mount('/dev/nvme0n1', '/', true, device.slot),
      ]);
      assert.deepEqual(tree.held(vmd), [mount('/dev/nvme0n1', '/', true, vmd.slot)]);
    });

    it('are checked for a claim of the kernel if no other use was found', () => {
      const device = tree.device(cardPath, nvme);
      tree.block('259:0', disk);
      tree.block('259:1', `${disk}/nvme0n1p1`);
      tree.block('259:2', `${disk}/nvme0n1p2`);
      tree.block('259:3', `${disk}/nvme0n1p3`);
      tree.mounts('22 1 259:1 / /a rw - ext4 /dev/nvme0n1p1 rw');
      tree.claimed.push('/dev/nvme0n1', '/dev/nvme0n1p1', '/dev/nvme0n1p3');
      assert.deepEqual(tree.held(device), [
        stack('/dev/nvme0n1p3', undefined),
        mount('/dev/nvme0n1p1', '/a'),
      ]);
      assert.deepEqual(tree.asked, ['/dev/nvme0n1p2', '/dev/nvme0n1p3']);
    });

    it('are checked as a whole if no partition is in use, and only those of the devices', () => {
      const device = tree.device(cardPath, nvme);
      tree.block('259:0', disk);
      tree.block('259:1', `${disk}/nvme0n1p1`);
      tree.block('8:0', `${otherPath}/ata1/host0/block/sda`);
      tree.block('11:0', `${cardPath}/ata2/host1/block/sr0`);
      tree.claimed.push('/dev/nvme0n1');
      assert.deepEqual(tree.held(device), [stack('/dev/nvme0n1', undefined)]);
      assert.deepEqual(tree.asked, ['/dev/nvme0n1p1', '/dev/nvme0n1']);
    });

    describe('opened as a file by other block devices', () => {
      let device: Device;
      const loop = '/sys/devices/virtual/block/loop3';
      const words = () => tree.held(device).map(describeHolder);
      beforeEach(() => {
        device = tree.device(cardPath, nvme);
        tree.block('259:0', disk);
        tree.block('259:1', `${disk}/nvme0n1p1`);
      });

      it('a loop over the raw disk: its mount is named, and the loop', () => {
        tree.block('7:3', loop);
        tree.write(`${loop}/loop/backing_file`, '/dev/nvme0n1');
        assert.deepEqual(tree.held(device), [stack('/dev/nvme0n1', 'loop3')]);
        tree.mounts('36 25 7:3 / /srv rw - ext4 /dev/loop3 rw');
        assert.deepEqual(words(), ['/dev/loop3 is mounted at /srv', '/dev/nvme0n1 is in use by loop3']);
        assert.deepEqual(tree.held(device).map(adviseOnHolder), [
          'umount /srv',
          'losetup --detach /dev/loop3',
        ]);
      });

      it('a loop over a partition, with partitions of its own of which one is below LVM', () => {
        tree.block('7:3', loop);
        tree.write(`${loop}/loop/backing_file`, '/dev/nvme0n1p1 (deleted)');
        tree.block('259:9', `${loop}/loop3p1`, ['dm-0']);
        tree.mapped('253:0', 'dm-0', 'vg-lv');
        tree.mounts('36 25 253:0 / /srv rw - xfs /dev/mapper/vg-lv rw');
        assert.deepEqual(words(), [
          '/dev/mapper/vg-lv is mounted at /srv',
          '/dev/loop3p1 is part of dm-0 (vg-lv)',
          '/dev/nvme0n1p1 is in use by loop3',
        ]);
      });

      it('a loop over a file, or over another disk, does not count', () => {
        tree.block('7:3', loop);
        tree.block('8:0', `${otherPath}/ata1/host0/block/sda`);
        for (const path of ['/var/lib/image', '/dev/sda']) {
          tree.write(`${loop}/loop/backing_file`, path);
          assert.deepEqual(tree.held(device), []);
        }
      });

      it('loops over each other do not recurse forever', () => {
        tree.block('7:3', loop);
        tree.block('7:4', '/sys/devices/virtual/block/loop4');
        tree.write(`${loop}/loop/backing_file`, '/dev/loop4');
        tree.write('/sys/devices/virtual/block/loop4/loop/backing_file', '/dev/loop3');
        tree.sysLink(`${disk}/holders/loop3`, loop);
        assert.ok(words().includes('/dev/nvme0n1 is in use by loop3'));
      });

      it('zram writes back to one', () => {
        const zram = '/sys/devices/virtual/block/zram0';
        tree.block('252:0', zram);
        tree.write(`${zram}/backing_dev`, 'none');
        assert.deepEqual(words(), []);
        tree.write(`${zram}/backing_dev`, '/dev/nvme0n1p1');
        tree.write('/proc/swaps', 'Filename Type Size Used Priority\n/dev/zram0 partition 1 0 100');
        assert.deepEqual(words(), ['/dev/zram0 is used as swap', '/dev/nvme0n1p1 is in use by zram0']);
      });

      it('the NVMe target serves one', () => {
        const folder = '/sys/kernel/config/nvmet/subsystems/nqn.2024-01.x:d/namespaces/1';
        tree.write(`${folder}/device_path`, '/dev/nvme0n1');
        tree.write(`${folder}/enable`, '0');
        assert.deepEqual(words(), []);
        tree.write(`${folder}/enable`, '1');
        assert.deepEqual(words(), ['/dev/nvme0n1 is in use by NVMe target nqn.2024-01.x:d, namespace 1']);
        assert.deepEqual(tree.held(device).map(adviseOnHolder), [`echo 0 > ${folder}/enable`]);
      });

      it('the SCSI target serves one, as a block device or as a file', () => {
        const core = '/sys/kernel/config/target/core';
        tree.write(`${core}/iblock_0/a/enable`, '1');
        tree.write(`${core}/iblock_0/a/udev_path`, '/dev/nvme0n1p1');
        tree.write(`${core}/fileio_0/b/enable`, '1');
        tree.write(
          `${core}/fileio_0/b/info`,
          'Status: ACTIVATED\n        TCM FILEIO ID: 0        File: /dev/nvme0n1  Size: 1',
        );
        assert.deepEqual(words(), [
          '/dev/nvme0n1 is in use by SCSI target fileio_0/b',
          '/dev/nvme0n1p1 is in use by SCSI target iblock_0/a',
        ]);
      });

      it('a swap file on their file system', () => {
        tree.mounts('22 1 8:1 / / rw - ext4 /dev/sda1 rw', '36 22 259:1 / /data rw - ext4 /dev/nvme0n1p1 rw');
        tree.write(
          '/proc/swaps',
          'Filename Type Size Used Priority\n/data/swap\\040file file 1 0 -2\n/database file 1 0 -3',
        );
        assert.deepEqual(words(), ['/dev/nvme0n1p1 is mounted at /data', '/data/swap file is used as swap']);
      });
    });

    it('are in a bcachefs of several', () => {
      const device = tree.device(cardPath, nvme);
      tree.block('259:0', disk);
      tree.block('8:0', `${otherPath}/ata1/host0/block/sda`);
      tree.mounts('36 25 0:44 / /data rw - bcachefs /dev/sda:/dev/nvme0n1 rw');
      assert.deepEqual(tree.held(device), [mount('/dev/nvme0n1', '/data')]);
    });

    it('may be mounted only in another mount namespace', () => {
      const device = tree.device(cardPath, nvme);
      tree.block('259:0', disk);
      tree.mounts('22 1 8:1 / / rw - ext4 /dev/sda1 rw');
      tree.link('/proc/self/ns/mnt', 'mnt:[1]');
      for (const [pid, namespace] of [
        [7, 1],
        [8, 2],
        [9, 2],
      ] as const) {
        tree.link(`/proc/${pid}/ns/mnt`, `mnt:[${namespace}]`);
        tree.write(`/proc/${pid}/mountinfo`, '99 22 259:0 / /data rw - ext4 /dev/nvme0n1 rw');
      }
      assert.deepEqual(tree.held(device), []);
      tree.claimed.push('/dev/nvme0n1');
      assert.deepEqual(tree.held(device), [{...mount('/dev/nvme0n1', '/data'), namespaceOf: 8}]);
      assert.deepEqual(tree.held(device).map(describeHolder), [
        '/dev/nvme0n1 is mounted at /data in the mount namespace of process 8',
      ]);
      assert.deepEqual(tree.held(device).map(adviseOnHolder), ['nsenter --target 8 --mount umount /data']);
    });

    it('without any use have no holder', () => {
      const device = tree.device(cardPath, nvme);
      tree.block('259:0', disk);
      assert.deepEqual(tree.held(device), []);
    });
  });

  describe('interfaces', () => {
    const virtual = '/sys/devices/virtual';
    const up = (more: Partial<Holder & {kind: 'interface'}> = {}): Holder => ({
      kind: 'interface',
      slot: card,
      class: 'yields',
      harm: 'overridable',
      name: 'eth0',
      addresses: [],
      routes: [],
      through: undefined,
      last: false,
      ...more,
    });
    const last = {class: 'yields', harm: 'overridable', last: true} as const;

    it('have addresses and routes; link-local ones do not count', () => {
      const first = tree.device(cardPath, {class: '20000'});
      const second = tree.device(otherPath, {class: '20000'});
      tree.net('eth0', `${cardPath}/virtio1`);
      tree.net('eth1', otherPath);
      tree.net('lo', virtual);
      tree.carried['lo'] = ['127.0.0.1/8', '::1/128'];
      tree.carried['eth0'] = ['192.0.2.2/24', 'fd00::2/64', 'fe80::2/64'];
      tree.carried['eth1'] = ['fe80::3/64'];
      tree.routes(
        defaultVia1('eth0'),
        net192('eth0'),
        // Down, rejected, and multicast.
        'eth1\t000200C0\t00000000\t0000\t0\t0\t0\t00FFFFFF\t0\t0\t0',
        'eth1\t000200C0\t00000000\t0201\t0\t0\t0\t00FFFFFF\t0\t0\t0',
        'eth1\t000000E0\t00000000\t0001\t0\t0\t0\t000000F0\t0\t0\t0',
        'lo\t0000007F\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0',
      );
      const zero = '0'.repeat(32);
      const line = (to: string, length: string, via: string, flags: string, name: string) =>
        `${to.padEnd(32, '0')} ${length} ${zero} 00 ${via} 00000100 00000001 00000000 ${flags} ${name.padStart(8)}`;
      tree.write(
        '/proc/net/ipv6_route',
        [
          line('fd00', '40', zero, '00000001', 'eth0'),
          line('', '00', 'fd000000000000000000000000000001', '00000003', 'eth0'),
          line('fe80', '40', zero, '00000001', 'eth1'),
          line('ff00', '08', zero, '00000001', 'eth1'),
          line('fd000000000000000000000000000002', '80', zero, '80200001', 'eth1'),
          line('fd00', '80', zero, '00100001', 'eth1'),
          line('', '00', zero, '00200200', 'lo'),
        ].join('\n'),
      );
      assert.deepEqual(tree.held(first, second), [
        up({
          ...last,
          addresses: ['192.0.2.2/24', 'fd00::2/64'],
          routes: ['default via 192.0.2.1', '192.0.2.0/24', 'fd00::/64', 'default via fd00::1'],
        }),
      ]);
    });

    it('in another network namespace hold their device', () => {
      const first = tree.device(cardPath, {class: '20000', driver: 'e1000e'});
      const second = tree.device(otherPath, {class: '20000', driver: 'virtio-pci'});
      // The folder stays, without what is in it.
      tree.folder(`${cardPath}/net`);
      tree.folder(`${otherPath}/virtio1/net`);
      assert.deepEqual(tree.held(first, second), [
        {kind: 'network-namespace', slot: first.slot, class: 'yields', harm: 'overridable'},
        {kind: 'network-namespace', slot: second.slot, class: 'yields', harm: 'overridable'},
      ]);
      // Where another card's interface is here as well.
      tree.net('eth0', otherPath);
      assert.deepEqual(tree.held(first, second), [
        {kind: 'network-namespace', slot: first.slot, class: 'yields', harm: 'overridable'},
      ]);
    });

    it('that are just appearing do not count', () => {
      const device = tree.device(cardPath, {class: '20000', driver: 'e1000e'});
      tree.folder(`${cardPath}/net/eth0`);
      assert.deepEqual(tree.held(device), []);
    });

    it('that a card does not have do not count', () => {
      assert.deepEqual(
        tree.held(
          tree.device(cardPath, {class: '20000', driver: 'e1000e'}),
          tree.device(otherPath, {class: '20000', driver: 'vfio-pci'}),
        ),
        [],
      );
    });

    it('that are down hold nothing', () => {
      const device = tree.device(cardPath, {class: '20000'});
      tree.net('eth0', cardPath, {up: false, uppers: ['bond0']});
      tree.net('bond0', virtual);
      tree.carried['bond0'] = ['192.0.2.2/24'];
      assert.deepEqual(tree.held(device), []);
    });

    it('do not cut the machine off while there is another default route', () => {
      const first = tree.device(cardPath, {class: '20000'});
      const second = tree.device(otherPath, {class: '20000'});
      tree.net('eth0', cardPath);
      tree.net('eth1', otherPath);
      tree.routes(defaultVia1('eth0'), defaultVia1('eth1'), net192('eth1'));
      const routes = ['default via 192.0.2.1'];
      const both = [
        up({...last, routes}),
        up({...last, slot: other, name: 'eth1', routes: [...routes, '192.0.2.0/24']}),
      ];
      assert.deepEqual(tree.held(first), [up({routes})]);
      assert.deepEqual(tree.held(first, second), both);
      assert.deepEqual(
        readHolders(tree, [first, second], {alone: true}),
        both.map((holder) => ({...holder, class: 'yields', harm: 'overridable', last: false})),
      );
    });

    it('do not count another without a cable', () => {
      const device = tree.device(cardPath, {class: '20000'});
      tree.net('eth0', cardPath);
      tree.net('eth1', otherPath, {state: 'down'});
      tree.routes(defaultVia1('eth0'), defaultVia1('eth1'));
      assert.deepEqual(tree.held(device), [up({...last, routes: ['default via 192.0.2.1']})]);
    });

    it('do not count a tunnel, which leads out through one of them', () => {
      const device = tree.device(cardPath, {class: '20000'});
      tree.net('eth0', cardPath);
      tree.net('wg0', virtual);
      tree.carried['eth0'] = ['192.0.2.2/24'];
      tree.routes('wg0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0', net192('eth0'));
      assert.deepEqual(tree.held(device), [
        up({...last, addresses: ['192.0.2.2/24'], routes: ['192.0.2.0/24']}),
      ]);
    });

    it('without any default route are the last if no other has an address', () => {
      const device = tree.device(cardPath, {class: '20000'});
      tree.net('eth0', cardPath);
      tree.net('eth1', otherPath);
      tree.carried['eth0'] = ['192.0.2.2/24'];
      const addresses = ['192.0.2.2/24'];
      assert.deepEqual(tree.held(device), [up({...last, addresses})]);
      tree.carried['eth1'] = ['198.51.100.2/24'];
      assert.deepEqual(tree.held(device), [up({addresses})]);
    });

    it('carry interfaces built on them: a VLAN on a bridge', () => {
      const device = tree.device(cardPath, {class: '20000'});
      tree.net('eth0', cardPath, {uppers: ['br0']});
      tree.sysLink(`${cardPath}/net/eth0/master`, `${virtual}/net/br0`);
      tree.net('br0', virtual, {uppers: ['br0.10']});
      tree.net('br0.10', virtual);
      tree.net('tap0', virtual, {uppers: ['br0']});
      tree.carried['br0'] = ['192.0.2.2/24'];
      tree.carried['br0.10'] = ['198.51.100.2/24'];
      tree.routes(defaultVia1('br0'));
      assert.deepEqual(tree.held(device), [
        up({...last, addresses: ['192.0.2.2/24'], routes: ['default via 192.0.2.1'], through: 'br0'}),
        up({addresses: ['198.51.100.2/24'], through: 'br0.10'}),
      ]);
    });

    it('are members of a bond, of which one is enough', () => {
      const first = tree.device(cardPath, {class: '20000'});
      const second = tree.device(otherPath, {class: '20000'});
      tree.net('eth0', cardPath);
      tree.net('eth1', otherPath);
      tree.net('bond0', virtual);
      for (const path of [`${cardPath}/net/eth0`, `${otherPath}/net/eth1`])
        tree.sysLink(`${path}/master`, `${virtual}/net/bond0`);
      tree.routes(defaultVia1('bond0'));
      const member = {routes: ['default via 192.0.2.1'], through: 'bond0'};
      assert.deepEqual(tree.held(first), [up(member)]);
      assert.deepEqual(tree.held(first, second), [
        up({...member, ...last}),
        up({...member, ...last, slot: other, name: 'eth1'}),
      ]);
    });

    it('carry the ports of an Open vSwitch they are in', () => {
      const device = tree.device(cardPath, {class: '20000'});
      tree.net('eth0', cardPath, {uppers: ['ovs-system']});
      tree.net('ovs-system', virtual, {up: false});
      tree.net('br-ex', virtual);
      tree.net('virbr0', virtual);
      tree.write(`${virtual}/net/virbr0/uevent`, 'DEVTYPE=bridge\nINTERFACE=virbr0');
      tree.net('tap0', virtual);
      tree.write(`${virtual}/net/tap0/tun_flags`, '0x1002');
      for (const name of ['virbr0', 'tap0']) tree.carried[name] = ['198.51.100.1/24'];
      tree.routes(defaultVia1('br-ex'));
      assert.deepEqual(tree.held(device), [
        up({...last, routes: ['default via 192.0.2.1'], through: 'br-ex'}),
      ]);
    });
  });

  describe('interfaces without an address of the host', () => {
    const virtual = '/sys/devices/virtual';
    let device: Device;
    const words = () => tree.held(device).map(describeHolder);
    const advice = () => tree.held(device).map(adviseOnHolder);

    beforeEach(() => (device = tree.device(cardPath, {class: '20000', driver: 'e1000e'})));

    /** A process with a tap of this name open. */
    function tapUser(pid: number, command: string, cgroup: string, ...taps: readonly string[]): void {
      tree.process(
        pid,
        command,
        cgroup,
        taps.map(() => '/dev/net/tun'),
      );
      taps.forEach((tap, file) =>
        tree.write(
          `/proc/${pid}/fdinfo/${file}`,
          `pos:\t0\nflags:\t0104002\nmnt_id:\t24\nino:\t9\niff:\t${tap}`,
        ),
      );
    }

    it('are used by a bridge with the tap of a guest', () => {
      tree.net('eth1', cardPath, {uppers: ['br0'], index: 3});
      tree.net('br0', virtual, {type: 'bridge', index: 4});
      tree.net('vnet3', virtual, {tap: true, uppers: ['br0'], index: 5, state: 'unknown'});
      tapUser(1234, 'qemu-system-x86', '/machine.slice/machine-qemu\\x2d1\\x2dwin.scope', 'vnet3');
      assert.deepEqual(words(), [
        'eth1 is a port of bridge br0, which guest tap vnet3 (qemu-system-x86 1234 of machine-qemu\\x2d1\\x2dwin.scope) uses',
      ]);
      assert.deepEqual(advice(), ['virsh shutdown win']);
      assert.deepEqual(
        tree.held(device).map(({class: kind, harm}) => [kind, harm]),
        [['yields', 'overridable']],
      );
    });

    it('are idle below a bridge with nothing else in it, or with a tap that no process has open', () => {
      tree.net('eth1', cardPath, {uppers: ['br0'], index: 3});
      tree.net('br0', virtual, {type: 'bridge', index: 4});
      assert.deepEqual(words(), []);
      tree.net('vnet3', virtual, {tap: true, uppers: ['br0'], index: 5, state: 'down'});
      tree.net('dummy0', virtual, {uppers: ['br0'], index: 6});
      assert.deepEqual(words(), []);
    });

    it('are used by a tap whose process is not visible', () => {
      tree.net('eth1', cardPath, {uppers: ['br0'], index: 3});
      tree.net('br0', virtual, {type: 'bridge', index: 4});
      tree.net('vnet3', virtual, {tap: true, uppers: ['br0'], index: 5, state: 'unknown'});
      assert.deepEqual(words(), ['eth1 is a port of bridge br0, which tap vnet3 uses']);
    });

    it('are in use below a VLAN on a bond in a bridge', () => {
      tree.net('eth1', cardPath, {uppers: ['bond0'], index: 3});
      tree.net('bond0', virtual, {type: 'bond', uppers: ['bond0.7'], index: 4});
      tree.net('bond0.7', virtual, {type: 'vlan', uppers: ['br7'], index: 5, link: 4});
      tree.net('br7', virtual, {type: 'bridge', index: 6});
      tree.net('tap0', virtual, {tap: true, uppers: ['br7'], index: 7});
      tapUser(50, 'openvpn', '/system.slice/openvpn.service', 'tap0');
      assert.deepEqual(words(), [
        'eth1 is a port of bond bond0, which carries VLAN bond0.7, which is a port of bridge br7, which tap tap0 (openvpn 50 of openvpn.service) uses',
      ]);
      assert.deepEqual(advice(), ['systemctl stop openvpn.service']);
    });

    it('are in use in an Open vSwitch with the tap of a guest', () => {
      tree.net('eth1', cardPath, {uppers: ['ovs-system'], index: 3});
      tree.net('ovs-system', virtual, {index: 4, up: false});
      tree.net('br-int', virtual, {index: 5});
      tree.net('vnet0', virtual, {tap: true, uppers: ['ovs-system'], index: 6});
      tapUser(9, 'qemu-kvm', '/', 'vnet0');
      assert.deepEqual(words(), [
        'eth1 is a port of Open vSwitch ovs-system, which guest tap vnet0 (qemu-kvm 9) uses',
      ]);
    });

    it('are used by a container on the bridge, and by the other end of its pair in this namespace', () => {
      tree.net('eth1', cardPath, {uppers: ['br0'], index: 3});
      tree.net('br0', virtual, {type: 'bridge', index: 4});
      tree.net('veth1', virtual, {uppers: ['br0'], index: 8, link: 2});
      assert.deepEqual(words(), [
        'eth1 is a port of bridge br0, which another network namespace through veth1 uses',
      ]);
      tree.net('veth2', virtual, {index: 9, link: 10});
      tree.net('veth3', virtual, {uppers: ['br0'], index: 10, link: 9});
      tree.carried['veth2'] = ['192.0.2.9/24'];
      assert.equal(words()[1], 'eth1 carries the last route to this machine (192.0.2.9/24) through veth2');
    });

    it('are in use by the network behind another port with a cable', () => {
      tree.net('eth1', cardPath, {uppers: ['br0'], index: 3});
      tree.net('br0', virtual, {type: 'bridge', index: 4});
      tree.net('eth2', otherPath, {uppers: ['br0'], index: 5, state: 'down'});
      assert.deepEqual(words(), []);
      tree.write(`${otherPath}/net/eth2/operstate`, 'up');
      assert.deepEqual(words(), ['eth1 is a port of bridge br0, which the network behind eth2 uses']);
    });

    it('are in use by a macvtap, by path, or by number in a container, and idle while it is not open', () => {
      tree.net('eth1', cardPath, {uppers: ['macvtap0'], index: 3});
      tree.net('macvtap0', virtual, {type: 'macvtap', index: 7, link: 3, node: '246:1'});
      assert.deepEqual(words(), []);
      tree.process(70, 'qemu-kvm', '/', ['/dev/tap7']);
      tree.process(71, 'crosvm', '/', ['/jail/dev/tap']);
      tree.number(71, 0, '246:1', 'tmpfs');
      assert.deepEqual(words(), [
        'eth1 carries macvtap macvtap0, which guest macvtap macvtap0 (qemu-kvm 70), guest macvtap macvtap0 (crosvm 71) use',
      ]);
    });

    for (const [what, type, users, used] of [
      ['macvlan, ipvlan or VLAN in a container', undefined, 2, true],
      ['a VLAN here', 'vlan', 2, false],
      ['a VLAN here and one in a container', 'vlan', 3, true],
      ['nothing', undefined, 1, false],
    ] as const)
      it(`show by multicast groups what is built on them: ${what}`, () => {
        tree.net('eth1', cardPath, {uppers: type === undefined ? [] : ['up0'], index: 3});
        if (type !== undefined) tree.net('up0', virtual, {type, index: 4, link: 3});
        tree.write(
          '/proc/net/dev_mcast',
          `2    eth0            9     0     01005e000001\n3    eth1            1     0     333300000001\n3    eth1            ${users}     0     01005e000001`,
        );
        assert.deepEqual(words(), used ? ['eth1 is used by another network namespace through eth1'] : []);
      });

    // An interface that has passed its groups to those below counts itself for each of them.
    for (const [what, upper, mine, below, used] of [
      ['an idle macvtap', {type: 'macvtap', link: 3}, 2, 2, ''],
      ['a macvtap with a macvlan in a container', {type: 'macvtap', link: 3}, 2, 3, 'eth1'],
      ['an idle VLAN', {type: 'vlan', link: 3}, 2, 2, ''],
      ['a VLAN that carries one in a container', {type: 'vlan', link: 3}, 3, 2, 'up0'],
      ['an idle bond', {type: 'bond', mode: 'balance-rr 0'}, 2, 2, ''],
      ['a bond with a VLAN in a container', {type: 'bond', mode: 'balance-rr 0'}, 3, 2, 'up0'],
      ['an idle bond with a backup', {type: 'bond', mode: 'active-backup 1', active: 'eth1'}, 2, 2, ''],
      ['a backup of a bond', {type: 'bond', mode: 'active-backup 1', active: 'eth2'}, 1, 1, ''],
      [
        'a backup with a VLAN in a container',
        {type: 'bond', mode: 'active-backup 1', active: 'eth2'},
        1,
        2,
        'eth1',
      ],
    ] as const)
      it(`show by multicast groups what is built on them: ${what}`, () => {
        tree.net('eth1', cardPath, {uppers: ['up0'], index: 3});
        const link = 'link' in upper ? {link: upper.link} : {};
        tree.net('up0', virtual, {type: upper.type, index: 4, ...link});
        if ('mode' in upper) tree.write(`${virtual}/net/up0/bonding/mode`, upper.mode);
        if ('active' in upper) tree.write(`${virtual}/net/up0/bonding/active_slave`, upper.active);
        tree.write(
          '/proc/net/dev_mcast',
          `3    eth1            ${below}     0     01005e000001\n4    up0            ${mine}     0     01005e000001`,
        );
        assert.deepEqual(
          words().map((line) => / through (\w+)/.exec(line)?.[1] ?? line),
          used === '' ? [] : [used],
        );
      });

    for (const [what, driver, users, used] of [
      ['a card whose driver counts once more', 'ice', 2, false],
      ['such a card with a VLAN in a container', 'ice', 3, true],
      ['a card whose driver does not', 'e1000e', 2, true],
    ] as const)
      it(`show by multicast groups what is built on them: ${what}`, () => {
        tree.net('eth1', cardPath, {index: 3});
        tree.link(`${cardPath}/net/eth1/device/driver`, `/sys/bus/pci/drivers/${driver}`);
        tree.write('/proc/net/dev_mcast', `3    eth1            ${users}     0     01005e000001`);
        assert.equal(words().length, used ? 1 : 0);
      });

    const packetSockets = (...lines: readonly string[]) =>
      tree.write(
        '/proc/net/packet',
        ['sk               RefCnt Type Proto  Iface R Rmem   User   Inode', ...lines].join('\n'),
      );

    it('are used by packet sockets on them or on interfaces built on them', () => {
      tree.net('eth1', cardPath, {uppers: ['eth1.5'], index: 3});
      tree.net('eth1.5', virtual, {type: 'vlan', index: 4, link: 3});
      tree.net('eth2', otherPath, {index: 5});
      packetSockets(
        '00000000deadbeef 3      3    0003   3     1 0      0      4711',
        '00000000deadbeef 3      3    0003   4     1 0      0      4712',
        // Of all interfaces, of another, and one that receives nothing.
        '00000000deadbeef 3      3    0003   0     1 0      0      4713',
        '00000000deadbeef 3      3    0003   5     1 0      0      4714',
        '00000000deadbeef 3      3    0003   3     0 0      0      4715',
      );
      tree.process(800, 'dhcpd', '/system.slice/isc-dhcp-server.service', ['socket:[4711]', 'socket:[4713]']);
      tree.process(801, 'wpa_supplicant', '/system.slice/wpa_supplicant.service', ['socket:[4712]']);
      tree.process(802, 'tcpdump', '/', ['socket:[4713]', 'socket:[4714]', 'socket:[4715]']);
      assert.deepEqual(words(), [
        'eth1 is used by dhcpd 800 of isc-dhcp-server.service by a packet socket',
        'eth1 carries VLAN eth1.5, which wpa_supplicant 801 of wpa_supplicant.service by a packet socket uses',
      ]);
      assert.deepEqual(advice(), [
        'systemctl stop isc-dhcp-server.service',
        'systemctl stop wpa_supplicant.service',
      ]);
    });

    it('are used by a packet socket whose process is not visible', () => {
      tree.net('eth1', cardPath, {index: 3});
      packetSockets('00000000deadbeef 3      3    0003   3     1 0      0      4711');
      assert.deepEqual(words(), ['eth1 is used by a packet socket']);
      assert.deepEqual(advice(), ['ip link set eth1 down']);
    });

    it('are in use by an XDP program that a process holds', () => {
      tree.net('eth1', cardPath, {index: 3});
      tree.process(5, 'suricata', '/system.slice/suricata.service', [
        'anon_inode:bpf_link',
        'anon_inode:bpf_link',
      ]);
      tree.write('/proc/5/fdinfo/0', 'pos:\t0\nlink_type:\tcgroup\nlink_id:\t3\nifindex:\t3');
      tree.write('/proc/5/fdinfo/1', 'pos:\t0\nlink_type:\txdp\nlink_id:\t4\nifindex:\t3');
      assert.deepEqual(words(), ['eth1 is used by suricata 5 of suricata.service by an XDP program']);
    });

    it('carry the last route by PPPoE, directly or on a VLAN', () => {
      tree.net('eth1', cardPath, {uppers: ['eth1.7'], index: 3});
      tree.net('eth1.7', virtual, {type: 'vlan', index: 4, link: 3});
      tree.net('ppp0', virtual, {type: 'ppp', index: 5});
      tree.routes('ppp0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0');
      assert.deepEqual(words(), []);
      for (const on of ['eth1', 'eth1.7']) {
        tree.write(
          '/proc/net/pppoe',
          `Id       Address              Device\n0000002A 02:00:00:00:00:01   ${on}`,
        );
        assert.deepEqual(words(), ['eth1 carries the last route to this machine (default) through ppp0']);
        assert.deepEqual(
          tree.held(device).map(({harm}) => harm),
          ['overridable'],
        );
      }
    });

    it('are in use by a PPPoE session whose link is elsewhere', () => {
      tree.net('eth1', cardPath, {index: 3});
      tree.write(
        '/proc/net/pppoe',
        'Id       Address              Device\n0000002A 02:00:00:00:00:01   eth1',
      );
      assert.deepEqual(words(), ['eth1 is used by a PPPoE session']);
    });

    describe('below a guest that routes for the host', () => {
      beforeEach(() => {
        tree.net('eth1', cardPath, {uppers: ['wan'], index: 3});
        tree.net('wan', virtual, {type: 'bridge', index: 4});
        tree.net('vnet0', virtual, {tap: true, uppers: ['wan'], index: 5});
        tree.net('lan', virtual, {type: 'bridge', index: 6});
        tree.net('vnet1', virtual, {tap: true, uppers: ['lan'], index: 7});
        tapUser(80, 'qemu-kvm', '/', 'vnet0', 'vnet1');
        tree.routes(defaultVia1('lan'), net192('lan'));
      });

      it('carry the last route', () => {
        assert.deepEqual(words(), [
          'eth1 is a port of bridge wan, which guest tap vnet0 (qemu-kvm 80) uses',
          'eth1 carries the last route to this machine (default via 192.0.2.1) through lan',
        ]);
      });

      it('do not if the bridge has its own hardware', () => {
        tree.net('eth0', otherPath, {uppers: ['lan'], index: 2});
        assert.deepEqual(
          tree.held(device).map(({harm}) => harm),
          ['overridable'],
        );
      });
    });
  });

  describe('displays', () => {
    const show = (
      kind: 'framebuffer' | 'console',
      name: string,
      description: string,
      slot = card,
    ): Holder => ({
      kind,
      slot,
      class: 'yields',
      harm: 'overridable',
      name,
      description,
    });
    const console = (name: string, bind: string, text: string) => {
      tree.write(`/sys/class/vtconsole/${name}/bind`, bind);
      tree.write(`/sys/class/vtconsole/${name}/name`, text);
    };
    const framebuffer = (name: string, path: string, text: string) => {
      tree.write(`${path}/graphics/${name}/name`, text);
      tree.sysLink(`/sys/class/graphics/${name}`, `${path}/graphics/${name}`);
    };

    it('have the boot framebuffer and the console of the boot display, and nothing on another card', () => {
      const first = tree.device(cardPath, {driver: 'nouveau', bootDisplay: true});
      const second = tree.device(otherPath, {driver: 'nouveau'});
      framebuffer('fb0', otherPath, 'nouveaudrmfb');
      framebuffer('fb1', cardPath, 'nouveaudrmfb');
      tree.sysLink('/sys/class/graphics/fbcon', '/sys/devices/virtual/graphics/fbcon');
      console('vtcon0', '0', '(S) dummy device');
      console('vtcon1', '1', '(M) frame buffer device');
      assert.deepEqual(tree.held(first, second), [
        show('framebuffer', 'fb1', 'nouveaudrmfb'),
        show('console', 'vtcon1', 'frame buffer device'),
      ]);
    });

    it("have the firmware's framebuffer as a platform device or below the card", () => {
      const device = tree.device(cardPath, {bootDisplay: true});
      framebuffer('fb0', '/sys/devices/platform/efi-framebuffer.0', 'EFI VGA');
      framebuffer('fb1', `${cardPath}/simple-framebuffer.0`, 'simpledrmdrmfb');
      framebuffer('fb2', '/sys/devices/platform/vfb.0', 'Virtual FB');
      console('vtcon0', '1', '(S) dummy device');
      console('vtcon1', '0', '(M) frame buffer device');
      assert.deepEqual(tree.held(device), [
        show('framebuffer', 'fb0', 'efi-framebuffer.0'),
        show('framebuffer', 'fb1', 'simple-framebuffer.0'),
      ]);
    });

    it('that are not the boot display have the console while it is on their framebuffer', () => {
      const device = tree.device(cardPath, {driver: 'amdgpu'});
      framebuffer('fb0', cardPath, 'amdgpudrmfb');
      console('vtcon1', '0', '(M) frame buffer device');
      assert.deepEqual(tree.held(device), []);
      console('vtcon1', '1', '(M) frame buffer device');
      assert.deepEqual(tree.held(device), [
        show('framebuffer', 'fb0', 'amdgpudrmfb'),
        show('console', 'vtcon1', 'frame buffer device'),
      ]);
    });

    it('without the boot display do not get its console', () => {
      tree.device(cardPath, {driver: 'amdgpu', bootDisplay: true});
      const second = tree.device(otherPath, {driver: 'amdgpu'});
      framebuffer('fb0', otherPath, 'amdgpudrmfb');
      framebuffer('fb1', cardPath, 'amdgpudrmfb');
      console('vtcon1', '1', '(M) frame buffer device');
      assert.deepEqual(tree.held(second), []);
    });

    it('have the text console of the boot display', () => {
      const device = tree.device(cardPath, {bootDisplay: true});
      console('vtcon0', '1', '(S) VGA+');
      assert.deepEqual(tree.held(device), [show('console', 'vtcon0', 'VGA+')]);
    });
  });

  describe('virtual functions', () => {
    const path = (name: string) => `${root}/0000:00:01.0/${name}`;
    const used = (name: string, driver: string, harm: 'certain' | 'overridable'): Holder => ({
      kind: 'virtual-function',
      slot: card,
      class: 'yields',
      harm,
      virtualFunction: parseSlot(name),
      driver,
    });

    beforeEach(() => {
      tree.write(`${cardPath}/sriov_numvfs`, '3');
      for (const index of [0, 1, 2]) {
        tree.sysLink(`${cardPath}/virtfn${index}`, path(`0000:01:10.${index}`));
        tree.sysLink(`${path(`0000:01:10.${index}`)}/physfn`, cardPath);
      }
    });

    it('are in use when passed to userspace or held themselves', () => {
      const device = tree.device(cardPath, {driver: 'igb', class: '20000'});
      tree.device(path('0000:01:10.0'), {driver: 'vfio-pci', group: 30});
      tree.device(path('0000:01:10.1'), {driver: 'vfio-pci', group: 31});
      tree.device(path('0000:01:10.2'), {driver: 'igbvf'});
      tree.process(50, 'qemu', '/', ['/dev/vfio/31']);
      assert.deepEqual(tree.held(device), [
        used('0000:01:10.0', 'vfio-pci', 'overridable'),
        {...used('0000:01:10.1', 'vfio-pci', 'certain'), class: 'blocks'},
      ]);
    });

    it('disappear with their physical function, and the last route with them', () => {
      const device = tree.device(cardPath, {driver: 'igb', class: '20000'});
      const virtual = tree.device(path('0000:01:10.2'), {driver: 'igbvf', class: '20000'});
      tree.net('eth0', cardPath);
      tree.net('eth0v2', path('0000:01:10.2'));
      tree.routes(defaultVia1('eth0'), defaultVia1('eth0v2'));
      const route = (slot: Slot, name: string, last: boolean): Holder => ({
        kind: 'interface',
        slot,
        class: 'yields',
        harm: 'overridable',
        name,
        addresses: [],
        routes: ['default via 192.0.2.1'],
        through: undefined,
        last,
      });
      assert.deepEqual(tree.held(device), [
        route(card, 'eth0', true),
        used('0000:01:10.2', 'igbvf', 'overridable'),
      ]);
      assert.deepEqual(tree.held(virtual), [route(virtual.slot, 'eth0v2', false)]);
      assert.deepEqual(readHolders(tree, [device, virtual], {alone: true}), [
        route(card, 'eth0', true),
        // Alone, the virtual function leaves its physical function's route.
        used('0000:01:10.2', 'igbvf', 'overridable'),
        route(virtual.slot, 'eth0v2', false),
      ]);
    });

    it('of a driver that is being removed are counted without sriov_numvfs', () => {
      const device = tree.device(cardPath, {driver: 'igb'});
      assert.deepEqual(tree.held(device), []);
      assert(!tree.reads.some((read) => read.endsWith('/sriov_numvfs')));
    });
  });

  describe('as text', () => {
    const slot = card;
    const base = {slot, class: 'yields', harm: 'overridable'} as const;
    const process = {
      ...base,
      kind: 'process',
      pid: 812,
      command: 'Xorg',
      unit: 'gdm.service',
      nodes: ['/dev/dri/card0'],
      displayManager: false,
    } as const;
    const disk = {
      slot,
      class: 'yields',
      harm: 'certain',
      kind: 'mount',
      source: '/dev/sda1',
      target: '/mnt/data',
      system: false,
    } as const;
    const net = {
      ...base,
      kind: 'interface',
      name: 'eth0',
      addresses: ['192.0.2.2/24'],
      routes: ['default via 192.0.2.1', '192.0.2.0/24'],
      through: undefined,
      last: false,
    } as const;
    const stack = {slot, class: 'yields', harm: 'certain', kind: 'stack', source: '/dev/sda1'} as const;
    const user = {...process, unit: 'pipewire.service', unitUser: 1000};
    const session = {...process, unit: 'session-2.scope'};
    const cutOff = 'without it this machine is cut off: give another interface a default route first';
    const cases: readonly [holder: Holder, words: string, advice: string][] = [
      [process, 'process 812 (Xorg) of gdm.service has /dev/dri/card0 open', 'systemctl stop gdm.service'],
      [
        {...process, displayManager: true},
        'process 812 (Xorg) of gdm.service (display manager) has /dev/dri/card0 open',
        'systemctl stop gdm.service',
      ],
      [
        {...session, displayManager: true},
        'process 812 (Xorg) of session-2.scope (display manager) has /dev/dri/card0 open',
        'systemctl stop display-manager.service',
      ],
      [session, 'process 812 (Xorg) of session-2.scope has /dev/dri/card0 open', 'kill 812'],
      [
        {...process, unit: undefined, nodes: ['/dev/a', '/dev/b', '/dev/c', '/dev/d']},
        'process 812 (Xorg) has /dev/a, /dev/b, /dev/c, /dev/d open',
        'kill 812',
      ],
      [
        {...process, unit: 'user@1000.service', nodes: ['/dev/a', '/dev/b', '/dev/c', '/dev/d', '/dev/e']},
        'process 812 (Xorg) of user@1000.service has /dev/a, /dev/b, /dev/c and 2 more open',
        'kill 812',
      ],
      [
        user,
        'process 812 (Xorg) of pipewire.service (user 1000) has /dev/dri/card0 open',
        'systemctl --user --machine=1000@ stop pipewire.service',
      ],
      [
        {...user, unit: 'vte-spawn-1.scope'},
        'process 812 (Xorg) of vte-spawn-1.scope (user 1000) has /dev/dri/card0 open',
        'kill 812',
      ],
      [
        {
          ...process,
          command: 'qemu',
          unit: 'machine-qemu\\x2d1\\x2dwin\\x20ü\\x2d10.scope',
          nodes: ['/dev/vfio/12'],
        },
        'process 812 (qemu) of machine-qemu\\x2d1\\x2dwin\\x20ü\\x2d10.scope has /dev/vfio/12 open',
        "virsh shutdown 'win ü-10'",
      ],
      [
        {...process, unit: 'dev\\x2dtool.service'},
        'process 812 (Xorg) of dev\\x2dtool.service has /dev/dri/card0 open',
        "systemctl stop 'dev\\x2dtool.service'",
      ],
      [
        {...process, pid: 1, command: 'systemd', unit: 'init.scope', nodes: ['/dev/watchdog0']},
        'process 1 (systemd) of init.scope has /dev/watchdog0 open',
        'it is the service manager itself: see RuntimeWatchdogSec= in systemd-system.conf(5)',
      ],
      [
        {...process, command: 'systemd-logind', unit: 'systemd-logind.service', nodes: ['/dev/input/event3']},
        'process 812 (systemd-logind) of systemd-logind.service has /dev/input/event3 open',
        'end the session for which it opened the device: loginctl list-sessions',
      ],
      [disk, '/dev/sda1 is mounted at /mnt/data', 'umount /mnt/data'],
      [
        {...disk, target: "/mnt/it's mine"},
        "/dev/sda1 is mounted at /mnt/it's mine",
        `umount '/mnt/it'\\''s mine'`,
      ],
      [
        {...disk, target: '/', system: true},
        '/dev/sda1 is mounted at /',
        'use another device: the system runs from it',
      ],
      [{...disk, kind: 'swap', target: 'swap'}, '/dev/sda1 is used as swap', 'swapoff /dev/sda1'],
      [{...stack, by: 'dm-0 (vg-root)'}, '/dev/sda1 is part of dm-0 (vg-root)', 'dmsetup remove vg-root'],
      [{...stack, by: 'md0'}, '/dev/sda1 is part of md0', 'mdadm --stop /dev/md0'],
      [{...stack, by: 'bcache0'}, '/dev/sda1 is part of bcache0', 'echo 1 > /sys/block/bcache0/bcache/stop'],
      [{...stack, by: 'drbd0'}, '/dev/sda1 is part of drbd0', 'stop drbd0'],
      [
        {...stack, by: undefined},
        '/dev/sda1 is in use by the kernel',
        'lsblk /dev/sda1, zpool status and btrfs filesystem show what is using it',
      ],
      [
        net,
        'eth0 is up with 192.0.2.2/24 and carries the routes default via 192.0.2.1, 192.0.2.0/24',
        'ip link set eth0 down',
      ],
      [
        {...net, addresses: [], routes: ['198.51.100.0/24'], through: 'br0'},
        'eth0 carries the route 198.51.100.0/24 through br0',
        'ip link set eth0 down',
      ],
      [{...net, routes: []}, 'eth0 is up with 192.0.2.2/24', 'ip link set eth0 down'],
      [
        {...net, class: 'yields', harm: 'overridable', last: true, through: 'bond0'},
        'eth0 carries the last route to this machine (default via 192.0.2.1) through bond0',
        cutOff,
      ],
      [
        {...net, class: 'yields', harm: 'overridable', last: true, routes: []},
        'eth0 carries the last route to this machine (192.0.2.2/24)',
        cutOff,
      ],
      [
        {...base, kind: 'network-namespace'},
        'its network interface is in another network namespace, like that of a container',
        '`lsns --type net` and `ip netns` show the namespaces: end what uses the interface, or move it back from there, as in `ip -n NAME link set eth0 netns 1`',
      ],
      [
        {...base, kind: 'framebuffer', name: 'fb0', description: 'efi-framebuffer.0'},
        'framebuffer fb0 (efi-framebuffer.0) is shown on it',
        'echo efi-framebuffer.0 > /sys/bus/platform/drivers/efi-framebuffer/unbind',
      ],
      [
        {...base, kind: 'framebuffer', name: 'fb0', description: 'nouveaudrmfb'},
        'framebuffer fb0 (nouveaudrmfb) is shown on it',
        'make sure that the display of fb0 is not needed: it is off until a driver has the device again',
      ],
      [
        {...base, kind: 'console', name: 'vtcon1', description: 'frame buffer device'},
        'console vtcon1 (frame buffer device) is shown on it',
        'echo 0 > /sys/class/vtconsole/vtcon1/bind',
      ],
      [
        {...base, kind: 'virtual-function', virtualFunction: other, driver: 'vfio-pci'},
        'its virtual function 0000:02:00.0 is in use (driver vfio-pci)',
        'echo 0 > /sys/bus/pci/devices/0000:01:00.0/sriov_numvfs',
      ],
      [
        {
          slot,
          class: 'yields',
          harm: 'certain',
          kind: 'virtual-function',
          virtualFunction: other,
          driver: 'vfio-pci',
        },
        'its virtual function 0000:02:00.0 is in use (driver vfio-pci)',
        'end the use of 0000:02:00.0 first',
      ],
    ];
    for (const [holder, words, advice] of cases)
      it(words, () => assert.deepEqual([describeHolder(holder), adviseOnHolder(holder)], [words, advice]));
  });

  it('of all devices are found in one pass over each folder', () => {
    for (let bus = 1; bus < 32; bus++) {
      const path = `${root}/0000:00:1f.0/0000:${bus.toString(16).padStart(2, '0')}:00.0`;
      tree.device(path, {driver: 'nvme', group: bus});
      tree.block(`259:${bus}`, `${path}/nvme/nvme${bus}/nvme${bus}n1`);
      tree.char(`240:${bus}`, `${path}/nvme/nvme${bus}`, `nvme${bus}`);
    }
    tree.process(5, 'a', '/', ['/dev/nvme3']);
    const devices = readDevices(tree);
    tree.reads.length = 0;
    assert.equal(tree.held(...devices).length, 1);
    const often = tree.reads.filter((path, index) => tree.reads.indexOf(path) !== index);
    assert.deepEqual(often, []);
  });
});
