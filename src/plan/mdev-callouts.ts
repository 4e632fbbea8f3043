import {ExitCode} from '../host/errors.js';
import {
  isSupported,
  skippedNotes,
  type CalloutAction,
  type CalloutCall,
  type Callouts,
  type CalloutState,
  type CalloutSubject,
} from '../mdev/callout.js';
import {printCompactConfig, type MdevConfig} from '../mdev/definition.js';
import {plan, refuse, type CalloutStep, type Plan, type Planned, type Step} from './step.js';

/** What the planners of mediated devices know of scripts. */
export interface CalloutRules {
  readonly callouts: Callouts;
  /** Whether a script that fails keeps nothing from being done. */
  readonly force: boolean;
}

/** The device and the command that the scripts are called about. */
export interface CalloutTopic {
  readonly subject: CalloutSubject;
  readonly action: CalloutAction;
  /** The device's configuration, which scripts read on standard input. */
  readonly config: MdevConfig;
}

/**
 * The steps with the scripts called around them, as mdevctl does: `pre`, which may refuse, before; `post` and the
 * notifiers after, with what became of it, also when it was undone.
 */
export function withCallouts(
  {subject, action, config}: CalloutTopic,
  {callouts, force}: CalloutRules,
  steps: readonly Step[],
): Planned {
  const notes = skippedNotes(callouts);
  const {scripts, notifiers} = callouts;
  if (steps.length === 0) return plan([]);
  if (scripts.length > 0 && !isSupported(callouts, 'pre', action)) {
    const message = `the script ${scripts.join(', ')} for type ${subject.type} does not support to ${action}`;
    if (!force)
      return refuse({
        code: 'callout-failed',
        exitCode: ExitCode.refused,
        message,
        details: [...notes, 'nothing was changed'],
        hint: 'ask those who made the script, or go on nevertheless with --force',
      });
    notes.push(`${message}; going on, as --force says`);
  }
  const input = printCompactConfig(config);
  const step = (event: CalloutCall['event'], state: CalloutState): CalloutStep => ({
    kind: 'callout',
    uuid: subject.uuid,
    call: {subject, event, action, state, input},
    scripts: event === 'notify' ? notifiers : scripts,
    claimed: event !== 'notify' && callouts.supports !== undefined,
    force: false,
    undo: [],
  });
  const tell = (state: CalloutState): CalloutStep[] => [
    ...(scripts.length > 0 && isSupported(callouts, 'post', action) ? [step('post', state)] : []),
    ...(notifiers.length > 0 ? [step('notify', state)] : []),
  ];
  const asked = isSupported(callouts, 'pre', action) ? scripts : [];
  // Also where no script is asked: its undo is what tells that the command failed.
  const before: CalloutStep = {
    ...step('pre', 'none'),
    scripts: asked,
    force,
    onRefusal: notifiers.length > 0 ? [step('notify', 'none')] : [],
    undo: tell('failure'),
  };
  return plan(
    [...(asked.length > 0 || before.undo.length > 0 ? [before] : []), ...steps, ...tell('success')],
    {notes},
  );
}

/** Several plans as one: all are done, or none. */
export function together(plans: readonly Planned[]): Planned {
  const refusal = plans.find((one) => one.kind === 'refusal');
  if (refusal !== undefined) return refusal;
  const all = plans.filter((one): one is Plan => one.kind === 'plan');
  return plan(
    all.flatMap(({steps}) => steps),
    {notes: [...new Set(all.flatMap(({notes}) => notes))]},
  );
}
