import {systemdUnits} from '../host/layout.js';
import {readDevice} from '../pci/device.js';
import {readNames} from '../pci/names.js';
import {parseSlot} from '../pci/slot.js';
import {carryOut} from '../plan/carry-out.js';
import {planInstall, readServices, servicesLock} from '../plan/service.js';
import {plan} from '../plan/step.js';
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
      const state = readServices(
        host,
        layout,
        [slot],
        device === undefined ? undefined : readNames(host, [device]),
      );
      const wish = state.records.records.find((one) => one.slot === 'any' && one.id === device?.id);
      const recorded = state.records.records.some((one) => one.slot === slot && one.id === device?.id);
      if (device === undefined || wish === undefined || recorded) return plan([]);
      return planInstall(
        {devices: [device], driver: wish.driver, folder: systemdUnits, start: 'queue'},
        state,
      );
    },
    handlerOptions(context),
  );
  logOutcome(context, outcome, `${slot} is recorded, as its id is`, `${slot} has nothing to be recorded`);
};
