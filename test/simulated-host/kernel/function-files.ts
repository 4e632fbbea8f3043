/** The attributes of a PCI function in sysfs. */
import {configOf, isBridge, modaliasOf, numbersOf, resourceOf} from './render.js';
import type {SimulatedMachine} from './machine.js';
import type {LiveFunction} from './pci.js';

export function renderDevice(machine: SimulatedMachine, device: LiveFunction): void {
  const {tree} = machine;
  const {path, slot, declaration} = device;
  const {vendor, model, subVendor, subModel, code} = numbersOf(declaration);
  const readOnly: Record<string, string> = {
    vendor: `0x${vendor}`,
    device: `0x${model}`,
    subsystem_vendor: `0x${subVendor}`,
    subsystem_device: `0x${subModel}`,
    class: `0x${code.toLowerCase()}`,
    revision: `0x${declaration.revision ?? '00'}`,
    modalias: modaliasOf(declaration),
    irq: '16',
    local_cpus: 'ff',
    local_cpulist: '0-7',
    power_state: 'D0',
    ari_enabled: '0',
    dma_mask_bits: '32',
    'power/runtime_status': 'active',
  };
  if (code.startsWith('0300')) readOnly['boot_vga'] = declaration.bootDisplay === true ? '1' : '0';
  const writable: Record<string, string> = {
    driver_override: device.override ?? '(null)',
    enable: '0',
    numa_node: String(declaration.numaNode ?? -1),
    msi_bus: '1',
    d3cold_allowed: '1',
    'power/control': 'on',
    ...declaration.attributes,
  };
  for (const [name, value] of Object.entries(readOnly)) tree.file(`${path}/${name}`, `${value}\n`);
  for (const [name, value] of Object.entries(writable)) tree.file(`${path}/${name}`, `${value}\n`, 0o644);
  tree.file(`${path}/remove`, '', 0o220);
  tree.file(`${path}/rescan`, '', 0o220);
  renderConfig(machine, device);
  renderRegions(machine, device);
  if (device.resetMethods.length > 0) {
    tree.file(`${path}/reset`, '', 0o200);
    renderResetMethods(machine, device);
  }
  renderSriov(machine, device);
  renderUevent(machine, device);
  tree.link(`${path}/subsystem`, '/sys/bus/pci');
  tree.link(`/sys/bus/pci/devices/${slot}`, path);
  if (device.group !== undefined) {
    const group = `/sys/kernel/iommu_groups/${device.group}`;
    tree.link(`${group}/devices/${slot}`, path);
    tree.file(`${group}/type`, 'DMA-FQ\n', 0o644);
    tree.file(`${group}/reserved_regions`, '0x00000000fee00000 0x00000000feefffff msi\n');
    tree.link(`${path}/iommu_group`, group);
    const iommu = `/sys/devices/virtual/iommu/${String(machine.declaration.iommu)}`;
    tree.link(`${iommu}/devices/${slot}`, path);
    tree.link(`${path}/iommu`, iommu);
  }
  if (isBridge(declaration)) {
    const bus =
      [...machine.pci.declared.values()].find(({behind}) => behind === slot)?.slot.slice(0, 7) ?? undefined;
    if (bus !== undefined) {
      tree.file(`${path}/pci_bus/${bus}/rescan`, '', 0o200);
      tree.link(`/sys/class/pci_bus/${bus}`, `${path}/pci_bus/${bus}`);
      tree.file(`${path}/secondary_bus_number`, `${parseInt(bus.slice(5), 16)}\n`);
      tree.file(`${path}/subordinate_bus_number`, `${declaration.lastBus ?? parseInt(bus.slice(5), 16)}\n`);
    }
  }
}

/** @param dead whether it reads as all ones. */
export function renderConfig(
  {tree}: SimulatedMachine,
  {path, declaration}: LiveFunction,
  dead = false,
): void {
  const config = configOf(declaration);
  tree.file(`${path}/config`, dead ? config.map(() => 0xff) : config, 0o644);
}

export function renderRegions({tree}: SimulatedMachine, {path, declaration, regions}: LiveFunction): void {
  const lines = resourceOf({...declaration, regions}).split('\n');
  // The BARs of virtual functions come after the ROM; IORESOURCE_UNSET.
  if (declaration.sriov?.noSpace === true)
    lines[7] = `0x${'0'.repeat(16)} 0x${'3fff'.padStart(16, '0')} 0x20140204`;
  tree.file(`${path}/resource`, `${lines.join('\n')}\n`);
  for (const [bar, {sizes}] of Object.entries(declaration.resizable ?? {})) {
    const bits = sizes.reduce((sum, size) => sum + 2 ** size, 0);
    tree.file(`${path}/resource${bar}_resize`, `${bits.toString(16).padStart(16, '0')}\n`, 0o644);
  }
}

export function renderUevent(machine: SimulatedMachine, device: LiveFunction): void {
  const {vendor, model, subVendor, subModel, code} = numbersOf(device.declaration);
  const id = (one: string, other: string) => `${one}:${other}`.toUpperCase();
  machine.tree.file(
    `${device.path}/uevent`,
    `${device.driver === undefined ? '' : `DRIVER=${device.driver}\n`}PCI_CLASS=${code.replace(/^0{1,2}/, '')}\n` +
      `PCI_ID=${id(vendor, model)}\nPCI_SUBSYS_ID=${id(subVendor, subModel)}\nPCI_SLOT_NAME=${device.slot}\n` +
      `MODALIAS=${modaliasOf(device.declaration)}\n`,
    0o644,
  );
}

export function renderResetMethods(machine: SimulatedMachine, device: LiveFunction): void {
  const names = device.resetMethods.join(' ');
  machine.tree.file(`${device.path}/reset_method`, names === '' ? '' : `${names}\n`, 0o644);
}

export function renderSriov(machine: SimulatedMachine, device: LiveFunction): void {
  const sriov = device.declaration.sriov;
  if (sriov === undefined || !machine.tree.has(device.path)) return;
  const {path} = device;
  machine.tree.file(`${path}/sriov_totalvfs`, `${sriov.total}\n`);
  machine.tree.file(`${path}/sriov_numvfs`, `${device.virtualFunctions}\n`, 0o644);
  const isKnown = sriov.hidesPlaces !== true || device.virtualFunctions > 0;
  machine.tree.file(`${path}/sriov_offset`, `${isKnown ? (sriov.offset ?? 128) : 0}\n`);
  machine.tree.file(`${path}/sriov_stride`, `${isKnown ? (sriov.stride ?? 1) : 0}\n`);
  machine.tree.file(
    `${path}/sriov_vf_device`,
    `${parseInt(sriov.virtualId.split(':')[1] ?? '', 16).toString(16)}\n`,
  );
  machine.tree.file(`${path}/sriov_drivers_autoprobe`, device.virtualAutoprobe ? '1\n' : '0\n', 0o644);
}
