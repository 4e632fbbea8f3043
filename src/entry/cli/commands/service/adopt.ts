import {string} from '@oclif/core/args';
import {string as text} from '@oclif/core/flags';
import {readDevices} from '../../../../devices/pci/device.js';
import {findSlot} from '../../../../devices/pci/find.js';
import {parseSlot} from '../../../../devices/pci/slot.js';
import {adoptCard, findAdoptions, readAdoptable} from '../../../../operations/adopt.js';
import {ExitCode, PearasysError} from '../../../../host/errors.js';
import type {Host} from '../../../../host/host.js';
import {describeIdentity} from '../../../../state/records/identity-words.js';
import type {Whereabouts} from '../../../../state/records/locate.js';
import type {DeviceRecord} from '../../../../state/records/record.js';
import {BaseCommand, switchFlags} from '../../base-command.js';
import {changeResult, noInitramfsFlag, withChanges, type ChangeResult} from '../../switching.js';

/** A record that a card may take over, as `--json` prints it. */
export interface AdoptionReport {
  /** The recorded slot. */
  readonly from: string;
  readonly driver: string;
  /** What identifies the recorded card, in one line. */
  readonly recorded: string;
  /** `moved`: it is certain that the card is in the slot of the device; for the others it is not. */
  readonly card: Whereabouts['kind'];
  /** The devices that may be the card. */
  readonly devices: readonly {readonly slot: string; readonly identity: string}[];
}

/** What `--json` prints. */
export interface AdoptResult extends ChangeResult {
  readonly adoptions: readonly AdoptionReport[];
}

/** `pearasys service adopt`: the record of a card that was moved or replaced. */
export default class ServiceAdopt extends BaseCommand {
  static override description =
    'Takes over a card that was moved or replaced: writes what identifies the card in SLOT into its record, and ' +
    'moves the record and its units to that slot. Includes the other functions of the card. Prints the recorded and ' +
    'the new identity, and asks on a terminal; without a terminal, --force is needed. Without SLOT, lists the ' +
    'records whose cards are not where they were recorded, and the devices that may be these cards.';
  static override examples = [
    '<%= config.bin %> service adopt',
    '<%= config.bin %> service adopt 05:00.0',
    '<%= config.bin %> service adopt 05:00.0 --from 04:00.0',
  ];
  static override args = {
    slot: string({description: 'the slot in which the card is now', ignoreStdin: true}),
  };
  static override flags = {
    ...switchFlags,
    from: text({summary: 'Select the record by its slot, if there are several', helpValue: 'SLOT'}),
    'no-initramfs': noInitramfsFlag,
  };

  async run(): Promise<AdoptResult> {
    const {args, flags} = await this.parse(ServiceAdopt);
    const host = await this.openHost();
    if (args.slot === undefined) return this.#list(host);
    const slot = findSlot(host, () => readDevices(host), args.slot);
    const from = flags.from === undefined ? undefined : parseSlot(flags.from);
    const adoptions = findAdoptions(host, this.layout, slot, from).map(
      ({record, slot: to, identity}): AdoptionReport =>
        reportAdoption(record, to === record.slot ? 'other-card' : 'moved', [
          {slot: to, identity: describeIdentity({id: record.id, identity})},
        ]),
    );
    for (const adoption of adoptions) this.#print(adoption);
    if (!flags.force && !flags['dry-run'] && !(await this.accepts([])))
      throw new PearasysError({
        code: 'identity-mismatch',
        exitCode: ExitCode.refused,
        message: `${slot} was not adopted: there is no terminal on which to ask`,
        details: ['nothing was changed'],
        hint: 'if it is the right card, use --force',
      });
    const notes: string[] = [];
    const outcome = await withChanges(this, flags, notes, (options) =>
      adoptCard(host, this.layout, {slot, from, rebuild: !flags['no-initramfs']}, options),
    );
    const slots = findDevicesOf(adoptions);
    const result = {...changeResult(host, [outcome], flags, notes, slots), adoptions};
    if (result.dryRun) for (const line of result.steps) this.log(line);
    else this.log(`adopted: ${slots.map((one) => one.slot).join(', ')}`);
    return result;
  }

  #list(host: Host): AdoptResult {
    const adoptions = readAdoptable(host, this.layout).map(({record, place, devices}) =>
      reportAdoption(
        record,
        place.kind,
        devices.map(({slot, identity}) => ({slot, identity: describeIdentity({id: record.id, identity})})),
      ),
    );
    for (const adoption of adoptions) this.#print(adoption);
    if (adoptions.length === 0) this.log('There is nothing to adopt.');
    else this.note('to adopt one: pearasys service adopt SLOT');
    return {changed: false, dryRun: false, steps: [], notes: [], devices: [], adoptions};
  }

  #print({from, driver, recorded, card, devices}: AdoptionReport): void {
    this.log(`${from} on ${driver}`);
    this.log(`  recorded: ${recorded}`);
    for (const {slot, identity} of devices)
      this.log(`  ${card === 'moved' ? 'now in' : 'perhaps'} ${slot}: ${identity}`);
  }
}

function reportAdoption(
  record: DeviceRecord,
  card: Whereabouts['kind'],
  devices: AdoptionReport['devices'],
): AdoptionReport {
  return {from: record.slot, driver: record.driver, recorded: describeIdentity(record), card, devices};
}

function findDevicesOf(adoptions: readonly AdoptionReport[]) {
  return adoptions.flatMap(({devices}) => devices.map(({slot}) => ({slot: parseSlot(slot)})));
}
