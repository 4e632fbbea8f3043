import assert from 'node:assert/strict';
import {loadOclif} from '../../src/entry/cli/oclif.js';

describe('loading oclif', () => {
  const stdout = Object.getOwnPropertyDescriptor(process, 'stdout');
  afterEach(() => {
    if (stdout !== undefined) Object.defineProperty(process, 'stdout', stdout);
  });

  it('leaves standard output as it was, also when two runs load it at the same time', async () => {
    const before = process.stdout;
    await Promise.all([loadOclif(), loadOclif()]);
    assert.equal(process.stdout, before);
  });
});
