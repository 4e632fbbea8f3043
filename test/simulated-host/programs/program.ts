import type {CommandResult} from '../../../src/host/host.js';
import type {SimulatedMachine} from '../kernel/machine.js';

/** A program of the simulated machine. */
export type Program = (
  machine: SimulatedMachine,
  userId: number,
  args: readonly string[],
) => Answer | Promise<Answer>;
export type Answer = CommandResult;

export const ok: Answer = {status: 0, stdout: '', stderr: ''};
export const said = (stdout: string, status = 0): Answer => ({status, stdout, stderr: ''});
export const complained = (stderr: string, status = 1): Answer => ({status, stdout: '', stderr});

/** @throws Error for a use that is not simulated: a test must not pass because nothing happened. */
export function unsupported(program: string, word: string): never {
  throw new Error(`the simulated ${program} does not know ${word}: add it to test/simulated-host/programs`);
}
