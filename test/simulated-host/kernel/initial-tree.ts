import {driverRules, pciIds} from './render.js';
import type {SimulatedMachine} from './machine.js';

/** Builds the tree that a declaration says. */
export function build(machine: SimulatedMachine): void {
  const {tree, declaration} = machine;
  for (const folder of [
    '/sys/bus/pci/devices',
    '/sys/bus/pci/drivers',
    '/sys/bus/pci/slots',
    '/sys/bus/usb/devices',
    '/sys/class/net',
    '/sys/class/block',
    '/sys/class/drm',
    '/sys/class/graphics',
    '/sys/class/sound',
    '/sys/class/vtconsole',
    '/sys/class/tty',
    '/sys/class/iommu',
    '/sys/block',
    '/sys/kernel/iommu_groups',
    '/sys/firmware',
    '/sys/dev/char',
    '/sys/dev/block',
    '/proc',
    '/dev',
    // sd_booted(3): systemd runs.
    '/run/systemd/system',
    '/tmp',
    '/etc/modprobe.d',
    '/etc/systemd/system',
    '/usr/lib/systemd/system',
    '/usr/lib/udev/rules.d',
  ])
    tree.directory(folder);
  // Distributions have one /lib in /usr.
  tree.directory(`/usr/lib/modules/${declaration.release}`);
  tree.textLink('/lib', 'usr/lib');
  tree.file('/sys/bus/pci/drivers_probe', '', 0o200);
  tree.file('/sys/bus/pci/rescan', '', 0o200);
  machine.drivers.setAutoprobe(true);
  tree.file('/sys/bus/pci/uevent', '', 0o200);
  if (declaration.iommu !== false) {
    tree.directory(`/sys/devices/virtual/iommu/${declaration.iommu}/devices`);
    tree.link(`/sys/class/iommu/${declaration.iommu}`, `/sys/devices/virtual/iommu/${declaration.iommu}`);
  }
  machine.console.buildConsoles();
  for (const module of declaration.modules)
    if (module.builtin === true || module.loaded === true) machine.modules.insertModule(module);
  for (const driver of declaration.drivers) {
    const module = declaration.modules.find(({name}) => name === driver.module);
    if (driver.module === undefined || module?.loaded === true || module?.builtin === true)
      machine.drivers.register(driver, false);
  }
  for (const each of declaration.functions) {
    machine.pci.declare(each);
  }
  machine.drivers.withoutAutoprobe(() => machine.pci.scan(() => true));
  for (const device of machine.functions.values())
    if (device.declaration.driver !== undefined)
      machine.drivers.attach(machine.drivers.named(device.declaration.driver), device);
  if (declaration.firmwareFramebuffer !== undefined) {
    tree.directory(`/sys/devices/platform/${declaration.firmwareFramebuffer}.0`);
    tree.textLink(
      `/sys/bus/platform/devices/${declaration.firmwareFramebuffer}.0`,
      `../../../devices/platform/${declaration.firmwareFramebuffer}.0`,
    );
    const folder = `/sys/bus/platform/drivers/${declaration.firmwareFramebuffer}`;
    tree.file(`${folder}/bind`, '', 0o200);
    tree.file(`${folder}/unbind`, '', 0o200);
    machine.console.addFirmwareFramebuffer(declaration.firmwareFramebuffer);
  }
  buildInterfaces(machine);
  buildStacks(machine);
  for (const process of declaration.processes) machine.processes.addProcess(process);
  machine.hugePages.build();
  machine.hostUse.renderMounts();
  machine.hostUse.renderRoutes();
  buildFiles(machine);
}

function buildInterfaces(machine: SimulatedMachine): void {
  const made = (name: string, flags: string, type: string) => {
    const folder = `/sys/devices/virtual/net/${name}`;
    const index = name === 'lo' ? 1 : machine.classDevices.allocate('ifindex');
    for (const [file, value] of Object.entries({
      address: '00:00:00:00:00:00',
      flags,
      ifindex: String(index),
      mtu: '1500',
      operstate: name === 'lo' ? 'unknown' : 'up',
      type,
      uevent: `INTERFACE=${name}\nIFINDEX=${index}`,
    }))
      machine.tree.file(`${folder}/${file}`, `${value}\n`, file === 'uevent' ? 0o644 : 0o444);
    machine.tree.link(`${folder}/subsystem`, '/sys/class/net');
    machine.tree.link(`/sys/class/net/${name}`, folder);
  };
  made('lo', '0x9', '772');
  machine.hostUse.addresses.set('lo', ['127.0.0.1/8', '::1/128']);
  for (const each of machine.declaration.virtualInterfaces) {
    const folder = `/sys/devices/virtual/net/${each.name}`;
    made(each.name, each.up === false ? '0x1002' : '0x1003', '1');
    if (each.up !== false) machine.hostUse.addresses.set(each.name, each.addresses ?? []);
    if (each.kind === 'bridge') machine.tree.directory(`${folder}/bridge`);
    if (each.kind === 'bond')
      machine.tree.file(`${folder}/bonding/slaves`, `${(each.lower ?? []).join(' ')}\n`, 0o644);
    for (const lower of each.lower ?? []) {
      const below = machine.tree.resolve(`/sys/class/net/${lower}`);
      if (below === undefined) throw new Error(`${each.name} is on ${lower}, which is not declared`);
      machine.tree.link(`${folder}/lower_${lower}`, below);
      machine.tree.link(`${below}/upper_${each.name}`, folder);
      if (each.kind === 'bridge' || each.kind === 'bond') machine.tree.link(`${below}/master`, folder);
      if (each.kind === 'bridge') machine.tree.link(`${folder}/brif/${lower}`, `${below}/brport`);
    }
  }
}

