import Mocha from 'mocha';

const {EVENT_RUN_END} = Mocha.Runner.constants;

/**
 * Mocha's own report. A run that ends before its last test fails: when nothing is pending any more, for example after
 * an error in a reporter, Node ends with 0, and the tests after it would be missing without a word.
 */
export default class Complete extends Mocha.reporters.Spec {
  constructor(runner: Mocha.Runner, options?: Mocha.MochaOptions) {
    super(runner, options);
    let ended = false;
    runner.once(EVENT_RUN_END, () => (ended = true));
    process.once('exit', () => {
      if (ended) return;
      console.error('the tests ended before the last one');
      process.exitCode = 1;
    });
  }
}
