function fail(reason: unknown): never {
  throw reason;
}

/** For mocha's `--require`: an error in a promise that nothing waits for fails the test. Mocha ignores it. */
export const mochaHooks = {
  beforeAll(): void {
    process.on('unhandledRejection', fail);
  },
  afterAll(): void {
    process.off('unhandledRejection', fail);
  },
};
