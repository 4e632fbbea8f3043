/** Which manual pages there are, and which commands and parts of documents each has. */

/** Parts of a document: those with these headings, or all but these. The part below the title has the title's name. */
export interface Source {
  readonly file: string;
  readonly only?: readonly string[];
  readonly without?: readonly string[];
}

/** A manual page. */
export interface Page {
  readonly name: string;
  readonly section: 5 | 7 | 8;
  /** One line. */
  readonly title: string;
  /** The ids of commands; a topic stands for all commands that begin with it. */
  readonly commands?: readonly string[];
  readonly sources: readonly Source[];
  /** A file that the page shows as it is installed. */
  readonly file?: string;
  /** Pages of others. */
  readonly seeAlso: readonly string[];
}

/** The page that all others name first. */
export const overview: Page = {
  name: 'pearasys',
  section: 8,
  title: 'decide which driver has which PCI device, now, at every boot and at every hot-add',
  commands: ['report', 'completion'],
  sources: [
    {
      file: 'docs/rescue.md',
      only: ['Recovery', 'When something is wrong', 'A report for developers', 'The kernel command line'],
    },
  ],
  seeAlso: ['systemctl(1)', 'kernel-command-line(7)', 'udev(7)', 'lspci(8)'],
};

/** All pages but {@link overview}. */
export const pages: readonly Page[] = [
  {
    name: 'pearasys-list',
    section: 8,
    title: 'list and show PCI devices',
    commands: ['list', 'show'],
    sources: [{file: 'docs/commands.md', only: ['Lines of `pearasys list`']}],
    seeAlso: ['lspci(8)'],
  },
  {
    name: 'pearasys-bind',
    section: 8,
    title: 'bind devices to drivers until the next boot, and unbind them',
    commands: ['bind', 'unbind', 'confirm'],
    sources: [
      {file: 'docs/commands.md', only: ['What counts as in use']},
      {
        file: 'docs/rescue.md',
        only: ['A change that is undone unless you confirm it', 'The question before a device is taken'],
      },
    ],
    seeAlso: ['lspci(8)'],
  },
  {
    name: 'pearasys-service',
    section: 8,
    title: 'claim devices at boot and at each hot-add',
    commands: ['service'],
    sources: [{file: 'docs/permissions.md', without: ['new_id and remove_id', 'No-IOMMU mode']}],
    seeAlso: ['systemctl(1)', 'limits.conf(5)'],
  },
  {
    name: 'pearasys-pci',
    section: 8,
    title: "write to the kernel's PCI attributes",
    commands: ['pci'],
    sources: [],
    seeAlso: ['lspci(8)', 'setpci(8)'],
  },
  {
    name: 'pearasys-mdev',
    section: 8,
    title: 'manage mediated devices',
    commands: ['mdev'],
    sources: [{file: 'docs/mdev.md', without: ['Commands']}],
    seeAlso: ['mdevctl(8)', 'virsh(1)'],
  },
  {
    name: 'pearasys-guest',
    section: 8,
    title: 'give devices to virtual machines while they run',
    commands: ['guest'],
    sources: [{file: 'docs/guests.md', only: ['What is taken from a domain', 'Hooks', 'For scripts']}],
    seeAlso: ['virsh(1)'],
  },
  {
    name: 'pearasys-sriov',
    section: 8,
    title: 'create virtual functions, and give them to drivers',
    commands: ['sriov'],
    sources: [{file: 'docs/sriov.md'}],
    seeAlso: ['systemd.link(5)', 'ip-link(8)'],
  },
  {
    name: 'pearasys-userspace',
    section: 8,
    title: 'give disks, network cards and accelerators to DPDK and SPDK',
    commands: ['userspace'],
    sources: [{file: 'docs/userspace.md'}],
    seeAlso: [],
  },
  {
    name: 'pearasys-hugepages',
    section: 8,
    title: 'allocate huge pages, now and at each boot',
    commands: ['hugepages'],
    sources: [{file: 'docs/hugepages.md'}],
    seeAlso: ['tmpfiles.d(5)', 'systemd.mount(5)'],
  },
  {
    name: 'pearasys-vgpu',
    section: 8,
    title: 'set NVIDIA vGPU types of virtual functions',
    commands: ['vgpu'],
    sources: [{file: 'docs/vgpu.md', without: ['How it was tested']}],
    seeAlso: ['virsh(1)'],
  },
  {
    name: 'pearasys-driver',
    section: 8,
    title: 'change which devices a driver takes by itself',
    commands: ['driver'],
    sources: [{file: 'docs/permissions.md', only: ['new_id and remove_id', 'No-IOMMU mode']}],
    seeAlso: ['modprobe.d(5)'],
  },
  {
    name: 'pearasys-boot',
    section: 8,
    title: 'let claims take effect in the initramfs',
    commands: ['boot'],
    sources: [{file: 'docs/initramfs.md'}, {file: 'docs/boot.md', only: ['Claims without a record']}],
    seeAlso: ['initramfs-tools(7)', 'dracut(8)', 'mkinitcpio(8)', 'systemd.generator(7)'],
  },
  {
    name: 'pearasys-guest@.service',
    section: 8,
    title: 'the unit of a virtual machine that takes devices from the host',
    sources: [{file: 'docs/guests.md', without: ['What is taken from a domain', 'Hooks', 'For scripts']}],
    seeAlso: ['systemctl(1)', 'virsh(1)', 'systemd-inhibit(1)'],
  },
  {
    name: 'pearasys.conf',
    section: 5,
    title: 'settings of pearasys',
    sources: [{file: 'docs/pearasys.conf.md'}],
    file: 'etc/pearasys.conf',
    seeAlso: ['systemd.syntax(7)'],
  },
  {
    name: 'pearasys-records',
    section: 5,
    title: 'what pearasys is to do with a device',
    sources: [
      {file: 'docs/records.md'},
      {file: 'docs/boot.md', only: ['Which card a record is for']},
      {file: 'docs/settings.md'},
    ],
    seeAlso: [],
  },
  {
    name: 'pearasys-events',
    section: 7,
    title: 'rules and units of pearasys, and their order',
    sources: [{file: 'docs/events.md'}],
    seeAlso: ['systemd(1)', 'udev(7)', 'bootup(7)'],
  },
];
