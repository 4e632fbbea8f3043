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

/** The input of {@link planMdevStop}. */
interface MdevStopInput extends CalloutRules {
  readonly uuid: Uuid;
  /** The device; undefined when it does not exist. */
  readonly mdev: Mdev | undefined;
  readonly holders: readonly NodeUser[];
  /** Whether it is accepted that the device no longer exists, as for a unit. */
  readonly mayBeGone: boolean;
}

/** Reads the input of {@link planMdevStop}. */
export function readMdevStop(
  host: HostReader,
  uuid: Uuid,
  rules: CalloutRules & Pick<MdevStopInput, 'mayBeGone'>,
): MdevStopInput {
  const mdev = readMdev(host, uuid);
  return {...rules, uuid, mdev, holders: mdev === undefined ? [] : readMdevHolders(host, uuid)};
}

/**
 * The plan that removes a mediated device. A device in use is refused even with force, because the write to `remove`
 * would block in the kernel until its users close it.
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
  // Without a type no script could recognize it: it is already being removed.
  const scripted = mdev.type !== undefined && isScripted(input);
  // A script may end the use of the device, so the check comes after the script.
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

/** The refusal for a device in use. */
export function refuseInUse({uuid, parent}: Mdev, holders: readonly NodeUser[]): Refusal {
  return refuse({
    code: 'in-use',
    exitCode: ExitCode.refused,
    message: `${uuid} on ${parent} is in use`,
    details: [...holders.map(describeNodeUser), 'nothing was changed'],
    hint: [...new Set(holders.map(adviseOnNodeUser))].join('; '),
  });
}
