import {systemdUnits} from '../host/layout.js';
import {readDevice} from '../pci/device.js';
import {readNames} from '../pci/names.js';
import {parseSlot} from '../pci/slot.js';
import {carryOut} from '../plan/carry-out.js';
import {planInstall, readServices, servicesLock} from '../plan/service.js';
import {plan} from '../plan/step.js';
import {isNamedFor} from '../record/record.js';
import {handlerOptions, logOutcome, takeArguments, type Handler} from './handler.js';

/** `pearasys-record@<slot>.service`: a record by id alone becomes the slot's own record and unit. */
export const record: Handler = async (context, args) => {
  const {host, layout} = context;
  const [slotText] = takeArguments(args, ['SLOT']);
  const slot = parseSlot(slotText);
  const outcome = await carryOut(
    host,
    [servicesLock],
    () => {
      const device = readDevice(host, slot);
      if (device === undefined) return plan([]);
      const state = readServices(host, layout, [slot], {names: readNames(host, [device])});
      const {records, problems} = state.records;
      const wish = records.find((one) => one.slot === 'any' && one.id === device.id);
      // Neither another card's record nor one that is ignored is replaced without being asked.
      const recorded =
        records.some((one) => one.slot === slot) || problems.some(({path}) => isNamedFor(slot, path));
      if (wish === undefined || recorded) return plan([]);
      return planInstall(
        {devices: [device], driver: wish.driver, folder: systemdUnits, start: 'queue'},
        state,
      );
    },
    handlerOptions(context),
  );
  logOutcome(context, outcome, `${slot} is recorded, as its id is`, `${slot} has nothing to be recorded`);
};
