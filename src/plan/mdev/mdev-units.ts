import type {Definition} from '../../state/definitions/definition.js';
import {mdevUnit} from '../../systemd/unit.js';
import {plan, systemctl, type Plan} from '../step.js';

/**
 * The plan for a parent that has registered: the units of its `auto` definitions, in parallel and without
 * waiting: each reports its own result. Units whose devices exist become active without doing anything.
 */
export function planParentStart(definitions: readonly Definition[]): Plan {
  const units = definitions.filter(({start}) => start === 'auto').map(({uuid}) => mdevUnit(uuid));
  return plan(units.length === 0 ? [] : [systemctl(['start', '--no-block', ...units])]);
}
