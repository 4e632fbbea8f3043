import type {Command} from '@oclif/core/command';
import {BaseCommand} from '../src/entry/cli/base-command.js';
import {commands} from '../src/entry/cli/command-table.js';
import {description, name, version} from '../src/entry/cli/version.js';
import {exitCodeMeanings} from '../src/host/errors.js';
import {settingsHelp} from '../src/state/guests/guest-settings.js';

/**
 * The manual page pearasys(8), made from the descriptions of the commands.
 * @param config the folder of settings and records.
 */
export async function manualPage(config: string): Promise<string> {
  const entries = await Promise.all(
    Object.entries(commands)
      .filter(([, {hidden}]) => hidden !== true)
      .map(async ([id, {summary, load}]) => command(id, summary, (await load()).default)),
  );
  return [
    `.TH ${name.toUpperCase()} 8 "" "${name} ${version}"`,
    '.SH NAME',
    text(`${name} - ${description.charAt(0).toLowerCase()}${description.slice(1)}`),
    '.SH SYNOPSIS',
    `.B ${name}`,
    '[\\fIOPTION\\fR...] \\fICOMMAND\\fR [\\fIARGUMENT\\fR...]',
    '.SH DESCRIPTION',
    text(
      'A device is named by its slot (0000:04:00.0, or 04:00.0 in domain 0000), by its id (10de:1b80, vendor and ' +
        'device), by the name of what its driver provides (eth0, nvme0n1, card1), or by a path in /dev or /sys. ' +
        '04:00.* names all functions of a card. A mediated device is named by its UUID. Options may be placed ' +
        'before or after the command.',
    ),
    '.SH OPTIONS',
    ...options(BaseCommand.baseFlags),
    ...item('-h, --help', 'Print help on the command, or on everything.'),
    ...item('--version', 'Print the version.'),
    '.SH COMMANDS',
    ...entries,
    '.SH SETTINGS OF GUESTS',
    text(
      `Lines of the form Key=value in ${config}/guests/GUEST.settings apply to one guest, those in ` +
        `${config}/guest.settings to all guests. A setting in the guest's own file overrides the one for all guests. ` +
        'Lines that begin with # are comments.',
    ),
    ...settingsHelp.flatMap(({key, means, otherwise}) =>
      item(`${key}=`, `${means} If it is not set: ${otherwise}.`),
    ),
    ...item(
      'Card=SLOT VENDOR:DEVICE',
      'An expected card, one per line, written by guest setup: another card in the slot is not taken.',
    ),
    '.SH RECOVERY',
    text(
      'If a claim has taken the device that you need to use the machine, add one of these words to the kernel command ' +
        'line in the boot menu. Then remove the claim with service uninstall. The words do not change records and ' +
        'units: at the next boot without them, the devices are claimed again.',
    ),
    ...item(
      'pearasys=off',
      'Switches off all claims for this boot: each device goes to the driver that the kernel chooses. Mediated devices ' +
        'are not started automatically, and guests that take devices from the host do not start.',
    ),
    ...item(
      'pearasys.skip=SLOT[,SLOT]',
      'Does the same for single devices. Write each slot in full, or without domain 0000.',
    ),
    '.SH CLAIMS WITHOUT A RECORD',
    text('If /etc is part of an image, claims can be passed from outside. They last for one boot.'),
    ...item(
      'pearasys.claim=SLOT,ID,DRIVER',
      'On the kernel command line, once for each device: claims the card with this id in this slot.',
    ),
    ...item('pearasys.claim.*', 'System credentials with such names. Each contains SLOT,ID,DRIVER.'),
    '.SH QUARANTINE',
    text(
      'Before a device returns to the host, pearasys checks it: its configuration space must not read all ones, and ' +
        'its power state must be D0. A device that fails the check is reset, as the setting reset of its record ' +
        'allows. If no reset helps, the device is quarantined: no driver and no guest gets it until the next boot. ' +
        'Suspend and resume the machine, or switch it off and on. Then bind default --force returns the device to ' +
        'the host, and ends the quarantine if the device works.',
    ),
    '.SH EXIT STATUS',
    ...Object.entries(exitCodeMeanings).flatMap(([code, means]) =>
      item(code, `${means.charAt(0).toUpperCase()}${means.slice(1)}.`),
    ),
    '.SH FILES',
    ...item(`${config}/pci/`, 'Records: which driver gets which device. One file per device.'),
    ...item(
      `${config}/sriov/`,
      'How many virtual functions a device has, and which drivers get them. One file per device.',
    ),
    ...item(
      'pearasys-sriov@SLOT.target',
      'The unit of a device with virtual functions. While it is active, they exist as recorded.',
    ),
    ...item(
      `${config}/initramfs-claims`,
      'The enabled claims, for the initramfs, which reserves these devices before udev starts.',
    ),
    ...item(
      '/etc/systemd/system/pearasys-SLOT@DRIVER.service',
      'The unit of a device. Enabled, it claims the device at boot and at each hot-add.',
    ),
    ...item(
      '/etc/udev/rules.d/61-pearasys-access.rules, 61-pearasys-access-sriov.rules',
      'Who may open the nodes of claimed devices and of virtual functions, generated from the records.',
    ),
    ...item(
      '/etc/modprobe.d/pearasys-no-iommu.conf',
      'Turns the no-IOMMU mode of VFIO on at each boot. Written by driver no-iommu on --permanent.',
    ),
    ...item(
      '/etc/mdevctl.d/PARENT/UUID',
      'Definitions of mediated devices, shared with mdevctl. Its scripts in /etc/mdevctl.d/scripts.d/ are called.',
    ),
    ...item(
      `${config}/vgpu/`,
      'Records: which virtual function gets which vGPU type. One file per function.',
    ),
    ...item(
      'vgpu@SLOT.service',
      'The unit of a virtual function with a vGPU. It sets the recorded type when the function appears.',
    ),
    ...item(
      '/etc/tmpfiles.d/pearasys-hugepages.conf',
      'How many huge pages to allocate at boot. Written by hugepages set.',
    ),
    ...item(`${config}/pearasys.conf`, 'Settings.'),
    ...item(`${config}/guests/GUEST.conf`, 'The slots of the devices that a guest takes, one per line.'),
    ...item(
      `${config}/guests/single-gpu-passthrough-guests.conf, gpu-passthrough-guests.conf`,
      'Guests that take the boot display, and guests that take another display.',
    ),
    ...item(
      'pearasys-guest@GUEST.service',
      'The unit of a guest. While it is active, the guest has its devices and the host does not.',
    ),
    ...item(
      'pearasys-awake@GUEST.service',
      'Keeps the host from suspend and hibernation while that unit is active, unless Sleep=allow is set.',
    ),
    ...item('/etc/libvirt/hooks/qemu.d/50-pearasys', 'Starts and stops that unit, when libvirt runs it.'),
    ...item('/usr/share/misc/pci.ids, /usr/share/hwdata/pci.ids', 'Names of devices, classes and vendors.'),
    '.SH SEE ALSO',
    text(
      'systemctl(1), kernel-command-line(7), initramfs-tools(7), dracut(8), mkinitcpio(8), udev(7), lspci(8), mdevctl(8), virsh(1)',
    ),
    '',
  ].join('\n');
}

