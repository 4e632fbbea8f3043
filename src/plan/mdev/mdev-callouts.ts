import {ExitCode} from '../../host/errors.js';
import {
  isSupported,
  skippedNotes,
  type CalloutAction,
  type CalloutCall,
  type Callouts,
  type CalloutState,
  type CalloutSubject,
} from '../../state/definitions/callout.js';
import {printCompactConfig, type MdevConfig} from '../../state/definitions/definition.js';
import {plan, refuse, type CalloutStep, type Plan, type Planned, type Step} from '../step.js';

/** What the planners of mediated devices know about scripts. */
export interface CalloutRules {
  readonly callouts: Callouts;
  /** Whether to continue when a script fails. */
  readonly force: boolean;
}

/** The device and the command that the scripts are called about. */
interface CalloutTopic {
  readonly subject: CalloutSubject;
  readonly action: CalloutAction;
  /** The device's configuration, which scripts read on standard input. */
  readonly config: MdevConfig;
}

/** Whether a script is called for the device: it may change what is possible, and must learn of a failure. */
export function isScripted({callouts: {scripts, notifiers}}: Pick<CalloutRules, 'callouts'>): boolean {
  return scripts.length + notifiers.length > 0;
}

/**
 * The steps with the calls of scripts around them, as in mdevctl: first `pre`, which may refuse, and in the end `post`
 * and the notifiers with the result, also after an undo.
 */
export function withCallouts(
  {subject, action, config}: CalloutTopic,
  {callouts, force}: CalloutRules,
  steps: readonly Step[],
): Planned {
  const notes = skippedNotes(callouts);
  const {scripts, notifiers} = callouts;
  if (steps.length === 0) return plan([]);
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
  const notify = (state: CalloutState) => (notifiers.length > 0 ? [step('notify', state)] : []);
  if (scripts.length > 0 && !isSupported(callouts, 'pre', action)) {
    const message = `the script ${scripts.join(', ')} for type ${subject.type} does not support ${action}`;
    if (!force)
      return refuse(
        {
          code: 'callout-failed',
          exitCode: ExitCode.refused,
          message,
          details: [...notes, 'nothing was changed'],
          hint: 'see the documentation of the script, or use --force to continue without it',
        },
        notify('none'),
      );
    notes.push(`${message}; continuing because of --force`);
  }
  const tell = (state: CalloutState): CalloutStep[] => [
    ...(scripts.length > 0 && isSupported(callouts, 'post', action) ? [step('post', state)] : []),
    ...notify(state),
  ];
  const asked = isSupported(callouts, 'pre', action) ? scripts : [];
  // Also without a script to ask: its undo reports that the command failed.
  const before: CalloutStep = {
    ...step('pre', 'none'),
    scripts: asked,
    force,
    onRefusal: notify('none'),
    undo: tell('failure'),
  };
  return plan(
    [...(asked.length > 0 || before.undo.length > 0 ? [before] : []), ...steps, ...tell('success')],
    {notes},
  );
}

/** Several plans as one: all or none. */
export function together(plans: readonly Planned[]): Planned {
  const refusal = plans.find((one) => one.kind === 'refusal');
  if (refusal !== undefined) return refusal;
  const all = plans.filter((one): one is Plan => one.kind === 'plan');
  return plan(
    all.flatMap(({steps}) => steps),
    {notes: [...new Set(all.flatMap(({notes}) => notes))]},
  );
}
