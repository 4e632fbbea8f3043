import {string} from '@oclif/core/args';
import {ExitCode, PearasysError} from '../../../../host/errors.js';
import {shellWord} from '../../../../host/shell.js';
import {readDomain, type DomainDevices} from '../../../../state/guests/domain.js';
import {
  displayOf,
  listsWith,
  readGuestFile,
  readGuestFiles,
  type GuestDisplay,
} from '../../../../state/guests/guest-files.js';
import {commonHook, guestHooks, readOurHooks} from '../../../../state/guests/hooks.js';
import {guestUnit, parseGuest} from '../../../../state/guests/guest-name.js';
import {
  defaultSettings,
  readSettings,
  unknownSettingNotes,
  type UnknownSetting,
} from '../../../../state/guests/guest-settings.js';
import {readState} from '../../../../state/guests/guest-state.js';
import {readDevice, type Device} from '../../../../devices/pci/device.js';
import {readNames} from '../../../../devices/pci/names.js';
import type {Slot} from '../../../../devices/pci/slot.js';
import {readActiveStates} from '../../../../systemd/unit.js';
import {BaseCommand} from '../../base-command.js';

/** A device of a guest. */
export interface GuestDevice {
  readonly slot: string;
  /** The id of the card in the slot; null without one. */
  readonly id: string | null;
  /** The id in the guest's settings for this slot; null without one. */
  readonly expected: string | null;
  /** The name in one line; empty without a card. */
  readonly name: string;
  readonly driver: string | null;
  readonly group: number | null;
  /** Whether the guest has it now. */
  readonly taken: boolean;
  /** The driver that the host uses when the guest has ended; null when the guest does not have it. */
  readonly hostDriver: string | null;
}

/** What `--json` prints. */
export interface GuestShowResult {
  readonly guest: string;
  readonly path: string;
  readonly problem: string | null;
  readonly display: GuestDisplay | null;
  readonly devices: readonly GuestDevice[];
  readonly unit: string;
  readonly active: string | null;
  /** The settings in force; null if they are ignored, as the problem then says. */
  readonly settings: {
    readonly stopServices: readonly string[] | 'auto';
    readonly displayManager: string;
    readonly processes: string;
    readonly processLimit: number;
    readonly unloadModules: readonly string[] | 'auto';
    readonly releaseConsoles: boolean;
    readonly returnDevices: boolean;
    readonly sleep: string;
  } | null;
  /** Settings that this version does not know, with their files. They have no effect. */
  readonly unknown: readonly UnknownSetting[];
  /** Services to start when the guest has ended. */
  readonly stopped: readonly string[];
  /** Our hooks that libvirt runs for it. */
  readonly hooks: readonly string[];
  /**
   * What libvirt's domain has and the guest does not take, and vice versa; notes about other host devices of the
   * domain, in sentences; null if libvirt has no domain.
   */
  readonly domain: {
    readonly missing: readonly string[];
    readonly further: readonly string[];
    readonly notes: readonly string[];
  } | null;
}

/** `pearasys guest show`: all about one guest. */
export default class GuestShow extends BaseCommand {
  static override description =
    'Prints the devices of a guest with their drivers, its settings, unit and hooks, and differences from its ' +
    'libvirt domain.';
  static override args = {guest: string({description: 'the guest', required: true, ignoreStdin: true})};

