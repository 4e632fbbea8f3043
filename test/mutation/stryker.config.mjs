import process from 'node:process';

/** What `make mutation` does: FILES are changed, and TESTS run on each change that they reach. */
export default {
  mutate: process.env.FILES.split(' '),
  testRunner: 'mocha',
  plugins: ['@stryker-mutator/mocha-runner'],
  mochaOptions: {spec: process.env.TESTS.split(' '), 'no-config': true},
  testRunnerNodeArgs: ['--import', 'tsx', '--no-experimental-require-module'],
  coverageAnalysis: 'perTest',
  // What is computed while modules load is reached by each test: such a change costs a run of all of them.
  ignoreStatic: true,
  timeoutMS: 20_000,
  ignorePatterns: ['coverage', 'test/mutation'],
  tempDirName: 'coverage/mutation',
  reporters: ['progress-append-only', 'clear-text', 'html', 'json'],
  clearTextReporter: {allowColor: false, logTests: false, reportTests: false},
  htmlReporter: {fileName: 'coverage/mutation.html'},
  jsonReporter: {fileName: 'coverage/mutation.json'},
};
