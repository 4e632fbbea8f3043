/** Guests of libvirt in a test machine. */

/** What an image needs for them. */
export const libvirtPackages = ['libvirt-daemon-system', 'libvirt-clients', 'qemu-system-x86'] as const;

/** A domain with devices, without a disk: its firmware searches for a system forever, and keeps the devices. */
export function domain(name: string, slots: readonly string[], managed: 'yes' | 'no'): string {
  const devices = slots.map((slot) => {
    const [, bus = '', device = '', fn = ''] = /:(..):(..)\.(.)$/.exec(slot) ?? [];
    return `<hostdev mode='subsystem' type='pci' managed='${managed}'>
      <source><address domain='0x0000' bus='0x${bus}' slot='0x${device}' function='0x${fn}'/></source>
    </hostdev>`;
  });
  return `<domain type='qemu'>
  <name>${name}</name><memory unit='MiB'>128</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <devices>${devices.join('')}</devices>
</domain>
`;
}