  async run(): Promise<GuestShowResult> {
    const {args} = await this.parse(GuestShow);
    const guest = parseGuest(args.guest);
    const host = await this.openHost();
    const {layout} = this.context;
    const file = readGuestFile(host, layout, guest);
    if (file === undefined)
      throw new PearasysError({
        code: 'no-guest',
        exitCode: ExitCode.noDevice,
        message: `guest ${guest} is not set up`,
        hint: `pearasys guest setup ${shellWord(guest)}; \`pearasys guest list\` lists the guests`,
      });
    const problems = file.reason === undefined ? [] : [file.reason];
    const attempt = <T>(work: () => T): T | undefined => {
      try {
        return work();
      } catch (error) {
        if (!(error instanceof PearasysError)) throw error;
        problems.push(
          [error.message, ...error.details.filter((line) => !/^nothing was/.test(line))].join(': '),
        );
        return undefined;
      }
    };
    const settings = attempt(() => readSettings(host, layout, guest));
    const state = attempt(() => readState(host, guest));
    const found = new Map(file.slots.map((slot) => [slot, readDevice(host, slot)]));
    const names = readNames(
      host,
      [...found.values()].filter((device): device is Device => device !== undefined),
    );
    const unit = guestUnit(guest);
    const active = await readActiveStates(host, [unit]);
    const domain = await readDomain(host, guest);
    const own = new Set([commonHook, ...guestHooks(guest)]);
    const {cards, unknown, ...inForce} = settings ?? defaultSettings;
    const result: GuestShowResult = {
      guest,
      path: file.path,
      problem: problems.length === 0 ? null : problems.join('; '),
      display: displayOf(listsWith(readGuestFiles(host, layout), guest)),
      devices: [...found].map(([slot, device]) => {
        const taken = state?.devices.find((one) => one.slot === slot);
        return {
          slot,
          id: device?.id ?? null,
          expected: cards.get(slot) ?? null,
          name: names.get(slot) ?? '',
          driver: device?.driver ?? null,
          group: device?.group ?? null,
          taken: taken !== undefined,
          hostDriver: taken?.driver ?? null,
        };
      }),
      unit,
      active: active.get(unit) ?? null,
      settings: settings === undefined ? null : inForce,
      unknown,
      stopped: state?.services ?? [],
      hooks: readOurHooks(host).filter((path) => own.has(path)),
      domain: domain.kind === 'known' ? compare(domain, file.slots) : null,
    };
    this.log(print(result));
    for (const slot of result.domain?.missing ?? [])
      this.warn(
        `libvirt's domain has ${slot}, which the guest does not take: pearasys guest setup ${shellWord(guest)}`,
      );
    for (const note of result.domain?.notes ?? []) this.warn(note);
    for (const note of unknownSettingNotes({unknown})) this.warn(note);
    return result;
  }
}

function compare({devices, notes}: DomainDevices, slots: readonly Slot[]): GuestShowResult['domain'] {
  const own = devices.map(({slot}) => slot);
  return {
    missing: own.filter((slot) => !slots.includes(slot)),
    further: slots.filter((slot) => !own.includes(slot)),
    notes,
  };
}

const displayWords: Readonly<Record<GuestDisplay, string>> = {
  primary: 'the boot display',
  gpu: 'a display other than the boot display',
  both: 'the boot display and another one',
};

/** The guest for people: one fact per line. */
function print(guest: GuestShowResult): string {
  const lines = [guest.guest];
  const fact = (name: string, ...values: readonly string[]) => {
    for (const [index, value] of values.entries())
      lines.push(`  ${(index === 0 ? name : '').padEnd(10)} ${value}`);
  };
  const {settings} = guest;
  const listed = (value: readonly string[] | 'auto') =>
    value === 'auto' ? value : value.join(' ') || 'none';
  fact('devices', ...guest.devices.map(deviceWords));
  if (guest.problem !== null) fact('problem', guest.problem);
  if (guest.display !== null) fact('display', displayWords[guest.display]);
  fact('unit', `${guest.unit} (${guest.active ?? 'no systemd'})`);
  const stopped = guest.stopped.map((unit) => `${unit} is stopped now`);
  fact('stops', ...(settings === null ? [] : [listed(settings.stopServices)]), ...stopped);
  if (settings !== null) {
    fact('processes', settings.processes === 'end' ? `ended within ${settings.processLimit} s` : 'refused');
    fact('unloads', listed(settings.unloadModules));
    fact('consoles', settings.releaseConsoles ? 'released' : 'kept');
    fact('at its end', settings.returnDevices ? 'returned to the host' : 'kept on VFIO');
    fact('sleep', settings.sleep === 'block' ? 'blocked while it has devices' : 'allowed');
  }
  fact('hooks', ...(guest.hooks.length > 0 ? guest.hooks : ['none: libvirt does not start the unit']));
  return lines.join('\n');
}

function deviceWords(device: GuestDevice): string {
  const {slot, id, expected, name, driver, group, taken, hostDriver} = device;
  if (id === null) return `${slot} is missing`;
  const other = expected === null || expected === id ? '' : `, but ${expected} is expected: not taken`;
  const state = taken ? `taken from ${hostDriver ?? 'no driver'}` : (driver ?? 'no driver');
  return `${slot} ${id} ${name} (${state}, ${group === null ? 'no group' : `group ${group}`})${other}`;
}
