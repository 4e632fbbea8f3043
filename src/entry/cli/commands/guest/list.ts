import {
  displayOf,
  listsWith,
  readGuestFiles,
  type GuestDisplay,
} from '../../../../state/guests/guest-files.js';
import {desiredNotes} from '../../../../state/desired.js';
import {asGuest, guestUnit} from '../../../../state/guests/guest-name.js';
import {readStates} from '../../../../state/guests/guest-state.js';
import {readActiveStates} from '../../../../systemd/unit.js';
import {BaseCommand} from '../../base-command.js';
import {hasColors} from '../../context.js';
import {printTable} from '../../table.js';

/** A guest that is set up, as `--json` prints it. */
export interface GuestEntry {
  readonly guest: string;
  /** The slots it takes. */
  readonly slots: readonly string[];
  /** `primary`: it takes the boot display; `gpu`: another one; `both`; null for none. */
  readonly display: GuestDisplay | null;
  readonly unit: string;
  /** systemd's name of the unit's state; null if systemd is not running. */
  readonly active: string | null;
  /** The slots that it has now. */
  readonly taken: readonly string[];
  /** Why its file is ignored, or why its present devices are not known; null otherwise. */
  readonly problem: string | null;
}

/** What `--json` prints. */
export interface GuestListResult {
  readonly guests: readonly GuestEntry[];
}

/** `pearasys guest list`: the guests that are set up. */
export default class GuestListCommand extends BaseCommand {
  static override description =
    'Without a terminal, prints one line per guest, tab-separated: name, slots separated by commas, the ' +
    'display it takes (primary, gpu, both, or - for none), the state of its unit, and the slots that it has ' +
    'now.';

  async run(): Promise<GuestListResult> {
    await this.parse(GuestListCommand);
    const host = await this.openHost();
    const all = readGuestFiles(host, this.context.layout);
    const {guests: files, lists, problems} = all;
    const {states, damaged} = readStates(host);
    const active = await readActiveStates(
      host,
      files.map(({guest}) => guestUnit(guest)),
    );
    const guests = files.map(({guest, slots, reason}): GuestEntry => {
      const unit = guestUnit(guest);
      const taken = states.find((state) => state.guest === guest)?.devices.map(({slot}) => slot) ?? [];
      return {
        guest,
        slots,
        display: displayOf(listsWith(all, guest)),
        unit,
        active: active.get(unit) ?? null,
        taken,
        problem: reason ?? damaged.get(guest)?.message ?? null,
      };
    });
    await this.#print(guests);
    for (const [guest, {message}] of damaged)
      this.warn(
        files.some((file) => file.guest === guest) ? `guest ${guest} is ignored: ${message}` : message,
      );
    for (const note of desiredNotes([...files, ...problems])) this.warn(note);
    for (const name of new Set([...lists.primary, ...lists.gpu]))
      if (!files.some(({guest}) => guest === asGuest(name)))
        this.warn(`${name} is in a list of guests, but is not set up`);
    return {guests};
  }

  async #print(guests: readonly GuestEntry[]): Promise<void> {
    const {stdout, environment} = this.context;
    const rows = guests.map(({guest, slots, display, active, taken}) => [
      guest,
      slots.join(',') || '-',
      display ?? '-',
      active ?? '-',
      taken.join(',') || '-',
    ]);
    if (!stdout.isTerminal || this.jsonEnabled()) {
      for (const row of rows) this.log(row.join('\t'));
      return;
    }
    const columns = ['GUEST', 'DEVICES', 'DISPLAY', 'UNIT', 'HAS NOW'].map((head) => ({
      head,
      shrinks: head === 'DEVICES' || head === 'HAS NOW',
    }));
    this.logTable(await printTable(stdout, hasColors(stdout, environment), columns, rows));
  }
}
