import {string} from '@oclif/core/args';
import {singleQuoted} from '../../../../host/shell.js';
import {desiredNotes} from '../../../../state/desired.js';
import {guestsOfSlot, isDisplay, readGuestFiles} from '../../../../state/guests/guest-files.js';
import {parseGuest} from '../../../../state/guests/guest-name.js';
import {readDevice, readDevices} from '../../../../devices/pci/device.js';
import {findSlot} from '../../../../devices/pci/find.js';
import {asSlot, virshName} from '../../../../devices/pci/slot.js';
import {BaseCommand} from '../../base-command.js';

/** The variables of virt-aid's query, each with its values; for a shell the values are joined by newlines. */
export interface GuestQueryResult {
  /** The slots of the guest. */
  readonly devices: readonly string[];
  /** The same with virsh's names: `pci_0000_02_00_0`. */
  readonly devices_with_virsh_format: readonly string[];
  /** Guests that take the boot display. */
  readonly primary_gpu_passthrough_guests: readonly string[];
  /** Guests that take another display. */
  readonly gpu_passthrough_guests: readonly string[];
  /** The displays among the guest's devices. */
  readonly guest_gpu_device: readonly string[];
  /** The guest, if it is one of `gpu_passthrough_guests`. */
  readonly is_gpu_passthrough_guest: readonly string[];
  /** The guest, if it is one of `primary_gpu_passthrough_guests`. */
  readonly is_primary_gpu_passthrough_guest: readonly string[];
  /** The given slot. */
  readonly device_pci_id: readonly string[];
  /** The same with virsh's name. */
  readonly device_virsh_name: readonly string[];
  /** The guests that take it. */
  readonly device_guests: readonly string[];
}

/** `pearasys guest query`: values for scripts, as shell variables. */
export default class GuestQuery extends BaseCommand {
  static override description =
    'Prints variables for a shell, quoted so that eval is safe with any guest name. Multiple values are ' +
    'separated by newlines; variables that do not apply are empty.';
  static override examples = [
    'eval "$(<%= config.bin %> guest query win11)"',
    '<%= config.bin %> guest query win11 02:00.0 --json',
  ];
  static override args = {
    guest: string({description: 'the guest', ignoreStdin: true}),
    slot: string({description: 'a device', ignoreStdin: true}),
  };

  async run(): Promise<GuestQueryResult> {
    const {args} = await this.parse(GuestQuery);
    const host = await this.openHost();
    const files = readGuestFiles(host, this.context.layout);
    const {guests, lists, problems} = files;
    for (const note of desiredNotes(problems)) this.warn(note);
    const [guestWord, slotWord] = splitWords(args, (word) => guests.some(({guest}) => guest === word));
    const guest = guestWord === undefined ? undefined : parseGuest(guestWord);
    const slot = slotWord === undefined ? undefined : findSlot(host, () => readDevices(host), slotWord);
    const slots = guests.find((file) => file.guest === guest)?.slots ?? [];
    const inList = (list: readonly string[]) => list.filter((name) => name === guest);
    const result: GuestQueryResult = {
      devices: slots,
      devices_with_virsh_format: slots.map(virshName),
      primary_gpu_passthrough_guests: lists.primary,
      gpu_passthrough_guests: lists.gpu,
      guest_gpu_device: slots.filter((one) => {
        const device = readDevice(host, one);
        return device !== undefined && isDisplay(device);
      }),
      is_gpu_passthrough_guest: inList(lists.gpu),
      is_primary_gpu_passthrough_guest: inList(lists.primary),
      device_pci_id: slot === undefined ? [] : [slot],
      device_virsh_name: slot === undefined ? [] : [virshName(slot)],
      device_guests: slot === undefined ? [] : guestsOfSlot(files, slot),
    };
    for (const [name, values] of Object.entries(result) as [string, readonly string[]][])
      this.logData(`${name}=${singleQuoted(values.join('\n'))}`);
    return result;
  }
}

/** One word may be a guest or a slot; a guest with this name has priority. */
function splitWords(
  {guest, slot}: {readonly guest: string | undefined; readonly slot: string | undefined},
  isGuest: (word: string) => boolean,
): [guest: string | undefined, slot: string | undefined] {
  if (guest === undefined || slot !== undefined || isGuest(guest) || asSlot(guest) === undefined)
    return [guest, slot];
  return [undefined, guest];
}
