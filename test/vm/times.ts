import {relative} from 'node:path';
import Mocha from 'mocha';
import Complete from '../complete.js';

const {EVENT_RUN_END, EVENT_SUITE_BEGIN, EVENT_SUITE_END} = Mocha.Runner.constants;

/** Mocha's own report, followed by the duration of each file, including boots of its machines: `time: 75 s in FILE`. */
export default class Times extends Complete {
  constructor(runner: Mocha.Runner, options?: Mocha.MochaOptions) {
    super(runner, options);
    const times = new Map<string, number>();
    let began = 0;
    const isFile = (suite: Mocha.Suite) => suite.parent?.root === true;
    runner.on(EVENT_SUITE_BEGIN, (suite) => {
      if (isFile(suite)) began = Date.now();
    });
    runner.on(EVENT_SUITE_END, (suite) => {
      const file = relative('.', suite.file ?? '');
      if (isFile(suite)) times.set(file, (times.get(file) ?? 0) + Date.now() - began);
    });
    runner.once(EVENT_RUN_END, () => {
      for (const [file, time] of times) console.log(`  time: ${Math.round(time / 1000)} s in ${file}`);
    });
  }
}
