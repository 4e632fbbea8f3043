import {systemdUnits} from '../../config/layout.js';
import {readDevice, type Device} from '../../devices/pci/device.js';
import type {Driver} from '../../devices/pci/driver.js';
import {readNames} from '../../devices/pci/names.js';
import {parseSlot, type Slot} from '../../devices/pci/slot.js';
import {carryOut} from '../../engine/carry-out.js';
import {claimsOf, planInstall, readServices, servicesLock} from '../../plan/service/service.js';
import {plan} from '../../plan/step.js';
import {isUnfinished} from '../../plan/unfinished.js';
import {isNamedFor, readRecords, type Records} from '../../state/records/record.js';
import {handlerOptions, takeArguments, unitPatience, type Handler, type HandlerContext} from './handler.js';
import {takeTurns} from './turn.js';

/** `pearasys-record@<slot>.service`, and all such units that wait: a record by id alone becomes the slot's own record and unit. */
export const record: Handler = async (context, args) => {
  const [slotText] = takeArguments(args, ['SLOT']);
  await takeTurns(context, {
    what: 'record',
    own: parseSlot(slotText),
    together: (_name, waiting) => waiting,
    work: (told, _name, {names}) => recordAll(told, names.map(parseSlot)),
  });
};

/** In one plan for all of a driver, as each would have systemd read all its files again. */
async function recordAll(context: HandlerContext, slots: readonly Slot[]): Promise<void> {
  const {host, layout} = context;
  const recorded = new Set<Slot>();
  const wishes = readRecords(host, layout).records.filter(({slot}) => slot === 'any');
  for (const driver of new Set(wishes.map((wish) => wish.driver))) {
    const devices: Device[] = [];
    const outcome = await carryOut(
      host,
      [servicesLock],
      () => {
        const present = slots.map((slot) => readDevice(host, slot)).filter((device) => device !== undefined);
        const state = readServices(host, layout, slots, {names: readNames(host, present)});
        // A run that was killed may have come no further than to the record.
        const begun = isUnfinished(host, servicesLock);
        const wished = present.filter((device) => isWished(device, driver, state.records, begun));
        devices.splice(0, devices.length, ...wished);
        return wished.length === 0
          ? plan([])
          : planInstall(
              {claims: claimsOf(host, wished, driver), folder: systemdUnits, start: 'queue'},
              state,
            );
      },
      {...handlerOptions(context), lockLimit: unitPatience},
    );
    if (outcome.changed) for (const {slot} of devices) recorded.add(slot);
  }
  for (const slot of slots)
    context.log(
      6,
      recorded.has(slot) ? `${slot} is recorded, as its id is` : `${slot} has nothing to be recorded`,
    );
}

/** Whether a record by id alone is about the device. Neither another card's record nor one that is ignored is replaced. */
function isWished({slot, id}: Device, driver: Driver, {records, problems}: Records, begun: boolean): boolean {
  return (
    records.some((one) => one.slot === 'any' && one.id === id && one.driver === driver) &&
    !records.some((one) => one.slot === slot && !(begun && one.id === id && one.driver === driver)) &&
    !problems.some(({path}) => isNamedFor(slot, path))
  );
}
