import {closeShared} from './shared.js';

/** For mocha's `--require`: shuts the shared machine down after the last suite. */
export const mochaHooks = {
  async afterAll(this: Mocha.Context): Promise<void> {
    this.timeout(120_000);
    await closeShared();
  },
};