function buildStacks(machine: SimulatedMachine): void {
  for (const stack of machine.declaration.stacks) {
    const major = stack.dm === undefined ? 9 : 253;
    const minor = Number(/\d+$/.exec(stack.name)?.[0] ?? 0);
    const folder = `/sys/devices/virtual/block/${stack.name}`;
    machine.classDevices.addPart(undefined, {
      path: folder,
      subsystem: 'block',
      devtype: 'disk',
      classLinks: [`/sys/class/block/${stack.name}`, `/sys/block/${stack.name}`],
      node: {path: `/dev/${stack.name}`, type: 'block', number: `${major}:${minor}`, mode: 0o660},
      files: {
        dev: `${major}:${minor}`,
        size: String(stack.size ?? 1_000_000),
        'holders/.': '',
        'slaves/.': '',
        ...(stack.dm === undefined
          ? {'md/level': 'raid1'}
          : {'dm/name': stack.dm.name, 'dm/uuid': stack.dm.uuid, 'dm/suspended': '0'}),
        uevent: `MAJOR=${major}\nMINOR=${minor}\nDEVNAME=${stack.name}\nDEVTYPE=disk`,
      },
    });
    if (stack.dm !== undefined) {
      machine.tree.link(`/dev/mapper/${stack.dm.name}`, `/dev/${stack.name}`);
    }
    for (const name of stack.on) {
      const below = machine.tree.resolve(`/sys/class/block/${name}`);
      if (below === undefined) throw new Error(`${stack.name} is on ${name}, which is not declared`);
      machine.tree.link(`${folder}/slaves/${name}`, below);
      machine.tree.link(`${below}/holders/${stack.name}`, folder);
    }
  }
}

function buildFiles(machine: SimulatedMachine): void {
  const {tree, declaration} = machine;
  tree.file('/proc/cmdline', `${declaration.cmdline}\n`);
  tree.file('/proc/sys/kernel/osrelease', `${declaration.release}\n`);
  tree.file('/proc/sys/kernel/random/boot_id', '11111111-2222-3333-4444-555555555555\n');
  tree.file('/proc/sys/vm/nr_hugepages', '0\n', 0o644);
  tree.file('/proc/uptime', '120.00 400.00\n');
  const modules = `/usr/lib/modules/${declaration.release}`;
  const lines: string[] = ['# Aliases extracted from modules themselves.'];
  const isBuiltin = (name: string) =>
    declaration.modules.find((each) => each.name === name)?.builtin === true;
  // Fields that end with a NUL each; what is built in is in no modules.alias.
  let builtinInfo = '';
  for (const {module, name, aliases} of declaration.drivers)
    for (const alias of aliases)
      if (module === undefined || isBuiltin(module))
        builtinInfo += `${(module ?? name).replaceAll('-', '_')}.alias=${alias}\0`;
      else lines.push(`alias ${alias} ${module}`);
  tree.file(`${modules}/modules.builtin.modinfo`, builtinInfo, 0o644);
  for (const module of declaration.modules)
    for (const alias of module.aliases ?? []) lines.push(`alias ${alias} ${module.name}`);
  tree.file(`${modules}/modules.alias`, `${lines.join('\n')}\n`, 0o644);
  const file = (name: string) => `kernel/drivers/${name}.ko`;
  tree.file(
    `${modules}/modules.dep`,
    declaration.modules
      .filter((each) => each.builtin !== true)
      .map((each) => `${file(each.name)}:${(each.depends ?? []).map((name) => ` ${file(name)}`).join('')}\n`)
      .join(''),
    0o644,
  );
  tree.file(
    `${modules}/modules.builtin`,
    declaration.modules
      .filter((each) => each.builtin === true)
      .map((each) => `${file(each.name)}\n`)
      .join(''),
    0o644,
  );
  // What systemd ships: load the modules that a device's alias stands for.
  tree.file('/usr/lib/udev/rules.d/80-drivers.rules', driverRules, 0o644);
  tree.file('/usr/share/misc/pci.ids', pciIds, 0o644);
  tree.file(
    '/etc/os-release',
    'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    0o644,
  );
  if (declaration.displayManager !== undefined) {
    tree.file(
      `/usr/lib/systemd/system/${declaration.displayManager}`,
      '[Unit]\nDescription=Display Manager\n\n[Service]\nExecStart=/usr/sbin/gdm3\n\n[Install]\nAlias=display-manager.service\n',
      0o644,
    );
    tree.textLink(
      '/etc/systemd/system/display-manager.service',
      `/lib/systemd/system/${declaration.displayManager}`,
    );
  }
  for (const [path, content] of Object.entries(declaration.files)) tree.file(path, content, 0o644);
}
