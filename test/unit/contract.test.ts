import {contract} from '../contract/cases.js';
import {SimulatedContractMachine} from '../contract/simulated.js';

describe('the simulated machine keeps the contract', () => {
  for (const {title, cases} of contract)
    describe(title, () => {
      for (const each of cases)
        it(each.title, async () => {
          const machine = new SimulatedContractMachine();
          try {
            await each.check(machine);
          } finally {
            machine.dispose();
          }
        });
    });
});
