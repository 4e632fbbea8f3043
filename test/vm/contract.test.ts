/** The contract of test/contract on a real kernel, with a real udev and systemd: one boot for all cases. */
import {contract} from '../contract/cases.js';
import {VirtualContractMachine} from '../contract/virtual.js';
import {BOOT_LIMIT, explainFailures, skipUnlessAvailable} from './machine.js';
import {mdevRecipe} from './recipes.js';
import {closeShared} from './shared.js';

describe('the virtual machine fulfills the contract', function () {
  this.timeout(120_000);
  let machine: VirtualContractMachine;

  before(async function () {
    this.timeout(BOOT_LIMIT);
    await skipUnlessAvailable(this, mdevRecipe());
    // The host may not have the resources for two machines.
    await closeShared();
    machine = await VirtualContractMachine.boot();
  });
  after(async () => (machine as VirtualContractMachine | undefined)?.close());
  explainFailures(() => (machine as VirtualContractMachine | undefined)?.machine);

  for (const {title, cases} of contract)
    describe(title, () => {
      beforeEach(() => machine.begin());
      afterEach(() => machine.end());
      for (const each of cases) it(each.title, () => each.check(machine));
    });
});
