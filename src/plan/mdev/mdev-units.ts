import type {Definition} from '../../state/definitions/definition.js';
import {mdevUnit} from '../../systemd/unit.js';
import {plan, systemctl, type Plan} from '../step.js';

/**
 * The plan for a parent that has registered: the units of the definitions that are `auto`, side by side. Not waited
 * for: each tells by itself what becomes of it. Those whose device is there become active without doing anything.
 */
export function planParentStart(definitions: readonly Definition[]): Plan {
  const units = definitions.filter(({start}) => start === 'auto').map(({uuid}) => mdevUnit(uuid));
  return plan(units.length === 0 ? [] : [systemctl(['start', '--no-block', ...units])]);
}
