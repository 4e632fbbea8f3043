import {distrustDefinition, type Definition} from '../../state/definitions/definition.js';
import type {HandlerContext} from './handler.js';

/** The definitions that a unit may obey; the others are told in the journal. */
export function selectTrusted(
  {host, log}: HandlerContext,
  definitions: readonly Definition[],
): readonly Definition[] {
  return definitions.filter((definition) => {
    const reason = distrustDefinition(host, definition);
    if (reason !== undefined) log(4, `the definition ${definition.path} is ignored: ${reason}`);
    return reason === undefined;
  });
}
