import {option, string} from '@oclif/core/flags';
import {readDevices} from '../../../../devices/pci/device.js';
import {parseDriver} from '../../../../devices/pci/driver.js';
import {findSlot} from '../../../../devices/pci/find.js';
import {usageError} from '../../../../host/errors.js';
import {configureUserspace, readBytesAfterConfig, selectForConfig} from '../../../../operations/userspace.js';
import {BaseCommand, writeFlags} from '../../base-command.js';
import {accessWords, nodeAccessFlags, readAccessChange} from '../../node-access-flags.js';
import {withChanges} from '../../switching.js';
import {readHugePageVariables, readUserspaceEnvironment} from '../../userspace-environment.js';
import {selectionOf, showUserspace, typeFlag, userspaceArgs, type UserspaceResult} from '../../userspace.js';

/** `pearasys userspace config`: gives devices to programs. */
export default class UserspaceConfig extends BaseCommand {
  static override description =
    'Gives devices to userspace drivers until the next boot, all or none: to vfio-pci, or to the variant driver ' +
    'that modules.alias prefers for the device; without an IOMMU, to vfio-pci if no-IOMMU mode is on, and ' +
    'otherwise to uio_pci_generic. Without DEVICE and --type, selects what SPDK selects: NVMe disks, virtio disks and ' +
    'I/OAT engines. Skips a device in use, and a disk that carries data: a partition table, or a ' +
    'signature that libblkid finds. Reads PCI_ALLOWED, PCI_BLOCKED, SKIP_PCI, DRIVER_OVERRIDE, TARGET_USER, HUGEMEM, ' +
    'NRHUGE, HUGEPGSZ, HUGENODE, HUGE_EVEN_ALLOC, CLEAR_HUGE, SHRINK_HUGE, SKIP_HUGE and PERSIST_HUGE from the ' +
    'environment, as SPDK does; options override them, except PCI_BLOCKED.';
  static override examples = [
    '<%= config.bin %> userspace config --dry-run',
    '<%= config.bin %> userspace config 03:00.0 --take 03:00.0',
    '<%= config.bin %> userspace config --type net --type crypto',
  ];
  static override args = userspaceArgs;
  static override flags = {
    ...writeFlags,
    ...nodeAccessFlags,
    type: typeFlag,
    driver: string({summary: 'Use this driver for all devices', helpValue: 'NAME'}),
    variant: option({
      summary: 'Whether to use VFIO variant drivers for devices that have one',
      helpValue: 'yes|no',
      options: ['yes', 'no'] as const,
      default: 'yes' as const,
    })(),
    take: string({
      summary: 'Take this disk even if it carries data, but not if it is in use',
      helpValue: 'SLOT',
      multiple: true,
      multipleNonGreedy: true,
    }),
  };

  async run(): Promise<UserspaceResult> {
    const {args, flags} = await this.parse(UserspaceConfig);
    const {environment} = this.context;
    const {allowed, blocked, driver: override, user} = readUserspaceEnvironment(environment);
    const hugePages = readHugePageVariables(environment);
    const host = await this.openHost();
    const selection = selectionOf(args.device, flags.type, allowed);
    const devices = selectForConfig(host, selection);
    const take = new Set((flags.take ?? []).map((word) => findSlot(host, () => readDevices(host), word)));
    const stray = [...take].find((slot) => !devices.some((device) => device.slot === slot));
    if (stray !== undefined)
      throw usageError(`--take ${stray}: this device is not selected`, `name it: userspace config ${stray}`);
    const request = {
      driver: flags.driver === undefined ? override : parseDriver(flags.driver),
      variant: flags.variant === 'yes',
      take,
      blocked,
    };
    const notes: string[] = [];
    const words = accessWords(flags) ?? (user === undefined ? undefined : {user});
    const access = await readAccessChange(
      this,
      host,
      words,
      notes,
      hugePages === undefined ? undefined : readBytesAfterConfig(host, hugePages),
    );
    const done = await withChanges(this, flags, notes, (options) =>
      configureUserspace(host, devices, request, {
        ...options,
        named: selection.words.length > 0,
        hugePages,
        access,
      }),
    );
    return showUserspace(this, host, done, flags, notes);
  }
}