function command(id: string, summary: string, loaded: Command.Class): string {
  const args = Object.entries(loaded.args).map(([arg, {required}]) => {
    const word = `\\fI${arg.toUpperCase()}\\fR`;
    return required === true ? word : `[${word}]`;
  });
  return [
    `.SS ${[name, id.replaceAll(':', ' '), ...args].join(' ')}`,
    text(`${summary}.`),
    ...(loaded.description === undefined ? [] : ['.PP', text(loaded.description)]),
    ...options(loaded.flags),
  ].join('\n');
}

function options(flags: Command.Class['flags'] | undefined): string[] {
  return Object.entries(flags ?? {})
    .filter(([, flag]) => flag.hidden !== true)
    .flatMap(([name, flag]) => {
      const {char, summary = ''} = flag;
      const value = flag.type === 'option' ? ` ${[flag.helpValue ?? 'VALUE'].flat().join(' ')}` : '';
      return item(`${char === undefined ? '' : `-${char}, `}--${name}${value}`, `${summary}.`);
    });
}

function item(term: string, says: string): string[] {
  return ['.TP', `\\fB${escape(term)}\\fR`, text(says)];
}

function text(words: string): string {
  return escape(words).replace(/^(['.])/, '\\&$1');
}

function escape(words: string): string {
  return words.replaceAll('\\', '\\e').replaceAll('-', '\\-');
}
