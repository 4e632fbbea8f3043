import {ExitCode} from '../../host/errors.js';
import type {HostReader} from '../../host/host.js';
import {readMdevHolders} from '../../usage/mdev-users.js';
import {readMdev, type Mdev} from '../../devices/mdev/mdev.js';
import type {Uuid} from '../../devices/mdev/uuid.js';
import type {NodeUser} from '../../usage/holder.js';
import {adviseOnNodeUser, describeNodeUser} from '../../usage/words.js';
import {isScripted, withCallouts, type CalloutRules} from './mdev-callouts.js';
import {removeMdev} from './mdev-start.js';
import {plan, refuse, type Planned, type Refusal, type Step} from '../step.js';

/** Everything {@link planMdevStop} decides on. */
export interface MdevStopInput extends CalloutRules {
  readonly uuid: Uuid;
  /** The device; undefined when it is not there. */
  readonly mdev: Mdev | undefined;
  readonly holders: readonly NodeUser[];
  /** Whether a device that is gone already is what is wanted: for a unit it is. */
  readonly mayBeGone: boolean;
}

/** Reads what {@link planMdevStop} needs to know. */
export function readMdevStop(
  host: HostReader,
  uuid: Uuid,
  rules: CalloutRules & Pick<MdevStopInput, 'mayBeGone'>,
): MdevStopInput {
  const mdev = readMdev(host, uuid);
  return {...rules, uuid, mdev, holders: mdev === undefined ? [] : readMdevHolders(host, uuid)};
}

/**
 * The plan that removes a mediated device. One that is in use is refused whatever is forced: the write to `remove`
 * would wait in the kernel for whoever uses it.
 */
export function planMdevStop(input: MdevStopInput): Planned {
  const {uuid, mdev, holders} = input;
  if (mdev === undefined)
    return input.mayBeGone
      ? plan([])
      : refuse({
          code: 'no-device',
          exitCode: ExitCode.noDevice,
          message: `there is no mediated device ${uuid}`,
          details: ['nothing was changed'],
          hint: '`pearasys mdev list` lists the existing devices',
        });
  // Without its type no script could know whether it is its own: it is on its way already.
  const scripted = mdev.type !== undefined && isScripted(input);
  // A script may end what uses the device: then it is looked at after the script.
  if (holders.length > 0 && !scripted) return refuseInUse(mdev, holders);
  const steps: Step[] = [
    ...(scripted ? [{kind: 'expect-unused' as const, uuid, undo: []}] : []),
    removeMdev(uuid),
    {kind: 'expect-mdev', uuid, present: false, undo: []},
  ];
  if (mdev.type === undefined) return plan(steps);
  return withCallouts(
    {
      subject: {uuid, parent: mdev.parent, type: mdev.type},
      action: 'stop',
      config: {type: mdev.type, start: 'manual', attributes: []},
    },
    input,
    steps,
  );
}

/** The refusal of a device that is in use. */
export function refuseInUse({uuid, parent}: Mdev, holders: readonly NodeUser[]): Refusal {
  return refuse({
    code: 'in-use',
    exitCode: ExitCode.refused,
    message: `${uuid} on ${parent} is in use`,
    details: [...holders.map(describeNodeUser), 'nothing was changed'],
    hint: [...new Set(holders.map(adviseOnNodeUser))].join('; '),
  });
}
